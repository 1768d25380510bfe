"""Checksums of rows that no digest of the log covers: made with the row, looked at by `verify`.

A row that agentmem itself changes afterwards gets another in the same statement, by the function
``row_checksum`` that every connection has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, Final

import orjson

from agentmem.engines.sqlite.driver import driver

__all__ = ["add_missing", "changed_rows", "checksum", "give_functions", "with_checksum"]

_BYTES: Final = 8
_COLUMNS: Final = {
    "operation_results": "revision, fingerprint, result",
    "reads": "revision, position, kind, namespace, key, version, base_revision, scan",
    "conflicts": """namespace, key, status, kind, strategy, base_version, theirs_version, ours,
        agent, op_id, revision, detected_at, note""",
    "tags": "scope, name, revision, created_at, agent, note",
    "merge_strategies": "pattern, spec",
    "purges": "namespace, key, revision, purged_at, agent, note",
    "vector_sets": "id, embedder, dimension",
    "vector_spaces": "namespace, set_id",
}
# ruff: noqa: S608  # the statements are joined from the constants of this file, nothing else
_SELECT: Final = {
    table: f"SELECT checksum, {columns} FROM {table}" for table, columns in _COLUMNS.items()
}
_ADD: Final = {
    table: f"UPDATE {table} SET checksum = row_checksum({columns}) WHERE checksum IS NULL"
    for table, columns in _COLUMNS.items()
}


def checksum(row: Iterable[Any]) -> bytes:
    """The checksum of a row's columns."""
    columns = [each.hex() if isinstance(each, bytes) else each for each in row]
    return blake2b(orjson.dumps(columns), digest_size=_BYTES).digest()


def with_checksum(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The rows, each with its checksum behind it."""
    for row in rows:
        yield (*row, checksum(row))


def give_functions(connection: driver.Connection) -> None:
    """Gives a connection the function ``row_checksum``, of as many columns as there are."""
    connection.create_function("row_checksum", -1, _row_checksum, deterministic=True)


def _row_checksum(*row: Any) -> bytes:
    return checksum(row)


def add_missing(connection: driver.Connection) -> None:
    """Gives a checksum to each row that has none."""
    for statement in _ADD.values():
        connection.execute(statement)


def changed_rows(connection: driver.Connection) -> Iterator[str]:
    """For people: the tables in which rows are not as they were written."""
    for table, statement in _SELECT.items():
        changed = 0
        for known, *row in connection.execute(statement):
            try:
                changed += known != checksum(row)
            except TypeError:  # a column that holds what it cannot
                changed += 1
        if changed:
            yield f"{changed} rows of {table} are not as they were written"
