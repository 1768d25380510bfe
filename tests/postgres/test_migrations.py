"""Migrating a store: by another agentmem, and when it fails.

The first open by many at once, on every engine, is in tests/race/test_opening.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

import agentmem
from agentmem.engines.postgres import migrate
from agentmem_migrations import Migration, migrations_for
from tests.postgres.places import raw
from tests.postgres_server import server_url, store_url


@pytest.fixture
def name(new_store: Callable[[], str]) -> str:
    return new_store()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Migration]]:
    """The migrations that agentmem has; a test may add to them."""
    found = migrations_for("postgres")
    monkeypatch.setattr(migrate, "migrations_for", lambda _engine: list(found))
    return found


def tables(name: str) -> list[str]:
    with psycopg.connect(server_url()) as connection:
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"
        return [table for (table,) in connection.execute(sql, (name,)).fetchall()]


def schema_is_there(name: str) -> bool:
    with psycopg.connect(server_url()) as connection:
        sql = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
        return connection.execute(sql, (name,)).fetchone() is not None


def test_the_migrations_are_noted_with_their_checksums(name: str) -> None:
    agentmem.open(store_url(name)).close()
    with raw(server_url(), name) as connection:
        noted = connection.execute("SELECT name, checksum FROM agentmem_checksums").fetchall()
    assert noted == [(each.name, each.checksum) for each in migrations_for("postgres")]


def test_a_store_of_a_newer_agentmem_is_refused_and_left_as_it_is(name: str) -> None:
    agentmem.open(store_url(name)).close()
    with raw(server_url(), name) as connection:
        connection.execute("INSERT INTO agentmem_checksums VALUES ('9999_add_wings', 'x')")
    with pytest.raises(agentmem.MigrationError, match=r"9999_add_wings.*upgrade"):
        agentmem.open(store_url(name))
    with raw(server_url(), name) as connection:
        connection.execute("DELETE FROM agentmem_checksums WHERE name = '9999_add_wings'")
    agentmem.open(store_url(name)).close()


def test_a_migration_that_was_changed_is_refused(name: str) -> None:
    agentmem.open(store_url(name)).close()
    with raw(server_url(), name) as connection:
        connection.execute("UPDATE agentmem_checksums SET checksum = 'x'")
    with pytest.raises(agentmem.MigrationError, match="not the one that was applied"):
        agentmem.open(store_url(name))


def test_a_new_migration_is_applied_once_and_keeps_what_is_there(
    name: str, known: list[Migration]
) -> None:
    with agentmem.open(store_url(name)) as store:
        store.put("k", 1)
        store_id = store._core.engine.store_id
    known.append(Migration("0999_add_wings", "CREATE TABLE wings (span int)", "x"))
    for _each in range(2):
        with agentmem.open(store_url(name)) as store:
            assert (store["k"], store._core.engine.store_id) == (1, store_id)
            assert store.admin.verify().problems == []
    assert "wings" in tables(name)


FAILING = {
    "its SQL is wrong": "CREATE TABLE wings (span int); SELECT * FROM nothing",
    "its first statement fails": "SELECT 1 / 0; CREATE TABLE wings (span int)",
    "it breaks a rule": "CREATE TABLE wings (span int); INSERT INTO store SELECT * FROM store",
}


@pytest.mark.parametrize("sql", FAILING.values(), ids=FAILING)
def test_a_migration_that_fails_leaves_an_old_store_as_it_was(
    name: str, known: list[Migration], sql: str
) -> None:
    with agentmem.open(store_url(name)) as store:
        store.put("k", 1)
    before = tables(name)
    known.append(Migration("0999_add_wings", sql, "x"))
    with pytest.raises(agentmem.MigrationError, match="is as it was before"):
        agentmem.open(store_url(name))
    assert tables(name) == before
    known.pop()
    with agentmem.open(store_url(name)) as store:
        assert store["k"] == 1
        assert store.admin.verify().problems == []


def test_a_migration_that_fails_leaves_no_new_store(name: str, known: list[Migration]) -> None:
    known.append(Migration("0999_add_wings", "SELECT 1 / 0", "x"))
    with pytest.raises(agentmem.MigrationError, match="division by zero"):
        agentmem.open(store_url(name))
    assert not schema_is_there(name)


def test_a_migration_that_takes_too_long_elsewhere_is_busy(name: str) -> None:
    limits = agentmem.Limits(lock_timeout_ms=200)
    with psycopg.connect(server_url()) as holder:
        lock = "SELECT pg_advisory_xact_lock(hashtextextended('agentmem ' || %s, 0))"
        holder.execute(lock, (name,))
        with pytest.raises(agentmem.StoreBusyError, match="was migrating") as caught:
            agentmem.open(store_url(name), limits=limits)
        assert caught.value.waited_ms == 200
    assert not schema_is_there(name)
    agentmem.open(store_url(name), limits=limits).close()


def test_nothing_of_a_migration_is_seen_before_it_is_whole(name: str) -> None:
    """Its connection is cut between the tables and the note that they are there."""
    original = migrate._apply

    def cut(connection: psycopg.Connection[Any], *arguments: Any) -> None:
        original(connection, *arguments)
        with psycopg.connect(server_url(), autocommit=True) as other:
            pid = connection.info.backend_pid
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "_apply", cut)
        with pytest.raises(agentmem.StorageError):
            agentmem.open(store_url(name))
    assert not schema_is_there(name)
    with agentmem.open(store_url(name)) as store:
        assert store.increment("n").version == 1


def test_what_transactions_had_read_is_still_there_after_the_migration(name: str) -> None:
    found = {each.name: each.sql for each in migrations_for("postgres")}
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    with raw(server_url(), name) as connection:
        connection.execute(found["0001_create_log"].encode())
        connection.execute(
            "INSERT INTO commits (revision, committed_at, scope, base_revision, attempt, "
            "first_entry_id, changes, digests, hash) "
            r"VALUES (4, 0, '', 3, '\x00', 1, 0, '', ''), (5, 0, '', 2, '\x01', 1, 0, '', '')"
        )
        connection.execute(
            "INSERT INTO reads VALUES (4, '', 'a', 1, NULL), (4, '', 'b', 0, NULL), "
            """(5, 'n', '', 2, '{"limit":2}')"""
        )
        connection.execute(found["0004_index_reads"].encode())
        rows = connection.execute(
            "SELECT revision, position, kind, namespace, key, version, base_revision, scan "
            "FROM reads ORDER BY revision, position"
        ).fetchall()
    assert rows == [
        (4, 0, 1, "", "a", 1, None, None),
        (4, 1, 1, "", "b", 0, None, None),
        (5, 0, 5, "n", "", 2, 2, '{"limit":2}'),
    ]
