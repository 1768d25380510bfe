"""Two hosts, in network namespaces of this machine, and a link between them that is cut.

The server is on this side; a client is on the other. Whatever the client was doing when the link
was cut, the writers on this side go on after the server's timeouts, the client's answer is
committed, not committed or indeterminate, and the same op_id applies exactly once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import agentmem
from agentmem.testing.crew import SILENCE_S
from tests.postgres.places import raw, target
from tests.postgres_server import Server, new_name

REMOTE = Path(__file__).parent / "remote.py"
# Of the range that is meant for tests of networks (RFC 2544), so that nothing real is hidden; four
# addresses for each run, so that runs beside each other do not meet.
BLOCK = 4 * (os.getpid() % 2**14)
NEAR, FAR = (f"198.18.{(BLOCK + host) // 256}.{(BLOCK + host) % 256}" for host in (1, 2))
BITS = 30
# The server cuts off a silent holder of the lock after so long, ...
IDLE_MS = 1_500
# ... so nobody waits longer for it than this. Wide, because the machines are slow at times; the
# server's own timeout, left at ten seconds, or a client that is never cut off, go beyond it.
LONGEST_MS = 9_000
# What a client notices a dead link by, in seconds instead of half a minute.
OPTIONS = {
    "connect_timeout": 2,
    "tcp_user_timeout": 1_500,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 2,
}
pytestmark = [pytest.mark.stress, pytest.mark.slow]


class Link:
    """A namespace, which is the other host, and the wire to it."""

    def __init__(self) -> None:
        number = os.getpid() % 100_000
        self.space, self.near, self.far = f"amem{number}", f"amn{number}", f"amf{number}"

    def make(self) -> None:
        if shutil.which("ip") is None:
            pytest.skip("iproute2 is not installed")
        made = self._ip("netns", "add", self.space, check=False)
        if made.returncode != 0:
            pytest.skip(f"a network namespace cannot be made here: {made.stderr.strip()}")
        far = ("netns", "exec", self.space, "ip")
        pair = ("type", "veth", "peer", "name", self.far, "netns", self.space)
        if self._ip("link", "add", self.near, *pair, check=False).returncode != 0:
            self.remove()
            pytest.skip("a pair of network devices cannot be made here")
        self._ip("address", "add", f"{NEAR}/{BITS}", "dev", self.near)
        self._ip("link", "set", self.near, "up")
        self._ip(*far, "address", "add", f"{FAR}/{BITS}", "dev", self.far)
        self._ip(*far, "link", "set", self.far, "up")

    def cut(self) -> None:
        """From here on packets are lost, in both directions, without a word."""
        self._ip("link", "set", self.near, "down")

    def heal(self) -> None:
        self._ip("link", "set", self.near, "up")

    def remove(self) -> None:
        self._ip("link", "del", self.near, check=False)
        self._ip("netns", "del", self.space, check=False)

    def command(self, *words: str) -> list[str]:
        """A command on the other host."""
        return ["ip", "netns", "exec", self.space, *words]

    def _ip(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)  # noqa: S607  # found by which


class Remote:
    """The client on the other host."""

    def __init__(self, link: Link, url: str) -> None:
        self._process = subprocess.Popen(
            link.command(sys.executable, str(REMOTE), url, str(IDLE_MS)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # A watchdog, not a measure: a client that hangs is ended, and its answer missed.
        self._watchdog = threading.Timer(SILENCE_S, self._process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        assert self.hears() == {"ready": True}

    def tell(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()

    def hears(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the client died or hung"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def begin(self, op_id: str, point: str) -> None:
        """Begins an increment, up to the point."""
        self.tell("increment", op_id, point)
        assert self.hears() == {"at": point}

    def asks(self, operation: str, op_id: str = "-") -> dict[str, Any]:
        self.tell(operation, op_id, "none")
        return self.hears()

    def close(self) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    link = Link()
    link.make()
    yield link
    link.remove()


@pytest.fixture(scope="module")
def distant(link: Link, _server: Server) -> Iterator[Server]:
    """The server, listening on the link."""
    server = _server
    server.let_in(f"host all all {FAR}/32 trust")
    server.stop("fast")
    server.start(host=NEAR)
    yield server
    server.restore()


class Scene:
    """A store, a writer on the server's side, and a client on the other."""

    def __init__(self, link: Link, server: Server, url: str) -> None:
        self.link = link
        self.name = new_name()
        self.url = server.url
        limits = agentmem.Limits(lock_timeout_ms=LONGEST_MS)
        self.near = agentmem.open(target(server.url, self.name), limits=limits, agent="near")
        self.near.put("k", "here")
        self.remote = Remote(link, target(url, self.name, **OPTIONS))

    def others_go_on(self) -> None:
        """Writers on this side wait no longer than the server's timeouts: else they are busy."""
        for _each in range(3):
            self.near.increment("others")

    def applied(self, op_id: str = "op") -> int:
        return len(self.near.log(op_id=op_id))

    def ends_well(self, answer: dict[str, Any]) -> None:
        """The answer was honest, and the same op_id applies exactly once."""
        if "result" in answer:
            assert self.applied() == 1
        elif answer["error"] != "IndeterminateCommitError":
            assert answer["error"] in ("StorageError", "StoreBusyError"), answer
            assert self.applied() == 0, "it said that nothing was written"
        else:
            assert "same op_id" in answer["message"]
        self.link.heal()
        retried = self.remote.asks("increment", "op")
        assert retried == {"result": 1}, retried
        assert self.remote.asks("increment", "op") == {"result": 1}
        assert (self.applied(), self.near["n"]) == (1, 1)
        assert self.remote.asks("increment", "next") == {"result": 2}
        self.others_go_on()
        assert self.near.admin.verify().problems == []

    def waiting(self) -> None:
        """Returns when the client waits for a lock on the server."""
        sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND client_addr = %s"
        deadline = time.monotonic() + SILENCE_S
        with psycopg.connect(self.url, autocommit=True) as connection:
            while connection.execute(sql, (FAR,)).fetchone() is None:
                assert time.monotonic() < deadline, "the client does not wait"

    def close(self) -> None:
        self.link.heal()
        self.remote.close()
        self.near.close()


