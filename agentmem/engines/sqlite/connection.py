"""One connection a thread, all set up alike, none of them ever used after a fork."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final

from agentmem.engines.sqlite.checksums import give_functions
from agentmem.engines.sqlite.driver import HAS_WAL_RESET_BUG, driver, translated
from agentmem.engines.sqlite.inherited import remember
from agentmem.engines.sqlite.schema import check_ours
from agentmem.errors import ClosedError, ForkedStoreError, StorageError

__all__ = ["BUSY_TIMEOUT", "Connections"]

_SYNCHRONOUS: Final = {
    "full": ("PRAGMA synchronous=FULL", 2),
    "relaxed": ("PRAGMA synchronous=NORMAL", 1),
}
_CACHED_STATEMENTS: Final = 256
# The lock between processes is agentmem's own; this waits for strangers, for recovery after a
# crash and for checkpoints. SQLite's waiting is unfair, so it is short.
_BUSY_TIMEOUT_MS: Final = 5_000
BUSY_TIMEOUT: Final = "PRAGMA busy_timeout=5000"
"""Sets it as it is set when a connection is opened."""


class Connections:
    """The connections of one engine to one file.

    No connection may be closed while another thread is inside of SQLite with it: the driver would
    then go on with what is freed, and the process would die. So threads say when they use theirs,
    and a connection in use is closed by its own thread, when it is done::

        one thread                                another thread
        begin(): counts its use                   stop(): marks them closed
                 looks whether they are closed    shut(): closes those whose use is not counted

    Each writes first and looks then, so at least one of the two sees the other.

    Attributes:
        path: the real path of the database.
        durability: ``full`` or ``relaxed``.
        last_out: called by a thread that has ended a use after `stop`.
    """

    def __init__(self, path: str, durability: str) -> None:
        self.path = path
        self.durability = durability
        self.last_out: Callable[[], object] | None = None
        self._local = threading.local()
        self._all: weakref.WeakSet[_Holder] = weakref.WeakSet()
        self._guard = threading.Lock()  # protects _all and _closed
        self._closed = False
        self._pid = os.getpid()
        _open_connections.add(self)

    def get(self) -> driver.Connection:
        """This thread's connection, while nobody else has the store yet, or in a use.

        Raises:
            ForkedStoreError: this process was forked after the store was opened.
            ClosedError: the store was closed.
        """
        return self._holder().connection

    def begin(self) -> driver.Connection:
        """This thread's connection, which no other thread closes before `end`. Uses may nest.

        Raises: as `get`.
        """
        holder: _Holder | None = getattr(self._local, "holder", None)
        if holder is None:
            holder = self._holder()
        holder.uses += 1
        if self._closed or self._pid == 0:
            self.end()
            self.check()
        return holder.connection

    def end(self) -> None:
        """Ends what `begin` has begun."""
        holder: _Holder | None = getattr(self._local, "holder", None)
        if holder is None:  # it was discarded
            return
        if holder.uses:
            holder.uses -= 1
        if self._closed and not holder.uses and self._pid == os.getpid():
            self.discard()
            if self.last_out is not None:
                self.last_out()

    def _holder(self) -> _Holder:
        holder: _Holder | None = getattr(self._local, "holder", None)
        if holder is not None and not self._closed and self._pid != 0:
            return holder
        self.check()
        holder = _Holder(self._connect())
        with self._guard:
            if self._closed:
                holder.connection.close()
                raise ClosedError(f"the store {self.path} was closed")
            self._all.add(holder)
        self._local.holder = holder
        return holder

    def check(self) -> None:
        """Raises unless the connections can be used: not closed, and not after a fork."""
        if self._pid != os.getpid():
            raise ForkedStoreError(
                f"the store {self.path} was opened before this process was forked; "
                "call agentmem.open() again in the child"
            )
        if self._closed:
            raise ClosedError(f"the store {self.path} was closed")

    def _connect(self) -> driver.Connection:
        connection: driver.Connection | None = None
        try:
            connection = driver.connect(
                self.path,
                timeout=_BUSY_TIMEOUT_MS / 1_000,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=_CACHED_STATEMENTS,
            )
            self._set_up(connection)
        except driver.Error as error:
            if connection is not None:
                connection.close()
            raise translated(error, self.path, waited_ms=_BUSY_TIMEOUT_MS) from error
        return connection

    def _set_up(self, connection: driver.Connection) -> None:
        # Before anything is changed or made beside it.
        check_ours(connection, self.path)
        statement, level = _SYNCHRONOUS[self.durability]
        connection.execute(statement)
        if connection.execute("PRAGMA synchronous").fetchone()[0] != level:
            raise StorageError(f"{self.path}: synchronous could not be set to {self.durability}")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA mmap_size=0")
        give_functions(connection)
        if HAS_WAL_RESET_BUG:
            connection.execute("PRAGMA wal_autocheckpoint=0")

    def discard(self) -> None:
        """Closes this thread's connection; the next use opens a new one."""
        holder: _Holder | None = getattr(self._local, "holder", None)
        if holder is not None:
            self._local.holder = None
            self._close_once(holder)

    def close(self) -> None:
        """Closes them, but for those in use: their threads do so. `begin` raises `ClosedError`."""
        self.stop()
        self.shut()

    def stop(self) -> None:
        """From here on `begin` and `get` raise `ClosedError`."""
        with self._guard:
            self._closed = True

    def in_use(self) -> bool:
        """Whether another thread of this process uses one."""
        return self._pid == os.getpid() and any(
            each.uses and each is not getattr(self._local, "holder", None)
            for each in self._holders()
        )

    def shut(self, *, unused: bool = False) -> None:
        """Closes those that no other thread uses.

        Args:
            unused: nobody can use any, whatever was counted.
        """
        if self._pid != os.getpid():
            return
        mine = getattr(self._local, "holder", None)
        for holder in self._holders():
            if unused or holder is mine or not holder.uses:
                self._close_once(holder)

    def _close_once(self, holder: _Holder) -> None:
        # Of two threads that close one connection at once, the second would close what is freed.
        with self._guard:
            first = holder in self._all
            self._all.discard(holder)
        if first:
            _close_quietly(holder.connection)

    def _holders(self) -> list[_Holder]:
        with self._guard:
            return list(self._all)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def leak(self) -> None:
        """In a forked child: keeps the connections from ever being closed.

        Closing them would touch the files on behalf of the parent.
        """
        self._pid = 0
        if not self._closed:
            remember(self.path)
        for holder in list(self._all):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(holder.connection))


class _Holder:
    """Can be referred to weakly, which a connection cannot; ends with its thread.

    Attributes:
        uses: how many its thread has begun and not ended; only that thread changes it.
    """

    __slots__ = ("__weakref__", "connection", "uses")

    def __init__(self, connection: driver.Connection) -> None:
        self.connection = connection
        self.uses = 0


def _close_quietly(connection: driver.Connection) -> None:
    try:
        connection.close()
    except driver.Error:
        # Only a statement that another thread runs at this moment can keep it open; it is
        # closed with its last reference.
        return


_open_connections: weakref.WeakSet[Connections] = weakref.WeakSet()


def _leak_in_child() -> None:
    for connections in list(_open_connections):
        connections.leak()


os.register_at_fork(after_in_child=_leak_in_child)
