"""The graph of ``agentmem log --graph``: which commits were made at the same time, and from where.

The log is one line. A commit whose transaction had read an older state than the one right before it
is drawn with a branch: the branch leaves the line at the revision that was read, and runs beside
what was committed meanwhile. Newest first::

    M─┐  9  merged
    *─│─┐  8
    * │ │  7
    *─┘ │  6  what 9 had read
    *───┘  5  what 8 had read

``M`` is a commit in which a strategy or hook has merged something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from agentmem.model import Commit

__all__ = ["drawn", "plain"]

_MAX_BRANCHES: Final = 12  # side by side; of more, only the text tells
# (goes on above, goes on below, goes on to the right)
_BENDS: Final = {
    (True, False, False): "┘",
    (True, False, True): "┴",
    (False, True, False): "┐",
    (False, True, True): "┬",
    (True, True, False): "┤",
    (True, True, True): "┼",
}
_PLAIN: Final = str.maketrans("─│┘┴┐┬┤┼", "-|'+.+++")


def plain(graph: str) -> str:
    """A graph in ASCII."""
    return graph.translate(_PLAIN)


def drawn(commits: Iterable[Commit]) -> Iterator[tuple[str, Commit]]:
    """Commits, newest first, each with its piece of the graph; the pieces differ in length."""
    branches: list[int | None] = []  # the revision that each column's branch begins at
    for commit in commits:
        revision = commit.revision or 0
        # With a filter, the revision itself may not be there: the branch ends at the next one.
        ends = {i for i, base in enumerate(branches) if base is not None and base >= revision}
        above = [base is not None for base in branches]
        for index in ends:
            branches[index] = None
        begins = _begin(branches, commit)
        above += [False] * (len(branches) - len(above))
        yield _line(commit, above, branches, ends | begins), commit
        while branches and branches[-1] is None:
            branches.pop()


def _begin(branches: list[int | None], commit: Commit) -> set[int]:
    """Gives a commit that has one its branch; returns the column."""
    if commit.base_revision >= (commit.revision or 0) - 1:
        return set()
    if None in branches:
        index = branches.index(None)
    elif len(branches) < _MAX_BRANCHES:
        index = len(branches)
        branches.append(None)
    else:
        return set()
    branches[index] = commit.base_revision
    return {index}


def _line(commit: Commit, above: list[bool], branches: list[int | None], bends: set[int]) -> str:
    last = max(bends, default=-1)
    parts = ["M" if commit.merged else "*"]
    for index, (up, base) in enumerate(zip(above, branches, strict=True)):
        down = base is not None
        within = index <= last
        if index in bends:
            sign = _BENDS[up, down, index < last]
        elif up and down:
            sign = "│"
        else:
            sign = "─" if within else " "
        parts.append(("─" if within else " ") + sign)
    return "".join(parts).rstrip()
