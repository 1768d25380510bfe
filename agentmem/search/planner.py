"""How a search is answered: exactly as of one revision, however far an index lags.

Candidates come from two lists, each best first: entries that hold a word of the query, and
entries whose vector is near the query's. Both are as of the revision (see `sources`). They are
loaded from the log, which decides whether a view may see them, and ranked by both together.

How deep the lists must be read: no entry below a depth can score more than the last ones of both
lists together would. Once as many entries as were asked for score more than that bound, nothing
below it can be in the answer (the threshold algorithm of Fagin, Lotem & Naor, 2003).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any, Final, NamedTuple

from agentmem.engines.base import Engine, Reading, check_floor
from agentmem.engines.rows import (
    EntryRow,
    Place,
)
from agentmem.model import Entry, Hit
from agentmem.namespaces import encode
from agentmem.records import entry_of
from agentmem.scope import Scope
from agentmem.search.query import SearchQuery
from agentmem.search.sources import VectorSource
from agentmem.search.texts import Texts
from agentmem.values import load

__all__ = ["Answer", "Own", "Plan", "Ranked", "combined", "decayed"]

_SPARE: Final = 4  # candidates beyond those asked for, where some may be of no use
_DEEPER: Final = 4  # times as deep, if that was not enough
_AHEAD: Final = 2  # times as deep as is looked at, where a look at all words is the price
_NOWHERE: Final = -2.0  # less similar than anything is
_AFTER_ALL: Final = (0.0, ("", ""))  # whatever holds a word
_AT_ONCE: Final = 8  # candidates, to see which holds the words best


@dataclass(slots=True)
class Own:
    """What a transaction has written itself: it hides what is there.

    Attributes:
        entries: the entry of each place, None for a deleted one.
        similar: how similar each is to the query, if it has a vector.
    """

    entries: dict[Place, Entry[Any] | None] = field(default_factory=dict)
    similar: dict[Place, float] = field(default_factory=dict)


@dataclass(slots=True)
class Ranked:
    """A candidate that the view may see.

    Attributes:
        place: its key.
        row: its entry; None for an own write.
        entry: the own write.
        text: the score of its words, 0 if it holds none.
        similar: the similarity of its vector; None if it has none.
        score: what it is ranked by.
    """

    place: Place
    row: EntryRow | None
    entry: Entry[Any] | None
    text: float
    similar: float | None
    score: float = 0.0


@dataclass(slots=True)
class Answer:
    """What a search found, best first, and by what it can be seen whether another would enter.

    Attributes:
        ranked: down to the depth that was asked for.
        best: the candidate that holds the words best, which those of others are measured by in
            hybrid ranking; None if there is no candidate.
        text_ranks, vector_ranks: rank in each list, from 1 on, within the depth.
    """

    ranked: list[Ranked]
    best: Ranked | None
    text_ranks: dict[Place, int]
    vector_ranks: dict[Place, int]

    def hits(self, query: SearchQuery, scope: Scope) -> list[Hit]:
        """The hits of the page that was asked for."""
        return [
            Hit(
                each.entry if each.row is None else entry_of(each.row, scope),  # type: ignore[arg-type]  # one of them is set
                each.score,
                self.text_ranks.get(each.place),
                self.vector_ranks.get(each.place),
                None if each.similar is None else 1.0 - each.similar,
            )
            for each in self.ranked[query.offset :]
        ]


def combined(
    query: SearchQuery, weight: float, text: float, similar: float | None, best_text: float
) -> float:
    """The score of a candidate, before its age counts.

    Args:
        weight: of words in hybrid ranking.
        text: the score of its words.
        similar: of its vector.
        best_text: the largest score of words of all that the view may see.
    """
    if query.mode == "text":
        return text
    if query.mode == "vector":
        return -1.0 if similar is None else similar
    words = text / best_text if best_text > 0 else 0.0
    if weight >= 1:
        return words
    return weight * words + (1 - weight) * max(0.0, similar or 0.0)


def decayed(query: SearchQuery, score: float, row: EntryRow | None, instant: int) -> float:
    """A score as it is after so long: 0.5 ^ (age / half-life) of it."""
    if query.half_life_us is None or row is None:
        return score
    age = max(0, instant - row.committed_at)
    return float(score * 0.5 ** (age / query.half_life_us))


class _Left(NamedTuple):
    """What was left out of the candidates is no better than this."""

    score: float
    text: tuple[float, Place]  # a score below 0, as it sorts
    similar: float


def _rank(each: Ranked) -> tuple[float, Place]:
    return -each.score, each.place


class Plan:
    """One search. What it needs of the world is given, so that it is the same for every index."""

    def __init__(
        self,
        engine: Engine,
        reading: Reading,
        scope: Scope,
        query: SearchQuery,
        view: tuple[int, int],
        *,
        texts: Texts,
        vectors: VectorSource | None,
        weight: float,
        own: Own | None = None,
    ) -> None:
        """
        Args:
            view: (revision, instant).
            weight: of words in hybrid ranking.
        """
        self._engine = engine
        self._reading = reading
        self._scope = scope
        self._query = query
        self._revision, self._instant = view
        self._texts = texts
        self._vectors = vectors
        self._weight = weight if vectors is not None else 1.0
        self._own = own if own is not None else Own()
        self._allowed = scope.readable(query.labels)
        self._within = encode(query.labels)
        self._rows: dict[int, EntryRow | None] = {}  # None: the view may not see it
        self._is_restricted = bool(
            self._within
            or self._own.entries
            or self._allowed is not None
            or query.filter is not None
        )
        # An age changes scores, and is known only once an entry was read.
        self._prunes = (
            vectors is not None and query.mode == "hybrid" and query.half_life_us is None
        ) and bool(query.words)
        self._left: _Left | None = None
        self._has_looked = False  # at the floor, after all else was read
        # Own writes have ids below 0.
        self._own_places = {-1 - index: place for index, place in enumerate(self._own.entries)}

    def answer(self) -> Answer:
        """Reads as deep as it must."""
        depth = self._query.depth
        if self._query.words or self._query.filter is not None or self._allowed is not None:
            depth += _SPARE
        self._score_own()
        while True:
            self._has_looked = False
            # First what is near, so that the words of these are looked at with the others.
            ahead = depth * _AHEAD if self._prunes else depth
            if self._vectors is not None:
                self._vectors.extend(ahead)
            self._texts.extend(ahead, self._vectors.scores if self._vectors is not None else ())
            found = self._ranked(depth)
            if found is not None:
                # Not all that was read has looked at the floor, and the last of it counts.
                if not self._has_looked:
                    check_floor(self._revision, self._engine.floor())
                return found
            depth *= _DEEPER

    def _score_own(self) -> None:
        texts = []
        for id, place in self._own_places.items():
            entry = self._own.entries[place]
            if entry is not None and entry.text is not None:
                texts.append((id, entry.text))
        self._texts.add_own(texts)

    def _ranked(self, few: int) -> Answer | None:
        """The answer; None if more must be looked at than the best few of each list."""
        texts, vectors = self._texts, self._vectors
        near = vectors.scores if vectors is not None else {}
        words = texts.scores if self._query.mode != "vector" else {}
        by_vector = self._query.mode == "vector" and not self._own_places
        if self._prunes:
            words, near = self._pruned(words, near, few)
        elif by_vector and self._query.half_life_us is None:
            near = self._nearest(near, few)
        complete = texts.complete and (vectors is None or vectors.complete) and self._left is None
        self._load(list(near) if by_vector else [id for id in {**words, **near} if id >= 0])
        most: Ranked | None = None
        best_text = 0.0
        if by_vector:
            found = self._near(near)
        else:
            found = [each for each in self._candidates(words, near) if self._wanted(each)]
            most = max(found, key=lambda each: each.text, default=None)
            best_text = most.text if most is not None else 0.0
            if not complete and not best_text and not texts.complete:
                return None  # what the others are measured by lies deeper
            for each in found:
                each.score = combined(self._query, self._weight, each.text, each.similar, best_text)
        if self._query.half_life_us is not None:
            for each in found:
                each.score = decayed(self._query, each.score, each.row, self._instant)
        found = self._cut(found)
        found.sort(key=_rank)
        depth = self._query.depth
        if not complete and not self._is_enough(found, best_text):
            return None
        if by_vector and self._query.half_life_us is None:
            best = found[:depth]
            return Answer(best, most, {}, {each.place: rank for rank, each in enumerate(best, 1)})
        if not complete and not self._has_ranks(found):
            return None
        return Answer(
            found[:depth],
            most,
            self._ranks(found, lambda each: each.text, least=0.0),
            self._ranks(
                found,
                lambda each: _NOWHERE if each.similar is None else each.similar,
                least=_NOWHERE,
            ),
        )

    def _pruned(
        self, words: dict[int, float], near: dict[int, float], few: int
    ) -> tuple[dict[int, float], dict[int, float]]:
        """The candidates that are worth to be read: the best few in all, and of each list.

        What they score is known without that, but for whether the view may see the one that
        holds the words best, by which the others are measured.
        """
        self._left = None
        vectors = self._vectors
        best_text = self._best_text(words) if len(words | near) > 3 * few else 0.0
        if vectors is None or not best_text:
            return words, near
        near = near | vectors.of([id for id in words if id >= 0 and id not in near])
        own = {id: self._own.similar.get(place) for id, place in self._own_places.items()}
        scores = {
            id: combined(
                self._query, self._weight, words.get(id, 0.0), near.get(id, own.get(id)), best_text
            )
            for id in words | near
        }
        by_words = sorted((-text, self._place(id), id) for id, text in words.items())
        kept = set(own) | {id for _text, _place, id in by_words[:few]}
        for each in (scores, near):
            kept.update(nlargest(few, each, key=each.__getitem__))
        left = [id for id in scores if id not in kept]
        if left:
            self._left = _Left(
                max(scores[id] for id in left),
                next(((text, place) for text, place, id in by_words if id not in kept), _AFTER_ALL),
                max(near.get(id, _NOWHERE) for id in left),
            )
        return (
            {id: text for id, text in words.items() if id in kept},
            {id: similar for id, similar in near.items() if id in kept},
        )

    def _nearest(self, near: dict[int, float], few: int) -> dict[int, float]:
        """As `_pruned`, where vectors alone count: each list has as many as were asked for."""
        self._left = None
        if len(near) <= few:
            return near
        last = nlargest(few, near.values())[-1]
        kept = {id: similar for id, similar in near.items() if similar >= last}
        if len(kept) < len(near):
            left = max(similar for similar in near.values() if similar < last)
            self._left = _Left(left, _AFTER_ALL, left)
        return kept

    def _best_text(self, words: dict[int, float]) -> float:
        """The best score of words that the view may see; 0 if there is none among them."""
        ordered = sorted(words, key=words.__getitem__, reverse=True)
        for start in range(0, len(ordered), _AT_ONCE):
            some = ordered[start : start + _AT_ONCE]
            self._load([id for id in some if id >= 0])
            for id in some:
                if self._own_entry(id) if id < 0 else self._rows[id]:
                    return words[id]
        return 0.0

    def _place(self, id: int) -> Place:
        return self._own_places[id] if id < 0 else self._texts.places[id]

    def _own_entry(self, id: int) -> Entry[Any] | None:
        """An own write that the query may find."""
        entry = self._own.entries[self._own_places[id]]
        if entry is None or self._query.filter is None or self._query.filter.matches(entry.value):
            return entry
        return None

    def _is_enough(self, found: list[Ranked], best_text: float) -> bool:
        """Whether nothing that was not looked at ranks before the last one asked for."""
        if len(found) < self._query.depth:
            return False
        last = found[self._query.depth - 1]
        if last.score > self._bound(best_text):
            return True
        # Where words alone count, their list is in order down to its end, those that score the
        # same included.
        return (
            self._vectors is None
            and self._query.half_life_us is None
            and (-last.text, last.place) <= (-self._texts.bound, self._texts.last)
        )

    def _bound(self, best_text: float) -> float:
        """No entry that was not looked at scores more."""
        similar = self._vectors.bound if self._vectors is not None else None
        bound = combined(self._query, self._weight, self._texts.bound, similar, best_text)
        if self._left is not None:
            bound = max(bound, self._left.score)
        # Age brings what is below 0 nearer to it.
        return max(bound, 0.0) if self._query.half_life_us is not None else bound

    def _load(self, ids: list[int]) -> None:
        new = [id for id in ids if id not in self._rows]
        if not new:
            return
        self._rows.update(dict.fromkeys(new))
        # With words the floor is looked at in the end.
        now = not self._query.words and (self._vectors is None or not self._vectors.in_memory)
        rows, revision, instant = self._rows, self._revision, self._instant
        sees = self._may_see if self._is_restricted else None
        for row in self._reading.entries(new, revision, now=now):
            if row.revision <= revision and row.visible_at(instant) and (sees is None or sees(row)):
                rows[row.id] = row
        # What else would be read for the words of these entries comes after it.
        self._has_looked = not self._query.words

    def _may_see(self, row: EntryRow) -> bool:
        """Whether an entry that is there passes what the view and the query are restricted to."""
        place = (row.namespace, row.key)
        return (
            # An index may be one of a whole store: what it gives can lie anywhere.
            row.namespace.startswith(self._within)
            and place not in self._own.entries
            and (self._allowed is None or self._allowed(place))
            and (
                self._query.filter is None or self._query.filter.matches(load(row.value or "null"))
            )
        )

    def _near(self, near: dict[int, float]) -> list[Ranked]:
        """The candidates where vectors alone count, and the view has written nothing itself."""
        rows = self._rows
        return [
            Ranked((row.namespace, row.key), row, None, 0.0, similar, similar)
            for id, similar in near.items()
            if (row := rows[id]) is not None
        ]

    def _candidates(self, words: dict[int, float], near: dict[int, float]) -> Iterable[Ranked]:
        rows = [(id, self._rows[id]) for id in {**words, **near} if id >= 0]
        seen = [(id, row) for id, row in rows if row is not None]
        if self._vectors is not None and words:
            near = near | self._vectors.of([id for id, _row in seen if id not in near])
        for id, row in seen:
            yield Ranked((row.namespace, row.key), row, None, words.get(id, 0.0), near.get(id))
        for id, place in self._own_places.items():
            entry = self._own_entry(id)
            if entry is not None:
                similar = self._own.similar.get(place)
                yield Ranked(place, None, entry, words.get(id, 0.0), similar)

    def _wanted(self, each: Ranked) -> bool:
        if self._query.mode == "text":
            return each.text > 0
        if self._query.mode == "vector":
            return each.similar is not None
        return each.text > 0 or (each.similar is not None and each.similar > 0)

    def _cut(self, found: list[Ranked]) -> list[Ranked]:
        least = self._query.at_least
        if least is None:
            return found
        return [each for each in found if each.similar is not None and each.similar >= least]

    def _has_ranks(self, found: list[Ranked]) -> bool:
        """Whether nothing that was not looked at stands before one of the answer in a list.

        What a filter leaves out was looked at in vain, so a list may be known less deep than the
        answer reaches. The list of words is known down to its last entry, that of vectors as far
        as its bound, and both only before what was left out.
        """
        texts, vectors, depth, left = self._texts, self._vectors, self._query.depth, self._left
        last = _AFTER_ALL if texts.complete else (-texts.bound, texts.last)
        if left is not None:
            last = min(last, left.text)
        if last != _AFTER_ALL:
            known = [each.text > 0 and (-each.text, each.place) <= last for each in found]
            if sum(known) < depth and any(
                each.text > 0 and not is_known
                for each, is_known in zip(found[:depth], known, strict=False)
            ):
                return False
        bound = _NOWHERE if vectors is None or vectors.complete else vectors.bound
        if left is not None:
            bound = max(bound, math.nextafter(left.similar, math.inf))
        near = [each.similar for each in found if each.similar is not None]
        if sum(each >= bound for each in near) < depth:
            top = [each.similar for each in found[:depth] if each.similar is not None]
            return all(each >= bound for each in top)
        return True

    def _ranks(
        self, found: list[Ranked], score: Callable[[Ranked], float], least: float
    ) -> dict[Place, int]:
        ordered = sorted(
            (each for each in found if score(each) > least),
            key=lambda each: (-score(each), each.place),
        )
        return {each.place: rank for rank, each in enumerate(ordered[: self._query.depth], 1)}
