"""Brings a schema to the tables that this agentmem knows, in one transaction, under a lock."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql

from agentmem.engines.postgres.pool import unreachable
from agentmem.engines.postgres.searching import cut
from agentmem.engines.postgres.target import Target
from agentmem.engines.rows import (
    Migrations,
)
from agentmem.errors import (
    CorruptionError,
    DiskFullError,
    MigrationError,
    StorageError,
    StoreBusyError,
)
from agentmem.search.words import found_by
from agentmem_migrations import Migration, migrations_for

__all__ = ["check_server", "connected", "look", "migrate", "use_schema"]

_OLDEST: Final = 140_000
_TABLES: Final = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"
)
_CHECKSUMS: Final = "SELECT name, checksum FROM {}.agentmem_checksums"
# Settings of a role or a database that change how values are read and written.
_NEEDED: Final = (("bytea_output", "hex"), ("array_nulls", "on"))
_SEARCH: Final = "0002_add_search"
_CURRENT: Final = (
    "SELECT e.id, e.namespace, e.value, e.text FROM heads h JOIN entries e ON e.id = h.entry_id "
    "WHERE e.value IS NOT NULL"
)
_ADD_TEXT: Final = "INSERT INTO texts VALUES (%s, %s, to_tsvector('words', %s))"
_COUNT_TEXTS: Final = "UPDATE store SET texts = (SELECT COUNT(*) FROM texts)"
_PAGE: Final = 500  # entries that are indexed at once
_ADD_STORE: Final = (
    "INSERT INTO store (id, store_id, created_at, floor, fence, revision, committed_at, hash, "
    "last_entry_id) VALUES (1, %s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, "
    "0, 0, 0, 0, '', 0) ON CONFLICT DO NOTHING"
)


def check_server(connection: psycopg.Connection[Any], target: Target, durability: str) -> str:
    """The server's version; raises `StorageError` if agentmem cannot work with it."""
    version = connection.info.server_version
    if version < _OLDEST:
        raise StorageError(
            f"{target.location} is PostgreSQL {version // 10_000}; agentmem needs "
            f"{_OLDEST // 10_000} or newer"
        )
    found = connection.execute(
        "SELECT current_setting('server_encoding'), current_setting('fsync'), "
        "current_setting('server_version'), current_setting('bytea_output'), "
        "current_setting('array_nulls')"
    ).fetchone()
    assert found is not None, "a SELECT without FROM returns a row"
    encoding, fsync, name, *settings = found
    if encoding != "UTF8":
        raise StorageError(
            f"the database of {target.location} has the encoding {encoding}; create one with UTF8"
        )
    if durability == "full" and fsync != "on":
        raise StorageError(
            f"the server of {target.location} runs with fsync=off and forgets commits when it "
            "loses power; turn fsync on, or open the store with durability='relaxed'"
        )
    for (setting, needed), value in zip(_NEEDED, settings, strict=True):
        if value != needed:
            raise StorageError(
                f"{target.location} has {setting}={value} for this role or database; agentmem "
                f"needs {needed}: ALTER ROLE ... SET {setting} = {needed}"
            )
    return str(name)


def migrate(target: Target, durability: str, timeout_ms: int) -> str:
    """Applies what is missing; returns the server's version.

    Raises:
        MigrationError: the store comes from a newer agentmem, or a file was changed.
        StorageError: the server cannot be reached, or cannot be used.
    """
    with connected(target, timeout_ms) as connection:
        version = check_server(connection, target, durability)
        known = migrations_for("postgres")
        if missing(connection, target, known):
            _apply(connection, target, known, timeout_ms)
        row = sql.SQL("SELECT 1 FROM {}.store").format(sql.Identifier(target.store))
        if connection.execute(row).fetchone() is None:
            raise CorruptionError(
                f"{target.location} is damaged: its row in the table store is missing; restore it "
                "from a backup"
            )
    return version


def look(target: Target, timeout_ms: int) -> Migrations | None:
    """What the store has been migrated by; None: there is no store. Writes nothing.

    Raises:
        CorruptionError: the schema belongs to something else.
        MigrationError: the store comes from a newer agentmem, or a file was changed.
        StorageError: the server cannot be reached, or cannot be used.
    """
    with connected(target, timeout_ms) as connection:
        check_server(connection, target, "relaxed")
        known = migrations_for("postgres")
        names = [migration.name for migration in missing(connection, target, known)]
        if len(names) == len(known):
            return None
    return Migrations(
        target.location, [each.name for each in known if each.name not in names], names
    )


