"""``store.audit.revert_derived``: a poisoned entry, and all that came of it, undone in one commit.

Of each key that still contains something derived, what is there now is made what it would be
without: the last clean version, with what innocent atomic operations and merges have added since.
Keys that somebody has written anew since, without having read, are left alone.

Between the plan and the commit somebody may read a spoilt entry and write. So the commit is judged
against what was read since, under the store's lock, and the plan is made again if it must be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from agentmem.core import Core
from agentmem.engines.rows import (
    EntryRow,
    Place,
)
from agentmem.errors import AccessDeniedError, ConflictError, LimitExceededError
from agentmem.history.derivation import held_by, ref_of
from agentmem.history.inverse import inverse_of_operation
from agentmem.history.lineage import Node, nodes_of
from agentmem.history.tainted import Spoilt, spoilt_by
from agentmem.history.undoing import Plan, Undo, Undone, planned
from agentmem.history.undoing_commit import UndoingCommit
from agentmem.merge.registry import Match
from agentmem.merge.strategy import Unmergeable
from agentmem.model import DELETE, MISSING, Commit, display_key
from agentmem.namespaces import decode, encode
from agentmem.provenance import RESTORED, UNDONE
from agentmem.records import commit_from
from agentmem.request import Receipt, Watch
from agentmem.scope import Scope
from agentmem.single import CommitOptions
from agentmem.values import dump, load

__all__ = ["Contamination", "revert_derived"]

_SOURCE: Final = "reverts_derived"  # in the metadata of the commit: [namespace, key, version]
_MAX_SPOILT: Final = 100_000


@dataclass(frozen=True, slots=True, repr=False)
class Contamination:
    """What a poisoned entry has spoilt, and what undoes it: planned, or done.

    Attributes:
        source: the poisoned entry.
        derived: it, and every entry of a transaction that had read what was spoilt, by revision.
        carrying: entries of atomic operations and merges that only took over what was there.
        keys: what becomes of each key with a derived entry, in order of (namespace, key); see
            `Undone`. Besides the outcomes there: ``overwritten`` (somebody who had not read it
            has written the key anew: nothing of it is left, and that stays), ``conflict``
            (somebody wrote into it since, and nothing takes it out again: left as it is, for a
            person), ``lost`` (what was there before was compacted: left as it is).
        commit: that undid it; None for a dry run, or if there was nothing to undo.
        unkept: commits since the poison that had read something that was not kept
            (``provenance=False``), so that nobody knows whether they are derived.
        complete: False if some of the history since the poison was compacted: what was derived
            from what is gone is not found.
    """

    source: Node
    derived: tuple[Node, ...]
    carrying: tuple[Node, ...]
    keys: tuple[Undone, ...]
    commit: Commit | None
    unkept: int
    complete: bool

    __module__ = "agentmem"

    def __repr__(self) -> str:
        return (
            f"Contamination({self.source!r}, derived={len(self.derived)}, keys={len(self.keys)}, "
            f"commit={self.commit!r})"
        )


def revert_derived(
    core: Core,
    scope: Scope,
    root: EntryRow,
    options: CommitOptions,
    *,
    merge: bool,
    dry_run: bool,
) -> Contamination:
    """See `Audit.revert_derived`."""
    return _Cleaning(core, scope, root, options, merge=merge).run(dry_run=dry_run)


@dataclass(slots=True)
class _Plan:
    """What is to be done, as of a revision.

    Attributes:
        undoing: the writes, and what is told of their keys.
        others: what is told of the keys that are left alone, and the version that they have now.
        revision: nothing later was looked at.
    """

    spoilt: Spoilt
    undoing: Plan
    revision: int
    others: dict[Place, Undone] = field(default_factory=dict)

    def leave(self, place: Place, told: Undone) -> None:
        """Leaves a key as it is; if it moves, the plan no longer holds."""
        plan = self.undoing
        plan.writes.pop(place, None)
        plan.keys.pop(place, None)
        plan.cited = [each for each in plan.cited if each[1] != place]
        plan.reads[place] = told.current
        self.others[place] = told


class _Cleaning:
    def __init__(
        self, core: Core, scope: Scope, root: EntryRow, options: CommitOptions, *, merge: bool
    ) -> None:
        self._core = core
        self._scope = scope
        self._root = root
        self._merge = merge
        labels = scope.relative(root.namespace)
        name = display_key(labels, root.key)
        source = [list(labels), root.key, root.version]
        self._commit = UndoingCommit(
            core,
            scope,
            options,
            what=f"revert of all derived from {name} version {root.version}",
            request=("revert derived", source),
            found_by={_SOURCE: source},
        )
        self._refused: set[tuple[Place, int]] = set()  # versions that a hook could not merge

    def run(self, *, dry_run: bool) -> Contamination:
        """Plans, and does it unless it is a dry run."""
        if dry_run:
            return self._told(self._planned(), None, None)
        if (known := self._commit.known()) is not None:
            return self._told(None, self._commit.first(known), None)
        return self._commit.attempted(self._attempt)

    def _attempt(self, last: bool) -> Contamination | None:
        """Plans and does it; None: something moved in between."""
        plan = self._planned()
        if not plan.undoing.writes and self._commit.op_id is None:
            return self._told(plan, None, None)
        watch = Watch(plan.revision, plan.spoilt.met_by)
        request = self._commit.request(plan.undoing, record=last, watch=watch)
        try:
            receipt = self._commit.run(request)
        except ConflictError as error:
            if last:
                raise
            self._refuse(plan, error)
            return None
        if receipt.known is not None:
            return self._told(None, self._commit.first(receipt.known.revision), None)
        commit = commit_from(request, receipt, self._scope) if receipt.revision else None
        return self._told(plan, commit, receipt)

    def _refuse(self, plan: _Plan, error: ConflictError) -> None:
        """Notes the keys that were stale in the plan already, and that nothing could merge."""
        prefix = self._scope.prefix
        for conflict in error.conflicts:
            place = (encode(prefix + conflict.namespace), conflict.key)
            item, _match = plan.undoing.stale.get(place, (None, None))
            if item is not None and item.version == conflict.current_version:
                self._refused.add((place, item.version))

    # What is told.

    def _told(
        self, plan: _Plan | None, commit: Commit | None, receipt: Receipt | None
    ) -> Contamination:
        engine = self._core.engine
        if plan is None:  # the op_id was known
            nodes = nodes_of(engine, self._scope, [self._root])
            return Contamination(nodes[ref_of(self._root)], (), (), (), commit, 0, True)
        undoing = plan.undoing
        told = undoing.done(receipt) if receipt is not None else undoing.foreseen()
        keys = dict(zip(undoing.keys, told, strict=True)) | plan.others
        derived = sorted(plan.spoilt.derived.values(), key=lambda row: row.id)
        nodes = nodes_of(engine, self._scope, [self._root, *derived, *plan.spoilt.carrying])
        return Contamination(
            nodes[ref_of(self._root)],
            tuple(nodes[ref_of(row)] for row in derived),
            tuple(nodes[ref_of(row)] for row in plan.spoilt.carrying),
            tuple(keys[place] for place in sorted(keys)),
            commit,
            engine.unkept(self._root.revision),
            engine.floor() <= self._root.revision,
        )

    # The plan.

    def _planned(self) -> _Plan:
        core = self._core
        position = core.engine.position()
        spoilt, complete = spoilt_by(core.engine, self._root, _MAX_SPOILT)
        if not complete:
            raise LimitExceededError(
                f"more than {_MAX_SPOILT} entries came of it; nothing was written: undo a later "
                "entry first",
                limit=_MAX_SPOILT,
                actual=_MAX_SPOILT + 1,
            )
        by_place = spoilt.by_place()
        for place in by_place:
            if not self._scope.holds(place[0]):
                raise AccessDeniedError(
                    "keys outside of this view were derived from it, too; undo it from a view "
                    "that holds all of them",
                    access="write",
                )
            self._scope.check(place, "write")
        places = list(by_place)
        heads = {
            (row.namespace, row.key): row for row in core.engine.points(places, position.revision)
        }
        steps: list[Undo] = []
        others: dict[Place, tuple[EntryRow, str]] = {}
        for place, derived in by_place.items():
            head = heads.get(place)
            if head is None or ref_of(head) not in spoilt.contains:
                others[place] = (derived[-1], self._outcome(place, derived[-1]))
                continue
            step = self._step(place, head, spoilt)
            if isinstance(step, Undo):
                steps.append(step)
            else:
                others[place] = (derived[-1], step)
        undoing = planned(core, self._scope, steps, merge=self._merge, position=position)
        plan = _Plan(spoilt, undoing, position.revision)
        for place, (last, outcome) in others.items():
            head = heads.get(place)
            there = head if head is not None and head.visible_at(position.now) else None
            plan.leave(place, self._left(last, there, outcome))
        for place, told in zip(list(undoing.keys), list(undoing.foreseen()), strict=True):
            if told.outcome == "conflict" or (place, told.current) in self._refused:
                plan.leave(place, replace(told, outcome="conflict", restored=told.current))
        return plan

    def _left(self, last: EntryRow, there: EntryRow | None, outcome: str) -> Undone:
        version = there.version if there is not None else 0
        agent = there.agent if there is not None else None
        return Undone(
            self._scope.relative(last.namespace), last.key, last.version, version, version, agent,
            outcome,
        )  # fmt: skip

    def _outcome(self, place: Place, last: EntryRow) -> str:
        """Why nothing derived is left in a key."""
        following = self._core.engine.successors([(*place, last.revision)])
        while following:
            row = following[0]
            for read in self._core.engine.reads_by([row.revision]):
                if read.kind in (RESTORED, UNDONE) and (read.namespace, read.key) == place:
                    return "unchanged"
            if held_by(row) is None:
                break
            following = self._core.engine.successors([(*place, row.revision)])
        return "overwritten"

    def _step(self, place: Place, head: EntryRow, spoilt: Spoilt) -> Undo | str:
        """What makes a key clean; or the outcome if nothing does."""
        chain = [head]
        while (before := (*place, chain[-1].version - 1)) in spoilt.contains:
            chain.append(spoilt.rows[before])
        chain.reverse()
        clean: EntryRow | None = None
        if chain[0].version > 1:
            found = self._core.engine.versions([(*before, chain[0].revision)])
            if not found or (found[0].value is None and not found[0].deleted):
                return "lost"
            if found[0].visible_at(chain[0].committed_at):
                clean = found[0]
        at = max(i for i, row in enumerate(chain) if ref_of(row) in spoilt.derived)
        inner = [row for row in chain[:at] if ref_of(row) not in spoilt.derived]
        if inner:
            try:
                clean = self._with_innocent(chain[: at + 1], clean, spoilt)
            except Unmergeable:
                return "conflict"
        versions = tuple(row.version for row in chain if ref_of(row) in spoilt.derived)
        operations = {row.operation for row in chain[at + 1 :] if row.merged is None}
        otherwise = inverse_of_operation(operations.pop()) if len(operations) == 1 else None
        return Undo(chain[at], clean, versions, otherwise)

    def _with_innocent(
        self, chain: Sequence[EntryRow], clean: EntryRow | None, spoilt: Spoilt
    ) -> EntryRow | None:
        """A clean version with what innocent ones among derived ones have added.

        Raises:
            Unmergeable: what they have added cannot be told apart.
        """
        ours: Any = DELETE if clean is None else load(clean.value or "null")
        for before, row in pairwise(chain):
            if ref_of(row) in spoilt.derived:
                continue
            match = self._match(row)
            if match is None or match.strategy is None:
                raise Unmergeable("nothing merges it")
            base = MISSING if before.deleted else load(before.value or "null")
            theirs = DELETE if row.deleted else load(row.value or "null")
            ours = match.strategy.resolve_values(base, theirs, ours).value
        if ours is DELETE:
            return None
        text = dump(ours, self._core.limits)
        start = clean if clean is not None else chain[0]._replace(version=0, expires_at=None)
        # It has no vector yet: no entry has this id.
        return start._replace(id=0, operation=1, value=text, text=None)

    def _match(self, row: EntryRow) -> Match | None:
        if row.merged is None:
            return inverse_of_operation(row.operation)
        stored = self._core.stored_strategies()
        return self._core.registry.match(decode(row.namespace), row.key, stored)
