"""Closing a store that other threads are using: they finish or are told, and the process lives."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
from agentmem.engines.sqlite import closing
from agentmem.testing.crew import SILENCE_S
from agentmem.testing.held import Call

_ROUNDS: Final = 25

# Four threads go on until they are told that the store was closed, at some moment of their work.
_WORK: Final = """
import random, sys, threading, time
import agentmem

folder, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
sys.setswitchinterval(1e-5)
for number in range(rounds):
    store = agentmem.open(f"{folder}/{number}.db", durability="relaxed", embedder=None)
    store.put_many({f"k{each}": {"text": "x" * 50} for each in range(50)})
    together = threading.Barrier(5)

    def work(agent):
        together.wait()
        try:
            while True:
                store.list() if agent % 2 else store.increment(f"n{agent}")
        except agentmem.ClosedError:
            told.append(agent)

    told = []
    threads = [threading.Thread(target=work, args=(agent,)) for agent in range(4)]
    for thread in threads:
        thread.start()
    together.wait()
    time.sleep(chance.random() / 100)  # no order is waited for: any moment is a good one
    store.close()
    for thread in threads:
        thread.join()
    assert sorted(told) == [0, 1, 2, 3], told
"""


@pytest.mark.stress
def test_a_store_closed_under_its_users_tells_them_and_the_process_lives(
    tmp_path: Path, seed: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WORK, str(tmp_path), str(seed), str(_ROUNDS)],
        capture_output=True,
        text=True,
        timeout=SILENCE_S * 4,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]


class Inside:
    """A thread that is held inside of SQLite's connection, until it is let go."""

    def __init__(self, store: agentmem.Store) -> None:
        self._connections = store._core.engine._connections  # type: ignore[attr-defined]  # of this engine
        self._entered = threading.Event()
        self._go_on = threading.Event()
        self._read: Call[Any] = Call(lambda: store._core.engine._read(self._query))  # type: ignore[attr-defined]  # as above
        self._read.start()
        assert self._entered.wait(SILENCE_S)

    def _query(self, connection: Any) -> int:
        self._entered.set()
        assert self._go_on.wait(SILENCE_S)
        return int(connection.execute("SELECT max(revision) FROM commits").fetchone()[0])

    def until_refused(self) -> None:
        """Returns once the store takes no call any more."""
        while not self._connections.closed:
            os.sched_yield()

    def let_go(self) -> Any:
        """Ends the read; returns what it found."""
        self._go_on.set()
        assert self._read.ended()
        assert self._read.error is None, self._read.error
        return self._read.result


def _open_files(path: Path) -> list[str]:
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{each}"))
        except FileNotFoundError:
            continue
    return [each for each in found if each.startswith(str(path))]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[agentmem.Store]:
    opened = agentmem.open(tmp_path / "team.db", durability="relaxed", embedder=None)
    opened.put("plan", 1)
    yield opened
    opened.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are looked up in /proc")
def test_close_waits_for_what_another_thread_has_begun(
    store: agentmem.Store, tmp_path: Path
) -> None:
    inside = Inside(store)
    closes: Call[None] = Call(store.close)
    closes.start()
    inside.until_refused()
    with pytest.raises(agentmem.ClosedError):
        store.get("plan")
    assert not closes.ended(timeout_s=0.2)
    assert inside.let_go() == 1
    assert closes.ended()
    assert _open_files(tmp_path) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are looked up in /proc")
def test_whoever_is_last_closes_the_rest_if_close_has_waited_in_vain(
    store: agentmem.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_PATIENCE_S", 0.0)
    inside = Inside(store)
    store.close()
    assert _open_files(tmp_path) != []
    assert inside.let_go() == 1
    assert _open_files(tmp_path) == []


def test_a_store_may_be_closed_twice_and_by_many(store: agentmem.Store) -> None:
    calls: list[Call[None]] = [Call(store.close) for _each in range(4)]
    for call in calls:
        call.start()
    assert all(call.ended() and call.error is None for call in calls)
    store.close()
    with pytest.raises(agentmem.ClosedError):
        store.put("plan", 2)
