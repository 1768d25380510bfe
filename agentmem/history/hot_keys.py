"""Keys that many write at once: how often that fails, and what would help, from what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from agentmem.core import Core
from agentmem.engines.rows import (
    ConflictRow,
    EntryRow,
    Place,
)
from agentmem.history.diff import differences
from agentmem.scope import Scope
from agentmem.values import MAX_INT, load

__all__ = ["HotKeys"]

_CONFLICTS: Final = 3  # fewer are chance
_RATE: Final = 0.1
_LOOKED_AT: Final = 20  # versions
_FAILED: Final = ("retried", "rejected", "repaired")
_LONG: Final = 20  # commits of others between what a transaction reads and its commit
_STATES: Final = 8  # a path with at most so many values, short texts, is a state


@dataclass(slots=True)
class _Key:
    writes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    agents: dict[str | None, None] = field(default_factory=dict)
    revisions: list[int] = field(default_factory=list)


class HotKeys:
    """Counts writes and conflicts, key by key."""

    @dataclass(frozen=True, slots=True)
    class Found:
        """A hot key. Its figures are those of `Race.figures`."""

        place: Place
        agents: Sequence[str | None]
        revisions: Sequence[int]
        figures: dict[str, float]
        advice: str

    def __init__(self, core: Core, scope: Scope) -> None:
        self._core = core
        self._scope = scope
        self._keys: dict[Place, _Key] = {}

    def written(self, row: EntryRow) -> None:
        """An entry was committed."""
        key = self._key((row.namespace, row.key))
        key.writes += 1
        key.agents[row.agent] = None
        key.revisions = [*key.revisions[-1:], row.revision]

    def met(self, row: ConflictRow) -> None:
        """A conflict is on record."""
        key = self._key((row.namespace, row.key))
        key.counts[row.status] = key.counts.get(row.status, 0) + 1
        if row.status in _FAILED:
            key.kinds[row.kind] = key.kinds.get(row.kind, 0) + 1
        key.agents[row.agent] = None

    def _key(self, place: Place) -> _Key:
        return self._keys.setdefault(place, _Key())

    def found(self) -> Iterator[Found]:
        """The hot keys, hottest first."""
        hot: list[tuple[int, Place, dict[str, float]]] = []
        for place, key in self._keys.items():
            failed = sum(key.counts.get(status, 0) for status in _FAILED)
            attempts = key.writes + failed
            if failed < _CONFLICTS or failed < _RATE * attempts:
                continue
            retried = key.counts.get("retried", 0)
            figures = {
                "writes": key.writes,
                "conflicts": failed,
                "retried": retried,
                "merged": key.counts.get("merged", 0),
                "conflict_rate": failed / attempts,
                "retry_rate": retried / attempts,
            }
            hot.append((failed, place, figures))
        for _failed, place, figures in sorted(hot, key=lambda each: (-each[0], each[1])):
            key = self._keys[place]
            advice = self._advice(place, key)
            yield self.Found(place, list(key.agents), key.revisions, figures, advice)

    def _advice(self, place: Place, key: _Key) -> str:
        rows = self._core.engine.history(place, 0, MAX_INT, _LOOKED_AT)
        values = [load(row.value) for row in reversed(rows) if row.value is not None]
        if key.kinds.get("write", 0) * 2 < sum(key.kinds.values()):
            return (
                "most of these had only read it: read with track=False what is no more than "
                "context, scan less, or keep what changes often under a key of its own"
            )
        return _of_values(values) or self._of_time(rows)

    def _of_time(self, rows: list[EntryRow]) -> str:
        commits = self._core.engine.commits_of([row.revision for row in rows])
        gaps = [commit.revision - commit.base_revision - 1 for commit in commits]
        if gaps and sum(gaps) > _LONG * len(gaps):
            return (
                "its transactions take long (others commit many times between what they read and "
                'what they write): take a lease around them (lock=["..."] of transact), or make '
                "the slow call first and read afterwards"
            )
        return (
            "the whole value is replaced each time: take a lease around what writes it, "
            "or keep its parts under keys of their own"
        )


def _of_values(values: list[Any]) -> str | None:
    """What would help with values like these, oldest first; None: they do not say."""
    if len(values) < 2:
        return None
    pairs = list(pairwise(values))
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return (
            "it is a number that is counted: store.increment never conflicts; or set_merge(..., "
            '"counter")'
        )
    if all(isinstance(value, list) for value in values):
        if all(after[: len(before)] == before for before, after in pairs):
            return (
                "it is a list that is only added to: store.append (or add_to_set) never conflicts; "
                'or set_merge(..., "append")'
            )
        if all(len(new) < len(old) or new[: len(old)] == old for old, new in pairs):
            return (
                "it is a list that is added to and taken from, as a queue is: store.queue gives "
                "each item to one agent"
            )
        return 'it is a list: set_merge(..., "union") keeps what either side has added'
    if all(isinstance(value, dict) for value in values):
        return _of_objects(pairs)
    return None


def _of_objects(pairs: list[tuple[Any, Any]]) -> str:
    paths = [{each.path for each in differences(before, after)} for before, after in pairs]
    changed = [each for each in paths if each]
    common = set.intersection(*changed) if changed else set()
    if not common:
        return (
            'its writers change different parts of it: set_merge(..., "json") merges them, and '
            "store.patch changes a part without reading the rest"
        )
    if _is_state(common, pairs):
        return (
            "a state in it is what everybody changes, as of a task that is taken: store.queue "
            "gives each task to one agent, a lease keeps the others away"
        )
    return (
        f"all of its writers change {', '.join(sorted(common)[:3])}: keep that under a key of its "
        "own, with an atomic operation or a merge strategy that fits it"
    )


def _is_state(common: set[str], pairs: list[tuple[Any, Any]]) -> bool:
    seen: dict[str, set[str]] = {}
    for before, after in pairs:
        for each in differences(before, after):
            if each.path in common:
                if not isinstance(each.after, str):
                    return False
                seen.setdefault(each.path, set()).add(each.after)
    return any(len(values) <= _STATES and len(values) < len(pairs) for values in seen.values())
