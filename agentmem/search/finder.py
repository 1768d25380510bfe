"""Answering searches: which vectors count, where candidates come from, what is kept for the next.

Imported with the first search, as NumPy is: a store that is never searched does without.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from agentmem.engines.base import Engine, Reading
from agentmem.engines.rows import Place, Position, Range, Spaces, VectorSet
from agentmem.errors import EmbedderError
from agentmem.model import Entry
from agentmem.namespaces import encode
from agentmem.scope import Scope
from agentmem.search.indexes import LOOK_S, Indexes
from agentmem.search.live import LiveVectors, Rows
from agentmem.search.past import Past
from agentmem.search.planner import Answer, Own, Plan
from agentmem.search.query import SearchQuery
from agentmem.search.sources import (
    IndexedVectors,
    NearestVectors,
    NoVectors,
    VectorSource,
    as_of,
)
from agentmem.search.spaces import top_label, wrong_embedder
from agentmem.search.texts import Texts
from agentmem.search.vectors import compared, direction, unpack

if TYPE_CHECKING:
    from agentmem.search.embedders import Embedder
    from agentmem.search.vectors import Vector

__all__ = ["Finder", "Found"]

_MAX_LIVE: Final = 8  # namespaces whose vectors are kept in memory
_MAX_PAST: Final = 16  # views whose difference is kept

Written = dict[Place, tuple[Entry[Any] | None, bytes | None]]
"""What a view has written itself: the entry of each place (None: deleted), and its vector."""


class Found:
    """An answer, and what tells whether a later write would be in it.

    Attributes:
        answer: the entries.
        query: what was asked.
        vector_set: whose vectors were looked at; None: none.
        direction: of the query's vector.
        weight: of words in hybrid ranking.
        lacks_vectors: whether vectors were looked for where there are none yet.
    """

    __slots__ = ("answer", "direction", "lacks_vectors", "query", "vector_set", "weight")

    def __init__(
        self,
        answer: Answer,
        query: SearchQuery,
        vector_set: VectorSet | None,
        direction: Vector | None,
        weight: float,
        *,
        lacks_vectors: bool,
    ) -> None:
        self.lacks_vectors = lacks_vectors
        self.answer = answer
        self.query = query
        self.vector_set = vector_set
        self.direction = direction
        self.weight = weight


class Finder:
    """Searches one store in one process. Safe for use from many threads."""

    def __init__(self, engine: Engine, indexes: Indexes, spaces: Callable[[int], Spaces]) -> None:
        """
        Args:
            spaces: gives the spaces, and is told how often they have changed.
        """
        self._engine = engine
        self._indexes = indexes
        self._spaces = spaces
        self._lock = threading.Lock()  # protects what follows
        self._live: OrderedDict[tuple[int, str], LiveVectors] = OrderedDict()
        self._past: OrderedDict[tuple[int, str], Past] = OrderedDict()
        self._looked_at = 0.0

    def search(
        self,
        embedder: Embedder | None,
        scope: Scope,
        query: SearchQuery,
        view: tuple[int, int],
        reading: Reading,
        own: Written | None = None,
        embedded: dict[str, bytes] | None = None,
    ) -> Found:
        """See `Searcher.search`."""
        within = Range(encode(query.labels))
        chosen, compares = self._chosen(embedder, query, within, reading)
        towards = None
        # Where there are no vectors yet, those of the view's own writes can be compared.
        if chosen is not None or (compares and own):
            stored = query.vector
            if stored is None:
                stored = _query_vector(embedder, query.text or "", embedded)
            if chosen is not None and len(stored) != 4 * chosen.dimension:
                raise EmbedderError(
                    f"the query's vector has {len(stored) // 4} dimensions, and those of the "
                    f"namespace have {chosen.dimension}"
                )
            towards = direction(unpack(stored))
        weight = 1.0
        if embedder is not None and query.mode != "text":
            weight = embedder.text_weight
        mine = Own()
        if own:
            mine.entries = {place: entry for place, (entry, _vector) in own.items()}
            if towards is not None:
                mine.similar = _similar(own, towards)
        revision = view[0]
        vectors: VectorSource | None = None
        if towards is not None:
            vectors = NoVectors()
            if chosen is not None:
                vectors = self._vectors(chosen, within, revision, towards, reading)
        texts = Texts(
            self._engine, query.words, within, revision, lambda: self._past_of(within, revision)
        )
        plan = Plan(
            self._engine,
            reading,
            scope,
            query,
            view,
            texts=texts,
            vectors=vectors,
            weight=weight,
            own=mine,
        )
        looks = query.vector is not None or (query.mode != "text" and embedder is not None)
        lacks = looks and chosen is None
        return Found(plan.answer(), query, chosen, towards, weight, lacks_vectors=lacks)

    def forget(self) -> None:
        """Drops what is kept in memory of what was purged."""
        with self._lock:
            self._live.clear()
            self._past.clear()

    @property
    def nbytes(self) -> int:
        """Memory of the vectors that are kept."""
        with self._lock:
            return sum(each.nbytes for each in self._live.values())

    def _chosen(
        self, embedder: Embedder | None, query: SearchQuery, within: Range, reading: Reading
    ) -> tuple[VectorSet | None, bool]:
        """The set whose vectors a query is compared with, and whether vectors count at all.

        None: there are none yet that it could be compared with.

        Raises:
            EmbedderError: the namespace has vectors, but none that fit the query.
        """
        if query.mode == "text" or (query.mode == "hybrid" and embedder is None):
            return None, False
        spaces = self._spaces(reading.spaces_count)
        inside = spaces.of
        if within.namespace:
            label = top_label(within.namespace)
            inside = {label: inside[label]} if label in inside else {}
        used = {spaces.sets[set_id] for set_id in set(inside.values())}
        if query.vector is not None:
            return _given(query.vector, used, embedder), True
        if embedder is None:
            raise EmbedderError(
                'mode="vector" for words needs an embedder: agentmem.open(..., embedder=...), or '
                "the extra local (pip install 'agentmem-store[local]'); or give a vector"
            )
        mine = [found for found in used if found.embedder == embedder.identity]
        others = len(used) > len(mine)
        if others and (not embedder.automatic or (not mine and query.mode == "vector")):
            label = min(each for each in inside if spaces.sets[inside[each]] not in mine)
            raise wrong_embedder(label, spaces.sets[inside[label]], embedder)
        return (mine[0], True) if mine else (None, not inside)

    def _vectors(
        self,
        chosen: VectorSet,
        within: Range,
        revision: int,
        towards: Vector,
        reading: Reading,
    ) -> VectorSource:
        opened = self._indexes.get(chosen, within, revision)
        if opened is None and self._indexes.has_its_own(chosen, within, revision):
            return NearestVectors(
                self._engine, reading, chosen, within, revision, towards,
                past=lambda: self._past_vectors(chosen, within, revision),
                everything=lambda: self._exact(chosen, within, revision, towards),
            )  # fmt: skip
        if opened is None:
            return self._exact(chosen, within, revision, towards)
        generation, live = opened
        past = None
        if revision < live.origin:
            past = self._past_vectors(chosen, within, revision)
        return IndexedVectors(
            self._engine, reading, chosen, generation, live, past, revision, towards,
            everything=lambda: self._exact(chosen, within, revision, towards),
        )  # fmt: skip

    def _past_vectors(self, chosen: VectorSet, within: Range, revision: int) -> Rows | None:
        difference = self._past_of(within, revision)
        if difference is None:
            return None
        return difference.vectors(chosen.id, chosen.dimension)

    def _exact(
        self, chosen: VectorSet, within: Range, revision: int, towards: Vector
    ) -> VectorSource:
        live = self.live(chosen, within, revision)
        past = None
        if revision < live.origin:
            past = self._past_vectors(chosen, within, revision)
        return as_of(live.rows(revision, within.namespace), past, towards)

    def live(
        self,
        chosen: VectorSet,
        within: Range,
        revision: int,
        progress: Callable[[int], None] | None = None,
    ) -> LiveVectors:
        """The vectors in memory of a set below a namespace, at or after the revision."""
        key = (chosen.id, within.namespace)
        with self._lock:
            whole = self._live.get((chosen.id, ""))
            known = whole if whole is not None else self._live.get(key)
        if known is not None and known.at.revision < revision:
            position = self._engine.position()
            try:
                is_current = known.fits(position) and known.advance(position)
            except BaseException:
                self._drop(known)  # struck in the middle, it may hold what is not so
                raise
            if not is_current:
                known = None
        elif known is not None and not self._same_history(known.at):
            known = None
        if known is None:
            known = LiveVectors(self._engine, chosen, within, progress=progress)
        with self._lock:
            self._live[chosen.id, known.within.namespace] = known
            self._live.move_to_end((chosen.id, known.within.namespace))
            while len(self._live) > _MAX_LIVE:
                self._live.popitem(last=False)
        return known

    def _drop(self, live: LiveVectors) -> None:
        with self._lock:
            for key in [key for key, each in self._live.items() if each is live]:
                del self._live[key]

    def _same_history(self, at: Position) -> bool:
        now = time.monotonic()
        if now < self._looked_at + LOOK_S:
            return True
        self._looked_at = now
        position = self._engine.position()
        if position.revision == at.revision:
            return position.hash == at.hash
        return position.revision > at.revision

    def _past_of(self, within: Range, revision: int) -> Past | None:
        """The entries at a revision of what was written since; None if nothing was."""
        key = (revision, within.namespace)
        with self._lock:
            known = self._past.get(key)
        if known is None:
            if self._engine.position().revision == revision:
                return None
            known = Past(self._engine, within, revision)
        known.follow()
        with self._lock:
            self._past[key] = known
            self._past.move_to_end(key)
            while len(self._past) > _MAX_PAST:
                self._past.popitem(last=False)
        return known


def _given(vector: bytes, found: set[VectorSet], embedder: Embedder | None) -> VectorSet | None:
    """The set for a vector that the caller gave."""
    dimension = len(vector) // 4
    fitting = sorted(each for each in found if each.dimension == dimension)
    if found and not fitting:
        known = ", ".join(str(each.dimension) for each in sorted(found))
        raise EmbedderError(
            f"the query's vector has {dimension} dimensions, and those of the namespace have "
            f"{known}"
        )
    mine = [each for each in fitting if embedder and each.embedder == embedder.identity]
    if len(fitting) > 1 and not mine:
        raise EmbedderError(
            "namespaces below this one have vectors of different embedders; search one of them"
        )
    return next(iter(mine or fitting), None)


def _query_vector(embedder: Embedder | None, text: str, embedded: dict[str, bytes] | None) -> bytes:
    assert embedder is not None, "it has chosen the set"
    known = embedded.get("query:" + text) if embedded is not None else None
    if known is None:
        known = embedder.embed_query(text)
        if embedded is not None:
            embedded["query:" + text] = known
    return known


def _similar(own: Written, towards: Vector) -> dict[Place, float]:
    vectors = {
        place: vector
        for place, (entry, vector) in own.items()
        if entry is not None and vector is not None and len(vector) == 4 * len(towards)
    }
    return compared(vectors, towards)
