"""Erasing on SQLite: rows, and what the file keeps of rows that are gone.

A deleted row stays in its page until something else is written there; so do words in the segments
of the text index, pages on the free list, and frames of the write-ahead log. So a purge ends with

1. **a merge of the text index** into one segment, which drops the words of texts that are gone,
2. **VACUUM**, which builds every page anew from the rows that there are,
3. **a checkpoint that empties the log**, for which nobody may be reading an older state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from agentmem.engines.ranges import namespace_bounds
from agentmem.engines.rows import (
    PurgeRow,
)
from agentmem.engines.sqlite.connection import Connections
from agentmem.engines.sqlite.driver import driver, translated
from agentmem.engines.sqlite.lock import FairLock
from agentmem.errors import StoreBusyError

__all__ = ["CHANGES", "EXPIRED", "RESULTS", "SUPERSEDED", "erasable", "purges", "scrub"]

CHANGES: Final = {
    "begin_purge": """
        INSERT INTO purges (namespace, key, revision, purged_at, agent, note, finished, checksum)
        VALUES (:namespace, :key, :revision, :purged_at, :agent, :note, 0, :checksum)
    """,
    "widen_purge": """
        UPDATE purges SET revision = max(revision, :revision), checksum = row_checksum(
            namespace, key, max(revision, :revision), purged_at, agent, note) WHERE id = :id
    """,
    "finish_purge": """
        UPDATE purges SET finished = 1 WHERE namespace = :namespace AND key IS :key
    """,
    "erase_entries": """
        UPDATE entries SET value = NULL, text = NULL, salt = NULL
        WHERE id IN (SELECT value FROM json_each(:ids)) AND operation <> 2
    """,
    "erase_vectors": """
        DELETE FROM vectors WHERE id IN (
            SELECT (s.id << 40) + j.value FROM vector_sets s CROSS JOIN json_each(:ids) j)
    """,
    "erase_pending": """
        DELETE FROM pending_vectors WHERE entry_id IN (SELECT value FROM json_each(:ids))
    """,
    "erase_results": """
        UPDATE operation_results SET result = NULL,
            fingerprint = CASE WHEN fingerprint IS NULL THEN NULL ELSE x'' END,
            checksum = row_checksum(revision,
                CASE WHEN fingerprint IS NULL THEN NULL ELSE x'' END, NULL)
        WHERE revision IN (SELECT value FROM json_each(:revisions))
            AND (length(fingerprint) > 0 OR result IS NOT NULL)
    """,
    "erase_conflicts": """
        UPDATE conflicts SET ours = NULL,
            status = CASE WHEN status = 'open' THEN 'resolved' ELSE status END,
            checksum = row_checksum(namespace, key,
                CASE WHEN status = 'open' THEN 'resolved' ELSE status END, kind, strategy,
                base_version, theirs_version, NULL, agent, op_id, revision, detected_at, note)
        WHERE id IN (SELECT value FROM json_each(:ids))
    """,
    "raise_floor": """
        UPDATE store SET floor = max(floor,
            min(:floor, COALESCE((SELECT MIN(revision) FROM tags), :floor)))
    """,
    "drop_entries": "DELETE FROM entries WHERE id IN (SELECT value FROM json_each(:ids))",
    "drop_reads": """
        DELETE FROM reads WHERE revision IN (
            SELECT j.value FROM json_each(:revisions) j JOIN commits c ON c.revision = j.value
            WHERE NOT EXISTS (SELECT 1 FROM entries e
                WHERE e.id >= c.first_entry_id AND e.id < c.first_entry_id + c.changes))
    """,
    "drop_results": """
        UPDATE operation_results SET result = NULL,
            checksum = row_checksum(revision, fingerprint, NULL)
        WHERE revision IN (SELECT value FROM json_each(:revisions)) AND result IS NOT NULL
    """,
    "erase_scan": """
        UPDATE reads SET scan = :scan, checksum = row_checksum(revision, position, kind,
            namespace, key, version, base_revision, :scan)
        WHERE revision = :revision AND position = :position
    """,
}
_PURGES: Final = """
SELECT id, namespace, key, revision, purged_at, agent, note, finished FROM purges ORDER BY id
"""
EXPIRED: Final = """
SELECT e.namespace, e.key FROM entries e
JOIN heads h ON h.namespace = e.namespace AND h.key = e.key AND h.entry_id = e.id
WHERE e.expires_at <= :instant AND e.value IS NOT NULL
    AND (e.namespace, e.key) > (:namespace, :key)
