"""The lane between processes: who tries again after a conflict goes alone, as far as can be.

It guards nothing; it only keeps rivals apart, see `agentmem.contention`. Two means in one file
beside the database ("-lane"):

* a ``flock`` on it is the lane itself;
* its first eight bytes are a moment of the system's monotonic clock until which a thread that
  has failed several times asks newcomers to hold back. Without it, one process that is never
  interrupted could win against one that always is. A moment runs out by itself, so a killed
  process leaves nothing behind that would have to be cleared.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agentmem.engines.sqlite.lock import open_lock_file, poll

__all__ = ["SqliteLane"]

_MOMENT: Final = struct.Struct("<Q")  # nanoseconds of the monotonic clock
_HOLD_BACK_NS: Final = 50_000_000
_STEP_S: Final = 0.000_5


class SqliteLane:
    """See `agentmem.engines.base.Engine.lane` and ``make_way``."""

    def __init__(self, database_path: str) -> None:
        self._file = open_lock_file(database_path + "-lane")
        _open_lanes.add(self)

    @contextmanager
    def alone(self, timeout_s: float, *, urgent: bool) -> Iterator[bool]:
        """Around an attempt after a conflict; gives whether the lane was had in time."""
        try:
            had = poll(self._file, time.monotonic() + timeout_s)
            if urgent:
                self._ask(time.monotonic_ns() + _HOLD_BACK_NS)
            yield had
        finally:
            if urgent:
                self._ask(0)
            if self._file >= 0:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def make_way(self) -> None:
        """Before a first attempt: waits while another asks for it, a twentieth second at most."""
        until = self._asked()
        now = time.monotonic_ns()
        # A moment further away was left by a system that has been started anew since.
        if not now < until <= now + _HOLD_BACK_NS:
            return
        while time.monotonic_ns() < until and self._asked():
            time.sleep(_STEP_S)

    def _asked(self) -> int:
        if self._file < 0:
            return 0
        moment = os.pread(self._file, _MOMENT.size, 0)
        return int(_MOMENT.unpack(moment)[0]) if len(moment) == _MOMENT.size else 0

    def _ask(self, until_ns: int) -> None:
        if self._file < 0:
            return
        try:
            os.pwrite(self._file, _MOMENT.pack(until_ns), 0)
        except OSError:
            # A full disk: it was only a request.
            return

    def close(self) -> None:
        """Closes the file; a held lane is let go."""
        _open_lanes.discard(self)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_open_lanes: weakref.WeakSet[SqliteLane] = weakref.WeakSet()


def _close_in_child() -> None:
    for lane in list(_open_lanes):
        lane.close()


os.register_at_fork(after_in_child=_close_in_child)
