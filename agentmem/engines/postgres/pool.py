"""The connections of one engine: psycopg's pool, and what to do when one is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from agentmem.engines.postgres.failures import LostError, ServerError, translated
from agentmem.engines.postgres.target import Target
from agentmem.engines.postgres.wire import Rows, Statement, Wire
from agentmem.errors import ClosedError, ForkedStoreError, StorageError

__all__ = ["Pool"]

_TRIES: Final = 3
_MAX_IDLE_S: Final = 60.0
_WORKERS: Final = 1


class _Connection(psycopg.Connection[Any]):
    """A connection that keeps its wire, which knows what was prepared on it."""

    wire: Wire | None = None


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
        self._pool = ConnectionPool(
            target.conninfo,
            connection_class=_Connection,
            kwargs={**target.defaults, "autocommit": True, "prepare_threshold": None},
            min_size=0,
            max_size=target.pool_size,
            timeout=self._timeout_s,
            max_idle=_MAX_IDLE_S,
            reconnect_timeout=self._timeout_s,
            num_workers=_WORKERS,
            open=True,
        )

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
            StorageError: the server cannot be reached, or all connections are in use.
        """
        self.check()
        try:
            connection = self._pool.getconn()
        except PoolTimeout as error:
            raise self._not_reached(error) from error
        except PoolClosed as error:
            raise self._was_closed() from error
        wire = connection.wire
        if wire is None:
            wire = connection.wire = Wire(connection)
        wire.prepares = self.prepares
        return wire

    def give_back(self, wire: Wire) -> None:
        """After use; a closed connection is replaced by a new one when one is needed."""
        self._pool.putconn(wire.connection)  # type: ignore[arg-type]  # it came from there

    def _not_reached(self, error: Exception) -> StorageError:
        try:
            psycopg.connect(self.target.conninfo, **self.target.defaults).close()
        except psycopg.Error as found:
            return unreachable(found, self.target)
        return StorageError(
            f"no connection to {self.target.location} within {self._timeout_s:g} s: all "
            f"{self.target.pool_size} are in use; give the URL a larger pool_size"
        )

    @contextmanager
    def wire(self) -> Iterator[Wire]:
        """A connection for a block."""
        wire = self.take()
        try:
            yield wire
        finally:
            self.give_back(wire)

    def read(self, statement: Statement, values: Sequence[Any] = ()) -> Rows:
        """One reading statement, again on another connection if one is lost.

        Raises:
            StorageError: the server failed or cannot be reached.
        """
        for tries_left in reversed(range(_TRIES)):
            with self.wire() as wire:
                try:
                    return wire.run([(statement, values)])[0]
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
    lines = str(error).strip().splitlines() or ["no answer"]
    return StorageError(
        f"{target.location} cannot be reached: {lines[-1].strip()}; look at the URL, and whether "
        "the server runs and lets this role in"
    )
