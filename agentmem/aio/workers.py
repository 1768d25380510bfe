"""The threads in which an event loop's calls block: few, named, and gone when the store is closed.

A job goes to whichever thread is idle. What came of it goes back in a heap: a thread that ends one
wakes the loop only if nobody has, so a busy loop is woken once for many of them (measured: 1.3 to 2
times the rate of ``loop.run_in_executor``, which wakes it for each).
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from agentmem.callers import called_from, caller
from agentmem.errors import ClosedError, ForkedStoreError, InvalidValueError

__all__ = ["MAX_WORKERS", "Job", "Workers", "checked_workers"]

P = ParamSpec("P")
R = TypeVar("R")

MAX_WORKERS: Final = 16
"""How many threads an async store has at the most, unless it was opened with another number."""

_MOST_WORKERS: Final = 1_000
_LOOK_S: Final = 0.005


class Job:
    """A call that a worker makes.

    Attributes:
        future: of the event loop that waits for it.
        begun: whether a worker has taken it.
        ended: whether it was made, or never will be.
        caller: whose line it is.
        settled: whether the loop has heard that it has ended.
        withdrawn: no worker is to begin it any more.
    """

    __slots__ = (
        "arguments", "begun", "caller", "context", "ended", "error", "function", "future",
        "keywords", "outbox", "result", "settled", "withdrawn",
    )  # fmt: skip

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: contextvars.Context,
        outbox: _Outbox,
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.keywords = keywords
        self.context = context
        self.outbox = outbox
        self.future: asyncio.Future[Any] = outbox.loop.create_future()
        self.caller = caller()
        self.begun = self.ended = self.settled = self.withdrawn = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Makes the call, unless it was withdrawn; in a worker."""
        if not self.withdrawn:
            self.begun = True
            self.context.run(self._call)
        self.ended = True

    def _call(self) -> None:
        called_from.set(self.caller)
        try:
            self.result = self.function(*self.arguments, **self.keywords)
        except StopIteration as error:
            # No future can hold it.
            self.error = RuntimeError("the function raised StopIteration")
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001  # raised where it is awaited
            self.error = error

    def settle(self) -> None:
        """Tells who waits, if anybody still does; in the event loop."""
        self.settled = True
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Load:
    """How many jobs there are, and threads for them."""

    __slots__ = ("closed", "closing", "jobs", "lock", "threads")

    def __init__(self) -> None:
        self.lock = threading.Lock()  # protects the rest; held for a few instructions
        self.jobs = 0
        self.threads = 0
        self.closing = False  # only what ends something is taken
        self.closed = False


class _Outbox:
    """The jobs that have ended, for one event loop."""

    __slots__ = ("_ended", "_load", "_woken", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, load: _Load) -> None:
        self.loop = loop
        self._load = load
        self._ended: deque[Job] = deque()
        self._woken = False

    def put(self, job: Job) -> None:
        """Hands a job back; in a worker."""
        self._ended.append(job)
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._empty)
            except RuntimeError:
                # The loop was closed: nobody waits for any of them.
                self._count(len(self._ended))
                self._ended.clear()

    def _empty(self) -> None:
        # First: what is put from here on wakes the loop again.
        self._woken = False
        ended = self._ended
        count = 0
        while ended:
            ended.popleft().settle()
            count += 1
        self._count(count)

    def _count(self, ended: int) -> None:
        with self._load.lock:
            self._load.jobs -= ended


def checked_workers(max_workers: object) -> int:
    """A number of threads.

    Raises:
        InvalidValueError: there can be no so many.
    """
    if isinstance(max_workers, bool) or not isinstance(max_workers, int):
        raise TypeError(f"max_workers is an int, not {type(max_workers).__name__}")
    if not 1 <= max_workers <= _MOST_WORKERS:
        raise InvalidValueError(
            f"max_workers is {max_workers}; it is at least 1 and at most {_MOST_WORKERS}"
        )
    return max_workers


