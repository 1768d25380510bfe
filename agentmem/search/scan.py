"""What a transaction has found by searching, and whether a later write would have been found.

At its commit a serializable transaction must find what it found before. Of the keys that were
written since, those that it had found must be unchanged, and none of the others may now rank
among those found. So each is scored, as it is now, and held against the last one found: writes
that cannot enter the answer abort nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
)
from agentmem.request import Scan
from agentmem.search.planner import combined, decayed
from agentmem.search.searcher import Found
from agentmem.search.vectors import directions, similarities, unpack_many
from agentmem.search.words import found_by
from agentmem.staleness import World
from agentmem.values import canonical, load

__all__ = ["SearchScan", "scan_of"]


@dataclass(slots=True)
class SearchScan(Scan):
    """A search, as a transaction has seen it.

    Attributes:
        seen: what was found, and how.
        full: as many were found as asked for, so that another enters only above the last one.
    """

    seen: Found | None = None
    full: bool = False

    @property
    def set_id(self) -> int | None:
        """Whose vectors were looked at."""
        seen = self.seen
        return seen.vector_set.id if seen is not None and seen.vector_set is not None else None

    def version_of(self, row: EntryRow | None, world: World) -> int:
        """See `Scan.version_of`."""
        if row is None or not row.visible_at(world.now):
            return 0
        if self.filter is not None and not self.filter.matches(load(row.value or "null")):
            return 0
        place = (row.namespace, row.key)
        return row.version if place in self.found or self._enters(row, place, world) else 0

    def _enters(self, row: EntryRow, place: Place, world: World) -> bool:
        seen = self.seen
        assert seen is not None, "made by scan_of"
        query = seen.query
        if seen.lacks_vectors:
            return True  # the first vectors there: anything may be near
        words = found_by(row.value, row.text) if query.words else None
        text = world.text_scores(query.words, [words])[0] if words is not None else 0.0
        similar = self._similar(row, world)
        if query.mode == "vector" and similar is None:
            return False
        if query.mode != "vector" and not text and not (query.mode == "hybrid" and similar):
            return False
        if query.at_least is not None and (similar is None or similar < query.at_least):
            return False
        if not self.full:
            return True
        least, best = self._measure(world, text)
        score = combined(query, seen.weight, text, similar, best)
        return (-score, place) < least

    def _measure(self, world: World, text: float) -> tuple[tuple[float, Place], float]:
        """The last one found (as it sorts), and the best score of words, both as of now.

        The statistics of words have changed since, so what was found is scored again.
        """
        seen = self.seen
        assert seen is not None, "made by scan_of"
        query, ranked = seen.query, seen.answer.ranked
        texts = [
            (each.entry.text if each.entry is not None else _text(each.row)) for each in ranked
        ]
        scores = [0.0] * len(ranked)
        if query.words:
            scores = world.text_scores(query.words, [text or "" for text in texts])
        best = max(text, *scores)
        found = []
        for each, words in zip(ranked, scores, strict=True):
            score = combined(query, seen.weight, words, each.similar, best)
            found.append((-decayed(query, score, each.row, world.now), each.place))
        return max(found), best

    def _similar(self, row: EntryRow, world: World) -> float | None:
        seen, set_id = self.seen, self.set_id
        if set_id is None or seen is None or seen.vector_set is None or seen.direction is None:
            return None
        stored = world.vector(set_id, row.id)
        if stored is None or len(stored) != 4 * seen.vector_set.dimension:
            return None
        rows = directions(unpack_many([stored], seen.vector_set.dimension))
        return float(similarities(rows, seen.direction)[0])


def _text(row: EntryRow | None) -> str | None:
    return found_by(row.value, row.text) if row is not None else None


def scan_of(seen: Found, within: Range, allowed: Callable[[Place], bool] | None) -> SearchScan:
    """The record of a search."""
    query, ranked = seen.query, seen.answer.ranked
    found = {each.place: each.row.version for each in ranked if each.row is not None}
    ids = {each.place: each.row.id for each in ranked if each.row is not None}
    full = len(ranked) == query.depth
    asked: dict[str, Any] = query.asked()
    return SearchScan(
        within, query.filter, allowed, found, presence=False,
        asked=canonical(asked).decode(), ids=ids, seen=seen, full=full,
    )  # fmt: skip
