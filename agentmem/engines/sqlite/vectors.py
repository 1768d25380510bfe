"""The vectors of the log on SQLite, and what tells which are whose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from agentmem.engines.ranges import label_bounds, namespace_bounds
from agentmem.engines.rows import (
    EntryRow,
    GenerationRow,
    NewCommit,
    NewVector,
    Place,
    Position,
    Range,
    Spaces,
    VectorRow,
    VectorSet,
    vector_id,
)
from agentmem.engines.sqlite.checksums import checksum
from agentmem.engines.sqlite.driver import driver
from agentmem.engines.sqlite.reads import ENTRY
from agentmem.engines.sqlite.tallies import Counted

__all__ = [
    "SPACES_COUNT",
    "KnownSpaces",
    "append",
    "changes",
    "count",
    "embedded_since",
    "generation",
    "late",
    "of_entries",
    "pending",
    "rows",
    "spaces",
    "stored",
    "unembedded",
]

# ruff: noqa: S608  # the statements are joined from the constants of this file, nothing else
Executes = driver.Connection | driver.Cursor

# In one statement: a namespace must not name a set that was made between two.
_SPACES: Final = """
SELECT id, embedder, dimension, NULL FROM vector_sets
UNION ALL SELECT set_id, NULL, NULL, namespace FROM vector_spaces
"""
SPACES_COUNT: Final = "SELECT spaces FROM store"
_COUNT_SPACES: Final = "UPDATE store SET spaces = spaces + 1"
_ADD_SET: Final = """
INSERT OR IGNORE INTO vector_sets (id, embedder, dimension, checksum) VALUES (?, ?, ?, ?)
"""
_ADD_SPACE: Final = """
INSERT OR IGNORE INTO vector_spaces (namespace, set_id, checksum) VALUES (?, ?, ?)
"""
# One that was made meanwhile of an entry that was purged or compacted must not come back.
_ADD: Final = """
INSERT OR IGNORE INTO vectors (id, late, vector, checksum) SELECT ?1, ?2, ?3, ?4
WHERE EXISTS (SELECT 1 FROM entries WHERE id = ?1 & ((1 << 40) - 1) AND value IS NOT NULL)
"""
_ADD_PENDING: Final = "INSERT OR IGNORE INTO pending_vectors (entry_id) VALUES (?)"
_SETTLE: Final = "DELETE FROM pending_vectors WHERE entry_id = ?"
_OF: Final = """
SELECT v.id - ?, v.vector FROM json_each(?) j CROSS JOIN vectors v ON v.id = ? + j.value
"""
_LATE: Final = """
SELECT v.id - ?, v.late FROM json_each(?) j CROSS JOIN vectors v ON v.id = ? + j.value
WHERE v.late IS NOT NULL
"""

# Most vectors are those of heads; only of the others the entry that came next is looked for.
_UNTIL: Final = """CASE WHEN h.entry_id = e.id THEN NULL ELSE (
    SELECT MIN(n.revision) FROM entries n
    WHERE n.namespace = e.namespace AND n.key = e.key AND n.revision > e.revision) END"""
_PREVIOUS: Final = """(SELECT p.id FROM entries p
    WHERE p.namespace = e.namespace AND p.key = e.key AND p.revision < e.revision
    ORDER BY p.revision DESC LIMIT 1)"""
# Where it says "NOT INDEXED", "+" or "CROSS JOIN", SQLite by itself reads a whole namespace, or
# all vectors, for the few entries that are asked for by other things.
_WITHIN: Final = "e.namespace >= :start AND e.namespace < :end"
_OF_SET: Final = "+v.id > :base AND +v.id < :base + (1 << 40)"
_ROWS: Final = f"""
SELECT id, namespace, revision, since, until,
    CASE WHEN until <= :revision THEN NULL ELSE vector END
FROM (
    SELECT e.id AS id, e.namespace AS namespace, e.revision AS revision,
        COALESCE(v.late, e.revision) AS since,
        {_UNTIL} AS until, v.vector AS vector
    FROM vectors v JOIN entries e ON e.id = v.id - :base
    JOIN heads h ON h.namespace = e.namespace AND h.key = e.key
    WHERE v.id > :base + :after AND v.id <= :base + :last AND {_WITHIN}
        AND (v.late IS NULL OR v.late <= :revision)
    ORDER BY v.id LIMIT :limit + 0)
