"""Courses: what waits or calls the caller's code, written once for threads and for event loops.

A course is a generator. What takes long for other reasons than the storage (a wait, a function of
the caller) it does not do, but yields, as an `Ask`; whoever drives it does that, and sends in what
came of it. `drive` does it by blocking its thread; ``agentmem.aio`` does it on the event loop, and
no thread waits::

    course                     drive (a thread)           aio (an event loop)
    -----------------------    -----------------------    ---------------------------------
    tries, is not next         runs it                    a worker runs it
    yields Pause(until)        sleeps                     a timer; the worker does other work
    tries again, returns       runs it                    another worker runs it

So a course runs in one thread from one ask to the next, but perhaps in another after it: it keeps
no lock over a yield that only the thread that took it can let go.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable, Generator
from types import FunctionType
from typing import Any, Protocol, TypeAlias, TypeVar

from agentmem.coordination.waking import Waking

__all__ = [
    "Acquire",
    "Ask",
    "Call",
    "Course",
    "NeededError",
    "Pause",
    "Sleep",
    "asked",
    "attempted",
    "drive",
    "is_async",
    "refuse_async",
]

T = TypeVar("T")


class Ask(Protocol):
    """What a course asks for."""

    def perform(self) -> Any:
        """Does it, blocking the thread; returns what is sent in."""


Course: TypeAlias = Generator[Ask, Any, T]
"""A generator of asks that returns a T."""


class Call:
    """A function of the caller, to be called; answered with what it returns."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def perform(self) -> Any:
        """See `Ask`."""
        return self.function(*self.arguments)


def asked(function: Callable[..., Any], *arguments: Any) -> Course[Any]:
    """The course that only makes a `Call`."""
    return (yield Call(function, *arguments))


class Pause:
    """A wait until something is committed, or for a moment of ``time.monotonic``."""

    __slots__ = ("until", "waking")

    def __init__(self, waking: Waking, until: float) -> None:
        self.waking = waking
        self.until = until

    def perform(self) -> None:
        """See `Ask`."""
        self.waking.wait(self.until)


class Sleep:
    """A wait for some seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def perform(self) -> None:
        """See `Ask`."""
        time.sleep(self.seconds)


class Acquire:
    """A wait for a lock that any thread may release; answered with whether it was had in time."""

    __slots__ = ("_had", "_lock", "timeout_s")

    def __init__(self, lock: threading.Lock, timeout_s: float) -> None:
        self._lock = lock
        self._had = False
        self.timeout_s = timeout_s

    def perform(self) -> bool:
        """See `Ask`."""
        return self.attempt(self.timeout_s)

    def attempt(self, timeout_s: float) -> bool:
        """Whether it was had within so many seconds; 0: now."""
        self._had = self._lock.acquire(timeout=timeout_s)
        return self._had

    def release(self) -> None:
        """Lets go of the lock, if it was had, also where the course never heard of it."""
        if self._had:
            self._had = False
            self._lock.release()


class NeededError(BaseException):
    """Something cannot be had in this thread: do what `ask` says, then call again.

    Nothing was committed. No `Exception`: nobody on the way is to take it for a failure.
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.ask = ask


def attempted(function: Callable[[], T]) -> Course[T]:
    """Calls a function of ours; what it needs is asked for, and it is called again."""
    while True:
        try:
            return function()
        except NeededError as needed:
            ask = needed.ask
        yield ask


def drive(course: Course[T]) -> T:
    """Runs a course in this thread, and returns its result."""
    try:
        ask = next(course)
        while True:
            try:
                answer = ask.perform()
            except BaseException as error:  # noqa: BLE001  # the course decides what it means
                ask = course.throw(error)
            else:
                ask = course.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # of a course of T
    finally:
        # An asynchronous exception can strike here, too: then it lets go of what it holds.
        course.close()


def is_async(function: object) -> bool:
    """Whether calling it makes a coroutine: ``async def``, also as ``__call__`` or in a partial."""
    if type(function) is FunctionType and not function.__dict__:
        # What `inspect` would say, which takes longer than all else about a course.
        return bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004  # asked whether it is async
    )


def refuse_async(function: object, called: str) -> None:
    """Raises `TypeError` for an ``async def`` function that a plain store is given."""
    if is_async(function):
        name = getattr(function, "__qualname__", type(function).__name__)
        raise TypeError(
            f"{name} is async; this store calls plain functions: use {called} of the store of "
            "await agentmem.aopen(...)"
        )
