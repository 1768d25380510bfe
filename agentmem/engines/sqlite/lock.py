"""The fair lock between processes: two advisory ``flock`` files beside the database.

``flock`` alone is not fair: who lets go and asks again at once wins against those who sleep,
because they must first wake up. So there are two locks, taken in turn::

    waiting room ("-turn")       the lock ("-lock")
    ----------------------       ------------------
    A takes it
                                 A takes it            A is next to nobody: it has both
    A leaves it
    B takes it                                         B is next
                                 (A still holds it)
    C waits for it
                                 A lets go
                                 B takes it            A, asking again, must queue behind C
    B leaves it

Who has just held the lock must enter the waiting room again, which another has meanwhile taken;
so a writer is passed by at most one turn of each of the others. (The turnstile of Downey, The
Little Book of Semaphores, section 4.2.5.)

The files are named from the database's real path and never unlinked: a process that had opened
the old file would hold a lock that no one else sees. A lock dies with the process that holds
it. In a forked child the descriptors are closed at once, else the child would hold the lock of
a dead parent.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from typing import Final

from agentmem.errors import StoreBusyError

__all__ = ["FairLock", "open_lock_file", "poll"]

_MODE: Final = 0o600
_POLL_S: Final = 0.000_05
_SLOW_POLL_S: Final = 0.001
_FAST_POLLS: Final = 400


class FairLock:
    """The store's lock of one engine. One thread of the process asks for it at a time.

    Guarantees: at most one engine of all processes on this machine holds it.
    """

    def __init__(self, database_path: str) -> None:
        self._path = database_path
        self._turn = open_lock_file(database_path + "-turn")
        self._lock = open_lock_file(database_path + "-lock")
        self._asking = self._held = False
        _open_locks.add(self)

    def acquire(self, timeout_ms: int) -> None:
        """Waits in line for the lock.

        Raises:
            StoreBusyError: it was not to be had in time.
        """
        started = time.monotonic()
        deadline = started + timeout_ms / 1_000
        # Noted before it is so: letting go of what is not held does no harm, and an
        # asynchronous exception can strike between any two lines.
        self._asking = True
        try:
            self._take(self._turn, started, deadline)
            self._held = True
            self._take(self._lock, started, deadline)
        except BaseException:
            self.release()
            raise
        fcntl.flock(self._turn, fcntl.LOCK_UN)
        self._asking = False

    def _take(self, descriptor: int, started: float, deadline: float) -> None:
        if not poll(descriptor, deadline):
            waited_ms = round((time.monotonic() - started) * 1_000)
            raise StoreBusyError(
                f"another process held the lock of {self._path} for {waited_ms} ms; "
                "run it again, or look for a stopped process",
                waited_ms=waited_ms,
            )

    def release(self) -> None:
        """Lets go of whatever is held, even if an asynchronous exception struck `acquire`."""
        if self._asking:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            self._asking = False
        if self._held:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._held = False

    def close(self) -> None:
        """Closes the files; a held lock is let go."""
        _open_locks.discard(self)
        self._asking = self._held = False
        for descriptor in (self._turn, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._turn = self._lock = -1


def poll(descriptor: int, deadline: float) -> bool:
    """Takes a lock unless the deadline passes first.

    flock has no timeout, and a blocking one could wait for a stopped process for ever, so it is
    polled; by few at a time: one process polls the lock, the others the waiting room.
    """
    polls = 0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        else:
            return True
        polls += 1
        time.sleep(_POLL_S if polls < _FAST_POLLS else _SLOW_POLL_S)


def open_lock_file(path: str) -> int:
    """The descriptor of a lock file, made if it is not there; not inherited by programs."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)


_open_locks: weakref.WeakSet[FairLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)
