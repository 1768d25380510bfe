"""``audit.blame``: which commit last set each path of a value.

The history is read from the newest version on. A path belongs to the newest version whose value
differs there from the version before it::

    version   1                2                3                4
    value     {a: 1, b: 1}     {a: 2, b: 1}     {a: 2, b: 1}     {a: 2, b: 1, c: 0}
              b <- 1           a <- 2                            c <- 4

It is read no further than until every path is explained. How a value came about does not matter:
what a merge took over from another's version stays that version's, and a version that was put back
by undoing is what set its paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agentmem.core import Core
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    OPERATIONS,
    CommitRow,
    EntryRow,
    Narrowing,
    Place,
)
from agentmem.history.diff import path_of
from agentmem.model import MISSING, short, to_datetime
from agentmem.scope import Scope, missing
from agentmem.snapshot import resolve_at
from agentmem.values import canonical, load

__all__ = ["Blame", "blame_of"]

_FIRST_PAGE: Final = 8  # versions; each page is twice as long as the one before
_MAX_PAGE: Final = 256
_PAGE_BYTES: Final = 8 * 1024 * 1024  # of values, about
_COMMITS: Final = 200  # looked up at once


@dataclass(frozen=True, slots=True, repr=False)
class Blame:
    """Who last set one path of a value.

    Attributes:
        path: as that of a `Difference`. Objects and lists have none of their own, but for empty
            ones.
        value: what stands there.
        version: of the key, that set it.
        revision: of that version.
        operation: ``put``, ``increment``, ``append``, ``add_to_set`` or ``patch``.
        merged: the strategy or hook that merged that version with another's, or None.
        agent: who wrote it, or None.
        op_id: of its commit, or None; also if that was made in another scoped view.
        committed_at: when.
        note: of its commit, or None.
        or_earlier: True if the versions before are gone (compacted or purged): it is what that
            version holds, and may have been set before.
    """

    path: str
    value: Any
    version: int
    revision: int
    operation: str
    merged: str | None
    agent: str | None
    op_id: str | None
    committed_at: datetime
    note: str | None
    or_earlier: bool = False

    __module__ = "agentmem"

    def __repr__(self) -> str:
        by = f", agent={self.agent!r}" if self.agent is not None else ""
        earlier = ", or earlier" if self.or_earlier else ""
        return f"Blame({self.path!r}, {short(self.value)}, version={self.version}{by}{earlier})"


def blame_of(core: Core, scope: Scope, place: Place, at: object) -> list[Blame]:
    """See `Audit.blame`."""
    revision, instant = resolve_at(core, scope, at)
    row = core.engine.point(place, revision).row
    if row is None or not row.visible_at(instant):
        raise missing(scope, place)
    walk = _Walk(row)
    for older in _versions(core.engine, place, row):
        if walk.goes_back_to(older):
            break
    walk.end()
    commits = _commits(core.engine, {found.revision for found, _earlier in walk.found.values()})
    return [_blame(leaf, *walk.found[leaf.number], commits, scope) for leaf in walk.leaves]


def _versions(engine: Engine, place: Place, row: EntryRow) -> Iterator[EntryRow]:
    """The versions before one, newest first, in pages that grow, but hold no huge values."""
    page = _FIRST_PAGE
    while True:
        rows = engine.history(place, 0, row.revision - 1, page)
        yield from rows
        if len(rows) < page:
            return
        row = rows[-1]
        longest = max(len(each.value or "") for each in rows)
        page = max(1, min(page * 2, _MAX_PAGE, _PAGE_BYTES // max(longest, 1)))


def _commits(engine: Engine, revisions: set[int]) -> dict[int, CommitRow]:
    spans = [(revision - 1, revision) for revision in sorted(revisions)]
    found: dict[int, CommitRow] = {}
    for start in range(0, len(spans), _COMMITS):
        rows = engine.commits_in(
            spans[start : start + _COMMITS], Narrowing(), _COMMITS, newest_first=False
        )
        found |= {row.revision: row for row in rows}
    return found


def _blame(
    leaf: _Leaf, row: EntryRow, earlier: bool, commits: dict[int, CommitRow], scope: Scope
) -> Blame:
    commit = commits[row.revision]
    own = commit.scope == scope.name or scope.is_root
    return Blame(
        leaf.path,
        leaf.value,
        row.version,
        row.revision,
        OPERATIONS[row.operation],
        row.merged,
        row.agent,
        row.op_id if own else None,
        to_datetime(row.committed_at),
        commit.note,
        earlier,
    )


class _Leaf:
    """A path that has yet to be explained: a scalar, an empty object or an empty list."""

    __slots__ = ("number", "path", "text", "value")

    def __init__(self, number: int, path: str, value: Any) -> None:
        self.number = number
        self.path = path
        self.value = value
        self.text = canonical(value)


class _Walk:
    """From the newest version on, until every path is explained.

    Attributes:
        leaves: of the newest value, in order.
        found: for each leaf's number the version that set it, and whether it may be older.
    """

    def __init__(self, newest: EntryRow) -> None:
        self.leaves: list[_Leaf] = []
        self.found: dict[int, tuple[EntryRow, bool]] = {}
        self._newer = newest
        self._earlier = newest.version > 1
        assert newest.value is not None, "a visible entry has a value"
        self._open: Any = self._tree(load(newest.value), "$")

    def _tree(self, value: Any, path: str) -> Any:
        """The value with a `_Leaf` in place of everything that is no further parted."""
        if isinstance(value, dict) and value:
            return {name: self._tree(value[name], path_of(path, name)) for name in sorted(value)}
        if isinstance(value, list) and value:
            items = enumerate(value)
            return {index: self._tree(item, path_of(path, index)) for index, item in items}
        leaf = _Leaf(len(self.leaves), path, value)
        self.leaves.append(leaf)
        return leaf

    def goes_back_to(self, older: EntryRow) -> bool:
        """Holds the paths against the version before; returns whether nothing is left to find."""
        newer = self._newer
        if older.version != newer.version - 1 or (older.value is None and not older.deleted):
            return True  # what was before is gone
        if not older.visible_at(newer.committed_at):
            self._earlier = False
            return True  # the newer one made the key anew
        if older.value != newer.value:
            assert older.value is not None, "it is visible"
            self._open = self._compare(self._open, load(older.value))
        self._newer = older
        self._earlier = older.version > 1
        return self._open is None

    def _compare(self, left: Any, before: Any) -> Any:
        """What of a tree is as it was before; None if nothing is."""
        if isinstance(left, _Leaf):
            if before is not MISSING and canonical(before) == left.text:
                return left
            self.found[left.number] = (self._newer, False)
            return None
        kept = {}
        for name, part in left.items():
            if (rest := self._compare(part, _inside(before, name))) is not None:
                kept[name] = rest
        return kept or None

    def end(self) -> None:
        """What is left was set by the oldest version that was looked at, or before it."""
        for leaf in self.leaves:
            self.found.setdefault(leaf.number, (self._newer, self._earlier))


def _inside(value: Any, name: str | int) -> Any:
    """What stands under a name or at a position; `MISSING` if there is none."""
    if isinstance(name, str):
        return value.get(name, MISSING) if isinstance(value, dict) else MISSING
    return value[name] if isinstance(value, list) and name < len(value) else MISSING
