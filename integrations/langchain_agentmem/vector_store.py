"""A vector store whose documents are entries: versioned, searched as of any revision, shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Self, TypeVar

from langchain_core.embeddings import Embeddings

import agentmem
from agentmem import Snapshot, Transaction
from agentmem.adapting import embedder_of
from agentmem.search.vectors import unpack
from agentmem.writes import new_key
from langchain_agentmem.document_records import DocumentRecords, document_labels
from langchain_agentmem.document_search import AsOf, SearchesDocuments, refuse
from langchain_agentmem.documents import VERSION_FIELDS, value_of
from langchain_agentmem.opening import HoldsStore, Target
from langchain_agentmem.runs import current_run

__all__ = ["AgentMemVectorStore"]

T = TypeVar("T")

_PAGE: Final = 1_000  # documents that are deleted in one commit, where all are


class AgentMemVectorStore(HoldsStore, SearchesDocuments):
    """Documents and their vectors in a store.

    ::

        documents = AgentMemVectorStore("team.db", OpenAIEmbeddings())
        documents.add_documents([Document(id="a", page_content="…", metadata={"source": "a.md"})])
        documents.similarity_search("…", k=4, filter={"source": "a.md"})
        documents.at(42).similarity_search("…")  # as of revision 42

    A document is the entry ``id`` of the namespace, with the value
    ``{"page_content": …, "metadata": {…}}``. Writing an id again makes another version, deleting it
    a tombstone: nothing that was there is lost, and ``as_of`` finds it.

    Every search takes ``k``, ``filter`` (over metadata; see ``docs/filters.md``), ``as_of`` (a
    revision, a tag, an aware datetime or a `Snapshot`), ``mode``, ``half_life_s`` and ``offset``.

    Args:
        store: an open store, or what `agentmem.open` takes.
        embedding: what turns texts into vectors. None: what the store was opened with; without
            that, documents are found by their words.
        namespace: where the documents are; nothing else should be in it, or below it.
        mode: ``"vector"``, ``"hybrid"`` or ``"text"``, for searches that do not say. None:
            ``"vector"`` if there is an embedding, else ``"text"``.
        half_life_s: for searches that do not say: a score counts half for a document so old.
        with_versions: documents have ``agentmem_version`` and ``agentmem_revision`` in their
            metadata when they are read; that is never stored.
        agent: who writes; None: the agent of the store.

    Guarantees:
        One call of ``add_documents``, ``add_texts`` or ``delete`` is one commit, all or nothing;
        it carries the thread, run and checkpoint that it is made in. Texts are embedded before
        the commit takes its lock, each once, also when it is tried again.
    """

    def __init__(
        self,
        store: Target,
        embedding: Embeddings | None = None,
        *,
        namespace: object = ("documents",),
        mode: str | None = None,
        half_life_s: float | None = None,
        with_versions: bool = False,
        agent: str | None = None,
    ) -> None:
        self._hold(store, **({} if embedding is None else {"embedder": embedding}))
        self._embedding = embedding
        self._view = self.store if embedding is None else self.store.with_embedder(embedding)
        self._embedder = embedder_of(self._view)
        self.namespace = document_labels(namespace)
        self.mode = mode or ("vector" if self._embedder is not None else "text")
        self.half_life_s = half_life_s
        self.with_versions = with_versions
        self.agent = agent
        self._records = DocumentRecords(self.namespace)
        self._pinned: Snapshot | None = None

    def __repr__(self) -> str:
        at = f", revision={self._pinned.revision}" if self._pinned is not None else ""
        return f"AgentMemVectorStore({'/'.join(self.namespace)!r}{at})"

    @property
    def embeddings(self) -> Embeddings | None:
        """The embedding that it was given."""
        return self._embedding

    @property
    def revision(self) -> int | None:
        """The revision that it is pinned to; None: it shows the present."""
        return self._pinned.revision if self._pinned is not None else None

    def at(self, revision: AsOf = None) -> Self:
        """The same documents as of a revision, a tag or a datetime; None is now. Read only."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._opened_here = False
        other._pinned = self._snapshot(revision)
        return other

    # Writing.

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        op_id: str | None = None,
        **unknown: Any,
    ) -> list[str]:
        """Adds documents, or new versions of those whose ids are there.

        Args:
            metadatas: JSON, one for each text.
            ids: one for each text; None, or a None in it: made up, in order of time. Of texts
                with the same id the last one counts.
            batch_size: commit after so many, instead of all at once.
            op_id: the same ids are returned, and nothing is written, if it was used before.

        Returns: the ids, in order of the texts.

        Raises:
            EmbedderError: the embedding failed, or is not that of the namespace.
            InvalidValueError: metadata is not JSON, or an id is no key.
            ValueError: there are not as many metadatas or ids as texts.
            LimitExceededError: more than one transaction may write; `batch_size` helps.
        """
        refuse(unknown)
        self._check_present("add documents")
        contents = list(texts)
        found = _documents(contents, metadatas, ids, strip=self.with_versions)
        if batch_size is not None and batch_size < 1:
            raise agentmem.InvalidValueError(f"batch_size is a number from 1 on: {batch_size}")
        if not found:
            return []
        size = batch_size or len(found)
        if op_id is not None and size < len(found):
            raise agentmem.InvalidValueError("an op_id is of one commit; leave batch_size out")
        added: list[str] = []
        for start in range(0, len(found), size):
            added += self._add(found[start : start + size], op_id)
        return added

    def _add(self, found: list[tuple[str, str, dict[str, Any]]], op_id: str | None) -> list[str]:
        documents = {id: (content, metadata) for id, content, metadata in found}
        vectors = self._vectors([content for content, _metadata in documents.values()])

        def write(tx: Transaction) -> list[str]:
            tx.knows(vectors)
            for id, (content, metadata) in documents.items():
                # Search sees no text in an empty one, and would have no vector of it.
                vector = unpack(vectors[""]) if not content and vectors else None
                tx.put(
                    id, value_of(content, metadata), namespace=self.namespace, text=content,
                    vector=vector, overwrite=True,
                )  # fmt: skip
            self._records.written(tx, {id: each[1] for id, each in documents.items()})
            return [id for id, _content, _metadata in found]

        return self._commit(write, "add documents", op_id)

    def delete(self, ids: list[str] | None = None, **unknown: Any) -> bool:
        """Deletes documents: their versions stay, and ``as_of`` finds them. None deletes all.

        Returns: True, also if some were not there.
        """
        refuse(unknown)
        self._check_present("delete documents")
        if ids is not None:
            self._delete(list(dict.fromkeys(ids)))
            return True
        # What lies below the namespace comes after it, and is not for this one to delete.
        while own := [
            entry.key
            for entry in self._view.list(self.namespace, limit=_PAGE)
            if entry.namespace == self.namespace
        ]:
            self._delete(own)
        return True

    def _delete(self, ids: list[str]) -> None:
        if not ids:
            return

        def write(tx: Transaction) -> None:
            for id in ids:
                tx.delete(id, namespace=self.namespace, overwrite=True)
            self._records.deleted(tx, ids)

        self._commit(write, "delete documents", None)

    def _commit(self, write: Callable[[Transaction], T], note: str, op_id: str | None) -> T:
        metadata = current_run().metadata()
        return self._view.transact(
            write, agent=self.agent, note=note, op_id=op_id, metadata=metadata or None
        )

    def _vectors(self, contents: list[str]) -> dict[str, bytes]:
        """The vectors of texts; empty if the store makes them itself, or there are none."""
        # One that nobody asked for may have to give way to the vectors that are there.
        if self._embedder is None or self._embedder.automatic:
            return {}
        texts = list(dict.fromkeys(contents))
        return dict(zip(texts, self._embedder.embed(texts), strict=True))

    def _check_present(self, what: str) -> None:
        if self._pinned is not None:
            raise agentmem.AccessDeniedError(
                f"cannot {what}: these are the documents as of revision {self._pinned.revision}; "
                "write to the vector store that at() was called of",
                access="write",
            )

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        store: Target = ":memory:",
        batch_size: int | None = None,
        **options: Any,
    ) -> Self:
        """A vector store with these documents in it.

        Args:
            store, options: as the class takes them.
        """
        made = cls(store, embedding, **options)
        try:
            made.add_texts(texts, metadatas, ids=ids, batch_size=batch_size)
        except BaseException:
            made.close()
            raise
        return made


def _documents(
    contents: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str | None] | None,
    *,
    strip: bool,
) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, content, metadata) of each text.

    Raises:
        ValueError: they are not one for each text.
    """
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(contents):
            raise ValueError(
                f"there are {len(contents)} texts and {len(given)} {name}; give one for each text"
            )
    for content in contents:
        if not isinstance(content, str):
            raise TypeError(f"a text is a str, not {type(content).__name__}")
    found = []
    for index, content in enumerate(contents):
        metadata = dict((metadatas[index] if metadatas is not None else None) or {})
        if strip:
            for name in VERSION_FIELDS:
                metadata.pop(name, None)
        id = ids[index] if ids is not None else None
        found.append((new_key() if id is None else id, content, metadata))
    return found
