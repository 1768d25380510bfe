"""Repair instead of abort: what has moved under a transaction, judged without the lock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from agentmem.core import Core
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
    Spaces,
)
from agentmem.errors import InvalidValueError
from agentmem.model import Conflict, Stale
from agentmem.namespaces import encode
from agentmem.request import Request, Scan, StaleItem
from agentmem.scope import Scope
from agentmem.staleness import stale_reads, stale_scans, stale_write

__all__ = ["EngineWorld", "Judged", "accepted_places", "judge_now", "rebase_scan"]


class EngineWorld:
    """The store as it is at one revision; a `World` that needs no lock."""

    def __init__(self, engine: Engine, revision: int, now: int) -> None:
        self.now = now
        self.revision = revision
        self._engine = engine

    def head(self, place: Place) -> EntryRow | None:
        """See `World.head`."""
        return self._engine.point(place, self.revision).row

    def heads(self, places: Collection[Place]) -> dict[Place, EntryRow | None]:
        """See `World.heads`."""
        found: dict[Place, EntryRow | None] = dict.fromkeys(places)
        rows = self._engine.points(list(places), self.revision)
        return found | {(row.namespace, row.key): row for row in rows}

    def entry_at(self, place: Place, revision: int) -> EntryRow | None:
        """See `World.entry_at`."""
        return self._engine.point(place, revision).row

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        """See `World.entry_version`."""
        return self._engine.entry_version(place, version)

    def changed_since(
        self, revision: int, within: Range, expired: tuple[int, int]
    ) -> Iterable[Place]:
        """See `World.changed_since`; keys that changed after this revision do no harm."""
        return self._engine.changed_since(revision, within, expired)

    def embedded_since(self, revision: int, within: Range, set_id: int) -> Iterable[Place]:
        """See `World.embedded_since`."""
        return self._engine.embedded_since(revision, within, set_id)

    def spaces(self) -> Spaces:
        """See `World.spaces`."""
        return self._engine.spaces()

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        """See `World.vectors`."""
        return self._engine.vectors(set_id, entries)

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        """See `World.text_scores`."""
        return self._engine.text_scores(words, texts)


@dataclass(frozen=True, slots=True)
class Judged:
    """What one ``stale()`` call found.

    Attributes:
        world: the revision and instant it looked at.
        stale: one item a key.
        items: the same, as the caller sees them.
    """

    world: EngineWorld
    stale: list[StaleItem]
    items: list[Stale]


def judge_now(core: Core, scope: Scope, request: Request) -> Judged:
    """Holds a request against the latest revision."""
    position = core.engine.position()
    world = EngineWorld(core.engine, position.revision, position.now)
    found: dict[Place, StaleItem] = {}
    for place, write in request.writes.items():
        item = stale_write(request, place, write, world)
        if item is not None:
            found[place] = item
    for item in (*stale_reads(request, world), *stale_scans(request, world)):
        found.setdefault(item.place, item)
    stale = [found[place] for place in sorted(found)]
    items = [
        Stale(scope.relative(item.place[0]), item.place[1], item.seen_version, item.version)
        for item in stale
    ]
    return Judged(world, stale, items)


def accepted_places(accept: object, prefix: tuple[str, ...]) -> dict[Place, int]:
    """The judged versions in an ``accept`` argument, by place."""
    if not isinstance(accept, Iterable):
        raise TypeError("accept is a list of the items of stale(), or of conflicts")
    accepted: dict[Place, int] = {}
    for item in accept:
        if isinstance(item, Stale):
            version = item.judged_version
        elif isinstance(item, Conflict):
            version = item.current_version
        else:
            raise InvalidValueError(
                f"accept holds items of stale() or conflicts, not {type(item).__name__}"
            )
        accepted[encode(prefix + item.namespace), item.key] = version
    return accepted


def rebase_scan(scan: Scan, places: Iterable[Place], world: EngineWorld) -> None:
    """Makes a scan's answer what it would be in the world, at these places."""
    heads = world.heads([place for place in places if scan.covers(place)])
    scan.text = None
    for place, version in scan.versions_of(heads, world).items():
        row = heads[place]
        if version:
            scan.found[place] = version
            scan.ids[place] = row.id if row is not None else 0
        else:
            scan.found.pop(place, None)
            scan.ids.pop(place, None)
