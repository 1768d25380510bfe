"""Opening a store for tasks of an event loop."""

from __future__ import annotations

import os
from typing import TypedDict, Unpack

import agentmem
from agentmem.aio.delegating import Opening
from agentmem.aio.runner import Runner
from agentmem.aio.store import AsyncStore
from agentmem.aio.workers import MAX_WORKERS, Workers, checked_workers
from agentmem.clock import Clock
from agentmem.course import attempted
from agentmem.limits import Limits
from agentmem.store import Store

__all__ = ["OpenOptions", "aopen"]


class OpenOptions(TypedDict, total=False):
    """What `agentmem.open` takes besides the target; see there."""

    embedder: object
    index: str
    durability: str
    agent: str | None
    blind_writes: str
    limits: Limits | None
    clock: Clock | None
    replica: str | None
    provenance: bool


def aopen(
    target: str | os.PathLike[str],
    *,
    max_workers: int = MAX_WORKERS,
    **options: Unpack[OpenOptions],
) -> Opening[AsyncStore]:
    """Opens a store for tasks of an event loop (asyncio); as `agentmem.open`.

    ::

        async with agentmem.aopen("team.db") as store:
            await store.put("plan", {"days": 3})

        store = await agentmem.aopen("team.db")  # to be closed: await store.close()

    Args:
        target: as `agentmem.open`.
        max_workers: how many threads make its calls, at the most. Tasks that wait for a lease, a
            task, an event or another's result hold none.
        options: those of `agentmem.open`.
    """
    checked_workers(max_workers)

    async def open() -> AsyncStore:
        workers = Workers(max_workers)
        runner = Runner(workers)
        course = attempted(lambda: agentmem.open(target, **options))
        try:
            return AsyncStore(runner, await runner.drive(course, Store.close))
        except Exception:
            # Not when it is cancelled: a store that was opened too late has to be closed first.
            workers.close()
            raise

    return Opening(open)
