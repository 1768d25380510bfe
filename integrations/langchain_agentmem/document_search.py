"""Searching documents: the present, or any revision, by LangChain's names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

import agentmem
from agentmem import Hit, Snapshot, Store
from agentmem.search.embedders import Embedder
from agentmem.search.kept import vectors_of
from agentmem.search.vectors import direction, unpack
from langchain_agentmem.document_records import Labels
from langchain_agentmem.documents import document_of, where_of

__all__ = ["AsOf", "SearchesDocuments", "refuse"]

AsOf = int | str | datetime | Snapshot | None

_K: Final = 4
_FETCH_K: Final = 20


def refuse(unknown: dict[str, Any]) -> None:
    """Raises `TypeError` for options that nothing here takes: ignored, they would mislead."""
    if unknown:
        raise TypeError(f"AgentMemVectorStore does not know the options {sorted(unknown)}")


class SearchesDocuments(VectorStore):
    """What `AgentMemVectorStore` reads.

    Attributes:
        namespace: where the documents are.
        mode, half_life_s: for searches that do not say.
        with_versions: whether documents tell their versions.
    """

    namespace: Labels
    mode: str
    half_life_s: float | None
    with_versions: bool
    _view: Store
    _embedder: Embedder | None
    _pinned: Snapshot | None

    def _reader(self, as_of: AsOf) -> Store | Snapshot:
        """What is read: as of a revision, the one that it is pinned to, or the present."""
        if as_of is None and self._pinned is None:
            return self._view
        return self._snapshot(as_of)

    def _snapshot(self, as_of: AsOf) -> Snapshot:
        """As `_reader`, for several reads of one state."""
        if as_of is None and self._pinned is not None:
            return self._pinned
        if isinstance(as_of, Snapshot):
            as_of = as_of.revision  # seen by the embedding of this vector store
        return self._view.snapshot(at=as_of)

    def _document(self, entry: agentmem.Entry[Any]) -> Document:
        return document_of(entry, with_versions=self.with_versions)

    def get_by_ids(self, ids: Sequence[str], /, *, as_of: AsOf = None) -> list[Document]:
        """The documents with these ids that are there, in order of the ids, each once."""
        wanted = list(dict.fromkeys(ids))
        entries = self._reader(as_of).get_many(wanted, namespace=self.namespace)
        return [self._document(entries[id]) for id in wanted if id in entries]

    def similarity_search(
        self,
        query: str,
        k: int = _K,
        filter: object = None,
        **options: Any,
    ) -> list[Document]:
        """The documents nearest to a text, nearest first.

        Args:
            filter: over metadata, such as ``{"source": "a.md", "page": {"$gte": 3}}``.
            options: ``as_of``, ``mode``, ``half_life_s``, ``offset``.
        """
        return [self._document(hit.entry) for hit in self._hits(query, k, filter, **options)]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = _K,
        filter: object = None,
        **options: Any,
    ) -> list[Document]:
        """As `similarity_search`, by a vector."""
        hits = self._hits(embedding, k, filter, **options)
        return [self._document(hit.entry) for hit in hits]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = _K,
        filter: object = None,
        **options: Any,
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, each with its distance: the smaller, the nearer.

        That is one minus the cosine, from 0 to 2. In the other modes, and with a half-life, it is
        one minus the score that documents are ranked by; in ``"text"`` the best has the distance 0.
        """
        return self._scored(query, k, filter, options)

    def similarity_search_by_vector_with_score(
        self,
        embedding: list[float],
        k: int = _K,
        filter: object = None,
        **options: Any,
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`, by a vector."""
        return self._scored(embedding, k, filter, options)

    def _scored(
        self, query: object, k: int, filter: object, options: dict[str, Any]
    ) -> list[tuple[Document, float]]:
        hits = self._hits(query, k, filter, **options)
        mode = options.get("mode") or self.mode
        best = hits[0].score if hits and mode == "text" and isinstance(query, str) else 1.0
        aged = options.get("half_life_s", self.half_life_s) is not None
        plain = (mode == "vector" or not isinstance(query, str)) and not aged
        return [
            (
                self._document(hit.entry),
                hit.distance if plain and hit.distance is not None else 1.0 - hit.score / best,
            )
            for hit in hits
        ]

    def _select_relevance_score_fn(self) -> Any:
        # From 1, the same, to 0: at right angles, or further.
        return lambda distance: min(1.0, max(0.0, 1.0 - distance))

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = _K,
        fetch_k: int = _FETCH_K,
        lambda_mult: float = 0.5,
        filter: object = None,
        **options: Any,
    ) -> list[Document]:
        """Of the `fetch_k` nearest documents those `k` that are near, and unlike each other.

        Args:
            lambda_mult: 1 looks at nearness alone, 0 at diversity alone.
        """
        if self._embedder is None:
            raise agentmem.EmbedderError(
                "max_marginal_relevance_search compares vectors: give the vector store an embedding"
            )
        vector = unpack(self._embedder.embed_query(query))
        return self._diverse(vector, query, k, fetch_k, lambda_mult, filter, options)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = _K,
        fetch_k: int = _FETCH_K,
        lambda_mult: float = 0.5,
        filter: object = None,
        **options: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, by a vector."""
        return self._diverse(embedding, embedding, k, fetch_k, lambda_mult, filter, options)

    def _diverse(
        self,
        vector: Any,
        query: object,
        k: int,
        fetch_k: int,
        lambda_mult: float,
        filter: object,
        options: dict[str, Any],
    ) -> list[Document]:
        reader = self._snapshot(options.pop("as_of", None))
        mode = options.get("mode") or self.mode
        hits = self._hits(vector if mode == "vector" else query, max(k, fetch_k), filter,
                          as_of=reader, **options)  # fmt: skip
        entries = [hit.entry for hit in hits]
        found = [
            (entry, kept)
            for entry, kept in zip(entries, vectors_of(reader, entries), strict=True)
            if kept is not None
        ]
        chosen = maximal_marginal_relevance(
            direction(vector), [direction(kept).tolist() for _entry, kept in found], lambda_mult, k
        )
        return [self._document(found[index][0]) for index in chosen]

    def _hits(
        self,
        query: object,
        k: int,
        filter: object,
        *,
        as_of: AsOf = None,
        mode: str | None = None,
        half_life_s: float | None = None,
        offset: int = 0,
        **unknown: Any,
    ) -> list[Hit]:
        refuse(unknown)
        if not isinstance(query, str):
            mode = "vector"
        return self._reader(as_of).search(
            query,
            namespace=self.namespace,
            k=k,
            offset=offset,
            mode=mode or self.mode,
            where=where_of(filter),
            half_life_s=half_life_s if half_life_s is not None else self.half_life_s,
        )
