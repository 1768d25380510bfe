"""A hundred tasks of one event loop beside threads: every addition is there, exactly once."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Final

import pytest

import agentmem

TASKS: Final = 100
THREADS: Final = 4
EACH: Final = 10
WAIT_S: Final = 120


async def add_by_transact(store: agentmem.AsyncStore, op_id: str) -> None:
    async def add(tx: agentmem.AsyncTransaction) -> None:
        seen = await tx.value("n")
        await asyncio.sleep(0)
        await tx.put("n", seen + 1)

    await store.transact(add, op_id=op_id, attempts=1_000)


async def add_by_update(store: agentmem.AsyncStore, op_id: str) -> None:
    async def add(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    await store.update("n", add, op_id=op_id)


async def add_by_increment(store: agentmem.AsyncStore, op_id: str) -> None:
    await store.increment("n", op_id=op_id)


WAYS: Final = (add_by_transact, add_by_update, add_by_increment)


def add_in_threads(target: str) -> list[threading.Thread]:
    def work() -> None:
        with agentmem.open(target, durability="relaxed", embedder=None) as store:
            for _time in range(EACH):
                store.update("n", lambda value: value + 1)

    threads = [threading.Thread(target=work, daemon=True) for _number in range(THREADS)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.stress
async def test_tasks_and_threads_lose_no_addition(target: str) -> None:
    async with agentmem.aopen(target, durability="relaxed", embedder=None) as store:
        await store.put("n", 0)
        threads = add_in_threads(target)
        await asyncio.gather(
            *(way(store, f"{way.__name__}-{number}") for number in range(TASKS) for way in WAYS)
        )
        for thread in threads:
            await asyncio.to_thread(thread.join, WAIT_S)
            assert not thread.is_alive()
        assert await store.value("n") == TASKS * len(WAYS) + THREADS * EACH
        assert (await store.admin.verify()).problems == []


@pytest.mark.stress
async def test_tasks_that_are_cancelled_again_and_again_add_once(target: str, seed: int) -> None:
    choice = random.Random(seed)
    cancelled = 0

    async def insist(store: agentmem.AsyncStore, number: int) -> None:
        nonlocal cancelled
        way, op_id = WAYS[number % len(WAYS)], str(number)
        for turns in (choice.randrange(0, 200) for _time in range(4)):
            task = asyncio.create_task(way(store, op_id))
            for _turn in range(turns):
                await asyncio.sleep(0)
            cancelled += task.cancel()
            await asyncio.wait({task})
        await way(store, op_id)

    async with agentmem.aopen(target, durability="relaxed", embedder=None) as store:
        await store.put("n", 0)
        await asyncio.gather(*(insist(store, number) for number in range(TASKS)))
        assert await store.value("n") == TASKS
        assert cancelled > TASKS, "hardly any call was cancelled"
        assert len(await store.log()) == TASKS + 1
        assert (await store.admin.verify()).problems == []
