"""Which lines of two texts are the same line: what a diff, and so the strategy `text`, rests on.

Source of the method: patience diff (Bram Cohen, 2005; Bazaar merges with it). Lines that stand
once in both texts are the anchors, in their longest common order; the gaps between them are
matched the same way, and a gap without anchors by the longest common subsequence::

    a  {  x  }  {  y  }               x and y stand once in both: anchors
    b  {  x  }  {  n  }  {  y  }      the braces are matched from the anchors outwards

The matcher of the standard library was no choice: on repeated lines it takes cubic time
(measured: 21 s for 1,400 lines of "a" and "b"), and a merge may run under the store's lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["LineMatcher"]

# What one matching may cost: lines looked at, and cells of the table of a gap. What is left
# unmatched then counts as changed, so that more is a conflict, and nothing is merged wrongly.
_MAX_STEPS: Final = 500_000
_MAX_STEPS_PER_LINE: Final = 16

_Pair = tuple[int, int]


class LineMatcher:
    """What `merge3` needs of a ``difflib.SequenceMatcher``."""

    def __init__(self, isjunk: None, a: Sequence[str], b: Sequence[str]) -> None:
        self._a, self._b = a, b

    def get_matching_blocks(self) -> list[tuple[int, int, int]]:
        """Blocks (i, j, n) with ``a[i:i+n] == b[j:j+n]``, ascending; the last has n = 0."""
        blocks: list[tuple[int, int, int]] = []
        for i, j in sorted(_matched(self._a, self._b)):
            if blocks and (i, j) == (blocks[-1][0] + blocks[-1][2], blocks[-1][1] + blocks[-1][2]):
                blocks[-1] = (*blocks[-1][:2], blocks[-1][2] + 1)
            else:
                blocks.append((i, j, 1))
        return [*blocks, (len(self._a), len(self._b), 0)]


def _matched(a: Sequence[str], b: Sequence[str]) -> Iterator[_Pair]:
    """Pairs (i, j) of equal lines, no two of which cross; in no order."""
    steps = _MAX_STEPS + _MAX_STEPS_PER_LINE * (len(a) + len(b))
    gaps = [(0, len(a), 0, len(b))]
    while gaps:
        start_a, end_a, start_b, end_b = gaps.pop()
        steps -= (end_a - start_a) + (end_b - start_b)
        while start_a < end_a and start_b < end_b and a[start_a] == b[start_b]:
            yield start_a, start_b
            start_a, start_b = start_a + 1, start_b + 1
        while start_a < end_a and start_b < end_b and a[end_a - 1] == b[end_b - 1]:
            end_a, end_b = end_a - 1, end_b - 1
            yield end_a, end_b
        if start_a == end_a or start_b == end_b or steps <= 0:
            continue
        inside_a, inside_b = a[start_a:end_a], b[start_b:end_b]
        if anchors := _anchors(inside_a, inside_b):
            before = (start_a - 1, start_b - 1)
            for anchor in [*anchors, (len(inside_a), len(inside_b))]:
                i, j = start_a + anchor[0], start_b + anchor[1]
                gaps.append((before[0] + 1, i, before[1] + 1, j))
                before = (i, j)
            yield from ((start_a + i, start_b + j) for i, j in anchors)
        elif (cells := len(inside_a) * len(inside_b)) <= steps:
            steps -= cells
            for i, j in _longest_common(inside_a, inside_b):
                yield start_a + i, start_b + j


def _anchors(a: Sequence[str], b: Sequence[str]) -> list[_Pair]:
    """The longest ascending chain of the lines that stand once in both."""
    where_b = _unique(b)
    pairs = [(i, where_b[line]) for line, i in _unique(a).items() if line in where_b]
    # Longest increasing subsequence by patience sorting: piles[n] is the lowest end of a chain
    # of n + 1 pairs that was found so far.
    piles: list[int] = []
    tops: list[int] = []
    previous: list[int] = []
    for index, (_, j) in enumerate(pairs):
        pile = bisect_left(piles, j)
        previous.append(tops[pile - 1] if pile else -1)
        piles[pile : pile + 1] = [j]
        tops[pile : pile + 1] = [index]
    chain = []
    index = tops[-1] if tops else -1
    while index >= 0:
        chain.append(pairs[index])
        index = previous[index]
    return chain[::-1]


def _unique(lines: Sequence[str]) -> dict[str, int]:
    """The lines that stand once, in order, and where."""
    seen: set[str] = set()
    unique: dict[str, int] = {}
    for index, line in enumerate(lines):
        if line in seen:
            unique.pop(line, None)
        else:
            seen.add(line)
            unique[line] = index
    return unique


def _longest_common(a: Sequence[str], b: Sequence[str]) -> Iterator[_Pair]:
    """A longest common subsequence, by the usual table of the lengths of common ends."""
    table = [[0] * (len(b) + 1)]
    for line in reversed(a):
        below = table[-1]
        row = [0] * (len(b) + 1)
        for j in range(len(b) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if line == b[j] else max(below[j], row[j + 1])
        table.append(row)
    table.reverse()
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            yield i, j
            i, j = i + 1, j + 1
        elif table[i + 1][j] >= table[i][j + 1]:
            i += 1
        else:
            j += 1
