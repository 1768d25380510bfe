"""Running what is written for threads, for tasks of an event loop.

A plain call runs in a worker. A course runs in workers from one ask to the next; what it asks for
is done here, by awaiting; a plain function of the caller, by a worker. No task that waits holds a
worker, so any number may wait for one that works.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Generic, ParamSpec, TypeVar

from agentmem.aio.hooks import Answers, HookAsk, answers_of_call
from agentmem.aio.pulse import Pulse, woken
from agentmem.aio.workers import Job, Workers
from agentmem.course import (
    Acquire,
    Ask,
    Call,
    Course,
    NeededError,
    Pause,
    Sleep,
    attempted,
    is_async,
)
from agentmem.errors import AgentMemError

__all__ = ["Runner"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_CLEANING_S: Final = 5.0
"""How long a cancelled call waits for what it has begun to be undone; then that goes on alone."""

_TRY_S: Final = 0.002  # between tries for a lock that a thread holds
_log = logging.getLogger("agentmem")


class _End(Generic[T]):
    """A course has returned."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


class _Raised:
    """A course has raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Runner:
    """What all views of one async store share."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.pulse = Pulse()
        # For the lane, of each event loop; its head tries.
        self._lines: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, deque[asyncio.Future[None]]
        ] = weakref.WeakKeyDictionary()
        self._cleaning: set[asyncio.Task[None]] = set()

    async def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Makes a plain call in a worker; see `Workers.run`."""
        try:
            return await self.workers.run(function, *args, **kwargs)
        except NeededError as needed:
            ask = needed.ask
        return await self.drive(_again(ask, functools.partial(function, *args, **kwargs)))

    async def drive(self, course: Course[T], undo: Callable[[T], object] | None = None) -> T:
        """Runs a course, and returns its result.

        Cancelled, it lets the course let go of what it holds.

        Args:
            undo: for a result that came when nobody waited for it any more.
        """
        answer: Any = None
        error: BaseException | None = None
        answers: Answers | None = None
        while True:
            seen = self.pulse.count
            job = self._begin(course, answer, error, answers)
            try:
                came = await job.future
            except asyncio.CancelledError:
                ended = self.workers.leave(job)
                await self._clean(self._left(job, ended, course, undo))
                raise
            if isinstance(came, _End):
                return came.value  # type: ignore[no-any-return]  # of a course of T
            if isinstance(came, _Raised):
                raise came.error
            answer = error = None
            try:
                answer = await self._perform(came, seen)
            except asyncio.CancelledError as cancelled:
                await self._clean(self._thrown(course, cancelled))
                raise
            except BaseException as raised:  # noqa: BLE001  # the course decides what it means
                error = raised
            if isinstance(came, HookAsk):
                answers = came.answers

    async def surely(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Makes a plain call in a worker that lets go of something, also if it is cancelled."""
        job = self.workers.submit(function, args, kwargs, ending=True)
        try:
            return await asyncio.shield(job.future)
        except asyncio.CancelledError:
            self.workers.keep(job)
            raise

    def later(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Makes a plain call in a worker, for which nobody waits."""
        with suppress(AgentMemError):
            self.workers.keep(self.workers.submit(function, args, kwargs, ending=True))

    async def finish(self, ending: Coroutine[Any, Any, None]) -> None:
        """Awaits an ending, which goes on if the task that awaits it is cancelled."""
        await asyncio.shield(self._keep(ending))

    def _keep(self, cleaning: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(cleaning)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)
        return task

    def _begin(
        self, course: Course[Any], answer: Any, error: BaseException | None, answers: Answers | None
    ) -> Job:
        context = None
        if answers is not None:
            context = contextvars.copy_context()
            context.run(answers_of_call.set, answers)
        try:
            return self.workers.submit(_advance, (course, answer, error), {}, context)
        except AgentMemError as refused:
            # It is being closed, and the course may have to let go of something.
            refusal = refused
        try:
            return self.workers.submit(_advance, (course, None, refusal), {}, ending=True)
        except AgentMemError:
            course.close()  # the storage is closed: what it would do fails at once
            raise

    # What courses ask for.

    async def _perform(self, ask: Ask, seen: int) -> Any:
        if isinstance(ask, Call):
            return await ask.function(*ask.arguments)
        if isinstance(ask, Pause):
            return await self.pulse.wait(ask.waking.engine, seen, ask.until)
        if isinstance(ask, Sleep):
            return await asyncio.sleep(ask.seconds)
        if isinstance(ask, HookAsk):
            return await ask.answer()
        assert isinstance(ask, Acquire), "there are no other asks"
        return await self._acquire(ask)

    async def _acquire(self, ask: Acquire) -> bool:
        """Waits in line for a lock; the first in line tries, and nobody blocks."""
        until = time.monotonic() + ask.timeout_s
        loop = asyncio.get_running_loop()
        line = self._lines.setdefault(loop, deque())
        turn: asyncio.Future[None] = loop.create_future()
        line.append(turn)
        try:
            while line[0] is not turn:
                await woken(turn, until - time.monotonic())
                if time.monotonic() >= until:
                    return False
            while not ask.attempt(0):
                if (left_s := until - time.monotonic()) <= 0:
                    return False
                await asyncio.sleep(min(left_s, _TRY_S))
            return True
        finally:
            line.remove(turn)
            if line and not line[0].done():
                line[0].set_result(None)

    # After a cancellation.

    async def _clean(self, cleaning: Coroutine[Any, Any, None]) -> None:
        await asyncio.wait({self._keep(cleaning)}, timeout=_CLEANING_S)

    async def _left(
        self,
        job: Job,
        ended: asyncio.Future[Any],
        course: Course[T],
        undo: Callable[[T], object] | None,
    ) -> None:
        """Brings a course to its end that was cancelled while it ran in a worker."""
        await asyncio.wait({ended})
        came = job.result
        if isinstance(came, _Raised):
            return
        if not isinstance(came, _End):
            await self._thrown(course, asyncio.CancelledError())
        elif undo is not None:
            try:
                await self.surely(undo, came.value)
            except AgentMemError:
                _log.warning("what a cancelled call had got was not given back", exc_info=True)

    async def _thrown(self, course: Course[Any], error: BaseException) -> None:
        try:
            came = await self.surely(_advance, course, None, error)
        except AgentMemError:
            course.close()
            return
        assert isinstance(came, _Raised), "a course that is cancelled asks for nothing more"

    async def close(self, close: Callable[[], object]) -> None:
        """Closes the store when what goes on has ended, then the workers."""
        self.pulse.close()
        await self.workers.idle(_CLEANING_S)
        if self._cleaning:
            await asyncio.wait(set(self._cleaning), timeout=_CLEANING_S)
        try:
            job = self.workers.submit(close, (), {}, ending=True)
        except AgentMemError:
            return  # another has closed it
        try:
            # Not `run`: it is to be closed even if this is cancelled.
            await asyncio.shield(job.future)
        finally:
            self.workers.close()


def _advance(course: Course[Any], answer: Any, error: BaseException | None) -> object:
    """Runs a course to what it asks of the event loop, or to its end; in a worker."""
    try:
        while True:
            ask = course.send(answer) if error is None else course.throw(error)
            if not isinstance(ask, Call) or is_async(ask.function):
                return ask
            answer = error = None
            try:
                answer = _plain(ask)
            except BaseException as raised:  # noqa: BLE001  # the course decides what it means
                error = raised
    except StopIteration as end:
        return _End(end.value)
    except BaseException as raised:  # noqa: BLE001  # raised in the task
        return _Raised(raised)


def _plain(ask: Call) -> Any:
    answer = ask.perform()
    if inspect.iscoroutine(answer):
        answer.close()
        name = getattr(ask.function, "__qualname__", repr(ask.function))
        raise TypeError(
            f"{name} is a plain function, so it runs in a worker, but it returned a coroutine; "
            "make it an async def function that awaits it"
        )
    return answer


def _again(ask: Ask, function: Callable[[], R]) -> Course[R]:
    yield ask
    return (yield from attempted(function))
