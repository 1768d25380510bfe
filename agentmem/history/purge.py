"""Erases a key, or a namespace, from all that a store keeps.

What it does, in this order, so that after a kill anywhere another run comes to the same end::

    1  tombstones     what is present is deleted, by a commit: scans, feeds and indexes see it
    2  a record       who purges what, and up to which revision
    3  copies         results and fingerprints of operations, what searches asked, conflicts
    4  entries        value, text and salt, with their vectors; identity and digest stay
    5  indexes        published folders are withdrawn and deleted
    6  the files      words of texts that are gone, free pages, the write-ahead log
    7  the record     says that it is finished

Steps 3 and 4 go in short turns under the store's lock. What holds a copy is looked for before
the entries are erased, because then nobody could tell any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from agentmem.core import Core
from agentmem.engines.rows import (
    Change,
    EntryRow,
    Place,
    Range,
)
from agentmem.errors import KeyMissingError, MissingExtraError, StoreBusyError
from agentmem.history.doomed import Doomed
from agentmem.history.turns import Turns
from agentmem.model import display_key
from agentmem.operations import DELETE
from agentmem.request import BLIND, Request, Write
from agentmem.scope import Scope
from agentmem.values import canonical, load

__all__ = ["PurgeReport", "purge"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and of how much (0: not known)."""

