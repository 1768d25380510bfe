"""Reading the log on SQLite: commits, and the records beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from agentmem.engines.ranges import namespace_bounds
from agentmem.engines.rows import (
    CommitRow,
    ConflictRow,
    EntryRow,
    Narrowing,
    NewEntry,
    TagRow,
)
from agentmem.engines.sqlite.reads import ENTRY, Executes, or_no_end

_COMMIT: Final = """
c.revision, c.committed_at, c.scope, c.op_id, c.agent, c.note, c.metadata, c.base_revision,
c.attempt, c.first_entry_id, c.changes, c.accepted, c.digests, c.hash, c.beside, r.fingerprint,
r.result
"""
COMMITS: Final = (
    """
SELECT """
    + _COMMIT
    + """ FROM commits c LEFT JOIN operation_results r ON r.revision = c.revision
"""
)
COMMITS_UP: Final = (
    COMMITS + "WHERE c.revision > ? AND c.revision <= ? ORDER BY c.revision LIMIT ? + 0"
)
COMMITS_DOWN: Final = (
    COMMITS + "WHERE c.revision > ? AND c.revision <= ? ORDER BY c.revision DESC LIMIT ? + 0"
)
# "+" keeps SQLite at the entries of the commit, and away from those of the namespace.
_WANTED: Final = """
WHERE c.revision > :after AND c.revision <= :upto AND (:agent IS NULL OR c.agent = :agent)
  AND (:start IS NULL OR c.scope = :scope OR EXISTS (SELECT 1 FROM entries e
    WHERE e.id >= c.first_entry_id AND e.id < c.first_entry_id + c.changes
    AND +e.namespace >= :start AND +e.namespace < :end))
  AND NOT EXISTS (SELECT 1 FROM json_each(:texts) t
    WHERE instr(COALESCE(c.metadata, ''), t.value) = 0)
"""
COMMITS_IN_UP: Final = COMMITS + _WANTED + "ORDER BY c.revision LIMIT :limit + 0"
COMMITS_IN_DOWN: Final = COMMITS + _WANTED + "ORDER BY c.revision DESC LIMIT :limit + 0"
BLOCKS_UP: Final = (
    "SELECT block FROM log_marks WHERE name = ? AND block >= ? ORDER BY block LIMIT ? + 0"
)
BLOCKS_DOWN: Final = (
    "SELECT block FROM log_marks WHERE name = ? AND block <= ? ORDER BY block DESC LIMIT ? + 0"
)
MARKED_AFTER: Final = "SELECT marked_after FROM store"
UNMARKED: Final = """
SELECT j.value ->> 0, j.value ->> 1 FROM json_each(?) j WHERE NOT EXISTS (SELECT 1 FROM log_marks m
    WHERE m.name = j.value ->> 0 AND m.block = j.value ->> 1)
"""
COMMIT_OF_OPERATION: Final = COMMITS + "WHERE c.scope = ? AND c.op_id = ?"
COMMIT_OF_ATTEMPT: Final = COMMITS + "WHERE c.revision = ? AND c.attempt = ?"
COMMIT_ENTRIES: Final = (
    """
SELECT """
    + ENTRY
    + """ FROM entries e JOIN commits c ON c.revision = e.revision
WHERE e.id >= ? AND e.id < ? ORDER BY e.id
"""
)
CHAIN_ENTRIES: Final = """
SELECT id, namespace, key, revision, version, operation, base_version, merged, value, text,
    ttl_us, expires_at, created_at, salt, digest
FROM entries WHERE id >= ? AND id < ? ORDER BY id
"""
TAGS: Final = (
    "SELECT scope, name, revision, created_at, agent, note FROM tags WHERE scope = ? ORDER BY name"
)
ALL_TAGS: Final = (
    "SELECT scope, name, revision, created_at, agent, note FROM tags ORDER BY scope, name"
)
_CONFLICTS: Final = """
SELECT id, namespace, key, status, kind, strategy, base_version, theirs_version, ours, agent,
    op_id, revision, detected_at, note FROM conflicts
