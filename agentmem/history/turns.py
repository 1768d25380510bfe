"""Long work on a store in short turns, between which others write."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    Change,
    NewCommit,
    Spaces,
)
from agentmem.limits import Limits
from agentmem.search.beside import write_beside

__all__ = ["Turns"]

_AIM_S: Final = 0.02  # half of what a turn may take, for a machine that is busy at the next one
_LEAST: Final = 1
_MOST: Final = 10_000


class Turns:
    """Writes rows beside the log, as many at once as keep the store's lock for 20 ms or so.

    Attributes:
        size: how many rows the next turn should be of.
        longest_s: how long the longest turn has held the lock.
    """

    def __init__(self, engine: Engine, limits: Limits, size: int = 100) -> None:
        self._engine = engine
        self._limits = limits
        self.size = size
        self.longest_s = 0.0

    def write(self, *changes: Change) -> None:
        """One turn: all of the changes, in one transaction that takes no revision.

        They are such that they can be made twice. Whoever has judged something by what they
        change on a server notices it by the fence.
        """
        began = 0.0

        def rows(_spaces: Spaces) -> NewCommit:
            nonlocal began
            began = time.monotonic()
            return NewCommit(changes=[*changes, Change("fence")])

        write_beside(self._engine, self._limits, rows)
        self._note(time.monotonic() - began)

    def timed(self, work: Callable[[], object]) -> None:
        """One turn that is written by other means, and may wait for the lock as well."""
        began = time.monotonic()
        work()
        self._note(time.monotonic() - began)

    def _note(self, took_s: float) -> None:
        self.longest_s = max(self.longest_s, took_s)
        if took_s > _AIM_S:
            self.size = max(_LEAST, int(self.size * _AIM_S / took_s))
        elif took_s < _AIM_S / 2:
            self.size = min(_MOST, self.size * 2)
