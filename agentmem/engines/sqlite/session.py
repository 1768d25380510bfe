"""The write session on SQLite: the fair lock, then ``BEGIN IMMEDIATE``.

Why IMMEDIATE: a deferred transaction that has read and then writes fails at once with
BUSY_SNAPSHOT if another wrote meanwhile. Why the lock, when SQLite has its own: SQLite's is
polled with growing sleeps, and starves writers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from agentmem.clock import MicrosecondClock
from agentmem.engines.rows import (
    Answer,
    Change,
    ConflictRow,
    EntryRow,
    KnownOperation,
    Look,
    Moment,
    NewCommit,
    NewEntry,
    Place,
    Range,
    ReadRow,
    Spaces,
    Start,
    StrategyRow,
)
from agentmem.engines.session import CommitUnknownError
from agentmem.engines.sqlite import coordination, lineage, reads, retention, tallies, text, vectors
from agentmem.engines.sqlite.checksums import checksum, with_checksum
from agentmem.engines.sqlite.connection import BUSY_TIMEOUT, Connections
from agentmem.engines.sqlite.driver import (
    HAS_WAL_RESET_BUG,
    NULL,
    bound,
    bound_by_name,
    driver,
    is_busy,
    is_io_error,
    translated,
)
from agentmem.engines.sqlite.lock import FairLock

__all__ = ["SqliteSession"]

_INSERT_COMMIT: Final = """
INSERT INTO commits (revision, committed_at, scope, op_id, agent, note, metadata, base_revision,
    attempt, first_entry_id, changes, accepted, digests, hash, beside)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_RESULT: Final = (
    "INSERT INTO operation_results (revision, fingerprint, result, checksum) VALUES (?, ?, ?, ?)"
)
_INSERT_ENTRY: Final = """
INSERT INTO entries (id, namespace, key, revision, version, operation, base_version, merged,
    value, text, ttl_us, expires_at, created_at, salt, digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPSERT_HEAD: Final = """
INSERT INTO heads (namespace, key, entry_id, version, revision) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE SET
    entry_id = excluded.entry_id, version = excluded.version, revision = excluded.revision
"""
_TOUCH: Final = "UPDATE entries SET expires_at = ? WHERE id = ?"
_INSERT_READ: Final = (
    "INSERT INTO reads (revision, position, kind, namespace, key, version, base_revision, scan, "
    "checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_CONFLICT: Final = """
