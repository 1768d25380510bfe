"""Reading keys on SQLite, now and as of a revision; each is one consistent read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agentmem.clock import MicrosecondClock
from agentmem.engines.base import (
    check_floor,
)
from agentmem.engines.ranges import namespace_bounds, prefix_end
from agentmem.engines.rows import (
    EntryRow,
    Place,
    Point,
    Position,
    Range,
    StrategyRow,
)
from agentmem.engines.sqlite.driver import driver
from agentmem.values import load

Executes = driver.Connection | driver.Cursor
"""What a statement can be run on."""

# ruff: noqa: S608  # the statements are joined from the constants of this file, nothing else
ENTRY: Final = """
e.id, e.namespace, e.key, e.version, e.revision, e.operation, e.base_version, e.merged, e.value,
e.text, e.created_at, e.expires_at, c.agent, c.op_id, c.committed_at
"""
# One entry of a key that is asked for. The driver describes each column of each answer, which takes
# it longer than to find the row; so all that is short comes as one column, see `entry_in`.
_PACKED: Final = """
e.value, e.text, CASE WHEN e.id IS NOT NULL THEN json_array(e.id, e.version, e.revision,
    e.operation, e.base_version, e.merged, e.created_at, e.expires_at, c.agent, c.op_id,
    c.committed_at) END
"""

POSITION: Final = """
SELECT revision, committed_at, hash, first_entry_id + changes - 1 FROM commits
ORDER BY revision DESC LIMIT 1
"""
LAST_REVISION: Final = "SELECT COALESCE(MAX(revision), 0) FROM commits"
POSITION_AT: Final = """
SELECT revision, committed_at, hash, first_entry_id + changes - 1 FROM commits WHERE revision = ?
"""
HEAD: Final = (
    """
SELECT """
    + _PACKED
    + """ FROM heads h JOIN entries e ON e.id = h.entry_id
JOIN commits c ON c.revision = e.revision
WHERE h.namespace = ? AND h.key = ?
"""
)
# One statement costs a sixth of a short commit less than two.
POSITION_AND_HEAD: Final = (
    """
SELECT p.revision, p.committed_at, p.hash, p.first_entry_id + p.changes - 1,
"""
    + _PACKED
    + """ FROM commits p LEFT JOIN heads h ON h.namespace = ? AND h.key = ?
LEFT JOIN entries e ON e.id = h.entry_id
LEFT JOIN commits c ON c.revision = e.revision
ORDER BY p.revision DESC LIMIT 1
"""
)
ENTRY_AT: Final = (
    """
SELECT """
    + ENTRY
    + """ FROM entries e JOIN commits c ON c.revision = e.revision
WHERE e.namespace = ? AND e.key = ? AND e.revision <= ? ORDER BY e.revision DESC LIMIT 1
"""
)
# Versions of a key rise with its revisions, so the search stops at the newest that fits.
ENTRY_VERSION: Final = (
    """
SELECT """
    + ENTRY
    + """ FROM entries e JOIN commits c ON c.revision = e.revision
WHERE e.namespace = ? AND e.key = ? AND e.version = ? ORDER BY e.revision DESC LIMIT 1
"""
)
OPERATION: Final = """
SELECT c.revision, r.fingerprint FROM commits c
LEFT JOIN operation_results r ON r.revision = c.revision WHERE c.scope = ? AND c.op_id = ?
"""
# The floor comes with the row, so that compaction cannot slip in between.
POINT_NOW: Final = (
    """
SELECT s.floor, """
    + _PACKED
    + """ FROM store s
LEFT JOIN heads h ON h.namespace = ? AND h.key = ?
LEFT JOIN entries e ON e.id = h.entry_id
LEFT JOIN commits c ON c.revision = e.revision
"""
)
POINT_AT: Final = (
    """
SELECT s.floor, """
    + _PACKED
    + """ FROM store s
LEFT JOIN entries e ON e.id = (
    SELECT id FROM entries WHERE namespace = ? AND key = ? AND revision <= ?
    ORDER BY revision DESC LIMIT 1)
LEFT JOIN commits c ON c.revision = e.revision
"""
)
_NEWEST: Final = """ FROM heads h
CROSS JOIN entries e ON e.id = CASE WHEN h.revision <= :revision THEN h.entry_id ELSE (
    SELECT id FROM entries WHERE namespace = h.namespace AND key = h.key
    AND revision <= :revision ORDER BY revision DESC LIMIT 1) END
