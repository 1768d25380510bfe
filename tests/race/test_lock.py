"""The lock between processes, asked for by several threads of one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agentmem import StoreBusyError
from agentmem.engines.sqlite.lock import FairLock

THREADS = 4
TURNS = 100
TIMEOUT_MS = 30_000


def test_one_thread_holds_it_at_a_time(tmp_path: Path) -> None:
    lock = FairLock(str(tmp_path / "team.db"))
    order: list[int] = []
    inside = 0
    begin = threading.Barrier(THREADS)

    def take(number: int) -> None:
        nonlocal inside
        begin.wait()
        for _turn in range(TURNS):
            lock.acquire(TIMEOUT_MS)
            inside += 1
            os.sched_yield()  # to whoever has come in, too
            assert inside == 1
            order.append(number)
            inside -= 1
            lock.release()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == THREADS * TURNS  # no thread has failed
    lock.close()


def test_who_could_not_have_it_lets_go_of_nothing(tmp_path: Path) -> None:
    lock, other = (FairLock(str(tmp_path / "team.db")) for _each in range(2))
    lock.acquire(TIMEOUT_MS)

    def try_in_vain() -> None:
        with pytest.raises(StoreBusyError):
            lock.acquire(0)
        lock.release()

    thread = threading.Thread(target=try_in_vain)
    thread.start()
    thread.join()
    with pytest.raises(StoreBusyError):
        other.acquire(0)
    lock.release()
    other.acquire(0)
    other.release()
    lock.acquire(0)
    for each in (lock, other):
        each.close()
