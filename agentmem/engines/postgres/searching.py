"""Searching on PostgreSQL: ``tsvector`` with GIN for words, and the vectors of the log.

**Ranking** of words is by ``ts_rank`` of each word, which rises with how often a text holds it and
falls with the text's length, weighted by how rare the word is::

    sum over words w of  ln(1 + (N - n(w) + 0.5) / (n(w) + 0.5)) * ts_rank(text, w, 1)

Words are taken as the store's own configuration has them: English stems, as in PostgreSQL's
``english``, but without its stop words, which would be lost to questions that have no others.
A word of a query becomes a tsquery by ``phraseto_tsquery``, so nothing in it is an operator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from agentmem.engines.base import (
    check_floor,
)
from agentmem.engines.postgres.tallies import changed, more, sealed_as
from agentmem.engines.postgres.wire import Rows
from agentmem.engines.ranges import label_bounds, namespace_bounds
from agentmem.engines.rows import (
    EntryRow,
    GenerationRow,
    NewCommit,
    NewVector,
    Place,
    Position,
    Range,
    Spaces,
    TextHit,
    VectorRow,
    VectorSet,
    vector_id,
)
from agentmem.search.words import indexed

__all__ = ["SEARCH_STATEMENTS", "SearchReads", "appended", "cut", "spaces_of"]

# ruff: noqa: S608  # joined from the constants of this file, nothing else
_MAX_TEXT_BYTES: Final = 256 * 1024  # a tsvector holds a megabyte at most, whatever the words
_DIGITS: Final = 9  # of a score, whose sum may differ in the last bit

_COLUMNS: Final = """e.id, e.namespace, e.key, e.version, e.revision, e.operation, e.base_version,
    e.merged, e.value, e.text, e.created_at, e.expires_at, c.agent, c.op_id, c.committed_at"""
# Each word that is one, and its weight. OFFSET 0 keeps each word's count a look of its own.
_WEIGHTS: Final = """k AS MATERIALIZED (SELECT w.query,
            ln(1 + (s.texts - holding.n + 0.5::float8) / (holding.n + 0.5::float8)) AS weight
        FROM w CROSS JOIN {s}.store s CROSS JOIN LATERAL (SELECT COUNT(*) AS n FROM {s}.texts t
            WHERE t.words @@ w.query OFFSET 0) holding)"""
_QUERIES: Final = """(SELECT phraseto_tsquery({config}, u.word) AS query
            FROM unnest($1::text[]) AS u(word) OFFSET 0) w WHERE numnode(w.query) > 0"""
# A phrase is looked for, not only its parts, which is all that ts_rank does.
_SCORE: Final = """(SELECT SUM(k.weight * ts_rank(t.words, k.query, 1)) FROM k
            WHERE t.words @@ k.query)"""
# LIMIT 1 keeps the planner at one look into an index a row, as in `statements`.
_ENTRY: Final = """CROSS JOIN LATERAL (
            SELECT * FROM {s}.entries x WHERE x.id = v.id - $1 LIMIT 1) e"""
_HEAD: Final = """CROSS JOIN LATERAL (SELECT x.entry_id FROM {s}.heads x
            WHERE x.namespace = e.namespace AND x.key = e.key LIMIT 1) h"""
_COMMIT: Final = """CROSS JOIN LATERAL (
            SELECT * FROM {s}.commits x WHERE x.revision = e.revision LIMIT 1) c"""
_UNTIL: Final = """CASE WHEN h.entry_id = e.id THEN NULL ELSE (
                SELECT MIN(n.revision) FROM {s}.entries n WHERE n.namespace = e.namespace
                    AND n.key = e.key AND n.revision > e.revision) END"""


def _scores(words: str) -> str:
    """A statement for what texts score; `words` makes a tsvector of each ``u.text``."""
    return f"""WITH t AS MATERIALIZED (SELECT u.n, {words} AS words
            FROM unnest($2::text[]) WITH ORDINALITY AS u(text, n)),
        w AS MATERIALIZED (SELECT w.query FROM {_QUERIES}
            AND EXISTS (SELECT 1 FROM t WHERE t.words @@ w.query)),
        {_WEIGHTS}
        SELECT COALESCE({_SCORE}, 0) FROM t ORDER BY t.n"""


_STATEMENTS: Final = {
    "entries": f"""SELECT s.floor, {_COLUMNS} FROM {{s}}.store s LEFT JOIN (
            unnest($1::bigint[]) AS w(id) CROSS JOIN LATERAL (
                SELECT * FROM {{s}}.entries x WHERE x.id = w.id LIMIT 1) e
            {_COMMIT}) ON true""",
    "text_scores": _scores("to_tsvector({config}, u.text)"),
    # As `text_scores`, of texts that were taken apart before.
    "words_of": """SELECT to_tsvector({config}, u.text)::text
        FROM unnest($1::text[]) WITH ORDINALITY AS u(text, n) ORDER BY u.n""",
    "words_scores": _scores("u.text::tsvector"),
    "spaces": """SELECT id, embedder, dimension, NULL::text FROM {s}.vector_sets
        UNION ALL SELECT set_id, NULL, NULL, namespace FROM {s}.vector_spaces""",
    "spaces_count": "SELECT spaces FROM {s}.store",
    "spaces_and_nearest": "SELECT spaces, nearest FROM {s}.store",
    "count_spaces": "UPDATE {s}.store SET spaces = spaces + 1 WHERE id = 1",
    "vectors_of": """SELECT v.id - $1, v.vector FROM unnest($2::bigint[]) AS w(id)
        CROSS JOIN LATERAL (SELECT * FROM {s}.vectors v WHERE v.id = $1 + w.id LIMIT 1) v""",
    "vectors_late": """SELECT v.id - $1, v.late FROM unnest($2::bigint[]) AS w(id)
        CROSS JOIN LATERAL (SELECT * FROM {s}.vectors v WHERE v.id = $1 + w.id LIMIT 1) v
        WHERE v.late IS NOT NULL""",
    "pending_vectors": f"""SELECT {_COLUMNS} FROM {{s}}.pending_vectors p
        CROSS JOIN LATERAL (SELECT * FROM {{s}}.entries x WHERE x.id = p.entry_id LIMIT 1) e
        {_HEAD} {_COMMIT}
        WHERE p.entry_id > $1 AND h.entry_id = e.id ORDER BY p.entry_id LIMIT $2""",
    # Page by page in order of the ids: || '' keeps the planner from other orders, and a subquery
    # from taking an EXISTS apart, which would join whole tables for each page.
    "unembedded": f"""SELECT {_COLUMNS} FROM (SELECT * FROM {{s}}.entries x
            WHERE x.id > $4 AND x.namespace || '' >= $2 AND x.namespace || '' < $3
                AND x.value IS NOT NULL AND COALESCE(x.text, 'x') <> ''
                AND (SELECT 1 FROM {{s}}.vectors v WHERE v.id = $1 + x.id LIMIT 1) IS NULL
                AND ($6 = 1 OR x.id = (SELECT h.entry_id FROM {{s}}.heads h
                    WHERE h.namespace = x.namespace AND h.key = x.key LIMIT 1))
            ORDER BY x.id LIMIT $5) e {_COMMIT} ORDER BY e.id""",
    "text_ids": "SELECT entry_id FROM {s}.texts ORDER BY entry_id",
    "stored_vectors": """SELECT id, late, vector, checksum FROM {s}.vectors WHERE id > $1
        ORDER BY id LIMIT $2""",
    # Appending, in the second round trip of a commit. `= ANY` of an array, because for `IN` of
    # one the planner reads the whole table, if that was empty when the statement was prepared.
    "change_texts": """WITH gone AS (DELETE FROM {s}.texts
            WHERE entry_id = ANY(($1::bigint[])::bigint[]) RETURNING 1),
        new AS (INSERT INTO {s}.texts SELECT u.id, e.namespace, to_tsvector({config}, u.text)
            FROM unnest($2::bigint[], $3::text[]) AS u(id, text) CROSS JOIN LATERAL (
                SELECT x.namespace FROM {s}.entries x WHERE x.id = u.id LIMIT 1) e
            ON CONFLICT (entry_id) DO UPDATE SET words = excluded.words RETURNING 1)
        UPDATE {s}.store SET texts = texts + (SELECT COUNT(*) FROM new)
            - (SELECT COUNT(*) FROM gone) WHERE id = 1""",
    "add_sets": changed(
        "vector_sets",
        "false",
        """INSERT INTO {s}.vector_sets
        SELECT * FROM unnest($1::int[], $2::text[], $3::int[]) ON CONFLICT DO NOTHING""",
    ),
    "add_spaces": changed(
        "vector_spaces",
        "false",
        """INSERT INTO {s}.vector_spaces
        SELECT * FROM unnest($1::text[], $2::int[]) ON CONFLICT DO NOTHING""",
    ),
    # One that was made meanwhile of an entry that was purged or compacted must not come back.
    "add_vectors": more(
        "vectors",
        """INSERT INTO {s}.vectors SELECT w.*
        FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])
            AS w(id, late, vector, checksum)
        WHERE (SELECT 1 FROM {s}.entries x WHERE x.id = w.id & ((1::bigint << 40) - 1)
            AND x.value IS NOT NULL LIMIT 1) IS NOT NULL
        ON CONFLICT DO NOTHING""",
    ),
    "add_pending": more(
        "pending_vectors",
        """INSERT INTO {s}.pending_vectors SELECT * FROM unnest($1::bigint[])
        ON CONFLICT DO NOTHING""",
    ),
    "settle": more(
        "pending_vectors",
        "DELETE FROM {s}.pending_vectors WHERE entry_id = ANY(($1::bigint[])::bigint[])",
        "-",
    ),
    "move_space": changed(
        "vector_spaces",
        "namespace = $2",
        "UPDATE {s}.vector_spaces t SET set_id = $1, checksum = "
        + sealed_as("jsonb_build_object('set_id', $1::int)")
        + " WHERE namespace = $2",
    ),
    # Not with `more`: who drops them goes by their number.
    "drop_vectors": """WITH gone AS MATERIALIZED (SELECT id FROM {s}.vectors
            WHERE id >= $1 AND id < $2 LIMIT $3),
        counted AS (UPDATE {s}.tallies SET row_count = row_count - (SELECT COUNT(*) FROM gone)
            WHERE name = 'vectors')
        DELETE FROM {s}.vectors WHERE id = ANY(ARRAY(SELECT id FROM gone))""",
}
# These are asked for a namespace with all below it, {within}, from $2 to $3.
_BELOW: Final = {
    # Ranked before the log is asked for their keys; those that score as the last one stay in.
    "text_hits": f"""WITH w AS MATERIALIZED (SELECT w.query FROM {_QUERIES}),
        {_WEIGHTS},
        h AS (SELECT t.entry_id, {_SCORE} AS score FROM {{s}}.texts t
            WHERE t.words @@ (SELECT string_agg(k.query::text, ' | ')::tsquery FROM k)
                AND {{within:t}} AND t.entry_id <= COALESCE(
                    (SELECT first_entry_id + changes - 1 FROM {{s}}.commits WHERE revision = $4),
                    CASE WHEN $4 > 0 THEN 9223372036854775807 ELSE 0 END)
            ORDER BY score DESC
            FETCH FIRST ($5 + cardinality($6::bigint[])) ROWS WITH TIES)
        SELECT h.entry_id, e.namespace, e.key, e.revision, h.score FROM (
            SELECT * FROM h UNION SELECT t.entry_id, {_SCORE} FROM {{s}}.texts t
                WHERE t.entry_id = ANY(($6::bigint[])::bigint[]) AND t.words
                    @@ (SELECT string_agg(k.query::text, ' | ')::tsquery FROM k)) h
            CROSS JOIN LATERAL (SELECT * FROM {{s}}.entries x WHERE x.id = h.entry_id LIMIT 1) e
        ORDER BY h.entry_id = ANY(($6::bigint[])::bigint[]) DESC, h.score DESC, e.namespace, e.key
        LIMIT $5 + cardinality($6::bigint[])""",
    # What is compared with (SELECT $4) the planner cannot know, so it makes one plan for all;
    # and of two indexes that it could use, v.id - $1 leaves the one that finds few.
    "embedded_since": f"""WITH v AS MATERIALIZED (SELECT id FROM {{s}}.vectors
            WHERE late > (SELECT $4::bigint) AND id - $1 > 0 AND id - $1 < (1::bigint << 40))
        SELECT e.namespace, e.key FROM v {_ENTRY} {_HEAD}
        WHERE h.entry_id = e.id AND {{within:e}}""",
    "vector_rows": f"""SELECT id, namespace, revision, since, until,
            CASE WHEN until <= $6 THEN NULL ELSE vector END
        FROM (SELECT e.id, e.namespace, e.revision, COALESCE(v.late, e.revision) AS since,
                {_UNTIL} AS until, v.vector
            FROM {{s}}.vectors v {_ENTRY} {_HEAD}
            WHERE v.id > $1 + $4 AND v.id <= $1 + $5 AND {{within:e}}
                AND (v.late IS NULL OR v.late <= $6)
            ORDER BY v.id LIMIT $7) x ORDER BY id""",
    "vector_changes": f"""WITH new AS MATERIALIZED (
            SELECT id, namespace, key, revision FROM {{s}}.entries
            WHERE id > (SELECT $4::bigint) AND id <= (SELECT $5::bigint)),
        late AS MATERIALIZED (SELECT id, late, vector FROM {{s}}.vectors
            WHERE late > (SELECT $6::bigint) AND late <= (SELECT $7::bigint)
                AND id - $1 > 0 AND id - $1 <= (SELECT $4::bigint))
        SELECT e.id, e.namespace, e.revision, COALESCE(v.late, e.revision), {_UNTIL}, v.vector,
            (SELECT p.id FROM {{s}}.entries p
                WHERE p.namespace = e.namespace AND p.key = e.key AND p.revision < e.revision
                ORDER BY p.revision DESC LIMIT 1)
        FROM new e {_HEAD} LEFT JOIN LATERAL (
            SELECT * FROM {{s}}.vectors x WHERE x.id = $1 + e.id LIMIT 1) v ON true
        WHERE {{within:e}}
        UNION ALL SELECT e.id, e.namespace, e.revision, v.late, {_UNTIL}, v.vector, NULL
        FROM late v {_ENTRY} {_HEAD} WHERE {{within:e}}""",
    "count_vectors": """SELECT COUNT(*) FROM (SELECT 1 FROM {s}.heads e
        JOIN {s}.vectors v ON v.id = $1 + e.entry_id WHERE {within:e} LIMIT $4) x""",
}
_WITHIN: Final = re.compile(r"\{within:([a-z])\}")
# The root and all below it has no end.
_ENDLESS: Final = "_of_all"
SEARCH_STATEMENTS: Final = (
    _STATEMENTS
    | {
        name: _WITHIN.sub(r"\1.namespace >= $2 AND \1.namespace < $3", sql)
        for name, sql in _BELOW.items()
    }
    | {
        name + _ENDLESS: _WITHIN.sub("$2::text IS NOT NULL AND $3::text IS NULL", sql)
        for name, sql in _BELOW.items()
    }
)


def spaces_of(rows: Rows) -> Spaces:
    """What the statement ``spaces`` found."""
    sets = {row[0]: VectorSet(row[0], row[1], row[2]) for row in rows if row[3] is None}
    return Spaces(sets, {row[3]: row[0] for row in rows if row[3] is not None})


def cut(text: str) -> str:
    """A text as it is indexed: its beginning, if it is very long."""
    found = indexed(text)
    if len(found) * 4 <= _MAX_TEXT_BYTES:
        return found
    return found.encode()[:_MAX_TEXT_BYTES].decode(errors="ignore")


def appended(rows: NewCommit) -> Iterable[tuple[str, Sequence[Sequence[Any]]]]:
    """The statements that append what a batch has for search, each with its columns."""
    if rows.gone or rows.texts:
        gone = [entry_id for entry_id, _text in rows.gone]
        yield "change_texts", [gone, list(rows.texts), [*map(cut, rows.texts.values())]]
    for name, found in (
        ("add_sets", rows.sets),
        ("add_spaces", rows.spaces),
        ("add_vectors", rows.vectors),
    ):
        if found:
            yield name, list(zip(*found, strict=True))
    if rows.spaces:
        yield "count_spaces", []
    if rows.pending:
        yield "add_pending", [rows.pending]
    if rows.settled:
        yield "settle", [rows.settled]


class PostgresTextsAside:
    """See `agentmem.engines.base.TextsAside`. The server takes them apart, and gets that back."""

    def __init__(self, read: Callable[..., Rows]) -> None:
        """
        Args:
            read: has a statement run, by its name.
        """
        self._read = read
        self._words: dict[int, str] = {}

    def add(self, texts: Mapping[int, str]) -> None:
        if texts:
            rows = self._read("words_of", [cut(each) for each in texts.values()])
            self._words.update((id, row[0]) for id, row in zip(texts, rows, strict=True))

    def best(
        self, words: Sequence[str], limit: int, also: Collection[int]
    ) -> tuple[dict[int, float], bool]:
        if not self._words:
            return {}, False
        rows = self._read("words_scores", words, list(self._words.values()))
        found = zip(self._words, rows, strict=True)
        return {id: _rounded(row[0]) for id, row in found if row[0] > 0}, False


class SearchReads:
    """The reads for search, of `agentmem.engines.base.Engine`; some of a session, too."""

    def _read(self, name: str, *values: Any) -> Rows:
        raise NotImplementedError

    def _read_below(
        self, name: str, first: Any, bounds: tuple[str, str | None], *values: Any
    ) -> Rows:
        start, end = bounds
        return self._read(name if end is not None else name + _ENDLESS, first, start, end, *values)

    def entries(self, ids: Sequence[int], revision: int) -> list[EntryRow]:
        """The entries with these ids; the floor as of now is checked against the revision."""
        rows = self._read("entries", ids)
        check_floor(revision, rows[0][0] if rows else 0)
        return [EntryRow._make(row[1:]) for row in rows if row[1] is not None]

    def text_hits(
        self,
        words: Sequence[str],
        within: Range,
        revision: int,
        limit: int,
        also: Sequence[int] = (),
    ) -> list[TextHit]:
        bounds = namespace_bounds(within.namespace)
        rows = self._read_below("text_hits", words, bounds, revision, limit, also)
        hits = [TextHit._make((*row[:4], _rounded(row[4]))) for row in rows]
        return sorted(hits, key=lambda hit: (-hit.score, hit.namespace, hit.key))

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        rows = self._read("text_scores", words, [cut(text) for text in texts])
        return [_rounded(row[0]) for row in rows]

    def texts_aside(self) -> PostgresTextsAside:
        return PostgresTextsAside(self._read)

    def spaces(self) -> Spaces:
        return spaces_of(self._read("spaces"))

    def spaces_count(self) -> int:
        return int(self._read("spaces_count")[0][0])

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        return dict(self._read("vectors_of", vector_id(set_id, 0), entries)) if entries else {}

    def vector_revisions(self, set_id: int, entries: Sequence[int]) -> dict[int, int]:
        return dict(self._read("vectors_late", vector_id(set_id, 0), entries)) if entries else {}

    def embedded_since(self, revision: int, within: Range, set_id: int) -> list[Place]:
        bounds = namespace_bounds(within.namespace)
        rows = self._read_below("embedded_since", vector_id(set_id, 0), bounds, revision)
        return [(namespace, key) for namespace, key in rows]

    def vector_rows(
        self, set_id: int, within: Range, after: int, upto: Position, limit: int
    ) -> list[VectorRow]:
        rows = self._read_below(
            "vector_rows", vector_id(set_id, 0), namespace_bounds(within.namespace), after,
            upto.last_entry_id, upto.revision, limit,
        )  # fmt: skip
        return [VectorRow._make((*row, None)) for row in rows]

    def vector_changes(
        self, set_id: int, within: Range, after: Position, upto: Position
    ) -> list[VectorRow]:
        rows = self._read_below(
            "vector_changes", vector_id(set_id, 0), namespace_bounds(within.namespace),
            after.last_entry_id, upto.last_entry_id, after.revision, upto.revision,
        )  # fmt: skip
        return [VectorRow._make(row) for row in rows]

    def count_vectors(self, set_id: int, within: Range, limit: int) -> int:
        bounds = namespace_bounds(within.namespace)
        rows = self._read_below("count_vectors", vector_id(set_id, 0), bounds, limit)
        return int(rows[0][0])

    def pending_vectors(self, after: int, limit: int) -> list[EntryRow]:
        return [EntryRow._make(row) for row in self._read("pending_vectors", after, limit)]

    def unembedded(
        self, set_id: int, label: str, after: int, limit: int, *, current: bool
    ) -> list[EntryRow]:
        start, end = label_bounds(label)
        rows = self._read(
            "unembedded", vector_id(set_id, 0), start, end, after, limit, int(not current)
        )
        return [EntryRow._make(row) for row in rows]

    def text_ids(self) -> list[int]:
        return [row[0] for row in self._read("text_ids")]

    def stored_vectors(self, after: int, limit: int) -> list[NewVector]:
        return [NewVector._make(row) for row in self._read("stored_vectors", after, limit)]

    def generation(self, set_id: int) -> GenerationRow | None:
        """None: folders beside a database are for files."""
        return None

    def index_folder(self, set_id: int) -> str | None:
        return None

    def nearest(
        self, vector_set: VectorSet, query: bytes, within: Range, k: int
    ) -> list[tuple[int, float]] | None:
        """None: what is not the primary has no say in what is kept."""
        return None


def _rounded(score: float) -> float:
    return float(f"{score:.{_DIGITS}g}")