_PAGE: Final = 500
_ROUNDS: Final = 50  # of tombstones, if others go on writing what is purged
_FRAGMENTS: Final = 1_000  # strings of the values that are looked for in results
_LEAST_FRAGMENT: Final = 8  # characters; shorter ones are in too much
_KEPT: Final = ("found", "key_prefix", "limit", "mode", "k", "offset")  # of a scan


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What `Admin.purge` did.

    Attributes:
        revision: what was written up to this one is erased.
        deleted: keys that were present, or expired, and have a tombstone now.
        versions: entries whose value was erased.
        results: operations whose stored result and fingerprint were erased.
        scans: scans and searches of which only the outline is left.
        conflicts: conflicts on record whose copy of a value was erased.
    """

    revision: int
    deleted: int
    versions: int
    results: int
    scans: int
    conflicts: int

    __module__ = "agentmem"


def purge(
    core: Core,
    scope: Scope,
    doomed: Doomed,
    agent: str | None,
    note: str | None,
    progress: Progress | None,
) -> PurgeReport:
    """See `Admin.purge`."""
    run = _Run(core, scope, doomed, progress or (lambda _what, _done, _total: None))
    return run.run(agent, note)


class _Run:
    """One run of a purge."""

    def __init__(self, core: Core, scope: Scope, doomed: Doomed, told: Progress) -> None:
        self._core = core
        self._engine = core.engine
        self._scope = scope
        self._doomed = doomed
        self._told = told
        self._turns = Turns(core.engine, core.limits)

    def run(self, agent: str | None, note: str | None) -> PurgeReport:
        deleted, revision = self._bury(agent, note)
        self._record(revision, agent, note)
        results, scans = self._erase_reads(revision)
        conflicts = self._erase_conflicts()
        versions, more = self._erase_entries(revision)
        self._core.searcher.forget()
        indexes = self._core.searcher.indexes
        dropped = indexes.erase(self._core.limits)
        told = self._told
        dropped |= self._engine.scrub(
            self._core.limits.lock_timeout_ms, lambda done, of: told("cleaning", done, of)
        )
        self._turns.write(Change("finish_purge", self._place()))
        if dropped:
            with suppress(MissingExtraError):  # made by a process that has Chroma
                indexes.build(told)
        return PurgeReport(revision, deleted, versions, results + more, scans, conflicts)

    def _place(self) -> dict[str, Any]:
        return {"namespace": self._doomed.namespace, "key": self._doomed.key}

    # Tombstones.

    def _bury(self, agent: str | None, note: str | None) -> tuple[int, int]:
        """Deletes what has a value; returns how many keys, and a revision at which none has."""
        deleted = 0
        for _round in range(_ROUNDS):
            revision = self._engine.position().revision
            found = False
            for rows in self._heads(revision):
                live = [row for row in rows if row.value is not None]
                found = found or bool(live)
                for start in range(0, len(live), _PAGE):
                    page = live[start : start + _PAGE]
                    deleted += self._delete(page, agent, note)
                    self._told("deleting", deleted, 0)
            if not found:
                return deleted, revision
        raise StoreBusyError(
            f"others went on writing what is purged, {_ROUNDS} times; nothing was erased: stop "
            "them, and run it again"
        )

    def _heads(self, revision: int) -> Iterator[list[EntryRow]]:
        doomed = self._doomed
        if doomed.key is not None:
            row = self._engine.point((doomed.namespace, doomed.key), revision).row
            if row is None:
                labels = self._scope.relative(doomed.namespace)
                raise KeyMissingError(
                    f"{display_key(labels, doomed.key)!r} was never written; there is nothing to "
                    "purge",
                    namespace=labels,
                    key=doomed.key,
                )
            yield [row]
            return
        after: Place | None = None
        while rows := self._engine.scan(
            Range(doomed.namespace, after=after), revision, self._turns.size
        ):
            yield rows
            after = (rows[-1].namespace, rows[-1].key)

    def _delete(self, rows: list[EntryRow], agent: str | None, note: str | None) -> int:
        request = Request(self._scope, None, agent, 0, 0, note=note, pinned=False)
        for row in rows:
            place = (row.namespace, row.key)
            request.writes[place] = Write(DELETE, base=BLIND, merge=False, buries="any")
        receipts = []
        self._turns.timed(lambda: receipts.append(self._core.run(request)))
        return sum(len(receipt.rows) for receipt in receipts)

    # The record.

    def _record(self, revision: int, agent: str | None, note: str | None) -> None:
        place = self._place()
        for row in self._engine.purges():
            if (row.namespace, row.key, row.finished) == (*place.values(), 0):
                wider = {"revision": revision, "id": row.id}
                self._turns.write(Change("widen_purge", wider))
                return
        values = {**place, "revision": revision, "agent": agent, "note": note}
        self._turns.write(Change("begin_purge", {**values, "purged_at": self._core.clock()}))

    # Copies.

    def _erase_reads(self, upto: int) -> tuple[int, int]:
        """Erases results that may hold what was read, and what scans asked."""
        revisions = self._results_that_hold(upto)
        scans = 0
        after = 0
        last = self._engine.position().revision
        while after < last:
            through = min(last, after + _PAGE)
            found: list[Change] = []
            for row in self._engine.reads_of(after, through):
                if row.scan is None:
                    if self._doomed.holds((row.namespace, row.key)):
                        revisions.add(row.revision)
                elif self._doomed.overlaps(row.namespace):
                    revisions.add(row.revision)
                    scan = _redacted(row.scan)
                    if scan != row.scan:
                        where = {"revision": row.revision, "position": row.position}
                        found.append(Change("erase_scan", {**where, "scan": scan}))
            for start in range(0, len(found), _PAGE):
                self._turns.write(*found[start : start + _PAGE])
            scans += len(found)
            after = through
            self._told("erasing copies", after, last)
        return self._erase_results(sorted(revisions)), scans

    def _erase_results(self, revisions: list[int]) -> int:
        start = erased = 0
        while start < len(revisions):
            page = revisions[start : start + self._turns.size]
            start += len(page)
            change = Change("erase_results", {"revisions": page})
            self._turns.write(change)
            erased += change.count
        return erased

    def _results_that_hold(self, upto: int) -> set[int]:
        """Commits whose stored result holds a string of what is purged, whoever wrote it."""
        fragments = self._fragments(upto)
        found: set[int] = set()
        after = 0
        while fragments and (rows := self._engine.results(after, _PAGE)):
            found.update(
                revision for revision, result in rows if any(each in result for each in fragments)
            )
            after = rows[-1][0]
        return found

    def _fragments(self, upto: int) -> set[str]:
        fragments: set[str] = set()
        after = 0
        while len(fragments) < _FRAGMENTS and (page := self._erasable(upto, after)):
            after = page[-1][0]
            for _id, _revision, value in page:
                if value is not None:
                    fragments.update(_strings(value))
        return fragments

    def _erase_conflicts(self) -> int:
        erased = 0
        after = 0
        while rows := self._engine.conflicts(None, after, _PAGE):
            after = rows[-1].id or 0
            ids = [
                row.id
                for row in rows
                if row.ours is not None and self._doomed.holds((row.namespace, row.key))
            ]
            if ids:
                self._turns.write(Change("erase_conflicts", {"ids": ids}))
                erased += len(ids)
        return erased

    # Entries.

    def _erasable(self, upto: int, after: int) -> list[tuple[int, int, str | None]]:
        doomed = self._doomed
        return self._engine.erasable(doomed.namespace, doomed.key, upto, after, self._turns.size)

    def _erase_entries(self, upto: int) -> tuple[int, int]:
        erased = results = after = 0
        while page := self._erasable(upto, after):
            after = page[-1][0]
            ids = [id for id, _revision, _value in page]
            written = sorted({revision for _id, revision, _value in page})
            of_results = Change("erase_results", {"revisions": written})
            self._turns.write(
                of_results,
                Change("erase_vectors", {"ids": ids}),
                Change("erase_pending", {"ids": ids}),
                Change("erase_entries", {"ids": ids}),
            )
            erased += len(ids)
            results += of_results.count
            self._told("erasing", erased, 0)
        return erased, results


def _redacted(scan: str) -> str:
    """The outline of what a scan asked: nothing that came from a value."""
    asked = load(scan)
    if not isinstance(asked, dict) or not asked.keys() - {*_KEPT, "purged"}:
        return scan
    kept = {name: asked[name] for name in _KEPT if name in asked}
    return canonical({**kept, "purged": True}).decode()


def _strings(value: str) -> Iterator[str]:
    """The longer strings in a value, as they stand in JSON text."""
    waiting = [load(value)]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += [*each.values()]
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, str) and len(each) >= _LEAST_FRAGMENT:
            yield canonical(each).decode()[1:-1]
