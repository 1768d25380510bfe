"""The clock of the machine since its start, which nobody sets.

The time of day is set by people and by the network, forward and back; a lease that went by it could
end early or never. The clock since the start counts on while the machine sleeps, and begins anew
with each start, so it goes together with an id of the start: a moment of another start has passed.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Final

from agentmem.clock import MicrosecondClock, system_clock
from agentmem.engines.rows import (
    Moment,
)

__all__ = ["timer_of"]

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_MAX_ID_BYTES: Final = 64
_INJECTED: Final = "clock"
# Linux's monotonic clock stops while the machine sleeps, macOS's does not.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def timer_of(clock: MicrosecondClock) -> Callable[[], Moment]:
    """What tells the moment; a clock that was injected takes the place of the machine's."""
    if clock is not system_clock:
        return lambda: Moment(_INJECTED, clock())
    start = start_id()
    return lambda: Moment(start, time.clock_gettime_ns(_CLOCK) // 1_000)


@cache
def start_id() -> str:
    """An id of the machine's last start; the same for all its processes."""
    if sys.platform == "darwin":
        size = ctypes.c_size_t(_MAX_ID_BYTES)
        found = ctypes.create_string_buffer(_MAX_ID_BYTES)
        name = b"kern.bootsessionuuid"
        ctypes.CDLL(None).sysctlbyname(name, found, ctypes.byref(size), None, 0)
        return found.value.decode()
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()
