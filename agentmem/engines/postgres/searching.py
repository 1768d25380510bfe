"""Searching on PostgreSQL: ``tsvector`` with GIN for words, and the vectors of the log.

**Ranking** of words is by ``ts_rank`` of each word, which rises with how often a text holds it and
falls with the text's length, weighted by how rare the word is::

    sum over words w of  ln(1 + (N - n(w) + 0.5) / (n(w) + 0.5)) * ts_rank(text, w, 1)

Words are taken as the store's own configuration has them: English stems, as in PostgreSQL's
``english``, but without its stop words, which would be lost to questions that have no others.
A word of a query becomes a tsquery by ``phraseto_tsquery``, so nothing in it is an operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from agentmem.engines.base import (
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
    check_floor,
    vector_id,
)
from agentmem.engines.postgres.wire import Rows
from agentmem.engines.ranges import label_bounds, namespace_bounds
from agentmem.search.words import indexed

__all__ = ["SEARCH_STATEMENTS", "SearchReads", "appended", "cut", "spaces_of"]

# ruff: noqa: S608  # joined from the constants of this file, nothing else
_MAX_TEXT_BYTES: Final = 256 * 1024  # a tsvector holds a megabyte at most, whatever the words
_DIGITS: Final = 9
# No label begins with a noncharacter: an end for ranges that have none.
_NO_END: Final = "\U0010ffff"

_WITHIN: Final = "e.namespace >= $2 AND e.namespace < $3"
_COLUMNS: Final = """e.id, e.namespace, e.key, e.version, e.revision, e.operation, e.base_version,
    e.merged, e.value, e.text, e.created_at, e.expires_at, c.agent, c.op_id, c.committed_at"""
# OFFSET 0 keeps each word's count a look of its own.
_WORDS: Final = """WITH w AS MATERIALIZED (
        SELECT phraseto_tsquery({config}, x) AS query
        FROM unnest($1::text[]) AS u(x)),
    k AS MATERIALIZED (SELECT w.query,
            ln(1 + (total.n - holding.n + 0.5) / (holding.n + 0.5))::float8 AS weight
        FROM w CROSS JOIN (SELECT COUNT(*) AS n FROM {s}.texts) total
        CROSS JOIN LATERAL (SELECT COUNT(*) AS n FROM {s}.texts t
            WHERE t.words @@ w.query OFFSET 0) holding
        WHERE numnode(w.query) > 0)"""
_UNTIL: Final = """CASE WHEN h.entry_id = e.id THEN NULL ELSE (
        SELECT MIN(n.revision) FROM {s}.entries n
        WHERE n.namespace = e.namespace AND n.key = e.key AND n.revision > e.revision) END"""
_HEADS: Final = "{s}.heads h ON h.namespace = e.namespace AND h.key = e.key"

SEARCH_STATEMENTS: Final = {
    "entries": f"""SELECT s.floor, {_COLUMNS} FROM {{s}}.store s LEFT JOIN (
            unnest($1::bigint[]) AS w(id) CROSS JOIN LATERAL (
                SELECT * FROM {{s}}.entries x WHERE x.id = w.id LIMIT 1) e
            JOIN {{s}}.commits c ON c.revision = e.revision) ON true""",
    "text_hits": _WORDS
    + f"""SELECT e.id, e.namespace, e.key, e.revision,
            (SELECT SUM(k.weight * ts_rank(t.words, k.query, 1)) FROM k)::float8 AS score
        FROM {{s}}.texts t JOIN {{s}}.entries e ON e.id = t.entry_id
        WHERE t.words @@ (SELECT string_agg(k.query::text, ' | ')::tsquery FROM k)
            AND {_WITHIN} AND e.revision <= $4
        ORDER BY score DESC, e.namespace, e.key LIMIT $5""",
    "text_scores": _WORDS
    + """SELECT COALESCE((SELECT SUM(k.weight * ts_rank(x.words, k.query, 1)) FROM k
            WHERE x.words @@ k.query), 0)::float8
        FROM (SELECT u.n, to_tsvector({config}, u.t) AS words
            FROM unnest($2::text[]) WITH ORDINALITY AS u(t, n)) x ORDER BY x.n""",
    "spaces": """SELECT id, embedder, dimension, NULL::text FROM {s}.vector_sets
        UNION ALL SELECT set_id, NULL, NULL, namespace FROM {s}.vector_spaces""",
    "vectors_of": """SELECT v.id - $1, v.vector FROM unnest($2::bigint[]) AS w(id)
        CROSS JOIN LATERAL (SELECT * FROM {s}.vectors v WHERE v.id = $1 + w.id LIMIT 1) v""",
    "vectors_late": """SELECT v.id - $1, v.late FROM unnest($2::bigint[]) AS w(id)
        CROSS JOIN LATERAL (SELECT * FROM {s}.vectors v WHERE v.id = $1 + w.id LIMIT 1) v
        WHERE v.late IS NOT NULL""",
    "embedded_since": f"""SELECT e.namespace, e.key
        FROM {{s}}.vectors v JOIN {{s}}.entries e ON e.id = v.id - $1
        JOIN {_HEADS} AND h.entry_id = e.id
        WHERE v.late > $4 AND v.id > $1 AND v.id < $1 + (1::bigint << 40) AND {_WITHIN}""",
    "vector_rows": f"""SELECT id, namespace, revision, since, until,
            CASE WHEN until <= $6 THEN NULL ELSE vector END
        FROM (SELECT e.id, e.namespace, e.revision, COALESCE(v.late, e.revision) AS since,
                {_UNTIL} AS until, v.vector
            FROM {{s}}.vectors v JOIN {{s}}.entries e ON e.id = v.id - $1 JOIN {_HEADS}
            WHERE v.id > $1 + $4 AND v.id <= $1 + $5 AND {_WITHIN}
                AND (v.late IS NULL OR v.late <= $6)
            ORDER BY v.id LIMIT $7) x ORDER BY id""",
    "vector_changes": f"""SELECT e.id, e.namespace, e.revision, COALESCE(v.late, e.revision),
            {_UNTIL}, v.vector, (SELECT p.id FROM {{s}}.entries p
                WHERE p.namespace = e.namespace AND p.key = e.key AND p.revision < e.revision
                ORDER BY p.revision DESC LIMIT 1)
        FROM {{s}}.entries e JOIN {_HEADS} LEFT JOIN {{s}}.vectors v ON v.id = $1 + e.id
        WHERE e.id > $4 AND e.id <= $5 AND {_WITHIN}
        UNION ALL SELECT e.id, e.namespace, e.revision, v.late, {_UNTIL}, v.vector, NULL
        FROM {{s}}.vectors v JOIN {{s}}.entries e ON e.id = v.id - $1 JOIN {_HEADS}
        WHERE v.late > $6 AND v.late <= $7 AND e.id <= $4 AND {_WITHIN}
            AND v.id > $1 AND v.id < $1 + (1::bigint << 40)""",
    "count_vectors": f"""SELECT COUNT(*) FROM (SELECT 1 FROM {{s}}.heads e
        JOIN {{s}}.vectors v ON v.id = $1 + e.entry_id WHERE {_WITHIN} LIMIT $4) x""",
    "pending_vectors": f"""SELECT {_COLUMNS}
        FROM {{s}}.pending_vectors p JOIN {{s}}.entries e ON e.id = p.entry_id
        JOIN {_HEADS} AND h.entry_id = e.id JOIN {{s}}.commits c ON c.revision = e.revision
        WHERE p.entry_id > $1 ORDER BY p.entry_id LIMIT $2""",
    "unembedded": f"""SELECT {_COLUMNS}
        FROM {{s}}.entries e JOIN {{s}}.commits c ON c.revision = e.revision JOIN {_HEADS}
        WHERE e.id > $4 AND {_WITHIN} AND e.value IS NOT NULL AND COALESCE(e.text, 'x') <> ''
            AND ($6 = 1 OR h.entry_id = e.id)
            AND NOT EXISTS (SELECT 1 FROM {{s}}.vectors v WHERE v.id = $1 + e.id)
        ORDER BY e.id LIMIT $5""",
    "text_ids": "SELECT entry_id FROM {s}.texts ORDER BY entry_id",
    "stored_vectors": """SELECT id, late, vector, checksum FROM {s}.vectors WHERE id > $1
        ORDER BY id LIMIT $2""",
    # Appending, in the second round trip of a commit.
    "remove_texts": "DELETE FROM {s}.texts WHERE entry_id IN (SELECT unnest($1::bigint[]))",
    "add_texts": """INSERT INTO {s}.texts SELECT u.id, to_tsvector({config}, u.t)
        FROM unnest($1::bigint[], $2::text[]) AS u(id, t)
        ON CONFLICT (entry_id) DO UPDATE SET words = excluded.words""",
    "add_sets": """INSERT INTO {s}.vector_sets
        SELECT * FROM unnest($1::int[], $2::text[], $3::int[]) ON CONFLICT DO NOTHING""",
    "add_spaces": """INSERT INTO {s}.vector_spaces
        SELECT * FROM unnest($1::text[], $2::int[]) ON CONFLICT DO NOTHING""",
    "add_vectors": """INSERT INTO {s}.vectors
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[])
        ON CONFLICT DO NOTHING""",
    "add_pending": """INSERT INTO {s}.pending_vectors SELECT * FROM unnest($1::bigint[])
        ON CONFLICT DO NOTHING""",
    "settle": "DELETE FROM {s}.pending_vectors WHERE entry_id IN (SELECT unnest($1::bigint[]))",
    "move_space": "UPDATE {s}.vector_spaces SET set_id = $1 WHERE namespace = $2",
    "drop_vectors": """DELETE FROM {s}.vectors WHERE id IN (SELECT id FROM {s}.vectors
        WHERE id >= $1 AND id < $2 LIMIT $3)""",
}


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
    if rows.gone:
        yield "remove_texts", [[entry_id for entry_id, _text in rows.gone]]
    if rows.texts:
        yield "add_texts", [list(rows.texts), [cut(text) for text in rows.texts.values()]]
    for name, found in (
        ("add_sets", rows.sets),
        ("add_spaces", rows.spaces),
        ("add_vectors", rows.vectors),
    ):
        if found:
            yield name, list(zip(*found, strict=True))
    if rows.pending:
        yield "add_pending", [rows.pending]
    if rows.settled:
        yield "settle", [rows.settled]


def _bounds(within: Range) -> tuple[str, str]:
    start, end = namespace_bounds(within.namespace)
    return start, _NO_END if end is None else end


class SearchReads:
    """The reads for search, of `agentmem.engines.base.Engine`; some of a session, too."""

    def _read(self, name: str, *values: Any) -> Rows:
        raise NotImplementedError

    def entries(self, ids: Sequence[int], revision: int) -> list[EntryRow]:
        rows = self._read("entries", ids)
        check_floor(revision, rows[0][0] if rows else 0)
        return [EntryRow._make(row[1:]) for row in rows if row[1] is not None]

    def text_hits(
        self, words: Sequence[str], within: Range, revision: int, limit: int
    ) -> list[TextHit]:
        rows = self._read("text_hits", words, *_bounds(within), revision, limit)
        return [TextHit._make((*row[:4], _rounded(row[4]))) for row in rows]

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        rows = self._read("text_scores", words, [cut(text) for text in texts])
        return [_rounded(row[0]) for row in rows]

    def spaces(self) -> Spaces:
        return spaces_of(self._read("spaces"))

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        if not entries:
            return {}
        rows = self._read("vectors_of", vector_id(set_id, 0), entries)
        return {entry_id: bytes(vector) for entry_id, vector in rows}

    def vector_revisions(self, set_id: int, entries: Sequence[int]) -> dict[int, int]:
        if not entries:
            return {}
        rows = self._read("vectors_late", vector_id(set_id, 0), entries)
        return dict(rows)

    def embedded_since(self, revision: int, within: Range, set_id: int) -> list[Place]:
        rows = self._read("embedded_since", vector_id(set_id, 0), *_bounds(within), revision)
        return [(namespace, key) for namespace, key in rows]

    def vector_rows(
        self, set_id: int, within: Range, after: int, upto: Position, limit: int
    ) -> list[VectorRow]:
        rows = self._read(
            "vector_rows", vector_id(set_id, 0), *_bounds(within), after, upto.last_entry_id,
            upto.revision, limit,
        )  # fmt: skip
        return [VectorRow._make((*row, None)) for row in rows]

    def vector_changes(
        self, set_id: int, within: Range, after: Position, upto: Position
    ) -> list[VectorRow]:
        rows = self._read(
            "vector_changes", vector_id(set_id, 0), *_bounds(within), after.last_entry_id,
            upto.last_entry_id, after.revision, upto.revision,
        )  # fmt: skip
        return [VectorRow._make(row) for row in rows]

    def count_vectors(self, set_id: int, within: Range, limit: int) -> int:
        return int(self._read("count_vectors", vector_id(set_id, 0), *_bounds(within), limit)[0][0])

    def pending_vectors(self, after: int, limit: int) -> list[EntryRow]:
        return [EntryRow._make(row) for row in self._read("pending_vectors", after, limit)]

    def unembedded(
        self, set_id: int, label: str, after: int, limit: int, *, current: bool
    ) -> list[EntryRow]:
        start, end = label_bounds(label)
        rows = self._read(
            "unembedded", vector_id(set_id, 0), start, _NO_END if end is None else end, after,
            limit, int(not current),
        )  # fmt: skip
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


def _rounded(score: float) -> float:
    return float(f"{score:.{_DIGITS}g}")
