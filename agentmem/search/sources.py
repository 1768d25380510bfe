"""Where candidates that are near the query come from: an index, and what it does not hold.

An index holds the present. What a view of revision R sees differs from it by the keys that were
written since: `Past` has their vectors at R, which are scored as exactly as the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from agentmem.engines.base import Engine, Reading
from agentmem.engines.rows import Range
from agentmem.search.exact import ExactVectors
from agentmem.search.generations import BrokenGenerationError
from agentmem.search.vectors import compared

if TYPE_CHECKING:
    from agentmem.engines.rows import VectorSet
    from agentmem.search.generations import Generation
    from agentmem.search.live import LiveVectors, Rows
    from agentmem.search.vectors import Vector

__all__ = [
    "MAX_DEPTH",
    "BothVectors",
    "IndexedVectors",
    "NearestVectors",
    "NoVectors",
    "VectorSource",
    "as_of",
]

_ALL: Final = 2**63 - 1
_log = logging.getLogger("agentmem")

MAX_DEPTH: Final = 2_048
"""How deep an index is read; past that, every vector is looked at."""


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
        past: Rows | None,
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
        self._after = as_of(live.rows(revision, live.within.namespace), past, query)
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
        self.bound = max(last, self._after.bound)

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
        self._similar.update(compared(stored, self._query))
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
        past: Callable[[], Rows | None],
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
        later: VectorSource = NoVectors()
        if past is not None:
            later = ExactVectors(past, self._query)
            later.extend(depth)
        self.scores = near | later.scores
        # Fewer than were asked for need not be all: then every vector is looked at.
        # Nor has it vectors of zeros, which are nearer than those that point elsewhere.
        last = max(found[-1][1], 0.0) if len(found) == 2 * depth else 1.0
        self.bound = max(last, later.bound)

    def _score(self, entries: list[int]) -> None:
        stored = self._reading.vectors(self._set.id, entries)
        for entry, late in self._engine.vector_revisions(self._set.id, list(stored)).items():
            if late > self._revision:
                del stored[entry]
        self._similar.update(compared(stored, self._query))

    def of(self, entries: list[int]) -> dict[int, float]:
        if self._exact is not None:
            return self._exact.of(entries)
        self._score([each for each in entries if each not in self._similar])
        return {each: self._similar[each] for each in entries if each in self._similar}


class BothVectors:
    """See `VectorSource`: of two others."""

    def __init__(self, one: VectorSource, other: VectorSource) -> None:
        self._both = (one, other)
        self.in_memory = one.in_memory and other.in_memory
        self._note()

    def _note(self) -> None:
        one, other = self._both
        self.scores = one.scores | other.scores
        self.complete = one.complete and other.complete
        self.bound = max(one.bound, other.bound)

    def extend(self, depth: int) -> None:
        for each in self._both:
            each.extend(depth)
        self._note()

    def of(self, entries: list[int]) -> dict[int, float]:
        one, other = self._both
        return one.of(entries) | other.of(entries)


def as_of(rows: Rows, past: Rows | None, query: Vector) -> VectorSource:
    """Every vector of a view: what is in memory, and what was written since, if that is newer."""
    found = ExactVectors(rows, query)
    return found if past is None else BothVectors(found, ExactVectors(past, query, in_memory=False))


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