CROSS JOIN commits c ON c.revision = e.revision
"""
# "+ 0", here and in all statements: by a limit that is a bare parameter SQLite would plan, and so
# compile the statement anew whenever it is bound (38 µs against 8 for a page of one row).
#
# The heads lead, in the order of their index from the start on: so a page costs what it holds,
# however many keys there are. A table before them, even one of one row, would have all sorted; and
# "+" keeps SQLite from a second, worse place to start at.
SCAN: Final = (
    """
SELECT (SELECT floor FROM store), """
    + ENTRY
    + _NEWEST
    + """WHERE h.namespace < :end
  AND (h.namespace, h.key) >= (:start_namespace, :start_key)
  AND (+h.namespace, h.key) > (:after_namespace, :after_key)
  AND (h.namespace, h.key) <= (:upto_namespace, :upto_key)
  AND h.key >= :key_start AND h.key < :key_end
ORDER BY h.namespace, h.key LIMIT :limit + 0
"""
)
SCAN_BACK: Final = (
    """
SELECT (SELECT floor FROM store), """
    + ENTRY
    + _NEWEST
    + """WHERE (h.namespace, h.key) < (:end_namespace, :end_key)
  AND (h.namespace, h.key) >= (:start_namespace, :start_key)
  AND h.key >= :key_start AND h.key < :key_end
ORDER BY h.namespace DESC, h.key DESC LIMIT :limit + 0
"""
)
NAMESPACES: Final = (
    """
SELECT DISTINCT (SELECT floor FROM store), h.namespace"""
    + _NEWEST
    + """WHERE h.namespace < :end AND h.namespace >= :start
  AND e.value IS NOT NULL AND (e.expires_at IS NULL OR e.expires_at > :instant)
ORDER BY h.namespace
"""
)
FLOOR: Final = "SELECT floor FROM store"
# A list as JSON: one statement for many costs a fifth of one for each (27 µs against 151 for 15).
ENTRIES_OF: Final = (
    """
SELECT s.floor, """
    + ENTRY
    + """ FROM store s CROSS JOIN json_each(?) j CROSS JOIN entries e ON e.id = j.value
CROSS JOIN commits c ON c.revision = e.revision
"""
)
HISTORY: Final = (
    """
SELECT """
    + ENTRY
    + """ FROM entries e JOIN commits c ON c.revision = e.revision
WHERE e.namespace = ? AND e.key = ? AND e.revision > ? AND e.revision <= ?
ORDER BY e.revision DESC LIMIT ? + 0
"""
)
EXPIRIES: Final = """
SELECT id, expires_at FROM entries WHERE id > ? AND id <= ? AND expires_at IS NOT NULL
ORDER BY id LIMIT ? + 0
"""
STRATEGIES: Final = "SELECT pattern, spec, position FROM merge_strategies ORDER BY position"

# Left to itself, SQLite reads a whole namespace for it, while all who write wait. "NOT INDEXED": by
# the ids, of which there are few since; "+": by what expires.
CHANGED_SINCE: Final = """
SELECT namespace, key FROM entries NOT INDEXED
WHERE id > COALESCE(
    (SELECT first_entry_id + changes - 1 FROM commits WHERE revision = :revision), 0)
  AND namespace >= :start AND namespace < :end
UNION
SELECT namespace, key FROM entries
WHERE expires_at > :expired_after AND expires_at <= :expired_upto
  AND +namespace >= :start AND +namespace < :end
"""
# If there are many, a namespace may hold few of them.
CHANGED_LONG_SINCE: Final = """
SELECT namespace, key FROM entries
WHERE id > COALESCE(
    (SELECT first_entry_id + changes - 1 FROM commits WHERE revision = :revision), 0)
  AND namespace >= :start AND namespace < :end
UNION
SELECT namespace, key FROM entries
WHERE expires_at > :expired_after AND expires_at <= :expired_upto
  AND +namespace >= :start AND +namespace < :end
"""
_WRITTEN_SINCE: Final = """
SELECT COALESCE((SELECT MAX(id) FROM entries), 0) - COALESCE(
    (SELECT first_entry_id + changes - 1 FROM commits WHERE revision = ?), 0)
"""
_MANY: Final = 10_000  # entries: 2 ms

# "+": by the ids alone, of which there are few.
CHANGED_BETWEEN: Final = """
SELECT namespace, key FROM entries WHERE id > :after AND id <= :upto
  AND +namespace >= :start AND +namespace < :end
  AND (+namespace, +key) > (:after_namespace, :after_key)
