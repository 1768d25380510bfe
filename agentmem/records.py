"""Rows of an engine as the records that callers see."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from agentmem.engines.rows import (
    OPERATIONS,
    CommitRow,
    ConflictRow,
    EntryRow,
    PurgeRow,
)
from agentmem.kept import details_in, ours_in
from agentmem.limits import Limits
from agentmem.model import (
    DELETE,
    Change,
    Commit,
    Conflict,
    ConflictRecord,
    Entry,
    Purge,
    filled,
    to_datetime,
)
from agentmem.namespaces import encode
from agentmem.request import Receipt, Request, StaleItem
from agentmem.scope import Scope
from agentmem.values import load, search_text

__all__ = [
    "NOTHING",
    "commit_from",
    "commit_of",
    "conflict_of",
    "conflict_record_of",
    "conflict_row_of",
    "entry_of",
    "purge_of",
    "text_of",
]


def entry_of(row: EntryRow, scope: Scope, purge: Purge | None = None) -> Entry[Any]:
    """An entry with a fresh value; its fields are made when they are first asked for."""
    if purge is not None:
        return filled(_FIELDS | {"purged": lambda _source: purge}, (row, scope))
    return filled(_FIELDS, (row, scope))


def purge_of(row: PurgeRow) -> Purge:
    """When and by whom values were erased."""
    return Purge(row.revision, to_datetime(row.purged_at), row.agent, row.note, bool(row.finished))


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else to_datetime(microseconds)


def _text(source: tuple[EntryRow, Scope]) -> str | None:
    row, scope = source
    if row.text is not None or row.value is None:
        return row.text or None
    return text_of(None, load(row.value), scope.limits)


_FIELDS: Final[dict[str, Callable[[tuple[EntryRow, Scope]], Any]]] = {
    "namespace": lambda source: source[1].relative(source[0].namespace),
    "key": lambda source: source[0].key,
    "version": lambda source: source[0].version,
    "revision": lambda source: source[0].revision,
    "value": lambda source: None if source[0].value is None else load(source[0].value),
    "text": _text,
    "agent": lambda source: source[0].agent,
    "op_id": lambda source: source[0].op_id,
    "created_at": lambda source: to_datetime(source[0].created_at),
    "committed_at": lambda source: to_datetime(source[0].committed_at),
    "expires_at": lambda source: _moment(source[0].expires_at),
    "deleted": lambda source: source[0].deleted,
    "pending": lambda _source: False,
    "purged": lambda _source: None,
}


def text_of(stored: str | None, value: Any, limits: Limits) -> str | None:
    """What search sees of an entry, from its stored text: None follows, ``""`` is hidden."""
    if stored is not None:
        return stored or None
    if isinstance(value, (int, float)) or value is None:
        return None
    return search_text(None, value, limits)


NOTHING: Final = Receipt(None, None, [])
"""The receipt of a transaction that wrote nothing."""


def commit_from(request: Request, receipt: Receipt, scope: Scope) -> Commit:
    """The commit that a request has just made, without reading it back."""
    changes = _changes(receipt.rows, scope)
    return Commit(
        revision=receipt.revision,
        committed_at=to_datetime(receipt.committed_at) if receipt.committed_at else None,
        agent=request.agent,
        op_id=request.op_id,
        note=request.note,
        metadata=load(request.metadata) if request.metadata else {},
        base_revision=request.base_revision,
        changes=changes,
        merged=_merged(changes),
        accepted=_accepted(request.accepted, scope),
        result=load(request.result) if request.result is not None else None,
    )


def _changes(rows: list[EntryRow], scope: Scope) -> tuple[Change, ...]:
    return tuple(
        Change(
            scope.relative(row.namespace),
            row.key,
            row.version,
            row.base_version,
            OPERATIONS[row.operation],
            row.merged,
        )
        for row in rows
    )


def _merged(changes: tuple[Change, ...]) -> tuple[tuple[tuple[str, ...], str], ...]:
    return tuple((each.namespace, each.key) for each in changes if each.merged is not None)


def _accepted(text: str | None, scope: Scope) -> tuple[tuple[tuple[str, ...], str, int, int], ...]:
    return tuple(
        (scope.relative(namespace), key, seen, judged)
        for namespace, key, seen, judged in (load(text) if text else ())
        if scope.holds(namespace)
    )


def commit_of(
    row: CommitRow, entries: list[EntryRow], scope: Scope, *, replayed: bool = False
) -> Commit:
    """A commit with those of its changes that lie in the scope and may be read."""
    visible = [
        entry
        for entry in entries
        if entry.revision == row.revision
        and scope.holds(entry.namespace)
        and (not scope.rules or scope.level((entry.namespace, entry.key)) > 0)
    ]
    changes = _changes(visible, scope)
    # Operation ids and results of others stay outside of a scoped view.
    own = row.scope == scope.name or scope.is_root
    return Commit(
        revision=row.revision,
        committed_at=to_datetime(row.committed_at),
        agent=row.agent,
        op_id=row.op_id if own else None,
        note=row.note,
        metadata=load(row.metadata) if row.metadata else {},
        base_revision=row.base_revision,
        changes=changes,
        merged=_merged(changes),
        accepted=_accepted(row.accepted, scope),
        replayed=replayed,
        result=load(row.result) if row.result is not None and own else None,
    )


def conflict_of(item: StaleItem, scope: Scope) -> Conflict:
    """A conflict with its values."""
    base = entry_of(item.base, scope) if item.base is not None and item.seen_version else None
    theirs = entry_of(item.theirs, scope) if item.theirs is not None else None
    gone = DELETE if item.seen_version else None
    ours: Any = None
    if item.kind == "write" and item.write is not None:
        ours = DELETE if item.write.value is None else load(item.write.value)
    return Conflict(
        scope.relative(item.place[0]),
        item.place[1],
        base.value if base is not None else None,
        theirs.value if theirs is not None else gone,
        ours,
        base,
        theirs,
        item.kind,
    )


def conflict_record_of(row: ConflictRow, scope: Scope) -> ConflictRecord:
    """A conflict as it is on record."""
    ours = ours_in(row.ours)
    return ConflictRecord(
        id=row.id or 0,
        namespace=scope.relative(row.namespace),
        key=row.key,
        status=row.status,
        strategy=row.strategy,
        kind=row.kind,
        base_version=row.base_version,
        theirs_version=row.theirs_version,
        ours=load(ours) if ours is not None else None,
        agent=row.agent,
        op_id=row.op_id,
        revision=row.revision,
        detected_at=to_datetime(row.detected_at),
        note=row.note,
        details=details_in(row.ours),
    )


def conflict_row_of(
    conflict: Conflict, status: str, scope: Scope, agent: str | None, op_id: str | None, now: int
) -> ConflictRow:
    """A conflict as it goes on record, before it is known which commit ends it."""
    return ConflictRow(
        id=None,
        namespace=encode(scope.prefix + conflict.namespace),
        key=conflict.key,
        status=status,
        kind=conflict.kind,
        strategy=None,
        base_version=conflict.base_version,
        theirs_version=conflict.current_version,
        ours=None,
        agent=agent,
        op_id=op_id,
        revision=None,
        detected_at=now,
        note=None,
    )
