"""What a store needs to search: its embedder, its indexes, and which of them answers."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    Place,
    Position,
    Range,
    Spaces,
    VectorSet,
)
from agentmem.errors import EmbedderError, InvalidValueError
from agentmem.limits import Limits
from agentmem.model import Entry
from agentmem.namespaces import encode
from agentmem.request import Request, Write
from agentmem.scope import Scope
from agentmem.search.embedders import Embedder
from agentmem.search.indexes import LOOK_S, Indexes
from agentmem.search.query import SearchQuery
from agentmem.search.spaces import gives_way, set_of, top_label, wrong_embedder
from agentmem.search.vectors import direction, unpack
from agentmem.search.words import found_by

if TYPE_CHECKING:
    from agentmem.search.live import LiveVectors
    from agentmem.search.planner import Answer
    from agentmem.search.sources import Past, PastVectors, VectorSource
    from agentmem.search.vectors import Vector

__all__ = ["INDEXES", "Found", "Searcher"]

INDEXES: Final = ("auto", "exact", "chroma")
_ALL: Final = 2**62
_MAX_PENDING: Final = 100_000  # that are counted
_MAX_LIVE: Final = 8  # namespaces whose vectors are kept in memory
_MAX_PAST: Final = 16  # views whose difference is kept


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


class Searcher:
    """Searches one store in one process. Safe for use from many threads.

    Attributes:
        embedder: what makes vectors of texts; None: nothing does.
        index: ``auto``, ``exact`` or ``chroma``.
    """

    def __init__(
        self, engine: Engine, limits: Limits, embedder: Embedder | None, index: str
    ) -> None:
        if index not in INDEXES:
            raise InvalidValueError(f"index is 'auto', 'exact' or 'chroma', not {index!r}")
        self.embedder = embedder
        self.index = index
        self._engine = engine
        self._lock = threading.Lock()  # protects what follows
        self._live: OrderedDict[tuple[int, str], LiveVectors] = OrderedDict()
        self._past: OrderedDict[tuple[int, str], Past] = OrderedDict()
        self._spaces: tuple[int, Spaces] | None = None
        self._looked_at = 0.0
        self._indexes = Indexes(engine, limits, index)

    def seen_by(self, embedder: Embedder | None) -> Searcher:
        """The same searcher with another embedder; what is kept in memory is of both."""
        other = copy.copy(self)
        other.embedder = embedder
        return other

    # Writing: vectors for what is written.

    def prepare(self, request: Request) -> None:
        """Looks what search will see of the writes, and embeds it, before any lock is taken.

        Raises:
            EmbedderError: the embedder failed, or is not that of the namespace.
        """
        if self.embedder is None:
            for write in request.writes.values():
                if write.vector is not None:
                    request.has_vectors = True
            return
        request.embedder = self.embedder
        request.has_vectors = True
        texts: dict[str, None] = {}
        for place, write in request.writes.items():
            if write.value is None or write.steps:
                continue
            write.words = found_by(write.value, write.text)
            if write.words is None or write.vector is not None or write.deferred:
                continue
            if self._embeds(place):
                texts[write.words] = None
        self.embed(request, [text for text in texts if text not in request.vectors])

    def embed(self, request: Request, texts: list[str]) -> None:
        """Adds the vectors of texts to a request."""
        if texts and self.embedder is not None:
            made = self.embedder.embed(texts)
            request.vectors.update(zip(texts, made, strict=True))

    def _embeds(self, place: Place) -> bool:
        """Whether the embedder makes the vectors at a place; judged again under the lock."""
        embedder = self.embedder
        if embedder is None:
            return False
        label = top_label(place[0])
        known = self._spaces
        found = set_of(known[1], label) if known is not None else None
        if found is None or found.embedder != embedder.identity:
            found = set_of(self.spaces(), label)
        if found is None or found.embedder == embedder.identity:
            return True
        if gives_way(embedder, found):
            return False
        raise wrong_embedder(label, found, embedder)

    def vector_of(
        self, place: Place, write: Write, entry: Entry[Any] | None, known: dict[str, bytes]
    ) -> bytes | None:
        """The vector that a write will have, for a search before its commit.

        Args:
            entry: what it writes; None: it deletes.
            known: vectors of texts; added to.
        """
        if entry is None or entry.text is None:
            return write.vector if entry is not None else None
        if write.vector is not None and not write.steps:
            return write.vector
        if write.deferred or self.embedder is None or not self._embeds(place):
            return None
        if entry.text not in known:
            known[entry.text] = self.embedder.embed([entry.text])[0]
        return known[entry.text]

    def vector_to_compare(self, place: Place, write: Write, known: dict[str, bytes]) -> bytes:
        """The vector of a write that is to be compared with those that are there.

        Raises:
            EmbedderError: it has none, and cannot be given one.
            InvalidValueError: it is to be embedded later.
        """
        if write.vector is not None:
            return write.vector
        if write.deferred:
            raise InvalidValueError('similar= compares vectors, so embed="deferred" cannot be')
        words = found_by(write.value, write.text)
        if words is None or self.embedder is None or not self._embeds(place):
            raise EmbedderError(
                "similar= compares vectors: give vector=, or a text and "
                "agentmem.open(..., embedder=...)"
            )
        if words not in known:
            known[words] = self.embedder.embed([words])[0]
        return known[words]

    # Reading.

    def search(
        self,
        scope: Scope,
        query: SearchQuery,
        position: tuple[int, int],
        own: dict[Place, tuple[Entry[Any] | None, bytes | None]] | None = None,
        embedded: dict[str, bytes] | None = None,
    ) -> Found:
        """What a view sees of a query.

        Args:
            position: (revision, instant) of the view.
            own: the view's own writes: entry (None: deleted) and vector of each.
            embedded: vectors of texts that are known already; added to.
        """
        # Imported here: a store that is never searched does without NumPy.
        from agentmem.search.planner import Own, Plan
        from agentmem.search.sources import NoVectors, Texts

        within = Range(encode(query.labels))
        chosen, compares = self._chosen(query, within)
        towards = None
        # Where there are no vectors yet, those of the view's own writes can be compared.
        if chosen is not None or (compares and own):
            stored = query.vector
            if stored is None:
                stored = self._query_vector(query.text or "", embedded)
            if chosen is not None and len(stored) != 4 * chosen.dimension:
                raise EmbedderError(
                    f"the query's vector has {len(stored) // 4} dimensions, and those of the "
                    f"namespace have {chosen.dimension}"
                )
            towards = direction(unpack(stored))
        weight = 1.0
        if query.mode != "text" and self.embedder is not None:
            weight = self.embedder.text_weight
        mine = Own()
        if own:
            mine.entries = {place: entry for place, (entry, _vector) in own.items()}
            if towards is not None:
                mine.similar = _similar(own, towards)
        texts = Texts(self._engine, query.words, within, position[0])
        vectors: VectorSource | None = None
        if chosen is not None and towards is not None:
            vectors = self._vectors(chosen, within, position[0], towards)
        elif towards is not None:
            vectors = NoVectors()
        plan = Plan(
            self._engine,
            scope,
            query,
            position,
            texts=texts,
            vectors=vectors,
            past=lambda: self._past_of(within, position[0]),
            weight=weight,
            own=mine,
        )
        looks = query.vector is not None or (query.mode != "text" and self.embedder is not None)
        lacks = looks and chosen is None
        return Found(plan.answer(), query, chosen, towards, weight, lacks_vectors=lacks)

    def spaces(self) -> Spaces:
        """The spaces, read again only if they have changed."""
        count = self._engine.spaces_count()
        known = self._spaces
        if known is None or known[0] != count:
            # Counted first: what is read may be newer, which costs another look.
            known = self._spaces = (count, self._engine.spaces())
        return known[1]

    def _query_vector(self, text: str, embedded: dict[str, bytes] | None) -> bytes:
        assert self.embedder is not None, "it has chosen the set"
        known = embedded.get("query:" + text) if embedded is not None else None
        if known is None:
            known = self.embedder.embed_query(text)
            if embedded is not None:
                embedded["query:" + text] = known
        return known

    def _chosen(self, query: SearchQuery, within: Range) -> tuple[VectorSet | None, bool]:
        """The set whose vectors a query is compared with, and whether vectors count at all.

        None: there are none yet that it could be compared with.

        Raises:
            EmbedderError: the namespace has vectors, but none that fit the query.
        """
        if query.mode == "text" or (query.mode == "hybrid" and self.embedder is None):
            return None, False
        spaces = self.spaces()
        inside = spaces.of
        if within.namespace:
            label = top_label(within.namespace)
            inside = {label: inside[label]} if label in inside else {}
        used = {spaces.sets[set_id] for set_id in set(inside.values())}
        embedder = self.embedder
        if query.vector is not None:
            return self._given(query.vector, used, embedder), True
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

    def _given(
        self, vector: bytes, found: set[VectorSet], embedder: Embedder | None
    ) -> VectorSet | None:
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

    def stats(self) -> dict[str, Any]:
        """What `Admin.stats` says of searching."""
        spaces = self._engine.spaces()
        used = [spaces.sets[set_id] for set_id in sorted(set(spaces.of.values()))]
        counts = [self._engine.count_vectors(each.id, Range(""), _ALL) for each in used]
        described = [self._indexes.describe(each) for each in used]
        largest = max(described, key=lambda each: each["index"] == "chroma", default=None)
        pending = len(self._engine.pending_vectors(0, _MAX_PENDING))
        return {
            "embedder": self.embedder.identity if self.embedder is not None else None,
            "vectors": sum(counts),
            "pending_vectors": pending,
            "index": largest["index"] if largest is not None else "exact",
            "index_watermark": largest["watermark"] if largest is not None else None,
            "index_lag": largest["lag"] if largest is not None else 0,
        }

    def forget(self) -> None:
        """Drops what is kept in memory of what was purged."""
        with self._lock:
            self._live.clear()
            self._past.clear()

    def close(self) -> None:
        """Lets go of indexes, and ends what builds one. May be called again."""
        self._indexes.close()

    @property
    def indexes(self) -> Indexes:
        """The indexes of large sets."""
        return self._indexes

    def _vectors(
        self, chosen: VectorSet, within: Range, revision: int, towards: Vector
    ) -> VectorSource:
        from agentmem.search.sources import IndexedVectors, NearestVectors

        opened = self._indexes.get(chosen, within, revision)
        if opened is None and self._indexes.has_its_own(chosen, within, revision):
            return NearestVectors(
                self._engine, chosen, within, revision, towards,
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
            self._engine, chosen, generation, live, past, revision, towards,
            everything=lambda: self._exact(chosen, within, revision, towards),
        )  # fmt: skip

    def _past_vectors(self, chosen: VectorSet, within: Range, revision: int) -> PastVectors | None:
        difference = self._past_of(within, revision)
        if difference is None:
            return None
        return difference.vectors(chosen.id, chosen.dimension)

    def _exact(
        self, chosen: VectorSet, within: Range, revision: int, towards: Vector
    ) -> VectorSource:
        from agentmem.search.sources import ExactVectors

        live = self.live(chosen, within, revision)
        past = None
        if revision < live.origin:
            past = self._past_vectors(chosen, within, revision)
        return ExactVectors(live.rows(revision, within.namespace), past, towards)

    def live(
        self,
        chosen: VectorSet,
        within: Range,
        revision: int,
        progress: Callable[[int], None] | None = None,
    ) -> LiveVectors:
        """The vectors in memory of a set below a namespace, at or after the revision."""
        from agentmem.search.live import LiveVectors

        key = (chosen.id, within.namespace)
        with self._lock:
            whole = self._live.get((chosen.id, ""))
            known = whole if whole is not None else self._live.get(key)
        if known is not None and known.at.revision < revision:
            position = self._engine.position()
            if not (known.fits(position) and known.advance(position)):
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
        from agentmem.search.sources import Past

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


def _similar(
    own: dict[Place, tuple[Entry[Any] | None, bytes | None]],
    towards: Vector,
) -> dict[Place, float]:
    from agentmem.search.vectors import directions, similarities, unpack_many

    known = [
        (place, vector)
        for place, (entry, vector) in own.items()
        if entry is not None and vector is not None and len(vector) == 4 * len(towards)
    ]
    if not known:
        return {}
    rows = directions(unpack_many([vector for _place, vector in known], len(towards)))
    found: Iterable[float] = similarities(rows, towards).tolist()
    return {place: value for (place, _vector), value in zip(known, found, strict=True)}
