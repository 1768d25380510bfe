"""Undoing what commits wrote, in one new commit.

Undoing an entry is a write whose base is that entry and whose value is what was there before it.
So it is judged as any other write: if nobody wrote since, it is put back; if somebody did, the
key's merge hook or strategy merges, or the caller gets a `ConflictError`::

    version   3          4           5
              before     undone      written since, if at all
              = ours     = base      = theirs

The past is not touched: the log keeps what was undone, and undoing is itself undone the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentmem.core import Core
from agentmem.engines.rows import (
    CommitRow,
    EntryRow,
    Narrowing,
    Place,
)
from agentmem.errors import (
    AccessDeniedError,
    CompactedError,
    ConflictError,
    FutureRevisionError,
    InvalidValueError,
    RevisionError,
)
from agentmem.history.narrowing import Wanted
from agentmem.history.restoring import add_vectors, check_whole, put_back
from agentmem.history.undoing import Plan, Undo, Undone, planned
from agentmem.history.undoing_commit import UndoingCommit
from agentmem.marks import field_name, overfull_name
from agentmem.model import Commit, Entry, display_key
from agentmem.provenance import RESTORED
from agentmem.records import commit_from, entry_of
from agentmem.scope import Scope
from agentmem.single import CommitOptions
from agentmem.values import check_number, load

__all__ = ["Reversal", "revert_commit", "revert_key"]

_KIND: Final = "revert"
_PAGE: Final = 200
_NAMED: Final = 5  # keys in a message
_REVERTS: Final = "reverts"  # in the metadata of a commit: the revision that it has undone


@dataclass(frozen=True, slots=True, repr=False)
class Reversal:
    """A commit that undoes, as it is or as it would be.

    Attributes:
        commit: the new commit; None for a dry run, and if there was nothing to do.
        keys: what became of each key, in order of (namespace, key); empty if the op_id was
            known, and the commit is its first.
    """

    commit: Commit | None
    keys: tuple[Undone, ...]

    __module__ = "agentmem"

    def __repr__(self) -> str:
        return f"Reversal({self.commit!r}, keys={len(self.keys)})"


def revert_commit(
    core: Core,
    scope: Scope,
    revision: int,
    options: CommitOptions,
    *,
    merge: bool,
    dry_run: bool,
) -> Reversal:
    """See `Audit.revert_commit`."""
    core.check_open()
    check_number(revision, "revision")
    return _CommitRevert(core, scope, revision, options, merge=merge).run(dry_run=dry_run)


def _changes_of(core: Core, scope: Scope, revision: int) -> tuple[CommitRow, list[EntryRow]]:
    """A commit that the scope may undo, and its entries.

    Raises:
        RevisionError: there is none, or the scope sees nothing of it.
        AccessDeniedError: it reaches beyond the scope.
    """
    current = core.engine.position().revision
    if revision > current:
        raise FutureRevisionError(
            f"revision {revision} is not there yet; the latest is {current}", current=current
        )
    if revision == 0:
        raise InvalidValueError("revision 0 is the empty store: there is no commit to undo")
    row = core.commit_row(revision)
    entries = core.engine.commit_entries([row])
    seen = [
        entry
        for entry in entries
        if scope.holds(entry.namespace) and scope.level((entry.namespace, entry.key)) > 0
    ]
    if not seen and not (row.scope == scope.name or scope.is_root):
        raise RevisionError(f"revision {revision} changed nothing that this view sees")
    if len(seen) < len(entries):
        raise AccessDeniedError(
            f"revision {revision} also changed keys outside of this view; undo it from a view "
            "that holds all of them",
            access="write",
        )
    if len(entries) < row.changes:
        floor = core.engine.floor()
        raise CompactedError(
            f"revision {revision} was compacted, and its changes are gone; the oldest that can "
            f"be read is {floor}",
            floor=floor,
        )
    return row, entries


def _undone_by(core: Core, revision: int) -> int | None:
    """The commit that has undone another, and was not undone itself; None if there is none."""
    undone: dict[int, int] = {}
    needs = [(field_name(_REVERTS), overfull_name())]
    wanted = Wanted(core.engine, needs, Narrowing(texts=(f'"{_REVERTS}":',)), newest_first=True)
    for rows in wanted.pages(revision, core.engine.position().revision, _PAGE):
        for row in rows:
            reverted = load(row.metadata).get(_REVERTS) if row.metadata else None
            # From the newest on: who undid this one is known by now.
            if isinstance(reverted, int) and row.revision not in undone:
                undone[reverted] = row.revision
    return undone.get(revision)


def _before(core: Core, row: CommitRow, entries: list[EntryRow]) -> dict[Place, EntryRow]:
    """What was there when a commit wrote; keys that were absent are left out."""
    places = [(entry.namespace, entry.key) for entry in entries if entry.version > 1]
    rows = core.engine.points(places, row.revision - 1) if places else []
    return {(each.namespace, each.key): each for each in rows if each.visible_at(row.committed_at)}


def revert_key(
    core: Core,
    scope: Scope,
    place: Place,
    row: EntryRow | None,
    options: CommitOptions,
    *,
    merge: bool,
    ttl_us: int | None,
) -> Entry[Any] | None:
    """See `Audit.revert`.

    Args:
        row: the entry to go back to; None: the key becomes absent.
    """
    version = row.version if row is not None else 0
    commit = UndoingCommit(
        core,
        scope,
        options,
        what=f"revert to version {version}",
        request=(_KIND, ["key", *place, version, ttl_us]),
        found_by={},
    )
    if (known := commit.known()) is not None:
        return _first_entry(core, scope, known)
    if row is not None:
        check_whole(row, scope)
        row = None if row.deleted else row
    position = core.engine.position()
    head = core.engine.point(place, None).row
    current = head if head is not None and head.visible_at(position.now) else None
    plan = Plan()
    base = current.version if current is not None else 0
    if base != (row.version if row is not None else 0) or ttl_us is not None:
        write = put_back(row, base, position.now, merge=merge)
        if ttl_us is not None and write.value is not None:
            write.ttl_us, write.expires_at = ttl_us, None
        plan.writes[place] = write
        if row is not None:
            plan.cited.append((RESTORED, place, row.version))
        add_vectors(core, plan.writes, {} if row is None else {place: row})
    if plan.writes or commit.op_id is not None:
        receipt = commit.run(commit.request(plan))
        if receipt.known is not None:
            return _first_entry(core, scope, receipt.known.revision)
        if receipt.rows:
            return entry_of(receipt.rows[0], scope)
    return entry_of(current, scope) if current is not None else None


def _first_entry(core: Core, scope: Scope, revision: int) -> Entry[Any] | None:
    """The entry that a known op_id wrote; None if it wrote none."""
    rows = core.engine.commit_entries([core.commit_row(revision)])
    return entry_of(rows[0], scope) if rows else None


class _CommitRevert:
    def __init__(
        self, core: Core, scope: Scope, revision: int, options: CommitOptions, *, merge: bool
    ) -> None:
        self._core = core
        self._scope = scope
        self._revision = revision
        self._merge = merge
        self._commit = UndoingCommit(
            core,
            scope,
            options,
            what=f"revert of revision {revision}",
            request=(_KIND, ["commit", revision]),
            found_by={_REVERTS: revision},
        )

    def run(self, *, dry_run: bool) -> Reversal:
        """Plans, and does it unless it is a dry run."""
        if not dry_run and (known := self._commit.known()) is not None:
            return self._replayed(known)
        steps = self._steps()
        if dry_run:
            plan, other = self._planned(steps)
            if other is not None:
                raise _twice(other)
            return Reversal(None, tuple(plan.foreseen()))
        return self._commit.attempted(lambda last: self._attempt(steps, last=last))

    def _steps(self) -> list[Undo]:
        row, entries = _changes_of(self._core, self._scope, self._revision)
        before = _before(self._core, row, entries)
        steps = [Undo(entry, before.get((entry.namespace, entry.key))) for entry in entries]
        for step in steps:
            self._scope.check(step.place, "write")
        return steps

    def _planned(self, steps: Sequence[Undo]) -> tuple[Plan, int | None]:
        """What is to be done, and the revision that has done it already."""
        plan = planned(self._core, self._scope, steps, merge=self._merge)
        return plan, _undone_by(self._core, self._revision) if plan.stale else None

    def _attempt(self, steps: Sequence[Undo], *, last: bool) -> Reversal | None:
        """Plans and does it; None: what was as it should be has moved."""
        plan, other = self._planned(steps)
        if other is not None:
            if (known := self._commit.known()) is not None:
                return self._replayed(known)  # the same call, made twice at once
            raise _twice(other)
        request = self._commit.request(plan, record=last or not plan.reads)
        try:
            receipt = self._commit.run(request)
        except ConflictError as error:
            if not last and all(conflict.kind == "read" for conflict in error.conflicts):
                return None
            raise _conflict(error) from error
        if receipt.known is not None:
            return self._replayed(receipt.known.revision)
        commit = None
        if receipt.revision is not None:
            commit = commit_from(request, receipt, self._scope)
        return Reversal(commit, tuple(plan.done(receipt)))

    def _replayed(self, revision: int) -> Reversal:
        return Reversal(self._commit.first(revision), ())


def _twice(revision: int) -> InvalidValueError:
    return InvalidValueError(
        f"revision {revision} has undone this already; undoing it twice would take off "
        f"what others wrote. To have it back, undo revision {revision}"
    )


def _conflict(error: ConflictError) -> ConflictError:
    """The same, in the words of who undoes."""
    names = [
        f"{display_key(conflict.namespace, conflict.key)!r} (now version "
        f"{conflict.current_version}{_by(conflict.theirs_entry)})"
        for conflict in error.conflicts[:_NAMED]
    ]
    more = len(error.conflicts) - len(names)
    rest = f" and {more} more" if more else ""
    return ConflictError(
        f"{', '.join(names)}{rest} changed since, and nothing merges it; nothing was written: "
        "undo the later commits first, put the keys back one by one with store.audit.revert, or "
        "give them a merge strategy",
        conflicts=error.conflicts,
    )


def _by(entry: Entry[Any] | None) -> str:
    return f" by {entry.agent!r}" if entry is not None and entry.agent is not None else ""
