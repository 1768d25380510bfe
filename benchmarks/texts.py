"""Searching by words, and by words and meaning: beside FTS5 alone, and in the past beside now.

Texts are drawn from words of which, as in a language, few are frequent. An embedder that costs
nearly nothing stands for a model, so that the search is what is measured.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

import agentmem
from agentmem.engines.sqlite.driver import driver
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, interleave, require

__all__ = ["BENCHMARKS"]

_TEXTS: Final = 10_000
_LATER: Final = 1_000
_LENGTH: Final = 20  # words of a text
_ASKED: Final = 4  # words of a query
_WORDS: Final = 5_000
_DIMENSION: Final = 64
_QUERIES: Final = 200
_PAGE: Final = 500


class _Means:
    """The mean of a direction for each word."""

    identity = "benchmark/means"

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._directions = rng.normal(size=(_WORDS, _DIMENSION)).astype(np.float32)

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        places = [[zlib.crc32(word.encode()) % _WORDS for word in text.split()] for text in texts]
        found = np.stack([self._directions[each or [0]].mean(axis=0) for each in places])
        return found.astype(np.float32)


def _texts(count: int, length: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = [f"{a}{b}{c}" for a in "bcdfghklmn" for b in "aeiou" for c in range(_WORDS // 50)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    return [" ".join(rng.choices(words, weights, k=length)) for _number in range(count)]


def _searches(bench: Bench) -> Mapping[str, Figure]:
    texts = _texts(max(200, round(_TEXTS * bench.scale)), _LENGTH, 1)
    queries = _texts(_QUERIES, _ASKED, 2)
    alone = driver.connect(bench.path("alone.db"), isolation_level=None)
    alone.execute(
        "CREATE VIRTUAL TABLE t USING fts5(x, tokenize='porter unicode61 remove_diacritics 2')"
    )
    alone.execute("BEGIN")
    alone.executemany("INSERT INTO t VALUES (?)", [(text,) for text in texts])
    alone.execute("COMMIT")

    def bare(number: int) -> list[tuple[int, float]]:
        asked = " OR ".join(f'"{word}"' for word in queries[number % _QUERIES].split())
        statement = "SELECT rowid, -rank FROM t WHERE t MATCH ? ORDER BY rank LIMIT 10"
        found: list[tuple[int, float]] = alone.execute(statement, (asked,)).fetchall()
        return found

    path = bench.path("texts.db")
    with agentmem.open(path, embedder=_Means(), durability="relaxed") as store:
        for start in range(0, len(texts), _PAGE):
            page = texts[start : start + _PAGE]
            store.put_many({f"k{start + n:06}": text for n, text in enumerate(page)})
        for number in range(10):
            scores = [hit.score for hit in store.search(queries[number], mode="text")]
            wanted = [score for _row, score in bare(number)]
            require(bool(np.allclose(scores, wanted)), "other texts are found")
            store.search(queries[number])
        now = interleave(
            bench,
            _QUERIES,
            {
                "bare": bare,
                "text": lambda number: store.search(queries[number % _QUERIES], mode="text"),
                "hybrid": lambda number: store.search(queries[number % _QUERIES]),
            },
        )
        old = store.snapshot()
        for number, text in enumerate(_texts(_LATER, _LENGTH, 3)):
            store.put(f"k{number:06}", text, overwrite=True)
    # Anew, so that nothing of what was before is in memory.
    with agentmem.open(path, embedder=_Means(), durability="relaxed") as store:
        old = store.snapshot(at=old.revision)
        for view in (store, old):
            view.search(queries[0])
        past = interleave(
            bench,
            _QUERIES,
            {
                "text": lambda number: store.search(queries[number % _QUERIES], mode="text"),
                "text then": lambda number: old.search(queries[number % _QUERIES], mode="text"),
                "hybrid": lambda number: store.search(queries[number % _QUERIES]),
                "hybrid then": lambda number: old.search(queries[number % _QUERIES]),
            },
        )
    alone.close()
    return {
        "search-text": Figure.cost(now["text"], now["bare"]),
        "search-hybrid": Figure.cost(now["hybrid"], now["text"]),
        "search-text-past": Figure.cost(past["text then"], past["text"]),
        "search-hybrid-past": Figure.cost(past["hybrid then"], past["hybrid"]),
    }


BENCHMARKS: Final = (
    Benchmark(
        "search-texts",
        (
            Line("search-text", "search, words, 10,000 texts", "FTS5 alone"),
            Line("search-hybrid", "search, words and vectors", "words alone"),
            Line("search-text-past", "1,000 commits ago, words", "now", Goal("<=", 2)),
            Line("search-hybrid-past", "1,000 commits ago, both", "now", Goal("<=", 2)),
        ),
        _searches,
    ),
)
