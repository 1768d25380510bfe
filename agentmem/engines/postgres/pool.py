"""The connections of one engine, and what to do when one is lost."""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from agentmem.engines.postgres.failures import LostError, ServerError, translated
from agentmem.engines.postgres.target import Target
from agentmem.engines.postgres.wire import Rows, Statement, Wire
from agentmem.errors import ClosedError, ForkedStoreError, StorageError, StoreBusyError

__all__ = ["Pool"]

R = TypeVar("R")

_TRIES: Final = 3
_MAX_IDLE_S: Final = 60.0
# Who waits for a connection looks for a free place so often: one that was lost wakes nobody up.
_LOOK_S: Final = 0.1
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.5
# For so long after somebody has waited in vain for the server, others only look whether it is back:
# a hundred writes that were queued fail together, and not one after another.
_GONE_S: Final = 0.5
_SHORT_TIMEOUT_S: Final = 2  # the least that libpq allows
_SAID: Final = 1_000  # characters of the driver's words; with many hosts they are many


class _Place:
    """The right to have one connection; free again when it is left, or nothing refers to it."""

    __slots__ = ("__weakref__", "left")

    def __init__(self) -> None:
        self.left = False


class _Connection(psycopg.Connection[Any]):
    """A connection in its place.

    Attributes:
        idle_since: of `time.monotonic`; of one that is not in use.
    """

    place: _Place
    idle_since = 0.0

    # Nothing is said of one that an exception has struck out of our hands: its place is free again,
    # and libpq closes it, except in a child that has inherited it. A function in C has no frame: an
    # exception that struck in it would be kept by whoever looks at what cannot be raised, and with
    # the frame its place.
    __del__ = object.__hash__  # type: ignore[assignment]  # what it returns is ignored

    def is_alive(self) -> bool:
        """Whether it is open, as far as can be said without asking: an idle server is silent."""
        if self.closed or self.place.left:
            return False
        if not hasattr(select, "poll"):  # Windows
            return not select.select([self.pgconn.socket], [], [], 0)[0]
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return not poll.poll(0)


class _Waiter:
    """A thread that waits for a connection, or for the right to make one."""

    __slots__ = ("connection", "woken")

    def __init__(self) -> None:
        self.connection: _Connection | None = None
        self.woken = threading.Lock()
        self.woken.acquire()


