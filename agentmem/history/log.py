"""Reading the versions of a key."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from agentmem.core import Core
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    EntryRow,
    Place,
    PurgeRow,
)
from agentmem.errors import InvalidValueError, KeyMissingError
from agentmem.history.doomed import Doomed
from agentmem.model import Entry, Purge, display_key
from agentmem.records import entry_of, purge_of
from agentmem.scope import Scope
from agentmem.values import MAX_INT, check_number

__all__ = [
    "check_limit",
    "check_revisions",
    "entry_row",
    "entry_version",
    "history_of",
    "history_rows",
    "shown",
]

_PAGE: Final = 200
_NO_LIMIT: Final = 2**62


def history_of(
    core: Core, scope: Scope, place: Place, after: int, upto: int | None, limit: int | None
) -> list[Entry[Any]]:
    """See `Store.history`."""
    core.check_open()
    bounds, wanted = check_revisions(after, upto), check_limit(limit)
    rows = history_rows(core.engine, place, *bounds, min(_PAGE, max(wanted, 1)))
    return shown(core, scope, list(islice(rows, wanted)))


def history_rows(
    engine: Engine, place: Place, after: int, upto: int, page: int
) -> Iterator[EntryRow]:
    """The versions of a key with ``after`` < revision <= ``upto``, newest first, page by page."""
    while True:
        rows = engine.history(place, after, upto, page)
        yield from rows
        if len(rows) < page:
            return
        upto = rows[-1].revision - 1


def check_revisions(after: int, upto: int | None) -> tuple[int, int]:
    """Two bounds as they were given, with the last revision that there can be for None."""
    check_number(after, "after")
    if upto is not None:
        check_number(upto, "upto")
    return after, MAX_INT if upto is None else upto


def entry_version(core: Core, scope: Scope, place: Place, version: int) -> Entry[Any]:
    """One version of a key, tombstones included.

    Raises:
        KeyMissingError: the key has no such version (any more).
    """
    return shown(core, scope, [entry_row(core, scope, place, version)])[0]


def shown(core: Core, scope: Scope, rows: list[EntryRow]) -> list[Entry[Any]]:
    """Entries of the log; those that were purged say when and by whom."""
    if not any(row.purged for row in rows):
        return [entry_of(row, scope) for row in rows]
    purges = core.engine.purges()
    return [entry_of(row, scope, _purge_of(row, purges)) for row in rows]


def _purge_of(row: EntryRow, purges: list[PurgeRow]) -> Purge | None:
    """The first purge that an entry fell to; None if it was not purged."""
    if not row.purged:
        return None
    place = (row.namespace, row.key)
    for purge in purges:
        if Doomed(purge.namespace, purge.key).holds(place) and row.revision <= purge.revision:
            return purge_of(purge)
    return Purge(row.revision, None)


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


def check_limit(limit: int | None) -> int:
    """A limit as a number; None is none."""
    if limit is None:
        return _NO_LIMIT
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise InvalidValueError(f"limit is a number from 0 on, or None, not {limit!r}")
    return min(limit, _NO_LIMIT)
