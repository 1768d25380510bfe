"""Writing checkpoints: each in one commit, and the first child of its parent, or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentmem import CompactedError, Store, Transaction
from agentmem.engines.rows import EntryRow
from agentmem.values import canonical, load
from langgraph_agentmem.checkpoint_commit import Recorder
from langgraph_agentmem.checkpoint_places import (
    Graph,
    checkpoint_key,
    parts_of,
    split_key,
    task_key,
)
from langgraph_agentmem.checkpoint_reading import fetching
from langgraph_agentmem.checkpoint_records import add_writes
from langgraph_agentmem.checkpoint_runs import claim_of

__all__ = ["Child", "Writing"]

T = TypeVar("T")
_PAGE = 64


@dataclass(frozen=True, slots=True)
class Child:
    """A checkpoint that is to be written.

    Attributes:
        graph: whose it is.
        checkpoint_id: its id.
        parent: the id of the checkpoint that it was made from; None: the first of its graph.
        record: what is stored of it.
        parts: the large payloads that the record refers to.
        metadata: of the commit.
    """

    graph: Graph
    checkpoint_id: str
    parent: str | None
    record: dict[str, Any]
    parts: Mapping[str, str]
    metadata: dict[str, Any]

    @property
    def key(self) -> str:
        """Its key among the checkpoints of its graph."""
        return checkpoint_key(self.checkpoint_id)


class Writing:
    """What a saver writes.

    Args:
        store: where to.
        agent: who the commits are by; None: the agent of the store.
    """

    def __init__(self, store: Store, agent: str | None) -> None:
        self._store = store
        self._agent = agent
        self._recorder = Recorder(store, agent)

    def replace(self, child: Child, other: str | None = None) -> None:
        """Writes a checkpoint, in place of one with the same id.

        Args:
            other: the child that the parent has already, for the log.
        """
        metadata = child.metadata
        if other is not None:
            metadata = {**metadata, "concurrent_with": other}
        if child.parts:
            self._transact(lambda tx: _put_all(tx, child), metadata)
        else:
            self._recorder.put(child.graph.checkpoints, child.key, child.record, metadata)

    def only_child(self, child: Child, *, refuse: bool) -> str | None:
        """Writes a checkpoint, and tells if its parent has another child.

        Args:
            refuse: then it is not written.

        Returns: the id of the other child; None if there is none.
        """
        claim = claim_of(child.graph, child.parent)
        first = self._claim(child, claim)
        if first is None:
            return None
        graph = child.graph
        if self._is_there(child):
            self.replace(child)  # the same checkpoint once more, whoever was first
            return None
        other = (
            self._store.get(checkpoint_key(first), namespace=graph.checkpoints) if first else None
        )
        if other is None or other.value["parent"] != child.parent:
            # Whoever was first is deleted, so that the claim tells nothing any more.
            return self._by_looking(child, refuse=refuse)
        if not refuse:
            self.replace(child, first)
        return first

    def _claim(self, child: Child, claim: str) -> str | None:
        """Writes it as the first child; else the id of the first child, "" if not known."""
        if child.parts:
            return self._claim_whole(child, claim)
        key, namespace = child.key, child.graph.checkpoints
        try:
            first = self._recorder.put_once(namespace, key, child.record, child.metadata, claim)
        except CompactedError:
            return ""  # claimed, by a checkpoint that is gone since
        if first is None:
            return None
        if first.key == key and _same(first, child.record) and self._is_there(child):
            return None  # this very put, once more
        return split_key(first.key)[0]

    def _is_there(self, child: Child) -> bool:
        return self._store.get(child.key, namespace=child.graph.checkpoints) is not None

    def _claim_whole(self, child: Child, claim: str) -> str | None:
        """As `_claim`, in a transaction, and without a word in the record of conflicts."""
        written = False

        def write(tx: Transaction) -> str:
            nonlocal written
            written = True
            return _put_all(tx, child)

        first = self._transact(write, child.metadata, op_id=claim)
        if written and first == child.checkpoint_id:
            return None
        if isinstance(first, str):
            return first
        commits = self._store.log(op_id=claim, limit=1)
        places = [change for commit in commits for change in commit.changes]
        keys = (place.key for place in places if place.namespace == child.graph.checkpoints)
        return next((split_key(key)[0] for key in keys), "")

    def _by_looking(self, child: Child, *, refuse: bool) -> str | None:
        """As `only_child`, by reading what has come after the parent."""

        def write(tx: Transaction) -> str | None:
            other = _sibling(tx, child)
            if other is None or not refuse:
                _put_all(tx, child)
            return other

        return self._transact(write, child.metadata)

    def fork(self, child: Child) -> None:
        """Writes a checkpoint whose parent may have other children: that is what was asked for.

        If it is the first child, a later one is told so.
        """
        if self._claim_whole(child, claim_of(child.graph, child.parent)) is not None:
            self.replace(child)

    def writes(
        self,
        graph: Graph,
        checkpoint_id: str,
        writes: Sequence[tuple[str, Any]],
        task: tuple[str, str],
        serde: SerializerProtocol,
        metadata: dict[str, Any],
    ) -> None:
        """Adds what a task wants to write to what it has written before.

        Args:
            task: (id, path).
        """
        if not writes:
            return
        key, namespace = task_key(checkpoint_id, task[0]), graph.checkpoints
        added = add_writes(None, writes, task[1], serde, _no_parts)
        if added is None:
            return
        if not added[1] and self._recorder.create(namespace, key, added[0], metadata):
            return

        def add(tx: Transaction) -> None:
            before = tx.get(key, namespace=namespace)
            fetch = fetching(tx, graph.thread_id)
            earlier = before.value if before is not None else None
            added = add_writes(earlier, writes, task[1], serde, fetch)
            if added is not None:
                _put_parts(tx, graph, added[1])
                tx.put(key, added[0], namespace=namespace, text=False, merge=False)

        self._transact(add, metadata)

    def _transact(
        self, fn: Callable[[Transaction], T], metadata: Mapping[str, Any], op_id: str | None = None
    ) -> T:
        return self._store.transact(fn, agent=self._agent, metadata=metadata, op_id=op_id)


def _no_parts(_names: Iterable[str]) -> Mapping[str, str]:
    """For a record that refers to none."""
    return {}


def _same(row: EntryRow, record: Mapping[str, Any]) -> bool:
    """Whether a row holds a record."""
    return row.value is not None and load(row.value) == load(canonical(record))


def _put_all(tx: Transaction, child: Child) -> str:
    _put_parts(tx, child.graph, child.parts)
    tx.put(child.key, child.record, namespace=child.graph.checkpoints, text=False, merge=False)
    return child.checkpoint_id


def _put_parts(tx: Transaction, graph: Graph, parts: Mapping[str, str]) -> None:
    """Writes those that are not there. The read is checked, so none can go meanwhile."""
    namespace = parts_of(graph.thread_id)
    for name, text in parts.items():
        if tx.get(name, namespace=namespace) is None:
            tx.put(name, text, namespace=namespace, text=False, merge=False)


def _sibling(tx: Transaction, child: Child) -> str | None:
    """Another child of the parent; of no parent: any checkpoint of the graph.

    A child has a larger id than its parent.
    """
    after = checkpoint_key(child.parent) if child.parent is not None else None
    while True:
        entries = tx.list(child.graph.checkpoints, limit=_PAGE, after=after)
        for entry in entries:
            other, task_id = split_key(entry.key)
            if task_id is not None or other == child.checkpoint_id:
                continue
            if child.parent is None or entry.value["parent"] == child.parent:
                return other
        if len(entries) < _PAGE:
            return None
        after = entries[-1].key
