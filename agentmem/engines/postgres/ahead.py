"""Committing in one round trip: what a session would be told when it locks the store is guessed.

Whoever commits alone knows what the server would say: the log ends where this process has left it,
and the head of the key is the one it has read or written last. So a session of one key begins
without asking, and its commit is one statement that writes only if all of that is so::

    the log ends with this hash, nothing beside the log has changed since (``store.fence``),
    the key's newest entry is this one, the op_id is new, the commit time is the present

Anything else writes nothing, and the session begins again with the lock, as any other. The guess
decides nothing but the way: what is committed was judged against what the server has found true
under the lock of the store's row.

It does not pay where others commit all the time, so each wrong guess doubles the number of sessions
that do without.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from agentmem.clock import MicrosecondClock
from agentmem.engines.rows import (
    EntryRow,
    Place,
    Position,
    Start,
)

__all__ = ["Ahead", "End"]

_HEADS: Final = 1_024
_MAX_CHARACTERS: Final = 4_096  # of the value and text of a head that is kept
_MAX_PATIENCE: Final = 64
# What was heard longer ago is not gone by. A connection that has been silent for as long may be
# dead, and a read shows that without leaving open what has become of a commit.
_FRESH_NS: Final = 5_000_000_000


class End(NamedTuple):
    """The end of the log, with what of the store's row commits are judged by."""

    revision: int
    committed_at: int
    hash: bytes
    last_entry_id: int
    floor: int
    fence: int


class Ahead:
    """What one process knows of a store's present. Safe for many threads.

    All of it is checked by the server before it counts, so nothing here need be true.
    """

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._end: End | None = None
        self._heard_ns = 0
        # The server's clock when its answer came, at the earliest: less ours, that is.
        self._behind_us = 0
        # With the fence under which each was read: what is erased has another one. None: there is
        # one, and it is not kept. What is not here is taken to be a new key.
        self._heads: dict[Place, tuple[int, EntryRow] | None] = {}
        self._patience = 1
        self._waits = 0

    # What the server said.

    def heard(self, end: End, now: int, *, sure: bool = False) -> None:
        """Where the log ends, and the server's clock.

        Args:
            sure: it was said to who holds the store's lock; else it may be old by now.
        """
        at_ns = self._monotonic_ns()
        with self._lock:
            before = self._end
            if sure or before is None or end.revision > before.revision:
                self._end = end
            self._heard_ns = at_ns
            self._behind_us = now - at_ns // 1_000

    def saw(self, place: Place, row: EntryRow | None, fence: int) -> None:
        """The newest entry of a key."""
        with self._lock:
            self._keep(place, row, fence)

    def committed(self, end: End, heads: Mapping[Place, EntryRow | None]) -> None:
        """A commit of this process has moved the end of the log.

        Args:
            heads: the new ones; None for one that is not to be kept.
        """
        with self._lock:
            self._end = end
            self._heard_ns = self._monotonic_ns()
            for place, row in heads.items():
                if row is not None:
                    self._keep(place, row, end.fence)
                else:
                    self._put(place, None)

    def forget(self) -> None:
        """Something beside the log has changed."""
        with self._lock:
            self._end = None

    def _keep(self, place: Place, row: EntryRow | None, fence: int) -> None:
        if row is None:
            self._heads.pop(place, None)
        elif len(row.value or "") + len(row.text or "") > _MAX_CHARACTERS:
            self._put(place, None)
        else:
            self._put(place, (fence, row))

    def _put(self, place: Place, known: tuple[int, EntryRow] | None) -> None:
        self._heads.pop(place, None)
        self._heads[place] = known
        while len(self._heads) > _HEADS:
            del self._heads[next(iter(self._heads))]

    # Guesses.

    def guess(
        self,
        places: Sequence[Place],
        operations: Sequence[tuple[str, str]],
        clock: MicrosecondClock | None,
    ) -> tuple[Start, End] | None:
        """What a session would find; None: it had better ask.

        Args:
            clock: if given, in place of the server's.
        """
        if len(places) != 1 or len(operations) > 1:
            return None
        place = places[0]
        with self._lock:
            end, at_ns = self._end, self._monotonic_ns()
            if end is None or at_ns - self._heard_ns > _FRESH_NS:
                return None
            if self._waits:
                self._waits -= 1
                return None
            known = self._heads.get(place, (end.fence, None))
            if known is None or known[0] != end.fence:
                return None
            head = known[1]
            now = self._behind_us + at_ns // 1_000
        if clock is not None:
            now = clock()
        position = Position(*end[:4], max(now, end.committed_at))
        return Start(position, {place: head}, {}), end

    def hit(self, now: int) -> None:
        """A guess was right; with the server's clock."""
        self._patience = 1
        self._behind_us = now - self._monotonic_ns() // 1_000

    def missed(self) -> None:
        """A guess was wrong, or of no use: others go without for a while."""
        with self._lock:
            self._end = None
            self._waits = self._patience
            self._patience = min(_MAX_PATIENCE, 2 * self._patience)
