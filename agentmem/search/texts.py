"""Candidates that hold a word of the query: of the index, of the difference, and of own writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from agentmem.engines.base import Engine
from agentmem.engines.rows import Place, Range

if TYPE_CHECKING:
    from agentmem.search.past import Past

__all__ = ["Texts"]


class Texts:
    """Entries that hold a word of the query, best first.

    Attributes:
        scores: of those found so far, by entry.
        places: of the same, but for own writes.
        complete: whether these are all.
        bound: no other scores more.
        last: the place of the last one found: others that score as it does come after it.
    """

    def __init__(
        self,
        engine: Engine,
        words: Sequence[str],
        within: Range,
        revision: int,
        past: Callable[[], Past | None],
    ) -> None:
        """
        Args:
            past: the entries at the revision of what was written since, as of when it is called.
        """
        self._engine = engine
        self._words = words
        self._within = within
        self._revision = revision
        self._past = past
        self.scores: dict[int, float] = {}
        self.places: dict[int, Place] = {}
        self.complete = not words
        self.bound = 0.0
        self.last: Place = ("", "")
        self._own: dict[int, float] = {}

    def extend(self, depth: int, also: Collection[int] = ()) -> None:
        """Finds at least so many, if there are so many.

        Args:
            also: entries whose scores must be known afterwards; those not in `scores` hold none.
        """
        if self.complete:
            return
        also = set(also)
        hits = self._engine.text_hits(
            self._words, self._within, self._revision, depth, sorted(also)
        )
        scores = {hit.entry_id: hit.score for hit in hits}
        places = {hit.entry_id: (hit.namespace, hit.key) for hit in hits}
        ends: list[tuple[float, Place]] = []  # of the lists that go on
        others = [hit for hit in hits if hit.entry_id not in also]
        if len(others) >= depth:
            ends.append((-others[-1].score, (others[-1].namespace, others[-1].key)))
        # After the index was read: what has changed since is in the difference.
        past = self._past()
        if past is not None:
            found, more = past.holding(self._words, depth, also)
            if more or len(found) > depth:
                ends.append(found[depth - 1][:2])
            for rank, each in enumerate(found):
                if each.entry_id not in scores and (rank < depth or each.entry_id in also):
                    scores[each.entry_id] = -each.negative
                    places[each.entry_id] = each.place
        self.complete = not ends
        self.bound = 0.0
        if ends:
            negative, self.last = min(ends)
            self.bound = -negative
        self.scores, self.places = scores | self._own, places

    def add_own(self, texts: list[tuple[int, str]]) -> None:
        """Scores texts of own writes, under ids of their own."""
        if not texts or not self._words:
            return
        scores = self._engine.text_scores(self._words, [text for _id, text in texts])
        for (id, _text), score in zip(texts, scores, strict=True):
            if score > 0:
                self.scores[id] = self._own[id] = score