"""
_CHANGES: Final = f"""
SELECT e.id, e.namespace, e.revision, COALESCE(v.late, e.revision), {_UNTIL}, v.vector,
    {_PREVIOUS}
FROM entries e NOT INDEXED JOIN heads h ON h.namespace = e.namespace AND h.key = e.key
LEFT JOIN vectors v ON v.id = :base + e.id
WHERE e.id > :after AND e.id <= :last AND {_WITHIN}
UNION ALL
SELECT e.id, e.namespace, e.revision, v.late, {_UNTIL}, v.vector, NULL
FROM vectors v CROSS JOIN entries e ON e.id = v.id - :base
JOIN heads h ON h.namespace = e.namespace AND h.key = e.key
WHERE v.late > :since AND v.late <= :revision AND e.id <= :after AND {_WITHIN} AND {_OF_SET}
"""
_EMBEDDED_SINCE: Final = f"""
SELECT e.namespace, e.key FROM vectors v CROSS JOIN entries e ON e.id = v.id - :base
CROSS JOIN heads h ON h.namespace = e.namespace AND h.key = e.key AND h.entry_id = e.id
WHERE v.late > :revision AND {_WITHIN} AND {_OF_SET}
"""
_COUNT: Final = f"""
SELECT COUNT(*) FROM (
    SELECT 1 FROM heads e JOIN vectors v ON v.id = :base + e.entry_id WHERE {_WITHIN}
    LIMIT :limit + 0)
"""
_PENDING: Final = f"""
SELECT {ENTRY} FROM pending_vectors p CROSS JOIN entries e ON e.id = p.entry_id
CROSS JOIN heads h ON h.namespace = e.namespace AND h.key = e.key AND h.entry_id = e.id
JOIN commits c ON c.revision = e.revision
WHERE p.entry_id > ? ORDER BY p.entry_id LIMIT ? + 0
"""
_UNEMBEDDED: Final = f"""
SELECT {ENTRY} FROM entries e NOT INDEXED JOIN commits c ON c.revision = e.revision
WHERE e.id > :after AND {_WITHIN} AND e.value IS NOT NULL AND COALESCE(e.text, 'x') <> ''
    AND (:all OR EXISTS (SELECT 1 FROM heads h WHERE h.namespace = e.namespace
        AND h.key = e.key AND h.entry_id = e.id))
    AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.id = :base + e.id)
