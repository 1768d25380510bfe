"""agentmem for LangGraph: a store, a checkpointer and nodes that parallel agents cannot corrupt.

A name is imported from its module when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from langchain_agentmem.lazy_names import imported

if TYPE_CHECKING:
    # One line a public name here and one in `_MODULES`; both sorted.
    from langgraph_agentmem.checkpoint_runs import ConcurrentRunError as ConcurrentRunError
    from langgraph_agentmem.checkpoint_runs import ConcurrentRunWarning as ConcurrentRunWarning
    from langgraph_agentmem.checkpoint_serializer import StrictSerializer as StrictSerializer
    from langgraph_agentmem.nodes import transactional_node as transactional_node
    from langgraph_agentmem.saver import AgentMemSaver as AgentMemSaver
    from langgraph_agentmem.store import AgentMemStore as AgentMemStore

_MODULES: Final[dict[str, str]] = {
    "AgentMemSaver": "saver",
    "AgentMemStore": "store",
    "ConcurrentRunError": "checkpoint_runs",
    "ConcurrentRunWarning": "checkpoint_runs",
    "StrictSerializer": "checkpoint_serializer",
    "transactional_node": "nodes",
}

# Which extra brings a package that may be missing.
_EXTRAS: Final = {"langchain_core": "langgraph", "langgraph": "langgraph"}

__all__ = sorted(_MODULES)  # noqa: PLE0605  # the table is the list of public names


def __getattr__(name: str) -> Any:
    return imported(__name__, _MODULES, _EXTRAS, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
