"""What of an item is embedded: one text for each field, as LangGraph's ``index`` says.

An entry of agentmem has one text and one vector. The first text of an item is that of its entry;
each further one has an entry of its own in a hidden namespace, written in the same commit::

    ("docs",)                          "a"        {...}               text: the first field
    ("langgraph.fields", "docs", "a")  "000001"   {"field": "body"}   text: the second field

Such an entry counts while it is of the same revision as the item: whoever writes the item anew,
by whatever way, leaves no text of the old one behind that could be found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast

import numpy as np
from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    IndexConfig,
    PutOp,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)

from agentmem import EmbedderError, InvalidValueError, Store
from agentmem.adapting import embedder_of
from agentmem.search.embedders import Embedder, resolve

__all__ = ["FIELDS", "Index", "field_key", "prefetched"]

FIELDS: Final = "langgraph.fields"
"""The root of the hidden namespace; LangGraph's own labels hold no dot."""

_WHOLE: Final = "$"
_made: Final[ContextVar[Mapping[str, Any]]] = ContextVar("made", default={})  # noqa: B039  # never changed


def field_key(number: int) -> str:
    """The key of a further text of an item."""
    return f"{number:06}"


class Index:
    """Which texts are embedded, and by what.

    Attributes:
        embedder: for `agentmem.open`.
    """

    def __init__(self, config: IndexConfig) -> None:
        self._fields = [(field, _tokens(field)) for field in _fields(config)]
        self._dims = config.get("dims")
        self.embedder: _Embedder | None = None
        self._embed: Embedder | None = None
        if config.get("embed") is not None:
            self.embedder = _Embedder(config["embed"], self._dims)
            self._embed = resolve(self.embedder)

    def belongs_to(self, store: Store) -> None:
        """Ties it to an open store, which has an embedder of its own.

        Raises:
            InvalidValueError: it has none, another one, or one of another dimension.
        """
        embedder = embedder_of(store)
        if embedder is None:
            raise InvalidValueError(
                "the store was opened without an embedder; open it with "
                "agentmem.open(..., embedder=...), or give AgentMemStore the target"
            )
        if self._embed is not None and self._embed.identity != embedder.identity:
            raise InvalidValueError(
                f"the store embeds with {embedder.identity!r}, the index with "
                f"{self._embed.identity!r}; leave embed out of the index"
            )
        if self._dims is not None:
            dims = len(embedder.embed_query("how many numbers?")) // 4
            if dims != self._dims:
                raise InvalidValueError(
                    f"vectors of the store's embedder have {dims} numbers, index['dims'] is "
                    f"{self._dims}"
                )
        self._embed = embedder

    def texts(self, op: PutOp) -> list[tuple[str, str]]:
        """The (field, text) pairs of an item that is put; none if it is not to be found."""
        if op.value is None or op.index is False:
            return []
        fields = self._fields if op.index is None else [(each, _tokens(each)) for each in op.index]
        found: list[tuple[str, str]] = []
        for field, tokens in fields:
            texts = get_text_at_path(op.value, cast(Any, tokens))
            found += [
                (field if len(texts) == 1 else f"{field}.{number}", text)
                for number, text in enumerate(texts)
                if text
            ]
        return found

    @property
    def many(self) -> bool:
        """Whether an item may have several texts by itself."""
        return len(self._fields) > 1 or any("*" in field for field, _tokens in self._fields)

    def query(self, text: str) -> Any:
        """The vector of a query."""
        assert self._embed is not None, "it belongs to a store"
        return np.frombuffer(self._embed.embed_query(text), dtype=np.float32)

    async def prefetch(self, ops: Sequence[Any]) -> dict[str, Any]:
        """Has an asynchronous embedder make the vectors that operations need, on its loop."""
        if self.embedder is None or not self.embedder.is_async:
            return {}
        texts = [text for op in ops if isinstance(op, PutOp) for _field, text in self.texts(op)]
        queries = [op.query for op in ops if getattr(op, "query", None)]
        return await self.embedder.prefetched(list(dict.fromkeys(texts)), queries)


@contextmanager
def prefetched(vectors: Mapping[str, Any]) -> Iterator[None]:
    """Vectors that need not be made again in this context."""
    token = _made.set(vectors)
    try:
        yield
    finally:
        _made.reset(token)


class _Embedder(Embeddings):
    """What LangGraph takes for ``embed``, as agentmem takes it."""

    def __init__(self, embed: Any, dims: int | None) -> None:
        self._embeddings = ensure_embeddings(embed)
        self._dims = dims
        # Named by what was given: LangGraph wraps functions, all in the same class.
        self.identity = embed if isinstance(embed, str) else _identity(embed)

    @property
    def is_async(self) -> bool:
        """Whether it makes vectors on a loop by itself."""
        embeddings = self._embeddings
        if hasattr(embeddings, "func") or hasattr(embeddings, "afunc"):
            return hasattr(embeddings, "afunc")
        return type(embeddings).aembed_documents is not Embeddings.aembed_documents

    @property
    def _only_async(self) -> bool:
        return hasattr(self._embeddings, "afunc") and not hasattr(self._embeddings, "func")

    async def prefetched(self, texts: list[str], queries: list[str]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if texts:
            vectors = await self._embeddings.aembed_documents(texts)
            made.update(zip(texts, vectors, strict=True))
        for query in queries:
            made[_query(query)] = await self._embeddings.aembed_query(query)
        return made

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        made = _made.get()
        missing = [text for text in texts if text not in made]
        if missing:
            vectors = (
                _awaited(self._embeddings.aembed_documents, missing)
                if self._only_async
                else self._embeddings.embed_documents(missing)
            )
            made = {**made, **dict(zip(missing, vectors, strict=True))}
        return [self._checked(made[text]) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        made = _made.get().get(_query(text))
        if made is None:
            made = (
                _awaited(self._embeddings.aembed_query, text)
                if self._only_async
                else self._embeddings.embed_query(text)
            )
        return self._checked(made)

    def _checked(self, vector: Any) -> list[float]:
        if self._dims is not None and len(vector) != self._dims:
            raise EmbedderError(
                f"embedder {self.identity!r} returned {len(vector)} numbers, index['dims'] is "
                f"{self._dims}; nothing was written"
            )
        return list(vector)


def _awaited(call: Any, argument: Any) -> Any:
    """What a coroutine function returns, on a loop of its own: one may be running here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, call(argument)).result()


def _query(text: str) -> str:
    """Queries apart from texts: some embedders treat them differently. No text holds a NUL."""
    return f"\x00{text}"


def _identity(embed: Any) -> str:
    found = resolve(embed)
    assert found is not None, "it is no name, and not None"
    return found.identity


def _fields(config: IndexConfig) -> list[str]:
    distance = config.get("distance_type", "cosine")
    if distance != "cosine":
        raise InvalidValueError(f"vectors are compared by their cosine, not by {distance!r}")
    # LangGraph's SQLite store reads "text_fields" where all others read "fields".
    given: Any = config.get("fields") or config.get("text_fields") or [_WHOLE]
    fields = [given] if isinstance(given, str) else given
    if not isinstance(fields, list) or not all(isinstance(each, str) for each in fields):
        raise InvalidValueError(f"index['fields'] is a list of paths, not {given!r}")
    return fields


def _tokens(field: str) -> str | list[str]:
    return field if field == _WHOLE else tokenize_path(field)
