"""How many rows the tables beside the log have, and which: what `verify` misses a row by.

A tally is changed in the transaction that changes the rows, by agentmem and nobody else: a trigger
would count along for whoever removes a row behind its back. Of tables whose rows have checksums it
is a number and a *seal*: a hash of each row's checksum and place, all joined by XOR, so that rows
can come and go in any order. Of the others it is the number alone.

What goes with a commit (`reads`, `operation_results`) has no tally: the commit says how many rows
it has (``commits.beside``), so a commit writes no page more for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

import orjson

from agentmem.engines.sqlite.checksums import add_missing
from agentmem.engines.sqlite.driver import driver

__all__ = ["Counted", "begin", "beside", "note_conflicts", "wrong"]

_BYTES: Final = 8
_NONE: Final = bytes(_BYTES)
_EMPTY: Final = (0, _NONE)
# ruff: noqa: S608  # the statements are joined from the constants of this file, nothing else
# What of a row its checksum does not cover, and the checksum.
_ROWS: Final = {
    "conflicts": "SELECT id, checksum FROM conflicts",
    "tags": "SELECT checksum FROM tags",
    "merge_strategies": "SELECT position, checksum FROM merge_strategies",
    "purges": "SELECT id, finished, checksum FROM purges",
    "vector_sets": "SELECT checksum FROM vector_sets",
    "vector_spaces": "SELECT checksum FROM vector_spaces",
}
_COUNTED: Final = (
    "vectors", "pending_vectors", "tasks", "task_operations", "once_records", "cursors",
)  # fmt: skip
_STRATEGY: Final = "WHERE pattern = :pattern"
_TAG: Final = "WHERE scope = :scope AND name = :name"
_PURGE: Final = "WHERE namespace = :namespace AND key IS :key"
# The rows that a change may touch, before it and after it.
_TOUCHED: Final = {
    name: (table, f"{_ROWS[table]} {where}")
    for name, table, where in (
        ("set_strategy", "merge_strategies", _STRATEGY),
        ("unset_strategy", "merge_strategies", _STRATEGY),
        ("set_tag", "tags", _TAG),
        ("unset_tag", "tags", _TAG),
        ("resolve_conflict", "conflicts", "WHERE id = :id"),
        ("copy_conflict", "conflicts", "WHERE id = :id"),
        ("erase_conflicts", "conflicts", "WHERE id IN (SELECT value FROM json_each(:ids))"),
        ("begin_purge", "purges", _PURGE),
        ("widen_purge", "purges", "WHERE id = :id"),
        ("finish_purge", "purges", _PURGE),
        ("add_set", "vector_sets", "WHERE id = :id"),
        ("add_space", "vector_spaces", "WHERE namespace = :namespace"),
        ("move_space", "vector_spaces", "WHERE namespace = :namespace"),
    )
}
# Each row of these changes is a row more or less.
_ADDED: Final = {
    "put_task": ("tasks", 1),
    "end_task": ("tasks", -1),
    "note_operation": ("task_operations", 1),
    "forget_once": ("once_records", -1),
    "forget_cursor": ("cursors", -1),
    "erase_vectors": ("vectors", -1),
    "drop_vectors": ("vectors", -1),
    "erase_pending": ("pending_vectors", -1),
}
# These add a row, or change the one that there is.
_MAY_ADD: Final = {
    "begin_once": (
        "once_records",
        "SELECT COUNT(*) FROM once_records WHERE scope = :scope AND id = :id",
    ),
    "set_cursor": ("cursors", "SELECT COUNT(*) FROM cursors WHERE scope = :scope AND name = :name"),
}
_NEW_CONFLICTS: Final = "SELECT id, checksum FROM conflicts ORDER BY id DESC LIMIT ? + 0"
_COUNT: Final = "UPDATE tallies SET row_count = row_count + ? WHERE name = ?"
_SEAL: Final = "SELECT seal FROM tallies WHERE name = ?"
_MOVE: Final = "UPDATE tallies SET row_count = row_count + ?, seal = ? WHERE name = ?"
_BEGIN: Final = "INSERT INTO tallies (name, row_count, seal) VALUES (?, ?, ?)"
_TALLIES: Final = "SELECT name, row_count, seal FROM tallies"
_BESIDE: Final = """
SELECT revision, COUNT(*) * 2 FROM reads WHERE revision > ?1 AND revision <= ?2 GROUP BY revision
UNION ALL SELECT revision, 1 FROM operation_results WHERE revision > ?1 AND revision <= ?2
"""
Executes = driver.Connection | driver.Cursor


class Counted:
    """Keeps the tallies right in one transaction; `write` writes the numbers."""

    def __init__(self, cursor: driver.Cursor) -> None:
        self._cursor = cursor
        self._counts: dict[str, int] = {}
        self._before = _EMPTY

    def add(self, table: str, rows: int) -> None:
        """So many rows more; below 0: less."""
        self._counts[table] = self._counts.get(table, 0) + rows

    def before(self, name: str, values: Mapping[str, Any]) -> None:
        """Looks at the rows that a change may touch.

        Args:
            name, values: of the change.
        """
        if (touched := _TOUCHED.get(name)) is not None:
            self._before = _tally(self._cursor.execute(touched[1], values))
        elif (may_add := _MAY_ADD.get(name)) is not None:
            there = self._cursor.execute(may_add[1], values).fetchone()[0]
            self.add(may_add[0], 1 - there)

    def after(self, name: str, values: Mapping[str, Any], count: int) -> None:
        """Takes in what the change has done.

        Args:
            count: the rows that it has changed.
        """
        if (added := _ADDED.get(name)) is not None:
            self.add(added[0], added[1] * count)
        elif (touched := _TOUCHED.get(name)) is not None:
            (rows, seal), (rows_before, before) = (
                _tally(self._cursor.execute(touched[1], values)),
                self._before,
            )
            if (rows, seal) != (rows_before, before):
                _move(self._cursor, touched[0], rows - rows_before, _xor(before, seal))

    def write(self) -> None:
        """Adds the numbers to the tallies."""
        for table, count in self._counts.items():
            if count:
                self._cursor.execute(_COUNT, (count, table))
        self._counts.clear()


def note_conflicts(cursor: driver.Cursor, count: int) -> None:
    """Takes in the conflicts that were just written, so many, with the largest ids."""
    _move(cursor, "conflicts", *_tally(cursor.execute(_NEW_CONFLICTS, (count,))))


def begin(connection: driver.Connection) -> None:
    """Makes all tallies, and gives a checksum to each row that has none."""
    add_missing(connection)
    for table, statement in _ROWS.items():
        connection.execute(_BEGIN, (table, *_tally(connection.execute(statement))))
    for table in _COUNTED:
        count = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        connection.execute(_BEGIN, (table, count, _NONE))


def wrong(connection: driver.Connection) -> Iterator[str]:
    """For people: the tables that have other rows than agentmem has left there."""
    known = {name: (count, seal) for name, count, seal in connection.execute(_TALLIES)}
    found: dict[str, tuple[int, bytes]] = {}
    for table, statement in _ROWS.items():
        found[table] = _tally(connection.execute(statement))
    for table in _COUNTED:
        count = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        found[table] = (count, _NONE)
    for table, (count, seal) in found.items():
        if table not in known:
            yield f"it is not known how many rows {table} should have"
        elif known[table][0] != count:
            yield f"{table} has {count} rows, and should have {known[table][0]}"
        elif known[table][1] != seal:
            yield f"{table} has other rows than were written"
    for name in known.keys() - found.keys():
        yield f"a count is kept of {name!r}, which is no table that is counted"


def beside(connection: Executes, after: int, upto: int) -> dict[int, int]:
    """See `Engine.beside`."""
    found: dict[int, int] = {}
    for revision, count in connection.execute(_BESIDE, (after, upto)).fetchall():
        found[revision] = found.get(revision, 0) + count
    return found


def _move(cursor: driver.Cursor, table: str, count: int, change: bytes) -> None:
    row = cursor.execute(_SEAL, (table,)).fetchone()
    if row is not None and isinstance(row[0], bytes):
        cursor.execute(_MOVE, (count, _xor(row[0], change), table))


def _tally(rows: Iterable[Any]) -> tuple[int, bytes]:
    """How many rows there are, and their seal."""
    count = seal = 0
    for *place, checksum in rows:
        noted = checksum.hex() if isinstance(checksum, bytes) else str(checksum)
        row = orjson.dumps((*place, noted), default=repr)
        seal ^= int.from_bytes(blake2b(row, digest_size=_BYTES).digest(), "big")
        count += 1
    return count, seal.to_bytes(_BYTES, "big")


def _xor(one: bytes, other: bytes) -> bytes:
    joined = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return joined.to_bytes(max(_BYTES, len(one)), "big")
