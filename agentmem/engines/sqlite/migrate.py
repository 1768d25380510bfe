"""Brings a file to the schema that this agentmem knows.

``sqlite_utils.Migrations`` runs each file in a transaction together with its ledger; that is
not enough when several processes open a new path at once (62 of 80 first opens failed), so the
whole of it runs under the store's lock. The checksums are kept beside the ledger: a file that
was changed after it had been applied is noticed.
"""

from __future__ import annotations

import os
import uuid
from typing import Final

from agentmem.clock import MicrosecondClock
from agentmem.engines.rows import (
    Migrations,
)
from agentmem.engines.sqlite import files, tallies, text
from agentmem.engines.sqlite.connection import Connections
from agentmem.engines.sqlite.driver import driver, translated
from agentmem.engines.sqlite.inherited import guard
from agentmem.engines.sqlite.lock import FairLock
from agentmem.engines.sqlite.schema import tables
from agentmem.errors import MigrationError, StorageError
from agentmem_migrations import Migration, migrations_for

__all__ = ["look", "migrate"]

_SET: Final = "agentmem"
_SEARCH: Final = "0002_add_search"  # what it makes can be filled by no SQL alone
_COUNTS: Final = "0009_count_rows"  # the same
_CREATE_CHECKSUMS: Final = (
    "CREATE TABLE IF NOT EXISTS agentmem_checksums (name TEXT PRIMARY KEY, checksum TEXT NOT NULL)"
)
_CHECKSUMS: Final = "SELECT name, checksum FROM agentmem_checksums ORDER BY name"
_ADD_CHECKSUM: Final = "INSERT INTO agentmem_checksums (name, checksum) VALUES (?, ?)"
_ADD_STORE: Final = (
    "INSERT OR IGNORE INTO store (id, store_id, created_at, floor, fence) VALUES (1, ?, ?, 0, 0)"
)


def migrate(
    connections: Connections, lock: FairLock, clock: MicrosecondClock, timeout_ms: int
) -> None:
    """Gives the file a write-ahead log and the migrations that it lacks, under the lock.

    Raises:
        StorageError: the file system allows no write-ahead log.
        MigrationError: the store comes from a newer agentmem, or a file was changed.
        StoreBusyError: the lock was not to be had in time.
    """
    known = migrations_for("sqlite")
    try:
        if _has_log(connections) and not _missing(connections, known):
            return
        lock.acquire(timeout_ms)
        try:
            # Two that switch it at once do not wait for each other: SQLite fails one with BUSY.
            _give_log(connections)
            # Another process may have done it while this one waited.
            if missing := _missing(connections, known):
                _apply(connections, missing, clock)
        finally:
            lock.release()
    except driver.Error as error:
        raise translated(error, connections.path) from error


def look(target: str) -> Migrations | None:
    """What the store at a path has been migrated by; None: there is no store. Writes nothing.

    Raises:
        CorruptionError: the file is no store of agentmem.
        MigrationError: the store comes from a newer agentmem, or a file was changed.
    """
    path = files.real_path(target)
    if not os.path.exists(path):
        return None
    files.refuse_network(path)
    guard(path)
    connections = Connections(path, "relaxed")
    try:
        if "agentmem_checksums" not in tables(connections.get()):
            return None
        known = migrations_for("sqlite")
        missing = [migration.name for migration in _missing(connections, known)]
    except driver.Error as error:
        raise translated(error, path) from error
    finally:
        connections.close()
    return Migrations(path, [each.name for each in known if each.name not in missing], missing)


def _has_log(connections: Connections) -> bool:
    return bool(connections.get().execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def _give_log(connections: Connections) -> None:
    mode = connections.get().execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise StorageError(f"{connections.path} cannot have a write-ahead log (it is {mode!r})")


def _missing(connections: Connections, known: list[Migration]) -> list[Migration]:
    path = connections.path
    connection = connections.get()
    if "agentmem_checksums" not in tables(connection):
        return known
    applied = dict(connection.execute(_CHECKSUMS).fetchall())
    names = {migration.name for migration in known}
    if newer := sorted(applied.keys() - names):
        raise MigrationError(
            f"{path} was written by a newer agentmem (it has migration {newer[-1]}); "
            "upgrade: pip install --upgrade agentmem-store"
        )
    for migration in known:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationError(
                f"{path}: migration {migration.name} is not the one that was applied; "
                "install the agentmem that the store was made with"
            )
    return [migration for migration in known if migration.name not in applied]


def _apply(connections: Connections, missing: list[Migration], clock: MicrosecondClock) -> None:
    # Imported here: opening a store that is up to date does without it.
    import sqlite_utils

    connection = connections.get()
    database = sqlite_utils.Database(connection)
    connection.execute(_CREATE_CHECKSUMS)
    migrations = sqlite_utils.Migrations(_SET)
    for migration in missing:
        migrations(name=migration.name)(_Step(migration, clock))
    try:
        migrations.apply(database)
    except driver.Error as error:
        raise MigrationError(
            f"{connections.path} could not be migrated, and is as it was before: {error}"
        ) from error


class _Step:
    """One migration as `sqlite_utils.Migrations` calls it, inside its transaction."""

    def __init__(self, migration: Migration, clock: MicrosecondClock) -> None:
        self.__name__ = migration.name
        self._migration = migration
        self._clock = clock

    def __call__(self, database: object) -> None:
        connection: driver.Connection = database.conn  # type: ignore[attr-defined]  # sqlite_utils.Database, whose import is lazy
        # One by one: executescript() would commit first and undo the atomicity.
        for statement in _statements(self._migration.sql):
            connection.execute(statement)
        if self._migration.name == _SEARCH:
            text.create(connection)
            text.fill(connection)
        if self._migration.name == _COUNTS:
            tallies.begin(connection)
        connection.execute(_ADD_STORE, (_new_store_id(), self._clock()))
        connection.execute(_ADD_CHECKSUM, (self._migration.name, self._migration.checksum))


def _new_store_id() -> str:
    return uuid.UUID(bytes=os.urandom(16), version=4).hex


def _statements(sql: str) -> list[str]:
    statements, lines = [], []
    for line in sql.splitlines():
        lines.append(line)
        text = "\n".join(lines)
        if line.split("--")[0].rstrip().endswith(";") and driver.complete_statement(text):
            statements.append(text)
            lines = []
    return statements