INSERT INTO conflicts (id, namespace, key, status, kind, strategy, base_version, theirs_version,
    ours, agent, op_id, revision, detected_at, note, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_MARK: Final = "INSERT OR IGNORE INTO log_marks (name, block) VALUES (?, ?)"
_ATTEMPT: Final = "SELECT 1 FROM commits WHERE revision = ? AND attempt = ?"
_CHANGES: Final = (
    {
        "set_strategy": """
        INSERT INTO merge_strategies (position, pattern, spec, checksum)
        VALUES ((SELECT COALESCE(MAX(position), 0) + 1 FROM merge_strategies), :pattern, :spec,
            :checksum)
        ON CONFLICT (pattern) DO UPDATE SET spec = excluded.spec, position = excluded.position,
            checksum = excluded.checksum
    """,
        "unset_strategy": "DELETE FROM merge_strategies WHERE pattern = :pattern",
        "set_tag": """
        INSERT INTO tags (scope, name, revision, created_at, agent, note, checksum)
        VALUES (:scope, :name, :revision, :created_at, :agent, :note, :checksum)
        ON CONFLICT (scope, name) DO UPDATE SET revision = excluded.revision,
            created_at = excluded.created_at, agent = excluded.agent, note = excluded.note,
            checksum = excluded.checksum
    """,
        "unset_tag": "DELETE FROM tags WHERE scope = :scope AND name = :name",
        "resolve_conflict": """
        UPDATE conflicts SET status = 'resolved', revision = :revision, note = :note,
            checksum = row_checksum(namespace, key, 'resolved', kind, strategy, base_version,
                theirs_version, ours, agent, op_id, :revision, detected_at, :note)
        WHERE id = :id AND status = 'open'
    """,
        "fence": "UPDATE store SET fence = fence + 1",
        "count_spaces": "UPDATE store SET spaces = spaces + 1",
        "copy_conflict": """
        INSERT INTO conflicts (id, namespace, key, status, kind, strategy, base_version,
            theirs_version, ours, agent, op_id, revision, detected_at, note, checksum)
        VALUES (:id, :namespace, :key, :status, :kind, :strategy, :base_version,
            :theirs_version, :ours, :agent, :op_id, :revision, :detected_at, :note, :checksum)
        ON CONFLICT (id) DO UPDATE SET status = excluded.status, revision = excluded.revision,
            note = excluded.note, checksum = row_checksum(namespace, key, excluded.status, kind,
                strategy, base_version, theirs_version, ours, agent, op_id, excluded.revision,
                detected_at, excluded.note)
    """,
        "move_space": """
        UPDATE vector_spaces SET set_id = :set_id, checksum = row_checksum(namespace, :set_id)
        WHERE namespace = :namespace
    """,
        "drop_vectors": """
        DELETE FROM vectors WHERE id IN (SELECT id FROM vectors
            WHERE id >= :first AND id < :past LIMIT :limit + 0)
    """,
        "publish": """
        INSERT INTO generations (set_id, name, manifest, revision, hash, last_entry_id, live, dead,
            built_at)
        VALUES (:set_id, :name, :manifest, :revision, :hash, :last_entry_id, :live, :dead,
            :built_at)
        ON CONFLICT (set_id) DO UPDATE SET name = excluded.name, manifest = excluded.manifest,
            revision = excluded.revision, hash = excluded.hash,
            last_entry_id = excluded.last_entry_id, live = excluded.live,
            dead = excluded.dead, built_at = excluded.built_at
    """,
        "unpublish": "DELETE FROM generations WHERE set_id = :set_id AND name = :name",
    }
    | coordination.CHANGES
    | retention.CHANGES
)
# Rows that these insert have a checksum, of these columns.
_SEALED: Final = {
    "set_strategy": ("pattern", "spec"),
    "set_tag": ("scope", "name", "revision", "created_at", "agent", "note"),
    "begin_purge": ("namespace", "key", "revision", "purged_at", "agent", "note"),
    "copy_conflict": ConflictRow._fields[1:],
}
# With the WAL-reset bug checkpoints run only here, under the lock, when the log has this size.
_CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
_CHECKPOINT: Final = "PRAGMA wal_checkpoint(TRUNCATE)"


class SqliteSession:
    """See `agentmem.engines.session.WriteSession`."""

    def __init__(
        self,
        connections: Connections,
        lock: FairLock,
        clock: MicrosecondClock,
        known: vectors.KnownSpaces,
        timer: Callable[[], Moment],
    ) -> None:
        self._known = known
        self._connections = connections
        self._lock = lock
        self._clock = clock
        self._timer = timer
        self._moment: Moment | None = None  # when the lock was had
        self._began = False  # whether this session uses the thread's connection
        self._connection: driver.Connection | None = None
        self._cursor: driver.Cursor | None = None

    def enter(
        self,
        timeout_ms: int,
        places: Sequence[Place],
        operations: Sequence[tuple[str, str]],
        *,
        spaces: bool = False,
        looks: Sequence[Look] = (),
    ) -> Start:
        connection = self._connections.begin()
        self._began = True
        try:
            cursor = self._use(connection)
            self._lock.acquire(timeout_ms)
        except BaseException:
            self._end()
            raise
        try:
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except driver.Error as error:
                if not is_busy(error):
                    raise
                # Perhaps an asynchronous exception has left a statement of this thread half
                # read; SQLite then refuses at once. If not, a new connection waits again.
                self._connections.discard()
                cursor = self._use(self._connections.begin())
                cursor.execute("BEGIN IMMEDIATE")
            start = self._start(cursor, places, operations)
            if looks:
                moment = self._moment = self._timer()
                answers = {}
                for each in looks:
                    answers[each] = coordination.answer(cursor, each, moment, self._clock())
                start = start._replace(moment=moment, answers=answers)
            return start._replace(spaces=self._known.get(cursor)) if spaces else start
        except driver.Error as error:
            self.rollback()
            self.release()
            raise translated(error, self._connections.path, waited_ms=timeout_ms) from error

    def _start(
        self,
        cursor: driver.Cursor,
        places: Sequence[Place],
        operations: Sequence[tuple[str, str]],
    ) -> Start:
        known: dict[tuple[str, str], KnownOperation] = {}
        for pair in operations:
            row = cursor.execute(reads.OPERATION, pair).fetchone()
            if row is not None:
                known[pair] = KnownOperation._make(row)
        if len(places) == 1:
            position, head = reads.position_and_head(cursor, places[0], self._clock)
            return Start(position, {places[0]: head}, known)
        return Start(reads.position(cursor, self._clock), self.heads(places), known)

    def _use(self, connection: driver.Connection) -> driver.Cursor:
        self._connection = connection
        # One cursor for all: making one costs a third of a short statement.
        self._cursor = connection.cursor()
        return self._cursor

    def _open(self) -> driver.Cursor:
        assert self._cursor is not None, "the session was not entered"
        return self._cursor

    def _read(self, query: Callable[[driver.Cursor], Any]) -> Any:
        try:
            return query(self._open())
        except driver.Error as error:
            raise translated(error, self._connections.path) from error

    def heads(self, places: Sequence[Place]) -> dict[Place, EntryRow | None]:
        found: dict[Place, EntryRow | None] = {}
        try:
            execute = self._open().execute
            for place in places:
                row = execute(reads.HEAD, place).fetchone()
                found[place] = reads.entry_in(place, row) if row is not None else None
        except driver.Error as error:
            raise translated(error, self._connections.path) from error
        return found

    def entry_at(self, place: Place, revision: int) -> EntryRow | None:
        row: EntryRow | None = self._read(lambda c: reads.entry_at(c, place, revision))
        return row

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        row: EntryRow | None = self._read(lambda c: reads.entry_version(c, place, version))
        return row

    def changed_since(self, revision: int, within: Range, expired: tuple[int, int]) -> list[Place]:
        found: list[Place] = self._read(lambda c: reads.changed_since(c, revision, within, expired))
        return found

    def strategies(self) -> list[StrategyRow]:
        rows: list[StrategyRow] = self._read(reads.strategies)
        return rows

    def floor(self) -> int:
        floor: int = self._read(lambda c: c.execute(reads.FLOOR).fetchone()[0])
        return floor

    def spaces(self) -> Spaces:
        found: Spaces = self._read(self._known.get)
        return found

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = self._read(lambda c: vectors.of_entries(c, set_id, entries))
        return found

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        found: list[float] = self._read(lambda c: text.scores(c, words, texts))
        return found

    def embedded_since(self, revision: int, within: Range, set_id: int) -> list[Place]:
        found: list[Place] = self._read(
            lambda c: vectors.embedded_since(c, revision, within, set_id)
        )
        return found

    def reads_of(self, after: int, upto: int) -> list[ReadRow]:
        found: list[ReadRow] = self._read(lambda c: lineage.reads_of(c, after, upto))
        return found

    def look(self, look: Look, after: Sequence[Change]) -> Answer:
        moment = self._moment
        assert moment is not None, "the session was entered with looks"
        cursor = self._open()
        try:
            self._change(cursor, after)
            return coordination.answer(cursor, look, moment, self._clock())
        except driver.Error as error:
            raise translated(error, self._connections.path) from error

    def confirm(self) -> None:
        """Nothing is guessed here."""

    def append(self, rows: NewCommit) -> None:
        cursor = self._cursor
        assert cursor is not None, "the session was not entered"
        try:
            if len(rows.commits) == 1 and len(rows.entries) == 1:
                # By far the most frequent batch; execute() costs half of executemany().
                entry = rows.entries[0]
                id, namespace, key, revision, version = entry[:5]
                cursor.execute(_INSERT_COMMIT, _commit_bound(rows.commits[0]))
                cursor.execute(_INSERT_ENTRY, _entry_bound(entry))
                cursor.execute(_UPSERT_HEAD, (namespace, key, id, version, revision))
            else:
                self._append_many(cursor, rows)
            if rows.results:
                cursor.executemany(_INSERT_RESULT, map(bound, with_checksum(rows.results)))
            if rows.touches:
                cursor.executemany(_TOUCH, rows.touches)
            if rows.reads:
                cursor.executemany(_INSERT_READ, map(bound, with_checksum(rows.reads)))
            if rows.conflicts:
                found = [bound((*each, checksum(each[1:]))) for each in rows.conflicts]
                cursor.executemany(_INSERT_CONFLICT, found)
                tallies.note_conflicts(cursor, len(found))
            if rows.marks:
                cursor.executemany(_INSERT_MARK, rows.marks)
            if rows.gone or rows.texts:
                text.change(cursor, rows.gone, rows.texts)
            if rows.vectors or rows.pending or rows.settled or rows.sets or rows.spaces:
                vectors.append(cursor, rows)
            if rows.changes:
                self._change(cursor, rows.changes)
        except driver.Error as error:
            raise translated(error, self._connections.path) from error

    def _change(self, cursor: driver.Cursor, changes: Sequence[Change]) -> None:
        counted = tallies.Counted(cursor)
        for change in changes:
            values = change.values
            columns = _SEALED.get(change.name)
            if columns is not None:
                values = values | {"checksum": checksum(values[name] for name in columns)}
            values = bound_by_name(values)
            counted.before(change.name, values)
            change.count = cursor.execute(_CHANGES[change.name], values).rowcount
            counted.after(change.name, values, change.count)
        counted.write()

    def _append_many(self, cursor: driver.Cursor, rows: NewCommit) -> None:
        cursor.executemany(_INSERT_COMMIT, map(_commit_bound, rows.commits))
        cursor.executemany(_INSERT_ENTRY, map(_entry_bound, rows.entries))
        # Only the last entry of a key in the batch becomes its head.
        heads = {(entry.namespace, entry.key): entry for entry in rows.entries}
        cursor.executemany(
            _UPSERT_HEAD,
            [(*place, entry.id, entry.version, entry.revision) for place, entry in heads.items()],
        )

    def commit(self) -> None:
        cursor = self._cursor
        assert cursor is not None, "the session was not entered"
        try:
            cursor.execute("COMMIT")
        except driver.Error as error:
            if is_io_error(error):
                # The frames may have reached the log: invisible now, there after a restart.
                self._connections.discard()
                self._connection = self._cursor = None
                raise CommitUnknownError(str(error)) from error
            # Everything else fails before the commit mark is written.
            raise translated(error, self._connections.path) from error

    def was_committed(self, attempt: bytes, revision: int) -> bool:
        if self._connection is None or self._connection.in_transaction:
            return False
        if revision:
            return bool(self._read(lambda c: c.execute(_ATTEMPT, (revision, attempt)).fetchone()))
        return bool(self._read(lambda c: c.execute(coordination.HAS_MARK, (attempt,)).fetchone()))

    def rollback(self) -> None:
        connection, cursor = self._connection, self._cursor
        if connection is None or cursor is None or not connection.in_transaction:
            return
        try:
            # By the session's own cursor, which ends its last statement first: a half read one
            # would go on reading its snapshot after the rollback.
            cursor.execute("ROLLBACK")
        except driver.Error:
            # The user's exception is on its way; a connection that cannot roll back is dropped,
            # which rolls back as surely.
            self._connections.discard()
            self._connection = self._cursor = None

    def release(self) -> None:
        if HAS_WAL_RESET_BUG:
            self._checkpoint()
        self._lock.release()
        self._end()

    def _end(self) -> None:
        # Let go before the use ends: a cursor must not be freed while another thread closes.
        self._connection = self._cursor = None
        if self._began:
            self._began = False
            self._connections.end()

    def _checkpoint(self) -> None:
        connection = self._connection
        if connection is None or connection.in_transaction:
            return
        try:
            # stat() opens nothing, so it cannot drop SQLite's locks on the file.
            if os.stat(self._connections.path + "-wal").st_size <= _CHECKPOINT_BYTES:
                return
            # A long read, such as a backup, keeps the log; no writer shall wait here for its end.
            connection.execute("PRAGMA busy_timeout=0")
            try:
                connection.execute(_CHECKPOINT).fetchall()
            finally:
                connection.execute(BUSY_TIMEOUT)
        except (driver.Error, OSError):
            # A checkpoint is housekeeping: the next commit tries again.
            return


# As `bound`, which would take twice the time for these two, of which every put has one each.


def _commit_bound(row: tuple[Any, ...]) -> tuple[Any, ...]:
    (
        revision, committed_at, scope, op_id, agent, note, metadata, base_revision, attempt,
        first_entry_id, changes, accepted, digests, hash, beside,
    ) = row  # fmt: skip
    return (
        revision,
        committed_at,
        scope,
        NULL if op_id is None else op_id,
        NULL if agent is None else agent,
        NULL if note is None else note,
        NULL if metadata is None else metadata,
        base_revision,
        bytearray(attempt),
        first_entry_id,
        changes,
        NULL if accepted is None else accepted,
        bytearray(digests),
        bytearray(hash),
        NULL if beside is None else beside,
    )


def _entry_bound(row: NewEntry) -> tuple[Any, ...]:
    (
        id, namespace, key, revision, version, operation, base_version, merged, value, text, ttl_us,
        expires_at, created_at, salt, digest,
    ) = row  # fmt: skip
    return (
        id,
        namespace,
        key,
        revision,
        version,
        operation,
        NULL if base_version is None else base_version,
        NULL if merged is None else merged,
        NULL if value is None else value,
        NULL if text is None else text,
        NULL if ttl_us is None else ttl_us,
        NULL if expires_at is None else expires_at,
        created_at,
        NULL if salt is None else bytearray(salt),
        bytearray(digest),
    )
