"""What commits were derived from, read on PostgreSQL."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from agentmem.engines.postgres.log import ENTRY
from agentmem.engines.postgres.wire import Rows
from agentmem.engines.rows import (
    CommitRow,
    EntryRow,
    ReadRow,
)

__all__ = ["LINEAGE_STATEMENTS", "LineageReads"]

# ruff: noqa: S608  # joined from the constants of this file, nothing else
_READ: Final = """
SELECT r.revision, r.position, r.kind, r.namespace, r.key, r.version, r.base_revision, r.scan
"""
_ENTRY: Final = "SELECT " + ENTRY
_APPEND: Final = """
INSERT INTO {s}.reads (revision, position, kind, namespace, key, version, base_revision, scan)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::text[], $5::text[], $6::bigint[],
    $7::bigint[], $8::text[])
"""
_ORDERED: Final = " ORDER BY r.revision, r.position"

# What stands in a LATERAL with a LIMIT is one look into an index a row, whatever the planner
# believes of the sizes of the tables.
_MOST: Final = 1_000_000_000
LINEAGE_STATEMENTS: Final = {
    "append_reads": _APPEND,
    "reads_ahead": _APPEND
    + " WHERE EXISTS (SELECT 1 FROM {s}.store s WHERE s.id = 1 AND s.hash = $9)",
    "reads_of": _READ + "FROM {s}.reads r WHERE r.revision > $1 AND r.revision <= $2" + _ORDERED,
    "reads_by": _READ
    + "FROM unnest($1::bigint[]) AS w(revision), LATERAL (SELECT * FROM {s}.reads t"
    + f" WHERE t.revision = w.revision LIMIT {_MOST}) r"
    + _ORDERED,
    "readers": _READ
    + """FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w(namespace, key, version),
        LATERAL (SELECT * FROM {s}.reads t WHERE t.namespace = w.namespace AND t.key = w.key
            AND t.version = w.version AND t.base_revision IS NULL AND t.kind <> 0
    """
    + f" LIMIT {_MOST}) r"
    + _ORDERED,
    "scans_over": _READ
    + """FROM {s}.reads r WHERE r.namespace = $1 AND r.base_revision IS NOT NULL
        AND r.base_revision >= $2 AND r.base_revision < $5
        AND (r.base_revision, r.revision, r.position) > ($2, $3, $4)
        ORDER BY r.base_revision, r.revision, r.position LIMIT $6""",
    "unkept": "SELECT COUNT(*) FROM {s}.reads WHERE kind = 0 AND revision > $1",
    "versions": _ENTRY
    + """FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
            AS w(namespace, key, version, upto),
        LATERAL (SELECT * FROM {s}.entries t WHERE t.namespace = w.namespace AND t.key = w.key
            AND t.revision <= w.upto AND t.version = w.version
            ORDER BY t.revision DESC LIMIT 1) x,
        LATERAL (SELECT * FROM {s}.commits k WHERE k.revision = x.revision LIMIT 1) c""",
    "successors": _ENTRY
    + """FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w(namespace, key, after),
        LATERAL (SELECT * FROM {s}.entries t WHERE t.namespace = w.namespace AND t.key = w.key
            AND t.revision > w.after ORDER BY t.revision LIMIT 1) x,
        LATERAL (SELECT * FROM {s}.commits k WHERE k.revision = x.revision LIMIT 1) c""",
    "commits_of": """SELECT c.revision, c.committed_at, c.scope, c.op_id, c.agent, c.note,
            c.metadata, c.base_revision, c.attempt, c.first_entry_id, c.changes, c.accepted,
            c.digests, c.hash, c.beside, r.fingerprint, r.result
        FROM unnest($1::bigint[]) AS w(revision),
            LATERAL (SELECT * FROM {s}.commits k WHERE k.revision = w.revision LIMIT 1) c
        LEFT JOIN {s}.operation_results r ON r.revision = c.revision""",
    "entries_found": _ENTRY
    + """FROM unnest($1::bigint[]) AS w(id),
        LATERAL (SELECT * FROM {s}.entries t WHERE t.id = w.id LIMIT 1) x,
        LATERAL (SELECT * FROM {s}.commits k WHERE k.revision = x.revision LIMIT 1) c""",
}


class LineageReads:
    """This part of `agentmem.engines.base.Engine`."""

    @abstractmethod
    def _read(self, name: str, *values: Any) -> Rows:
        """What a statement returns."""

    def reads_of(self, after: int, upto: int) -> list[ReadRow]:
        return [ReadRow._make(row) for row in self._read("reads_of", after, upto)]

    def reads_by(self, revisions: Sequence[int]) -> list[ReadRow]:
        return [ReadRow._make(row) for row in self._read("reads_by", list(revisions))]

    def readers(self, entries: Sequence[tuple[str, str, int]]) -> list[ReadRow]:
        if not entries:
            return []
        return [ReadRow._make(row) for row in self._read("readers", *zip(*entries, strict=True))]

    def scans_over(
        self, namespace: str, after: tuple[int, int, int], past: int, limit: int
    ) -> list[ReadRow]:
        rows = self._read("scans_over", namespace, *after, past, limit)
        return [ReadRow._make(row) for row in rows]

    def unkept(self, after: int) -> int:
        return int(self._read("unkept", after)[0][0])

    def versions(self, wanted: Sequence[tuple[str, str, int, int]]) -> list[EntryRow]:
        if not wanted:
            return []
        return [EntryRow._make(row) for row in self._read("versions", *zip(*wanted, strict=True))]

    def successors(self, wanted: Sequence[tuple[str, str, int]]) -> list[EntryRow]:
        if not wanted:
            return []
        rows = self._read("successors", *zip(*wanted, strict=True))
        return [EntryRow._make(row) for row in rows]

    def commits_of(self, revisions: Sequence[int]) -> list[CommitRow]:
        return [CommitRow._make(row) for row in self._read("commits_of", list(revisions))]

    def entries_found(self, ids: Sequence[int]) -> list[EntryRow]:
        return [EntryRow._make(row) for row in self._read("entries_found", list(ids))]
