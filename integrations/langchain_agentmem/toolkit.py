"""Tools that give a model a shared memory which parallel agents cannot corrupt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import PrivateAttr

from langchain_agentmem.budget import Budget, TokenCounter
from langchain_agentmem.desk import Desk
from langchain_agentmem.opening import HoldsStore, Target
from langchain_agentmem.reading_tools import READING
from langchain_agentmem.task_tools import TASKS
from langchain_agentmem.tool import AgentMemTool, ToolKind
from langchain_agentmem.writing_tools import WRITING

__all__ = ["AgentMemToolkit"]

_KINDS: Final[dict[str, ToolKind]] = {kind.name: kind for kind in (*READING, *WRITING, *TASKS)}
_CLAIM_S: Final = 600.0  # agents are slow: a task takes them minutes


class _Held(HoldsStore):
    """The store of a toolkit."""

    def __init__(self, store: Target) -> None:
        self._hold(store)


class AgentMemToolkit(BaseToolkit):
    """Tools over a store, or a part of it: read, search, write, and tasks for other agents.

    ::

        tools = AgentMemToolkit(store, namespace="team").get_tools()
        agent = create_agent(model, tools, middleware=[AgentMemMiddleware(store, namespace="team")])

    Keys are paths, ``namespace/key``, relative to the toolkit's namespace, which a model cannot
    leave. A write takes the version that was read; if the key has moved, nothing is written, and
    the result says what changed and what to do.

    Args:
        store: an open store, or what `agentmem.open` takes; that one `close` closes.
        namespace: the part of the store that the tools see.
        access: as in `Store.scoped`: ``"write"``, ``"append"``, ``"read"``, or patterns.
        agent: who acts; None is the name of the agent whose message calls the tool, or, without
            one, that of the store.
        read_only: leave out the tools that write.
        tools: only the tools of these names.
        max_result_tokens: where results stop, and say how to read on.
        token_counter: how they are counted; None is `count_tokens_approximately`.
        claim_s: for how many seconds `task_claim` claims a task.

    Guarantees:
        A tool call that is replayed, by a retry or a resumed run, applies once, and gives its
        first result: its operation id is made of the thread, the AI message and the tool call.
    """

    _held: _Held = PrivateAttr()
    _tools: list[BaseTool] = PrivateAttr()

    def __init__(
        self,
        store: Target,
        *,
        namespace: object = None,
        access: str | Mapping[str, str] = "write",
        agent: str | None = None,
        read_only: bool = False,
        tools: Iterable[str] | None = None,
        max_result_tokens: int = 1_000,
        token_counter: TokenCounter | None = None,
        claim_s: float = _CLAIM_S,
    ) -> None:
        super().__init__()
        kinds = _chosen(tools, read_only=read_only)
        if read_only and isinstance(access, str):
            access = "read"
        budget = Budget(max_result_tokens, token_counter)
        self._held = _Held(store)
        try:
            view = self._held.store.scoped(namespace, agent=agent, access=access)
        except BaseException:
            self._held.close()
            raise
        desk = Desk(view, agent, budget, claim_s)
        self._tools = [AgentMemTool(kind, desk) for kind in kinds]

    def get_tools(self) -> list[BaseTool]:
        """The tools; the same objects each time."""
        return list(self._tools)

    def close(self) -> None:
        """Closes the store if the toolkit opened it; its tools are of no use then."""
        self._held.close()

    def __enter__(self) -> AgentMemToolkit:
        return self

    def __exit__(self, *_error: Any) -> None:
        self.close()


def _chosen(names: Iterable[str] | None, *, read_only: bool) -> list[ToolKind]:
    if isinstance(names, str):
        raise TypeError("tools is a list of names, not one str")
    wanted = list(_KINDS) if names is None else list(names)
    unknown = [name for name in wanted if name not in _KINDS]
    if unknown:
        raise ValueError(f"there are no tools {unknown}; there are {sorted(_KINDS)}")
    return [_KINDS[name] for name in wanted if not (read_only and _KINDS[name].writes)]
