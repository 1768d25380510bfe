"""``audit.diff_revisions``: every key that differs between two states of the store.

What is compared are the two states, not what happened between them: a key that changed and changed
back, or that was written again with an equal value, does not differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from agentmem.core import Core
from agentmem.engines.base import (
    check_floor,
)
from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
)
from agentmem.history.diff import Difference, differences
from agentmem.model import MISSING, Entry, display_key
from agentmem.namespaces import encode
from agentmem.records import entry_of
from agentmem.scope import Scope
from agentmem.snapshot import resolve_at
from agentmem.values import load
from agentmem.views import Query

__all__ = ["KeyDifference", "between"]

_FEW: Final = 20_000  # entries between the two; their keys are found first, and sorted
_PAGE: Final = 64  # keys whose values are in memory at a time
_KEYS: Final = 1_000  # keys that are looked for at a time

View = tuple[int, int]
"""(revision, instant)."""


@dataclass(frozen=True, slots=True, repr=False)
class KeyDifference:
    """A key that differs between two revisions.

    Attributes:
        namespace: labels.
        key: the key.
        before: its entry in the first state; None: it was absent.
        after: its entry in the second state; None: it is absent.
        differences: path by path, as `Audit.diff` gives them.
    """

    namespace: tuple[str, ...]
    key: str
    before: Entry[Any] | None
    after: Entry[Any] | None
    differences: tuple[Difference, ...]

    __module__ = "agentmem"

    def __repr__(self) -> str:
        versions = [0 if each is None else each.version for each in (self.before, self.after)]
        name = display_key(self.namespace, self.key)
        return (
            f"KeyDifference({name!r}, {versions[0]} -> {versions[1]}, "
            f"paths={len(self.differences)})"
        )


def between(
    core: Core, scope: Scope, ends: tuple[object, object], namespace: object, after: object
) -> Iterator[KeyDifference]:
    """See `Audit.diff_revisions`. The arguments are checked at once, the rest is lazy."""
    before, then = (resolve_at(core, scope, at) for at in ends)
    query = Query.parse(scope, namespace, None, None, None, after, track=False)
    allowed = scope.readable(query.labels)
    within = Range(encode(query.labels), after=query.after)
    return _differing(core, scope, (before, then), within, allowed)


def _differing(
    core: Core,
    scope: Scope,
    views: tuple[View, View],
    within: Range,
    allowed: Callable[[Place], bool] | None,
) -> Iterator[KeyDifference]:
    first, last = sorted(views)
    for places in _pages(core, first, last, within):
        seen = [place for place in places if allowed is None or allowed(place)]
        for start in range(0, len(seen), _PAGE):
            page = seen[start : start + _PAGE]
            before, after = (_visible(core, page, view) for view in views)
            for place in page:
                found = _compared(scope, before.get(place), after.get(place))
                if found is not None:
                    yield found


def _visible(core: Core, places: list[Place], view: View) -> dict[Place, EntryRow]:
    revision, instant = view
    rows = core.engine.points(places, revision)
    return {(row.namespace, row.key): row for row in rows if row.visible_at(instant)}


def _compared(
    scope: Scope, before: EntryRow | None, after: EntryRow | None
) -> KeyDifference | None:
    row = before if after is None else after
    if row is None or (before is not None and after is not None and before.value == after.value):
        return None
    sides = [MISSING if each is None else load(each.value or "null") for each in (before, after)]
    return KeyDifference(
        scope.relative(row.namespace),
        row.key,
        None if before is None else entry_of(before, scope),
        None if after is None else entry_of(after, scope),
        tuple(differences(*sides)),
    )


def _pages(core: Core, first: View, last: View, within: Range) -> Iterator[list[Place]]:
    """Keys that may differ, in order; a superset of those that do."""
    engine = core.engine
    expired = (first[1], last[1])
    ends = [_last_entry_id(core, view[0]) for view in (first, last)]
    if ends[1] - ends[0] <= _FEW:
        places = engine.changed_between(ends[0], ends[1], within, expired, _FEW + 1)
        if len(places) <= _FEW:
            # What was compacted meanwhile was not found.
            check_floor(first[0], engine.floor())
            yield places
            return
    while places := engine.changed_keys(first[0], within, expired, _KEYS):
        check_floor(first[0], engine.floor())
        yield places
        within = replace(within, after=places[-1])


def _last_entry_id(core: Core, revision: int) -> int:
    position = core.engine.position_at(revision)
    assert position is not None, "commits are never deleted"
    return position.last_entry_id
