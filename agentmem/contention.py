"""What a transaction does between two attempts.

Rivals that all try again at once conflict again: of eight, seven fail each time, and whoever is
unlucky fails until its attempts are used up. So attempts after a conflict go through a lane, one
after another: threads of a process by a lock, processes by the engine's. While in it, a thread
runs the caller's function, which may take minutes; so nobody waits long for the lane. Who has
waited in vain pauses for a random time, the longer the more attempts have failed, and goes on
without. Who fails even in the lane asks newcomers to hold back for a moment.

The lane only keeps rivals apart; the commit path decides.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from agentmem.engines.base import Engine

__all__ = ["Lane"]

_LONGEST_WAIT_S: Final = 0.5
_URGENT: Final = 4  # from this attempt on, newcomers are asked to hold back
_FIRST_PAUSE_S: Final = 0.000_2
_LONGEST_PAUSE_S: Final = 0.1


class Lane:
    """Takes the attempts after a conflict apart from each other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Held by the thread of this process that tries again.
        self._turn = threading.RLock()

    @contextmanager
    def attempt(self, number: int, until: float | None = None) -> Iterator[None]:
        """Around attempt ``number``, counted from 1; the first goes right ahead.

        Args:
            until: a moment of ``time.monotonic`` that no waiting goes beyond.
        """
        if number <= 1:
            self._engine.make_way()
            yield
            return
        wait_until = time.monotonic() + _left(_LONGEST_WAIT_S, until)
        turn = self._turn
        try:
            if not turn.acquire(timeout=_left(_LONGEST_WAIT_S, until)):
                # Whoever has it takes long, or was struck before it could let go: the next ones
                # need not wait for it, too.
                self._turn = threading.RLock()
                self._pause(number, until)
                yield
                return
            urgent = number >= _URGENT
            with self._engine.lane(_left(_LONGEST_WAIT_S, wait_until), urgent=urgent) as alone:
                if not alone:
                    self._pause(number, until)
                yield
        finally:
            # It refuses to be released by who does not hold it. A note of our own could be missing:
            # an asynchronous exception can strike right after it was acquired.
            with suppress(RuntimeError):
                turn.release()

    def _pause(self, number: int, until: float | None) -> None:
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**number)
        pause = random.uniform(0, longest)  # noqa: S311  # spreads attempts, guards nothing
        time.sleep(_left(pause, until))


def _left(seconds: float, until: float | None) -> float:
    return seconds if until is None else min(seconds, max(0.0, until - time.monotonic()))
