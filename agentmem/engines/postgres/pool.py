"""The connections of one engine: psycopg's pool, and what to do when one is lost."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from agentmem.engines.postgres.failures import LostError, ServerError, translated
from agentmem.engines.postgres.target import Target
from agentmem.engines.postgres.wire import Rows, Statement, Wire
from agentmem.errors import ClosedError, ForkedStoreError, StorageError, StoreBusyError

__all__ = ["Pool"]

_TRIES: Final = 3
_MAX_IDLE_S: Final = 60.0
_WORKERS: Final = 1
# psycopg's pool pauses twice as long after each failed attempt to connect. A server that is back
# should be found at once: so it gives up soon, and is asked again as long as somebody waits.
_RECONNECT_S: Final = 0.5
_ASK_S: Final = 0.1
# For so long after somebody has waited in vain for the server, others only look whether it is back:
# a hundred writes that were queued fail together, and not one after another.
_GONE_S: Final = 0.5
_LOOK_S: Final = 2  # the least that libpq allows
_SAID: Final = 1_000  # characters of the driver's words; with many hosts they are many


class _Connection(psycopg.Connection[Any]):
    """A connection that can be lost and found.

    An asynchronous exception can strike between the pool's hand and the caller's. The pool would
    count such a connection as in use for ever; so, as it is about to vanish, it is put aside, and
    given back before the next one is taken. Nothing must refer to it in a circle.
    """

    pool: Pool | None = None

    def __del__(self, *_nothing: Any) -> None:
        pool = self.pool
        # Whoever ends one in an orderly way closes it and gives it back.
        if pool is not None and pool.owns_lost() and (self._pool is not None or not self.closed):
            self.pool = None
            self.close()
            pool.lost.append(self)
        super().__del__()


class Pool:
    """Connections for any number of threads. Nothing of a session outlives a transaction.

    Attributes:
        prepares: whether statements are prepared; off once a pooler between has shown itself.
    """

    def __init__(self, target: Target, timeout_ms: int) -> None:
        self.target = target
        self.prepares = True
        self._timeout_s = timeout_ms / 1_000
        self._closed = False
        self._pid = os.getpid()
        self._gone_until = 0.0  # of time.monotonic: it was gone a moment ago
        self.lost: deque[_Connection] = deque()
        self._pool = ConnectionPool(
            target.conninfo,
            connection_class=_Connection,
            kwargs={**target.defaults, "autocommit": True, "prepare_threshold": None},
            min_size=0,
            max_size=target.pool_size,
            timeout=self._timeout_s,
            max_idle=_MAX_IDLE_S,
            reconnect_timeout=_RECONNECT_S,
            configure=self._adopt,
            num_workers=_WORKERS,
            open=True,
        )

    def _adopt(self, connection: _Connection) -> None:
        connection.pool = self

    def owns_lost(self) -> bool:
        """Whether a lost connection is to be given back: open, and in the process that made it."""
        return not self._closed and self._pid == os.getpid()

    def _give_back_lost(self) -> None:
        while self.lost:
            connection = self.lost.popleft()
            connection._pool = self._pool
            self._pool.putconn(connection)

    def check(self) -> None:
        """Raises `ForkedStoreError` or `ClosedError` if it cannot be used."""
        if self._pid != os.getpid():
            raise ForkedStoreError(
                f"the store {self.target.location} was opened before this process was forked; "
                "call agentmem.open() again in the child"
            )
        if self._closed:
            raise self._was_closed()

    def _was_closed(self) -> ClosedError:
        return ClosedError(f"the store {self.target.location} was closed")

    def take(self) -> Wire:
        """A connection of the caller's own, until `give_back`.

        Raises:
            StorageError: the server cannot be reached.
            StoreBusyError: all connections are in use.
        """
        self.check()
        connection: _Connection | None = None
        try:
            connection = self._had()
            wire = Wire(connection)
            wire.prepares = self.prepares
        except PoolTimeout as error:
            found = self._not_reached()
            raise found from found.__cause__ or error
        except PoolClosed as error:
            raise self._was_closed() from error
        except BaseException:
            # Whoever keeps the exception keeps this frame, and with it the connection.
            if connection is not None:
                self._pool.putconn(connection)
            raise
        return wire

    def give_back(self, wire: Wire) -> None:
        """After use; a closed connection is replaced by a new one when one is needed."""
        self._pool.putconn(wire.connection)  # type: ignore[arg-type]  # it came from there

    def _had(self) -> _Connection:
        now = time.monotonic()
        if now < self._gone_until and (gone := self._looked(_LOOK_S)) is not None:
            raise gone
        deadline = now + self._timeout_s
        while True:
            left = deadline - time.monotonic()
            self._give_back_lost()
            try:
                return self._pool.getconn(min(left, _ASK_S))
            except PoolTimeout:
                if left <= _ASK_S:
                    raise

    def _looked(self, timeout_s: int | None) -> StorageError | None:
        """Why the server cannot be reached; None if it can."""
        options = dict(self.target.defaults)
        if timeout_s is not None:
            options["connect_timeout"] = timeout_s
        try:
            psycopg.connect(self.target.conninfo, **options).close()
        except psycopg.Error as error:
            found = unreachable(error, self.target)
            found.__cause__ = error
            self._gone_until = time.monotonic() + _GONE_S
            return found
        self._gone_until = 0.0
        return None

    def _not_reached(self) -> StorageError | StoreBusyError:
        return self._looked(None) or StoreBusyError(
            f"no connection to {self.target.location} within {self._timeout_s:g} s: all "
            f"{self.target.pool_size} are in use; run it again, or give the URL a larger pool_size",
            waited_ms=round(self._timeout_s * 1_000),
        )

    @contextmanager
    def wire(self) -> Iterator[Wire]:
        """A connection for a block."""
        wire: Wire | None = None
        try:
            wire = self.take()
            yield wire
        finally:
            if wire is not None:
                self.give_back(wire)

    def read(self, statement: Statement, values: Sequence[Any] = ()) -> Rows:
        """One reading statement, again on another connection if one is lost.

        Raises:
            StorageError: the server failed or cannot be reached.
        """
        return self.read_all([(statement, values)])[0]

    def read_all(self, batch: Sequence[tuple[Statement, Sequence[Any]]]) -> list[Rows]:
        """As `read`, for several statements on one connection, in order."""
        for tries_left in reversed(range(_TRIES)):
            with self.wire() as wire:
                try:
                    return wire.run(batch)
                except ServerError as error:
                    self.note(error)
                    if not (tries_left and (error.can_try_again or error.ended)):
                        raise translated(error, self.target.location) from error
                except LostError as error:
                    if self._closed:
                        raise self._was_closed() from error
                    if not tries_left:
                        raise translated(error, self.target.location) from error
            self.replace_lost()
        raise AssertionError("the last try returns or raises")

    def note(self, error: ServerError) -> None:
        """Learns from an error that statements cannot be prepared here."""
        if error.not_prepared:
            self.prepares = False

    def replace_lost(self) -> None:
        """Drops the idle connections that are dead, so that the next try has a living one."""
        try:
            self._pool.check()
        except PoolClosed as error:
            raise self._was_closed() from error

    def close(self) -> None:
        """Closes all connections; those in use fail with `ClosedError`."""
        if not self._closed and self._pid == os.getpid():
            self._closed = True
            self._pool.close()
        self._closed = True


def unreachable(error: psycopg.Error, target: Target) -> StorageError:
    """What a failed connection attempt means. libpq's messages hold no password."""
    said = " ".join(str(error).split()) or "no answer"
    return StorageError(
        f"{target.location} cannot be reached: {said[:_SAID]}; look at the URL, and whether the "
        "server runs, lets this role in and has connections left"
    )