ORDER BY e.id LIMIT :limit + 0
"""
_GENERATION: Final = """
SELECT set_id, name, manifest, revision, hash, last_entry_id, live, dead, built_at
FROM generations WHERE set_id = ?
"""
_STORED: Final = """
SELECT id, late, vector, checksum FROM vectors WHERE id > ? ORDER BY id LIMIT ? + 0
"""
_NO_END: Final = b""


class KnownSpaces:
    """The spaces as they were last read; read again only if they have changed."""

    def __init__(self) -> None:
        self._known: tuple[int, Spaces] | None = None

    def get(self, connection: Executes) -> Spaces:
        """The spaces, in a transaction that nobody else can write beside."""
        count = connection.execute(SPACES_COUNT).fetchone()[0]
        known = self._known
        if known is None or known[0] != count:
            known = self._known = (count, spaces(connection))
        return known[1]


def append(cursor: driver.Cursor, rows: NewCommit) -> None:
    """Writes what a batch has of vectors."""
    counted = Counted(cursor)
    for each in rows.sets:
        values = each._asdict()
        counted.before("add_set", values)
        cursor.execute(_ADD_SET, (*each, checksum(each)))
        counted.after("add_set", values, 1)
    for space in rows.spaces:
        values = {"namespace": space[0]}
        counted.before("add_space", values)
        cursor.execute(_ADD_SPACE, (*space, checksum(space)))
        counted.after("add_space", values, 1)
    if rows.spaces:
        cursor.execute(_COUNT_SPACES)
    if len(rows.vectors) == 1:
        # Half of what executemany() costs.
        counted.add("vectors", cursor.execute(_ADD, rows.vectors[0]).rowcount)
    elif rows.vectors:
        counted.add("vectors", cursor.executemany(_ADD, rows.vectors).rowcount)
    if rows.pending:
        pending = [(each,) for each in rows.pending]
        counted.add("pending_vectors", cursor.executemany(_ADD_PENDING, pending).rowcount)
    if rows.settled:
        settled = [(each,) for each in rows.settled]
        counted.add("pending_vectors", -cursor.executemany(_SETTLE, settled).rowcount)
    counted.write()


def spaces(connection: Executes) -> Spaces:
    """See `Engine.spaces`."""
    rows = connection.execute(_SPACES).fetchall()
    sets = {row[0]: VectorSet(row[0], row[1], row[2]) for row in rows if row[3] is None}
    return Spaces(sets, {row[3]: row[0] for row in rows if row[3] is not None})


def of_entries(connection: Executes, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
    """See `Engine.vectors`."""
    return _each(connection, _OF, set_id, entries)


def late(connection: Executes, set_id: int, entries: Sequence[int]) -> dict[int, int]:
    """See `Engine.vector_revisions`."""
    return _each(connection, _LATE, set_id, entries)


def _each(
    connection: Executes, statement: str, set_id: int, entries: Sequence[int]
) -> dict[int, Any]:
    base = vector_id(set_id, 0)
    return dict(connection.execute(statement, (base, json.dumps(entries), base)).fetchall())


def _bound(set_id: int, within: Range) -> dict[str, Any]:
    start, end = namespace_bounds(within.namespace)
    return {
        "base": vector_id(set_id, 0),
        "start": start,
        "end": _NO_END if end is None else end,
    }


def embedded_since(connection: Executes, revision: int, within: Range, set_id: int) -> list[Place]:
    """See `Engine.embedded_since`."""
    bound = _bound(set_id, within) | {"revision": revision}
    return connection.execute(_EMBEDDED_SINCE, bound).fetchall()


def rows(
    connection: Executes, set_id: int, within: Range, after: int, upto: Position, limit: int
) -> list[VectorRow]:
    """See `Engine.vector_rows`."""
    bound = _bound(set_id, within) | {
        "after": after,
        "last": upto.last_entry_id,
        "revision": upto.revision,
        "limit": limit,
    }
    return [VectorRow._make((*row, None)) for row in connection.execute(_ROWS, bound).fetchall()]


def changes(
    connection: Executes, set_id: int, within: Range, after: Position, upto: Position
) -> list[VectorRow]:
    """See `Engine.vector_changes`."""
    bound = _bound(set_id, within) | {
        "after": after.last_entry_id,
        "since": after.revision,
        "last": upto.last_entry_id,
        "revision": upto.revision,
    }
    return [VectorRow._make(row) for row in connection.execute(_CHANGES, bound).fetchall()]


def count(connection: Executes, set_id: int, within: Range, limit: int) -> int:
    """See `Engine.count_vectors`."""
    bound = _bound(set_id, within) | {"limit": limit}
    return int(connection.execute(_COUNT, bound).fetchone()[0])


def pending(connection: Executes, after: int, limit: int) -> list[EntryRow]:
    """See `Engine.pending_vectors`."""
    return [EntryRow._make(row) for row in connection.execute(_PENDING, (after, limit)).fetchall()]


def unembedded(
    connection: Executes, set_id: int, label: str, after: int, limit: int, *, current: bool
) -> list[EntryRow]:
    """See `Engine.unembedded`."""
    start, end = label_bounds(label)
    bound = {
        "base": vector_id(set_id, 0),
        "start": start,
        "end": _NO_END if end is None else end,
        "after": after,
        "limit": limit,
        "all": not current,
    }
    return [EntryRow._make(row) for row in connection.execute(_UNEMBEDDED, bound).fetchall()]


def stored(connection: Executes, after: int, limit: int) -> list[NewVector]:
    """See `Engine.stored_vectors`."""
    return [NewVector._make(row) for row in connection.execute(_STORED, (after, limit)).fetchall()]


def generation(connection: Executes, set_id: int) -> GenerationRow | None:
    """See `Engine.generation`."""
    row = connection.execute(_GENERATION, (set_id,)).fetchone()
    return GenerationRow._make(row) if row is not None else None
