"""The least that SQLite can be asked to do: the other side of most comparisons."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self

from agentmem.engines.sqlite.driver import driver
from benchmarks.timing import require

__all__ = ["SMALL", "Raw"]

SMALL: Final = 7
"""A value for which only the fixed costs of a call count."""

_SYNCHRONOUS: Final = {
    "full": "PRAGMA synchronous=FULL",
    "relaxed": "PRAGMA synchronous=NORMAL",
}


class Raw:
    """A table in a file with a write-ahead log, by the driver that agentmem uses.

    Args:
        durability: the level at which agentmem makes the same promise.
    """

    def __init__(self, path: str, durability: str) -> None:
        self.connection: Any = driver.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(_SYNCHRONOUS[durability])
        self.connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, key TEXT, value TEXT)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()

    def insert(self, key: str, value: str) -> None:
        """One row, in a transaction of its own."""
        connection = self.connection
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t (key, value) VALUES (?, ?)", (key, value))
        connection.execute("COMMIT")

    def holds(self, rows: int) -> None:
        """Requires that there are exactly so many rows."""
        found = self.connection.execute("SELECT count(*) FROM t").fetchone()[0]
        require(found == rows, f"raw sqlite3 holds {found} rows, not {rows}")
