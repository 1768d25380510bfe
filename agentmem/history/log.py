"""Reading the log: versions of a key, commits of a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from agentmem.core import Core
from agentmem.engines.base import CommitRow, Engine, EntryRow, Place
from agentmem.errors import InvalidValueError, KeyMissingError
from agentmem.model import Commit, Entry, display_key
from agentmem.namespaces import encode, range_end
from agentmem.records import commit_of, entry_of
from agentmem.scope import Scope
from agentmem.values import MAX_INT, check_number

__all__ = ["entry_row", "entry_version", "history_of", "log_of", "newest_first"]

_PAGE: Final = 200
_NO_LIMIT: Final = 2**62


def history_of(core: Core, scope: Scope, place: Place, limit: int | None) -> list[Entry[Any]]:
    """See `Store.history`."""
    core.check_open()
    wanted = _limit(limit)
    found: list[Entry[Any]] = []
    below: int | None = None
    while len(found) < wanted:
        rows = core.engine.history(place, below, min(_PAGE, wanted - len(found)))
        found += [entry_of(row, scope) for row in rows]
        if len(rows) < _PAGE:
            break
        below = rows[-1].version
    return found


def entry_version(core: Core, scope: Scope, place: Place, version: int) -> Entry[Any]:
    """One version of a key, tombstones included.

    Raises:
        KeyMissingError: the key has no such version (any more).
    """
    return entry_of(entry_row(core, scope, place, version), scope)


def entry_row(core: Core, scope: Scope, place: Place, version: int) -> EntryRow:
    """As `entry_version`, as it is stored."""
    core.check_open()
    if isinstance(version, bool) or not isinstance(version, int):
        raise TypeError(f"version is an int, not {type(version).__name__}")
    row = None
    if 0 < version <= MAX_INT:
        row = core.engine.entry_version(place, version)
    if row is None:
        labels = scope.relative(place[0])
        raise KeyMissingError(
            f"{display_key(labels, place[1])!r} has no version {version}; store.history() lists "
            "those it has",
            namespace=labels,
            key=place[1],
        )
    return row


def log_of(
    core: Core,
    scope: Scope,
    namespace: object,
    agent: str | None,
    op_id: str | None,
    after: int,
    upto: int | None,
    limit: int | None,
) -> list[Commit]:
    """See `Store.log`."""
    core.check_open()
    check_number(after, "after")
    if upto is not None:
        check_number(upto, "upto")
    labels = scope.labels(namespace)
    scope.readable(labels)
    start = encode(labels)
    everything = not labels and not scope.rules
    wanted = _limit(limit)
    found: list[Commit] = []
    for row, entries in _commits(core, after, upto):
        if agent is not None and row.agent != agent:
            continue
        if op_id is not None and (row.op_id != op_id or row.scope != scope.name):
            continue
        inside = [entry for entry in entries if _below(entry.namespace, start)]
        own = row.scope == scope.name and namespace is None
        if everything or inside or own:
            commit = commit_of(row, inside, scope)
            if everything or own or commit.changes:
                found.append(commit)
        if len(found) >= wanted:
            break
    return found[:wanted]


def newest_first(engine: Engine, after: int, upto: int | None) -> Iterator[CommitRow]:
    """The commits with ``after`` < revision <= ``upto``, page by page."""
    while True:
        rows = engine.commits(after, upto, _PAGE, newest_first=True)
        yield from rows
        if len(rows) < _PAGE:
            return
        upto = rows[-1].revision - 1


def _commits(
    core: Core, after: int, upto: int | None
) -> Iterator[tuple[CommitRow, list[EntryRow]]]:
    while True:
        rows = core.engine.commits(after, upto, _PAGE, newest_first=True)
        entries: dict[int, list[EntryRow]] = {}
        for entry in core.engine.commit_entries(rows):
            entries.setdefault(entry.revision, []).append(entry)
        for row in rows:
            yield row, entries.get(row.revision, [])
        if len(rows) < _PAGE:
            return
        upto = rows[-1].revision - 1


def _below(encoded: str, start: str) -> bool:
    end = range_end(start)
    return encoded >= start and (end is None or encoded < end)


def _limit(limit: int | None) -> int:
    if limit is None:
        return _NO_LIMIT
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise InvalidValueError(f"limit is a number from 0 on, or None, not {limit!r}")
    return limit