@pytest.fixture
def scene(link: Link, distant: Server) -> Iterator[Scene]:
    scene = Scene(link, distant, f"postgresql://postgres@{NEAR}:5432/postgres")
    yield scene
    scene.close()


def test_a_link_that_holds_changes_nothing(scene: Scene) -> None:
    assert scene.remote.asks("increment", "op") == {"result": 1}
    scene.ends_well({"result": 1})


def test_a_link_cut_before_the_first_round_trip(scene: Scene) -> None:
    scene.remote.begin("op", "enter")
    scene.link.cut()
    scene.remote.tell("go")
    scene.others_go_on()
    answer = scene.remote.hears()
    assert answer["error"] == "StorageError", answer
    scene.ends_well(answer)


def test_a_link_cut_in_the_first_round_trip_when_the_server_has_the_request(scene: Scene) -> None:
    """It gets the lock when nobody is there any more to whom it could say so."""
    with raw(scene.url, scene.name) as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT 1 FROM store FOR UPDATE")
        scene.remote.tell("increment", "op", "none")
        scene.waiting()
        scene.link.cut()
        holder.execute("COMMIT")
        scene.others_go_on()
    answer = scene.remote.hears()
    assert answer["error"] == "StorageError", answer
    scene.ends_well(answer)


def test_a_link_cut_between_the_round_trips(scene: Scene) -> None:
    scene.remote.begin("op", "append")
    scene.link.cut()
    scene.remote.tell("go")
    scene.others_go_on()
    answer = scene.remote.hears()
    assert answer["error"] == "IndeterminateCommitError", answer
    assert scene.applied() == 0
    scene.ends_well(answer)


def test_a_link_cut_between_the_round_trips_and_healed_when_the_server_has_given_up(
    scene: Scene,
) -> None:
    """The client slept meanwhile: its COMMIT comes to a session that is no more."""
    scene.remote.begin("op", "append")
    scene.link.cut()
    scene.others_go_on()
    scene.link.heal()
    scene.remote.tell("go")
    answer = scene.remote.hears()
    assert scene.applied() == ("result" in answer)
    scene.ends_well(answer)


def test_a_link_cut_after_the_server_has_got_commit(scene: Scene) -> None:
    """It commits, and nobody hears it."""
    scene.remote.begin("op", "append")
    with raw(scene.url, scene.name) as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE entries IN SHARE MODE")
        scene.remote.tell("go")
        scene.waiting()
        scene.link.cut()
        holder.execute("COMMIT")
    scene.others_go_on()
    answer = scene.remote.hears()
    assert answer["error"] == "IndeterminateCommitError", answer
    assert scene.applied() == 1, "it was committed after all"
    scene.ends_well(answer)


def test_a_link_cut_after_commit_and_a_server_that_gets_the_answer_through_late(
    scene: Scene,
) -> None:
    """Healed before anybody has given up, so the answer comes."""
    scene.remote.begin("op", "append")
    with raw(scene.url, scene.name) as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE entries IN SHARE MODE")
        scene.remote.tell("go")
        scene.waiting()
        scene.link.cut()
        scene.link.heal()
        holder.execute("COMMIT")
    answer = scene.remote.hears()
    assert answer == {"result": 1}
    scene.ends_well(answer)


def test_a_link_cut_while_the_client_is_idle(scene: Scene) -> None:
    scene.link.cut()
    scene.others_go_on()
    answer = scene.remote.asks("get")
    assert answer["error"] == "StorageError"
    assert "cannot be reached" in answer["message"]
    answer = scene.remote.asks("increment", "op")
    assert answer["error"] == "StorageError"
    scene.ends_well(answer)
