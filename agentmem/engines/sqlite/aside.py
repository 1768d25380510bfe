"""Texts that the index does not hold, taken apart once: see `agentmem.engines.base.TextsAside`.

Imported where it is used, as NumPy is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from agentmem.engines.sqlite import text
from agentmem.engines.sqlite.driver import driver
from agentmem.search.words import indexed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SqliteTextsAside"]

_INSERT: Final = "INSERT INTO texts (rowid, x) VALUES (?, ?)"
_SIZES: Final = "SELECT id, sz FROM texts_docsize WHERE id > ? ORDER BY id"
_COUNTS: Final = "SELECT doc, COUNT(*) FROM parts WHERE term = ? GROUP BY doc"
_PLACES: Final = "SELECT doc, offset FROM parts WHERE term = ?"
_ROUNDED: Final = 1e-7  # more than rounding can move a score, as a part of it


class SqliteTextsAside:
    """They are in a database in memory, by FTS5 as those of the index; their rows count from 1."""

    def __init__(self, statistics: Callable[[Sequence[str]], text.Statistics]) -> None:
        """
        Args:
            statistics: today's, of the index, for words.
        """
        self._statistics = statistics
        self._connection = driver.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.execute(text.table("texts"))
        self._connection.execute("CREATE VIRTUAL TABLE parts USING fts5vocab(texts, instance)")
        self._ids: list[int] = []
        self._slots: dict[int, int] = {}
        self._lengths: NDArray[np.float64] = np.empty(0)

    def add(self, texts: Mapping[int, str]) -> None:
        if not texts:
            return
        connection, first = self._connection, len(self._ids)
        connection.execute("BEGIN")
        try:
            rows = ((first + 1 + n, indexed(each)) for n, each in enumerate(texts.values()))
            connection.executemany(_INSERT, rows)
            sizes = connection.execute(_SIZES, (first,)).fetchall()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        lengths = [text.length(size) for _row, size in sizes]
        self._lengths = np.concatenate([self._lengths, np.array(lengths, dtype=np.float64)])
        self._slots.update((id, first + n) for n, id in enumerate(texts))
        self._ids.extend(texts)

    def best(
        self, words: Sequence[str], limit: int, also: Collection[int]
    ) -> tuple[dict[int, float], bool]:
        found = {word: held for word in words if len((held := self._counts(word))[0])}
        if not found:
            return {}, False
        today = self._statistics(list(found))
        norms = text.norm_of(self._lengths, today)
        scores = np.zeros(len(self._ids))
        for weight, (slots, counts) in zip(today.weights, found.values(), strict=True):
            scores[slots] += text.gain_of(weight, counts, norms[slots])
        holding = scores.nonzero()[0]
        chosen = holding
        if len(holding) > limit:
            last = np.partition(scores, len(scores) - limit)[len(scores) - limit]
            chosen = (scores >= last * (1 - _ROUNDED)).nonzero()[0]
        wanted = dict.fromkeys(chosen.tolist())
        wanted |= dict.fromkeys(slot for id in also if (slot := self._slots.get(id)) is not None)
        best = {self._ids[slot]: text.rounded(float(scores[slot])) for slot in wanted}
        return {id: score for id, score in best.items() if score}, len(chosen) < len(holding)

    def _counts(self, word: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The texts that hold a word, and how often each does."""
        parts = text.stems(word)
        if len(parts) == 1:
            rows = self._connection.execute(_COUNTS, tuple(parts)).fetchall()
        else:
            rows = sorted(Counter(text.holding(self._connection, _PLACES, parts)).items())
        counts = np.array(rows, dtype=np.int64).reshape(len(rows), 2)
        return counts[:, 0] - 1, counts[:, 1].astype(np.float64)
