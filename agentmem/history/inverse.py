"""Undoing an atomic operation after which others have followed.

Atomic operations never conflict when they are done, so neither does undoing one, as long as what
came after it is of the same kind: the amount is taken off again, the items are taken out::

    base    [a, b]        what the operation left: it had appended b
    theirs  [a, b, c]     somebody appended c
    ours    [a]           what was there before
    result  [a, c]

A hook or strategy that the key has comes first; this is asked where there is none.
"""

from __future__ import annotations

from typing import Any, Final

from agentmem.engines.rows import (
    EntryRow,
)
from agentmem.merge.builtin import counter
from agentmem.merge.json_merge import json
from agentmem.merge.registry import Match
from agentmem.merge.strategy import Outcome, Strategy, Unmergeable, same
from agentmem.model import DELETE
from agentmem.operations import ADD_TO_SET, APPEND, INCREMENT, PATCH, start_of
from agentmem.values import load

__all__ = ["inverse_of", "inverse_of_operation"]

_NAME: Final = "undo"
_OPERATIONS: Final = {int: INCREMENT, float: INCREMENT, list: APPEND, dict: PATCH}


def inverse_of(row: EntryRow) -> Match | None:
    """What undoes the operation of an entry among others of its kind; None: nothing does."""
    operation = row.operation
    if row.merged == _NAME:
        # Undoing was merged in this way, and is now undone: as the operation that fits its value.
        kind = type(load(row.value or "null"))
        operation = _OPERATIONS.get(kind, operation)
    return _INVERSES.get(operation)


def inverse_of_operation(operation: int) -> Match | None:
    """What takes something out from under an atomic operation; None: it is none."""
    return _INVERSES.get(operation)


def _decide(operation: int, base: Any, theirs: Any, ours: Any) -> Outcome:
    if same(base, theirs):
        return Outcome(ours)
    if theirs is DELETE:
        raise Unmergeable("it was deleted since")
    # The operation had made the key, and others have used it: it stays.
    before = start_of(operation) if ours is DELETE else ours
    if operation == INCREMENT:
        return counter.resolve_values(base, theirs, before)
    if operation == PATCH:
        return json.resolve_values(base, theirs, before)
    return Outcome(_without(base, theirs, before))


def _without(base: Any, theirs: Any, before: Any) -> list[Any]:
    if not all(isinstance(value, list) for value in (base, theirs, before)):
        raise Unmergeable("it is no list any more")
    if not same(theirs[: len(base)], base):
        raise Unmergeable("the list was not only added to since")
    return [*before, *theirs[len(base) :]]


def _match(operation: int) -> Match:
    strategy = Strategy(
        _NAME, f'"{_NAME}"', lambda base, theirs, ours: _decide(operation, base, theirs, ours)
    )
    return Match(_NAME, strategy, strategy)


_INVERSES: Final = {
    operation: _match(operation) for operation in (INCREMENT, APPEND, ADD_TO_SET, PATCH)
}
