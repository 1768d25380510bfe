"""A replica: another server that repeats what the primary did, a little later.

It may be behind, may belong to another primary, and behind one name there may be several. So
nothing is taken for granted: every read carries two more statements to the same connection, before
its own, which show that the server has what the snapshot is of.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote, urlsplit

from agentmem.clock import system_clock
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.postgres.engine import PostgresReads
from agentmem.engines.postgres.migrate import look
from agentmem.engines.postgres.pool import Pool
from agentmem.engines.postgres.session import PostgresSession
from agentmem.engines.postgres.statements import Statements
from agentmem.engines.postgres.target import Target, parse_target
from agentmem.engines.postgres.wire import Rows, Statement
from agentmem.engines.rows import (
    Position,
    VectorSet,
)
from agentmem.errors import (
    ClosedError,
    FutureRevisionError,
    HistoryReplacedError,
    InvalidValueError,
    StorageError,
)

__all__ = ["PostgresReplica"]


class PostgresReplica:
    """See `agentmem.engines.Replica`. Connects when it is first asked for something."""

    def __init__(self, url: str, primary: str, lock_timeout_ms: int) -> None:
        self._target = _same_store(url, parse_target(primary))
        self._timeout_ms = lock_timeout_ms
        self._statements = Statements(self._target.schema)
        self._pool: Pool | None = None
        self._closed = False
        self._opening = threading.Lock()  # so that one thread opens the pool

    def _opened(self) -> Pool:
        pool = self._pool
        if pool is None:
            with self._opening:
                if self._closed:
                    raise ClosedError(f"the store {self._target.location} was closed")
                if self._pool is None:
                    self._check_tables()
                    self._pool = Pool(self._target, self._timeout_ms)
                    weakref.finalize(self, self._pool.close)
                    if self._closed:
                        self._pool.close()
                pool = self._pool
        return pool

    def _check_tables(self) -> None:
        found = look(self._target, self._timeout_ms)
        if found is None or found.missing:
            raise FutureRevisionError(
                f"the replica {self._target.location} has not replayed the making of the store's "
                "tables yet, or belongs to another primary; try again, or read the primary",
                current=0,
            )

    def revision(self) -> int:
        rows = self._opened().read(self._statements["position"])
        return int(rows[0][0])

    def pinned(self, store_id: str, commit: Position, instant: int) -> Engine:
        pool = self._opened()
        reader = _PinnedReader(pool, self._statements, commit, instant)
        found = reader.read(self._statements["store_id"])[0][0]
        if found != store_id:
            raise HistoryReplacedError(
                f"the replica {self._target.location} holds another store than the primary "
                f"({found}, not {store_id}); name a replica of it"
            )
        return _PinnedEngine(self, self._statements, reader, store_id)

    def close(self) -> None:
        # Not under the lock: in a forked child, the thread that held it is gone.
        self._closed = True
        if self._pool is not None:
            self._pool.close()


def _same_store(url: str, primary: Target) -> Target:
    """The replica's target; a replica has the store under the primary's name."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise InvalidValueError("replica= names a server as the target does: postgresql://...")
    target = parse_target(url)
    if "store" not in dict(parse_qsl(urlsplit(url).query)):
        sign = "&" if urlsplit(url).query else "?"
        target = parse_target(f"{url}{sign}store={quote(primary.store, safe='')}")
    if target.store != primary.store:
        raise InvalidValueError(
            f"the replica's URL names store={target.store!r}, the target {primary.store!r}; a "
            "replica has a store under the same name"
        )
    return target


class _PinnedReader:
    """Reads of one snapshot, each of them from a server that has what the snapshot is of."""

    def __init__(self, pool: Pool, statements: Statements, commit: Position, instant: int) -> None:
        self.pool = pool
        self._commit = commit
        self._instant = instant
        self._guards: list[tuple[Statement, Sequence[Any]]] = [
            (statements["position"], ()),
            (statements["position_at"], (commit.revision,)),
        ]

    def read(self, statement: Statement, values: Sequence[Any] = ()) -> Rows:
        """The statement's rows.

        A server replays commits in order and never takes one back, so what the guards find, the
        statement after them finds as well.
        """
        end, commit, rows = self.pool.read_all([*self._guards, (statement, values)])
        self._check(end, commit)
        return rows

    def _check(self, end: Rows, commit: Rows) -> None:
        place, wanted = self.pool.target.location, self._commit
        current, committed_at = end[0][:2]
        if current < wanted.revision:
            raise FutureRevisionError(
                f"the replica {place} has replayed revision {current}; revision "
                f"{wanted.revision} is not there yet: try again, or read the primary",
                current=current,
            )
        if wanted.revision and commit[0][2] != wanted.hash:
            raise HistoryReplacedError(
                f"revision {wanted.revision} of the replica {place} is not that of the primary; "
                "it repeats another server, or one was restored from a backup"
            )
        # A touch moves an expiry and takes no revision. Those before the instant are there for
        # certain if a commit after them is.
        if committed_at < self._instant:
            raise FutureRevisionError(
                f"the replica {place} has replayed revision {current}, committed before the time "
                "asked for, and there may be touches after it: ask for a revision, try again "
                "after the next commit, or read the primary",
                current=current,
            )


class _PinnedEngine(PostgresReads):
    """See `agentmem.engines.base.Engine`; it reads for one snapshot, and writes nothing."""

    def __init__(
        self,
        replica: PostgresReplica,
        statements: Statements,
        reader: _PinnedReader,
        store_id: str,
    ) -> None:
        super().__init__(reader.pool.target, statements, reader)
        self._replica = replica  # it closes the pool when nobody holds it any more
        self._pool = reader.pool
        self.store_id = store_id

    def check(self) -> None:
        self._pool.check()

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name, "location": self._target.location, "replica": True}

    def now(self) -> int:
        return system_clock()

    def session(self) -> PostgresSession:
        self._refuse()

    def unsynced_session(self) -> PostgresSession:
        self._refuse()

    def lane(self, timeout_s: float, *, urgent: bool) -> AbstractContextManager[bool]:
        self._refuse()

    def make_way(self) -> None:
        self._refuse()

    def build_nearest(self, vector_set: VectorSet) -> bool:
        self._refuse()

    def scrub(self, timeout_ms: int, told: Callable[[int, int], None]) -> bool:
        self._refuse()

    def close(self) -> None:
        """Nothing: the pool is the replica's."""

    def _refuse(self) -> NoReturn:
        raise StorageError(f"{self._target.location} is a replica, which is only read")
