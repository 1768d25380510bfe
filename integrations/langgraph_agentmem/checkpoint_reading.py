"""Reading checkpoints as of one revision: one by its id, the newest, or those that match."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple, PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentmem import Entry, Snapshot, Transaction
from langgraph_agentmem.checkpoint_places import (
    Graph,
    configurable,
    graphs_of,
    order_key,
    parts_of,
    thread_of,
)
from langgraph_agentmem.checkpoint_records import (
    Fetch,
    bare_checkpoint_in,
    channel_in,
    checkpoint_in,
    metadata_in,
    pending_writes,
)

__all__ = ["Query", "Reading", "fetching"]

_PAGE: Final = 64

Record = Mapping[str, Any]


def fetching(view: Snapshot | Transaction, thread_id: str) -> Fetch:
    """A function that reads parts of a thread's payloads in a view."""

    def fetch(names: Iterable[str]) -> Mapping[str, str]:
        found = view.get_many(names, namespace=parts_of(thread_id))
        return {name: entry.value for name, entry in found.items()}

    return fetch


@dataclass(frozen=True, slots=True)
class Query:
    """What `AgentMemSaver.list` is asked for.

    Attributes:
        thread_id: None: of every thread.
        checkpoint_ns: None: of every graph.
        checkpoint_id: only this one; None: any.
        metadata: names and values that it must have.
        before: only those with a smaller id; None: any.
        limit: at most so many; None: all.
    """

    thread_id: str | None
    checkpoint_ns: str | None
    checkpoint_id: str | None
    metadata: Mapping[str, Any]
    before: str | None
    limit: int | None

    @classmethod
    def parse(
        cls,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Query:
        """The arguments of `AgentMemSaver.list`.

        Raises:
            InvalidValueError: the config names no thread.
        """
        named: Mapping[str, Any] = configurable(config) if config is not None else {}
        earlier = configurable(before).get("checkpoint_id") if before is not None else None
        return cls(
            thread_of(named) if config is not None else None,
            named.get("checkpoint_ns"),
            named.get("checkpoint_id") or None,
            filter or {},
            earlier or None,
            limit,
        )

    @property
    def looks_for_one_before(self) -> bool:
        """Whether the newest before another is asked for, as by a replay of a subgraph."""
        return self.before is not None and self.limit == 1


class Reading:
    """Checkpoints as one view shows them.

    Args:
        view: a snapshot; or a transaction, which then is checked for what was read.
        serde: makes values of payloads.
    """

    def __init__(self, view: Snapshot | Transaction, serde: SerializerProtocol) -> None:
        self._view = view
        self._serde = serde

    def record(self, graph: Graph, checkpoint_id: str) -> Record | None:
        """What is stored of a checkpoint; None if it is not there."""
        entry = self._view.get(order_key(checkpoint_id), namespace=graph.checkpoints)
        return cast(Record, entry.value) if entry is not None else None

    def newest_record(self, graph: Graph) -> Record | None:
        """What is stored of the newest checkpoint of a graph."""
        return next((entry.value for entry in self._view.list(graph.checkpoints, limit=1)), None)

    def named(
        self, graph: Graph, checkpoint_id: str, config: RunnableConfig
    ) -> CheckpointTuple | None:
        """One checkpoint, under the config that asked for it."""
        record = self.record(graph, checkpoint_id)
        return self._tuple(graph, record, config) if record is not None else None

    def newest(self, graph: Graph) -> CheckpointTuple | None:
        """The newest checkpoint of a graph."""
        record = self.newest_record(graph)
        return self._tuple(graph, record) if record is not None else None

    def matching(self, query: Query) -> Iterator[CheckpointTuple]:
        """The checkpoints that a query asks for, newest first, over all graphs together."""
        left = query.limit
        if left is not None and left <= 0:
            return
        for checkpoint_id, graph, record in self._newest_first(query):
            if query.checkpoint_id is not None and checkpoint_id != query.checkpoint_id:
                continue
            if query.metadata and not self._has(graph, record, query.metadata):
                continue
            yield self._tuple(graph, record)
            if left is not None:
                left -= 1
                if not left:
                    return

    def _newest_first(self, query: Query) -> Iterator[tuple[str, Graph, Record]]:
        if query.thread_id is not None and query.checkpoint_ns is not None:
            yield from self._of_graph(Graph(query.thread_id, query.checkpoint_ns), query)
            return
        graphs = (
            graph
            for graph in graphs_of(self._view, query.thread_id)
            if query.checkpoint_ns is None or graph.checkpoint_ns == query.checkpoint_ns
        )
        streams = [self._of_graph(graph, query) for graph in graphs]
        yield from heapq.merge(*streams, key=lambda found: found[0], reverse=True)

    def _of_graph(self, graph: Graph, query: Query) -> Iterator[tuple[str, Graph, Record]]:
        if query.checkpoint_id is not None:
            one = self.record(graph, query.checkpoint_id)
            earlier = query.before is None or query.checkpoint_id < query.before
            if one is not None and earlier:
                yield query.checkpoint_id, graph, one
            return
        plain = query.limit is not None and not query.metadata
        page = min(query.limit or _PAGE, _PAGE) if plain else _PAGE
        after: Entry[Any] | str | None = None if query.before is None else order_key(query.before)
        while True:
            entries = self._view.list(graph.checkpoints, limit=page, after=after)
            for entry in entries:
                yield entry.value["id"], graph, entry.value
            if len(entries) < page:
                return
            after = entries[-1]

    def metadata(self, graph: Graph, record: Record) -> CheckpointMetadata:
        """The metadata of a record."""
        return metadata_in(record, self._serde, fetching(self._view, graph.thread_id))

    def _has(self, graph: Graph, record: Record, wanted: Mapping[str, Any]) -> bool:
        metadata = self.metadata(graph, record)
        return all(metadata.get(name) == value for name, value in wanted.items())

    def _tuple(
        self, graph: Graph, record: Record, config: RunnableConfig | None = None
    ) -> CheckpointTuple:
        fetch = fetching(self._view, graph.thread_id)
        parent = record["parent"]
        return CheckpointTuple(
            config if config is not None else graph.config(record["id"]),
            checkpoint_in(record, self._serde, fetch),
            metadata_in(record, self._serde, fetch),
            graph.config(parent) if parent is not None else None,
            self.writes(graph, record["id"]),
        )

    def writes(
        self, graph: Graph, checkpoint_id: str, channels: Collection[str] | None = None
    ) -> list[PendingWrite]:
        """What the tasks of a checkpoint have written, in order; only to these channels."""
        entries = self._view.list(graph.writes(checkpoint_id))
        records = ((entry.key, entry.value) for entry in entries)
        return pending_writes(records, self._serde, fetching(self._view, graph.thread_id), channels)

    def bare(self, graph: Graph, record: Record) -> Checkpoint:
        """The checkpoint of a record, without the channel values that are kept apart."""
        return bare_checkpoint_in(record, self._serde, fetching(self._view, graph.thread_id))

    def channel(self, graph: Graph, record: Record, bare: Checkpoint, name: str) -> Any:
        """The value of one channel of a record.

        Raises:
            KeyError: nothing is stored of it there.
        """
        fetch = fetching(self._view, graph.thread_id)
        return channel_in(record, bare, name, self._serde, fetch)
