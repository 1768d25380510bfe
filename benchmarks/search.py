"""Searching: every vector looked at beside NumPy, an index by Chroma beside Chroma alone.

Vectors have 384 numbers and come in clusters, as those of texts do. At scale 1 there are 10,000
and 100,000 of them; building the large store and its index takes some minutes.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import agentmem
from benchmarks.report import Benchmark, Figure, Goal, Line, MissingPeerError
from benchmarks.timing import Bench, Samples, interleave, require

__all__ = ["BENCHMARKS"]

DIMENSION: Final = 384
_SMALL: Final = 10_000
_LARGE: Final = 100_000
_CLUSTERS: Final = 200
_QUERIES: Final = 200
_K: Final = 10
_LATER: Final = 1_000
_PAGE: Final = 1_000
_ALLOWED_S: Final = 0.000_1  # beside the product: for the log, and for the entries found
_RARE: Final = 100  # one entry in so many is in the small namespace

Floats = NDArray[np.float32]


def _vectors(count: int, seed: int) -> Floats:
    """Directions around as many centres as there are clusters."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(_CLUSTERS, DIMENSION))
    found = centres[rng.integers(_CLUSTERS, size=count)] + rng.normal(size=(count, DIMENSION))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.ascontiguousarray(found, dtype=np.float32)


def _count(bench: Bench, count: int) -> int:
    return max(200, round(count * bench.scale))


def _fill(store: agentmem.Store, vectors: Floats, first: int = 0, page: int = _PAGE) -> None:
    for start in range(0, len(vectors), page):
        with store.transaction() as tx:
            for index in range(start, min(start + page, len(vectors))):
                number = first + index
                tx.put(f"k{number:06}", number, namespace=_namespace(number), vector=vectors[index])


def _namespace(number: int) -> str:
    return "rare" if number % _RARE == 0 else "common"


def _best(vectors: Floats, query: Floats) -> set[int]:
    return set(np.argsort(-(vectors @ query))[:_K].tolist())


def _exact(bench: Bench) -> Mapping[str, Figure]:
    return _exact_of(bench, "10k", _SMALL) | _exact_of(bench, "100k", _LARGE)


def _exact_of(bench: Bench, name: str, size: int) -> dict[str, Figure]:
    vectors, queries = _vectors(_count(bench, size), 1), _vectors(_QUERIES, 2)
    path = bench.path(f"exact-{name}.db")
    with agentmem.open(path, embedder=None, index="exact", durability="relaxed") as store:
        _fill(store, vectors)
        snap = store.snapshot()
        store.search(queries[0])
        for number in range(_K):
            keys = {hit.entry.value for hit in store.search(queries[number])}
            require(keys == _best(vectors, queries[number]), "other entries are nearer")
        samples = interleave(
            bench,
            _QUERIES,
            {
                "numpy": lambda number: vectors @ queries[number % _QUERIES],
                "search": lambda number: store.search(queries[number % _QUERIES], k=_K),
                "rare": lambda number: store.search(
                    queries[number % _QUERIES], k=_K, namespace="rare"
                ),
            },
        )
        held = store._core.searcher.finder().nbytes
        _fill(store, _vectors(_LATER, 3), first=len(vectors), page=1)
        later = interleave(
            bench,
            _QUERIES,
            {
                "now": lambda number: store.search(queries[number % _QUERIES], k=_K),
                "then": lambda number: snap.search(queries[number % _QUERIES], k=_K),
            },
        )
    size_of = held / vectors.nbytes
    return {
        f"search-exact-{name}": _less(_ALLOWED_S, samples["search"], samples["numpy"]),
        f"search-rare-{name}": _milliseconds(samples["rare"]),
        f"search-memory-{name}": Figure(held, vectors.nbytes, "B", size_of, "x", 1),
        f"search-past-{name}": Figure.cost(later["then"], later["now"]),
    }


def _less(seconds: float, ours: Samples, other: Samples) -> Figure:
    """How many times as long as the other ours takes, but for so many seconds."""
    mine, others = ours.median, other.median
    return Figure(mine, others, "s", (mine - seconds) / others, "x", len(ours.seconds))


def _milliseconds(samples: Samples) -> Figure:
    median = samples.median * 1_000
    return Figure(samples.median, None, "s", median, "ms", len(samples.seconds))


def _put(bench: Bench) -> Mapping[str, Figure]:
    vectors = _vectors(2_000, 1)
    with ExitStack() as stack:
        stores = [
            stack.enter_context(
                agentmem.open(bench.path(f"{name}.db"), embedder=None, durability="relaxed")
            )
            for name in ("with", "without")
        ]
        samples = interleave(
            bench,
            2_000,
            {
                "with": lambda number: stores[0].put(
                    f"k{number}", number, vector=vectors[number % len(vectors)]
                ),
                "without": lambda number: stores[1].put(f"k{number}", number),
            },
        )
        rounds = len(samples["with"].seconds)
        require(stores[0].admin.stats()["vectors"] == rounds, "vectors are missing")
    return {"put-vector": Figure.cost(samples["with"], samples["without"])}


