"""After a purge no erased byte is in the files of the server's tables, its log left aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

import agentmem
from tests.byte_search import found_in
from tests.postgres.places import raw, run, target
from tests.postgres_server import Server, new_name

SECRET = "zebraquartz7731"  # noqa: S105  # it opens nothing
STEM = "obsidianfeath"
VECTOR = np.arange(48, dtype="<f4") / 7 + 3.25
LEFT_OUT = ("pg_wal",)


def words() -> list[bytes]:
    """All that must be gone: parts of values, of words, of vectors."""
    return [SECRET.encode(), SECRET[3:12].encode(), STEM.encode(), VECTOR.tobytes()[40:72]]


@pytest.fixture
def name(server: Server) -> Iterator[str]:
    """A store that leaves no file behind: the next test looks into all of them."""
    name = new_name()
    yield name
    run(server.url, f'DROP SCHEMA IF EXISTS "{name}" CASCADE', "CHECKPOINT")


def filled(server: Server, name: str) -> agentmem.Store:
    store = agentmem.open(target(server.url, name), embedder=None, blind_writes="allow")
    store.set_merge("merged", "escalate")
    for number in range(60):
        store.put(f"k{number}", f"public words {number}")
        value = {"who": SECRET, "text": f"obsidianfeathers {SECRET} {number}"}
        store.put("p", value, namespace="private", op_id=f"put-{number}")
    store.put("large", [f"{SECRET}{number}" for number in range(9_000)], namespace="private")
    store.delete("large", namespace="private")
    for number in range(8):
        store.put(f"v{number}", SECRET, namespace="private", vector=VECTOR + number)
    store.put("v", SECRET, namespace="private", vector=VECTOR)
    store.transact(lambda tx: tx.get("p", namespace="private").value, op_id="read")  # type: ignore[union-attr]  # it is there
    return store


def folder(server: Server) -> Path:
    return server._folder / "data"


def settle(server: Server, name: str) -> None:
    with raw(server.url, name) as connection:
        connection.execute("ANALYZE")
    run(server.url, "CHECKPOINT")


def test_after_a_purge_no_erased_byte_is_in_any_table(server: Server, name: str) -> None:
    with filled(server, name) as store:
        spaces = store._core.engine.spaces()
        assert store._core.engine.build_nearest(spaces.sets[1])
        settle(server, name)
        there = found_in(folder(server), words(), LEFT_OUT)
        assert {word for _path, word in there} == set(words())
        before = {key: store.history(key) for key in ("k0", "k59")}
        store.admin.purge(namespace="private", agent="officer")
        settle(server, name)
        assert found_in(folder(server), words(), LEFT_OUT) == []
        assert store.admin.verify().problems == []
        assert {key: store.history(key) for key in before} == before
        stub = store.history("p", namespace="private")[1]
        assert stub.purged is not None
        assert (stub.purged.agent, stub.purged.finished) == ("officer", True)


@pytest.mark.parametrize("keeps", ["a session", "a prepared transaction"])
def test_whoever_can_still_see_it_is_named(server: Server, name: str, keeps: str) -> None:
    server.stop("fast")
    server.start("max_prepared_transactions=2")
    limits = agentmem.Limits(lock_timeout_ms=200)
    with (
        filled(server, name),
        agentmem.open(target(server.url, name), embedder=None, limits=limits) as store,
        psycopg.connect(server.url, application_name="report") as other,
    ):
        if keeps == "a session":
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT COUNT(*) FROM pg_class")
        else:
            other.execute("CREATE TEMP TABLE t (x int); DROP TABLE t; SELECT txid_current()")
            other.rollback()
            other.execute("SELECT txid_current()")
            other.execute("PREPARE TRANSACTION 'kept'")
        expected = r"\(report\)" if keeps == "a session" else "prepared transaction kept"
        with pytest.raises(agentmem.StoreBusyError, match=expected):
            store.admin.purge("p", namespace="private")
        stub = store.history("p", namespace="private")[1]
        assert stub.purged is not None
        assert not stub.purged.finished
        other.rollback()
        if keeps != "a session":
            run(server.url, "ROLLBACK PREPARED 'kept'")
        store.admin.purge("p", namespace="private")
        purged: Any = store.history("p", namespace="private")[1].purged
        assert purged.finished


@pytest.mark.parametrize("after", [1, 3, 4, 6])
def test_a_purge_that_was_broken_off_comes_to_the_same_end(
    server: Server, name: str, after: int
) -> None:
    class BrokenOffError(Exception):
        pass

    def breaking() -> Callable[[str, int, int], None]:
        left = after

        def progress(_what: str, _done: int, _of: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise BrokenOffError

        return progress

    with filled(server, name) as store:
        with pytest.raises(BrokenOffError):
            store.admin.purge(namespace="private", progress=breaking())
        assert store.admin.verify().problems == []
        store.admin.purge(namespace="private")
        settle(server, name)
        assert found_in(folder(server), words(), LEFT_OUT) == []
        assert store.admin.verify().problems == []
