"""Where in the log to look: the blocks that have all the names asked for.

Each filter of `Store.log` becomes a need: a few names of which a block must have one (see
`agentmem.marks`). The blocks that satisfy all needs are found by going from one list to the next,
each time to where the last one is::

    needs      ann    7  6           2  1  0
               team      6  5  4  3  2           both: 6, then 2; 5, 4 and 3 are jumped over
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    CommitRow,
    Narrowing,
)
from agentmem.filters import AllOf, Condition, Filter, Node
from agentmem.marks import (
    block_of,
    field_name,
    namespace_name,
    overfull_name,
    revisions_of,
    scope_name,
    value_name,
)
from agentmem.namespaces import Labels, Pattern, encode
from agentmem.scope import Scope
from agentmem.values import load

__all__ = ["Wanted", "metadata_needs", "view_needs"]

Need = tuple[str, ...]
Span = tuple[int, int]
"""(after, up to)."""

_PAGE: Final = 256  # blocks of a name that are read at once
_MAX_SPANS: Final = 64  # of one statement
_SLICE: Final = 10_000  # revisions of one statement where nothing is marked
_MAX_VALUES: Final = 16  # of an $in that narrow; of more only the field does
_EXACT: Final = 2**53  # up to here an int has a float that equals it


def view_needs(scope: Scope, labels: Labels, *, own: bool) -> list[Need]:
    """What blocks must have to be of interest to a view.

    Args:
        labels: the namespace that is asked for, absolute.
        own: commits of the view itself are asked for, whatever they changed.
    """
    roots = [labels]
    if scope.rules:
        reached = (_root(pattern, scope, labels) for pattern, _level in scope.rules)
        roots = [root for root in reached if root is not None]
    if () in roots:
        return []
    names = [namespace_name(encode(root)) for root in roots]
    if own and scope.name:
        names.append(scope_name(scope.name))
    return [tuple(dict.fromkeys(names))]


def _root(pattern: Pattern, scope: Scope, labels: Labels) -> Labels | None:
    """The namespace that all keys of a rule lie in or below; None: outside of the labels."""
    literal: list[str] = []
    for part in pattern.parts[:-1]:
        if "*" in part:
            break
        literal.append(part)
    root = (*scope.prefix, *literal)
    shared = min(len(root), len(labels))
    if root[:shared] != labels[:shared]:
        return None
    return max(root, labels, key=len)


def metadata_needs(metadata: Mapping[str, str], where: Filter | None) -> list[Need]:
    """What blocks must have for their metadata to pass.

    Args:
        metadata: fields with their values as JSON texts.
    """
    needs: list[Need] = [(value_name(name, load(text)),) for name, text in metadata.items()]
    if where is not None:
        needs += _needs_of(where.root)
    return [(*need, overfull_name()) for need in needs]


def _needs_of(node: Node) -> list[Need]:
    if isinstance(node, AllOf):
        return [need for part in node.parts for need in _needs_of(part)]
    if not isinstance(node, Condition):
        return []
    field, *below = node.path
    if not below and node.operator == "$eq":
        values = _spellings(node.operand)
    elif not below and node.operator == "$in" and len(node.operand) <= _MAX_VALUES:
        values = _all_spellings(node.operand)
    else:
        values = None
    if values is None:
        return [(field_name(field),)]
    return [tuple(value_name(field, value) for value in values)]


def _all_spellings(operands: Sequence[Any]) -> list[Any] | None:
    found: list[Any] = []
    for operand in operands:
        values = _spellings(operand)
        if values is None:
            return None
        found += values
    return found


def _spellings(operand: Any) -> list[Any] | None:
    """The values that equal a scalar; None if they cannot be counted up."""
    if operand is None or isinstance(operand, (bool, str)):
        return [operand]
    if isinstance(operand, (list, dict)) or abs(operand) > _EXACT:
        return None
    if operand != int(operand):
        return [operand]
    whole, real = int(operand), float(operand)
    # -0.0 is written otherwise than 0.0, and equals it.
    return [whole, real] if whole else [whole, real, -real]


class Wanted:
    """The commits of the blocks that satisfy all needs, in order, page by page."""

    def __init__(
        self, engine: Engine, needs: Sequence[Need], narrowing: Narrowing, newest_first: bool
    ) -> None:
        self._engine = engine
        self._needs = [[_Marked(engine, name, newest_first) for name in need] for need in needs]
        self._narrowing = narrowing
        self._newest_first = newest_first

    def pages(self, after: int, upto: int, page: int) -> Iterator[list[CommitRow]]:
        """Commits with ``after`` < revision <= ``upto``, at most `page` of them at a time."""
        for spans in self._spans(after, upto):
            left = spans
            while left:
                rows = self._engine.commits_in(
                    left, self._narrowing, page, newest_first=self._newest_first
                )
                yield rows
                left = self._behind(left, rows[-1].revision) if len(rows) == page else []

    def _behind(self, spans: Sequence[Span], revision: int) -> list[Span]:
        """What of the spans comes after a revision, in the order asked for."""
        if self._newest_first:
            cut = [(after, min(upto, revision - 1)) for after, upto in spans]
        else:
            cut = [(max(after, revision), upto) for after, upto in spans]
        return [(after, upto) for after, upto in cut if after < upto]

    def _spans(self, after: int, upto: int) -> Iterator[list[Span]]:
        if not self._needs:
            yield [(after, upto)]
            return
        marked_after = self._engine.marked_after()
        middle = min(max(marked_after, after), upto)
        parts = [self._marked(middle, upto), self._slices(after, middle)]
        for part in parts if self._newest_first else reversed(parts):
            yield from part

    def _slices(self, after: int, upto: int) -> Iterator[list[Span]]:
        """All of it, in slices: a statement that reads a million commits is no short read."""
        while after < upto:
            if self._newest_first:
                cut = max(after, upto - _SLICE)
                yield [(cut, upto)]
                upto = cut
            else:
                cut = min(upto, after + _SLICE)
                yield [(after, cut)]
                after = cut

    def _marked(self, after: int, upto: int) -> Iterator[list[Span]]:
        """The spans of the blocks, one, then two, then four of them: most callers want few."""
        spans: list[Span] = []
        size = 1
        for block in self._blocks(after, upto):
            first, last = revisions_of(block)
            spans.append((max(first, after), min(last, upto)))
            if len(spans) == size:
                yield spans
                spans, size = [], min(size * 2, _MAX_SPANS)
        if spans:
            yield spans

    def _blocks(self, after: int, upto: int) -> Iterator[int]:
        """The blocks that satisfy all needs."""
        if after >= upto:
            return
        first, last = block_of(after + 1), block_of(upto)
        at, end, step = (last, first, -1) if self._newest_first else (first, last, 1)
        while (end - at) * step >= 0:
            found = [self._next(need, at) for need in self._needs]
            if None in found:
                return
            # The furthest of them: no block before it satisfies all.
            furthest = max((each for each in found if each is not None), key=lambda b: b * step)
            if all(each == furthest for each in found):
                if (end - furthest) * step >= 0:
                    yield furthest
                furthest += step
            at = furthest

    def _next(self, need: Sequence[_Marked], at: int) -> int | None:
        found = [block for each in need if (block := each.next(at)) is not None]
        if not found:
            return None
        return max(found) if self._newest_first else min(found)


class _Marked:
    """The blocks that are marked with one name, in the order asked for."""

    def __init__(self, engine: Engine, name: str, newest_first: bool) -> None:
        self._engine = engine
        self._name = name
        self._newest_first = newest_first
        self._blocks: list[int] = []  # read and not yet passed, the next one last
        self._all = False  # nothing is marked behind those

    def next(self, at: int) -> int | None:
        """The first block at or behind one; None if there is none. Never called for one before."""
        while True:
            while self._blocks:
                block = self._blocks[-1]
                if block <= at if self._newest_first else block >= at:
                    return block
                self._blocks.pop()
            if self._all or at < 0:
                return None
            page = self._engine.blocks(self._name, at, _PAGE, newest_first=self._newest_first)
            self._all = len(page) < _PAGE
            self._blocks = page[::-1]
