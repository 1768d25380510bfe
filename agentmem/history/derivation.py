"""Walking the log along what was derived from what, both ways.

Nothing is derived from what is newer than itself, so there are no cycles: a commit has read what
was there before it, and an entry builds on older versions of its key.

What a commit had read holds for all that it wrote. What an entry *holds* of an older one holds
for that entry alone: an atomic operation keeps what was there, a merge takes in the version that
it met, and an older version can be put back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    EntryRow,
    Place,
    ReadRow,
)
from agentmem.errors import CompactedError
from agentmem.namespaces import decode, encode
from agentmem.operations import ADD_TO_SET, APPEND, INCREMENT, PATCH
from agentmem.provenance import (
    BASE,
    CONTEXT,
    MERGE,
    READ,
    RESTORED,
    UNKEPT,
    found_by_scan,
)
from agentmem.values import MAX_INT

__all__ = ["Held", "Reading", "Ref", "Walk", "held_by", "ref_of"]

Ref = tuple[str, str, int]
"""(encoded namespace, key, version): an entry."""

T = TypeVar("T")

_BATCH: Final = 500
_PAGE: Final = 1_000
_ATOMIC: Final = (INCREMENT, APPEND, ADD_TO_SET, PATCH)
_NAMES: Final = {READ: "read", CONTEXT: "read", BASE: "base", MERGE: "merge", RESTORED: "restored"}


class Reading(NamedTuple):
    """That a commit had read an entry.

    ``why`` is ``read``, ``base``, ``scan`` or ``search``; ``scan``: the row of the last two.
    """

    source: Ref
    why: str
    scan: ReadRow | None = None


class Held(NamedTuple):
    """That an entry holds something of another: ``why`` is ``base``, ``merge`` or ``restored``."""

    source: Ref
    why: str


def ref_of(row: EntryRow) -> Ref:
    """What names an entry."""
    return row.namespace, row.key, row.version


def held_by(row: EntryRow) -> Held | None:
    """What an entry holds of an older version without anybody having read that."""
    if row.merged is not None:
        before = (row.namespace, row.key, row.version - 1)
        return Held(before, "merge") if row.version > 1 else None
    if row.operation in _ATOMIC and row.version > 1:
        # That the key was absent is something it builds on, too, if a delete was the reason.
        return Held((row.namespace, row.key, row.base_version or row.version - 1), "base")
    return None


def _holds(row: EntryRow, source: EntryRow) -> bool:
    """Whether an entry holds what `held_by` says: not if that had expired."""
    return row.merged is not None or bool(row.base_version) or source.deleted


class Walk:
    """Follows derivations from some entries on, level by level, in few reads.

    Attributes:
        rows: the entries met.
        readings: what each commit had read, by revision; only what leads on.
        held: what each entry holds, likewise.
        lost: entries that were read and are not in the log any more.
        lost_ids: entries found by scans, likewise; their names went with them.
        unkept: revisions met whose commits had read something that was not kept.
        complete: nothing was left out for a depth or a limit.
    """

    def __init__(self, engine: Engine, limit: int) -> None:
        self.rows: dict[Ref, EntryRow] = {}
        self.readings: dict[int, dict[Reading, None]] = {}
        self.held: dict[Ref, dict[Held, None]] = {}
        self.lost: dict[Ref, None] = {}
        self.lost_ids: set[int] = set()
        self.unkept: set[int] = set()
        self.complete = True
        self._engine = engine
        self._limit = limit
        self._commits: set[int] = set()  # whose reads, or entries, were looked at

    def up(self, start: EntryRow, depth: int | None) -> None:
        """From an entry to what it was derived from."""
        self._go(start, depth, self._sources)

    def down(self, start: EntryRow, depth: int | None) -> None:
        """From an entry to what was derived from it."""
        self._go(start, depth, self._derived)

    def _go(self, start: EntryRow, depth: int | None, step: Any) -> None:
        self.rows[ref_of(start)] = start
        frontier = [start]
        level = 0
        while frontier:
            if depth is not None and level >= depth:
                self.complete = False  # perhaps there is nothing more; nobody has looked
                return
            level += 1
            new: list[EntryRow] = []
            for some in _batches(frontier):
                for row in step(some):
                    ref = ref_of(row)
                    if ref in self.rows:
                        continue
                    if len(self.rows) >= self._limit:
                        self.complete = False
                        return
                    self.rows[ref] = row
                    new.append(row)
            frontier = new

    # Up.

    def _sources(self, rows: Sequence[EntryRow]) -> Iterator[EntryRow]:
        by_revision: dict[int, list[EntryRow]] = {}
        for row in rows:
            by_revision.setdefault(row.revision, []).append(row)
        wanted: dict[Ref, int] = {}  # and below which revision it lies
        absent: dict[int, list[Place]] = {}
        scans: list[tuple[int, ReadRow]] = []
        building = {row: own for row in rows if (own := held_by(row)) is not None}
        found = self._engine.versions(
            [(*own.source, row.revision - 1) for row, own in building.items()]
        )
        before = {ref_of(row): row for row in found}
        for row, own in building.items():
            source = before.get(own.source)
            if source is None and (row.base_version or row.merged is not None):
                self._hold(row, own)
                self.lost[own.source] = None
            elif source is not None and _holds(row, source):
                self._hold(row, own)
                yield source
        for read in self._engine.reads_by(list(by_revision)):
            revision = read.revision
            ref = (read.namespace, read.key, read.version)
            if read.kind == UNKEPT:
                self.unkept.add(revision)
            elif read.scan is not None:
                scans.append((revision, read))
            elif read.kind in (MERGE, RESTORED):
                for row in by_revision[revision]:
                    if (row.namespace, row.key) == ref[:2]:
                        self._hold(row, Held(ref, _NAMES[read.kind]))
                        wanted[ref] = revision - 1
            elif read.kind in (READ, CONTEXT, BASE):
                if read.version:
                    self._read(revision, Reading(ref, _NAMES[read.kind]))
                    wanted[ref] = revision - 1
                else:
                    absent.setdefault(revision, []).append((read.namespace, read.key))
        yield from self._resolved(wanted)
        yield from self._scanned(scans)
        yield from self._tombstones(absent)

    def _resolved(self, wanted: dict[Ref, int]) -> Iterator[EntryRow]:
        found = self._engine.versions([(*ref, upto) for ref, upto in wanted.items()])
        for ref in wanted.keys() - {ref_of(row) for row in found}:
            self.lost[ref] = None
        yield from found

    def _scanned(self, scans: Sequence[tuple[int, ReadRow]]) -> Iterator[EntryRow]:
        for revision, read in scans:
            asked, ids = found_by_scan(read.scan or "{}")
            why = "search" if "mode" in asked else "scan"
            for some in _batches(ids):
                found = self._engine.entries_found(some)
                self.lost_ids.update(set(some) - {row.id for row in found})
                for row in found:
                    self._read(revision, Reading(ref_of(row), why, read))
                yield from found

    def _tombstones(self, absent: dict[int, list[Place]]) -> Iterator[EntryRow]:
        """The deletes because of which keys were found absent."""
        for commit in self._engine.commits_of(list(absent)):
            try:
                rows = self._engine.points(absent[commit.revision], commit.base_revision)
            except CompactedError:
                continue
            for row in rows:
                if row.deleted:
                    self._read(commit.revision, Reading(ref_of(row), "read"))
                    yield row

    # Down.

    def _derived(self, rows: Sequence[EntryRow]) -> Iterator[EntryRow]:
        ends: dict[Ref, int] = {}
        sources = {ref_of(row): row for row in rows}
        following = self._engine.successors([(r.namespace, r.key, r.revision) for r in rows])
        for row in following:
            before = (row.namespace, row.key, row.version - 1)
            ends[before] = row.revision
            own = held_by(row)
            if own is not None and own.source in sources and _holds(row, sources[own.source]):
                self._hold(row, own)
                yield row
        held: dict[int, list[tuple[Place, Held]]] = {}
        reached: set[int] = set()
        for read in self._engine.readers(list(sources)):
            ref = (read.namespace, read.key, read.version)
            if read.revision <= sources[ref].revision:
                continue  # it was cited before it was there
            if read.kind in (MERGE, RESTORED):
                one = (ref[:2], Held(ref, _NAMES[read.kind]))
                held.setdefault(read.revision, []).append(one)
            elif read.kind in (READ, CONTEXT, BASE):
                self._read(read.revision, Reading(ref, _NAMES[read.kind]))
                reached.add(read.revision)
        reached |= self._scanners(rows, ends)
        reached |= self._found_absent([row for row in rows if row.deleted], ends)
        yield from self._written(reached, held)

    def _written(
        self, reached: set[int], held: dict[int, list[tuple[Place, Held]]]
    ) -> Iterator[EntryRow]:
        wanted = (reached - self._commits) | held.keys()
        self._commits |= reached
        for some in _batches(sorted(wanted)):
            for row in self._engine.commit_entries(self._engine.commits_of(some)):
                place = (row.namespace, row.key)
                own = [each for at, each in held.get(row.revision, ()) if at == place]
                for each in own:
                    self._hold(row, each)
                if own or row.revision in reached:
                    yield row

    def _scanners(self, rows: Sequence[EntryRow], ends: dict[Ref, int]) -> set[int]:
        """The commits whose scans have found one of these entries."""
        reached: set[int] = set()
        ids = {row.id: ref_of(row) for row in rows if not row.deleted}
        for namespace, inside in _by_ancestor(rows).items():
            first = min(row.revision for row in inside)
            past = max(ends.get(ref_of(row), MAX_INT) for row in inside)
            here = sorted(row.id for row in inside if not row.deleted)
            for read in self._scans(namespace, first, past):
                asked, found = found_by_scan(read.scan or "{}")
                why = "search" if "mode" in asked else "scan"
                for id in _common(here, found):
                    self._read(read.revision, Reading(ids[id], why, read))
                    reached.add(read.revision)
        return reached

    def _scans(self, namespace: str, first: int, past: int) -> Iterator[ReadRow]:
        after = (first, -1, -1)
        while True:
            page = self._engine.scans_over(namespace, after, past, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1]
            after = (last.base_revision or 0, last.revision, last.position)

    def _found_absent(self, rows: Sequence[EntryRow], ends: dict[Ref, int]) -> set[int]:
        """The commits that have found a key absent because of one of these tombstones."""
        reached: set[int] = set()
        if not rows:
            return reached
        reads = self._engine.readers([(row.namespace, row.key, 0) for row in rows])
        bases = {
            commit.revision: commit.base_revision
            for some in _batches(sorted({read.revision for read in reads}))
            for commit in self._engine.commits_of(some)
        }
        tombstones: dict[Place, list[EntryRow]] = {}
        for row in rows:
            tombstones.setdefault((row.namespace, row.key), []).append(row)
        for read in reads:
            for row in tombstones[read.namespace, read.key]:
                ref = ref_of(row)
                if row.revision <= bases[read.revision] < ends.get(ref, MAX_INT):
                    self._read(read.revision, Reading(ref, "read"))
                    reached.add(read.revision)
        return reached

    # What was met.

    def _read(self, revision: int, reading: Reading) -> None:
        self.readings.setdefault(revision, {})[reading] = None

    def _hold(self, row: EntryRow, held: Held) -> None:
        self.held.setdefault(ref_of(row), {})[held] = None


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _by_ancestor(rows: Iterable[EntryRow]) -> dict[str, list[EntryRow]]:
    """Entries by each namespace that a scan may have looked into to find them."""
    found: dict[str, list[EntryRow]] = {}
    for row in rows:
        labels = decode(row.namespace)
        for depth in range(len(labels) + 1):
            found.setdefault(encode(labels[:depth]), []).append(row)
    return found


def _common(some: Sequence[int], others: Sequence[int]) -> Iterator[int]:
    """The numbers that stand in both, each ascending."""
    if len(some) > len(others):
        some, others = others, some
    at = 0
    for number in some:
        at = bisect_left(others, number, at)
        if at == len(others):
            return
        if others[at] == number:
            yield number
