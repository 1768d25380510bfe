"""The rows of a store's tables, to change them behind agentmem's back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

__all__ = ["PostgresRows", "Rows", "SqliteRows"]

# ruff: noqa: S608  # names of tables and columns, as the database has told them
_SQLITE_TABLES: Final = "SELECT name FROM sqlite_schema WHERE type = 'table'"
_POSTGRES_TABLES: Final = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"


class Rows(Protocol):
    """A store's tables, behind agentmem's back."""

    def tables(self) -> list[str]:
        """The names of all tables, in order."""

    def select(self, table: str) -> list[dict[str, Any]]:
        """All rows."""

    def update(self, table: str, before: dict[str, Any], column: str, value: Any) -> bool:
        """Changes a column of the row; False if the database does not allow it."""

    def remove(self, table: str, row: dict[str, Any]) -> bool:
        """Removes the row; False if the database does not allow it."""

    def insert(self, table: str, row: dict[str, Any]) -> None:
        """Puts a row there, just as it is."""


@dataclass
class SqliteRows:
    """The tables of a file, by a connection of the store's own SQLite library."""

    connection: Any

    def tables(self) -> list[str]:
        """See `Rows`."""
        return sorted(name for (name,) in self.connection.execute(_SQLITE_TABLES).fetchall())

    def select(self, table: str) -> list[dict[str, Any]]:
        """See `Rows`."""
        cursor = self.connection.execute(f"SELECT * FROM {table}")
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def update(self, table: str, before: dict[str, Any], column: str, value: Any) -> bool:
        """See `Rows`."""
        statement = f"UPDATE {table} SET {column} = ? WHERE {_is(before)}"
        return self._run(statement, (value, *before.values()))

    def remove(self, table: str, row: dict[str, Any]) -> bool:
        """See `Rows`."""
        return self._run(f"DELETE FROM {table} WHERE {_is(row)}", tuple(row.values()))

    def insert(self, table: str, row: dict[str, Any]) -> None:
        """See `Rows`."""
        marks = ", ".join("?" * len(row))
        statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"
        self.connection.execute(statement, tuple(row.values()))

    def _run(self, statement: str, values: tuple[Any, ...]) -> bool:
        try:
            changed = self.connection.execute(statement, values)
        except Exception:  # noqa: BLE001  # a constraint of whatever library it is
            return False
        return bool(changed.rowcount == 1)


@dataclass
class PostgresRows:
    """The tables of a schema, by a psycopg connection whose search path it is, in autocommit."""

    connection: Any

    def tables(self) -> list[str]:
        """See `Rows`."""
        return sorted(name for (name,) in self.connection.execute(_POSTGRES_TABLES).fetchall())

    def select(self, table: str) -> list[dict[str, Any]]:
        """See `Rows`."""
        found = self.connection.execute(f'SELECT * FROM "{table}"')
        names = [each.name for each in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def update(self, table: str, before: dict[str, Any], column: str, value: Any) -> bool:
        """See `Rows`."""
        statement = f'UPDATE "{table}" SET {column} = %s WHERE {_not_distinct(before)}'
        return self._run(statement, (value, *before.values()))

    def remove(self, table: str, row: dict[str, Any]) -> bool:
        """See `Rows`."""
        return self._run(f'DELETE FROM "{table}" WHERE {_not_distinct(row)}', tuple(row.values()))

    def insert(self, table: str, row: dict[str, Any]) -> None:
        """See `Rows`."""
        marks = ", ".join(["%s"] * len(row))
        statement = f'INSERT INTO "{table}" ({", ".join(row)}) VALUES ({marks})'
        self.connection.execute(statement, tuple(row.values()))

    def _run(self, statement: str, values: tuple[Any, ...]) -> bool:
        import psycopg

        try:
            return bool(self.connection.execute(statement, values).rowcount == 1)
        except psycopg.Error:
            return False


def _is(row: dict[str, Any]) -> str:
    return " AND ".join(f"{name} IS ?" for name in row)


def _not_distinct(row: dict[str, Any]) -> str:
    return " AND ".join(f"{name} IS NOT DISTINCT FROM %s" for name in row)