class Workers:
    """A bounded number of threads, begun when they are needed. For any number of event loops."""

    def __init__(self, max_workers: int = MAX_WORKERS) -> None:
        self._max_workers = checked_workers(max_workers)
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._load = _Load()
        self._outboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Outbox] = (
            weakref.WeakKeyDictionary()
        )
        self._left: set[Job] = set()  # cancelled after they had begun
        self._pid = os.getpid()
        # Threads know the queue, not this: a store that is dropped without being closed ends them.
        weakref.finalize(self, _dismiss, self._queue, self._load)

    def submit(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: contextvars.Context | None = None,
        *,
        ending: bool = False,
    ) -> Job:
        """Has a call made in a worker, in a copy of the caller's context.

        Args:
            ending: it lets go of something, so it is made while the store is being closed, too.

        Raises:
            ClosedError: the store was closed.
            ForkedStoreError: the threads are those of a parent process.
        """
        # First: after a fork no loop is running.
        if self._pid != os.getpid():
            raise ForkedStoreError(
                "the store was opened before this process was forked; "
                "call agentmem.aopen() again in the child"
            )
        loop = asyncio.get_running_loop()
        load = self._load
        outbox = self._outboxes.get(loop)
        if outbox is None:
            outbox = self._outboxes[loop] = _Outbox(loop, load)
        job = Job(function, arguments, keywords, context or contextvars.copy_context(), outbox)
        with load.lock:
            if load.closed or (load.closing and not ending):
                raise ClosedError("the store was closed; open it again with agentmem.aopen()")
            load.jobs += 1
            grows = load.jobs > load.threads and load.threads < self._max_workers
            load.threads += grows
            self._queue.put(job)
        if grows:
            name = f"agentmem-worker-{load.threads}"
            threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True).start()
        return job

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Makes a call in a worker, and returns what it returns.

        Cancelled before a worker has begun it, it is not made at all. After that, it goes on, and
        nobody hears what became of it.
        """
        job = self.submit(function, args, kwargs)
        try:
            return await job.future  # type: ignore[no-any-return]  # of this function
        except asyncio.CancelledError:
            self.leave(job)
            raise

    def leave(self, job: Job) -> asyncio.Future[Any]:
        """Nobody waits for a job any more: it is not begun, or ends unheard.

        Returns: a future that is done when it has ended, or will never begin.
        """
        job.withdrawn = True
        ended = job.future
        if ended.cancelled():
            ended = job.future = job.outbox.loop.create_future()
            if job.settled:  # between the cancellation and now
                ended.set_result(None)
        self.keep(job)
        return ended

    def keep(self, job: Job) -> None:
        """Notes that a job goes on though nobody hears of it; `settled` waits for it."""
        self._left.add(job)

        def forget(future: asyncio.Future[Any]) -> None:
            self._left.discard(job)
            if not future.cancelled():
                future.exception()  # heard of, so that nobody is warned of it

        job.future.add_done_callback(forget)

    async def settled(self, timeout_s: float) -> None:
        """Waits until what nobody waits for any more has ended, or so long."""
        until = time.monotonic() + timeout_s
        # Not by their futures: the loop that has left them may be closed.
        while any(not job.ended for job in self._left) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
        self._left.clear()

    async def idle(self, timeout_s: float) -> None:
        """Refuses what begins something; returns when all jobs have ended, or after so long."""
        with self._load.lock:
            self._load.closing = True
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)  # first: those who are told of it may have to let go
            if not self._load.jobs:
                break

    def close(self) -> None:
        """Takes no more jobs; the threads end after those that were taken. May be called again."""
        _dismiss(self._queue, self._load)


def _work(queue: SimpleQueue[Job | None]) -> None:
    while (job := queue.get()) is not None:
        job.run()
        job.outbox.put(job)
        # Else it would live, with all that it holds, until the next one comes.
        del job


def _dismiss(queue: SimpleQueue[Job | None], load: _Load) -> None:
    with load.lock:
        if load.closed:
            return
        load.closed = True
        for _thread in range(load.threads):
            queue.put(None)
