"""Async stores: how many threads they have, when these end, and that nobody who waits holds one."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
from agentmem import course
from agentmem.aio.runner import Runner
from tests.contract.conftest import StoreMaker

WAIT_S: Final = 60


def threads_of(prefix: str = "agentmem-") -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(prefix)]


async def all_end(threads: list[threading.Thread]) -> None:
    for thread in threads:
        await asyncio.to_thread(thread.join, WAIT_S)
        assert not thread.is_alive()


async def test_threads_are_as_few_as_promised_and_end_with_the_store(
    make_store: StoreMaker,
) -> None:
    async with agentmem.aopen(make_store.target(), max_workers=3, embedder=None) as store:
        await asyncio.gather(*(store.increment("n") for _number in range(100)))
        assert len(threads_of("agentmem-worker")) == 3
        workers = threads_of()
        assert all(each.daemon for each in workers)
        assert await store.value("n") == 100
    await all_end(workers)
    assert threads_of() == []


async def test_one_task_has_one_worker(make_store: StoreMaker) -> None:
    async with agentmem.aopen(make_store.target(), embedder=None) as store:
        for _time in range(20):
            await store.increment("n")
        assert len(threads_of("agentmem-worker")) == 1


async def test_a_store_that_is_dropped_ends_its_threads(make_store: StoreMaker) -> None:
    store = await agentmem.aopen(make_store.target(), embedder=None)
    await store.put("k", 1)
    workers = threads_of("agentmem-worker")
    assert workers
    del store
    gc.collect()
    await all_end(workers)


@pytest.mark.parametrize("number", [0, -1, 100_000])
def test_a_senseless_number_of_workers_is_refused(number: int) -> None:
    with pytest.raises(agentmem.InvalidValueError, match="max_workers"):
        agentmem.aopen(":memory:", max_workers=number)
    with pytest.raises(TypeError, match="max_workers"):
        agentmem.aopen(":memory:", max_workers="3")  # type: ignore[arg-type]  # that is the point


async def test_opening_fails_as_the_plain_one_and_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no store at all, but long enough for a header" * 10)
    with pytest.raises(agentmem.CorruptionError):
        await agentmem.aopen(tmp_path / "text.db", embedder=None)
    with pytest.raises(TypeError):
        await agentmem.aopen(tmp_path / "new.db", embbeder=None)  # type: ignore[call-arg]  # that is the point
    gc.collect()
    await all_end(threads_of())


async def test_after_closing_every_call_says_so(make_store: StoreMaker) -> None:
    store = await agentmem.aopen(make_store.target(), embedder=None)
    scoped, snapshot, lease = store.scoped("team"), await store.snapshot(), store.lease("l")
    await store.close()
    await store.close()
    for call in (store.put("k", 1), scoped.get("k"), snapshot.count(), lease.acquire()):
        with pytest.raises(agentmem.ClosedError):
            await call
    with pytest.raises(agentmem.ClosedError):
        await store.transact(lambda tx: tx.count())


async def test_closing_ends_those_who_wait(astore: agentmem.AsyncStore) -> None:
    held = astore.lease("l")
    await held.acquire()
    waiting = asyncio.create_task(astore.lease("l", wait_s=600).acquire())
    claiming = asyncio.create_task(astore.queue("q").claim(wait_s=600))
    feed = await astore.watch()
    watching = asyncio.create_task(feed.next())
    while not (await astore.leases())[0].waiting:
        await asyncio.sleep(0)
    await astore.close()
    for task in (waiting, claiming):
        with pytest.raises(agentmem.ClosedError):
            await asyncio.wait_for(task, WAIT_S)
    assert await asyncio.wait_for(watching, WAIT_S) is None


async def _opened(target: str) -> agentmem.AsyncStore:
    return await agentmem.aopen(target, embedder=None)


def test_a_store_outlives_its_event_loop(make_store: StoreMaker) -> None:
    async def open_and_leave() -> agentmem.AsyncStore:
        store = await _opened(make_store.target())
        await store.increment("n")
        # Not awaited: its loop is closed before, perhaps, it has ended.
        asyncio.create_task(store.increment("n", op_id="left"))  # noqa: RUF006  # the same
        await asyncio.sleep(0)
        return store

    async def use(store: agentmem.AsyncStore) -> Any:
        async with store:
            await store.increment("n", op_id="left")
            async with store.lease("l"):
                return await store.value("n")

    store = asyncio.run(open_and_leave())
    assert asyncio.run(use(store)) == 2


def test_event_loops_may_share_a_store(make_store: StoreMaker) -> None:
    store = asyncio.run(_opened(make_store.target()))

    async def add() -> None:
        await asyncio.gather(*(store.update("n", lambda n: n + 1, default=0) for _ in range(20)))
        async with store.lease("l", wait_s=WAIT_S):
            await store.increment("m")

    threads = [threading.Thread(target=lambda: asyncio.run(add())) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()

    async def end() -> tuple[int, int]:
        async with store:
            return await store.value("n"), await store.value("m")

    assert asyncio.run(end()) == (60, 3)


def test_a_forked_child_is_told_to_open_anew(tmp_path: Path) -> None:
    script = """
        import agentmem, asyncio, os, sys
        async def main():
            async with agentmem.aopen(sys.argv[1], embedder=None) as store:
                await store.put("k", 1)
                pid = os.fork()
                if pid == 0:
                    try:
                        store.get("k").send(None)
                    except agentmem.ForkedStoreError as error:
                        os._exit(0 if "aopen" in str(error) else 3)
                    os._exit(4)
                assert os.waitpid(pid, 0)[1] == 0
                assert await store.value("k") == 1
        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "forked.db")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