ORDER BY e.namespace, e.key LIMIT :limit + 0
"""
SUPERSEDED: Final = """
SELECT e.id, e.revision FROM entries e
JOIN heads h ON h.namespace = e.namespace AND h.key = e.key
WHERE e.id > ? AND e.id <= ? AND EXISTS (
        SELECT 1 FROM entries n WHERE n.namespace = e.namespace AND n.key = e.key
        AND n.revision > e.revision AND n.revision <= ?)
    AND h.version - e.version >= ?
ORDER BY e.id
"""
RESULTS: Final = """
SELECT revision, result FROM operation_results WHERE revision > ? AND result IS NOT NULL
ORDER BY revision LIMIT ? + 0
"""
_HOLDS: Final = "(value IS NOT NULL OR text IS NOT NULL OR (salt IS NOT NULL AND operation <> 2))"
# ruff: noqa: S608  # the statements are joined from the constants of this file, nothing else
_ERASABLE_KEY: Final = f"""
SELECT id, revision, value FROM entries
WHERE namespace = :start AND key = :key AND revision <= :upto AND id > :after AND {_HOLDS}
ORDER BY revision LIMIT :limit + 0
"""
_ERASABLE_BELOW: Final = f"""
SELECT id, revision, value FROM entries
WHERE id > :after AND namespace >= :start AND namespace < :end AND revision <= :upto AND {_HOLDS}
ORDER BY id LIMIT :limit + 0
"""
# A negative number of pages begins to bring all segments into one, positive ones go on.
_BEGIN_MERGE: Final = "INSERT INTO search_text (search_text, rank) VALUES ('merge', -1)"
_MERGE: Final = "INSERT INTO search_text (search_text, rank) VALUES ('merge', ?)"
_NO_END: Final = b""
_PAGES: Final = 16  # of the text index, merged at first in one turn
_MAX_PAGES: Final = 1_024
_TURN_S: Final = 0.02
_MAX_TURNS: Final = 1_000_000
_STEPS: Final = 3


def purges(connection: driver.Connection) -> list[PurgeRow]:
    """See `Engine.purges`."""
    return [PurgeRow._make(row) for row in connection.execute(_PURGES).fetchall()]


def erasable(
    connection: driver.Connection,
    namespace: str,
    key: str | None,
    upto: int,
    after: int,
    limit: int,
) -> list[tuple[int, int, str | None]]:
    """See `Engine.erasable`."""
    start, end = namespace_bounds(namespace)
    values = {
        "start": start,
        "end": _NO_END if end is None else end,
        "key": key,
        "upto": upto,
        "after": after,
        "limit": limit,
    }
    statement = _ERASABLE_BELOW if key is None else _ERASABLE_KEY
    return connection.execute(statement, values).fetchall()


def scrub(
    connections: Connections, lock: FairLock, timeout_ms: int, told: Callable[[int, int], None]
) -> None:
    """See `Engine.scrub`."""
    connection = connections.begin()
    try:
        told(0, _STEPS)
        _merge_text(connection, lock, timeout_ms)
        told(1, _STEPS)
        lock.acquire(timeout_ms)
        try:
            connection.execute("PRAGMA secure_delete=ON").fetchall()
            connection.execute("VACUUM")
            told(2, _STEPS)
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            lock.release()
            connections.discard()  # it would go on deleting securely, which writes more
    except driver.Error as error:
        raise translated(error, connections.path, waited_ms=timeout_ms) from error
    finally:
        connections.end()
    if busy:
        raise StoreBusyError(
            f"another program reads an older state of {connections.path}, which its write-ahead "
            "log must keep: end what has read there for seconds (a backup, an open sqlite3 "
            "shell), and run it again",
            waited_ms=timeout_ms,
        )
    told(_STEPS, _STEPS)


def _merge_text(connection: driver.Connection, lock: FairLock, timeout_ms: int) -> None:
    pages, statement, values = _PAGES, _BEGIN_MERGE, ()
    for _turn in range(_MAX_TURNS):
        lock.acquire(timeout_ms)
        try:
            began = time.monotonic()
            connection.execute("BEGIN IMMEDIATE")
            try:
                before = connection.total_changes
                connection.execute(statement, values)
                done = connection.total_changes - before < 2  # as FTS5 says that it is
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            took = time.monotonic() - began
        finally:
            lock.release()
        if done and statement is _MERGE:
            return
        if statement is _MERGE:
            pages = min(_MAX_PAGES, pages * 2) if took < _TURN_S else max(1, pages // 2)
        statement, values = _MERGE, (pages,)  # type: ignore[assignment]  # of a number
