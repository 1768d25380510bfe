"""Async merge hooks: awaited by the task that commits, with nothing held meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import agentmem
from tests.contract.conftest import StoreMaker


async def moved(store: agentmem.AsyncStore, value: Any, *, key: str = "k") -> int:
    """A key at version 2, which others have made from version 1."""
    first = await store.put(key, [1], namespace="n")
    await store.put(key, value, namespace="n", expected_version=first.version)
    return first.version or 0


async def test_a_hook_may_use_the_store_though_it_has_one_worker(make_store: StoreMaker) -> None:
    async with agentmem.aopen(make_store.target(), max_workers=1, embedder=None) as store:
        loop = asyncio.get_running_loop()

        @store.merge_hook("n/**")
        async def union(conflict: agentmem.Conflict) -> list[int]:
            assert asyncio.get_running_loop() is loop
            await store.increment("asked")
            async with store.lease("hook", wait_s=60):
                await asyncio.sleep(0)
            return sorted({*conflict.theirs, *conflict.ours})

        keys = [f"k{number}" for number in range(8)]
        bases = [await moved(store, [1, 2], key=key) for key in keys]
        await asyncio.gather(
            *(
                store.put(key, [1, 3], namespace="n", expected_version=base)
                for key, base in zip(keys, bases, strict=True)
            )
        )
        for key in keys:
            entry = await store.get(key, namespace="n")
            assert entry is not None
            assert (entry.value, entry.version) == ([1, 2, 3], 3)
        assert await store.value("asked") == len(keys)


async def test_what_a_hook_raises_is_a_merge_error_and_unmergeable_a_conflict(
    astore: agentmem.AsyncStore,
) -> None:
    errors: list[Exception] = [ZeroDivisionError("bug"), agentmem.Unmergeable("no way")]

    @astore.merge_hook("n/**")
    async def fail(conflict: agentmem.Conflict) -> object:
        raise errors[0]

    base = await moved(astore, [1, 2])
    with pytest.raises(agentmem.MergeError) as raised:
        await astore.put("k", [3], namespace="n", expected_version=base)
    assert raised.value.__cause__ is errors.pop(0)
    with pytest.raises(agentmem.ConflictError, match="no way"):
        await astore.put("k", [3], namespace="n", expected_version=base)
    entry = await astore.get("k", namespace="n")
    assert entry is not None
    assert entry.value == [1, 2]


async def test_a_hook_is_asked_again_if_the_key_moves_while_it_thinks(
    astore: agentmem.AsyncStore,
) -> None:
    seen: list[Any] = []

    @astore.merge_hook("n/**")
    async def think(conflict: agentmem.Conflict) -> list[int]:
        seen.append(conflict.theirs)
        if len(seen) < 3:
            await astore.put("k", [*conflict.theirs, 9], namespace="n", overwrite=True)
        return [*conflict.theirs, *conflict.ours]

    base = await moved(astore, [2])
    entry = await astore.put("k", [3], namespace="n", expected_version=base)
    assert seen == [[2], [2, 9], [2, 9, 9]]
    assert entry.value == [2, 9, 9, 3]


async def test_a_key_that_always_moves_is_a_conflict_in_the_end(
    make_store: StoreMaker,
) -> None:
    limits = agentmem.Limits(max_merge_rounds=4)
    async with agentmem.aopen(make_store.target(), limits=limits, embedder=None) as store:
        asked: list[int] = []

        @store.merge_hook("n/**")
        async def slow(conflict: agentmem.Conflict) -> list[int]:
            asked.append(conflict.current_version)
            await store.put("k", [0], namespace="n", overwrite=True)
            return [1]

        base = await moved(store, [2])
        with pytest.raises(agentmem.ConflictError, match="moved 4 times"):
            await store.put("k", [3], namespace="n", expected_version=base)
        assert asked == [2, 3, 4, 5]


async def test_an_answer_is_for_one_value_of_ours(astore: agentmem.AsyncStore) -> None:
    ours: list[Any] = []

    @astore.merge_hook("n/**")
    async def keep_ours(conflict: agentmem.Conflict) -> Any:
        ours.append(conflict.ours)
        return conflict.ours

    base = await moved(astore, [2])
    await astore.put("other", 0)
    values = iter([[3], [4]])

    async def write(tx: agentmem.AsyncTransaction) -> None:
        await tx.value("other")
        await tx.put("k", next(values), namespace="n", expected_version=base)
        if not ours:
            await astore.increment("other")  # so that it is run again

    await astore.transact(write, merge=True)
    entry = await astore.get("k", namespace="n")
    assert entry is not None
    assert entry.value == ours[-1] == [4]


async def test_a_transaction_and_transact_merge_by_async_hooks(
    astore: agentmem.AsyncStore,
) -> None:
    @astore.merge_hook("n/**")
    async def union(conflict: agentmem.Conflict) -> list[int]:
        return sorted({*conflict.theirs, *conflict.ours})

    await astore.put("k", [0], namespace="n")
    async with astore.transaction() as tx:
        await tx.put("k", [1], namespace="n")
        await astore.put("k", [2], namespace="n", overwrite=True)

    async def write(tx: agentmem.AsyncTransaction) -> int:
        await tx.put("k", [3], namespace="n")
        await astore.put("k", [4], namespace="n", overwrite=True)
        return 7

    assert await astore.transact(write, merge=True) == 7
    entry = await astore.get("k", namespace="n")
    assert entry is not None
    assert entry.value == [3, 4]
    assert [each.status for each in await astore.audit.conflicts()] == ["merged", "merged"]


async def test_a_commit_cancelled_while_its_hook_thinks_wrote_nothing(
    astore: agentmem.AsyncStore,
) -> None:
    thinking = asyncio.Event()
    cancelled: list[bool] = []

    @astore.merge_hook("n/**")
    async def think(conflict: agentmem.Conflict) -> object:
        thinking.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    base = await moved(astore, [2])
    put = astore.put("k", [3], namespace="n", expected_version=base, op_id="op")
    task = asyncio.create_task(put)
    await thinking.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == [True]
    assert await astore.log(op_id="op") == []
    assert (await astore.put("k", [5], namespace="n", overwrite=True)).version == 3


# Async functions in transact.


async def test_an_async_function_is_run_again_on_a_conflict(astore: agentmem.AsyncStore) -> None:
    await astore.put("n", 0)
    runs: list[int] = []

    async def add(tx: agentmem.AsyncTransaction) -> int:
        seen = await tx.value("n")
        runs.append(seen)
        if len(runs) < 4:
            await astore.increment("n")
        await tx.put("n", seen + 10)
        return int(seen)

    assert await astore.transact(add, op_id="add") == 3
    assert await astore.transact(add, op_id="add") == 3
    assert runs == [0, 1, 2, 3]
    assert await astore.value("n") == 13
    assert {each.status for each in await astore.audit.conflicts()} == {"retried"}


async def test_attempts_end_and_errors_write_nothing(astore: agentmem.AsyncStore) -> None:
    await astore.put("n", 0)

    async def never(tx: agentmem.AsyncTransaction) -> None:
        await tx.put("n", await tx.value("n"))
        await astore.increment("n")

    with pytest.raises(agentmem.ConflictError, match="after 3 attempts"):
        await astore.transact(never, attempts=3)

    async def fail(tx: agentmem.AsyncTransaction) -> None:
        await tx.put("n", 99)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await astore.transact(fail)
    assert await astore.value("n") == 3


async def test_a_conflict_is_repaired_by_an_async_function(astore: agentmem.AsyncStore) -> None:
    await astore.put_many({"budget": 900, "plan": 0})
    runs: list[str] = []

    async def plan(tx: agentmem.AsyncTransaction) -> int:
        runs.append("plan")
        budget = await tx.value("budget")
        await tx.put("plan", budget)
        await astore.put("budget", 800, overwrite=True)
        return int(budget)

    async def judge(tx: agentmem.AsyncTransaction, conflicts: list[agentmem.Conflict]) -> None:
        runs.append("judge")
        await tx.put("plan", conflicts[0].theirs)
        await tx.rebase(accept=conflicts)

    assert await astore.transact(plan, repair=judge) == 900
    assert runs == ["plan", "judge"]
    assert await astore.value("plan") == 800


async def test_a_wait_that_times_out_leaves_the_line(astore: agentmem.AsyncStore) -> None:
    async with astore.lease("l"):
        waiting = asyncio.create_task(astore.lease("l", wait_s=600).acquire())
        while not (await astore.leases())[0].waiting:
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await waiting
        assert [each.waiting for each in await astore.leases()] == [0]
    assert await astore.leases() == []


async def test_a_feed_loses_no_event_when_waiting_is_cancelled(
    astore: agentmem.AsyncStore,
) -> None:
    async with astore.watch(since=0) as feed:
        for number in range(20):
            waiting = asyncio.create_task(feed.next())
            await asyncio.sleep(0)
            committing = asyncio.create_task(astore.put(f"k{number}", number))
            for _turn in range(number):
                await asyncio.sleep(0)
            waiting.cancel()
            await committing
            event = None
            try:
                event = await waiting
            except asyncio.CancelledError:
                event = await feed.next()
            assert event is not None
            assert event.revision == number + 1


async def test_what_is_reverted_is_merged_by_an_async_hook(astore: agentmem.AsyncStore) -> None:
    asked: list[list[int]] = []

    @astore.merge_hook("n/**")
    async def without(conflict: agentmem.Conflict) -> list[int]:
        asked.append(conflict.theirs)
        undone = set(conflict.base) - set(conflict.ours)
        return [each for each in conflict.theirs if each not in undone]

    await astore.put("k", [1], namespace="n")
    poisoned = await astore.put("k", [1, 666], namespace="n", overwrite=True)
    await astore.put("k", [1, 666, 3], namespace="n", overwrite=True)
    await astore.audit.revert_commit(poisoned.revision or 0)
    assert await astore.scoped("n").value("k") == [1, 3]
    assert asked == [[1, 666, 3]]


async def test_tasks_share_a_transaction(astore: agentmem.AsyncStore) -> None:
    async with astore.transaction() as tx:

        async def tool(number: int) -> None:
            await tx.put(f"k{number}", await tx.count("none"))
            await tx.increment("n")

        await asyncio.gather(*(tool(number) for number in range(20)))
        assert await astore.count() == 0
    assert await astore.count() == 21
    assert await astore.value("n") == 20
    with pytest.raises(agentmem.ClosedError):
        await tx.put("late", 1)