# Who waits holds no worker.


async def test_any_number_may_wait_and_work_goes_on(astore: agentmem.AsyncStore) -> None:
    inside = held = 0

    async def hold() -> None:
        nonlocal inside, held
        async with astore.lease("l", wait_s=WAIT_S):
            inside += 1
            assert inside == 1
            await astore.increment("held")
            inside -= 1
        held += 1

    first = astore.lease("l")
    await first.acquire()
    holding = [asyncio.create_task(hold()) for _number in range(40)]
    queue = astore.queue("q")
    claiming = [asyncio.create_task(queue.claim(wait_s=WAIT_S)) for _number in range(40)]
    feeds = [await astore.watch(since=0) for _number in range(10)]
    watching = [asyncio.create_task(feed.next()) for feed in feeds]
    asked = asyncio.Event()

    async def slow() -> int:
        await asked.wait()
        return 7

    asking = [asyncio.create_task(astore.once("slow", slow)) for _number in range(10)]
    while (await astore.leases())[0].waiting < 40:
        await asyncio.sleep(0)
    # All of them wait, with two workers, and everybody else goes on.
    assert (await astore.increment("n")).value == 1
    events = await asyncio.wait_for(asyncio.gather(*watching), WAIT_S)
    assert [event.revision for event in events if event] == [1] * 10
    for number in range(40):
        await queue.put(number)
    tasks = await asyncio.wait_for(asyncio.gather(*claiming), WAIT_S)
    assert sorted(task.payload for task in tasks if task) == list(range(40))
    asked.set()
    assert await asyncio.wait_for(asyncio.gather(*asking), WAIT_S) == [7] * 10
    await first.release()
    await asyncio.wait_for(asyncio.gather(*holding), WAIT_S)
    assert held == await astore.value("held") == 40


async def test_one_worker_is_enough_for_all_of_it(make_store: StoreMaker) -> None:
    async with agentmem.aopen(make_store.target(), max_workers=1, embedder=None) as store:

        async def book(tx: agentmem.AsyncTransaction) -> None:
            seats = await tx.value("seats")
            await store.get("seats")
            await tx.put("seats", seats - 1)

        await store.put("seats", 30)
        await asyncio.gather(*(store.transact(book, lock=["seats"]) for _number in range(20)))
        await asyncio.gather(*(store.transact(book, attempts=500) for _number in range(10)))
        assert await store.value("seats") == 0


async def test_no_thread_ever_waits_for_what_others_do(
    astore: agentmem.AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def block(_ask: object) -> None:
        raise AssertionError("a thread would have waited")

    for ask in (course.Acquire, course.Pause, course.Sleep):
        monkeypatch.setattr(ask, "perform", block)
    await astore.put("n", 0)
    awaited: list[str] = []
    perform = Runner._perform

    async def note(runner: Runner, ask: Any, seen: int) -> Any:
        awaited.append(type(ask).__name__)
        return await perform(runner, ask, seen)

    monkeypatch.setattr(Runner, "_perform", note)

    async def add(tx: agentmem.AsyncTransaction) -> None:
        await tx.put("n", 1 + await tx.value("n"))

    await asyncio.gather(*(astore.transact(add, attempts=500) for _number in range(20)))
    await asyncio.gather(*(astore.transact(add, lock=["n"]) for _number in range(5)))
    assert await astore.value("n") == 25
    assert {"Acquire", "Pause", "Call"} <= set(awaited)
