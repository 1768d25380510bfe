"""agentmem for LangChain: memory, tools and retrieval that parallel agents cannot corrupt.

A name is imported from its module when it is first asked for, so that each class needs only the
packages that it is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from langchain_agentmem.lazy_names import imported

if TYPE_CHECKING:
    # One line a public name here, as `from langchain_agentmem.MODULE import NAME as NAME`, and
    # one in `_MODULES`; both sorted. A test compares them.
    from langchain_agentmem.cache import AgentMemCache as AgentMemCache
    from langchain_agentmem.history import AgentMemChatMessageHistory as AgentMemChatMessageHistory
    from langchain_agentmem.llm_merge import LLMMerge as LLMMerge
    from langchain_agentmem.memory import AgentMemMemory as AgentMemMemory
    from langchain_agentmem.middleware import AgentMemMiddleware as AgentMemMiddleware
    from langchain_agentmem.record_manager import AgentMemRecordManager as AgentMemRecordManager
    from langchain_agentmem.retriever import AgentMemRetriever as AgentMemRetriever
    from langchain_agentmem.stores import AgentMemByteStore as AgentMemByteStore
    from langchain_agentmem.stores import AgentMemKVStore as AgentMemKVStore
    from langchain_agentmem.toolkit import AgentMemToolkit as AgentMemToolkit
    from langchain_agentmem.vector_store import AgentMemVectorStore as AgentMemVectorStore

_MODULES: Final[dict[str, str]] = {
    "AgentMemByteStore": "stores",
    "AgentMemCache": "cache",
    "AgentMemChatMessageHistory": "history",
    "AgentMemKVStore": "stores",
    "AgentMemMemory": "memory",
    "AgentMemMiddleware": "middleware",
    "AgentMemRecordManager": "record_manager",
    "AgentMemRetriever": "retriever",
    "AgentMemToolkit": "toolkit",
    "AgentMemVectorStore": "vector_store",
    "LLMMerge": "llm_merge",
}

# Which extra brings a package that may be missing.
_EXTRAS: Final = {
    "langchain": "agents",
    "langchain_classic": "classic",
    "langchain_core": "langchain",
    "langgraph": "langgraph",
}

__all__ = sorted(_MODULES)  # noqa: PLE0605  # the table is the list of public names


def __getattr__(name: str) -> Any:
    return imported(__name__, _MODULES, _EXTRAS, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
