"""What a transaction has found by searching, and whether a later write would have been found.

At its commit a serializable transaction must find what it found before. Of the keys that were
written since, those that it had found must be unchanged, and none of the others may now rank
among those found. So each is scored, as it is now, and held against the last one found: writes
that cannot enter the answer abort nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
)
from agentmem.request import Scan
from agentmem.search.finder import Found
from agentmem.search.planner import Ranked, combined, decayed
from agentmem.search.vectors import compared
from agentmem.search.words import found_by
from agentmem.staleness import World
from agentmem.values import canonical

__all__ = ["SearchScan", "scan_of"]

# What is read at once, of what may be large.
_NUMBERS: Final = 4_000_000  # of vectors: 16 MB stored
_CHARACTERS: Final = 4_000_000  # of texts


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

    def versions_of(self, heads: Mapping[Place, EntryRow | None], world: World) -> dict[Place, int]:
        """See `Scan.versions_of`."""
        versions = Scan.versions_of(self, heads, world)
        new = [
            Ranked(place, row, None, 0.0, None)
            for place, row in heads.items()
            if row is not None and versions[place] and place not in self.found
        ]
        entering = {each.place for each in self._entering(new, world)} if new else set()
        for each in new:
            if each.place not in entering:
                versions[each.place] = 0
        return versions

    def _entering(self, new: list[Ranked], world: World) -> list[Ranked]:
        """Those that could be in the answer; what they are ranked by is filled in.

        What nearness alone keeps out is left out first: it need not be taken apart into words.
        """
        seen = self.seen
        assert seen is not None, "made by scan_of"
        query = seen.query
        if seen.lacks_vectors or self._is_reindexed(world):
            return new  # by vectors that it has not looked at anything may be near
        self._compare(new, world)
        if query.mode == "vector":
            new = [each for each in new if each.similar is not None]
        if query.at_least is not None:
            least = query.at_least
            new = [each for each in new if each.similar is not None and each.similar >= least]
        if not new:
            return new
        known = self._score(new, world)
        if query.mode != "vector":
            new = [each for each in new if each.text or (each.similar or 0.0) > 0]
        if not new:
            return new
        return self._ranking_among(known, new, world) if self.full else new

    def _compare(self, new: list[Ranked], world: World) -> None:
        """Fills in how near they are to the query."""
        seen = self.seen
        if seen is None or seen.vector_set is None or seen.direction is None:
            return
        set_id, _embedder, dimension = seen.vector_set
        ids = {each.row.id: each for each in new if each.row is not None}
        at_once = max(1, _NUMBERS // dimension)
        for part in _parts(list(ids), lambda _id: 1, at_once):
            vectors = world.vectors(set_id, part)
            stored = {id: each for id, each in vectors.items() if len(each) == 4 * dimension}
            for id, similar in compared(stored, seen.direction).items():
                ids[id].similar = similar

    def _score(self, new: list[Ranked], world: World) -> list[float]:
        """Fills in what their words score, and gives what those of `_known` score.

        The statistics of words have changed since, so what was found is scored again.
        """
        seen = self.seen
        assert seen is not None, "made by scan_of"
        known = self._known()
        words = seen.query.words
        if not words:
            return [0.0] * len(known)
        scores = _scores(world, words, [_text(each) for each in (*known, *new)])
        for each, score in zip(new, scores[len(known) :], strict=True):
            each.text = score
        return scores[: len(known)]

    def _known(self) -> list[Ranked]:
        """What others are ranked among: all that was found, and what holds the words best."""
        assert self.seen is not None, "made by scan_of"
        answer = self.seen.answer
        if not self.full:
            return []
        return answer.ranked if answer.best is None else [*answer.ranked, answer.best]

    def _ranking_among(self, scores: list[float], new: list[Ranked], world: World) -> list[Ranked]:
        """Those that rank before the last one found.

        What held the words best need not be among what was found, nor be there any more: what
        lies between is decided by the two ends, as scores are linear in one divided by the best.
        One that holds them better still may let others in that are nearer, so that all count.

        Args:
            scores: of the words of what is known, see `_known`.
        """
        seen = self.seen
        assert seen is not None, "made by scan_of"
        query, ranked = seen.query, seen.answer.ranked
        texts = [each.text for each in new]
        ends = {max(*texts, *scores[: len(ranked)]), max(*texts, *scores)}
        lasts: dict[float, tuple[float, Place]] = {}

        def sorts(each: Ranked, words: float, best: float) -> tuple[float, Place]:
            score = combined(query, seen.weight, words, each.similar, best)
            return -decayed(query, score, each.row, world.now), each.place

        def last(best: float) -> tuple[float, Place]:
            if best not in lasts:
                found = zip(ranked, scores, strict=False)
                lasts[best] = max(sorts(each, words, best) for each, words in found)
            return lasts[best]

        return [
            each for each in new if any(sorts(each, each.text, best) < last(best) for best in ends)
        ]

    def _is_reindexed(self, world: World) -> bool:
        """Whether the vectors that it has looked at gave way to those of another embedder."""
        vector_set = self.seen.vector_set if self.seen is not None else None
        return vector_set is not None and vector_set.id not in world.spaces().of.values()


def _scores(world: World, words: Sequence[str], texts: Sequence[str]) -> list[float]:
    scores = [0.0] * len(texts)  # of an empty one
    some = [index for index, text in enumerate(texts) if text]
    for part in _parts(some, lambda index: len(texts[index]), _CHARACTERS):
        found = world.text_scores(words, [texts[index] for index in part])
        for index, score in zip(part, found, strict=True):
            scores[index] = score
    return scores


def _parts(items: Sequence[int], size: Callable[[int], int], most: int) -> Iterator[list[int]]:
    """The items in parts that are no larger than that in all, or hold but one."""
    part: list[int] = []
    total = 0
    for item in items:
        total += size(item)
        if part and total > most:
            yield part
            part, total = [], size(item)
        part.append(item)
    if part:
        yield part


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
