"""The text index: FTS5 over the current entries, changed with them in one transaction.

It keeps the words, not the texts: the log has those. To take an entry out, FTS5 is told its text
again, which also keeps the statistics true (in tables made with ``contentless_delete`` they only
grow, so a key that is rewritten often would change everybody's rank).

**Ranking** is bm25 as FTS5 has it (Robertson & Zaragoza, 2009; k1 = 1.2, b = 0.75)::

    sum over words w of  idf(w) * f(w) * (k1 + 1) / (f(w) + k1 * (1 - b + b * length / average))
    idf(w) = max(1e-6, log((N - n(w) + 0.5) / (n(w) + 0.5)))

For texts that are not in the index (those of the past, and those of a transaction) the same is
computed here from the same statistics. They are taken apart by FTS5 itself, in a table in
memory, so that both sides agree on what a word is.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from agentmem.engines.ranges import namespace_bounds
from agentmem.engines.rows import (
    Range,
    TextHit,
)
from agentmem.engines.sqlite.driver import driver, is_corrupt
from agentmem.search.words import found_by, indexed

__all__ = [
    "Statistics",
    "change",
    "create",
    "fill",
    "gain_of",
    "hits",
    "holding",
    "ids",
    "length",
    "norm_of",
    "rebuild",
    "refresh",
    "rounded",
    "scores",
    "statistics",
    "stems",
    "table",
]

_log = logging.getLogger("agentmem")

Executes = driver.Connection | driver.Cursor

_TOKENIZER: Final = "porter unicode61 remove_diacritics 2"
_CREATE: Final = (
    f"CREATE VIRTUAL TABLE search_text USING fts5(text, content='', tokenize='{_TOKENIZER}')"
)
# FTS5's own 4,050 bytes, nearly a page of SQLite's, cost each commit 5 µs more, and make no
# search quicker (measured on 3.53.4).
_PAGE_BYTES: Final = 1_000
_SET_PAGE: Final = "INSERT INTO search_text (search_text, rank) VALUES ('pgsz', ?)"
_INSERT: Final = "INSERT INTO search_text (rowid, text) VALUES (?, ?)"
_REMOVE: Final = "INSERT INTO search_text (search_text, rowid, text) VALUES ('delete', ?, ?)"
_CURRENT: Final = (
    "SELECT e.id, e.value, e.text FROM heads h JOIN entries e ON e.id = h.entry_id "
    "WHERE e.value IS NOT NULL"
)
_HITS: Final = """
SELECT e.id, e.namespace, e.key, e.revision, -rank AS score
FROM search_text f JOIN entries e ON e.id = f.rowid
WHERE search_text MATCH :query AND e.revision <= :revision"""
_BELOW: Final = " AND e.namespace >= :start AND e.namespace < :end"
# Of a whole store the best are known before the log is asked for their keys: ids rise with
# revisions. One more than asked for shows whether some that score the same were left out.
_HITS_OF_ALL: Final = """
SELECT e.id, e.namespace, e.key, e.revision, -f.rank AS score FROM (
    SELECT rowid AS id, rank FROM search_text
    WHERE search_text MATCH :query AND rowid <= (
        SELECT first_entry_id + changes - 1 FROM commits WHERE revision = :revision)
    ORDER BY {order} LIMIT :limit + 1) f JOIN entries e ON e.id = f.id