"""
CONFLICTS: Final = (
    _CONFLICTS
    + "WHERE (:status IS NULL OR status = :status) AND id > :after ORDER BY id LIMIT :limit + 0"
)
CONFLICT: Final = _CONFLICTS + "WHERE id = ?"

_LAST_REVISION: Final = 2**63 - 1


def commits(
    connection: Executes, after: int, upto: int | None, limit: int, *, newest_first: bool
) -> list[CommitRow]:
    """See `Engine.commits`."""
    statement = COMMITS_DOWN if newest_first else COMMITS_UP
    bound = (after, _LAST_REVISION if upto is None else upto, limit)
    return [CommitRow._make(row) for row in connection.execute(statement, bound).fetchall()]


def commits_in(
    connection: Executes,
    spans: Sequence[tuple[int, int]],
    wanted: Narrowing,
    limit: int,
    *,
    newest_first: bool,
) -> list[CommitRow]:
    """See `Engine.commits_in`. The log is only added to: several statements are as one."""
    statement = COMMITS_IN_DOWN if newest_first else COMMITS_IN_UP
    start, end = namespace_bounds(wanted.within or "")
    bound = {
        "agent": wanted.agent,
        "start": None if wanted.within is None else start,
        "end": or_no_end(end),
        "scope": wanted.or_scope,
        "texts": json.dumps(wanted.texts),
    }
    found: list[CommitRow] = []
    for after, upto in spans:
        if len(found) == limit:
            break
        span = {"after": after, "upto": upto, "limit": limit - len(found)}
        rows = connection.execute(statement, bound | span).fetchall()
        found += map(CommitRow._make, rows)
    return found


def blocks(
    connection: Executes, name: str, start: int, limit: int, *, newest_first: bool
) -> list[int]:
    """See `Engine.blocks`."""
    statement = BLOCKS_DOWN if newest_first else BLOCKS_UP
    return [row[0] for row in connection.execute(statement, (name, start, limit)).fetchall()]


def unmarked(connection: Executes, marks: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """See `Engine.unmarked`."""
    return connection.execute(UNMARKED, (json.dumps(marks),)).fetchall()


def commit_entries(connection: Executes, rows: Iterable[CommitRow]) -> list[EntryRow]:
    """See `Engine.commit_entries`."""
    found = []
    for row in rows:
        bound = (row.first_entry_id, row.first_entry_id + row.changes)
        found += connection.execute(COMMIT_ENTRIES, bound).fetchall()
    return [EntryRow._make(each) for each in found]


def one_commit(connection: Executes, statement: str, bound: tuple[Any, ...]) -> CommitRow | None:
    """The commit that a statement finds."""
    row = connection.execute(statement, bound).fetchone()
    return CommitRow._make(row) if row is not None else None


def tags(connection: Executes, scope: str) -> list[TagRow]:
    """See `Engine.tags`."""
    return [TagRow._make(row) for row in connection.execute(TAGS, (scope,)).fetchall()]


def all_tags(connection: Executes) -> list[TagRow]:
    """See `Engine.all_tags`."""
    return [TagRow._make(row) for row in connection.execute(ALL_TAGS).fetchall()]


def conflicts(
    connection: Executes, status: str | None, after: int, limit: int
) -> list[ConflictRow]:
    """See `Engine.conflicts`."""
    bound = {"status": status, "after": after, "limit": limit}
    return [ConflictRow._make(row) for row in connection.execute(CONFLICTS, bound).fetchall()]


def conflict(connection: Executes, number: int) -> ConflictRow | None:
    """See `Engine.conflict`."""
    row = connection.execute(CONFLICT, (number,)).fetchone()
    return ConflictRow._make(row) if row is not None else None


def chain(connection: Executes, after: int, limit: int) -> list[tuple[CommitRow, list[NewEntry]]]:
    """See `Engine.chain`."""
    rows = commits(connection, after, None, limit, newest_first=False)
    if not rows:
        return []
    # One statement for all: of short commits it is the statements that take long.
    firsts, ends = zip(*map(_ids_of, rows), strict=True)
    entries = connection.execute(CHAIN_ENTRIES, (min(firsts), max(ends))).fetchall()
    found = []
    at = 0
    for row, end in zip(rows, ends, strict=True):
        start = at
        while at < len(entries) and entries[at][0] < end:
            at += 1
        found.append((row, [NewEntry._make(entry) for entry in entries[start:at]]))
    return found


def _ids_of(row: CommitRow) -> tuple[int, int]:
    """The first id of a commit's entries, and the one after the last; zeros if it is damaged."""
    if isinstance(row.first_entry_id, int) and isinstance(row.changes, int):
        return row.first_entry_id, row.first_entry_id + row.changes
    return 0, 0
