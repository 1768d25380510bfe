"""What commits were derived from, read on SQLite. Lists are bound as JSON, see `reads`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from agentmem.engines.rows import (
    CommitRow,
    EntryRow,
    ReadRow,
)
from agentmem.engines.sqlite.driver import driver
from agentmem.engines.sqlite.log import COMMITS
from agentmem.engines.sqlite.reads import ENTRY, Executes

__all__ = ["LineageReads", "reads_of"]

T = TypeVar("T")

# ruff: noqa: S608  # the statements are joined from the constants of this file, nothing else
_READ: Final = """
SELECT r.revision, r.position, r.kind, r.namespace, r.key, r.version, r.base_revision, r.scan
"""
_READS_OF: Final = (
    _READ + "FROM reads r WHERE r.revision > ? AND r.revision <= ? ORDER BY r.revision, r.position"
)
_READS_BY: Final = (
    _READ
    + """FROM json_each(?) j CROSS JOIN reads r ON r.revision = j.value
ORDER BY r.revision, r.position"""
)
_READERS: Final = (
    _READ
    + """FROM json_each(?) j CROSS JOIN reads r ON r.namespace = j.value ->> 0
AND r.key = j.value ->> 1 AND r.version = j.value ->> 2 AND r.base_revision IS NULL AND r.kind <> 0
ORDER BY r.revision, r.position"""
)
_SCANS_OVER: Final = (
    _READ
    + """FROM reads r WHERE r.namespace = :namespace
AND r.base_revision IS NOT NULL AND r.base_revision < :past AND r.base_revision >= :base
AND (r.base_revision, r.revision, r.position) > (:base, :revision, :position)
ORDER BY r.base_revision, r.revision, r.position LIMIT :limit + 0"""
)
_UNKEPT: Final = "SELECT COUNT(*) FROM reads WHERE kind = 0 AND revision > ?"
_VERSIONS: Final = (
    "SELECT "
    + ENTRY
    + """ FROM json_each(?) j CROSS JOIN entries e ON e.id = (
    SELECT id FROM entries WHERE namespace = j.value ->> 0 AND key = j.value ->> 1
    AND revision <= j.value ->> 3 AND version = j.value ->> 2 ORDER BY revision DESC LIMIT 1)
CROSS JOIN commits c ON c.revision = e.revision"""
)
_SUCCESSORS: Final = (
    "SELECT "
    + ENTRY
    + """ FROM json_each(?) j CROSS JOIN entries e ON e.id = (
    SELECT id FROM entries WHERE namespace = j.value ->> 0 AND key = j.value ->> 1
    AND revision > j.value ->> 2 ORDER BY revision LIMIT 1)
CROSS JOIN commits c ON c.revision = e.revision"""
)
_COMMITS_OF: Final = (
    COMMITS.replace("FROM commits c", "FROM json_each(?) j CROSS JOIN commits c", 1)
    + "WHERE c.revision = j.value"
)
_ENTRIES_FOUND: Final = (
    "SELECT "
    + ENTRY
    + """ FROM json_each(?) j CROSS JOIN entries e ON e.id = j.value
CROSS JOIN commits c ON c.revision = e.revision"""
)


def reads_of(connection: Executes, after: int, upto: int) -> list[ReadRow]:
    """See `Engine.reads_of`."""
    return _reads(connection.execute(_READS_OF, (after, upto)).fetchall())


def _reads(rows: list[tuple[Any, ...]]) -> list[ReadRow]:
    return [ReadRow._make(row) for row in rows]


class LineageReads:
    """This part of `agentmem.engines.base.Engine`."""

    def _read(self, query: Callable[[driver.Connection], T]) -> T:
        raise NotImplementedError  # the engine's

    def _rows(self, statement: str, bound: Any) -> list[tuple[Any, ...]]:
        return self._read(lambda c: c.execute(statement, bound).fetchall())

    def reads_of(self, after: int, upto: int) -> list[ReadRow]:
        return self._read(lambda c: reads_of(c, after, upto))

    def reads_by(self, revisions: Sequence[int]) -> list[ReadRow]:
        return _reads(self._rows(_READS_BY, (json.dumps(revisions),)))

    def readers(self, entries: Sequence[tuple[str, str, int]]) -> list[ReadRow]:
        return _reads(self._rows(_READERS, (json.dumps(entries),)))

    def scans_over(
        self, namespace: str, after: tuple[int, int, int], past: int, limit: int
    ) -> list[ReadRow]:
        base, revision, position = after
        bound = {
            "namespace": namespace,
            "base": base,
            "revision": revision,
            "position": position,
            "past": past,
            "limit": limit,
        }
        return _reads(self._rows(_SCANS_OVER, bound))

    def unkept(self, after: int) -> int:
        return int(self._rows(_UNKEPT, (after,))[0][0])

    def versions(self, wanted: Sequence[tuple[str, str, int, int]]) -> list[EntryRow]:
        return [EntryRow._make(row) for row in self._rows(_VERSIONS, (json.dumps(wanted),))]

    def successors(self, wanted: Sequence[tuple[str, str, int]]) -> list[EntryRow]:
        return [EntryRow._make(row) for row in self._rows(_SUCCESSORS, (json.dumps(wanted),))]

    def commits_of(self, revisions: Sequence[int]) -> list[CommitRow]:
        rows = self._rows(_COMMITS_OF, (json.dumps(revisions),))
        return [CommitRow._make(row) for row in rows]

    def entries_found(self, ids: Sequence[int]) -> list[EntryRow]:
        return [EntryRow._make(row) for row in self._rows(_ENTRIES_FOUND, (json.dumps(ids),))]
