"""An index of vectors by pgvector, for sets that are large: HNSW over the current entries.

It is asked for (`indexing.build`), and only where the extension is, or can be made. From then on
every commit keeps it: the vectors of replaced and deleted entries leave it, new ones come in, in
the transaction that moves the heads. Which sets have one stands in the store's row, which every
commit locks and reads first, so that no writer can overlook it.

An index is derived, and no commit may fail for it: if the extension is dropped, or a writer has no
right to it, the next commit withdraws what it cannot keep, and searches look at every vector again.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from agentmem.engines.postgres.failures import ServerError
from agentmem.engines.postgres.statements import Statements
from agentmem.engines.postgres.wire import Rows, Statement
from agentmem.engines.ranges import namespace_bounds
from agentmem.engines.rows import (
    VECTOR_SET_SHIFT,
    NewCommit,
    Range,
    VectorSet,
    vector_id,
)
from agentmem.search.vectors import directions, unpack_many

__all__ = ["Nearest", "is_gone", "noted", "ranked", "registered", "texts"]

_LEAST_EF: Final = 100
_MOST_EF: Final = 1_000
# The table, its column, the type, its schema or its library is not there; the last one is what a
# statement meets that was prepared for a type which is dropped.
_GONE: Final = ("42P01", "42703", "42704", "42883", "3F000", "58P01", "XX000")
_RIGHTS: Final = "42501"

_log = logging.getLogger("agentmem")

_SQL: Final = {
    # {n} is the set's table, {x} the extension's schema.
    "add": """INSERT INTO {n} (entry_id, namespace, vector)
        SELECT w.id, e.namespace, w.vector::{x}.vector
        FROM unnest($1::bigint[], $2::text[]) AS w(id, vector)
        CROSS JOIN LATERAL (SELECT * FROM {s}.entries x WHERE x.id = w.id LIMIT 1) e
        CROSS JOIN LATERAL (SELECT x.entry_id FROM {s}.heads x
            WHERE x.namespace = e.namespace AND x.key = e.key LIMIT 1) h
        WHERE h.entry_id = w.id ON CONFLICT DO NOTHING""",
    "remove": """DELETE FROM {n} WHERE entry_id = ANY(ARRAY(
        SELECT p.id FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w(namespace, key, revision)
        CROSS JOIN LATERAL (SELECT x.id FROM {s}.entries x
            WHERE x.namespace = w.namespace AND x.key = w.key AND x.revision < w.revision
            ORDER BY x.revision DESC LIMIT 1) p))""",
    # Not $1::{x}.vector: the parameter would be of a type that may be dropped and made again.
    "nearest": """SELECT entry_id, 1 - (vector OPERATOR({x}.<=>) $1::text::{x}.vector) FROM {n}
        ORDER BY vector OPERATOR({x}.<=>) $1::text::{x}.vector LIMIT $2""",
    "nearest_below": """SELECT entry_id, 1 - (vector OPERATOR({x}.<=>) $1::text::{x}.vector)
        FROM {n} WHERE namespace >= $3 AND namespace < $4
        ORDER BY vector OPERATOR({x}.<=>) $1::text::{x}.vector LIMIT $2""",
    "wrong": """SELECT (SELECT COUNT(*) FROM {n} n JOIN {s}.entries e ON e.id = n.entry_id
            JOIN {s}.heads h ON h.namespace = e.namespace AND h.key = e.key
            WHERE h.entry_id <> n.entry_id OR e.namespace <> n.namespace)
        + (SELECT COUNT(*) FROM {n} n WHERE NOT EXISTS (
            SELECT 1 FROM {s}.entries e WHERE e.id = n.entry_id))
        + (SELECT COUNT(*) FROM {s}.heads h JOIN {s}.vectors v ON v.id = $1 + h.entry_id
            WHERE NOT EXISTS (SELECT 1 FROM {n} n WHERE n.entry_id = h.entry_id))""",
}
_BEGIN: Final = Statement("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", prepared=False)
_COMMIT: Final = Statement("COMMIT", prepared=False)


@lru_cache(maxsize=64)
def registered(text: str | None) -> Mapping[int, str]:
    """The sets that have an index, each with the schema of the extension."""
    return {int(id): schema for id, schema in json.loads(text).items()} if text else {}


def noted(sets: Mapping[int, str]) -> str | None:
    """As `registered` reads it."""
    return json.dumps({str(id): schema for id, schema in sorted(sets.items())}) if sets else None


def texts(vectors: Sequence[bytes]) -> list[str]:
    """The directions of vectors as pgvector reads them: their squares can be summed up."""
    rows = directions(unpack_many(list(vectors), len(vectors[0]) // 4)).tolist()
    return ["[" + ",".join([format(number, ".8g") for number in row]) + "]" for row in rows]


class Nearest:
    """The statements of one store's indexes. Shared by its sessions and its reads.

    Attributes:
        doubted: a commit has failed as one does whose index is gone.
    """

    def __init__(self, statements: Statements, schema: str) -> None:
        self._statements = statements
        self._schema = schema
        self.doubted = False
        self.statement = cache(self._statement)

    def _statement(self, name: str, set_id: int, extension: str) -> Statement:
        names = {"{n}": f"{self._schema}.nearest_{set_id}", "{x}": _quoted(extension)}
        return self._statements.named(_SQL[name], names)

    # Writing.

    def changes(
        self, sets: Mapping[int, str], rows: NewCommit
    ) -> Iterator[tuple[Statement, Sequence[Any]]]:
        """What a batch does to the indexes, after the heads were moved."""
        if self.doubted:
            yield self._statements["set_nearest"], (None,)
            return
        dropped = {
            int(change.values["first"]) >> VECTOR_SET_SHIFT
            for change in rows.changes
            if change.name == "drop_vectors"
        }
        if not dropped.isdisjoint(sets):
            sets = {id: schema for id, schema in sets.items() if id not in dropped}
            yield self._statements["set_nearest"], (noted(sets),)
        places = [(entry.namespace, entry.key, entry.revision) for entry in rows.entries]
        for set_id, schema in sets.items():
            if places:
                columns = list(zip(*places, strict=True))
                yield self.statement("remove", set_id, schema), columns
            first, past = vector_id(set_id, 0), vector_id(set_id + 1, 0)
            new = [each for each in rows.vectors if first < each.id < past]
            if new:
                written = texts([each.vector for each in new])
                ids = [each.id - first for each in new]
                yield self.statement("add", set_id, schema), (ids, written)

    def doubt(self, error: ServerError) -> bool:
        """Whether a commit may have failed because of an index; the next one withdraws it."""
        if self.doubted or not is_gone(error):
            return False
        self.doubted = True
        _log.warning(
            "an index by pgvector cannot be kept (%s), and is withdrawn: searches look at every "
            "vector, until agentmem index makes it again",
            error,
        )
        return True

    # Reading.

    def search(
        self, vector_set: VectorSet, extension: str, query: bytes, within: Range, k: int
    ) -> list[tuple[Statement, Sequence[Any]]]:
        """A transaction that asks for the nearest, and whether the index is still kept."""
        start, end = namespace_bounds(within.namespace)
        name, bounds = ("nearest", ()) if end is None else ("nearest_below", (start, end))
        statement = self.statement(name, vector_set.id, extension)
        ef_search = str(min(_MOST_EF, max(_LEAST_EF, 2 * k)))
        return [
            (_BEGIN, ()),
            (self._statements["nearest_settings"], (ef_search,)),
            (statement, (*texts([query]), k, *bounds)),
            (self._statements["nearest_sets"], ()),
            (_COMMIT, ()),
        ]


def ranked(rows: Rows) -> list[tuple[int, float]]:
    """Entries and cosines, nearest first; a vector without a direction is near to nothing."""
    near = [(entry_id, float(cosine)) for entry_id, cosine in rows if not math.isnan(cosine)]
    return sorted(near, key=lambda each: (-each[1], each[0]))


def is_gone(error: ServerError) -> bool:
    """Whether this is what is said of an index that was dropped, or that the role may not use."""
    return error.code in _GONE or error.code == _RIGHTS


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