def _chroma(bench: Bench) -> Mapping[str, Figure]:
    if importlib.util.find_spec("chromadb") is None:
        raise MissingPeerError("chromadb")
    vectors, queries = _vectors(_count(bench, _LARGE), 1), _vectors(_QUERIES, 2)
    begun = time.perf_counter()
    alone = _alone(bench, vectors)
    loaded = time.perf_counter() - begun
    path = bench.path("indexed.db")
    with agentmem.open(path, embedder=None, index="chroma", durability="relaxed") as store:
        _fill(store, vectors)
        begun = time.perf_counter()
        store.admin.index()
        built = time.perf_counter() - begun
        store.search(queries[0])
        snap = store.snapshot()
        hit = 0
        for query in queries:
            keys = {each.entry.value for each in store.search(query, k=_K)}
            hit += len(keys & _best(vectors, query))
        recall = hit / _K / len(queries)
        require(recall >= 0.95, f"recall@{_K} is {recall:.3f}")
        found = {
            "index-build": Figure(built, loaded, "s", built / loaded, "x", 1),
            "index-recall": Figure(recall, None, "recall", recall, "recall", len(queries)),
        }
        _beside(bench, found, "index", store, alone, queries)
        _fill(store, _vectors(_LATER, 3), first=len(vectors), page=1)
        _beside(bench, found, "index-lag", store, alone, queries)
        samples = interleave(
            bench,
            _QUERIES,
            {
                "now": lambda number: store.search(queries[number % _QUERIES], k=_K),
                "then": lambda number: snap.search(queries[number % _QUERIES], k=_K),
            },
        )
        found["index-past"] = Figure.cost(samples["then"], samples["now"])
    return found


def _alone(bench: Bench, vectors: Floats) -> Any:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(
        bench.path("chroma"), settings=Settings(anonymized_telemetry=False)
    )
    rows = client.create_collection(
        "rows", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    for start in range(0, len(vectors), 5_000):
        page = vectors[start : start + 5_000]
        numbers = range(start, start + len(page))
        rows.add(
            ids=[str(number) for number in numbers],
            embeddings=page,
            documents=[str(number) for number in numbers],
            metadatas=[{"namespace": _namespace(number)} for number in numbers],
        )
    return rows


def _beside(
    bench: Bench,
    found: dict[str, Figure],
    name: str,
    store: agentmem.Store,
    alone: Any,
    queries: Floats,
) -> None:
    samples = interleave(
        bench,
        _QUERIES,
        {
            "whole": lambda number: alone.query(
                query_embeddings=queries[number % _QUERIES][None], n_results=_K
            ),
            "bare": lambda number: alone.query(
                query_embeddings=queries[number % _QUERIES][None],
                n_results=_K,
                include=["distances"],
            ),
            "search": lambda number: store.search(queries[number % _QUERIES], k=_K),
        },
    )
    found[name] = Figure.cost(samples["search"], samples["whole"])
    found[f"{name}-bare"] = Figure.cost(samples["search"], samples["bare"])


def _lines(name: str, size: str) -> tuple[Line, ...]:
    return (
        Line(
            f"search-exact-{name}",
            f"search, exact, {size}, less 0.1 ms",
            "NumPy product",
            Goal("<=", 1.2),
        ),
        Line(f"search-past-{name}", f"1,000 commits ago, exact, {size}", "now", Goal("<=", 2)),
        Line(f"search-rare-{name}", f"in 1 % of {size}", "", Goal("<=", 2)),
        Line(f"search-memory-{name}", f"memory, {size}", "the matrix", Goal("<=", 1.3)),
    )


BENCHMARKS: Final = (
    Benchmark("search-exact", (*_lines("10k", "10,000"), *_lines("100k", "100,000")), _exact),
    Benchmark(
        "put-vector",
        (Line("put-vector", "put with a vector, relaxed", "without", Goal("<=", 1.5)),),
        _put,
    ),
    Benchmark(
        "search-chroma",
        (
            Line("index", "search, Chroma, 100,000", "collection.query", Goal("<=", 1.0)),
            Line("index-bare", "the same", "ids and distances only", Goal("<=", 1.2)),
            Line("index-lag", "the same, 1,000 not indexed", "collection.query", Goal("<=", 1.2)),
            Line("index-lag-bare", "the same", "ids and distances only", Goal("<=", 1.4)),
            Line("index-past", "1,000 commits ago, Chroma", "now", Goal("<=", 2)),
            Line("index-build", "building the index", "a bare Chroma load", Goal("<=", 1.2)),
            Line("index-recall", "recall@10", "", Goal(">=", 0.95)),
        ),
        _chroma,
    ),
)
