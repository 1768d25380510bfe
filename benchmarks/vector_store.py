"""Vector stores of LangChain: agentmem's beside Chroma's, over the same documents.

Vectors have 256 numbers and come in clusters, as those of texts do. At scale 1 there are 10,000
documents, looked at one by one, and 100,000, found by an index; building the large stores takes
some minutes. Both sides return the same LangChain documents, and of a filter those that pass.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import agentmem
from benchmarks.report import Benchmark, Figure, Goal, Line, MissingPeerError
from benchmarks.timing import Bench, interleave, require

__all__ = ["BENCHMARKS"]

DIMENSION: Final = 256
_SMALL: Final = 10_000
_LARGE: Final = 100_000
_CLUSTERS: Final = 200
_QUERIES: Final = 200
_K: Final = 10
_PAGE: Final = 1_000
_ADDED: Final = 100  # documents in one call
_ROUNDS: Final = 400
_LEAST_RECALL: Final = 0.95
_GOAL: Final = Goal("<=", 1.3)

Floats = NDArray[np.float32]


class Given:
    """An embedding that costs next to nothing: a text is the number of its vector."""

    identity = "benchmarks.vector_store"

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors.tolist()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._vectors[int(text.rpartition(" ")[2]) % len(self._vectors)]  # type: ignore[no-any-return]  # lists of floats


def _vectors(count: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(_CLUSTERS, DIMENSION))
    found = centres[rng.integers(_CLUSTERS, size=count)] + rng.normal(size=(count, DIMENSION))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.ascontiguousarray(found, dtype=np.float32)


def _document(number: int) -> tuple[str, dict[str, Any], str]:
    """Content, metadata and id, of the sizes that they have."""
    content = f"{'what a chunk of a document says ' * 12}{number}"
    return content, {"source": f"docs/{number % 100}.md", "page": number % 7}, f"d{number:07}"


@contextmanager
def _sides(folder: Path, embedding: Any, index: str) -> Iterator[tuple[Any, Any]]:
    if importlib.util.find_spec("langchain_chroma") is None:
        raise MissingPeerError("langchain-chroma is not installed")
    import chromadb
    from langchain_chroma import Chroma

    from langchain_agentmem import AgentMemVectorStore

    client = chromadb.PersistentClient(
        str(folder / f"chroma-{index}"), chromadb.Settings(anonymized_telemetry=False)
    )
    with agentmem.open(
        folder / f"{index}.db", durability="relaxed", embedder=None, index=index
    ) as store:
        yield (
            AgentMemVectorStore(store, embedding),
            Chroma("documents", embedding, client=client,
                   collection_configuration={"hnsw": {"space": "cosine"}}),
        )  # fmt: skip


def _fill(side: Any, first: int, count: int) -> None:
    for start in range(first, first + count, _PAGE):
        found = [_document(number) for number in range(start, min(start + _PAGE, first + count))]
        contents, metadatas, ids = zip(*found, strict=True)
        side.add_texts(list(contents), list(metadatas), ids=list(ids))


def _ids(documents: list[Any]) -> set[str]:
    return {document.id for document in documents}


def _recall(found: list[set[str]], exact: list[set[str]]) -> float:
    hits = sum(len(mine & best) for mine, best in zip(found, exact, strict=True))
    return hits / sum(len(best) for best in exact)


def _search(bench: Bench, name: str, size: int, index: str) -> Mapping[str, Figure]:
    count = max(300, round(size * bench.scale))
    vectors, queries = _vectors(count, 1), _vectors(_QUERIES, 2)
    asked = queries.tolist()
    with _sides(bench.folder, Given(vectors), index) as sides:
        for side in sides:
            _fill(side, 0, count)
        if index == "chroma":
            sides[0].store.admin.index()
        exact = [
            {_document(number)[2] for number in np.argsort(-(vectors @ query))[:_K].tolist()}
            for query in queries
        ]
        recalls = [
            _recall([_ids(side.similarity_search_by_vector(each, k=_K)) for each in asked], exact)
            for side in sides
        ]
        least = 1.0 if index == "exact" else _LEAST_RECALL
        require(recalls[0] >= least, f"recall@{_K} is {recalls[0]:.3f}, not {least}")
        by_vector = interleave(bench, _ROUNDS, {
            "ours": lambda n: sides[0].similarity_search_by_vector(asked[n % _QUERIES], k=_K),
            "theirs": lambda n: sides[1].similarity_search_by_vector(asked[n % _QUERIES], k=_K),
        })  # fmt: skip
        with_score = interleave(bench, _ROUNDS, {
            "ours": lambda n: sides[0].similarity_search_with_score(f"text {n}", k=_K),
            "theirs": lambda n: sides[1].similarity_search_with_score(f"text {n}", k=_K),
        })  # fmt: skip
        return {
            f"vectors-{name}": Figure.cost(by_vector["ours"], by_vector["theirs"]),
            f"vectors-score-{name}": Figure.cost(with_score["ours"], with_score["theirs"]),
            f"vectors-recall-{name}": Figure(*recalls, "recall", recalls[0], "recall", _QUERIES),
        }


def _small(bench: Bench) -> Mapping[str, Figure]:
    return _search(bench, "10k", _SMALL, "exact")


def _large(bench: Bench) -> Mapping[str, Figure]:
    return _search(bench, "100k", _LARGE, "chroma")


def _add(bench: Bench) -> Mapping[str, Figure]:
    with _sides(bench.folder, Given(_vectors(_SMALL, 1)), "exact") as sides:
        samples = interleave(bench, 60, {
            "ours": lambda n: _fill(sides[0], n * _ADDED, _ADDED),
            "theirs": lambda n: _fill(sides[1], n * _ADDED, _ADDED),
        })  # fmt: skip
        added = len(samples["ours"].seconds) * _ADDED
        require(sides[0].store.count("documents") == added, "documents are missing")
        return {"vectors-add": Figure.cost(samples["ours"], samples["theirs"])}


def _lines(name: str, what: str, least: float) -> tuple[Line, ...]:
    return (
        Line(f"vectors-{name}", f"similarity_search_by_vector, {what}", "langchain-chroma", _GOAL),
        Line(f"vectors-score-{name}", "similarity_search_with_score", "the same", _GOAL),
        Line(f"vectors-recall-{name}", "recall@10", "the same", Goal(">=", least)),
    )


BENCHMARKS: Final = (
    Benchmark("vectors-small", _lines("10k", "10,000", 1.0), _small),
    Benchmark("vectors-large", _lines("100k", "index, 100,000", _LEAST_RECALL), _large),
    Benchmark(
        "vectors-add",
        (Line("vectors-add", "add_texts, 100 documents, relaxed", "langchain-chroma"),),
        _add,
    ),
)
