"""A cancelled call was made or was not, holds nothing afterwards, and can be repeated.

Every call is cancelled at each of the jobs that it gives to a worker, in four ways::

    unbegun   in the queue: no worker has taken it
    begun     a worker has taken it, and goes on after the cancellation
    made      the worker is done, and its answer is on its way
    heard     the event loop has the answer, but the task has not gone on
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

import agentmem
from agentmem.aio.workers import Job
from tests.contract.conftest import StoreMaker

WAIT_S: Final = 60
MOST_JOBS: Final = 40
WAYS: Final = ("unbegun", "begun", "made", "heard")

Act = Callable[[agentmem.AsyncStore], Awaitable[object]]
Check = Callable[[agentmem.AsyncStore], Awaitable[object]]


class Canceller:
    """Cancels a task at the job of a number that it gives to the workers of a store."""

    def __init__(self, store: agentmem.AsyncStore, at: int, way: str) -> None:
        self.struck = False
        self._at = at
        self._way = way
        self._count = 0
        self._task: asyncio.Task[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._go_on = threading.Event()
        self._workers = store._runner.workers
        self._submit = self._workers.submit

    async def run(self, act: Awaitable[object]) -> bool:
        """Whether it was cancelled."""

        async def main() -> object:
            return await act

        self._workers.submit = self._watched  # type: ignore[method-assign]  # a fault on purpose
        self._task = asyncio.create_task(main())
        try:
            await asyncio.wait_for(asyncio.shield(self._task), WAIT_S)
        except asyncio.CancelledError:
            assert self._task.cancelled()
        finally:
            self._workers.submit = self._submit  # type: ignore[method-assign]  # it was
            self._go_on.set()
        assert self._task.cancelled() == self.struck, "a cancellation was lost"
        return self._task.cancelled()

    def _watched(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: contextvars.Context | None = None,
        *,
        ending: bool = False,
    ) -> Job:
        submit = functools.partial(self._submit, ending=ending)
        if asyncio.current_task() is not self._task:
            return submit(function, arguments, keywords, context)
        self._count += 1
        if self._count != self._at:
            return submit(function, arguments, keywords, context)
        self.struck = True
        assert self._task is not None
        if self._way == "unbegun":
            for _worker in range(self._workers._max_workers):
                self._submit(self._go_on.wait, (WAIT_S,), {})
            job = submit(function, arguments, keywords, context)
            self._task.cancel()
            self._soon(self._go_on.set)
            return job
        if self._way == "heard":
            job = submit(function, arguments, keywords, context)
            # Called before the task goes on: it was told first.
            job.future.add_done_callback(lambda _future: self._task and self._task.cancel())
            return job
        return submit(self._interrupted, (function, arguments, keywords), {}, context)

    def _interrupted(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:
        """In a worker: has the task cancelled before the call, or after it."""
        if self._way == "begun":
            self._cancel()
        try:
            return function(*arguments, **keywords)
        finally:
            if self._way == "made":
                self._cancel()

    def _cancel(self) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._loop.call_soon_threadsafe(self._soon, self._go_on.set)
        assert self._go_on.wait(WAIT_S)

    def _soon(self, callback: Callable[[], object], turns: int = 10) -> None:
        """Calls it when the task has heard of its cancellation."""
        if turns:
            self._loop.call_soon(self._soon, callback, turns - 1)
        else:
            callback()


async def settled(store: agentmem.AsyncStore) -> None:
    """Waits until what was cancelled has ended."""
    await store._runner.workers.settled(WAIT_S)
    if store._runner._cleaning:
        await asyncio.wait(set(store._runner._cleaning), timeout=WAIT_S)


# What is cancelled, and what must be so afterwards, whatever became of it.


async def increment(store: agentmem.AsyncStore) -> None:
    await store.increment("n", op_id="op")


async def update(store: agentmem.AsyncStore) -> None:
    async def change(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    await store.update("n", change, default=0, op_id="op")


async def block(store: agentmem.AsyncStore) -> None:
    async with store.transaction(op_id="op") as tx:
        if tx.applied is None:
            entry = await tx.get("n")
            await tx.put("n", 1 + (entry.value if entry else 0))


async def book(tx: agentmem.AsyncTransaction) -> None:
    entry = await tx.get("n")
    await tx.put("n", 1 + (entry.value if entry else 0))


async def transact(store: agentmem.AsyncStore) -> None:
    await store.transact(book, op_id="op")


async def locked(store: agentmem.AsyncStore) -> None:
    await store.transact(book, op_id="op", lock=["n", "m"])


async def counted_once(store: agentmem.AsyncStore) -> None:
    assert await store.value("n") == 1
    assert [entry.version for entry in await store.history("n")] == [1]
    assert await store.leases() == []


async def hold(store: agentmem.AsyncStore) -> None:
    async with store.lease("l", wait_s=5):
        await store.count()


async def no_lease(store: agentmem.AsyncStore) -> None:
    assert await store.leases() == []


async def pay(store: agentmem.AsyncStore) -> None:
    async def effect() -> int:
        await store.increment("paid")
        return 7

    assert await store.once("pay", effect) == 7


async def paid(store: agentmem.AsyncStore) -> None:
    assert await store.once("pay", lambda: 8) == 7
    assert await store.value("paid") in (1, 2)  # the effect is outside: it may have been repeated


async def consume(store: agentmem.AsyncStore) -> None:
    await store.queue("q").put("task", op_id="task")
    task = await store.queue("q").claim(wait_s=5)
    if task is not None:
        async with store.transaction(op_id="op") as tx:
            await tx.increment("n")
            await task.ack(tx)


async def consumed(store: agentmem.AsyncStore) -> None:
    queue = store.queue("q")
    while (task := await queue.claim()) is not None:  # else it is held by nobody, for a minute
        async with store.transaction(op_id="op") as tx:
            await tx.increment("n")
            await task.ack(tx)
    assert await queue.count() == 0
    assert await store.value("n") == 1


async def read_on(store: agentmem.AsyncStore) -> None:
    await store.put("a", 1, expected_version=0, op_id="a")
    await store.put("b", 1, expected_version=0, op_id="b")
    async with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        async for event in feed:
            await feed.ack(event)


async def read_all(store: agentmem.AsyncStore) -> None:
    last = (await store.log(limit=1))[0].revision
    assert [state.revision for state in await store.consumers()] == [last]
    assert await store.break_consumer("c") is None


ACTS: Final[list[tuple[Act, Check]]] = [
    (increment, counted_once),
    (update, counted_once),
    (block, counted_once),
    (transact, counted_once),
    (locked, counted_once),
    (hold, no_lease),
    (pay, paid),
    (read_on, read_all),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("act", "check"), ACTS, ids=lambda each: each.__name__)
async def test_a_call_cancelled_anywhere_can_be_repeated_and_then_was_made_once(
    astore: agentmem.AsyncStore, act: Act, check: Check, way: str
) -> None:
    for at in range(1, MOST_JOBS):
        part = astore.scoped(f"part-{at}")
        cancelled = await Canceller(astore, at, way).run(act(part))
        await settled(astore)
        if act is hold:
            await no_lease(part)  # nothing is repeated: the cancelled one must have let go
        await asyncio.wait_for(act(part), WAIT_S)
        await check(part)
        if not cancelled:
            break
    assert 1 < at < MOST_JOBS - 1, "it was not cancelled at every job"
    assert (await astore.admin.verify()).problems == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_task_is_not_lost_by_a_cancelled_claim(
    astore: agentmem.AsyncStore, way: str
) -> None:
    for at in range(1, MOST_JOBS):
        part = astore.scoped(f"part-{at}")
        cancelled = await Canceller(astore, at, way).run(consume(part))
        await settled(astore)
        await part.queue("q").put("task", op_id="task")
        # One that was claimed, and then cancelled, is its holder's until the claim ends.
        states = {task.id: task for task in await part.queue("q").peek()}
        for number, task in states.items():
            if task.state == "claimed" and task.token is not None:
                await (await part.queue("q").task(number, task.token)).nack()
        await consumed(part)
        if not cancelled:
            break
    assert 1 < at < MOST_JOBS - 1


async def test_what_no_worker_had_begun_is_never_done(astore: agentmem.AsyncStore) -> None:
    for act in (increment, block, transact):
        for at in range(1, MOST_JOBS):
            part = astore.scoped(f"{act.__name__}-{at}")
            if not await Canceller(astore, at, "unbegun").run(act(part)):
                break
            await settled(astore)
            assert await part.log(op_id="op") == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_claim_that_is_cancelled_gives_its_task_back(
    astore: agentmem.AsyncStore, way: str
) -> None:
    for at in range(1, MOST_JOBS):
        queue = astore.scoped(f"part-{at}").queue("q")
        await queue.put("task")
        if not await Canceller(astore, at, way).run(queue.claim(wait_s=5)):
            break
        await settled(astore)
        assert [task.state for task in await queue.peek()] == ["waiting"]
    assert 1 < at < MOST_JOBS - 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_lease_that_is_acquired_too_late_is_released(
    astore: agentmem.AsyncStore, way: str
) -> None:
    for at in range(1, MOST_JOBS):
        part = astore.scoped(f"part-{at}")
        lease = part.lease("l", wait_s=5)
        if not await Canceller(astore, at, way).run(lease.acquire()):
            break
        await settled(astore)
        assert await part.leases() == []
    assert 1 < at < MOST_JOBS - 1


async def test_a_store_that_is_opened_too_late_is_closed(
    make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[agentmem.Store] = []
    opening, go_on = threading.Event(), threading.Event()
    open_plain = agentmem.open

    def slow(*args: Any, **kwargs: Any) -> agentmem.Store:
        opened.append(open_plain(*args, **kwargs))
        opening.set()
        assert go_on.wait(WAIT_S)
        return opened[0]

    async def main() -> agentmem.AsyncStore:
        return await agentmem.aopen(make_store.target(), embedder=None)

    monkeypatch.setattr(agentmem, "open", slow)
    task = asyncio.create_task(main())
    await asyncio.to_thread(opening.wait, WAIT_S)
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(agentmem.ClosedError):
        opened[0].get("k")


async def test_an_event_is_not_lost_whenever_its_receiver_is_cancelled(
    astore: agentmem.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = astore._runner.workers
    submit = workers.submit
    turns = 0
    task: asyncio.Task[Any] | None = None

    def later(left: int) -> None:
        """Cancels it so many turns of the loop after its job was heard of."""
        if left:
            asyncio.get_running_loop().call_soon(later, left - 1)
        elif task is not None:
            task.cancel()

    def watched(*args: Any, **kwargs: Any) -> Job:
        job = submit(*args, **kwargs)
        if asyncio.current_task() is task:
            job.future.add_done_callback(lambda _future: later(turns))
        return job

    async def main(feed: agentmem.AsyncFeed) -> agentmem.Event | None:
        return await feed.next()

    monkeypatch.setattr(workers, "submit", watched)
    async with astore.watch(since=0) as feed:
        for turns in range(8):
            revision = (await astore.put("k", turns, overwrite=True)).revision
            task = asyncio.create_task(main(feed))
            await asyncio.wait({task})
            event = await feed.next() if task.cancelled() else task.result()
            task = None
            assert event is not None
            assert event.revision == revision