@contextmanager
def connected(target: Target, timeout_ms: int) -> Iterator[psycopg.Connection[Any]]:
    """A connection in a transaction, which is committed at the end; its errors as agentmem's."""
    try:
        connection = psycopg.connect(target.conninfo, **target.defaults, prepare_threshold=None)
    except psycopg.Error as error:
        raise unreachable(error, target) from error
    try:
        with connection:
            yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        raise StorageError(
            f"the role may not make or read the schema of {target.location}: "
            f"{_first_line(error)}; docs/postgresql.md lists the rights"
        ) from error
    except psycopg.errors.LockNotAvailable as error:
        raise StoreBusyError(
            f"another process was migrating {target.location} for {timeout_ms} ms; run it again",
            waited_ms=timeout_ms,
        ) from error
    except psycopg.errors.DiskFull as error:
        raise DiskFullError(
            f"no space left on the server of {target.location}, which is as it was before: free "
            "space and run it again"
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise StorageError(
            f"{target.location} is read-only, a replica perhaps; name the primary server"
        ) from error
    except psycopg.OperationalError as error:
        raise StorageError(
            f"the connection to {target.location} was lost while the store was opened: "
            f"{_first_line(error)}; run it again"
        ) from error
    except psycopg.Error as error:
        raise MigrationError(
            f"{target.location} could not be migrated, and is as it was before: "
            f"{_first_line(error)}"
        ) from error
    finally:
        connection.close()


def _first_line(error: psycopg.Error) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def missing(
    connection: psycopg.Connection[Any], target: Target, known: list[Migration]
) -> list[Migration]:
    """The migrations that the store lacks.

    Raises:
        CorruptionError: the schema belongs to something else.
        MigrationError: it comes from a newer agentmem, or a file was changed.
    """
    tables = {name for (name,) in connection.execute(_TABLES, (target.store,)).fetchall()}
    if "agentmem_checksums" not in tables:
        if tables:
            raise CorruptionError(
                f"{target.location}: the schema {target.store!r} holds tables, but no agentmem "
                "store; give the store another name"
            )
        return known
    checksums = sql.SQL(_CHECKSUMS).format(sql.Identifier(target.store))
    applied = dict(connection.execute(checksums).fetchall())
    if newer := sorted(applied.keys() - {migration.name for migration in known}):
        raise MigrationError(
            f"{target.location} was written by a newer agentmem (it has migration {newer[-1]}); "
            "upgrade: pip install --upgrade agentmem-store"
        )
    for migration in known:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationError(
                f"{target.location}: migration {migration.name} is not the one that was applied; "
                "install the agentmem that the store was made with"
            )
    return [migration for migration in known if migration.name not in applied]


def _fill_texts(connection: psycopg.Connection[Any]) -> None:
    """Indexes the current entries of a store that had no index; no SQL alone can.

    Nobody commits meanwhile: the migration has altered the store's row, which commits lock.
    """
    with connection.cursor("agentmem_current") as current, connection.cursor() as cursor:
        current.execute(_CURRENT)
        while rows := current.fetchmany(_PAGE):
            found = [(row[0], row[1], found_by(row[2], row[3])) for row in rows]
            texts = [(id, namespace, cut(text)) for id, namespace, text in found if text]
            if texts:
                cursor.executemany(_ADD_TEXT, texts)
        cursor.execute(_COUNT_TEXTS)


def use_schema(connection: psycopg.Connection[Any], target: Target) -> None:
    """Makes the store's tables those of unqualified names, for the transaction."""
    path = sql.Identifier(target.store).as_string(connection)
    connection.execute("SELECT set_config('search_path', %s, true)", (path,))


def _apply(
    connection: psycopg.Connection[Any], target: Target, known: list[Migration], timeout_ms: int
) -> None:
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (str(timeout_ms),))
    # Before the schema is there, only such a lock can be had.
    lock = "SELECT pg_advisory_xact_lock(hashtextextended('agentmem ' || %s, 0))"
    connection.execute(lock, (target.store,))
    wanted = missing(connection, target, known)  # another process may have done it meanwhile
    if not wanted:
        return
    schema = sql.Identifier(target.store)
    there = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (target.store,))
    if there.fetchone() is None:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
    use_schema(connection, target)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS agentmem_checksums "
        "(name text PRIMARY KEY, checksum text NOT NULL)"
    )
    for migration in wanted:
        connection.execute(migration.sql.encode())
        if migration.name == _SEARCH:
            _fill_texts(connection)
        connection.execute(_ADD_STORE, (uuid.UUID(bytes=os.urandom(16), version=4).hex,))
        connection.execute(
            "INSERT INTO agentmem_checksums (name, checksum) VALUES (%s, %s)",
            (migration.name, migration.checksum),
        )
