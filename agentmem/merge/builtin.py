"""Strategies for whole values: counter, union, append, maximum, minimum, theirs, ours, escalate.

What they share (no change on one side, deletes) is in `agentmem.merge.strategy`: the functions
here see only what both sides have changed to a value. Counter, union, maximum and minimum
commute: it does not matter who came first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from agentmem.merge.strategy import (
    Outcome,
    Strategy,
    Unmergeable,
    kind_of,
    same,
    three_way,
)
from agentmem.model import MISSING
from agentmem.values import canonical

__all__ = ["append", "counter", "escalate", "maximum", "minimum", "ours", "theirs", "union"]

_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**63 - 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _expect(accepts: Callable[[Any], bool], wanted: str, **values: Any) -> None:
    """Refuses the merge if a value is of the wrong type; the names of the sides are the keys."""
    for side, value in values.items():
        if not accepts(value):
            raise Unmergeable(f"{side} is {kind_of(value)}, not {wanted}")


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _counter(base: Any, theirs: Any, ours: Any) -> int | float:
    """``theirs + ours - base``: both differences are kept. An absent base counts as 0."""
    before = 0 if base is MISSING else base
    _expect(_is_number, "a number", base=before, theirs=theirs, ours=ours)
    if isinstance(before, int) and isinstance(theirs, int) and isinstance(ours, int):
        total = theirs + ours - before
        if not _MIN_INTEGER <= total <= _MAX_INTEGER:
            raise Unmergeable("the sum does not fit in 64 bits")
        return total
    try:
        # Rounded once, so that 0.1 + 0.2 - 0.1 is 0.2, and in the one order for both sides.
        return math.fsum(sorted((theirs, ours, -before)))
    except OverflowError:
        raise Unmergeable("the sum does not fit in 64 bits") from None


def _union(base: Any, theirs: Any, ours: Any) -> list[Any]:
    """A three-way merge of sets that are kept as lists.

    First the elements of base that both sides kept, in the order of base, then what either
    side added, sorted by canonical JSON text. No duplicates::

        base  [a, b, c]
        theirs [a, c, z]       removed b, added z
        ours  [a, b, c, d]     added d
        result [a, c, d, z]
    """
    before = [] if base is MISSING else base
    _expect(_is_list, "a list", base=before, theirs=theirs, ours=ours)
    old, left, right = (
        {canonical(element): element for element in elements} for elements in (before, theirs, ours)
    )
    kept = [element for text, element in old.items() if text in left and text in right]
    added = {text: element for text, element in (left | right).items() if text not in old}
    return kept + [added[text] for text in sorted(added)]


def _append(base: Any, theirs: Any, ours: Any) -> list[Any]:
    """What we put at the end of base is put at the end of theirs, as often as it was appended."""
    before = [] if base is MISSING else base
    _expect(_is_list, "a list", base=before, theirs=theirs, ours=ours)
    if not same(ours[: len(before)], before):
        raise Unmergeable("ours changed or removed elements of base; it may only append to it")
    return [*theirs, *ours[len(before) :]]


def _ordered(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """The smaller and the larger. Of equal numbers (1 and 1.0), by canonical text."""
    numbers = _is_number(theirs) and _is_number(ours)
    if not numbers and not (isinstance(theirs, str) and isinstance(ours, str)):
        raise Unmergeable(
            f"theirs is {kind_of(theirs)} and ours is {kind_of(ours)}; "
            "only two numbers or two strings have an order"
        )
    # Python orders strings by code point, which is the order of their UTF-8 bytes, and
    # compares int with float exactly.
    if theirs == ours:
        smaller, larger = sorted((theirs, ours), key=canonical)
        return smaller, larger
    return (theirs, ours) if theirs < ours else (ours, theirs)


def _minimum(base: Any, theirs: Any, ours: Any) -> Any:
    return _ordered(theirs, ours)[0]


def _maximum(base: Any, theirs: Any, ours: Any) -> Any:
    return _ordered(theirs, ours)[1]


def _take_theirs(base: Any, theirs: Any, ours: Any) -> Outcome:
    return Outcome(theirs, keeps_loser=_dropped(base, ours, theirs))


def _take_ours(base: Any, theirs: Any, ours: Any) -> Outcome:
    return Outcome(ours, keeps_loser=_dropped(base, theirs, ours))


def _park_ours(base: Any, theirs: Any, ours: Any) -> Outcome:
    return Outcome(theirs, parks=_dropped(base, ours, theirs))


def _dropped(base: Any, loser: Any, winner: Any) -> bool:
    """Whether taking the winner loses a change: not if the loser changed nothing, or agrees."""
    return not same(loser, winner) and not same(loser, base)


counter: Final = three_way("counter", _counter, agrees=False)
"""Numbers that are added to: ``theirs + ours - base``."""

union: Final = three_way("union", _union, agrees=True)
"""Lists that are sets: additions and removals of both sides."""

append: Final = three_way("append", _append, agrees=False)
"""Lists that only grow: both ends, theirs first. The same item twice is two items."""

maximum: Final = three_way("maximum", _maximum, agrees=True)
"""The larger of two numbers or strings."""

minimum: Final = three_way("minimum", _minimum, agrees=True)
"""The smaller of two numbers or strings."""

theirs: Final = Strategy("theirs", '"theirs"', _take_theirs, keeps_loser=True)
"""What is there stays; ours is dropped and stays on record."""

ours: Final = Strategy("ours", '"ours"', _take_ours, keeps_loser=True)
"""Ours replaces what is there, which stays on record (and in the history)."""

escalate: Final = Strategy("escalate", '"escalate"', _park_ours, parks=True)
"""What is there stays; ours is parked as an open conflict for a person."""
