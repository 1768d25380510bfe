"""The PostgreSQL engine: one schema of one server, for clients on many machines."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from agentmem.clock import MicrosecondClock
from agentmem.engines.base import (
    check_floor,
)
from agentmem.engines.postgres.ahead import Ahead, End
from agentmem.engines.postgres.coordination import CoordinationReads
from agentmem.engines.postgres.failures import ServerError, row_missing
from agentmem.engines.postgres.lane import PostgresLane
from agentmem.engines.postgres.lineage import LineageReads
from agentmem.engines.postgres.migrate import migrate
from agentmem.engines.postgres.nearest import Nearest, is_gone, ranked, registered
from agentmem.engines.postgres.pool import Pool
from agentmem.engines.postgres.searching import SearchReads
from agentmem.engines.postgres.session import PostgresSession
from agentmem.engines.postgres.statements import Statements
from agentmem.engines.postgres.target import Target, parse_target
from agentmem.engines.postgres.wire import Rows, Statement
from agentmem.engines.ranges import namespace_bounds
from agentmem.engines.rows import (
    CommitRow,
    ConflictRow,
    EntryRow,
    Narrowing,
    NewEntry,
    Place,
    Point,
    Position,
    PurgeRow,
    Range,
    StrategyRow,
    TagRow,
    VectorSet,
    vector_id,
)
from agentmem.errors import StorageError

__all__ = ["PostgresEngine", "PostgresReads"]

_LAST_REVISION: Final = 2**63 - 1


class Reader(Protocol):
    """Where `PostgresReads` reads: a pool, or what checks first what it reads from."""

    def read(self, statement: Statement, values: Sequence[Any] = ()) -> Rows:
        """What the statement returns."""


class PostgresReading:
    """See `agentmem.engines.base.Reading`; everything is read when it is asked for."""

    def __init__(self, reads: PostgresReads) -> None:
        self._reads = reads
        self._begun: tuple[Position, int] | None = None

    @property
    def position(self) -> Position:
        if self._begun is None:
            self._begun = self._reads.position_and_spaces()
        return self._begun[0]

    @property
    def spaces_count(self) -> int:
        return self._begun[1] if self._begun is not None else self._reads.spaces_count()

    def entries(self, ids: Sequence[int], revision: int, *, now: bool) -> list[EntryRow]:
        del now  # it always is
        return self._reads.entries(ids, revision)

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        return self._reads.vectors(set_id, entries)


class PostgresReads(SearchReads, LineageReads, CoordinationReads):
    """The reads of `agentmem.engines.base.Engine`, on the primary or on a replica."""

    name = "postgres"
    pulse_s = 0.006

    def __init__(self, target: Target, statements: Statements, reader: Reader) -> None:
        self._target = target
        self._statements = statements
        self._reader = reader

    def _read(self, name: str, *values: Any) -> Rows:
        return self._reader.read(self._statements[name], values)

    def _first(self, name: str, *values: Any) -> tuple[Any, ...]:
        """The row of a statement that finds one wherever the store has its own row."""
        rows = self._read(name, *values)
        if not rows:
            raise row_missing(self._target.location)
        return rows[0]

    def position(self) -> Position:
        return Position._make(self._first("position"))

    def reading(self) -> PostgresReading:
        return PostgresReading(self)

    def position_and_spaces(self) -> tuple[Position, int]:
        """The end of the log, and how often the spaces have changed."""
        return self.position(), self.spaces_count()

    def floor(self) -> int:
        return int(self._first("floor")[0])

    def changed_since(self, revision: int, within: Range, expired: tuple[int, int]) -> list[Place]:
        rows = self._reader.read(*self._statements.changed_since(revision, within, expired))
        return [(namespace, key) for namespace, key in rows]

    def position_at(self, revision: int) -> Position | None:
        if revision == 0:
            return Position(0, 0, b"", 0, 0)
        rows = self._read("position_at", revision)
        return Position._make((*rows[0], rows[0][1])) if rows else None

    def revision_at(self, instant: int) -> int:
        return int(self._first("revision_at", instant)[0])

    def point(self, place: Place, revision: int | None) -> Point:
        if revision is None:
            return self._point_now(place)[0]
        row = self._first("point_at", revision, *place)
        check_floor(revision, row[0])
        return Point(row[0], EntryRow._make(row[1:]) if row[1] is not None else None)

    def _point_now(self, place: Place) -> tuple[Point, int]:
        """The newest entry of a key, and the fence under which it was read."""
        floor, fence, *row = self._first("point_now", *place)
        return Point(floor, EntryRow._make(row) if row[0] is not None else None), fence

    def points(self, places: Sequence[Place], revision: int) -> list[EntryRow]:
        if not places:
            return []
        namespaces, keys = zip(*places, strict=True)
        rows = self._read("points", revision, namespaces, keys)
        check_floor(revision, rows[0][0] if rows else self.floor())
        return [EntryRow._make(row[1:]) for row in rows if row[1] is not None]

    def scan(
        self, within: Range, revision: int, limit: int, *, backwards: bool = False
    ) -> list[EntryRow]:
        statement = self._statements.scan(within, revision, limit, backwards=backwards)
        rows = self._reader.read(*statement)
        check_floor(revision, rows[0][0] if rows else self.floor())
        return [EntryRow._make(row[1:]) for row in rows]

    def namespaces(self, within: Range, revision: int, instant: int) -> list[str]:
        rows = self._reader.read(*self._statements.namespaces(within, revision, instant))
        check_floor(revision, rows[0][0] if rows else self.floor())
        return [namespace for _floor, namespace in rows]

    def changed_between(
        self, after: int, upto: int, within: Range, expired: tuple[int, int], limit: int
    ) -> list[Place]:
        statement = self._statements.changed_between(after, upto, within, expired, limit)
        return [(namespace, key) for namespace, key in self._reader.read(*statement)]

    def changed_keys(
        self, revision: int, within: Range, expired: tuple[int, int], limit: int
    ) -> list[Place]:
        rows = self._reader.read(*self._statements.changed_keys(revision, within, expired, limit))
        return [(namespace, key) for namespace, key in rows]

    def history(self, place: Place, after: int, upto: int, limit: int) -> list[EntryRow]:
        return [EntryRow._make(row) for row in self._read("history", *place, after, upto, limit)]

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        rows = self._read("entry_version", *place, version)
        return EntryRow._make(rows[0]) if rows else None

    def commits(
        self, after: int, upto: int | None, limit: int, *, newest_first: bool
    ) -> list[CommitRow]:
        name = "commits_down" if newest_first else "commits_up"
        rows = self._read(name, after, _LAST_REVISION if upto is None else upto, limit)
        return [CommitRow._make(row) for row in rows]

    def commits_in(
        self,
        spans: Sequence[tuple[int, int]],
        wanted: Narrowing,
        limit: int,
        *,
        newest_first: bool,
    ) -> list[CommitRow]:
        if not spans:
            return []
        name = "commits_in_down" if newest_first else "commits_in_up"
        after, upto = zip(*spans, strict=True)
        start, end = namespace_bounds(wanted.within or "")
        bound = (None if wanted.within is None else start, end, wanted.or_scope, wanted.texts)
        values = (after, upto, wanted.agent, *bound, limit)
        return [CommitRow._make(row) for row in self._read_in_order(name, values)]

    def _read_in_order(self, name: str, values: Sequence[Any]) -> Rows:
        return self._read(name, *values)

    def blocks(self, name: str, start: int, limit: int, *, newest_first: bool) -> list[int]:
        statement = "blocks_down" if newest_first else "blocks_up"
        return [block for (block,) in self._read_in_order(statement, (name, start, limit))]

    def marked_after(self) -> int:
        return int(self._first("marked_after")[0])

    def unmarked(self, marks: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        if not marks:
            return []
        names, blocks = zip(*marks, strict=True)
        return [(name, block) for name, block in self._read("unmarked", names, blocks)]

    def commit_entries(self, commits: Iterable[CommitRow]) -> list[EntryRow]:
        ranges = [(each.first_entry_id, each.first_entry_id + each.changes) for each in commits]
        if not ranges:
            return []
        first, past = zip(*ranges, strict=True)
        return [EntryRow._make(row) for row in self._read("commit_entries", first, past)]

    def _one_commit(self, rows: Rows) -> CommitRow | None:
        return CommitRow._make(rows[0]) if rows else None

    def operation(self, scope: str, op_id: str) -> CommitRow | None:
        return self._one_commit(self._read("commit_of_operation", scope, op_id))

    def attempt(self, attempt: bytes, revision: int) -> CommitRow | None:
        return self._one_commit(self._read("commit_of_attempt", revision, attempt))

    def tags(self, scope: str) -> list[TagRow]:
        return [TagRow._make(row) for row in self._read("tags", scope)]

    def conflicts(self, status: str | None, after: int, limit: int) -> list[ConflictRow]:
        return [ConflictRow._make(row) for row in self._read("conflicts", status, after, limit)]

    def conflict(self, id: int) -> ConflictRow | None:
        rows = self._read("conflict", id)
        return ConflictRow._make(rows[0]) if rows else None

    def strategies(self) -> list[StrategyRow]:
        return [StrategyRow._make(row) for row in self._read("strategies")]

    def chain(self, after: int, limit: int) -> list[tuple[CommitRow, list[NewEntry]]]:
        commits = self.commits(after, None, limit, newest_first=False)
        if not commits:
            return []
        past = commits[-1].first_entry_id + commits[-1].changes
        rows = self._read("chain_entries", commits[0].first_entry_id, past)
        entries = {row[0]: NewEntry._make(row) for row in rows}
        return [
            (commit, [entries[id] for id in _ids(commit) if id in entries]) for commit in commits
        ]

    def all_tags(self) -> list[TagRow]:
        return [TagRow._make(row) for row in self._read("all_tags")]

    def expiries(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        return [(id, expires_at) for id, expires_at in self._read("expiries", after, upto, limit)]

    def purges(self) -> list[PurgeRow]:
        return [PurgeRow._make(row) for row in self._read("purges")]

    def erasable(
        self, namespace: str, key: str | None, upto: int, after: int, limit: int
    ) -> list[tuple[int, int, str | None]]:
        if key is not None:
            return list(self._read("erasable_key", namespace, key, upto, after, limit))
        start, end = namespace_bounds(namespace)
        return list(self._read("erasable_below", start, end, upto, after, limit))

    def expired(self, instant: int, after: Place | None, limit: int) -> list[Place]:
        return list(self._read("expired", instant, *(after or ("", "")), limit))

    def superseded(self, after: int, upto: int, floor: int, versions: int) -> list[tuple[int, int]]:
        return list(self._read("superseded", after, upto, floor, versions))

    def results(self, after: int, limit: int) -> list[tuple[int, str]]:
        return list(self._read("results", after, limit))

    def beside(self, after: int, upto: int) -> dict[int, int]:
        found: dict[int, int] = {}
        for revision, count in self._read("beside", after, upto):
            found[revision] = found.get(revision, 0) + count
        return found

    def inspect(self) -> dict[str, Any]:
        problems = [
            f"{count} rows of {table} are not as they were written"
            for table, count in self._read("changed_rows")
            if count
        ]
        problems += [
            f"it is not known how many rows {table} should have"
            if known is None
            else f"a count is kept of {table!r}, which is no table that is counted"
            if found is None
            else f"{table} has {found} rows, and should have {known}"
            if found != known
            else f"{table} has other rows than were written"
            for table, found, known in self._read("wrong_tallies")
        ]
        if strays := self._read("strays")[0][0]:
            problems.append(f"{strays} entries belong to no commit")
        return {"integrity": problems, "wrong_heads": self._read("wrong_heads")[0][0]}

    def back_up(self, path: str, progress: Callable[[int, int], None] | None) -> Position | None:
        return None

    def counts(self) -> dict[str, int]:
        names = ("commits", "entries", "keys", "conflicts", "open_conflicts", "floor")
        *numbers, size = self._read("counts", self._target.schema)[0]
        return dict(zip(names, numbers, strict=True)) | {"database_bytes": size}


class PostgresEngine(PostgresReads):
    """See `agentmem.engines.base.Engine`."""

    def __init__(
        self, url: str, durability: str, clock: MicrosecondClock | None, lock_timeout_ms: int
    ) -> None:
        target = parse_target(url)
        self._server_version = migrate(target, durability, lock_timeout_ms)
        self._pool = Pool(target, lock_timeout_ms)
        super().__init__(target, Statements(target.schema), self._pool)
        self._nearest = Nearest(self._statements, target.schema)
        self._indexed: Mapping[int, str] | None = None  # sets, as last read; None: not yet
        self._lock_timeout_ms = lock_timeout_ms
        self._durability = durability
        self._clock = clock
        self._ahead_us = 0  # the server's clock before ours, as last seen
        self._lane = PostgresLane(self._pool, self._statements)
        self._ahead = Ahead()
        self._close = weakref.finalize(self, self._pool.close)
        try:
            self.store_id: str = self._first("store_id")[0]
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        self._pool.check()

    def pulse(self) -> object:
        return self._pool.glance(self._statements["pulse"])

    def _read_in_order(self, name: str, values: Sequence[Any]) -> Rows:
        # Sent together they are one transaction, and the settings end with it.
        sql = self._statements
        return self._pool.read_all([(sql["in_order"], ()), (sql[name], values)])[1]

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self.name,
            "location": self._target.location,
            "durability": self._durability,
            "server_version": self._server_version,
        }

    def now(self) -> int:
        if self._clock is not None:
            return self._clock()
        return time.time_ns() // 1_000 + self._ahead_us

    def session(self) -> PostgresSession:
        return self._session(self._durability)

    def unsynced_session(self) -> PostgresSession:
        return self._session("relaxed")

    def _session(self, durability: str) -> PostgresSession:
        return PostgresSession(
            self._pool,
            self._statements,
            self._nearest,
            self._ahead,
            durability,
            self._clock,
        )

    def lane(self, timeout_s: float, *, urgent: bool) -> AbstractContextManager[bool]:
        return self._lane.alone(timeout_s, urgent=urgent)

    def make_way(self) -> None:
        self._lane.make_way()

    def _point_now(self, place: Place) -> tuple[Point, int]:
        point, fence = super()._point_now(place)
        self._ahead.saw(place, point.row, fence)
        return point, fence

    def position(self) -> Position:
        return self._heard(self._first("position_and_asked"))

    def _heard(self, row: tuple[Any, ...]) -> Position:
        """The end of the log, of a row that says more than that."""
        *found, now, asked_us = row
        end = End._make(found)
        revision, committed_at, last_hash, last_entry_id = end[:4]
        self._lane.heard(asked_us)
        self._ahead.heard(end, now)
        if self._clock is not None:
            now = self._clock()
        else:
            self._ahead_us = now - time.time_ns() // 1_000
        return Position(revision, committed_at, last_hash, last_entry_id, max(now, committed_at))

    def position_and_spaces(self) -> tuple[Position, int]:
        # In one round trip.
        wanted = ("position_and_asked", "spaces_and_nearest")
        found = self._pool.read_all([(self._statements[name], ()) for name in wanted])
        if not all(found):
            raise row_missing(self._target.location)
        return self._heard(found[0][0]), self._counted(found[1][0])

    # Indexes by pgvector.

    def spaces_count(self) -> int:
        return self._counted(self._first("spaces_and_nearest"))

    def _counted(self, row: tuple[Any, ...]) -> int:
        """How often the spaces have changed, of a row that names the indexes, too."""
        count, indexed = row
        self._indexed = registered(indexed)
        return int(count)

    def build_nearest(self, vector_set: VectorSet) -> bool:
        from agentmem.engines.postgres.indexing import build

        found = build(self._target, self._statements, vector_set, self._lock_timeout_ms)
        self._indexed = None
        return found

    def nearest(
        self, vector_set: VectorSet, query: bytes, within: Range, k: int
    ) -> list[tuple[int, float]] | None:
        indexed = self._indexed
        if indexed is None:
            indexed = self._indexed = registered(self._first("nearest_sets")[0])
        if vector_set.id not in indexed:
            return None
        batch = self._nearest.search(vector_set, indexed[vector_set.id], query, within, k)
        try:
            answers = self._pool.read_all(batch)
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, ServerError) and is_gone(cause):
                return None
            raise
        # It was kept until then, so nothing of the present is missing in it.
        self._indexed = registered(answers[3][0][0])
        return ranked(answers[2]) if vector_set.id in self._indexed else None

    def inspect(self) -> dict[str, Any]:
        findings = super().inspect()
        for set_id, extension in registered(self._first("nearest_sets")[0]).items():
            statement = self._nearest.statement("wrong", set_id, extension)
            try:
                wrong = self._pool.read(statement, (vector_id(set_id, 0),))[0][0]
            except StorageError as error:
                if not (isinstance(error.__cause__, ServerError) and is_gone(error.__cause__)):
                    raise
                continue  # nothing goes by it any more; the next commit withdraws it
            if wrong:
                findings["integrity"].append(
                    f"nearest_{set_id}, an index by pgvector, is wrong about {wrong} entries"
                )
        return findings

    def scrub(self, timeout_ms: int, told: Callable[[int, int], None]) -> bool:
        from agentmem.engines.postgres.retention import scrub

        self._indexed = None
        return scrub(self._target, timeout_ms, told)

    def close(self) -> None:
        self._close()


def _ids(commit: CommitRow) -> range:
    return range(commit.first_entry_id, commit.first_entry_id + commit.changes)
