"""Checksums of rows that no digest of the log covers: made with the row, looked at by `verify`.

A row that agentmem itself changes afterwards has none from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, Final

import orjson

from agentmem.engines.sqlite.driver import driver

__all__ = ["changed_rows", "checksum", "with_checksum"]

_BYTES: Final = 8
_TABLES: Final = {
    "operation_results": "SELECT checksum, revision, fingerprint, result FROM operation_results",
    "reads": """SELECT checksum, revision, position, kind, namespace, key, version,
        base_revision, scan FROM reads""",
    "conflicts": """SELECT checksum, namespace, key, status, kind, strategy, base_version,
        theirs_version, ours, agent, op_id, revision, detected_at, note FROM conflicts""",
    "tags": "SELECT checksum, scope, name, revision, created_at, agent, note FROM tags",
    "merge_strategies": "SELECT checksum, pattern, spec FROM merge_strategies",
    "purges": """SELECT checksum, namespace, key, revision, purged_at, agent, note FROM purges""",
    "vector_sets": "SELECT checksum, id, embedder, dimension FROM vector_sets",
    "vector_spaces": "SELECT checksum, namespace, set_id FROM vector_spaces",
}


def checksum(row: Iterable[Any]) -> bytes:
    """The checksum of a row's columns."""
    columns = [each.hex() if isinstance(each, bytes) else each for each in row]
    return blake2b(orjson.dumps(columns), digest_size=_BYTES).digest()


def with_checksum(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The rows, each with its checksum behind it."""
    for row in rows:
        yield (*row, checksum(row))


def changed_rows(connection: driver.Connection) -> Iterator[str]:
    """For people: the tables in which rows are not as they were written."""
    for table, statement in _TABLES.items():
        changed = 0
        for known, *row in connection.execute(statement):
            try:
                changed += known is not None and known != checksum(row)
            except TypeError:  # a column that holds what it cannot
                changed += 1
        if changed:
            yield f"{changed} rows of {table} are not as they were written"
