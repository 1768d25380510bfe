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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentmem import writes
from agentmem.core import Core
from agentmem.engines.rows import (
    CommitRow,
    EntryRow,
    KnownOperation,
    Narrowing,
    Place,
)
from agentmem.errors import (
    AccessDeniedError,
    AgentMemError,
    CompactedError,
    ConflictError,
    FutureRevisionError,
    InvalidValueError,
    RevisionError,
)
from agentmem.history.narrowing import Wanted
from agentmem.history.restoring import add_vectors, check_whole, put_back
from agentmem.history.undoing import Plan, Undo, Undone, planned
from agentmem.marks import field_name, overfull_name
from agentmem.model import Commit, Entry, display_key
from agentmem.provenance import RESTORED
from agentmem.records import commit_from, entry_of
from agentmem.request import Receipt, Request
from agentmem.scope import Scope
from agentmem.single import CommitOptions
from agentmem.values import canonical, check_number, load

__all__ = ["Reversal", "Undo", "Undone", "revert_commit", "revert_key", "undo", "undone_by"]

_ATTEMPTS: Final = 20  # of a plan that goes by keys that are as they should be, and then move
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


def undo(
    core: Core,
    scope: Scope,
    steps: Sequence[Undo],
    options: CommitOptions,
    *,
    what: str,
    request: list[Any],
    marks: dict[str, Any],
    merge: bool = True,
    dry_run: bool = False,
) -> Reversal:
    """Undoes any entries, one a key at most, in one commit.

    Args:
        what: the note of the commit, if the options have none.
        request: JSON that tells this request from others with its op_id.
        marks: goes into the metadata of the commit, so that it can be found.
        merge: let the key's hook or strategy merge what somebody wrote since.
        dry_run: write nothing, and tell what would be done.

    Raises:
        AccessDeniedError: a key may not be written.
        ConflictError: somebody wrote since, and nothing merges it; nothing was written.
    """
    work = _Work(core, scope, options, what, ["undo", request], marks)
    if not dry_run and (known := work.known()) is not None:
        return work.replayed(known)
    return work.undo(steps, merge=merge, dry_run=dry_run)


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
    what, marks = f"revert of revision {revision}", {_REVERTS: revision}
    work = _Work(core, scope, options, what, ["commit", revision], marks)
    if not dry_run and (known := work.known()) is not None:
        return work.replayed(known)
    row, entries = _changes_of(core, scope, revision)
    before = _before(core, row, entries)
    steps = [Undo(entry, before.get((entry.namespace, entry.key))) for entry in entries]
    work.again = lambda: undone_by(core, revision)
    return work.undo(steps, merge=merge, dry_run=dry_run)


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


def undone_by(core: Core, revision: int) -> int | None:
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
    what = f"revert to version {version}"
    work = _Work(core, scope, options, what, ["key", *place, version, ttl_us], {})
    if (known := work.known()) is not None:
        return work.first_entry(known)
    return work.go_back(place, row, ttl_us, merge=merge)


class _Work:
    """One call: the fields of its commit, and how to run it.

    Attributes:
        again: gives the revision that has undone this before; None: none has.
    """

    def __init__(
        self,
        core: Core,
        scope: Scope,
        options: CommitOptions,
        what: str,
        request: list[Any],
        marks: dict[str, Any],
    ) -> None:
        self._core = core
        self._scope = scope
        self._mismatch = options.get("on_mismatch", "error")
        fields = [options.get(name) for name in ("agent", "op_id", "note", "metadata")]
        self._agent, self._op_id, note, metadata = writes.commit_fields(scope, *fields)
        if marks:
            metadata = canonical((load(metadata) if metadata else {}) | marks).decode()
        self._metadata = metadata
        self._note = what if note is None else note
        self._fingerprint = writes.fingerprint("revert", (), request)
        self.again: Callable[[], int | None] | None = None

    def _request(self, plan: Plan) -> Request:
        return Request(
            self._scope,
            self._op_id,
            self._agent,
            0,
            0,
            note=self._note,
            metadata=self._metadata,
            fingerprint=self._fingerprint if self._op_id is not None else None,
            reads=plan.reads,
            writes=plan.writes,
            pinned=False,
            cited=plan.cited,
            undoes=True,
        )

    # An op_id that was used before.

    def known(self) -> Receipt | None:
        """What the op_id did first; None if it is new.

        Raises:
            OperationMismatchError: it did something else.
        """
        if self._op_id is None:
            return None
        row = self._core.engine.operation(self._scope.name, self._op_id)
        if row is None:
            return None
        known = KnownOperation(row.revision, row.fingerprint)
        receipt = Receipt(row.revision, None, [], known=known)
        self._core.check_known(self._request(Plan()), receipt, self._mismatch)
        return receipt

    def replayed(self, receipt: Receipt) -> Reversal:
        """The first result of a known op_id."""
        revision = receipt.revision or 0
        return Reversal(self._core.commit_by(revision, self._scope, replayed=True), ())

    def first_entry(self, receipt: Receipt) -> Entry[Any] | None:
        """The entry that a known op_id wrote; None if it wrote none."""
        commit = self._core.commit_row(receipt.revision or 0)
        rows = self._core.engine.commit_entries([commit])
        return entry_of(rows[0], self._scope) if rows else None

    # Commits.

    def undo(self, steps: Sequence[Undo], *, merge: bool, dry_run: bool) -> Reversal:
        """See the function of that name."""
        for step in steps:
            self._scope.check(step.place, "write")
        for left in reversed(range(_ATTEMPTS)):
            plan = planned(self._core, self._scope, steps, merge=merge)
            if plan.stale and self.again is not None and (other := self.again()) is not None:
                if not dry_run and (known := self.known()) is not None:
                    return self.replayed(known)  # the same call, made twice at once
                raise InvalidValueError(
                    f"revision {other} has undone this already; undoing it twice would take off "
                    f"what others wrote. To have it back, undo revision {other}"
                )
            if dry_run:
                return Reversal(None, tuple(plan.foreseen()))
            request = self._request(plan)
            request.record = not left or not plan.reads
            try:
                receipt = self._core.run(request)
            except ConflictError as error:
                if left and all(conflict.kind == "read" for conflict in error.conflicts):
                    continue  # what was as it should be has moved: look again
                raise _conflict(error) from error
            if receipt.known is not None:
                self._core.check_known(request, receipt, self._mismatch)
                return self.replayed(receipt)
            commit = None
            if receipt.revision is not None:
                commit = commit_from(request, receipt, self._scope)
            return Reversal(commit, tuple(plan.done(receipt)))
        raise AgentMemError("unreachable: the last attempt returns or raises")

    # One key.

    def go_back(
        self, place: Place, row: EntryRow | None, ttl_us: int | None, *, merge: bool
    ) -> Entry[Any] | None:
        """Makes a key what it was in an entry; see `revert_key`."""
        core = self._core
        if row is not None:
            check_whole(row, self._scope)
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
        if plan.writes or self._op_id is not None:
            request = self._request(plan)
            receipt = core.run(request)
            if receipt.known is not None:
                core.check_known(request, receipt, self._mismatch)
                return self.first_entry(receipt)
            if receipt.rows:
                return entry_of(receipt.rows[0], self._scope)
        return entry_of(current, self._scope) if current is not None else None


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
