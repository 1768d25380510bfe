"""Servers that cannot serve: one clear typed error, nothing written, and it works when they can."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

import agentmem
from agentmem.engines.postgres import migrate
from tests.postgres.places import raw, run, target
from tests.postgres_server import Server

PASSWORD = "correct-horse-battery"  # noqa: S105  # of a role that the tests make
WRONG = "wrong-staple-battery"
Fails = Callable[[], Any]
# Short, as every test of an absent server waits for so long.
LIMITS = agentmem.Limits(lock_timeout_ms=500)


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """The target of a store with one key."""
    url = target(server.url)
    with agentmem.open(url, agent="ann") as store:
        store.put("k", "before")
    yield url
    server.restore()
    with agentmem.open(url) as store:
        assert store.admin.verify().problems == []


def database(server: Server, name: str) -> str:
    """The URL of another database of the server."""
    return server.url.replace("/postgres?", f"/{name}?")


def as_role(url: str, role: str, password: str) -> str:
    """The URL for another role."""
    return url.replace("//postgres:@", f"//{role}:{password}@")


def refused(
    call: Fails, *said: str, error: type[agentmem.AgentMemError] = agentmem.StorageError
) -> None:
    """Asserts that it fails in one known way, in words that hold no password."""
    with pytest.raises(error) as caught:
        call()
    for words in said:
        assert words in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (PASSWORD, WRONG):
        assert secret not in shown
        assert secret not in repr(caught.value)


def calls(store: agentmem.Store) -> dict[str, Fails]:
    return {
        "get": lambda: store.get("k"),
        "list": store.list,
        "revision": lambda: store.revision,
        "snapshot": store.snapshot,
        "put": lambda: store.put("k", "meanwhile", overwrite=True, op_id="op"),
        "increment": lambda: store.increment("n", op_id="op-n"),
        "transact": lambda: store.transact(lambda tx: tx.put("k", tx["k"] + "!"), op_id="op-t"),
        "tag": lambda: store.audit.tag("t"),
        "verify": store.admin.verify,
    }


# Absent.


def test_a_server_that_is_gone_is_refused_at_open(server: Server, url: str) -> None:
    server.stop()
    refused(lambda: agentmem.open(url), "cannot be reached", "whether the server runs")


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_server_that_goes_in_the_middle_is_one_error_and_the_next_call_works_when_it_is_back(
    server: Server, url: str, mode: str
) -> None:
    with agentmem.open(url, limits=LIMITS) as store:
        snap, tx = store.snapshot(), store.transaction()
        tx["k"] = tx["k"] + ", and in the transaction"
        server.stop(mode)
        for call in calls(store).values():
            refused(call, "cannot be reached", "whether the server runs")
        refused(lambda: snap.get("k"), "cannot be reached")
        server.start()
        # No call comes between: each of these is the first after a restart.
        assert store["k"] == "before"
        server.stop(mode)
        server.start()
        assert store.put("k", "after", overwrite=True, op_id="op").version == 2
        assert store.log(op_id="op-t") == store.log(op_id="op-n") == []
        server.stop(mode)
        server.start()
        assert snap["k"] == "before"
        with pytest.raises(agentmem.ConflictError):
            tx.commit()


def test_many_writes_that_wait_for_an_absent_server_fail_together(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is waited for in full; the rest, which were queued behind it, are not."""
    errors: list[BaseException] = []
    pauses: list[float] = []
    with agentmem.open(url, limits=agentmem.Limits(lock_timeout_ms=3_000)) as store:
        pause = time.sleep

        def counted(seconds: float) -> None:
            pauses.append(seconds)
            pause(seconds)

        monkeypatch.setattr("agentmem.engines.postgres.pool.time.sleep", counted)
        server.stop()

        def write(number: int) -> None:
            try:
                store.put(f"k{number}", number)
            except agentmem.StorageError as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(errors) == 20
        assert sum(pauses) < 20 * 3 / 2, "they were waited for one after another"
        server.start()
        assert store.put("k0", 0).version == 1


# Roles and passwords.


@pytest.fixture
def guarded(server: Server, url: str) -> str:
    """The target for a role that has to give a password."""
    run(
        server.url,
        "DROP ROLE IF EXISTS guarded",
        f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'",
    )
    run(server.url, "GRANT ALL ON DATABASE postgres TO guarded")
    server.let_in("local all guarded scram-sha-256")
    yield as_role(target(server.url, "guarded"), "guarded", PASSWORD)
    run(server.url, "DROP OWNED BY guarded CASCADE", "DROP ROLE guarded")


