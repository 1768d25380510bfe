"""A counter that many add to at once: every way to write, by processes, threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Final, Literal, get_args

import agentmem
from agentmem.testing.crew import Crew, Step

__all__ = ["KINDS", "WAYS", "check_counter", "count_up", "run_counter"]

Kind = Literal["processes", "threads", "tasks"]
Way = Literal["transact", "update", "increment", "merge"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
WAYS: Final[tuple[Way, ...]] = get_args(Way)

_COUNTER: Final = "n"


def count_up(store: agentmem.Store, way: Way) -> None:
    """Adds one to the counter. ``merge`` needs ``store.set_merge("n", "counter")``."""
    if way == "increment":
        store.increment(_COUNTER)
    elif way == "update":
        store.update(_COUNTER, lambda number: number + 1, default=0)
    elif way == "merge":
        entry = store.get(_COUNTER)
        before, version = (entry.value, entry.version) if entry is not None else (0, 0)
        store.put(_COUNTER, before + 1, expected_version=version)
    else:
        store.transact(_read_and_put)


def _read_and_put(tx: agentmem.Transaction) -> None:
    entry = tx.get(_COUNTER)
    tx.put(_COUNTER, (entry.value if entry is not None else 0) + 1)


def run_counter(
    target: str,
    way: Way,
    *,
    kind: Kind,
    workers: int,
    increments: int,
    durability: str = "relaxed",
    step: Step = lambda _done: None,
) -> None:
    """Counts up to `increments` by that many workers together; raises what a worker raises."""
    shares = [len(range(worker, increments, workers)) for worker in range(workers)]
    with agentmem.open(target, embedder=None, durability=durability) as store:
        if way == "merge":
            store.set_merge(_COUNTER, "counter")
        if kind == "threads":
            _in_threads([_counting(store, way, share) for share in shares])
            step(increments)
        elif kind == "tasks":
            asyncio.run(_in_tasks([_counting(store, way, share) for share in shares]))
            step(increments)
        else:
            Crew(_count_in_process, [(target, way, share, durability) for share in shares]).run(
                lambda _worker, done: step(done)
            )


def _counting(store: agentmem.Store, way: Way, times: int) -> Callable[[], None]:
    def work() -> None:
        for _time in range(times):
            count_up(store, way)

    return work


def _count_in_process(
    report: Callable[[int], None],
    begin: Callable[[], object],
    target: str,
    way: Way,
    times: int,
    durability: str,
) -> None:
    with agentmem.open(target, embedder=None, durability=durability) as store:
        begin()
        for _time in range(times):
            count_up(store, way)
            report(1)


def _in_threads(jobs: Sequence[Callable[[], None]]) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(jobs))

    def work(job: Callable[[], None]) -> None:
        try:
            barrier.wait()
            job()
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=work, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


async def _in_tasks(jobs: Sequence[Callable[[], None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(asyncio.to_thread(job))


def check_counter(target: str, increments: int) -> list[str]:
    """What is wrong with a counter that was counted up to `increments`; read from the log."""
    with agentmem.open(target, embedder=None) as store:
        problems = list(store.admin.verify().problems)
        history = store.history(_COUNTER)[::-1]
        if [entry.version for entry in history] != list(range(1, increments + 1)):
            problems.append(f"the versions are not 1 to {increments}: there are {len(history)}")
        # Each added one to the version before it, so a value equals its version.
        wrong = [entry for entry in history if entry.value != entry.version]
        problems += [f"version {entry.version} holds {entry.value}" for entry in wrong[:3]]
        revisions = [commit.revision for commit in store.log()]
        if revisions != list(range(increments, 0, -1)):
            problems.append(f"the revisions are not {increments} to 1: {len(revisions)} commits")
    return problems
