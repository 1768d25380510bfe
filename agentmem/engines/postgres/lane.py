"""The lane between clients: a row that one of them holds for a moment.

No advisory lock: a lock of a session would not survive a pooler, and one of a transaction would
keep it open for as long as the caller's function runs. The row is unlogged, so taking it waits for
no disk, and it runs out by itself. Who has failed several times also asks newcomers to hold back;
they hear of it when they read where the log ends, with which every transaction begins.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from agentmem.engines.postgres.pool import Pool
from agentmem.engines.postgres.statements import Statements
from agentmem.errors import StorageError

__all__ = ["PostgresLane"]

_HOLD_US: Final = 500_000
_HOLD_BACK_US: Final = 50_000
_STEP_S: Final = 0.002
_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.02


class PostgresLane:
    """See `agentmem.engines.base.Engine.lane`."""

    def __init__(self, pool: Pool, statements: Statements) -> None:
        self._pool = pool
        self._take = statements["take_lane"]
        self._leave = statements["leave_lane"]
        self._asked = statements["asked"]
        self._holder = os.urandom(16)
        self._asked_until = 0.0  # of the monotonic clock, as last heard

    @contextmanager
    def alone(self, timeout_s: float, *, urgent: bool) -> Iterator[bool]:
        """Around an attempt after a conflict; gives whether the lane was had in time."""
        deadline = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        had = self._taken(urgent=urgent)
        try:
            while not had and time.monotonic() < deadline:
                time.sleep(random.uniform(0, pause_s))  # noqa: S311  # spreads attempts, guards nothing
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
                had = self._taken(urgent=urgent)
            yield had
        finally:
            if had:
                # It runs out by itself; an error here must not hide that of the attempt.
                with suppress(StorageError):
                    self._pool.read(self._leave, (self._holder,))

    def _taken(self, *, urgent: bool) -> bool:
        asking = _HOLD_BACK_US if urgent else 0
        return self._pool.read(self._take, (self._holder, _HOLD_US, asking)).changed == 1

    def heard(self, asked_us: int) -> None:
        """For how long newcomers are asked to hold back, as a position read has told."""
        self._asked_until = time.monotonic() + asked_us / 1_000_000 if asked_us > 0 else 0.0

    def make_way(self) -> None:
        """See `agentmem.engines.base.Engine.make_way`; goes by what was heard last."""
        while time.monotonic() < self._asked_until:
            time.sleep(_STEP_S)
            rows = self._pool.read(self._asked)
            self.heard(min(rows[0][0], _HOLD_BACK_US) if rows else 0)
