"""Rows of checkpoints and of their tasks, as they lie in a store, put together.

They are read below the views of a store, which list in ascending order alone: the newest is found
by reading backwards from the end, and one statement finds a checkpoint with what its tasks wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentmem import Snapshot, Store
from agentmem.engines.rows import EntryRow, Place, Range
from agentmem.namespaces import check_key, encode
from agentmem.values import load
from langgraph_agentmem.checkpoint_places import Labels, checkpoint_key, split_key

__all__ = ["Found", "MoreNeeded", "backwards", "from_key", "parts_at_present", "present"]

_FIRST: Final = 4  # rows: a checkpoint, and a few tasks
_OF_NEWEST: Final = 2  # whose tasks are under way, and most often have written nothing yet
_MORE: Final = 8  # where that was not enough
_PRESENT: Final = 2**63 - 1  # no revision is higher


class MoreNeeded(Exception):  # noqa: N818  # no error: it never leaves this package
    """Not all that was asked for is in the rows of one statement."""


@dataclass(slots=True)
class Found:
    """A checkpoint, and what its tasks want to write.

    Attributes:
        record: what is stored of the checkpoint.
        tasks: (id, record), in no order.
    """

    record: Mapping[str, Any]
    tasks: list[tuple[str, Mapping[str, Any]]]


def present(store: Store, namespace: Labels, checkpoint_id: str | None) -> Found | None:
    """A checkpoint, or the newest for None, as one statement finds it at the present.

    Raises:
        MoreNeeded: one statement is not enough.
    """
    core, scope = store._core, store._scope
    core.check_open()
    labels = scope.labels(namespace)
    if scope.readable(labels) is not None:
        raise MoreNeeded
    within = Range(encode(labels), checkpoint_key(checkpoint_id) if checkpoint_id else "")
    newest = checkpoint_id is None
    limit = _OF_NEWEST if newest else _FIRST
    rows = core.engine.scan(within, _PRESENT, limit, backwards=newest)
    try:
        return _among(rows, checkpoint_id, whole=len(rows) < limit)
    except MoreNeeded:
        # In place of these, not after them: that would be another moment.
        rows = core.engine.scan(within, _PRESENT, _MORE, backwards=newest)
        return _among(rows, checkpoint_id, whole=len(rows) < _MORE)


def parts_at_present(store: Store, namespace: Labels, names: Iterable[str]) -> Mapping[str, str]:
    """Parts of payloads, which nothing changes: they are named by what they hold.

    Raises:
        MoreNeeded: one is not there any more, or has an end.
    """
    core = store._core
    encoded = encode(store._scope.labels(namespace))
    places = [(encoded, check_key(name, core.limits)) for name in names]
    rows = core.engine.points(places, _PRESENT)
    found = {row.key: load(row.value) for row in rows if row.value and row.expires_at is None}
    if not all(key in found for _namespace, key in places):
        raise MoreNeeded
    return found


def _among(rows: list[EntryRow], checkpoint_id: str | None, *, whole: bool) -> Found | None:
    if any(row.expires_at is not None for row in rows):
        raise MoreNeeded  # what the time is
    there = (row for row in rows if not row.deleted)
    if checkpoint_id is not None:
        return _one(there, checkpoint_id, whole=whole)
    found = next(_newest_first(there), None)
    if found is None and not whole:
        raise MoreNeeded
    return found


def from_key(snap: Snapshot, namespace: Labels, checkpoint_id: str) -> Found | None:
    """A checkpoint with its tasks; None if it is not there."""
    prefix = checkpoint_key(checkpoint_id)
    view = (snap._revision, snap._instant)
    rows = snap._core.iterate(snap._scope, namespace, view, prefix, None, _FIRST)
    return _one(rows, checkpoint_id, whole=True)


def backwards(
    snap: Snapshot, namespace: Labels, before: str | None, wanted: int
) -> Iterator[Found]:
    """Checkpoints, newest first, each with its tasks.

    Args:
        before: only those with a smaller id; None: all.
        wanted: how many are most likely enough.
    """
    core, scope = snap._core, snap._scope
    core.check_open()
    after: Place | None = None
    if before is not None:
        after = (encode(scope.labels(namespace)), checkpoint_key(before))
    view = (snap._revision, snap._instant)
    rows = core.iterate(scope, namespace, view, "", after, wanted * _FIRST, backwards=True)
    return _newest_first(rows)


def _newest_first(rows: Iterable[EntryRow]) -> Iterator[Found]:
    """Of rows in descending order. Tasks whose checkpoint is not there are left out."""
    tasks: list[tuple[str, Mapping[str, Any]]] = []
    of = None
    for row in rows:
        checkpoint_id, task_id = split_key(row.key)
        if checkpoint_id != of:
            tasks, of = [], checkpoint_id
        record = load(row.value or "null")
        if task_id is None:
            yield Found(record, tasks)
        else:
            tasks.append((task_id, record))


def _one(rows: Iterable[EntryRow], checkpoint_id: str, *, whole: bool) -> Found | None:
    """Of rows in order, from the key of a checkpoint on.

    Args:
        whole: there are no more rows than these.

    Raises:
        MoreNeeded: there may be more tasks in rows that are not here.
    """
    found: Found | None = None
    for row in rows:
        of, task_id = split_key(row.key)
        if of != checkpoint_id:
            return found
        if task_id is None:
            found = Found(load(row.value or "null"), [])
        elif found is not None:
            found.tasks.append((task_id, load(row.value or "null")))
        else:
            return None  # the key of the checkpoint would have come first
    if not whole:
        raise MoreNeeded
    return found