class Pool:
    """Connections for any number of threads. Nothing of a session outlives a transaction.

    An asynchronous exception (a time limit, Ctrl-C) can strike anywhere. So nothing is counted:
    what is in use is what somebody still refers to. A connection that is dropped, closed or not,
    leaves its place to another.

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
        self._lock = threading.Lock()
        self._idle: deque[_Connection] = deque()  # the last used at the right
        self._waiting: deque[_Waiter] = deque()
        self._places: list[weakref.ref[_Place]] = []

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

    def take(self, *, looks: bool = True) -> Wire:
        """A connection of the caller's own, until `give_back`.

        Args:
            looks: first whether it is alive, as far as can be said.

        Raises:
            StorageError: the server cannot be reached.
            StoreBusyError: all connections are in use.
        """
        connection: _Connection | None = None
        try:
            connection = self._had(time.monotonic() + self._timeout_s, looks=looks)
            wire = Wire(connection)
            wire.prepares = self.prepares
        except BaseException:
            # Whoever keeps the exception keeps this frame, and with it the connection.
            if connection is not None:
                connection.place.left = True
            raise
        return wire

    def give_back(self, wire: Wire) -> None:
        """After use. One that is not in order is closed, and its place is free."""
        connection: _Connection = wire.connection  # type: ignore[assignment]  # they are made so
        try:
            self._give_back(connection)
        except BaseException:
            # Struck in the middle. Wherever it is now, it is not given out again.
            connection.place.left = True
            raise

    def _had(self, deadline: float, *, looks: bool) -> _Connection:
        waiter: _Waiter | None = None
        while True:
            self.check()
            with self._lock:
                connection = self._idle.pop() if self._idle else None
                place = None if connection else self._free_place()
                if not (connection or place):
                    # Who has waited is served before who comes.
                    (self._waiting.appendleft if waiter else self._waiting.append)(
                        waiter := _Waiter()
                    )
            try:
                if place:
                    return self._connected(place, deadline)
                if not connection and waiter:
                    connection = self._handed(waiter, deadline)
                if connection and (not looks or connection.is_alive()):
                    return connection
            except BaseException:
                # Whoever keeps the exception keeps this frame.
                if place:
                    place.left = True
                if connection:
                    connection.place.left = True
                raise

    def _free_place(self) -> _Place | None:
        self._places = [one for one in self._places if (place := one()) and not place.left]
        if len(self._places) >= self.target.pool_size:
            return None
        place = _Place()
        self._places.append(weakref.ref(place))
        return place

    def _handed(self, waiter: _Waiter, deadline: float) -> _Connection | None:
        """What another thread gives back; None if there may be a free place."""
        left = deadline - time.monotonic()
        try:
            waiter.woken.acquire(timeout=max(0.0, min(left, _LOOK_S)))
        finally:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
        if not waiter.connection and left <= 0:
            raise StoreBusyError(
                f"no connection to {self.target.location} within {self._timeout_s:g} s: all "
                f"{self.target.pool_size} are in use; run it again, or give the URL a larger "
                "pool_size",
                waited_ms=round(self._timeout_s * 1_000),
            )
        return waiter.connection

    def _connected(self, place: _Place, deadline: float) -> _Connection:
        """A new connection; a server that is away is waited for."""
        pause = _FIRST_PAUSE_S
        while True:
            options = dict(self.target.defaults)
            is_gone = time.monotonic() < self._gone_until
            if is_gone and "connect_timeout" in options:
                options["connect_timeout"] = _SHORT_TIMEOUT_S
            try:
                connection = _Connection.connect(
                    self.target.conninfo, autocommit=True, prepare_threshold=None, **options
                )
            except psycopg.Error as error:
                now = time.monotonic()
                if is_gone or now + pause > deadline:
                    self._gone_until = now + _GONE_S
                    raise unreachable(error, self.target) from error
            else:
                connection.place = place
                self._gone_until = 0.0
                return connection
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            self.check()

    def _give_back(self, connection: _Connection) -> None:
        if self._pid != os.getpid():
            return  # it is the parent's
        if self._closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.close()
            connection.place.left = True
        connection.idle_since = time.monotonic()
        old: list[_Connection] = []
        with self._lock:
            waiter = self._waiting.popleft() if self._waiting else None
            if waiter:
                waiter.connection = None if connection.place.left else connection
            elif not connection.place.left:
                self._idle.append(connection)
            while self._idle and self._idle[0].idle_since < connection.idle_since - _MAX_IDLE_S:
                old.append(self._idle.popleft())
        if waiter:
            waiter.woken.release()
        for one in old:
            one.close()

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
        return self._tried(lambda wire: wire.run(batch))

    def glance(self, statement: Statement) -> tuple[bytes | None, ...]:
        """As `read`, of the first row alone, for what is asked for a hundred times a second.

        See `Wire.glance`. Whether the connection is alive is not asked before: it shows.
        """
        wire: Wire | None = None
        try:
            wire = self.take(looks=False)
            return wire.glance(statement)
        except ServerError as error:
            self.note(error)
        except LostError:
            self.replace_lost()
        finally:
            if wire is not None:
                self.give_back(wire)
        return self._tried(lambda wire: wire.glance(statement))

    def _tried(self, call: Callable[[Wire], R]) -> R:
        for tries_left in reversed(range(_TRIES)):
            with self.wire() as wire:
                try:
                    return call(wire)
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
        self.check()
        with self._lock:
            idle = list(self._idle)
            self._idle.clear()
            self._idle.extend(connection for connection in idle if connection.is_alive())

    def close(self) -> None:
        """Closes all connections; those in use fail with `ClosedError`."""
        if self._pid == os.getpid() and not self._closed:
            self._closed = True
            with self._lock:
                idle = list(self._idle)
                self._idle.clear()
                waiting = list(self._waiting)
                self._waiting.clear()
            for waiter in waiting:
                waiter.woken.release()
            for connection in idle:
                connection.close()
        self._closed = True


def unreachable(error: psycopg.Error, target: Target) -> StorageError:
    """What a failed connection attempt means. libpq's messages hold no password."""
    said = " ".join(str(error).split()) or "no answer"
    return StorageError(
        f"{target.location} cannot be reached: {said[:_SAID]}; look at the URL, and whether the "
        "server runs, lets this role in and has connections left"
    )
