"""A retriever over whatever a store holds: documents, notes, facts; live or as of a revision."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, Self

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, PrivateAttr

import agentmem
from agentmem import Hit, Snapshot, Store
from langchain_agentmem.document_search import AsOf
from langchain_agentmem.documents import parts_of
from langchain_agentmem.opening import Target

__all__ = ["AgentMemRetriever"]

_CHARACTERS: Final = 4  # a token, about


def about_tokens(text: str) -> int:
    """How many tokens a text has, about: one for each four characters."""
    return -(-len(text) // _CHARACTERS)


class AgentMemRetriever(BaseRetriever):
    """Finds entries of a store as documents.

    ::

        retriever = AgentMemRetriever("team.db", namespace="team/notes", k=5)
        retriever.invoke("What can we spend?")
        pinned = retriever.at()  # what it answers never changes from here on

    The metadata of a document cites the entry: ``namespace`` (a list of labels), ``key``,
    ``version``, ``revision``, ``agent``, ``committed_at`` (ISO 8601) and ``score``. Documents that
    an `AgentMemVectorStore` has written have their own metadata besides; of the same name, the
    citation counts, so that nothing stored can pretend to be another version.

    Args:
        store: an open store, or what `agentmem.open` takes.
        embedding: what turns texts into vectors; None: what the store was opened with.
        namespace: where to look, with all below it; None is everywhere.
        k: how many documents.
        mode: ``"hybrid"`` (words and meaning), ``"text"`` or ``"vector"``.
        where: only values that match; see ``docs/filters.md``.
        half_life_s: a score counts half for an entry so old.
        as_of: a revision, a tag, an aware datetime or a `Snapshot`; None is live.
        max_tokens: best first, only so many documents as have no more tokens together.
        count_tokens: of a text; one for each four characters, if it is not given.

    ``invoke`` takes ``k``, ``mode``, ``where``, ``half_life_s``, ``as_of`` and ``max_tokens``, too.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    store: Store = Field(exclude=True, repr=False)
    namespace: object = None
    k: int = Field(default=4, ge=1)
    mode: str = "hybrid"
    where: dict[str, Any] | None = None
    half_life_s: float | None = None
    as_of: Any = None
    max_tokens: int | None = None
    count_tokens: Callable[[str], int] = Field(default=about_tokens, exclude=True, repr=False)

    _opened_here: bool = PrivateAttr(default=False)

    def __init__(self, store: Target, embedding: object = None, **fields: Any) -> None:
        if isinstance(store, Store):
            opened = store if embedding is None else store.with_embedder(embedding)
        else:
            opened = agentmem.open(store, embedder="auto" if embedding is None else embedding)
        super().__init__(**{"store": opened, **fields})
        self._opened_here = not isinstance(store, Store)

    def close(self) -> None:
        """Closes the store if it was opened here. May be called again."""
        if self._opened_here:
            self.store.close()

    @property
    def revision(self) -> int | None:
        """The revision that it is pinned to; None: it is live."""
        return None if self.as_of is None else self._view(self.as_of).revision

    def at(self, revision: AsOf = None) -> Self:
        """The same retriever as of a revision, a tag or a datetime; None is now."""
        view = self.store.snapshot() if revision is None else self._view(revision)
        return self.model_copy(update={"as_of": view.revision})

    def _view(self, as_of: AsOf) -> Store | Snapshot:
        if as_of is None:
            return self.store
        return self.store.snapshot(at=as_of.revision if isinstance(as_of, Snapshot) else as_of)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        **options: Any,
    ) -> list[Document]:
        unknown = set(options) - {"k", "mode", "where", "half_life_s", "as_of", "max_tokens"}
        if unknown:
            raise TypeError(f"AgentMemRetriever does not know the options {sorted(unknown)}")
        chosen = self.model_copy(update=options) if options else self
        hits = chosen._view(chosen.as_of).search(
            query,
            namespace=chosen.namespace,
            k=chosen.k,
            mode=chosen.mode,
            where=chosen.where,
            half_life_s=chosen.half_life_s,
        )
        found = [_cited(hit) for hit in hits]
        return found if chosen.max_tokens is None else chosen._within(found, chosen.max_tokens)

    def _within(self, found: list[Document], max_tokens: int) -> list[Document]:
        """As many of the best as have no more tokens together."""
        left = max_tokens
        for index, document in enumerate(found):
            left -= self.count_tokens(document.page_content)
            if left < 0:
                return found[:index]
        return found


def _cited(hit: Hit) -> Document:
    """A hit as a document that says which version of which entry it is."""
    entry = hit.entry
    parts = parts_of(entry)
    if parts is not None:
        content, metadata = parts
    else:
        metadata = {}
        content = entry.text or json.dumps(entry.value, ensure_ascii=False)
    citation = {
        "namespace": list(entry.namespace),
        "key": entry.key,
        "version": entry.version,
        "revision": entry.revision,
        "agent": entry.agent,
        "committed_at": entry.committed_at.isoformat() if entry.committed_at else None,
        "score": hit.score,
    }
    return Document(id=entry.key, page_content=content, metadata={**metadata, **citation})