ORDER BY score DESC, e.namespace, e.key
"""
_ALL_BY_RANK: Final = _HITS_OF_ALL.format(order="rank")
_ALL_ALSO: Final = _HITS_OF_ALL.format(
    order="rowid IN (SELECT value FROM json_each(:also)) DESC, rank"
)
_BEST: Final = " ORDER BY score DESC, e.namespace, e.key LIMIT :limit + 0"
# In one look at the index, as a second one would find others if somebody writes.
_BEST_ALSO: Final = """
ORDER BY e.id IN (SELECT value FROM json_each(:also)) DESC, score DESC, e.namespace, e.key
LIMIT :limit + 0
"""
_HOLDING: Final = "SELECT COUNT(*) FROM search_text WHERE search_text MATCH ?"
# FTS5's own record of how many rows, and how many words in all, it has.
_TOTALS: Final = "SELECT block FROM search_text_data WHERE id = 1"
_IDS: Final = "SELECT id FROM search_text_docsize ORDER BY id"
_NO_END: Final = b""
_SCRATCH_PLACES: Final = "SELECT doc, offset FROM texts_parts WHERE term = ?"
_K1: Final = 1.2
_B: Final = 0.75
_LEAST_IDF: Final = 1e-6
_MAX_STEMS: Final = 2_000  # words whose stems are kept, by each thread that searches
_LONG_WORD: Final = 50  # of more characters: not kept
_DIGITS: Final = 9  # of a score: both sides compute it, and may differ in the last bit


def create(connection: Executes) -> None:
    """Makes the empty index."""
    connection.execute(_CREATE)
    connection.execute(_SET_PAGE, (_PAGE_BYTES,))


def fill(connection: Executes) -> None:
    """Adds the current entries of a log that had no index."""
    for entry_id, value, text in connection.execute(_CURRENT).fetchall():
        found = found_by(value, text)
        if found is not None:
            connection.execute(_INSERT, (entry_id, indexed(found)))


def change(
    cursor: driver.Cursor, gone: Sequence[tuple[int, str]], texts: Mapping[int, str]
) -> None:
    """Takes entries out and adds others, after the heads were moved.

    If FTS5 finds that it does not hold what is taken out, the index is not that of the log, and
    is made anew: it is derived, so no commit need fail for it.
    """
    try:
        for entry_id, text in gone:
            cursor.execute(_REMOVE, (entry_id, indexed(text)))
        for entry_id, text in texts.items():
            cursor.execute(_INSERT, (entry_id, indexed(text)))
    except driver.DatabaseError as error:
        if not is_corrupt(error):
            raise
        _log.warning("the text index is not that of the log, and is made anew: %s", error)
        rebuild(cursor)


def rebuild(connection: Executes) -> None:
    """Makes the index anew from the log."""
    connection.execute("DROP TABLE search_text")
    create(connection)
    fill(connection)


def refresh(connection: Executes) -> None:
    """Has FTS5 look at the index as it is, in the transaction that the connection is in.

    ``PRAGMA integrity_check`` does not look whether others have written (measured on 3.53.4): it
    then misses the segments that they have merged away, and calls that corruption.
    """
    # If this fails, the check finds what is wrong.
    with contextlib.suppress(driver.Error):
        connection.execute(_HOLDING, ('"a"',)).fetchone()


def ids(connection: Executes) -> list[int]:
    """See `Engine.text_ids`."""
    return [row[0] for row in connection.execute(_IDS).fetchall()]


def hits(
    connection: Executes,
    words: Sequence[str],
    within: Range,
    revision: int,
    limit: int,
    also: Sequence[int],
) -> list[TextHit]:
    """See `Engine.text_hits`; the score is bm25."""
    values = {"query": _any_of(words), "revision": revision, "limit": limit + len(also)}
    statement = _HITS
    if also:
        values["also"] = json.dumps(also)
    if within.namespace:
        start, end = namespace_bounds(within.namespace)
        values |= {"start": start, "end": _NO_END if end is None else end}
        statement += _BELOW
    else:
        rows = connection.execute(_ALL_ALSO if also else _ALL_BY_RANK, values).fetchall()
        found = [_hit(row) for row in rows]
        if len(found) <= limit + len(also):
            return found
        *others, last = (hit for hit in found if hit.entry_id not in also)
        if last.score != others[-1].score:
            found.remove(last)
            return found
    rows = connection.execute(statement + (_BEST_ALSO if also else _BEST), values).fetchall()
    return [_hit(row) for row in rows]


def _hit(row: tuple[Any, ...]) -> TextHit:
    return TextHit._make((*row[:4], rounded(row[4])))


def scores(connection: Executes, words: Sequence[str], texts: Sequence[str]) -> list[float]:
    """See `Engine.text_scores`."""
    found = [0.0] * len(texts)
    counted = _scratch().count(words, texts)
    held = sorted({word for _length, counts in counted for word in counts})
    if not held:
        return found
    today = statistics(connection, [words[word] for word in held])
    weights = dict(zip(held, today.weights, strict=True))
    for index, (size, counts) in enumerate(counted):
        norm = norm_of(size, today)
        score = 0.0
        for word, count in sorted(counts.items()):
            score += gain_of(weights[word], count, norm)
        found[index] = rounded(score)
    return found


class Statistics(NamedTuple):
    """What of the index scores depend on.

    Attributes:
        average: length of its texts, in words.
        weights: the idf of each word.
    """

    average: float
    weights: list[float]


def statistics(connection: Executes, words: Sequence[str]) -> Statistics:
    """Those of today, for some words."""
    rows, total = _totals(connection)
    holding = [connection.execute(_HOLDING, (_any_of([word]),)).fetchone()[0] for word in words]
    average = total / rows if rows else 1.0
    return Statistics(average or 1.0, [_idf(rows, each) for each in holding])


def norm_of(length: Any, today: Statistics) -> Any:
    """What a length does to a score: of a number, or an array, the same to the last bit."""
    return _K1 * (1 - _B + _B * length / today.average)


def gain_of(weight: float, count: Any, norm: Any) -> Any:
    """What a word adds to a text's score; as `norm_of`."""
    return weight * (count * (_K1 + 1)) / (count + norm)


