"""Where checkpoints are kept: the namespaces and keys of threads, graphs and checkpoints.

::

    langgraph/THREAD/checkpoints/GRAPH    a key for each checkpoint, and after it one for each task
                                          of it: what the task wants to write
    langgraph/THREAD/parts                large payloads, by the digest of their bytes

GRAPH is ``graph`` for the root graph and ``graph:NS`` for the subgraph with ``checkpoint_ns`` NS.

Keys rise with the ids of checkpoints, that is with time, so that an index grows at its end, where
that is cheap. And what is read of a checkpoint lies together: whoever reads backwards from the end
meets the tasks of the newest checkpoint, and then the checkpoint::

    1f0c                   a checkpoint
    1f0c 5e0a…             its tasks
    1f0c 91bb…
    1f0d                   the next one, which has none yet
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables import RunnableConfig

from agentmem import InvalidValueError, Snapshot, Store, Transaction

__all__ = [
    "Graph",
    "checkpoint_key",
    "checkpoints_of",
    "configurable",
    "graphs_of",
    "parts_of",
    "split_key",
    "task_key",
    "thread_namespace",
    "thread_of",
]

Labels = tuple[str, ...]
View = Store | Snapshot | Transaction

ROOT: Final[Labels] = ("langgraph",)
_CHECKPOINTS: Final = "checkpoints"
_PARTS: Final = "parts"
_GRAPH: Final = "graph"

_SEPARATOR: Final = " "  # smaller than all that stands before it
_ESCAPE: Final = "!"
_SMALL: Final = re.compile(f"[\x01-{_ESCAPE}]")
_ESCAPED: Final = re.compile(f"{_ESCAPE}(.)", re.DOTALL)
_SHIFT: Final = 0x40
_ESCAPED_ESCAPE: Final = "~"  # larger than every other character after an escape


def checkpoint_key(checkpoint_id: str) -> str:
    """The key of a checkpoint.

    Guarantees: ``checkpoint_key(a) < checkpoint_key(b)`` exactly if a < b; the keys of a's tasks
    lie between them.

    Raises:
        InvalidValueError: the id is empty.
    """
    if not checkpoint_id:
        raise InvalidValueError("the id of a checkpoint must not be empty")
    if _SMALL.search(checkpoint_id) is None:
        return checkpoint_id
    return _SMALL.sub(_escaped, checkpoint_id)


def task_key(checkpoint_id: str, task_id: str) -> str:
    """The key of what a task of a checkpoint wants to write."""
    return checkpoint_key(checkpoint_id) + _SEPARATOR + task_id


def split_key(key: str) -> tuple[str, str | None]:
    """The id of the checkpoint that a key is of, and that of the task; None: of no task."""
    escaped, separator, task_id = key.partition(_SEPARATOR)
    if _ESCAPE in escaped:
        escaped = _ESCAPED.sub(_unescaped, escaped)
    return escaped, task_id if separator else None


def _escaped(match: re.Match[str]) -> str:
    small = match[0]
    return _ESCAPE + (_ESCAPED_ESCAPE if small == _ESCAPE else chr(ord(small) + _SHIFT))


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPE if match[1] == _ESCAPED_ESCAPE else chr(ord(match[1]) - _SHIFT)


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph, or subgraph, of one thread: what has a newest checkpoint of its own.

    Attributes:
        thread_id: the thread.
        checkpoint_ns: the subgraph and its task; ``""`` is the root graph.
    """

    thread_id: str
    checkpoint_ns: str

    @classmethod
    def of(cls, config: RunnableConfig) -> Graph:
        """The graph that a config names.

        Raises:
            InvalidValueError: it names no thread.
        """
        named = configurable(config)
        return cls(thread_of(named), str(named.get("checkpoint_ns") or ""))

    @classmethod
    def at(cls, namespace: Labels) -> Graph:
        """The graph whose checkpoints are in a namespace."""
        thread_id, _kind, label = namespace[len(ROOT) :]
        return cls(thread_id, label.partition(":")[2])

    @property
    def label(self) -> str:
        """Its label in namespaces; no two graphs of a thread have the same."""
        return f"{_GRAPH}:{self.checkpoint_ns}" if self.checkpoint_ns else _GRAPH

    @property
    def checkpoints(self) -> Labels:
        """The namespace of its checkpoints, and of what their tasks have written."""
        return (*ROOT, self.thread_id, _CHECKPOINTS, self.label)

    def config(self, checkpoint_id: str) -> RunnableConfig:
        """The config of one of its checkpoints."""
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.checkpoint_ns,
                "checkpoint_id": checkpoint_id,
            }
        }


def thread_namespace(thread_id: str) -> Labels:
    """The namespace of a thread and everything of it."""
    return (*ROOT, thread_id)


def checkpoints_of(thread_id: str) -> Labels:
    """The namespace above the checkpoints of a thread."""
    return (*thread_namespace(thread_id), _CHECKPOINTS)


def parts_of(thread_id: str) -> Labels:
    """The namespace of the large payloads of a thread."""
    return (*thread_namespace(thread_id), _PARTS)


def graphs_of(view: View, thread_id: str | None) -> list[Graph]:
    """The graphs that have a checkpoint, of a thread, or of all threads for None."""
    under = ROOT if thread_id is None else checkpoints_of(thread_id)
    depth = len(ROOT) + 3
    return [
        Graph.at(namespace)
        for namespace in view.namespaces(under)
        if len(namespace) == depth and namespace[len(ROOT) + 1] == _CHECKPOINTS
    ]


def configurable(config: RunnableConfig) -> Mapping[str, Any]:
    """What a config names."""
    return config.get("configurable") or {}


def thread_of(named: Mapping[str, Any]) -> str:
    """The thread that is named, as text: LangGraph takes 1 and "1" for the same.

    Raises:
        InvalidValueError: none is.
    """
    thread_id = named.get("thread_id")
    if thread_id is None or thread_id == "":
        raise InvalidValueError(
            "the config names no thread: give config={'configurable': {'thread_id': ...}}"
        )
    return str(thread_id)