def test_a_wrong_password_is_refused_without_being_told(guarded: str) -> None:
    with agentmem.open(guarded) as store:
        store.put("k", 1)
        assert PASSWORD not in repr(store)
        assert PASSWORD not in str(store.admin.stats())
        assert PASSWORD not in repr(store._core.engine._target)  # type: ignore[attr-defined]  # PostgreSQL's
    refused(
        lambda: agentmem.open(guarded.replace(PASSWORD, WRONG)),
        'password authentication failed for user "guarded"',
        "lets this role in",
    )


def test_a_password_that_is_changed_in_the_middle_is_one_error(
    server: Server, guarded: str
) -> None:
    with agentmem.open(guarded, limits=LIMITS) as store:
        store.put("k", 1)
        run(server.url, f"ALTER ROLE guarded PASSWORD '{PASSWORD}2'")
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'"
        run(server.url, ended)
        refused(lambda: store.get("k"), "password authentication failed")
        refused(lambda: store.increment("n"), "password authentication failed")
        run(server.url, f"ALTER ROLE guarded PASSWORD '{PASSWORD}'")
        assert (store["k"], store.increment("n").value) == (1, 1)


def test_an_unknown_role_is_refused(server: Server) -> None:
    url = as_role(target(server.url), "nobody_knows", WRONG)
    refused(lambda: agentmem.open(url), 'role "nobody_knows" does not exist')


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{WRONG}%zz@h/d",
        f"postgresql://u:x@{WRONG}@h/d",
        f"postgresql://u:{WRONG}@x@h/d",
        f"postgresql://u:x/{WRONG}@h/d",
        f"postgresql://u:x?{WRONG}@h/d?store=a",
        f"postgresql://u:x?{WRONG}@h/d",
        f"postgresql://u:x#{WRONG}@h/d?store=a",
        f"postgresql://u:{WRONG}\u2100@h/d",
        f"postgresql://u:{WRONG}@h/d?sslmode=verify&nothing={WRONG}",
        f"postgresql://u:{WRONG}@[::1/d",
        f"postgresql://h/d?password={WRONG}&pool_size=0",
        f"postgresql://h/d?password={WRONG}&pool_size=1&{WRONG}",
    ],
)
def test_a_target_that_cannot_be_read_is_refused_without_being_told(url: str) -> None:
    refused(lambda: agentmem.open(url), error=agentmem.InvalidValueError)


@pytest.mark.parametrize("secret", ["a+b", "a b", "a%b", "a@b/c?d#e", "é", "\\'\"", "=&;"])
def test_a_password_may_hold_anything_in_either_place_of_the_target(
    server: Server, guarded: str, secret: str
) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        text = psycopg.sql.SQL("ALTER ROLE guarded PASSWORD {}").format(secret)
        connection.execute(text)
    as_user = guarded.replace(PASSWORD, quote(secret, safe=""))
    # A plus is a plus for libpq, wherever it stands.
    as_option = f"{guarded.replace(':' + PASSWORD, '')}&password={quote(secret, safe='+')}"
    for url in (as_user, as_option):
        with agentmem.open(url) as store:
            store.increment("n")


# Servers that are there, and cannot be used.


def test_a_database_that_is_missing_is_refused(server: Server) -> None:
    url = target(database(server, "missing"))
    refused(lambda: agentmem.open(url), 'database "missing" does not exist')


def test_a_server_that_is_too_old_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_OLDEST", 990_000)
    refused(lambda: agentmem.open(target(server.url)), "is PostgreSQL 18; agentmem needs 99")


def test_an_encoding_that_cannot_hold_every_text_is_refused(server: Server) -> None:
    run(
        server.url,
        "DROP DATABASE IF EXISTS plain",
        "CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'",
    )
    url = target(database(server, "plain"))
    refused(lambda: agentmem.open(url), "has the encoding SQL_ASCII", "create one with UTF8")


def test_a_server_that_does_not_sync_is_refused_unless_that_is_wanted(
    server: Server, url: str
) -> None:
    server.stop("fast")
    server.start("fsync=off")
    refused(lambda: agentmem.open(url), "fsync=off", "turn fsync on", "durability='relaxed'")
    with agentmem.open(url, durability="relaxed") as store:
        assert store["k"] == "before"


def test_a_database_that_is_read_only_can_be_read_and_refuses_writes(
    server: Server, url: str
) -> None:
    run(server.url, "ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        new = target(server.url)
        refused(lambda: agentmem.open(new), "is read-only", "name the primary server")
        with agentmem.open(url) as store:
            assert store["k"] == "before"
            assert store.snapshot().count() == 1
            for name in ("put", "increment", "transact", "tag"):
                refused(calls(store)[name], "is read-only", "name the primary server")
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    with agentmem.open(url) as store:
        assert (store.revision, store.increment("n").value) == (1, 1)


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE {}.mine (a int)",
        "CREATE VIEW {}.mine AS SELECT 1",
        "CREATE SEQUENCE {}.store",
        "CREATE TABLE {}.store (id int)",
    ],
)
def test_a_schema_that_belongs_to_something_else_is_left_as_it_is(
    server: Server, made: str
) -> None:
    run(server.url, "DROP SCHEMA IF EXISTS theirs CASCADE", "CREATE SCHEMA theirs")
    run(server.url, made.format("theirs"))
    before = relations(server, "theirs")
    url = target(server.url, "theirs")
    refused(
        lambda: agentmem.open(url),
        "holds tables, but no agentmem store",
        "another name",
        error=agentmem.CorruptionError,
    )
    assert relations(server, "theirs") == before
    run(server.url, "DROP SCHEMA theirs CASCADE")


