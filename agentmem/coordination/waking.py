"""Waiting for other processes to commit something, without busy work.

An engine can tell cheaply whether anything was committed since it was last asked (a file: a number
in memory that SQLite shares; a server: one row). Who waits asks for that, at first often, then
ever more seldom, and looks closer only when it has changed. What can also happen by the mere
passing of time, the caller names a moment for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from agentmem.engines.base import Engine

__all__ = ["LOOK_S", "Waking"]

LOOK_S: Final = 0.25
"""Between looks, whatever the pulse says: an injected clock may have been moved."""

_FIRST_S: Final = 0.000_5
_GROWTH: Final = 1.5


class Waking:
    """What one waiting thread has seen of a store. Used by that thread alone.

    Attributes:
        engine: of the store.
    """

    def __init__(self, engine: Engine, stopped: Callable[[], bool] = lambda: False) -> None:
        """Begins.

        Args:
            stopped: whether to wait no longer.
        """
        self.engine = engine
        self._stopped = stopped
        # Asked before the caller looks, so that nothing falls between.
        self._seen = engine.pulse()

    def wait(self, until: float) -> bool:
        """Returns when something was committed since the last look at the pulse, or in time.

        Args:
            until: a moment of ``time.monotonic``.

        Returns: whether something was committed.
        """
        pause_s = _FIRST_S
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(pause_s, left_s))
            if self._stopped():
                return False
            found = self.engine.pulse()
            if found != self._seen:
                self._seen = found
                return True
            pause_s = min(self.engine.pulse_s, _GROWTH * pause_s)
        return False
