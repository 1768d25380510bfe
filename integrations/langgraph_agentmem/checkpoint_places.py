"""Where checkpoints are kept: the namespaces and keys of threads, graphs and checkpoints.

::

    langgraph/THREAD/checkpoints/GRAPH    one key a checkpoint, the newest first
    langgraph/THREAD/writes/GRAPH/ID      one key a task of that checkpoint: what it wants to write
    langgraph/THREAD/parts                large payloads, by the digest of their bytes

GRAPH is ``graph`` for the root graph and ``graph:NS`` for the subgraph with ``checkpoint_ns`` NS.

LangGraph asks for the newest checkpoint first, and a namespace is read in ascending order of its
keys. So a key begins with the id turned round: the mirror image of each character, in an order in
which the larger comes first. After a dot that is larger than all of them, which makes a prefix
come after what it is a prefix of, follows the id itself, for people::

    1f0c  ->  n9o<·1f0c
    1f0d  ->  n9o;·1f0d       smaller than the line above, for it is newer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables import RunnableConfig

from agentmem import InvalidValueError, Snapshot, Store, Transaction

__all__ = [
    "Graph",
    "checkpoints_of",
    "configurable",
    "graphs_of",
    "id_of",
    "order_key",
    "parts_of",
    "thread_namespace",
    "thread_of",
    "writes_of",
]

Labels = tuple[str, ...]
View = Store | Snapshot | Transaction

ROOT: Final[Labels] = ("langgraph",)
_CHECKPOINTS: Final = "checkpoints"
_WRITES: Final = "writes"
_PARTS: Final = "parts"
_GRAPH: Final = "graph"

_END: Final = "·"  # larger than everything that stands before it
_FIRST: Final = 0x21
_LAST: Final = 0x7E
_MIRRORED: Final = {code: chr(_FIRST + _LAST - code) for code in range(_FIRST, _LAST + 1)}
_TABLE: Final = str.maketrans({chr(code): image for code, image in _MIRRORED.items()})
_MAX_CODE: Final = 0x10FFFF


def order_key(checkpoint_id: str) -> str:
    """The key of a checkpoint. Guarantees: ``order_key(a) < order_key(b)`` exactly if a > b."""
    if checkpoint_id.isascii() and checkpoint_id.isprintable() and " " not in checkpoint_id:
        return checkpoint_id.translate(_TABLE) + _END + checkpoint_id
    return "".join(map(_mirrored, checkpoint_id)) + _END + checkpoint_id


def _mirrored(character: str) -> str:
    code = ord(character)
    if code < _FIRST:  # the smallest: larger than every image of a printable character
        return f"\x7f{_FIRST - code:02x}"
    if code > _LAST:  # the largest: smaller than every such image
        return f" {_MAX_CODE - code:06x}"
    return _MIRRORED[code]


def id_of(key: str) -> str:
    """The id of the checkpoint with a key."""
    return key.partition(_END)[2]


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
        """The namespace of its checkpoints."""
        return (*checkpoints_of(self.thread_id), self.label)

    def writes(self, checkpoint_id: str) -> Labels:
        """The namespace of what the tasks of a checkpoint have written."""
        return (*writes_of(self.thread_id), self.label, checkpoint_id)

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


def writes_of(thread_id: str) -> Labels:
    """The namespace above all writes of a thread."""
    return (*thread_namespace(thread_id), _WRITES)


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
