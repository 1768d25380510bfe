"""What of a request no longer holds: the heart of judging, and of `Transaction.stale`.

An observation of version v of a key is stale if the visible version is not v; absent is
version 0, so an observation of absence is stale only if the key is present. A scan is stale if
running it again would give another answer, judged on the keys that changed since the base (and
on those that expire). A put or delete is stale if its base version is not the visible one.

Write skew, which looking at the written keys alone would let through::

    T1, base r7                          T2, base r7
    reads alice (v3) and bob (v5)        reads alice (v3) and bob (v5)
    both are on call, so:                both are on call, so:
    writes alice: off call
    commits: r8, alice is v4
                                         writes bob: off call
                                         commits: its read of alice saw v3, which is v4 now:
                                         stale, T2 must run again
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
    Spaces,
)
from agentmem.request import BLIND, SNAPSHOT, Request, Scan, StaleItem, Write

__all__ = ["World", "stale_reads", "stale_scans", "stale_write", "visible_version"]


class World(Protocol):
    """The present, as it looks to whom a request is held against.

    Attributes:
        now: the instant that decides what has expired.
    """

    now: int

    def head(self, place: Place) -> EntryRow | None:
        """The newest entry of the key."""

    def heads(self, places: Collection[Place]) -> dict[Place, EntryRow | None]:
        """As `head`, of many keys in one read."""

    def entry_at(self, place: Place, revision: int) -> EntryRow | None:
        """The newest entry of the key at or below the revision."""

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        """The entry of the key with that version."""

    def changed_since(
        self, revision: int, within: Range, expired: tuple[int, int]
    ) -> Iterable[Place]:
        """At least the keys in the range that have an entry above the revision, or one that
        expires after the first and not after the second instant."""

    def embedded_since(self, revision: int, within: Range, set_id: int) -> Iterable[Place]:
        """At least the keys in the range that got a vector above the revision, after their
        entry."""

    def spaces(self) -> Spaces:
        """Which vectors the namespaces have."""

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        """The vectors of entries, as stored; those that have none are left out."""

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        """What texts score for the words of a query; 0 for one that holds none."""


def visible_version(row: EntryRow | None, instant: int) -> int:
    """The version that a view sees, 0 if it sees none."""
    return row.version if row is not None and row.visible_at(instant) else 0


def stale_reads(request: Request, world: World) -> list[StaleItem]:
    """The reads that no longer hold."""
    stale = []
    heads = world.heads(request.reads)
    for place, seen in request.reads.items():
        head = heads[place]
        version = visible_version(head, world.now)
        if version != seen:
            stale.append(_item(request, world, place, "read", seen, version, head))
    return stale


def stale_scans(request: Request, world: World) -> list[StaleItem]:
    """The keys because of which a scan would give another answer now, each once."""
    stale: dict[Place, StaleItem] = {}
    moved = _Moved(request, world)
    for scan in request.scans:
        places = [place for place in moved.places(scan) if place not in stale]
        heads = world.heads(places)
        for place, version in scan.versions_of(heads, world).items():
            seen = scan.found.get(place, 0)
            changed = bool(version) != bool(seen) if scan.presence else version != seen
            if changed:
                head = heads[place]
                present = visible_version(head, world.now)
                stale[place] = _item(request, world, place, "scan", seen, present, head)
    return list(stale.values())


class _Moved:
    """What has changed since a request's base; of each range it is asked but once."""

    def __init__(self, request: Request, world: World) -> None:
        self._base = request.base_revision
        self._expired = (request.base_instant, world.now)
        self._world = world
        self._changed: dict[Range, Collection[Place]] = {}
        self._late: dict[tuple[Range, int], Iterable[Place]] = {}

    def places(self, scan: Scan) -> list[Place]:
        """At least the keys because of which the scan could give another answer."""
        within, world = scan.within, self._world
        if within not in self._changed:
            found = world.changed_since(self._base, within, self._expired)
            self._changed[within] = dict.fromkeys(found)
        changed = self._changed[within]
        for set_id in scan.vector_sets(world):
            if (within, set_id) not in self._late:
                self._late[within, set_id] = world.embedded_since(self._base, within, set_id)
            changed = {*changed, *self._late[within, set_id]}
        return [place for place in changed if scan.covers(place)]


def stale_write(request: Request, place: Place, write: Write, world: World) -> StaleItem | None:
    """Whether the base of a put or delete is not what is there now."""
    if write.base == BLIND or write.steps:
        return None
    head = world.head(place)
    version = visible_version(head, world.now)
    if write.base != SNAPSHOT:
        if write.base == version:
            return None
        base = world.entry_version(place, write.base) if write.base else None
        return _write_item(place, write, write.base, version, base, head)
    if head is None:
        return None
    base = head
    if head.revision > request.base_revision:
        base = world.entry_at(place, request.base_revision)
    seen = visible_version(base, request.base_instant)
    if seen == version:
        return None
    return _write_item(place, write, seen, version, base if seen else None, head)


def base_version(write: Write, head: EntryRow | None, now: int) -> int | None:
    """What the log says of the base of a put or delete that is not stale; None if blind."""
    if write.base == BLIND and not write.buries:
        return None
    # Not stale: the base is what is visible now.
    return visible_version(head, now)


def _write_item(
    place: Place,
    write: Write,
    seen: int,
    version: int,
    base: EntryRow | None,
    head: EntryRow | None,
) -> StaleItem:
    return StaleItem(place, "write", seen, version, base, head if version else None, write)


def _item(
    request: Request,
    world: World,
    place: Place,
    kind: str,
    seen: int,
    version: int,
    head: EntryRow | None,
) -> StaleItem:
    base = world.entry_version(place, seen) if seen else None
    theirs = head if visible_version(head, world.now) else None
    return StaleItem(place, kind, seen, version, base, theirs, request.writes.get(place))
