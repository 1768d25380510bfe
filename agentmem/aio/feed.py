"""The feed as an async iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from agentmem.aio.delegating import Delegate, Opening, awaited, documented
from agentmem.aio.runner import Runner
from agentmem.coordination.events import Event
from agentmem.coordination.feed import Feed
from agentmem.errors import ClosedError
from agentmem.model import MISSING

__all__ = ["AsyncFeed", "Watching"]


class AsyncFeed(Delegate):
    """The commits of a view in order, as they come; see `Feed`.

    ::

        async with store.watch("team", consumer="planner") as feed:
            async for event in feed:
                async with store.transaction() as tx:
                    await tx.put("seen", event.revision)
                    await tx.ack(event)

    No event is lost if the task that waits for it is cancelled: the next to ask gets it.
    """

    __slots__ = ("_turn",)
    __module__ = "agentmem"
    _sync: Feed

    ack = awaited(Feed.ack)

    def __init__(self, runner: Runner, sync: Feed) -> None:
        super().__init__(runner, sync)
        self._turn = asyncio.Lock()  # one at a time reads on

    def __aiter__(self) -> AsyncFeed:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    @documented(Feed.next)
    async def next(self, timeout_s: object = MISSING) -> Event | None:
        coming = self._sync.coming(timeout_s)
        async with self._turn:
            if self._sync.is_ready:
                return self._sync.take()
            try:
                found = await self._runner.drive(coming)
            except ClosedError:
                return None  # the store was closed, which ends all that goes on
            # Taken here, where no cancellation can come between it and its receiver.
            return self._sync.take() if found else None

    def stop(self) -> None:
        """Ends the iteration. What is acknowledged stays so."""
        self._sync.stop()
        self._runner.pulse.poke()

    @documented(Feed.close)
    async def close(self) -> None:
        await self._runner.finish(self._end(self._sync.close))

    async def _end(self, end: Callable[..., object], *arguments: object) -> None:
        self.stop()
        async with self._turn:
            await self._runner.call(end, *arguments)

    async def __aenter__(self) -> AsyncFeed:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.finish(self._end(self._sync.__exit__, kind, error, traceback))


class Watching(Opening[AsyncFeed]):
    """A feed that has yet to be opened: ``await``, ``async with`` or ``async for`` opens it."""

    __slots__ = ()
    __module__ = "agentmem"

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in await self:
            yield event