UNION
SELECT namespace, key FROM entries WHERE expires_at > :expired_after AND expires_at <= :expired_upto
  AND +namespace >= :start AND +namespace < :end
  AND (+namespace, +key) > (:after_namespace, :after_key)
ORDER BY 1, 2 LIMIT :limit + 0
"""
CHANGED_KEYS: Final = """
SELECT h.namespace, h.key FROM heads h WHERE h.namespace >= :start AND h.namespace < :end
  AND (h.namespace, h.key) > (:after_namespace, :after_key)
  AND (h.revision > :revision OR EXISTS (SELECT 1 FROM entries e WHERE e.id = h.entry_id
    AND +e.expires_at > :expired_after AND +e.expires_at <= :expired_upto))
ORDER BY h.namespace, h.key LIMIT :limit + 0
"""

# A blob sorts after every text in SQLite: the end of a range that has none.
_NO_END: Final = b""


def or_no_end(end: str | None) -> str | bytes:
    """The end of a range as it is bound."""
    return _NO_END if end is None else end


def position(connection: Executes, clock: MicrosecondClock) -> Position:
    """The end of the log."""
    row = connection.execute(POSITION).fetchone()
    return _end(row, clock()) if row is not None else Position(0, 0, b"", 0, clock())


def position_and_head(
    connection: Executes, place: Place, clock: MicrosecondClock
) -> tuple[Position, EntryRow | None]:
    """The end of the log, and the newest entry of a key."""
    row = connection.execute(POSITION_AND_HEAD, place).fetchone()
    if row is None:
        return Position(0, 0, b"", 0, clock()), None
    return _end(row, clock()), entry_in(place, row[4:])


def entry_in(place: Place, packed: tuple[str | None, str | None, str | None]) -> EntryRow | None:
    """The entry of a key out of the columns `_PACKED`; None if there is none."""
    value, text, rest = packed
    if rest is None:
        return None
    id, version, revision, operation, base, merged, *when_and_who = load(rest)
    return EntryRow(
        id, *place, version, revision, operation, base, merged, value, text, *when_and_who
    )


def _end(row: tuple[Any, ...], now: int) -> Position:
    revision, committed_at, commit_hash, last_entry_id = row[:4]
    if now < committed_at:
        now = committed_at
    return Position(revision, committed_at, commit_hash, last_entry_id, now)


def position_at(connection: Executes, revision: int) -> Position | None:
    """See `Engine.position_at`."""
    if revision == 0:
        return Position(0, 0, b"", 0, 0)
    row = connection.execute(POSITION_AT, (revision,)).fetchone()
    return _end(row, row[1]) if row is not None else None


def point(connection: Executes, place: Place, revision: int | None) -> Point:
    """See `Engine.point`."""
    if revision is None:
        row = connection.execute(POINT_NOW, place).fetchone()
    else:
        row = connection.execute(POINT_AT, (*place, revision)).fetchone()
        check_floor(revision, row[0])
    return Point(row[0], entry_in(place, row[1:]))


def entry_at(connection: Executes, place: Place, revision: int) -> EntryRow | None:
    """See `WriteSession.entry_at`."""
    row = connection.execute(ENTRY_AT, (*place, revision)).fetchone()
    return EntryRow._make(row) if row is not None else None


def entry_version(connection: Executes, place: Place, version: int) -> EntryRow | None:
    """See `Engine.entry_version`."""
    row = connection.execute(ENTRY_VERSION, (*place, version)).fetchone()
    return EntryRow._make(row) if row is not None else None


def points(connection: Executes, places: Sequence[Place], revision: int) -> list[EntryRow]:
    """See `Engine.points`. At a fixed revision, single reads are as consistent as one."""
    rows = (point(connection, place, revision).row for place in places)
    return [row for row in rows if row is not None]


def scan(connection: Executes, within: Range, revision: int, limit: int) -> list[EntryRow]:
    """See `Engine.scan`."""
    start, end = namespace_bounds(within.namespace)
    after = within.after or ("", "")
    first = max((start, within.key_prefix), after)
    upto: tuple[Any, Any] = within.upto or (_NO_END, _NO_END)
    bound = {
        "revision": revision,
        "start_namespace": first[0],
        "start_key": first[1],
        "end": or_no_end(end),
        "after_namespace": after[0],
        "after_key": after[1],
        "upto_namespace": upto[0],
        "upto_key": upto[1],
        "key_start": within.key_prefix,
        "key_end": or_no_end(prefix_end(within.key_prefix)),
        "limit": limit,
    }
    return _scanned(connection, SCAN, bound)


def scan_back(connection: Executes, within: Range, revision: int, limit: int) -> list[EntryRow]:
    """See `Engine.scan`, backwards."""
    start, end = namespace_bounds(within.namespace)
    first = max((start, within.key_prefix), within.upto or ("", ""))
    last: tuple[Any, Any] = (or_no_end(end), "")
    if within.after is not None and (end is None or within.after < last):
        last = within.after
    bound = {
        "revision": revision,
        "end_namespace": last[0],
        "end_key": last[1],
        "start_namespace": first[0],
        "start_key": first[1],
        "key_start": within.key_prefix,
        "key_end": or_no_end(prefix_end(within.key_prefix)),
        "limit": limit,
    }
    return _scanned(connection, SCAN_BACK, bound)


def _scanned(connection: Executes, statement: str, bound: dict[str, Any]) -> list[EntryRow]:
    revision = bound["revision"]
    rows = connection.execute(statement, bound).fetchall()
    if rows:
        check_floor(revision, rows[0][0])
    else:
        check_floor(revision, connection.execute(FLOOR).fetchone()[0])
    return [EntryRow._make(row[1:]) for row in rows]


def namespaces(connection: Executes, within: Range, revision: int, instant: int) -> list[str]:
    """See `Engine.namespaces`."""
    start, end = namespace_bounds(within.namespace)
    bound = {"revision": revision, "instant": instant, "start": start, "end": or_no_end(end)}
    rows = connection.execute(NAMESPACES, bound).fetchall()
    floor = rows[0][0] if rows else connection.execute(FLOOR).fetchone()[0]
    check_floor(revision, floor)
    return [row[1] for row in rows]


def changed_since(
    connection: Executes, revision: int, within: Range, expired: tuple[int, int]
) -> list[Place]:
    """See `Engine.changed_since`."""
    start, end = namespace_bounds(within.namespace)
    bound = {
        "revision": revision,
        "start": start,
        "end": or_no_end(end),
        "expired_after": expired[0],
        "expired_upto": expired[1],
    }
    statement = CHANGED_SINCE
    if within.namespace and connection.execute(_WRITTEN_SINCE, (revision,)).fetchone()[0] > _MANY:
        statement = CHANGED_LONG_SINCE
    return connection.execute(statement, bound).fetchall()


def changed_between(
    connection: Executes,
    after: int,
    upto: int,
    within: Range,
    expired: tuple[int, int],
    limit: int,
) -> list[Place]:
    """See `Engine.changed_between`."""
    bound = _bounds(within, expired) | {"after": after, "upto": upto, "limit": limit}
    return connection.execute(CHANGED_BETWEEN, bound).fetchall()


def changed_keys(
    connection: Executes, revision: int, within: Range, expired: tuple[int, int], limit: int
) -> list[Place]:
    """See `Engine.changed_keys`."""
    bound = _bounds(within, expired) | {"revision": revision, "limit": limit}
    bound["start"] = max(bound["start"], bound["after_namespace"])
    return connection.execute(CHANGED_KEYS, bound).fetchall()


def _bounds(within: Range, expired: tuple[int, int]) -> dict[str, Any]:
    start, end = namespace_bounds(within.namespace)
    after = within.after or ("", "")
    return {
        "start": start,
        "end": or_no_end(end),
        "after_namespace": after[0],
        "after_key": after[1],
        "expired_after": expired[0],
        "expired_upto": expired[1],
    }


def revision_at(connection: Executes, instant: int) -> int:
    """See `Engine.revision_at`: commit times never fall, so halving finds it."""
    low, high = 0, int(connection.execute(LAST_REVISION).fetchone()[0])
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(POSITION_AT, (middle,)).fetchone()
        if row[1] <= instant:
            low = middle
        else:
            high = middle - 1
    return low


def history(
    connection: Executes, place: Place, after: int, upto: int, limit: int
) -> list[EntryRow]:
    """See `Engine.history`."""
    bound = (*place, after, upto, limit)
    return [EntryRow._make(row) for row in connection.execute(HISTORY, bound).fetchall()]


def expiries(connection: Executes, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
    """See `Engine.expiries`."""
    return connection.execute(EXPIRIES, (after, upto, limit)).fetchall()


def strategies(connection: Executes) -> list[StrategyRow]:
    """See `Engine.strategies`."""
    return [StrategyRow._make(row) for row in connection.execute(STRATEGIES).fetchall()]
