"""What undoing entries comes to, key by key, as things stand now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agentmem.core import Core
from agentmem.engines.rows import (
    EntryRow,
    Place,
    Position,
)
from agentmem.history.inverse import inverse_of
from agentmem.history.restoring import add_vectors, check_whole, is_as, put_back
from agentmem.judge import sides
from agentmem.merge.registry import Match
from agentmem.merge.strategy import Unmergeable
from agentmem.model import display_key
from agentmem.namespaces import decode
from agentmem.provenance import RESTORED, UNDONE
from agentmem.request import Receipt, StaleItem, Write
from agentmem.scope import Scope

__all__ = ["Plan", "Undo", "Undone", "planned"]


class Undo(NamedTuple):
    """One key that is to be put back.

    Attributes:
        undone: the entry that is to be undone; the newest, if there are several in a row.
        before: what the key goes back to; None: it was absent.
        versions: all that is undone; empty: that of `undone` alone.
        otherwise: merges it where no hook or strategy does; None: the inverse of `undone`.
    """

    undone: EntryRow
    before: EntryRow | None
    versions: tuple[int, ...] = ()
    otherwise: Match | None = None

    @property
    def place(self) -> Place:
        """The key."""
        return self.undone.namespace, self.undone.key


@dataclass(frozen=True, slots=True, repr=False)
class Undone:
    """What was done, or would be done, to one key.

    Attributes:
        namespace: labels.
        key: the key.
        version: that was undone.
        restored: the version that the key goes back to; 0: it was absent.
        current: the version that was there; 0: the key was absent.
        current_agent: who wrote that.
        outcome: ``undone``, ``merged`` (somebody wrote since, and it was merged with that),
            ``unchanged`` (the key was as before already); of a dry run also ``conflict``
            (somebody wrote since, and nothing merges it).
        strategy: the hook or strategy that merged it; of a dry run the one that would.
    """

    namespace: tuple[str, ...]
    key: str
    version: int
    restored: int
    current: int
    current_agent: str | None
    outcome: str
    strategy: str | None = None

    __module__ = "agentmem"

    def __repr__(self) -> str:
        name = display_key(self.namespace, self.key)
        return f"Undone({name!r}, {self.version} -> {self.restored}, {self.outcome})"


@dataclass(slots=True)
class Plan:
    """What is to be done.

    Attributes:
        writes: of the request.
        reads: versions of the keys that are as they should be.
        keys: what the caller is told of each.
        stale: keys that were written since, with what merges them if anything does.
        cited: what is put back and what is taken out, for `Request.cited`.
    """

    writes: dict[Place, Write] = field(default_factory=dict)
    reads: dict[Place, int] = field(default_factory=dict)
    keys: dict[Place, Undone] = field(default_factory=dict)
    stale: dict[Place, tuple[StaleItem, Match | None]] = field(default_factory=dict)
    cited: list[tuple[int, Place, int]] = field(default_factory=list)

    def foreseen(self) -> Iterator[Undone]:
        """What would become of each key. Built-in strategies are tried, hooks are not run."""
        for place, key in self.keys.items():
            item, match = self.stale.get(place, (None, None))
            if item is None or match is None or not _merges(item, match):
                yield key
            else:
                yield replace(key, outcome="merged", strategy=match.name)

    def done(self, receipt: Receipt) -> Iterator[Undone]:
        """What became of each key, from the entries that were written."""
        merged = {(row.namespace, row.key): row.merged for row in receipt.rows}
        for place, key in self.keys.items():
            strategy = merged.get(place)
            if strategy is not None:
                yield replace(key, outcome="merged", strategy=strategy)
            else:
                yield replace(key, outcome="undone" if place in self.writes else "unchanged")


def _merges(item: StaleItem, match: Match) -> bool:
    assert item.write is not None, "only writes are stale here"
    try:
        if match.strategy is not None:
            match.strategy.resolve_values(*sides(item, item.write))
    except Unmergeable:
        return False
    return True


def planned(
    core: Core,
    scope: Scope,
    steps: Sequence[Undo],
    *,
    merge: bool,
    position: Position | None = None,
) -> Plan:
    """What is to be done to undo entries, against what is there now, or was at a position."""
    position = position or core.engine.position()
    places = [step.place for step in steps]
    rows = core.engine.points(places, position.revision) if places else []
    heads = {(row.namespace, row.key): row for row in rows}
    planner = _Planner(core, scope, position.now, merge)
    for step in steps:
        planner.add(step, heads.get(step.place))
    before = {step.place: step.before for step in steps if step.before is not None}
    add_vectors(core, planner.plan.writes, before)
    return planner.plan


class _Planner:
    def __init__(self, core: Core, scope: Scope, now: int, merge: bool) -> None:
        self.plan = Plan()
        self._core = core
        self._scope = scope
        self._now = now
        self._merge = merge

    def add(self, step: Undo, head: EntryRow | None) -> None:
        """Plans for one key, whose newest entry is given."""
        place, undone, now, plan = step.place, step.undone, self._now, self.plan
        if head is not None and head.version == undone.version:
            undone = head  # its expiry may have moved since it was read
        theirs = head if head is not None and head.visible_at(now) else None
        # As if what is undone had never been: what would have expired since is not brought back.
        ours = step.before if step.before is not None and step.before.visible_at(now) else None
        base = undone.version if undone.visible_at(now) else 0
        current = theirs.version if theirs is not None else 0
        match = self._match(step) if base != current and self._merge else None
        outcome = "undone"
        if is_as(ours, theirs) and match is None:
            plan.reads[place] = current
            outcome = "unchanged"
        else:
            if ours is not None:
                check_whole(ours, self._scope)
            write = put_back(ours, base, now, merge=self._merge)
            write.otherwise = step.otherwise or inverse_of(undone)
            plan.writes[place] = write
            if ours is not None and ours.version:
                plan.cited.append((RESTORED, place, ours.version))
            plan.cited += [
                (UNDONE, place, version) for version in step.versions or (undone.version,)
            ]
            if base != current:
                before = undone if base else None
                item = StaleItem(place, "write", base, current, before, theirs, write)
                plan.stale[place] = (item, match)
                outcome = "conflict"
        plan.keys[place] = Undone(
            self._scope.relative(place[0]),
            place[1],
            undone.version,
            ours.version if ours is not None else 0,
            current,
            theirs.agent if theirs is not None else None,
            outcome,
        )

    def _match(self, step: Undo) -> Match | None:
        """What would merge a key that was written since."""
        stored = self._core.stored_strategies()
        labels = decode(step.place[0])
        match = self._core.registry.match(labels, step.place[1], stored)
        return match or step.otherwise or inverse_of(step.undone)
