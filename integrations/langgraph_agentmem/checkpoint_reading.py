"""Reading checkpoints as of one revision: one by its id, the newest, or those that match."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple, PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentmem import Snapshot, Store, Transaction
from langgraph_agentmem.checkpoint_places import (
    Graph,
    configurable,
    graphs_of,
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
from langgraph_agentmem.checkpoint_rows import (
    Found,
    MoreNeeded,
    backwards,
    from_key,
    parts_at_present,
    present,
)

__all__ = ["Query", "Reading", "fetching", "tuple_at_present"]

_PAGE: Final = 64

Record = Mapping[str, Any]


def fetching(view: Snapshot | Transaction, thread_id: str) -> Fetch:
    """A function that reads parts of a thread's payloads in a view."""

    def fetch(names: Iterable[str]) -> Mapping[str, str]:
        found = view.get_many(names, namespace=parts_of(thread_id))
        return {name: entry.value for name, entry in found.items()}

    return fetch


def tuple_at_present(
    store: Store,
    serde: SerializerProtocol,
    graph: Graph,
    checkpoint_id: str | None,
    config: RunnableConfig,
) -> CheckpointTuple | None:
    """A checkpoint of a graph, or the newest for None, with what its tasks have written.

    It is the call that is made most often, and is answered from one statement, and one for each
    part that the record refers to, wherever that is enough. Where it is not, because somebody
    deletes at this moment, say, all is read anew, as of one revision.
    """
    asked = config if checkpoint_id is not None else None
    try:
        found = present(store, graph.checkpoints, checkpoint_id)
        fetch = partial(parts_at_present, store, parts_of(graph.thread_id))
        return _tuple(graph, found, serde, fetch, asked) if found is not None else None
    except MoreNeeded:
        reading = Reading(store.snapshot(), serde)
        found = reading.found(graph, checkpoint_id)
        return reading.tuple(graph, found, asked) if found is not None else None


def _tuple(
    graph: Graph,
    found: Found,
    serde: SerializerProtocol,
    fetch: Fetch,
    config: RunnableConfig | None,
) -> CheckpointTuple:
    record = found.record
    parent = record["parent"]
    return CheckpointTuple(
        config if config is not None else graph.config(record["id"]),
        checkpoint_in(record, serde, fetch),
        metadata_in(record, serde, fetch),
        graph.config(parent) if parent is not None else None,
        pending_writes(found.tasks, serde, fetch) if found.tasks else [],
    )


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
        view: a snapshot; or a transaction, which reads what records refer to, and then is checked
            for it.
        serde: makes values of payloads.
    """

    def __init__(self, view: Snapshot | Transaction, serde: SerializerProtocol) -> None:
        self._view = view
        self._serde = serde

    @property
    def _snapshot(self) -> Snapshot:
        assert isinstance(self._view, Snapshot), "a transaction reads no checkpoints here"
        return self._view

    def found(self, graph: Graph, checkpoint_id: str | None) -> Found | None:
        """A checkpoint of a graph, or the newest for None, with its tasks."""
        if checkpoint_id is not None:
            return from_key(self._snapshot, graph.checkpoints, checkpoint_id)
        return next(backwards(self._snapshot, graph.checkpoints, None, 1), None)

    def matching(self, query: Query) -> Iterator[CheckpointTuple]:
        """The checkpoints that a query asks for, newest first, over all graphs together."""
        left = query.limit
        if left is not None and left <= 0:
            return
        for _checkpoint_id, graph, found in self._newest_first(query):
            if query.metadata and not self._has(graph, found.record, query.metadata):
                continue
            yield self.tuple(graph, found)
            if left is not None:
                left -= 1
                if not left:
                    return

    def _newest_first(self, query: Query) -> Iterator[tuple[str, Graph, Found]]:
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

    def _of_graph(self, graph: Graph, query: Query) -> Iterator[tuple[str, Graph, Found]]:
        if query.checkpoint_id is not None:
            one = self.found(graph, query.checkpoint_id)
            earlier = query.before is None or query.checkpoint_id < query.before
            if one is not None and earlier:
                yield query.checkpoint_id, graph, one
            return
        plain = query.limit is not None and not query.metadata
        page = min(query.limit or _PAGE, _PAGE) if plain else _PAGE
        for found in backwards(self._snapshot, graph.checkpoints, query.before, page):
            yield found.record["id"], graph, found

    def metadata(self, graph: Graph, record: Record) -> CheckpointMetadata:
        """The metadata of a record."""
        return metadata_in(record, self._serde, fetching(self._view, graph.thread_id))

    def _has(self, graph: Graph, record: Record, wanted: Mapping[str, Any]) -> bool:
        metadata = self.metadata(graph, record)
        return all(metadata.get(name) == value for name, value in wanted.items())

    def tuple(
        self, graph: Graph, found: Found, config: RunnableConfig | None = None
    ) -> CheckpointTuple:
        """What LangGraph is given, under the config that asked for it, if one did."""
        fetch = fetching(self._view, graph.thread_id)
        return _tuple(graph, found, self._serde, fetch, config)

    def writes(self, graph: Graph, found: Found, channels: Collection[str]) -> list[PendingWrite]:
        """What the tasks of a checkpoint have written to these channels, in order."""
        fetch = fetching(self._view, graph.thread_id)
        return pending_writes(found.tasks, self._serde, fetch, channels)

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
