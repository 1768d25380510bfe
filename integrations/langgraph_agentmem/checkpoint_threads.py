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
    checkpoint_key,
    checkpoints_of,
    graphs_of,
    parts_of,
    split_key,
    task_key,
    thread_namespace,
)
from langgraph_agentmem.checkpoint_reading import Reading
from langgraph_agentmem.checkpoint_records import part_names
from langgraph_agentmem.checkpoint_rows import Found

__all__ = ["copy_thread", "delete_for_runs", "delete_thread", "prune", "purge_thread"]

_BATCH: Final = 2_000  # keys that one commit writes, of the 10,000 that it may
_DELTA_COUNTERS: Final = "counters_since_delta_snapshot"

Checkpoints = dict[Graph, dict[str, Found]]
"""The checkpoints of a thread: by graph, and by checkpoint id, oldest first."""

Choice = Callable[[Reading, Checkpoints], Iterable[tuple[Graph, str]]]
"""What of a thread is to be deleted."""


def delete_thread(store: Store, agent: str | None, thread_id: str) -> None:
    """Deletes all of a thread: in one commit, or, of a long one, its checkpoints first."""
    places = (checkpoints_of(thread_id), parts_of(thread_id))

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

    def choose(reading: Reading, all_of_it: Checkpoints) -> Iterable[tuple[Graph, str]]:
        return [
            (graph, checkpoint_id)
            for graph, of_graph in all_of_it.items()
            for checkpoint_id, found in of_graph.items()
            if reading.metadata(graph, found.record).get("run_id") in wanted
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


def _not_needed(reading: Reading, all_of_it: Checkpoints) -> Iterable[tuple[Graph, str]]:
    """All but the newest of each graph, and what its delta channels are rebuilt from."""
    for graph, of_graph in all_of_it.items():
        newest = next(reversed(of_graph))
        kept = {newest, *_rebuilt_from(reading, graph, of_graph, newest)}
        yield from ((graph, each) for each in of_graph if each not in kept)


def _rebuilt_from(
    reading: Reading, graph: Graph, of_graph: dict[str, Found], newest: str
) -> list[str]:
    """The ancestors that the delta channels of a checkpoint are rebuilt from.

    The metadata counts, for each delta channel, what has come since it was last stored whole. A
    channel without a version was never written.
    """
    record = of_graph[newest].record
    bare = reading.bare(graph, record)
    counters = reading.metadata(graph, record).get(_DELTA_COUNTERS) or {}
    wanted = {name for name in counters if name in bare["channel_versions"]}
    wanted -= _stored_in(record, bare)
    kept: list[str] = []
    for ancestor in ancestors(of_graph.get, of_graph[newest]):
        if not wanted:
            break
        kept.append(ancestor.record["id"])
        wanted -= _stored_in(ancestor.record, reading.bare(graph, ancestor.record))
    return kept


def _stored_in(record: Mapping[str, Any], bare: Mapping[str, Any]) -> set[str]:
    return {*bare["channel_values"], *record.get("channels", {})}


def _delete_chosen(
    store: Store, agent: str | None, serde: SerializerProtocol, thread_id: str, choose: Choice
) -> None:
    """Deletes checkpoints with their writes, and the parts that nothing refers to any more."""

    def delete_some(tx: Transaction, *, again: bool) -> bool:
        all_of_it = _checkpoints(tx, thread_id)
        # Oldest first: whatever is cut off in the middle, what is left is the newer end.
        chosen = sorted(choose(Reading(tx, serde), all_of_it), key=lambda each: each[1])
        left = _BATCH
        for graph, checkpoint_id in chosen:
            namespace = graph.checkpoints
            tasks = all_of_it[graph][checkpoint_id].tasks[:left]
            for task_id, _record in tasks:
                tx.delete(task_key(checkpoint_id, task_id), namespace=namespace, merge=False)
            left -= len(tasks) + 1
            if left <= 0:
                return True
            tx.delete(checkpoint_key(checkpoint_id), namespace=namespace, merge=False)
        return (bool(chosen) or again) and _delete_unused_parts(tx, thread_id, left)

    metadata = {"thread_id": thread_id}
    more = store.transact(partial(delete_some, again=False), agent=agent, metadata=metadata)
    while more:
        more = store.transact(partial(delete_some, again=True), agent=agent, metadata=metadata)


def _checkpoints(tx: Transaction, thread_id: str) -> Checkpoints:
    found: Checkpoints = {}
    for entry in tx.list(checkpoints_of(thread_id)):
        graph, (checkpoint_id, task_id) = Graph.at(entry.namespace), split_key(entry.key)
        if task_id is None:
            found.setdefault(graph, {})[checkpoint_id] = Found(entry.value, [])
        elif (checkpoint := found.get(graph, {}).get(checkpoint_id)) is not None:
            checkpoint.tasks.append((task_id, entry.value))
    return found


def _delete_unused_parts(tx: Transaction, thread_id: str, left: int) -> bool:
    """Whether some may be left, because the commit would be too large."""
    used = {
        name for entry in tx.list(checkpoints_of(thread_id)) for name in part_names(entry.value)
    }
    unused = [entry.key for entry in tx.list(parts_of(thread_id)) if entry.key not in used]
    for name in unused[:left]:
        tx.delete(name, namespace=parts_of(thread_id), merge=False)
    return len(unused) > left


def copy_thread(store: Store, agent: str | None, source: str, target: str) -> None:
    """Copies all of a thread: parts, then what tasks wrote, then checkpoints, the oldest first.

    So a checkpoint that is there is whole, even if the copying of a long thread is cut off.
    """
    if source == target:
        return
    snap = store.snapshot()
    checkpoints = snap.list(checkpoints_of(source))
    checkpoints.sort(key=lambda entry: _copied_after(entry.key))
    entries = [*snap.list(parts_of(source)), *checkpoints]
    depth = len(thread_namespace(source))

    def copy(tx: Transaction, some: Sequence[Entry[Any]]) -> None:
        for entry in some:
            namespace = (*thread_namespace(target), *entry.namespace[depth:])
            tx.put(entry.key, entry.value, namespace=namespace, text=False, merge=False)

    metadata = {"thread_id": target, "copied_from": source}
    for start in range(0, len(entries), _BATCH):
        batch = entries[start : start + _BATCH]
        store.transact(partial(copy, some=batch), agent=agent, metadata=metadata)


def _copied_after(key: str) -> tuple[bool, str]:
    """Sorts the tasks of all checkpoints before the checkpoints, by their ids."""
    checkpoint_id, task_id = split_key(key)
    return task_id is None, checkpoint_id
