"""What a store needs to search: its embedder, its indexes, and which vectors its writes have."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any, Final

from agentmem.engines.base import Engine, Reading
from agentmem.engines.rows import Place, Range, Spaces
from agentmem.errors import EmbedderError, InvalidValueError
from agentmem.limits import Limits
from agentmem.model import Entry
from agentmem.request import Request, Write
from agentmem.scope import Scope
from agentmem.search.embedders import Embedder
from agentmem.search.indexes import Indexes
from agentmem.search.query import SearchQuery
from agentmem.search.spaces import gives_way, set_of, top_label, wrong_embedder
from agentmem.search.words import found_by

if TYPE_CHECKING:
    from agentmem.search.finder import Finder, Found, Written

__all__ = ["INDEXES", "Searcher"]

INDEXES: Final = ("auto", "exact", "chroma")
_ALL: Final = 2**62
_MAX_PENDING: Final = 100_000  # that are counted


class _Shared:
    """What searchers of one store share, whatever their embedder."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # protects what follows
        self.finder: Finder | None = None


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
        self._spaces: tuple[int, Spaces] | None = None
        self._shared = _Shared()
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
        view: tuple[int, int],
        reading: Reading,
        own: Written | None = None,
        embedded: dict[str, bytes] | None = None,
    ) -> Found:
        """What a view sees of a query.

        Args:
            view: its (revision, instant).
            reading: one that has just begun.
            own: the view's own writes: entry (None: deleted) and vector of each.
            embedded: vectors of texts that are known already; added to.
        """
        finder = self._shared.finder or self.finder()
        return finder.search(self.embedder, scope, query, view, reading, own, embedded)

    def finder(self) -> Finder:
        """What answers searches, made with the first one."""
        # Imported here: a store that is never searched does without NumPy.
        from agentmem.search.finder import Finder

        with self._shared.lock:
            found = self._shared.finder
            if found is None:
                found = self._shared.finder = Finder(self._engine, self._indexes, self.spaces)
            return found

    def spaces(self, count: int | None = None) -> Spaces:
        """The spaces, read again only if they have changed.

        Args:
            count: how often they have; None: it is looked up.
        """
        if count is None:
            count = self._engine.spaces_count()
        known = self._spaces
        if known is None or known[0] != count:
            # Counted first: what is read may be newer, which costs another look.
            known = self._spaces = (count, self._engine.spaces())
        return known[1]

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
        if self._shared.finder is not None:
            self._shared.finder.forget()

    def close(self) -> None:
        """Lets go of indexes, and ends what builds one. May be called again."""
        self._indexes.close()

    @property
    def indexes(self) -> Indexes:
        """The indexes of large sets."""
        return self._indexes
