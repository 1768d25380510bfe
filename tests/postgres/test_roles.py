"""The rights that a role needs, and what it gets without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import agentmem
from tests.postgres.places import run, target
from tests.postgres_server import Server

STORE = "shared"
# What docs/postgresql.md tells to grant to a role that uses a store which another has made.
USE = (f"GRANT USAGE ON SCHEMA {STORE} TO member",)
READ = (*USE, f"GRANT SELECT ON ALL TABLES IN SCHEMA {STORE} TO member")
WRITE = (*USE, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {STORE} TO member")


@dataclass
class Roles:
    """A server with a role that owns nothing, and one that may make stores."""

    server: Server

    def grant(self, *statements: str) -> None:
        run(self.server.url, *statements)

    def target(self, role: str, store: str = STORE) -> str:
        return target(self.server.url.replace("//postgres:@", f"//{role}@"), store)


@pytest.fixture
def roles(server: Server) -> Iterator[Roles]:
    run(server.url, "CREATE ROLE member LOGIN", "CREATE ROLE maker LOGIN")
    run(server.url, "GRANT CREATE ON DATABASE postgres TO maker")
    yield Roles(server)
    for role in ("member", "maker"):
        run(server.url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


@pytest.fixture
def made(roles: Roles) -> Roles:
    """A store of the maker's, with one key."""
    with agentmem.open(roles.target("maker")) as store:
        store.put("k", 1)
    return roles


def refused(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(agentmem.StorageError, match=said) as caught:
        call()
    assert "docs/postgresql.md lists the rights" in str(caught.value)


def test_a_role_that_may_not_create_cannot_make_a_store(roles: Roles) -> None:
    refused(lambda: agentmem.open(roles.target("member")), "permission denied for database")
    with psycopg.connect(roles.server.url) as connection:
        found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (STORE,))
        assert found.fetchone() is None


def test_an_empty_schema_of_its_own_is_enough_to_make_a_store(roles: Roles) -> None:
    roles.grant(f"CREATE SCHEMA {STORE} AUTHORIZATION member")
    with agentmem.open(roles.target("member")) as store:
        assert store.increment("n").version == 1


def test_create_on_the_database_is_enough_for_everything(roles: Roles) -> None:
    with agentmem.open(roles.target("maker")) as store:
        everything(store)


def test_a_store_is_closed_to_other_roles(made: Roles) -> None:
    refused(lambda: agentmem.open(made.target("member")), "permission denied for schema")
    made.grant(*USE)
    refused(lambda: agentmem.open(made.target("member")), "permission denied for table")


def test_a_role_that_may_only_read_reads_everything_and_writes_nothing(made: Roles) -> None:
    made.grant(*READ)
    with agentmem.open(made.target("member")) as store:
        assert store["k"] == 1
        assert store.snapshot(at=1).list()[0].value == 1
        assert len(store.log()) == len(store.history("k")) == 1
        assert store.admin.verify().problems == []
        assert store.transact(lambda tx: tx["k"]) == 1
        writes: list[Callable[[], Any]] = [
            lambda: store.put("k", 2, expected_version=1),
            lambda: store.delete("k"),
            lambda: store.increment("n"),
            lambda: store.transact(lambda tx: tx.put("k", tx["k"] + 1)),
            lambda: store.set_merge("k", "counter"),
            lambda: store.audit.tag("t"),
        ]
        for write in writes:
            refused(write, "permission denied for table")
    with agentmem.open(made.target("maker")) as witness:
        assert (witness.revision, witness["k"]) == (1, 1)


def test_rights_on_the_tables_are_enough_to_use_a_store_of_another(made: Roles) -> None:
    made.grant(*WRITE)
    with agentmem.open(made.target("member")) as store:
        everything(store)


@pytest.mark.parametrize("table", ["commits", "entries", "heads", "operation_results", "reads"])
def test_a_right_that_is_missing_in_the_middle_of_a_commit_leaves_nothing(
    made: Roles, table: str
) -> None:
    made.grant(*WRITE, f"REVOKE INSERT ON {STORE}.{table} FROM member")

    def function(tx: agentmem.Transaction) -> None:
        tx["a"] = tx.get("k", default=None) is None
        tx["b"] = 1

    with agentmem.open(made.target("member")) as store:
        refused(
            lambda: store.transact(function, op_id="op"), f"permission denied for table {table}"
        )
        assert (store.revision, store.count()) == (1, 1)
        made.grant(f"GRANT INSERT ON {STORE}.{table} TO member")
        store.transact(function, op_id="op")
        assert (store.revision, store.count()) == (2, 3)
        assert store.admin.verify().problems == []


def everything(store: agentmem.Store) -> None:
    """Touches every table."""
    store.put("plan", 1, ttl_s=60, op_id="op")
    store.touch("plan", 90)
    store.set_merge("m", "counter")
    store.set_merge("m", None)
    store.put("m", 1)
    store.audit.tag("t")
    store.audit.untag("t")
    with store.transaction() as tx:
        tx["a"] = tx["plan"]
        tx["b"] = tx.count()
    for _each in range(2):
        tx = store.transaction()
        tx["a"] = tx["a"] + 1
        store.put("a", 5, overwrite=True)
        with pytest.raises(agentmem.ConflictError):
            tx.commit()

    tries = iter(range(10))

    def moved(tx: agentmem.Transaction) -> None:
        value = tx["a"]
        if next(tries) < 2:
            store.put("a", value + 10, overwrite=True)
        tx["a"] = value + 1

    store.transact(moved)
    store.delete("b")
    assert store.audit.conflicts()
    assert store.admin.verify().problems == []
    store.admin.stats()


def test_a_purge_is_finished_by_the_owner_of_the_tables(made: Roles) -> None:
    made.grant(*WRITE)
    with agentmem.open(made.target("member")) as store:
        with pytest.raises(agentmem.StorageError, match="run it again as maker"):
            store.admin.purge("k")
        assert store.get("k") is None
        assert store.admin.stats()["open_purges"] == 1
    with agentmem.open(made.target("maker")) as store:
        store.admin.purge("k")
        assert store.admin.stats()["open_purges"] == 0
