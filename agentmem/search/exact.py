"""Looking at every vector: as often as it must be, and each time at fewer."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

import numpy as np

from agentmem.search.vectors import similarities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentmem.search.live import Rows
    from agentmem.search.vectors import Vector

__all__ = ["ExactVectors"]

_GROUP: Final = 32
_VALID: Final = -2.0  # rows that are not valid are said to be less similar than this
_LEAST: Final = -8.0  # less than anything is said to be
_FEW: Final = 64  # more than asked for: for these, to sort out with 32 bits pays no more
_MANY: Final = 8  # one row in so many is as long to look at alone as all are


def _least_of_best(near: Vector, depth: int) -> float:
    """A number that at least so many reach, and not many more.

    The best of so many groups are so many entries: so the worst of these will do, and the groups
    need not be sorted inside. Groups are columns: NumPy finds the largest of each several at a
    time (3 µs for 10,000, against 27 if they were rows).
    """
    groups = len(near) // _GROUP
    if depth > groups // 4:
        return float(np.partition(near, len(near) - depth)[len(near) - depth])
    # As `max` and `np.partition` do, without what stands around them.
    best = np.maximum.reduce(near[: groups * _GROUP].reshape(_GROUP, groups), axis=0)
    best.partition(groups - depth)
    return float(best[groups - depth])


class ExactVectors:
    """See `VectorSource`: looks at every vector.

    Up to three times, each time more exactly, and only at those that can still be among the
    nearest: with eight bits a number (if there are many), with 32, and at last with 64.
    """

    def __init__(self, rows: Rows, query: Vector, *, in_memory: bool = True) -> None:
        self._rows = rows
        self._query = query
        self._glance: tuple[Vector, float] | None = None  # about, and how far off that can be
        self._near: Vector | None = None
        # What float32 sums can be off by.
        self._off = float(np.finfo(np.float32).eps) * len(query) / 2
        self.in_memory = in_memory
        self.scores: dict[int, float] = {}
        self.complete = not len(rows)
        self.bound = -1.0 if self.complete else 1.0

    def extend(self, depth: int) -> None:
        if self.complete:
            return
        rows, query = self._rows, self._query
        positions, self.bound = self._at_a_glance(depth)
        if positions is None:
            if self._near is None:
                self._near = rows.near(query)
            positions = self._candidates(self._near, depth)
            self.complete = self.bound < _VALID
            rest = rows.directions(positions)
        else:
            rest = rows.directions(positions)
            if len(positions) > _FEW + depth:
                left = self._candidates(rest @ query, depth)
                positions, rest = positions[left], rest[left]
        if self.complete:
            self.bound = -1.0
        exact: list[float] = similarities(rest, query).tolist()
        ids: list[int] = rows.ids[positions].tolist()
        found = zip(ids, exact, strict=True)
        if len(exact) > depth and not self.complete:
            # Whoever is below the last of so many needs not be read.
            ordered = sorted(exact)
            last = ordered[-depth]
            below = bisect_left(ordered, last)
            if below:
                self.bound = max(self.bound, ordered[below - 1])
            self.scores = {id: near for id, near in found if near >= last}
        else:
            self.scores = dict(found)

    def _candidates(self, near: Vector, depth: int) -> NDArray[np.int64]:
        """The places of those that can be among the nearest, by sums of float32 numbers."""
        least = _LEAST
        if depth < len(near):
            least = _least_of_best(near, depth) - self._off
        self.bound = max(self.bound, least)
        return (near >= max(least - self._off, _VALID)).nonzero()[0]

    def _at_a_glance(self, depth: int) -> tuple[NDArray[np.int64] | None, float]:
        """The places of those that can be among the nearest; no other is more similar than this.

        None: all must be looked at.
        """
        rows = self._rows
        if self._near is not None or depth >= len(rows) or not rows.are_quantized:
            return None, _LEAST
        if self._glance is None:
            self._glance = rows.glance(self._query)
        near, off = self._glance
        least = _least_of_best(near, depth) - off
        positions = (near >= least - off).nonzero()[0]
        if least < _VALID or len(positions) > len(rows) // _MANY:
            return None, _LEAST
        return positions, least

    def of(self, entries: list[int]) -> dict[int, float]:
        return self._rows.of(entries, self._query)
