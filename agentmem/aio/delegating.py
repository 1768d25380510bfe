"""How an async class gets its calls from the plain one: named once, typed and documented by it.

::

    class AsyncAudit(Delegate):
        blame = awaited(Audit.blame)

``await audit.blame("plan")`` then takes the arguments of `Audit.blame`, returns its result, raises
its errors, and shows its signature and documentation; type checkers see it so, too.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar

from agentmem.aio.runner import Runner
from agentmem.course import Course

__all__ = ["Delegate", "Opening", "awaited", "documented", "driven", "iterated", "made", "opened"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
A = TypeVar("A", bound="Entered")
D = TypeVar("D", bound="Delegate")
F = TypeVar("F", bound=Callable[..., Any])

_PAGE: Final = 100  # of an iterator, fetched by one call of a worker


class Delegate:
    """The async face of a plain object."""

    __slots__ = ("_runner", "_sync")

    def __init__(self, runner: Runner, sync: Any) -> None:
        self._runner = runner
        self._sync = sync

    def __repr__(self) -> str:
        return f"Async{self._sync!r}"


class Entered(Protocol):
    """What can be entered by ``async with``."""

    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Opening(Generic[A]):
    """Something that has yet to be opened: ``await`` it, or enter it by ``async with``."""

    __slots__ = ("_open", "_opened")

    def __init__(self, open: Callable[[], Coroutine[Any, Any, A]]) -> None:
        self._open = open
        self._opened: A | None = None

    def __await__(self) -> Generator[Any, None, A]:
        return self._open().__await__()

    async def __aenter__(self) -> A:
        self._opened = await self._open()
        await self._opened.__aenter__()
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._opened is not None, "it was entered"
        await self._opened.__aexit__(kind, error, traceback)


def awaited(
    function: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """A plain method, made by a worker."""

    @functools.wraps(function)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await self._runner.call(function, self._sync, *args, **kwargs)
        return result

    return call


def driven(
    course: Callable[Concatenate[S, P], Course[R]],
    like: Callable[..., Any],
    undo: Callable[[R], object] | None = None,
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """A method that is a course: it waits on the event loop.

    Args:
        like: the plain method, for its name and documentation.
        undo: see `Runner.drive`.
    """

    @functools.wraps(like)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await self._runner.drive(course(self._sync, *args, **kwargs), undo)
        return result

    return call


def made(
    function: Callable[Concatenate[S, P], R], kind: Callable[[Runner, R], D]
) -> Callable[Concatenate[Any, P], D]:
    """A plain method that asks nothing of the storage: called at once, its result made async."""

    @functools.wraps(function)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> D:
        return kind(self._runner, function(self._sync, *args, **kwargs))

    return call


def opened(
    function: Callable[Concatenate[S, P], R], kind: Callable[[Runner, R], A]
) -> Callable[Concatenate[Any, P], Opening[A]]:
    """A plain method whose result can be entered: to be awaited, or entered by ``async with``."""

    @functools.wraps(function)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Opening[A]:
        async def open() -> A:
            return kind(
                self._runner, await self._runner.call(function, self._sync, *args, **kwargs)
            )

        return Opening(open)

    return call


def iterated(
    function: Callable[Concatenate[S, P], Iterator[R]],
) -> Callable[Concatenate[Any, P], AsyncIterator[R]]:
    """A plain method that returns an iterator, for ``async for``; read in pages."""

    @functools.wraps(function)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        found: Iterator[R] = await self._runner.call(function, self._sync, *args, **kwargs)
        while page := await self._runner.call(list, islice(found, _PAGE)):
            for each in page:
                yield each

    return call


def documented(like: Callable[..., Any]) -> Callable[[F], F]:
    """Gives a method the documentation of the plain one."""

    def document(method: F) -> F:
        method.__doc__ = like.__doc__
        return method

    return document
