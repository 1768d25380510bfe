"""Drops what nobody asks for any more: superseded versions, old results, expired values.

The floor is raised first, under the store's lock; from then on no view below it can be had, and
every read checks it together with what it reads. So what was superseded at or below the floor is
seen by nobody, and can go afterwards in short turns, while others read and write::

    versions of k   v1 (r2)   v2 (r5)   v3 (r9)       v4 (r14)
    floor r10       dropped   dropped   seen at r10   kept

The newest version of a key stays, a tombstone as well: it counts the versions. Commit rows, their
hashes and operation ids stay. A tag keeps the floor at or below the revision that it names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agentmem.core import Core
from agentmem.engines.rows import (
    Change,
    Place,
)
from agentmem.errors import FutureRevisionError, InvalidValueError
from agentmem.history.purge import Progress
from agentmem.history.turns import Turns
from agentmem.operations import DELETE
from agentmem.request import BLIND, Request, Write
from agentmem.scope import Scope
from agentmem.values import check_number

__all__ = ["CompactReport", "Keep", "compact"]

_IDS: Final = 20_000  # entries that are looked at by one read
_PAGE: Final = 500
_SWEPT: Final = "expired"  # the note of the commits that bury what has expired
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Keep:
    """What a compaction keeps, of each kind at least so much; None sets no bound.

    Attributes:
        age: what could be read so long ago.
        revision: what could be read at this revision.
        versions: so many of the newest versions of each key.
        results: results of operations that are no older.
    """

    age: timedelta | None = None
    revision: int | None = None
    versions: int | None = None
    results: timedelta | None = None

    @property
    def drops_entries(self) -> bool:
        """Whether it says anything of entries."""
        return (self.age, self.revision, self.versions) != (None, None, None)

    def check(self) -> None:
        """Raises `InvalidValueError` for what makes no sense."""
        for name in ("age", "results"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, timedelta):
                raise TypeError(f"{name} is a datetime.timedelta, not {type(given).__name__}")
            if given is not None and given < timedelta(0):
                raise InvalidValueError(f"{name} is not below 0: {given}")
        if self.revision is not None:
            check_number(self.revision, "revision")
        if self.versions is not None and check_number(self.versions, "versions") < 1:
            raise InvalidValueError("of each key, the newest version stays: versions is from 1 on")


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What `Admin.compact` did, or with ``dry_run`` would do.

    Attributes:
        floor: the oldest revision that can be read from now on.
        held_by: the tag that keeps the floor from rising further; None: none does.
        expired: keys that had expired and have a tombstone now.
        versions: entries that were dropped.
        results: results of operations that were dropped.
        dry_run: nothing was done.
    """

    floor: int
    held_by: str | None
    expired: int
    versions: int
    results: int
    dry_run: bool = False

    __module__ = "agentmem"


def compact(
    core: Core, scope: Scope, keep: Keep, *, dry_run: bool, progress: Progress | None
) -> CompactReport:
    """See `Admin.compact`."""
    keep.check()
    run = _Run(core, scope, keep, progress or (lambda _what, _done, _of: None))
    return run.foreseen() if dry_run else run.run()