def _idf(rows: int, holding: int) -> float:
    ratio = (rows - holding + 0.5) / (holding + 0.5)
    idf = math.log(ratio) if ratio > 0 else 0.0
    return idf if idf > 0 else _LEAST_IDF


def rounded(score: float) -> float:
    return float(f"{score:.{_DIGITS}g}")


def _any_of(words: Sequence[str]) -> str:
    return " OR ".join('"' + word.replace('"', '""') + '"' for word in words)


def _totals(connection: Executes) -> tuple[int, int]:
    """How many texts the index has, and how many words all of them."""
    row = connection.execute(_TOTALS).fetchone()
    if row is None or not row[0]:  # as long as nothing was indexed
        return 0, 0
    rows, after = _varint(row[0], 0)
    return rows, _varint(row[0], after)[0] if after < len(row[0]) else 0


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """A number in SQLite's variable-length encoding, and where the next begins."""
    number = 0
    for index in range(start, min(start + 8, len(data))):
        number = (number << 7) | (data[index] & 0x7F)
        if not data[index] & 0x80:
            return number, index + 1
    return (number << 8) | data[start + 8], start + 9


class _Scratch:
    """Takes texts apart as the index does, in a database in memory. Of one thread."""

    def __init__(self) -> None:
        self._stems: dict[str, tuple[str, ...]] = {}  # of a word they are always the same
        self._connection = driver.connect(":memory:", isolation_level=None, check_same_thread=False)
        for name in ("texts", "word"):
            self._connection.execute(table(name))
            self._connection.execute(
                f"CREATE VIRTUAL TABLE {name}_parts USING fts5vocab({name}, instance)"
            )

    def count(self, words: Sequence[str], texts: Sequence[str]) -> list[tuple[int, dict[int, int]]]:
        """For each text its length in words, and how often it holds which word (by index)."""
        execute = self._connection.execute
        counts: list[dict[int, int]] = [{} for _text in texts]
        execute("BEGIN")
        try:
            self._connection.executemany(
                "INSERT INTO texts (rowid, x) VALUES (?, ?)",
                [(index, indexed(text)) for index, text in enumerate(texts)],
            )
            for index, word in enumerate(words):
                for row in holding(self._connection, _SCRATCH_PLACES, self._parts(word)):
                    counts[row][index] = counts[row].get(index, 0) + 1
            sizes = dict(execute("SELECT id, sz FROM texts_docsize").fetchall())
        finally:
            execute("ROLLBACK")
        return [(length(sizes[index]), found) for index, found in enumerate(counts)]

    def _parts(self, word: str) -> tuple[str, ...]:
        """The stems that a word is looked for by: one, or those of a phrase."""
        known = self._stems.get(word)
        if known is not None:
            return known
        self._connection.execute("DELETE FROM word")
        self._connection.execute("INSERT INTO word (x) VALUES (?)", (word,))
        rows = self._connection.execute("SELECT term FROM word_parts ORDER BY offset").fetchall()
        found = tuple(term for (term,) in rows)
        if len(word) <= _LONG_WORD:
            if len(self._stems) == _MAX_STEMS:
                del self._stems[next(iter(self._stems))]
            self._stems[word] = found
        return found


def holding(connection: driver.Connection, places: str, parts: Iterable[str]) -> list[int]:
    """The texts that hold parts in a row, once for each time.

    Args:
        places: a statement that gives the texts and offsets of a part.
    """
    found: set[tuple[int, int]] | None = None
    for distance, part in enumerate(parts):
        rows: list[Any] = connection.execute(places, (part,)).fetchall()
        begins = {(doc, offset - distance) for doc, offset in rows}
        found = begins if found is None else found & begins
    return [doc for doc, _offset in found or ()]


def length(size: bytes) -> int:
    """How many words a text has, of what FTS5 keeps of it."""
    return _varint(size, 0)[0]


def stems(word: str) -> Sequence[str]:
    """The parts that a word is looked for by: one, or those of a phrase."""
    return _scratch()._parts(word)


def table(name: str) -> str:
    """The statement that makes a table of texts, which are taken apart as those of the index."""
    return f"CREATE VIRTUAL TABLE {name} USING fts5(x, tokenize='{_TOKENIZER}')"


_local = threading.local()


def _scratch() -> _Scratch:
    found: _Scratch | None = getattr(_local, "scratch", None)
    if found is None:
        found = _local.scratch = _Scratch()
    return found
