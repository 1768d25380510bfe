"""The SQLite engine: one file, many threads and processes of one machine."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from agentmem.clock import MicrosecondClock
from agentmem.engines.base import TextsAside
from agentmem.engines.rows import (
    Answer,
    CommitRow,
    ConflictRow,
    EntryRow,
    GenerationRow,
    Look,
    Narrowing,
    NewEntry,
    NewVector,
    Place,
    Point,
    Position,
    PurgeRow,
    Range,
    Spaces,
    StrategyRow,
    TagRow,
    TextHit,
    VectorRow,
    VectorSet,
)
from agentmem.engines.sqlite import (
    backup,
    coordination,
    files,
    log,
    reads,
    retention,
    tallies,
    text,
    vectors,
)
from agentmem.engines.sqlite.boot import timer_of
from agentmem.engines.sqlite.checksums import changed_rows
from agentmem.engines.sqlite.closing import Closing
from agentmem.engines.sqlite.connection import Connections
from agentmem.engines.sqlite.driver import driver, translated
from agentmem.engines.sqlite.inherited import guard
from agentmem.engines.sqlite.kept import Kept, SqliteReading
from agentmem.engines.sqlite.lane import SqliteLane
from agentmem.engines.sqlite.lineage import LineageReads
from agentmem.engines.sqlite.lock import FairLock
from agentmem.engines.sqlite.migrate import migrate
from agentmem.engines.sqlite.session import SqliteSession
from agentmem.errors import ClosedError, CorruptionError

__all__ = ["SqliteEngine"]

T = TypeVar("T")

MEMORY: Final = ":memory:"
_STORE_ID: Final = "SELECT store_id FROM store"
_STRAYS: Final = """
SELECT COUNT(*) FROM entries WHERE id < 1 OR id > COALESCE(
    (SELECT first_entry_id + changes - 1 FROM commits ORDER BY revision DESC LIMIT 1), 0)
"""
_HEADS_WITHOUT_ENTRY: Final = """
SELECT COUNT(*) FROM heads h LEFT JOIN entries e ON e.id = h.entry_id
WHERE e.id IS NULL OR e.namespace <> h.namespace OR e.key <> h.key
   OR e.version <> h.version OR e.revision <> h.revision
"""
_ENTRIES_AFTER_HEAD: Final = """
SELECT COUNT(*) FROM entries e LEFT JOIN heads h ON h.namespace = e.namespace AND h.key = e.key
WHERE h.revision IS NULL OR e.revision > h.revision
"""
# Of this connection: changes with the commits of all others.
_PULSE: Final = "PRAGMA data_version"
_COUNTS: Final = """
SELECT (SELECT COUNT(*) FROM commits), (SELECT COUNT(*) FROM entries),
    (SELECT COUNT(*) FROM heads), (SELECT COUNT(*) FROM conflicts),
    (SELECT COUNT(*) FROM conflicts WHERE status = 'open'), (SELECT floor FROM store)
