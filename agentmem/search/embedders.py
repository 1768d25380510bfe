"""Embedders: whatever turns texts into vectors, behind one interface.

An embedder has an identity, which the store keeps beside the vectors: vectors of two embedders
cannot be compared, so a namespace has those of one until `reindex` makes it another's.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from agentmem.errors import AgentMemError, EmbedderError, InvalidValueError, MissingExtraError
from agentmem.search.vectors import pack
from agentmem.search.words import query_words

__all__ = ["GIVEN", "Embedder", "resolve"]

GIVEN: Final = ""
"""The identity of vectors that the writers have made themselves (``vector=``)."""

TEXT_WEIGHT: Final = 0.7  # of words in hybrid ranking; cosines have the rest
_STATIC_DIMENSION: Final = 256
_UNWRITTEN: Final = '; nothing was written: try again, or write with embed="deferred"'
_BATCH: Final = 256  # texts that an embedder is given at once
_NAMES: Final = ("model", "model_name", "model_id", "repo_id", "deployment", "_model_name")


class Embedder:
    """Turns texts into vectors.

    Attributes:
        identity: names the embedder and its model.
        text_weight: how much words count in hybrid ranking, from 0 to 1; cosines have the rest.
        automatic: nobody asked for it by name, so it gives way to vectors that are there.
    """

    def __init__(
        self,
        identity: str,
        documents: Callable[[list[str]], Any],
        query: Callable[[str], Any] | None = None,
        *,
        text_weight: float = TEXT_WEIGHT,
        automatic: bool = False,
    ) -> None:
        self.identity = identity
        self.text_weight = text_weight
        self.automatic = automatic
        self._documents = documents
        self._query = query
        self._dimension: int | None = None

    def __repr__(self) -> str:
        return f"Embedder({self.identity!r})"

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """The vectors of texts, as they are stored.

        Raises:
            EmbedderError: the embedder raised (its exception is the cause), or returned what are
                no vectors, or not one for each text, or of different dimensions.
        """
        found: list[bytes] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            vectors = self._call(lambda batch=batch: self._documents(batch), _UNWRITTEN)  # type: ignore[misc]  # mypy does not infer a lambda with a default
            try:
                rows = list(vectors)
            except TypeError as error:
                raise EmbedderError(
                    f"embedder {self.identity!r} returned {type(vectors).__name__}, not vectors"
                ) from error
            if len(rows) != len(batch):
                raise EmbedderError(
                    f"embedder {self.identity!r} returned {len(rows)} vectors for {len(batch)} "
                    "texts; nothing was written"
                )
            found += [self._checked(row) for row in rows]
        return found

    def embed_query(self, text: str) -> bytes:
        """The vector of a query; some embedders treat queries and documents differently."""
        query = self._query
        # Half a character, as of bytes that were no UTF-8: no text that is stored holds one.
        text = text.encode("utf-8", "replace").decode()
        if query is None:
            return self.embed([text])[0]
        return self._checked(self._call(lambda: query(text)))

    def _call(self, call: Callable[[], Any], consequence: str = "") -> Any:
        try:
            return call()
        except AgentMemError:
            raise
        except Exception as error:
            raise EmbedderError(
                f"embedder {self.identity!r} raised {type(error).__name__}: {error}{consequence}"
            ) from error

    def _checked(self, vector: Any) -> bytes:
        packed = pack(vector, f"a vector of embedder {self.identity!r}", self._dimension)
        self._dimension = len(packed) // 4
        return packed


def resolve(embedder: object) -> Embedder | None:
    """The ``embedder`` argument of `agentmem.open`.

    Args:
        embedder: ``"auto"`` (the static model of the extra ``local`` if that is installed, else
            none), ``"local"`` (the same, but an error without it), None, a LangChain
            ``Embeddings``, a Chroma embedding function, a callable
            ``list[str] -> array (n, dimension)``, or an `Embedder`. Its attribute ``identity``,
            if it has one, names it in the store, and ``text_weight`` (else 0.7) says how much
            words count in hybrid ranking.

    Raises:
        InvalidValueError, TypeError: it is none of these.
        MissingExtraError: ``"local"`` without the extra.
    """
    if embedder is None:
        return None
    if isinstance(embedder, Embedder):
        return embedder
    if isinstance(embedder, str):
        return _named(embedder)
    weight = _text_weight(embedder)
    if callable(getattr(embedder, "embed_documents", None)):
        documents = embedder.embed_documents  # type: ignore[attr-defined]  # looked for above
        query = getattr(embedder, "embed_query", None)
        return Embedder(_identity(embedder), documents, query, text_weight=weight)
    if callable(embedder):
        query = None
        if callable(getattr(embedder, "embed_query", None)):
            # Chroma's take a list of queries, and give a list of vectors.
            of_queries = embedder.embed_query  # type: ignore[attr-defined]  # looked for above
            query = lambda text: of_queries([text])[0]  # noqa: E731  # as short as it is clear
        return Embedder(_identity(embedder), _function(embedder), query, text_weight=weight)
    raise TypeError(
        'embedder is "auto", None, a LangChain Embeddings, a Chroma embedding function or a '
        f"callable list[str] -> vectors, not {type(embedder).__name__}"
    )


def _text_weight(embedder: object) -> float:
    weight = getattr(embedder, "text_weight", TEXT_WEIGHT)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
        raise InvalidValueError(f"text_weight of an embedder lies between 0 and 1: {weight!r}")
    return float(weight)


def _function(embedder: Callable[..., Any]) -> Callable[[list[str]], Any]:
    if hasattr(embedder, "build_from_config"):
        # A Chroma embedding function: its parameter must be named as Chroma names it.
        return lambda texts: embedder(input=texts)
    return embedder


def _named(name: str) -> Embedder | None:
    if name not in ("auto", "local"):
        raise InvalidValueError(f'embedder is "auto", "local", None or an object, not {name!r}')
    if importlib.util.find_spec("wordllama") is None:
        if name == "auto":
            return None
        raise MissingExtraError(
            "the static model needs wordllama; install it with: "
            "pip install 'agentmem-store[local]'",
            extra="local",
        )
    model = _StaticModel()
    return Embedder(
        f"wordllama/{_STATIC_DIMENSION}", model.embed, model.embed_query, automatic=name == "auto"
    )


def _identity(embedder: object) -> str:
    """A name that is the same in every process: class, and model if it has one."""
    name = getattr(embedder, "identity", None)
    if isinstance(name, str) and name:
        return name
    kind = embedder if hasattr(embedder, "__qualname__") else type(embedder)
    found = f"{kind.__module__}.{getattr(kind, '__qualname__', '')}"
    for attribute in _NAMES:
        model = getattr(embedder, attribute, None)
        if isinstance(model, str) and model:
            return f"{found}/{model}"
    return found


class _StaticModel:
    """The static model of wordllama, with the weights in its wheel; loaded when first used."""

    def __init__(self) -> None:
        self._model: Any = None
        self._lock = threading.Lock()  # protects _model

    def _loaded(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return self._model

    def _load(self) -> Any:
        # Importing it sets up logging for the whole program, which is not for a library to do.
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        try:
            import wordllama

            # By itself it looks for its tokenizer in a folder of the user's, and downloads.
            folder = os.path.dirname(wordllama.__file__)
            return wordllama.WordLlama.load(
                dim=_STATIC_DIMENSION, cache_dir=folder, disable_download=True
            )
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)

    def embed(self, texts: list[str]) -> Any:
        """Vectors of shape (n, 256). A text without a known word has none but zeros."""
        import numpy as np

        model = self._loaded()
        return np.nan_to_num(model.embed(texts))

    def embed_query(self, text: str) -> Any:
        """The vector of a question, shape (256,).

        It is the mean of those of its words, so words that only make it a question pull it away
        from what it asks for. Without them recall@10 of vectors alone rose from 0.39 to 0.49 on
        `benchmarks.retrieval`.
        """
        return self.embed([" ".join(query_words(text)) or text])[0]
