"""``store.audit``: differences, blame, undoing, conflicts, tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Unpack

from agentmem.core import Core
from agentmem.engines.rows import (
    Change,
    ConflictRow,
    EntryRow,
)
from agentmem.errors import ConflictError, InvalidValueError, RevisionError
from agentmem.history.between import KeyDifference, between
from agentmem.history.blame import Blame, blame_of
from agentmem.history.cleaning import Contamination, revert_derived
from agentmem.history.diff import Difference, differences
from agentmem.history.lineage import Direction, Lineage, lineage_of
from agentmem.history.log import entry_row, entry_version
from agentmem.history.races import Race, races_of
from agentmem.history.restoring import check_whole
from agentmem.history.revert import Reversal, revert_commit, revert_key
from agentmem.kept import ours_in
from agentmem.model import MISSING, ConflictRecord, Entry, Tag, display_key, to_datetime
from agentmem.records import conflict_record_of, entry_of
from agentmem.request import Request, StaleItem, Write
from agentmem.scope import Scope, missing
from agentmem.single import CommitOptions
from agentmem.snapshot import resolve_at
from agentmem.values import check_label_text, check_number, dump, load
from agentmem.writes import deletion, ttl_microseconds

__all__ = ["Audit"]

_PAGE: Final = 500
_STATUSES: Final = ("merged", "retried", "rejected", "repaired", "open", "resolved")
_PUT: Final = 1
_RESOLUTIONS: Final = "\x02conflicts"  # no scope is named so: it ends with no terminator


def _no_conflict(id: int, row: ConflictRow | None) -> InvalidValueError:
    if row is None:
        return InvalidValueError(
            f"there is no open conflict {id}; store.audit.conflicts('open') lists them"
        )
    why = f" ({row.note})" if row.note else ""
    return InvalidValueError(
        f"there is no open conflict {id} any more: it was resolved by revision {row.revision}{why}"
    )


class Audit:
    """Asks the log. Made by `Store.audit`; sees what the store or scoped view sees."""

    __module__ = "agentmem"

    def __init__(self, core: Core, scope: Scope) -> None:
        self._core = core
        self._scope = scope

    def diff(self, key: str, a: int, b: int, *, namespace: object = None) -> list[Difference]:
        """What changed in a key from version `a` to version `b`, path by path.

        Version 0 is the absent key. A deleted version compares as absent.

        Raises:
            KeyMissingError: there is no such version.
            InvalidValueError: one of them was purged.
        """
        place = self._scope.place(namespace, key)
        self._scope.check(place, "read")
        sides = []
        for version in (a, b):
            if version == 0:
                sides.append(MISSING)
                continue
            row = entry_row(self._core, self._scope, place, version)
            check_whole(row, self._scope)
            sides.append(MISSING if row.deleted else load(row.value or "null"))
        return differences(*sides)

    def diff_revisions(
        self, a: object, b: object = None, *, namespace: object = None, after: object = None
    ) -> Iterator[KeyDifference]:
        """Every key that differs between two states of the store, path by path.

        The keys come one by one, in order of (namespace, key), and are read as they are asked
        for, so however many there are, few are in memory. A key with an equal value in both
        states does not differ, whatever happened between them.

        Args:
            a, b: each a revision, the name of a tag, or an aware datetime; None is now.
            namespace: only keys in it or below.
            after: only what comes after this (namespace, key), to go on from there.

        Raises:
            FutureRevisionError: a state lies in the future.
            CompactedError: a state can no longer be read; also while it is iterated over.
            RevisionError: there is no such tag.
        """
        return between(self._core, self._scope, (a, b), namespace, after)

    def blame(self, key: str, *, namespace: object = None, at: object = None) -> list[Blame]:
        """Which commit last set each path of a key's value, in order of the paths.

        A path was set by the newest version that differs there from the version before it.
        Lists are compared position by position, as `diff` does. A version that made the key
        anew, after it was deleted or had expired, set all of its paths.

        Args:
            at: whose value is explained: a revision, the name of a tag, or an aware datetime;
                None is now.

        Returns: one `Blame` for each scalar, empty object and empty list in the value. Where
            older versions were compacted or purged, it has ``or_earlier`` set.

        Raises:
            KeyMissingError: the key is absent.
            RevisionError: there is no such moment, or it can no longer be read.
        """
        place = self._scope.place(namespace, key)
        self._scope.check(place, "read")
        return blame_of(self._core, self._scope, place, at)

    def version(self, key: str, version: int, *, namespace: object = None) -> Entry[Any]:
        """One version of a key, tombstones included.

        Raises:
            KeyMissingError: there is no such version.
        """
        place = self._scope.place(namespace, key)
        self._scope.check(place, "read")
        return entry_version(self._core, self._scope, place, version)

    # Undoing.

    def revert(
        self,
        key: str,
        version: int,
        *,
        namespace: object = None,
        merge: bool = True,
        ttl_s: float | None = None,
        **commit: Unpack[CommitOptions],
    ) -> Entry[Any] | None:
        """Puts an older value of a key back, as a new version; the history stays.

        With the value come the text that search sees, and the expiry if that lies ahead; a
        version that has expired lives again for as long as it did then.

        Args:
            version: to go back to; 0 and a version that was deleted make the key absent.
            merge: if another writes at the same moment, let the key's hook or strategy merge.
            ttl_s: seconds to live from now on, in place of the version's own expiry.
            commit: who and why; see `CommitOptions`.

        Returns: the new entry, a tombstone if it deleted the key; what is there if the key is
            at that version already, None if it is absent already.

        Raises:
            KeyMissingError: the key has no such version.
            InvalidValueError: the version was purged.
            ConflictError: another wrote at the same moment, and nothing merges it.
        """
        place = self._scope.place(namespace, key)
        self._scope.check(place, "write")
        row = None
        if version != 0 or isinstance(version, bool):
            row = entry_row(self._core, self._scope, place, version)
        ttl_us = ttl_microseconds(ttl_s)
        return revert_key(self._core, self._scope, place, row, commit, merge=merge, ttl_us=ttl_us)

    def revert_commit(
        self,
        revision: int,
        *,
        merge: bool = True,
        dry_run: bool = False,
        **commit: Unpack[CommitOptions],
    ) -> Reversal:
        """Undoes a commit by a new one: each key goes back to what it was before.

        A key that somebody wrote since is merged as any conflict is: base is what the commit
        wrote, theirs is what is there now, ours is what was there before. Later atomic
        operations of the same kind (another increment, another append) need no strategy.

        Args:
            revision: of the commit.
            merge: let the hook or strategy of a key merge; False: any later write is a conflict.
            dry_run: write nothing, and tell what would be done.
            commit: who and why; see `CommitOptions`.

        Raises:
            ConflictError: a key was written since, and nothing merges it; nothing was written.
            AccessDeniedError: it changed a key outside of this view, or one that may not be
                written.
            RevisionError: there is no such commit, or what it replaced was compacted.
        """
        return revert_commit(
            self._core, self._scope, revision, commit, merge=merge, dry_run=dry_run
        )

    # Provenance.

    def lineage(
        self,
        key: str,
        version: int | None = None,
        *,
        namespace: object = None,
        direction: Direction = "up",
        depth: int | None = None,
        limit: int = 1_000,
    ) -> Lineage:
        """What an entry was derived from, or what was derived from it.

        An entry is derived from what its transaction had read (keys, and what scans and searches
        found), from the version that it replaces or changes knowingly, and, if merged, from what
        it was merged with.

        Args:
            version: of the key; None: the newest.
            direction: ``"up"``: what it was derived from; ``"down"``: all derived from it, across
                keys and agents.
            depth: at most so many steps away; None: to the end.
            limit: at most so many entries.

        Raises:
            KeyMissingError: the key has no such version.
        """
        row = self._version_row(key, version, namespace)
        steps = None if depth is None else check_number(depth, "depth")
        most = max(1, check_number(limit, "limit"))
        return lineage_of(self._core, self._scope, row, direction, steps, most)

    def revert_derived(
        self,
        key: str,
        version: int,
        *,
        namespace: object = None,
        dry_run: bool = True,
        merge: bool = True,
        **commit: Unpack[CommitOptions],
    ) -> Contamination:
        """Undoes a poisoned entry, and all that was derived from it, in one commit.

        Derived is, transitively, what was written by transactions that had read it. Of each of
        these keys, what is there becomes what it would be without: what others have written anew
        since, without having read, stays, and so does what innocent atomic operations (another
        append, another increment) and merges have added.

        Args:
            version: that is poisoned.
            dry_run: write nothing, and tell what would be done (the default).
            merge: let the hook or strategy of a key merge where somebody wrote into it since.
            commit: who and why; see `CommitOptions`.

        Returns: what was found, and what becomes, or became, of each key. What could not be
            taken out cleanly is left as it is, and told.

        Raises:
            KeyMissingError: the key has no such version.
            AccessDeniedError: a derived key may not be written by this view.
            ConflictError: others moved it on, again and again.
            LimitExceededError: more came of it than can be undone at once.
        """
        row = self._version_row(key, version, namespace)
        return revert_derived(self._core, self._scope, row, commit, merge=merge, dry_run=dry_run)

    def _version_row(self, key: str, version: int | None, namespace: object) -> EntryRow:
        place = self._scope.place(namespace, key)
        self._scope.check(place, "read")
        if version is not None:
            return entry_row(self._core, self._scope, place, version)
        self._core.check_open()
        row = self._core.engine.point(place, None).row
        if row is None:
            raise missing(self._scope, place)
        return row

    def races(
        self,
        since: object = None,
        *,
        namespace: object = None,
        fresh_s: float = 3_600.0,
        limit: int = 1_000,
    ) -> list[Race]:
        """What in the log stays silent otherwise: races that were lost, or nearly so.

        Blind writes over another agent's version that the writer had not read; write skew of
        snapshot isolation; op_ids used for different requests; keys that cost many attempts, with
        what would help. Only reads in transactions are known: an agent that reads by `Store.get`
        and then puts without ``expected_version`` has, for the log, read nothing.

        Args:
            since: a revision, tag or aware datetime after which to look; None: the whole log.
            namespace: only keys in it and below it.
            fresh_s: how old a version may be, at most, for a blind write over it to count.
            limit: at most so many.

        Raises:
            RevisionError: `since` cannot be found.
        """
        revision = 0 if since is None else resolve_at(self._core, self._scope, since)[0]
        most = check_number(limit, "limit")
        return races_of(self._core, self._scope, revision, namespace, fresh_s, most)

    # Conflicts.

    def conflicts(self, status: str | None = None) -> list[ConflictRecord]:
        """Conflicts on record, oldest first.

        Args:
            status: ``merged``, ``retried``, ``rejected``, ``repaired``, ``open`` or
                ``resolved``; None is all.
        """
        if status is not None and status not in _STATUSES:
            raise InvalidValueError(f"status is one of {', '.join(_STATUSES)}, not {status!r}")
        self._core.check_open()
        found: list[ConflictRecord] = []
        after = 0
        while True:
            rows = self._core.engine.conflicts(status, after, _PAGE)
            found += [conflict_record_of(row, self._scope) for row in rows if self._sees(row)]
            if len(rows) < _PAGE:
                return found
            after = rows[-1].id or 0

    def _sees(self, row: ConflictRow) -> bool:
        return self._scope.sees((row.namespace, row.key))

    def resolve(
        self,
        id: int,
        take: object,
        *,
        expected_version: int | None = None,
        agent: str | None = None,
        note: str | None = None,
    ) -> Entry[Any] | None:
        """Settles an open conflict, which `merge.escalate` parked.

        Args:
            id: of the conflict record.
            take: ``"theirs"`` leaves what is there; ``"ours"`` writes what was parked; any
                other JSON value is written.
            expected_version: of the key, which is to be replaced; None: the one that was there
                when the conflict was parked. ``"theirs"`` replaces nothing.
            agent, note: who and why, for the record and the log.

        Returns: the entry written; None if nothing was.

        Raises:
            InvalidValueError: there is no such open conflict: never was, or it is settled.
            ConflictError: the key has moved on since; nothing was written.
        """
        row = self._core.engine.conflict(check_number(id, "id"))
        if row is None or not self._sees(row) or row.status != "open":
            settled = row is not None and self._sees(row) and row.status == "resolved"
            raise _no_conflict(id, row if settled else None)
        place = (row.namespace, row.key)
        self._scope.check(place, "write")
        # In a scope of its own, so that no op_id of a user can stand in the way.
        scope = replace(self._scope, name=_RESOLUTIONS)
        op_id = f"resolve conflict {id}"
        request = Request(scope, op_id, self._who(agent), 0, 0, note=note, pinned=False)
        request.change = Change("resolve_conflict", {"id": id, "note": note})
        if take != "theirs":
            value = ours_in(row.ours) if take == "ours" else dump(take, self._core.limits)
            head = self._core.engine.point(place, None).row
            base = head.version if head is not None and self._core.sees(head) else 0
            self._check_unmoved(row, base, head, expected_version)
            request.writes[place] = (
                deletion(base, merge=False)
                if value is None
                else Write(_PUT, value, base=base, merge=False)
            )
        receipt = self._core.run(request)
        if receipt.known is not None:  # another was quicker
            raise _no_conflict(id, self._core.engine.conflict(id))
        return entry_of(receipt.rows[0], self._scope) if receipt.rows else None

    def _check_unmoved(
        self, row: ConflictRow, version: int, head: EntryRow | None, expected: int | None
    ) -> None:
        """Raises `ConflictError` if a key is not at the version that a conflict is about."""
        place = (row.namespace, row.key)
        if expected is None:
            commit = self._core.engine.commits_of([row.revision or 0])
            left = [
                entry.version
                for entry in self._core.engine.commit_entries(commit)
                if (entry.namespace, entry.key) == place
            ]
            # A tombstone that was left is absent.
            if not left or left[0] == version or (not version and head and left[0] == head.version):
                return
            expected = left[0]
        if expected != version:
            theirs = head if version else None
            item = StaleItem(place, "write", expected, version, None, theirs)
            error = self._core.conflict_error([item], self._scope)
            name = display_key(self._scope.relative(place[0]), place[1])
            raise ConflictError(
                f"{name!r} has moved on from version {expected} to {version} since conflict "
                f"{row.id} was parked; nothing was written: look at both, then resolve it with "
                f'expected_version={version}, or take="theirs"',
                conflicts=error.conflicts,
            )

    def _who(self, agent: str | None) -> str | None:
        checked = check_label_text(agent, "agent", self._core.limits)
        return self._scope.agent if checked is None else checked

    # Tags.

    def tag(
        self, name: str, *, at: object = None, agent: str | None = None, note: str | None = None
    ) -> Tag:
        """Names a revision (the latest, or that of `at`); an earlier tag of that name moves.

        Raises:
            RevisionError: `at` cannot be read.
        """
        self._scope.check_any("tag")
        limits = self._core.limits
        checked = check_label_text(name, "tag", limits)
        if checked is None:
            raise InvalidValueError("a tag needs a name")
        revision, _instant = resolve_at(self._core, self._scope, at)
        who = self._who(agent)
        now = self._core.clock()
        values = {
            "scope": self._scope.name,
            "name": checked,
            "created_at": now,
            "agent": who,
            "note": check_label_text(note, "note", limits),
        }
        self._core.change(Change("set_tag", {**values, "revision": revision}), self._scope)
        return Tag(checked, revision, to_datetime(now), who, note)

    def untag(self, name: str) -> None:
        """Forgets a tag.

        Raises:
            RevisionError: there is no such tag.
        """
        self._scope.check_any("untag")
        change = Change("unset_tag", {"scope": self._scope.name, "name": name})
        if not self._core.change(change, self._scope):
            raise RevisionError(f"there is no tag {name!r}")

    def tags(self) -> list[Tag]:
        """All tags, by name."""
        self._core.check_open()
        return [
            Tag(row.name, row.revision, to_datetime(row.created_at), row.agent, row.note)
            for row in self._core.engine.tags(self._scope.name)
        ]
