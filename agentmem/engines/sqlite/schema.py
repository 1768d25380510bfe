"""Whose database a file is."""

from __future__ import annotations

from typing import Final

from agentmem.engines.sqlite.driver import driver
from agentmem.errors import CorruptionError

__all__ = ["check_ours", "tables"]

_TABLES: Final = "SELECT name FROM sqlite_schema WHERE type = 'table'"
_OURS: Final = "agentmem_checksums"
_LEDGER: Final = "_sqlite_migrations"


def tables(connection: driver.Connection) -> set[str]:
    """The names of the tables."""
    return {name for (name,) in connection.execute(_TABLES).fetchall()}


def check_ours(connection: driver.Connection, path: str) -> None:
    """Raises `CorruptionError` if the file is the database of another program."""
    found = tables(connection)
    if _OURS not in found and found - {_LEDGER}:
        raise CorruptionError(
            f"{path} is a SQLite database, but no agentmem store; name another file"
        )