class _Run:
    def __init__(self, core: Core, scope: Scope, keep: Keep, told: Progress) -> None:
        self._core = core
        self._engine = core.engine
        self._scope = scope
        self._keep = keep
        self._told = told
        self._turns = Turns(core.engine, core.limits)

    def run(self) -> CompactReport:
        expired = sum(self._bury(places) for places in self._expired())
        wanted = self._wanted()
        if self._keep.drops_entries:
            self._turns.write(Change("raise_floor", {"floor": wanted}))
        floor = self._engine.floor()
        held_by = self._held_by(wanted)
        versions = 0
        if self._keep.drops_entries:
            target = min(wanted, floor)
            self._forget_conflicts(target)
            for page in self._superseded(target):
                versions += self._drop(page)
                self._told("compacting", versions, 0)
        return CompactReport(floor, held_by, expired, versions, self._drop_results())

    def foreseen(self) -> CompactReport:
        """The same, without doing it."""
        floor, wanted = self._engine.floor(), self._wanted()
        versions = 0
        if self._keep.drops_entries:
            tags = [tag.revision for tag in self._engine.all_tags()]
            reached = min([wanted, *tags])
            floor = max(floor, reached)
            versions = sum(len(page) for page in self._superseded(min(wanted, floor)))
        return CompactReport(
            floor,
            self._held_by(wanted),
            sum(len(places) for places in self._expired()),
            versions,
            sum(len(page) for page in self._old_results()),
            dry_run=True,
        )

    # The floor.

    def _wanted(self) -> int:
        """The highest floor that keeps all that is to be kept, were there no tags."""
        keep, position = self._keep, self._engine.position()
        if keep.revision is not None and keep.revision > position.revision:
            raise FutureRevisionError(
                f"revision {keep.revision} is not there yet; the latest is {position.revision}",
                current=position.revision,
            )
        floors = [position.revision]
        if keep.age is not None:
            floors.append(self._engine.revision_at(position.now - keep.age // _MICROSECOND))
        if keep.revision is not None:
            floors.append(keep.revision)
        return min(floors)

    def _held_by(self, wanted: int) -> str | None:
        if not self._keep.drops_entries:
            return None
        below = [tag for tag in self._engine.all_tags() if tag.revision < wanted]
        return min(below, key=lambda tag: (tag.revision, tag.name)).name if below else None

    # What has expired.

    def _expired(self) -> Iterator[list[Place]]:
        instant = self._engine.position().now
        after: Place | None = None
        while places := self._engine.expired(instant, after, self._turns.size):
            yield places
            after = places[-1]

    def _bury(self, places: list[Place]) -> int:
        request = Request(self._scope, None, None, 0, 0, note=_SWEPT, pinned=False)
        for place in places[: self._core.limits.max_writes]:
            request.writes[place] = Write(DELETE, base=BLIND, merge=False, buries="expired")
        receipts = []
        self._turns.timed(lambda: receipts.append(self._core.run(request)))
        return sum(len(receipt.rows) for receipt in receipts)

    # Entries.

    def _superseded(self, floor: int) -> Iterator[list[tuple[int, int]]]:
        """(id, revision) of entries that another has replaced by the floor."""
        at = self._engine.position_at(floor)
        last = at.last_entry_id if at is not None else 0
        for start in range(0, last, _IDS):
            window = (start, min(start + _IDS, last))
            yield self._engine.superseded(*window, floor, self._keep.versions or 0)

    def _drop(self, page: list[tuple[int, int]]) -> int:
        start = dropped = 0
        while start < len(page):
            rows = page[start : start + self._turns.size]
            start += len(rows)
            ids = [id for id, _revision in rows]
            revisions = sorted({revision for _id, revision in rows})
            entries = Change("drop_entries", {"ids": ids})
            self._turns.write(
                Change("erase_vectors", {"ids": ids}),
                Change("erase_pending", {"ids": ids}),
                entries,
                Change("drop_reads", {"revisions": revisions}),
            )
            dropped += entries.count
        return dropped

    def _forget_conflicts(self, floor: int) -> None:
        """Copies of values in conflicts that are settled, and were before the floor."""
        after = 0
        while rows := self._engine.conflicts(None, after, _PAGE):
            after = rows[-1].id or 0
            ids = [
                row.id
                for row in rows
                if row.ours is not None
                and row.status != "open"
                and row.revision is not None
                and row.revision < floor
            ]
            if ids:
                self._turns.write(Change("erase_conflicts", {"ids": ids}))

    # Results.

    def _old_results(self) -> Iterator[list[int]]:
        if self._keep.results is None:
            return
        instant = self._engine.position().now - self._keep.results // _MICROSECOND
        last = self._engine.revision_at(instant)
        after = 0
        while rows := self._engine.results(after, self._turns.size):
            after = rows[-1][0]
            found = [revision for revision, _result in rows if revision <= last]
            if not found:
                return
            yield found

    def _drop_results(self) -> int:
        dropped = 0
        for page in self._old_results():
            change = Change("drop_results", {"revisions": page})
            self._turns.write(change)
            dropped += change.count
        return dropped
