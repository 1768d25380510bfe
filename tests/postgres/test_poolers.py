"""Behind a pooler in transaction mode, which gives each transaction another of its sessions."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import agentmem
from agentmem.testing.crew import Crew
from tests.postgres.places import target
from tests.postgres.workers import move
from tests.postgres_server import Server

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
PROCESSES, ROUNDS = 4, 15
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")

SETTINGS = """
[databases]
* = host={server} port=5432 user=postgres

[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 3
{more}
"""


def version() -> tuple[int, ...]:
    said = subprocess.run([str(PROGRAM), "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+)\.(\d+)", said.stdout)
    assert found is not None, said.stdout
    return tuple(map(int, found.groups()))


@contextmanager
def pooler(server: Server, *more: str) -> Iterator[str]:
    """A pooler before the server; gives its URL. Its sessions are fewer than its clients."""
    folder = Path(tempfile.mkdtemp(prefix="agentmem-pooler-"))
    folder.chmod(0o777)  # it runs as the server's user, and is gone soon
    socket = psycopg.conninfo.conninfo_to_dict(server.url)["host"]
    settings = folder / "settings.ini"
    settings.write_text(SETTINGS.format(server=socket, folder=folder, more="\n".join(more)))
    settings.chmod(0o644)
    user = server.system_user
    command = [str(PROGRAM), *(["-u", user] if user else []), str(settings)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if "process up" in line:
                    break
            else:
                raise AssertionError(f"pgbouncer did not start: {said}")
            yield f"postgresql://postgres:@/postgres?host={folder}&port=6432"
        finally:
            process.kill()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=[0, 100])
def pooled(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[Server, str, int]]:
    """The server, the pooler's URL, and for how many prepared statements it cares."""
    cares = request.param
    if version() >= (1, 21):
        more = [f"max_prepared_statements = {cares}"]
    elif cares:
        pytest.skip("pgbouncer cares for prepared statements from 1.21 on")
    else:
        more = []
    with pooler(server, *more) as url:
        yield server, url, cares


def test_everything_works_behind_a_pooler(pooled: tuple[Server, str, int]) -> None:
    server, url, _cares = pooled
    behind = target(url)
    with (
        agentmem.open(behind) as store,
        agentmem.open(target(server.url, behind.rsplit("store=", 1)[1])) as witness,
    ):
        first = store.put("k", {"a": 1}, op_id="op")
        assert store.put("k", {"a": 1}, op_id="op") == first
        store.put_many({f"k{number:02}": number for number in range(50)})
        assert store.update("k", lambda value: value | {"b": 2}).version == 2
        assert store.count(where={"$or": [{"a": 1}]}) == 1
        assert [e.value for e in store.list(key_prefix="k0")] == list(range(10))
        snap = store.snapshot()
        stale = store.transaction()
        assert stale.count("other") == 0
        stale.put("seen", 0)
        witness.put("x", 1, namespace="other")
        with pytest.raises(agentmem.ConflictError):
            stale.commit()
        assert (snap.count("other"), store.count("other")) == (0, 1)
        store.set_merge("m", "counter")
        store.put("m", 1)
        store.put("m", 3, expected_version=1)
        store.put("m", 5, expected_version=1)
        assert store["m"] == 7
        store.put("short", 1, ttl_s=1_000)
        store.audit.tag("t")
        assert store.snapshot(at="t").count() == witness.count()
        store.delete("k")
        assert store.admin.verify().problems == witness.admin.verify().problems == []


@pytest.mark.stress
@pytest.mark.slow
def test_four_processes_transact_behind_a_pooler(pooled: tuple[Server, str, int]) -> None:
    server, url, cares = pooled
    behind = target(url)
    with agentmem.open(behind) as store:
        store.put_many(dict.fromkeys("abc", 10), namespace="accounts")
    said: list[Any] = []
    arguments = [(behind, worker, ROUNDS) for worker in range(PROCESSES)]
    Crew(move, arguments).run(lambda _worker, each: said.append(each))
    prepares = [each for each in said if isinstance(each, bool)]
    assert len(prepares) == PROCESSES
    if cares:
        assert all(prepares), "what the pooler cares for was given up"
    else:
        assert not all(prepares), "no session of another was met, so the test shows nothing"
    with agentmem.open(target(server.url, behind.rsplit("store=", 1)[1])) as witness:
        assert sum(entry.value for entry in witness.list("accounts")) == 30
        assert witness["moves"] == PROCESSES * ROUNDS
        assert witness.revision == PROCESSES * ROUNDS + 1
        assert witness.admin.verify().problems == []


def test_prepared_statements_are_given_up_when_a_pooler_mixes_sessions(server: Server) -> None:
    """What one client has prepared, the other finds there already."""
    more = ["max_prepared_statements = 0"] if version() >= (1, 21) else []
    with pooler(server, *more) as url:
        behind = target(url)
        with agentmem.open(behind) as one, agentmem.open(behind) as two:
            for number in range(3):
                for store in (one, two):
                    store.put(f"k{number}", number, overwrite=True)
                    assert store.count() == number + 1
            pools = [store._core.engine._pool for store in (one, two)]  # type: ignore[attr-defined]  # PostgreSQL's
            assert not all(pool.prepares for pool in pools)
            assert one.admin.verify().problems == []


def test_nothing_of_a_session_is_left_behind_in_the_pooler(server: Server) -> None:
    """A setting that outlived its transaction would change what other clients get."""
    with pooler(server, "server_check_delay = 600") as url:
        with agentmem.open(target(url), durability="relaxed") as store:
            store.put("k", 1)
            store.list()
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as other:
            for _each in range(3):
                found = other.execute(
                    "SELECT current_setting('synchronous_commit'), current_setting('search_path'), "
                    "current_setting('lock_timeout'), "
                    "current_setting('idle_in_transaction_session_timeout')"
                ).fetchone()
                assert found == ("on", '"$user", public', "0", "0")
            assert (
                other.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").fetchall() == []
            )


def test_a_server_that_restarts_behind_a_pooler_is_found_again(server: Server) -> None:
    with pooler(server, "server_login_retry = 0.1") as url, agentmem.open(target(url)) as store:
        store.put("k", 1)
        for number in range(2):
            server.stop()
            server.start()
            assert store["k"] == 1
            assert store.increment("n", op_id=f"op-{number}").version == number + 1
        assert store.admin.verify().problems == []