def relations(server: Server, schema: str) -> list[Any]:
    with psycopg.connect(server.url) as connection:
        sql = "SELECT relname, relkind FROM pg_class WHERE relnamespace::regnamespace::text = %s"
        return sorted(connection.execute(sql, (schema,)).fetchall())


def test_a_schema_that_is_dropped_under_an_open_store_is_one_error_until_it_is_opened_again(
    server: Server,
) -> None:
    url = target(server.url, "dropped")
    with agentmem.open(url) as store:
        store.put("k", "before")
        tx = store.transaction()
        tx.put("k", "late")
        run(server.url, "DROP SCHEMA dropped CASCADE")
        for call in [*calls(store).values(), tx.commit]:
            refused(call, "the tables of", "are gone", "open the store again")
    with agentmem.open(url) as again:
        assert again.revision == 0
        assert again.increment("n").version == 1


def test_no_connection_left_is_one_error_and_the_next_call_works_when_one_is(
    server: Server, url: str
) -> None:
    run(server.url, "DROP ROLE IF EXISTS many", "CREATE ROLE many LOGIN CONNECTION LIMIT 2")
    name = url.rsplit("store=", 1)[1]
    run(server.url, f"GRANT USAGE ON SCHEMA {name} TO many")
    run(server.url, f"GRANT ALL ON ALL TABLES IN SCHEMA {name} TO many")
    mine = as_role(url, "many", "")
    with agentmem.open(mine, limits=LIMITS) as store, ExitStack() as others:
        ended = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'many'"
        )
        run(server.url, ended)
        for _each in range(2):
            others.enter_context(psycopg.connect(as_role(server.url, "many", "")))
        refused(lambda: agentmem.open(mine), "too many connections", "has connections left")
        refused(lambda: store.get("k"), "too many connections", "has connections left")
        refused(lambda: store.increment("n"), "too many connections")
        others.close()
        assert (store["k"], store.increment("n").version) == ("before", 1)
    run(server.url, "DROP OWNED BY many", "DROP ROLE many")


def test_a_pool_whose_connections_are_all_in_use_is_busy(url: str) -> None:
    with agentmem.open(f"{url}&pool_size=1", limits=LIMITS) as store:
        pool = store._core.engine._pool  # type: ignore[attr-defined]  # PostgreSQL's
        wire = pool.take()
        with pytest.raises(agentmem.StoreBusyError, match=r"all 1 are in use.*pool_size") as caught:
            store.get("k")
        assert caught.value.waited_ms == LIMITS.lock_timeout_ms
        with pytest.raises(agentmem.StoreBusyError, match=r"all 1 are in use.*pool_size"):
            store.increment("n")
        pool.give_back(wire)
        assert (store["k"], store.increment("n").version) == ("before", 1)


def test_threads_beyond_the_pool_wait_their_turn(url: str) -> None:
    found: list[Any] = []
    with agentmem.open(f"{url}&pool_size=2") as store:

        def work(number: int) -> None:
            found.append((store["k"], store.increment("n").version, store.snapshot().count()))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(version for _value, version, _count in found) == list(range(1, 13))


def as_option(url: str, setting: str) -> str:
    """The URL of a session with a setting, as a role or a database may have it."""
    return f"{url}&options={quote(setting)}"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("statement_timeout=300", "statement timeout"),
        ("transaction_timeout=300", ""),  # the server ends the session, sometimes without a word
    ],
)
def test_a_timeout_of_the_servers_own_leaves_nothing_and_does_not_hang(
    server: Server, url: str, setting: str, said: str
) -> None:
    """Another holds the store's row, so that the limit is passed for sure."""
    with psycopg.connect(server.url) as connection:
        if connection.info.server_version < 170_000 and setting.startswith("transaction"):
            pytest.skip("transaction_timeout came with PostgreSQL 17")
    name = url.rsplit("store=", 1)[1]
    limited = as_option(url, f"-c {setting}")
    with agentmem.open(limited) as store:
        with raw(server.url, name) as holder:
            holder.execute("BEGIN")
            holder.execute("SELECT 1 FROM store FOR UPDATE")
            refused(lambda: store.increment("n", op_id="op"), said)
        assert store.get("n") is None
        assert store.increment("n", op_id="op").version == 1
