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
from typing import Final, TypeVar

from agentmem.course import Acquire, Course, Sleep
from agentmem.engines.base import Engine

__all__ = ["Lane"]

T = TypeVar("T")

_LONGEST_WAIT_S: Final = 0.5
_URGENT: Final = 4  # from this attempt on, newcomers are asked to hold back
_FIRST_PAUSE_S: Final = 0.000_2
_LONGEST_PAUSE_S: Final = 0.1


class Lane:
    """Takes the attempts after a conflict apart from each other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Held by the attempt of this process that tries again. Not by its thread: an attempt that
        # awaits goes on in another one.
        self._turn = threading.Lock()

    def attempt(self, number: int, tried: Course[T], until: float | None = None) -> Course[T]:
        """Runs attempt ``number``, counted from 1; the first goes right ahead.

        Args:
            tried: the attempt.
            until: a moment of ``time.monotonic`` that no waiting goes beyond.
        """
        if number <= 1:
            self._engine.make_way()
            return (yield from tried)
        wait_until = time.monotonic() + _left(_LONGEST_WAIT_S, until)
        turn = Acquire(self._turn, _left(_LONGEST_WAIT_S, until))
        try:
            if not (yield turn):
                # Whoever has it takes long, or was struck before it could note that it has it: the
                # next ones need not wait for it, too.
                self._turn = threading.Lock()
                yield self._pause(number, until)
                return (yield from tried)
            urgent = number >= _URGENT
            with self._engine.lane(_left(_LONGEST_WAIT_S, wait_until), urgent=urgent) as alone:
                if not alone:
                    yield self._pause(number, until)
                return (yield from tried)
        finally:
            turn.release()

    def _pause(self, number: int, until: float | None) -> Sleep:
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**number)
        pause = random.uniform(0, longest)  # noqa: S311  # spreads attempts, guards nothing
        return Sleep(_left(pause, until))


def _left(seconds: float, until: float | None) -> float:
    return seconds if until is None else min(seconds, max(0.0, until - time.monotonic()))