"""


class SqliteEngine(LineageReads):
    """See `agentmem.engines.base.Engine`."""

    name = "sqlite"
    pulse_s = 0.004

    def __init__(
        self, target: str, durability: str, clock: MicrosecondClock, lock_timeout_ms: int
    ) -> None:
        self._folder: str | None = None
        if target == MEMORY:
            self._folder = tempfile.mkdtemp(prefix="agentmem-")
            target = os.path.join(self._folder, "memory.db")
            # Nothing of it outlives the process, so a sync could save nothing.
            durability = "relaxed"
        self.now = clock
        self.moment = timer_of(clock)
        self._path = files.real_path(target)
        files.refuse_network(self._path)
        files.create_private(self._path)
        guard(self._path)
        self._connections = Connections(self._path, durability)
        # Of their own: whether COMMIT waits for the disk is a setting of a connection, and one
        # that was not set back would take away what others were promised.
        self._unsynced = Connections(self._path, "relaxed")
        # First of all, and before any file is made beside it: is it ours?
        self._connections.get()
        self._lock = FairLock(self._path)
        self._lane = SqliteLane(self._path)
        self._known_spaces = vectors.KnownSpaces()
        self._kept = threading.local()
        self._all_kept: weakref.WeakSet[Kept] = weakref.WeakSet()
        self._closing = Closing(
            (self._connections, self._unsynced), (self._lock, self._lane), self._folder
        )
        self._abandoned = weakref.finalize(self, self._closing.abandon)
        try:
            migrate(self._connections, self._lock, clock, lock_timeout_ms)
            self.store_id: str = self._read(lambda c: c.execute(_STORE_ID).fetchone()[0])
        except BaseException:
            self.close()
            raise

    def _read(self, query: Callable[[driver.Connection], T]) -> T:
        connection = self._connections.begin()
        try:
            return query(connection)
        except driver.Error as error:
            if self._connections.closed:
                raise ClosedError(f"the store {self._path} was closed") from error
            raise translated(error, self._path) from error
        except BaseException:
            # An asynchronous exception can leave a statement half read. Its snapshot would stay
            # open, and every later read of this thread would see the past.
            self._connections.discard()
            raise
        finally:
            self._connections.end()

    def check(self) -> None:
        self._connections.check()

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self.name,
            "location": self._path if self._folder is None else MEMORY,
            "durability": self._connections.durability,
            "sqlite_version": driver.sqlite_version,
        }

    def session(self) -> SqliteSession:
        return SqliteSession(
            self._connections, self._lock, self.now, self._known_spaces, self.moment
        )

    def unsynced_session(self) -> SqliteSession:
        return SqliteSession(self._unsynced, self._lock, self.now, self._known_spaces, self.moment)

    def lane(self, timeout_s: float, *, urgent: bool) -> AbstractContextManager[bool]:
        return self._lane.alone(timeout_s, urgent=urgent)

    def make_way(self) -> None:
        self._lane.make_way()

    def position(self) -> Position:
        return self._read(lambda c: reads.position(c, self.now))

    def floor(self) -> int:
        row = self._read(lambda c: c.execute(reads.FLOOR).fetchone())
        if row is None:
            raise CorruptionError(
                f"{self._path} is damaged: its row in the table store is missing; restore a backup"
            )
        return int(row[0])

    def changed_since(self, revision: int, within: Range, expired: tuple[int, int]) -> list[Place]:
        return self._read(lambda c: reads.changed_since(c, revision, within, expired))

    def position_at(self, revision: int) -> Position | None:
        return self._read(lambda c: reads.position_at(c, revision))

    def revision_at(self, instant: int) -> int:
        return self._read(lambda c: reads.revision_at(c, instant))

    def point(self, place: Place, revision: int | None) -> Point:
        return self._read(lambda c: reads.point(c, place, revision))

    def points(self, places: Sequence[Place], revision: int) -> list[EntryRow]:
        return self._read(lambda c: reads.points(c, places, revision))

    def scan(
        self, within: Range, revision: int, limit: int, *, backwards: bool = False
    ) -> list[EntryRow]:
        read = reads.scan_back if backwards else reads.scan
        return self._read(lambda c: read(c, within, revision, limit))

    def namespaces(self, within: Range, revision: int, instant: int) -> list[str]:
        return self._read(lambda c: reads.namespaces(c, within, revision, instant))

    def changed_between(
        self, after: int, upto: int, within: Range, expired: tuple[int, int], limit: int
    ) -> list[Place]:
        return self._read(lambda c: reads.changed_between(c, after, upto, within, expired, limit))

    def changed_keys(
        self, revision: int, within: Range, expired: tuple[int, int], limit: int
    ) -> list[Place]:
        return self._read(lambda c: reads.changed_keys(c, revision, within, expired, limit))

    def history(self, place: Place, after: int, upto: int, limit: int) -> list[EntryRow]:
        return self._read(lambda c: reads.history(c, place, after, upto, limit))

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        return self._read(lambda c: reads.entry_version(c, place, version))

    def commits(
        self, after: int, upto: int | None, limit: int, *, newest_first: bool
    ) -> list[CommitRow]:
        return self._read(lambda c: log.commits(c, after, upto, limit, newest_first=newest_first))

    def commits_in(
        self,
        spans: Sequence[tuple[int, int]],
        wanted: Narrowing,
        limit: int,
        *,
        newest_first: bool,
    ) -> list[CommitRow]:
        return self._read(
            lambda c: log.commits_in(c, spans, wanted, limit, newest_first=newest_first)
        )

    def blocks(self, name: str, start: int, limit: int, *, newest_first: bool) -> list[int]:
        return self._read(lambda c: log.blocks(c, name, start, limit, newest_first=newest_first))

    def marked_after(self) -> int:
        return self._read(lambda c: int(c.execute(log.MARKED_AFTER).fetchone()[0]))

    def unmarked(self, marks: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        return self._read(lambda c: log.unmarked(c, marks))

    def commit_entries(self, commits: Iterable[CommitRow]) -> list[EntryRow]:
        return self._read(lambda c: log.commit_entries(c, commits))

    def operation(self, scope: str, op_id: str) -> CommitRow | None:
        return self._read(lambda c: log.one_commit(c, log.COMMIT_OF_OPERATION, (scope, op_id)))

    def attempt(self, attempt: bytes, revision: int) -> CommitRow | None:
        return self._read(lambda c: log.one_commit(c, log.COMMIT_OF_ATTEMPT, (revision, attempt)))

    def tags(self, scope: str) -> list[TagRow]:
        return self._read(lambda c: log.tags(c, scope))

    def conflicts(self, status: str | None, after: int, limit: int) -> list[ConflictRow]:
        return self._read(lambda c: log.conflicts(c, status, after, limit))

    def conflict(self, id: int) -> ConflictRow | None:
        return self._read(lambda c: log.conflict(c, id))

    def strategies(self) -> list[StrategyRow]:
        return self._read(reads.strategies)

    def chain(self, after: int, limit: int) -> list[tuple[CommitRow, list[NewEntry]]]:
        return self._read(lambda c: log.chain(c, after, limit))

    def all_tags(self) -> list[TagRow]:
        return self._read(log.all_tags)

    def expiries(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        return self._read(lambda c: reads.expiries(c, after, upto, limit))

    def reading(self) -> SqliteReading:
        return self._read(lambda c: self._kept_of(c).begin(self._read, self.now))

    def _kept_of(self, connection: driver.Connection) -> Kept:
        kept: Kept | None = getattr(self._kept, "of", None)
        if kept is None or kept.connection is not connection:
            kept = self._kept.of = Kept(connection)
            self._all_kept.add(kept)
        return kept

    def text_hits(
        self,
        words: Sequence[str],
        within: Range,
        revision: int,
        limit: int,
        also: Sequence[int] = (),
    ) -> list[TextHit]:
        return self._read(lambda c: text.hits(c, words, within, revision, limit, also))

    def texts_aside(self) -> TextsAside:
        # Imported here: a store that is never searched does without NumPy.
        from agentmem.engines.sqlite.aside import SqliteTextsAside

        return SqliteTextsAside(lambda words: self._read(lambda c: text.statistics(c, words)))

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        return self._read(lambda c: text.scores(c, words, texts))

    def spaces(self) -> Spaces:
        return self._read(vectors.spaces)

    def spaces_count(self) -> int:
        return self._read(lambda c: int(c.execute(vectors.SPACES_COUNT).fetchone()[0]))

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        return self._read(lambda c: vectors.of_entries(c, set_id, entries))

    def vector_revisions(self, set_id: int, entries: Sequence[int]) -> dict[int, int]:
        return self._read(lambda c: vectors.late(c, set_id, entries))

    def embedded_since(self, revision: int, within: Range, set_id: int) -> list[Place]:
        return self._read(lambda c: vectors.embedded_since(c, revision, within, set_id))

    def vector_rows(
        self, set_id: int, within: Range, after: int, upto: Position, limit: int
    ) -> list[VectorRow]:
        return self._read(lambda c: vectors.rows(c, set_id, within, after, upto, limit))

    def vector_changes(
        self, set_id: int, within: Range, after: Position, upto: Position
    ) -> list[VectorRow]:
        return self._read(lambda c: vectors.changes(c, set_id, within, after, upto))

    def count_vectors(self, set_id: int, within: Range, limit: int) -> int:
        return self._read(lambda c: vectors.count(c, set_id, within, limit))

    def pending_vectors(self, after: int, limit: int) -> list[EntryRow]:
        return self._read(lambda c: vectors.pending(c, after, limit))

    def unembedded(
        self, set_id: int, label: str, after: int, limit: int, *, current: bool
    ) -> list[EntryRow]:
        return self._read(
            lambda c: vectors.unembedded(c, set_id, label, after, limit, current=current)
        )

    def text_ids(self) -> list[int]:
        return self._read(text.ids)

    def stored_vectors(self, after: int, limit: int) -> list[NewVector]:
        return self._read(lambda c: vectors.stored(c, after, limit))

    def generation(self, set_id: int) -> GenerationRow | None:
        return self._read(lambda c: vectors.generation(c, set_id))

    def build_nearest(self, vector_set: VectorSet) -> bool:
        return False

    def nearest(
        self, vector_set: VectorSet, query: bytes, within: Range, k: int
    ) -> list[tuple[int, float]] | None:
        return None

    def index_folder(self, set_id: int) -> str | None:
        return os.path.join(self._path + "-index", str(set_id))

    def look(self, look: Look) -> Answer:
        return self._read(lambda c: coordination.answer(c, look, self.moment(), self.now()))

    def pulse(self) -> object:
        return self._read(lambda c: c.execute(_PULSE).fetchone())

    def beside(self, after: int, upto: int) -> dict[int, int]:
        return self._read(lambda c: tallies.beside(c, after, upto))

    def inspect(self) -> dict[str, Any]:
        def query(connection: driver.Connection) -> dict[str, Any]:
            connection.execute("BEGIN")
            try:
                text.refresh(connection)
                found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
                problems = [
                    *([] if found == ["ok"] else found),
                    *changed_rows(connection),
                    *tallies.wrong(connection),
                ]
                if strays := connection.execute(_STRAYS).fetchone()[0]:
                    problems.append(f"{strays} entries belong to no commit")
                lost = connection.execute(_HEADS_WITHOUT_ENTRY).fetchone()[0]
                lost += connection.execute(_ENTRIES_AFTER_HEAD).fetchone()[0]
            finally:
                connection.execute("ROLLBACK")
            return {"integrity": problems, "wrong_heads": lost}

        return self._read(query)

    def back_up(self, path: str, progress: Callable[[int, int], None] | None) -> Position | None:
        return self._read(lambda c: backup.back_up(c, path, self.now, progress))

    def counts(self) -> dict[str, int]:
        row = self._read(lambda c: c.execute(_COUNTS).fetchone())
        names = ("commits", "entries", "keys", "conflicts", "open_conflicts", "floor")
        sizes = {
            "database_bytes": _size(self._path),
            "wal_bytes": _size(self._path + "-wal"),
        }
        return dict(zip(names, row, strict=True)) | sizes

    def purges(self) -> list[PurgeRow]:
        return self._read(retention.purges)

    def erasable(
        self, namespace: str, key: str | None, upto: int, after: int, limit: int
    ) -> list[tuple[int, int, str | None]]:
        return self._read(lambda c: retention.erasable(c, namespace, key, upto, after, limit))

    def expired(self, instant: int, after: Place | None, limit: int) -> list[Place]:
        namespace, key = after or ("", "")
        values = {"instant": instant, "namespace": namespace, "key": key, "limit": limit}
        return self._read(lambda c: c.execute(retention.EXPIRED, values).fetchall())

    def superseded(self, after: int, upto: int, floor: int, versions: int) -> list[tuple[int, int]]:
        values = (after, upto, floor, versions)
        return self._read(lambda c: c.execute(retention.SUPERSEDED, values).fetchall())

    def results(self, after: int, limit: int) -> list[tuple[int, str]]:
        return self._read(lambda c: c.execute(retention.RESULTS, (after, limit)).fetchall())

    def scrub(self, timeout_ms: int, told: Callable[[int, int], None]) -> bool:
        retention.scrub(self._connections, self._lock, timeout_ms, told)
        for kept in list(self._all_kept):
            kept.forget()
        return False

    def close(self) -> None:
        if self._closing.close():
            self._abandoned.detach()


def _size(path: str) -> int:
    # stat() opens nothing, so it cannot drop a lock.
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
