"""What a transaction has found by searching, and whether a later write would have been found.

At its commit a serializable transaction must find what it found before. Of the keys that were
written since, those that it had found must be unchanged, and none of the others may now rank
among those found. So each is scored, as it is now, and held against the last one found: writes
that cannot enter the answer abort nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
)
from agentmem.request import Scan
from agentmem.search.finder import Found
from agentmem.search.planner import Ranked, combined, decayed
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

    def vector_sets(self, world: World) -> Iterable[int]:
        """See `Scan.vector_sets`."""
        seen = self.seen
        assert seen is not None, "made by scan_of"
        if seen.lacks_vectors:
            return set(world.spaces().of.values())  # by now there may be some
        return (seen.vector_set.id,) if seen.vector_set is not None else ()

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
        if seen.lacks_vectors or self._is_reindexed(world):
            return True  # by vectors that it has not looked at anything may be near
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
        new = Ranked(place, row, None, text, similar)
        return self._ranks_among(new, world)

    def _ranks_among(self, new: Ranked, world: World) -> bool:
        """Whether another one ranks before the last one found.

        The statistics of words have changed since, so what was found is scored again. What held
        the words best need not be among what was found, nor be there any more: what lies between
        is decided by the two ends, as scores are linear in one divided by the best.
        """
        seen = self.seen
        assert seen is not None, "made by scan_of"
        query, ranked, most = seen.query, seen.answer.ranked, seen.answer.best
        scores = [0.0] * len(ranked)
        bests = {0.0}
        if query.words:
            known = ranked if most is None else [*ranked, most]
            scores = world.text_scores(query.words, [_text(each) for each in known])
            bests = {max(new.text, *scores[: len(ranked)]), max(new.text, *scores)}

        def sorts(each: Ranked, words: float, best: float) -> tuple[float, Place]:
            score = combined(query, seen.weight, words, each.similar, best)
            return -decayed(query, score, each.row, world.now), each.place

        return any(
            sorts(new, new.text, best)
            < max(sorts(each, words, best) for each, words in zip(ranked, scores, strict=False))
            for best in bests
        )

    def _is_reindexed(self, world: World) -> bool:
        """Whether the vectors that it has looked at gave way to those of another embedder."""
        vector_set = self.seen.vector_set if self.seen is not None else None
        return vector_set is not None and vector_set.id not in world.spaces().of.values()

    def _similar(self, row: EntryRow, world: World) -> float | None:
        seen = self.seen
        if seen is None or seen.vector_set is None or seen.direction is None:
            return None
        stored = world.vector(seen.vector_set.id, row.id)
        if stored is None or len(stored) != 4 * seen.vector_set.dimension:
            return None
        rows = directions(unpack_many([stored], seen.vector_set.dimension))
        return float(similarities(rows, seen.direction)[0])


def _text(each: Ranked) -> str:
    if each.entry is not None:
        return each.entry.text or ""
    return (found_by(each.row.value, each.row.text) if each.row is not None else None) or ""


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
