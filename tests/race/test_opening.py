"""The first open of a store, by many at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import agentmem
from agentmem.testing.crew import Crew
from tests.race.workers import open_and_write

PROCESSES = 16
pytestmark = pytest.mark.stress


def assert_one_store(target: str, ids: list[str], writers: int) -> None:
    assert len(ids) == writers
    assert len(set(ids)) == 1, "they did not open one and the same store"
    with agentmem.open(target) as store:
        written = sorted(int(entry.key) for entry in store.list("workers"))
        assert written == list(range(writers))
        assert store.revision == writers
        assert store.admin.verify().problems == []


@pytest.mark.slow
def test_sixteen_processes_open_one_new_store_at_once(target: str) -> None:
    ids: list[str] = []
    crew = Crew(open_and_write, [(target, worker) for worker in range(PROCESSES)])
    crew.run(lambda _worker, store_id: ids.append(store_id))
    assert_one_store(target, ids, PROCESSES)


def test_sixteen_threads_open_one_new_store_at_once(target: str) -> None:
    found: list[Any] = []
    barrier = threading.Barrier(PROCESSES)

    def work(worker: int) -> None:
        try:
            open_and_write(found.append, barrier.wait, target, worker)
        except Exception as error:  # noqa: BLE001  # compared below
            found.append(error)

    threads: list[Any] = [
        threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(PROCESSES)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [error for error in found if isinstance(error, Exception)]
    assert_one_store(target, found, PROCESSES)


def test_opening_a_new_store_again_and_again_while_others_do(
    make_target: Callable[[str], str],
) -> None:
    for round_ in range(10):
        target, ids = make_target(f"new-{round_}"), []
        barrier = threading.Barrier(4)
        threads = [
            threading.Thread(target=open_and_write, args=(ids.append, barrier.wait, target, worker))
            for worker in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert_one_store(target, ids, 4)
