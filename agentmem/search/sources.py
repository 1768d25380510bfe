"""Where candidates come from: words, vectors, and the difference between then and now.

An index holds the present. What a view of revision R sees differs from it by the keys that were
written since: `Past` reads their entries at R from the log, once for each view, and scores them
as exactly as the index does the others.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from agentmem.engines.base import Engine, Reading
from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
)
from agentmem.search.generations import BrokenGenerationError
from agentmem.search.vectors import directions, similarities, unpack_many
from agentmem.search.words import found_by

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentmem.engines.rows import (
        VectorSet,
    )
    from agentmem.search.generations import Generation
    from agentmem.search.live import LiveVectors, Rows
    from agentmem.search.vectors import Floats, Vector

__all__ = [
    "MAX_DEPTH",
    "ExactVectors",
    "IndexedVectors",
    "NearestVectors",
    "NoVectors",
    "Past",
    "PastVectors",
    "Texts",
    "VectorSource",
]

_ALL: Final = 2**63 - 1
_GROUP: Final = 32
_VALID: Final = -2.0  # rows that are not valid are said to be less similar than this
_LEAST: Final = -8.0  # less than anything is said to be
_FEW: Final = 64  # more than asked for: for these, to sort out with 32 bits pays no more
_MANY: Final = 8  # one row in so many is as long to look at alone as all are
_log = logging.getLogger("agentmem")

MAX_DEPTH: Final = 2_048
"""How deep an index is read; past that, every vector is looked at."""


class Past:
    """The entries that a view of revision R sees of the keys that were written since."""

    def __init__(self, engine: Engine, within: Range, revision: int) -> None:
        self._engine = engine
        self._within = within
        self.revision = revision
        self._upto = revision
        self.rows: dict[Place, EntryRow | None] = {}
        self.ids: set[int] = set()
        self._vectors: dict[int, tuple[int, PastVectors]] = {}

    def follow(self) -> None:
        """Takes in what was written since it last did."""
        end = self._engine.position().revision
        if end <= self._upto:
            return
        changed = self._engine.changed_since(self._upto, self._within, (0, 0))
        new = [place for place in changed if place not in self.rows]
        found = self._engine.points(new, self.revision)
        rows = dict(self.rows) | dict.fromkeys(new)
        for row in found:
            if not row.deleted:
                rows[row.namespace, row.key] = row
        self.rows = rows
        self.ids = {row.id for row in rows.values() if row is not None}
        self._upto = end

    def present(self) -> list[EntryRow]:
        """The entries that there are."""
        return [row for row in self.rows.values() if row is not None]

    def vectors(self, set_id: int, dimension: int) -> PastVectors:
        """Their vectors."""
        size = len(self.ids)
        known = self._vectors.get(set_id)
        if known is not None and known[0] == size:
            return known[1]
        ids = sorted(self.ids)
        stored = self._engine.vectors(set_id, ids)
        for entry_id, late in self._engine.vector_revisions(set_id, ids).items():
            if late > self.revision:
                stored.pop(entry_id, None)
        found = PastVectors(stored, dimension)
        self._vectors[set_id] = (size, found)
        return found


class PastVectors:
    """A few vectors beside those of the index."""

    def __init__(self, stored: dict[int, bytes], dimension: int) -> None:
        self.ids = list(stored)
        self._matrix: Floats = directions(unpack_many(list(stored.values()), dimension))

    def similar(self, query: Vector) -> dict[int, float]:
        """How similar each of them is to a direction."""
        if not self.ids:
            return {}
        return dict(zip(self.ids, similarities(self._matrix, query).tolist(), strict=True))


class Texts:
    """Entries that hold a word of the query, best first.

    Attributes:
        scores: of those found so far, by entry.
        complete: whether these are all.
        bound: no other scores more.
        last: the place of the last one found: others that score as it does come after it.
    """

    def __init__(self, engine: Engine, words: Sequence[str], within: Range, revision: int) -> None:
        self._engine = engine
        self._words = words
        self._within = within
        self._revision = revision
        self.scores: dict[int, float] = {}
        self.complete = not words
        self.bound = 0.0
        self.last: Place = ("", "")
        self._extra: dict[int, float] = {}

    def extend(self, depth: int) -> None:
        """Finds at least so many, if there are so many."""
        if self.complete:
            return
        hits = self._engine.text_hits(self._words, self._within, self._revision, depth)
        self.complete = len(hits) < depth
        if hits and not self.complete:
            self.bound, self.last = hits[-1].score, (hits[-1].namespace, hits[-1].key)
        else:
            self.bound = 0.0
        self.scores = {hit.entry_id: hit.score for hit in hits} | self._extra

    def add(self, rows: list[EntryRow]) -> None:
        """Scores entries that the index does not hold."""
        known = [(row.id, found_by(row.value, row.text)) for row in rows]
        self.add_texts([(id, text) for id, text in known if text is not None])

    def add_texts(self, texts: list[tuple[int, str]]) -> None:
        """Scores texts under ids of their own."""
        if not texts or not self._words:
            return
        scores = self._engine.text_scores(self._words, [text for _id, text in texts])
        for (id, _text), score in zip(texts, scores, strict=True):
            if score > 0:
                self.scores[id] = self._extra[id] = score

    def of(self, row: EntryRow) -> float:
        """The score of an entry that was found by other means."""
        if self.complete or row.id in self.scores:
            return self.scores.get(row.id, 0.0)
        self.add([row])
        return self.scores.setdefault(row.id, 0.0)


class VectorSource(Protocol):
    """Entries near the query's vector, nearest first.

    Attributes:
        in_memory: whether all that it looks at is in memory: it reads nothing from the log.
        scores: the similarities of those found so far, by entry.
        complete: whether these are all.
        bound: no other is more similar.
    """

    in_memory: bool
    scores: dict[int, float]
    complete: bool
    bound: float

    def extend(self, depth: int) -> None:
        """Finds at least so many, if there are so many."""

    def of(self, entries: list[int]) -> dict[int, float]:
        """The similarities of entries that were found by other means, if they have a vector."""


class IndexedVectors:
    """See `VectorSource`: asks a published index, and looks at what came after it.

    The index holds what was current at its watermark. Of its answers those stay that are still
    visible at the revision; they are scored anew, by the vectors of the log.
    """

    def __init__(
        self,
        engine: Engine,
        reading: Reading,
        vector_set: VectorSet,
        generation: Generation,
        live: LiveVectors,
        past: PastVectors | None,
        revision: int,
        query: Vector,
        everything: Callable[[], VectorSource],
    ) -> None:
        """
        Args:
            live: follows the log from the generation's watermark on.
            past: the vectors at the revision of what was written since, if that lies before
                the watermark.
            everything: looks at all vectors; asked if the index is not enough.
        """
        self._engine = engine
        self._reading = reading
        self._set = vector_set
        self._generation = generation
        self._live = live
        self._revision = revision
        self._query = query
        self._everything = everything
        self._after = ExactVectors(live.rows(revision, live.within.namespace), past, query)
        self._exact: VectorSource | None = None
        self._similar: dict[int, float] = {}
        self.in_memory = False
        self.scores: dict[int, float] = {}
        self.complete = False
        self.bound = 1.0

    def extend(self, depth: int) -> None:
        nearest = self._nearest(depth) if depth <= MAX_DEPTH else None
        if nearest is None:
            self._exact = self._exact if self._exact is not None else self._everything()
            self._exact.extend(depth)
            self.scores, self.bound = self._exact.scores, self._exact.bound
            self.complete = self._exact.complete
            return
        found, distances, still = nearest
        taken = [found[index] for index in still[:depth]]
        similar = {each: self._similar[each] for each in taken if each in self._similar}
        whole = len(found) >= self._generation.published.live and len(still) <= depth
        self._after.extend(max(depth, 1))
        self.scores = similar | self._after.scores
        self.complete = whole and self._after.complete
        # What was not taken is no nearer than the next, or, if it was not given, than the last.
        last = -1.0
        if not whole and found:
            last = 1.0 - distances[still[depth] if len(still) > depth else -1]
        self.bound = max(last, self._after.bound if not self._after.complete else -1.0)

    def _nearest(self, depth: int) -> tuple[list[int], list[float], list[int]] | None:
        """What the index gives, how far that is, and at which places are what is still valid.

        None: it is not to be asked any more.
        """
        if self._exact is not None:
            return None
        try:
            found, distances = self._generation.nearest(self._query, 2 * depth)
            ended = self._live.ended
            still = [at for at, each in enumerate(found) if ended.get(each, _ALL) > self._revision]
            taken = [found[at] for at in still[:depth]]
            if not self._score([each for each in taken if each not in self._similar]):
                self._generation.broken = True
                raise BrokenGenerationError("it gives what is not there")
        except BrokenGenerationError as error:
            _log.warning("every vector is looked at, as an index does not answer: %s", error)
            return None
        return found, distances, still

    def _score(self, entries: list[int]) -> bool:
        """Whether all of them have a vector in the log."""
        stored = self._reading.vectors(self._set.id, entries)
        complete = len(stored) == len(entries)
        if self._revision < self._live.origin:
            for entry, late in self._engine.vector_revisions(self._set.id, list(stored)).items():
                if late > self._revision:
                    del stored[entry]
        if stored:
            rows = directions(unpack_many(list(stored.values()), self._set.dimension))
            found = similarities(rows, self._query).tolist()
            self._similar.update(zip(stored, found, strict=True))
        return complete

    def of(self, entries: list[int]) -> dict[int, float]:
        if self._exact is not None:
            return self._exact.of(entries)
        known = self._after.of(entries)
        self._score([each for each in entries if each not in known and each not in self._similar])
        return {each: self._similar[each] for each in entries if each in self._similar} | known


class NearestVectors:
    """See `VectorSource`: asks an index that the database keeps of the present.

    As `IndexedVectors`, but the index is never behind: what was written since the revision is
    looked up after it was asked, so that nothing falls between the two.
    """

    def __init__(
        self,
        engine: Engine,
        reading: Reading,
        vector_set: VectorSet,
        within: Range,
        revision: int,
        query: Vector,
        past: Callable[[], PastVectors | None],
        everything: Callable[[], VectorSource],
    ) -> None:
        self._engine = engine
        self._reading = reading
        self._set = vector_set
        self._within = within
        self._revision = revision
        self._query = query
        self._past = past
        self._everything = everything
        self._exact: VectorSource | None = None
        self._similar: dict[int, float] = {}
        self.in_memory = False
        self.scores: dict[int, float] = {}
        self.complete = False
        self.bound = 1.0

    def extend(self, depth: int) -> None:
        found = None
        if self._exact is None and depth <= MAX_DEPTH:
            asked = self._query.astype("<f4").tobytes()
            found = self._engine.nearest(self._set, asked, self._within, 2 * depth)
        if found is None:
            self._exact = self._exact if self._exact is not None else self._everything()
            self._exact.extend(depth)
            self.scores, self.bound = self._exact.scores, self._exact.bound
            self.complete = self._exact.complete
            return
        past = self._past()
        self._score([entry for entry, _cosine in found if entry not in self._similar])
        near = {entry: self._similar[entry] for entry, _cosine in found if entry in self._similar}
        self.scores = near | (past.similar(self._query) if past is not None else {})
        # Fewer than were asked for need not be all: then every vector is looked at.
        # Nor has it vectors of zeros, which are nearer than those that point elsewhere.
        self.bound = max(found[-1][1], 0.0) if len(found) == 2 * depth else 1.0

    def _score(self, entries: list[int]) -> None:
        stored = self._reading.vectors(self._set.id, entries)
        for entry, late in self._engine.vector_revisions(self._set.id, list(stored)).items():
            if late > self._revision:
                del stored[entry]
        if stored:
            rows = directions(unpack_many(list(stored.values()), self._set.dimension))
            found = similarities(rows, self._query).tolist()
            self._similar.update(zip(stored, found, strict=True))

    def of(self, entries: list[int]) -> dict[int, float]:
        if self._exact is not None:
            return self._exact.of(entries)
        self._score([each for each in entries if each not in self._similar])
        return {each: self._similar[each] for each in entries if each in self._similar}


class NoVectors:
    """See `VectorSource`: there are none."""

    def __init__(self) -> None:
        self.in_memory = True
        self.scores: dict[int, float] = {}
        self.complete = True
        self.bound = -1.0

    def extend(self, depth: int) -> None:
        return

    def of(self, entries: list[int]) -> dict[int, float]:
        return {}


def _least_of_best(near: Vector, depth: int) -> float:
    """A number that at least so many reach, and not many more.

    The best of so many groups are so many entries: so the worst of these will do, and the groups
    need not be sorted inside. Groups are columns: NumPy finds the largest of each several at a
    time (3 µs for 10,000, against 27 if they were rows).
    """
    groups = len(near) // _GROUP
    if depth > groups // 4:
        return float(np.partition(near, len(near) - depth)[len(near) - depth])
    # As `max` and `np.partition` do, without what stands around them.
    best = np.maximum.reduce(near[: groups * _GROUP].reshape(_GROUP, groups), axis=0)
    best.partition(groups - depth)
    return float(best[groups - depth])


class ExactVectors:
    """See `VectorSource`: looks at every vector.

    Up to three times, each time more exactly, and only at those that can still be among the
    nearest: with eight bits a number (if there are many), with 32, and at last with 64.
    """

    def __init__(self, rows: Rows, past: PastVectors | None, query: Vector) -> None:
        self._rows = rows
        self._query = query
        self._glance: tuple[Vector, float] | None = None  # about, and how far off that can be
        self._near: Vector | None = None
        # What float32 sums can be off by.
        self._off = float(np.finfo(np.float32).eps) * len(query) / 2
        self._extra = past.similar(query) if past is not None else {}
        self.in_memory = past is None
        self.scores: dict[int, float] = dict(self._extra)
        self.complete = not len(rows)
        self.bound = -1.0 if self.complete else 1.0

    def extend(self, depth: int) -> None:
        if self.complete:
            return
        rows, query = self._rows, self._query
        positions, self.bound = self._at_a_glance(depth)
        if positions is None:
            if self._near is None:
                self._near = rows.near(query)
            positions = self._candidates(self._near, depth)
            self.complete = self.bound < _VALID
            rest = rows.directions(positions)
        else:
            rest = rows.directions(positions)
            if len(positions) > _FEW + depth:
                left = self._candidates(rest @ query, depth)
                positions, rest = positions[left], rest[left]
        if self.complete:
            self.bound = -1.0
        exact: list[float] = similarities(rest, query).tolist()
        ids: list[int] = rows.ids[positions].tolist()
        found = zip(ids, exact, strict=True)
        if len(exact) > depth and not self.complete:
            # Whoever is below the last of so many needs not be read.
            ordered = sorted(exact)
            last = ordered[-depth]
            below = bisect_left(ordered, last)
            if below:
                self.bound = max(self.bound, ordered[below - 1])
            self.scores = {id: near for id, near in found if near >= last} | self._extra
        else:
            self.scores = dict(found) | self._extra

    def _candidates(self, near: Vector, depth: int) -> NDArray[np.int64]:
        """The places of those that can be among the nearest, by sums of float32 numbers."""
        least = _LEAST
        if depth < len(near):
            least = _least_of_best(near, depth) - self._off
        self.bound = max(self.bound, least)
        return (near >= max(least - self._off, _VALID)).nonzero()[0]

    def _at_a_glance(self, depth: int) -> tuple[NDArray[np.int64] | None, float]:
        """The places of those that can be among the nearest; no other is more similar than this.

        None: all must be looked at.
        """
        rows = self._rows
        if self._near is not None or depth >= len(rows) or not rows.are_quantized:
            return None, _LEAST
        if self._glance is None:
            self._glance = rows.glance(self._query)
        near, off = self._glance
        least = _least_of_best(near, depth) - off
        positions = (near >= least - off).nonzero()[0]
        if least < _VALID or len(positions) > len(rows) // _MANY:
            return None, _LEAST
        return positions, least

    def of(self, entries: list[int]) -> dict[int, float]:
        return self._rows.of(entries, self._query) | {
            entry: self._extra[entry] for entry in entries if entry in self._extra
        }
