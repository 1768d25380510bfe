"""Time, injected. The store counts microseconds since 1970 UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from agentmem.errors import InvalidValueError
from agentmem.model import to_microseconds

__all__ = ["Clock", "MicrosecondClock", "as_microsecond_clock", "system_clock"]

Clock = Callable[[], datetime | int | float]
"""What ``agentmem.open(clock=...)`` takes: returns an aware datetime, or seconds since 1970."""

MicrosecondClock = Callable[[], int]


def system_clock() -> int:
    """The time of this machine."""
    return time.time_ns() // 1_000


def as_microsecond_clock(clock: Clock | None) -> MicrosecondClock | None:
    """A clock argument as what the store uses; None is the storage's own."""
    if clock is None:
        return None
    if not callable(clock):
        raise TypeError("clock is a function that returns an aware datetime or epoch seconds")
    given: Clock = clock

    def now() -> int:
        moment = given()
        if isinstance(moment, datetime):
            if moment.tzinfo is None:
                raise InvalidValueError("the clock returned a datetime without a time zone")
            return to_microseconds(moment)
        return round(moment * 1_000_000)

    return now
