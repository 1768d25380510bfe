"""What is done to whole threads: deleting, copying, and keeping only what is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentmem import Entry, InvalidValueError, Store, Transaction
from langgraph_agentmem.checkpoint_history import ancestors
from langgraph_agentmem.checkpoint_places import (
    Graph,
    checkpoints_of,
    graphs_of,
    order_key,
    parts_of,
    thread_namespace,
    writes_of,
)
from langgraph_agentmem.checkpoint_reading import Reading
from langgraph_agentmem.checkpoint_records import part_names

__all__ = ["copy_thread", "delete_for_runs", "delete_thread", "prune", "purge_thread"]

_BATCH: Final = 2_000  # keys that one commit writes, of the 10,000 that it may
_DELTA_COUNTERS: Final = "counters_since_delta_snapshot"

Records = Mapping[Graph, Mapping[str, Mapping[str, Any]]]
"""The records of a thread: by graph, and by checkpoint id, newest first."""

Choice = Callable[[Reading, Records], Iterable[tuple[Graph, str]]]
"""What of a thread is to be deleted."""


def delete_thread(store: Store, agent: str | None, thread_id: str) -> None:
    """Deletes all of a thread: in one commit, or, of a long one, its checkpoints first."""
    places = (checkpoints_of(thread_id), writes_of(thread_id), parts_of(thread_id))

    def delete_some(tx: Transaction) -> int:
        left = _BATCH
        for namespace in places:
            for entry in tx.list(namespace, limit=left):
                tx.delete(entry.key, namespace=entry.namespace, merge=False)
                left -= 1
        return left

    metadata = {"thread_id": thread_id}
    while not store.transact(delete_some, agent=agent, metadata=metadata):
        pass


def purge_thread(store: Store, agent: str | None, thread_id: str) -> None:
    """Erases all of a thread from the history."""
    store.admin.purge(namespace=thread_namespace(thread_id), agent=agent)


def delete_for_runs(
    store: Store, agent: str | None, serde: SerializerProtocol, run_ids: Sequence[str]
) -> None:
    """Deletes the checkpoints whose metadata names one of these runs."""
    wanted = set(run_ids)

    def choose(reading: Reading, records: Records) -> Iterable[tuple[Graph, str]]:
        return [
            (graph, checkpoint_id)
            for graph, of_graph in records.items()
            for checkpoint_id, record in of_graph.items()
            if reading.metadata(graph, record).get("run_id") in wanted
        ]

    if wanted:
        for thread_id in sorted({graph.thread_id for graph in graphs_of(store, None)}):
            _delete_chosen(store, agent, serde, thread_id, choose)


def prune(
    store: Store,
    agent: str | None,
    serde: SerializerProtocol,
    thread_ids: Sequence[str],
    strategy: str,
) -> None:
    """See `AgentMemSaver.prune`."""
    if strategy not in ("keep_latest", "delete"):
        raise InvalidValueError(f"strategy is 'keep_latest' or 'delete', not {strategy!r}")
    for thread_id in dict.fromkeys(map(str, thread_ids)):
        if strategy == "delete":
            delete_thread(store, agent, thread_id)
        else:
            _delete_chosen(store, agent, serde, thread_id, _not_needed)


def _not_needed(reading: Reading, records: Records) -> Iterable[tuple[Graph, str]]:
    """All but the newest of each graph, and what its delta channels are rebuilt from."""
    for graph, of_graph in records.items():
        newest = next(iter(of_graph.values()))
        kept = {newest["id"], *_rebuilt_from(reading, graph, newest)}
        yield from ((graph, each) for each in of_graph if each not in kept)


def _rebuilt_from(reading: Reading, graph: Graph, record: Mapping[str, Any]) -> list[str]:
    """The ancestors that the delta channels of a checkpoint are rebuilt from.

    The metadata counts, for each delta channel, what has come since it was last stored whole. A
    channel without a version was never written.
    """
    bare = reading.bare(graph, record)
    counters = reading.metadata(graph, record).get(_DELTA_COUNTERS) or {}
    wanted = {name for name in counters if name in bare["channel_versions"]}
    wanted -= _stored_in(record, bare)
    kept: list[str] = []
    for ancestor in ancestors(reading, graph, record):
        if not wanted:
            break
        kept.append(ancestor["id"])
        wanted -= _stored_in(ancestor, reading.bare(graph, ancestor))
    return kept


def _stored_in(record: Mapping[str, Any], bare: Mapping[str, Any]) -> set[str]:
    return {*bare["channel_values"], *record.get("channels", {})}


def _delete_chosen(
    store: Store, agent: str | None, serde: SerializerProtocol, thread_id: str, choose: Choice
) -> None:
    """Deletes checkpoints with their writes, and the parts that nothing refers to any more."""

    def delete_some(tx: Transaction, *, again: bool) -> bool:
        records = _records(tx, thread_id)
        # Oldest first: whatever is cut off in the middle, what is left is the newer end.
        chosen = sorted(choose(Reading(tx, serde), records), key=lambda each: each[1])
        left = _BATCH
        for graph, checkpoint_id in chosen:
            tasks = tx.list(graph.writes(checkpoint_id), limit=left)
            for entry in tasks:
                tx.delete(entry.key, namespace=entry.namespace, merge=False)
            left -= len(tasks) + 1
            if left <= 0:
                return True
            tx.delete(order_key(checkpoint_id), namespace=graph.checkpoints, merge=False)
        return (bool(chosen) or again) and _delete_unused_parts(tx, thread_id, left)

    metadata = {"thread_id": thread_id}
    more = store.transact(partial(delete_some, again=False), agent=agent, metadata=metadata)
    while more:
        more = store.transact(partial(delete_some, again=True), agent=agent, metadata=metadata)


def _records(tx: Transaction, thread_id: str) -> Records:
    found: dict[Graph, dict[str, Mapping[str, Any]]] = {}
    for entry in tx.list(checkpoints_of(thread_id)):
        found.setdefault(Graph.at(entry.namespace), {})[entry.value["id"]] = entry.value
    return found


def _delete_unused_parts(tx: Transaction, thread_id: str, left: int) -> bool:
    """Whether some may be left, because the commit would be too large."""
    holders = (checkpoints_of(thread_id), writes_of(thread_id))
    used = {
        name
        for namespace in holders
        for entry in tx.list(namespace)
        for name in part_names(entry.value)
    }
    unused = [entry.key for entry in tx.list(parts_of(thread_id)) if entry.key not in used]
    for name in unused[:left]:
        tx.delete(name, namespace=parts_of(thread_id), merge=False)
    return len(unused) > left


def copy_thread(store: Store, agent: str | None, source: str, target: str) -> None:
    """Copies all of a thread: parts, then writes, then checkpoints, the oldest first.

    So a checkpoint that is there is whole, even if the copying of a long thread is cut off.
    """
    if source == target:
        return
    snap = store.snapshot()
    checkpoints = snap.list(checkpoints_of(source))
    checkpoints.sort(key=lambda entry: entry.value["id"])
    entries = [*snap.list(parts_of(source)), *snap.list(writes_of(source)), *checkpoints]
    depth = len(thread_namespace(source))

    def copy(tx: Transaction, some: Sequence[Entry[Any]]) -> None:
        for entry in some:
            namespace = (*thread_namespace(target), *entry.namespace[depth:])
            tx.put(entry.key, entry.value, namespace=namespace, text=False, merge=False)

    metadata = {"thread_id": target, "copied_from": source}
    for start in range(0, len(entries), _BATCH):
        batch = entries[start : start + _BATCH]
        store.transact(partial(copy, some=batch), agent=agent, metadata=metadata)
