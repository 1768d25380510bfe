"""Closing an engine that other threads are still using."""

from __future__ import annotations

import os
import shutil
import threading
import time
from typing import Final, Protocol

from agentmem.engines.sqlite.connection import Connections

__all__ = ["Closing"]

_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.001


class Closes(Protocol):
    """A lock that has files."""

    def close(self) -> None:
        """Closes the files."""


class Closing:
    """Ends the connections and locks of one engine, once nobody uses them any more.

    What is under way goes on to its end: a commit is made, and its caller hears of it. Whoever
    closes waits a little for that; if it takes longer (a backup, a lock that another process
    holds), the last thread to be done closes the rest.

    Args:
        connections: all of them.
        locks: what only those who use a connection hold.
        folder: deleted at the end; None: there is none.
    """

    def __init__(
        self, connections: tuple[Connections, ...], locks: tuple[Closes, ...], folder: str | None
    ) -> None:
        self._connections = connections
        self._locks = locks
        self._folder = folder
        self._pid = os.getpid()
        self._guard = threading.Lock()  # protects _ended
        self._ended = False
        for each in connections:
            each.last_out = self._end

    def close(self) -> bool:
        """Refuses what comes, waits for what is under way, and closes.

        Returns: False if something is under way still; its thread closes then.
        """
        for each in self._connections:
            each.stop()
        deadline = time.monotonic() + _PATIENCE_S
        while not self._end():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_S)
        return True

    def abandon(self) -> None:
        """Closes what nobody can reach any more, also where a use was begun and never ended."""
        for each in self._connections:
            each.stop()
        self._end(unused=True)

    def _end(self, *, unused: bool = False) -> bool:
        with self._guard:
            if self._ended:
                return True
            if not unused and any(each.in_use() for each in self._connections):
                return False
            self._ended = True
        for each in self._connections:
            each.shut(unused=unused)
        for lock in self._locks:
            lock.close()
        if self._folder is not None and os.getpid() == self._pid:
            shutil.rmtree(self._folder, ignore_errors=True)
        return True
