"""The fair lock between processes: an advisory ``flock``, and a line of tickets before it.

``flock`` alone is not fair: who lets go and asks again at once wins against those who sleep,
because they must first wake up. A second ``flock`` as waiting room is not enough: who of those
outside it comes in next is chance. So whoever cannot have the lock at once draws a ticket, and
waits until nobody with a smaller one is left::

    the line ("-turn")                      the lock ("-lock")
    -----------------------------------     ------------------
                                            A takes it: nobody is in line
    B finds it taken: ticket 17
    C finds B in line: ticket 18
                                            A lets go
    A, asking again, finds C: ticket 19     B takes it
    B gives up 17: C is first

So a writer is passed by at most one turn of each of the others.

A ticket is a locked byte of "-turn", the one at its number (an open-file-description lock; the
byte itself need not exist); the file's first eight bytes hold the last number. Both are changed
under a ``flock`` of the whole file, held for a few system calls. The line decides only who is
next; exclusion rests on "-lock" alone, so a damaged number costs fairness for a moment, no more.
Where the system has no such locks, "-turn" is a waiting room, less fair. (A turnstile: Downey,
The Little Book of Semaphores, section 4.2.5.)

The files are named from the database's real path and never unlinked: a process that had opened
the old file would hold a lock that no one else sees. Locks and tickets die with the process that
holds them. In a forked child the descriptors are closed at once, else the child would hold the
lock of a dead parent.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agentmem.engines.sqlite.files import identity
from agentmem.errors import StorageError, StoreBusyError

__all__ = ["FairLock", "open_lock_file", "poll"]

_MODE: Final = 0o600
_POLL_S: Final = 0.000_05
_SLOW_POLL_S: Final = 0.001
_FAST_POLLS: Final = 400

_HAS_TICKETS: Final = hasattr(fcntl, "F_OFD_SETLK")  # Linux
# C's ``struct flock``: type, whence, start, length (0 is up to the end), process.
_FLOCK: Final = struct.Struct("@hhqqi4x")
_NUMBER: Final = struct.Struct("<q")
_FIRST_TICKET: Final = _NUMBER.size  # the bytes before it hold the last number
_LAST_TICKET: Final = 2**62
_EXCLUSIVE: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_FREE: Final = struct.pack("@h", fcntl.F_UNLCK)
_ANY_TICKET: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FIRST_TICKET, 0, 0)


class FairLock:
    """The store's lock of one engine. Safe for use from many threads.

    Most of the time the leader of the process's commits asks for it; the thread that builds an
    index, and `reindex`, ask for it beside that.

    Guarantees: at most one thread of all processes on this machine holds it.
    """

    def __init__(self, database_path: str) -> None:
        self._path = database_path
        self._identity = identity(database_path)
        self._turn = open_lock_file(database_path + "-turn")
        self._lock = open_lock_file(database_path + "-lock")
        # Who waits for `_alone` holds `_door`: so whoever lets go of both cannot come back first.
        # Both know their owner, whatever strikes in between.
        self._door = threading.RLock()
        self._alone = threading.RLock()  # protects what follows; held with the store's lock
        self._asking = self._held = False
        _open_locks.add(self)

    def acquire(self, timeout_ms: int) -> None:
        """Waits in line for the lock.

        Raises:
            StoreBusyError: it was not to be had in time.
            StorageError: the database is not the file any more that it was.
        """
        started = time.monotonic()
        deadline = started + timeout_ms / 1_000
        try:
            for each in (self._door, self._alone):
                # What is free is had without a timeout, for a third of what that costs.
                if not each.acquire(blocking=False) and not each.acquire(
                    timeout=max(0.0, deadline - time.monotonic())
                ):
                    raise self._busy(started)
            # Noted before it is so: letting go of what is not held does no harm, and an
            # asynchronous exception can strike between any two lines.
            self._held = True
            self._door.release()
            if not (_HAS_TICKETS and _nobody_waits(self._turn) and _try(self._lock)):
                self._wait(started, deadline)
            # SQLite would go on to write into a file that nobody can open any more (1 µs).
            if identity(self._path) != self._identity:
                raise StorageError(
                    f"{self._path} was deleted, moved or replaced while it was open; nothing was "
                    "written: close the store, and open it again"
                )
        except BaseException:
            self.release()
            raise

    def _wait(self, started: float, deadline: float) -> None:
        self._asking = True
        self._take(self._turn, started, deadline)
        if _HAS_TICKETS:
            ticket = _draw_ticket(self._turn)
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            if not _poll(lambda: _is_first(self._turn, ticket) and _try(self._lock), deadline):
                raise self._busy(started)
            _give_up_ticket(self._turn)
        else:
            self._take(self._lock, started, deadline)
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        self._asking = False

    def _take(self, descriptor: int, started: float, deadline: float) -> None:
        if not poll(descriptor, deadline):
            raise self._busy(started)

    def _busy(self, started: float) -> StoreBusyError:
        waited_ms = round((time.monotonic() - started) * 1_000)
        return StoreBusyError(
            f"another process held the lock of {self._path} for {waited_ms} ms; "
            "run it again, or look for a stopped process",
            waited_ms=waited_ms,
        )

    def release(self) -> None:
        """Lets go of whatever this thread holds, even if an exception struck `acquire`."""
        # Who does not hold it has neither the lock nor a ticket.
        if self._alone._is_owned():  # type: ignore[attr-defined]  # as in _let_go
            if self._asking:
                if _HAS_TICKETS:
                    _give_up_ticket(self._turn)
                fcntl.flock(self._turn, fcntl.LOCK_UN)
                self._asking = False
            if self._held:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
                self._held = False
            _let_go(self._alone)
        _let_go(self._door)

    def close(self) -> None:
        """Closes the files; a held lock is let go."""
        _open_locks.discard(self)
        self._asking = self._held = False
        for descriptor in (self._turn, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._turn = self._lock = -1


def _let_go(lock: threading.RLock) -> None:
    """Lets go of a lock as often as this thread holds it."""
    # Asked as threading.Condition asks it: an error for each lock that is not held would cost a put
    # 5 of its 80 microseconds.
    while lock._is_owned():  # type: ignore[attr-defined]  # RLock has it, typeshed does not
        lock.release()


def poll(descriptor: int, deadline: float) -> bool:
    """Takes a lock unless the deadline passes first.

    Locks of files have no timeout, and a blocking one could wait for a stopped process for ever,
    so they are polled.
    """
    return _poll(lambda: _try(descriptor), deadline)


def _poll(attempt: Callable[[], bool], deadline: float) -> bool:
    polls = 0
    while not attempt():
        if time.monotonic() >= deadline:
            return False
        polls += 1
        time.sleep(_POLL_S if polls < _FAST_POLLS else _SLOW_POLL_S)
    return True


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, _EXCLUSIVE)
    except BlockingIOError:
        return False
    return True


def _nobody_waits(turn: int) -> bool:
    return fcntl.fcntl(turn, fcntl.F_OFD_GETLK, _ANY_TICKET)[:2] == _FREE


def _is_first(turn: int, ticket: int) -> bool:
    """Whether nobody else has a smaller ticket."""
    if ticket == _FIRST_TICKET:
        return True
    smaller = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FIRST_TICKET, ticket - _FIRST_TICKET, 0)
    return fcntl.fcntl(turn, fcntl.F_OFD_GETLK, smaller)[:2] == _FREE


def _draw_ticket(turn: int) -> int:
    """Locks the byte of the next number; the ``flock`` of the file is held."""
    written = os.pread(turn, _NUMBER.size, 0)
    last: int = _NUMBER.unpack(written)[0] if len(written) == _NUMBER.size else 0
    ticket = last + 1 if _FIRST_TICKET <= last < _LAST_TICKET - 1 else _FIRST_TICKET
    # On a full disk the number may stay as it was, and its byte be another's: then two share a
    # place in the line, which costs fairness for a moment.
    with suppress(OSError):
        os.pwrite(turn, _NUMBER.pack(ticket), 0)
        fcntl.fcntl(turn, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, ticket, 1, 0))
    return ticket


def _give_up_ticket(turn: int) -> None:
    """Also if there is none."""
    fcntl.fcntl(turn, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))


def open_lock_file(path: str) -> int:
    """The descriptor of a lock file, made if it is not there; not inherited by programs."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)


_open_locks: weakref.WeakSet[FairLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
