"""Texts that the index does not hold, taken apart once: see `agentmem.engines.base.TextsAside`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agentmem.engines.sqlite import text
from agentmem.engines.sqlite.driver import driver
from agentmem.search.words import indexed

__all__ = ["SqliteTextsAside"]

_PLACES: Final = "SELECT doc, offset FROM parts WHERE term = ?"
_SIZES: Final = "SELECT id, sz FROM texts_docsize WHERE id BETWEEN ? AND ?"

Weighs = Callable[[Sequence[str], Mapping[int, tuple[int, dict[int, int]]]], dict[int, float]]


class SqliteTextsAside:
    """They are in a database in memory, by FTS5 as those of the index."""

    def __init__(self, weigh: Weighs) -> None:
        """
        Args:
            weigh: makes scores of how often each text holds which words, by today's statistics.
        """
        self._weigh = weigh
        self._lengths: dict[int, int] = {}
        self._connection = driver.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.execute(text.table("texts"))
        self._connection.execute("CREATE VIRTUAL TABLE parts USING fts5vocab(texts, instance)")

    def add(self, texts: Mapping[int, str]) -> None:
        if not texts:
            return
        connection = self._connection
        connection.execute("BEGIN")
        try:
            connection.executemany(
                "INSERT INTO texts (rowid, x) VALUES (?, ?)",
                [(id, indexed(each)) for id, each in texts.items()],
            )
            sizes = connection.execute(_SIZES, (min(texts), max(texts))).fetchall()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        self._lengths.update((id, text.length(size)) for id, size in sizes)

    def scores(self, words: Sequence[str]) -> dict[int, float]:
        counts: dict[int, dict[int, int]] = {}
        for index, word in enumerate(words):
            for id in text.holding(self._connection, _PLACES, text.stems(word)):
                found = counts.setdefault(id, {})
                found[index] = found.get(index, 0) + 1
        lengths = self._lengths
        return self._weigh(words, {id: (lengths[id], found) for id, found in counts.items()})
