"""A leader that is held back, so that a test decides what the next batch consists of."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import agentmem
from agentmem.engines.session import WriteSession
from agentmem.testing.crew import SILENCE_S

__all__ = ["Call", "Held"]

T = TypeVar("T")


class Call(Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, function: Callable[[], T], around: Any = None) -> None:
        self.result: T | None = None
        self.error: BaseException | None = None
        self._function = function
        self._around = around
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._around is None:
                self.result = self._function()
            else:
                with self._around:
                    self.result = self._function()
        except BaseException as error:  # noqa: BLE001  # it is what the test asks for
            self.error = error

    def ended(self, timeout_s: float = SILENCE_S) -> bool:
        """Waits for its end; False if it hangs."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


class _Watched(deque[Any]):
    """The queue of a store that tells of each arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Semaphore(0)

    def append(self, ticket: Any) -> None:
        super().append(ticket)
        self.arrived.release()


class Held:
    """Decides what the leader of a store finds in its queue.

    ::

        held = Held(store)
        with held.back():  # a commit has begun, and goes no further
            one = held.call(lambda: store.put("a", 1))  # returns when it is in the queue
            two = held.call(lambda: store.put("b", 2))
        held.join()  # the held commit was made alone, then these two in one batch

    Attributes:
        sessions: how many batches were begun.
        on_session: called with each new session of the engine.
    """

    def __init__(self, store: agentmem.Store) -> None:
        self.sessions = 0
        self.on_session: list[Callable[[WriteSession], None]] = []
        self._store = store
        self._calls: list[Call[Any]] = []
        # Of the core, because nothing public tells that a request waits.
        self._queue = store._core._committer._waiting = _Watched()
        self._make = store._core.engine.session
        store._core.engine.session = self._session  # type: ignore[method-assign]  # a fault on purpose

    def _session(self) -> WriteSession:
        self.sessions += 1
        session = self._make()
        if self.on_session:
            self.on_session.pop(0)(session)
        return session

    @contextmanager
    def back(self, key: str = "held") -> Iterator[None]:
        """Holds a commit that it makes itself, an increment of `key`, until the block ends."""
        begun, go_on = threading.Event(), threading.Event()

        def hold(_session: WriteSession) -> None:
            begun.set()
            go_on.wait(SILENCE_S)

        self.on_session.insert(0, hold)
        self.call(lambda: self._store.increment(key))
        assert begun.wait(SILENCE_S), "the commit to be held has not begun"
        try:
            yield
        finally:
            go_on.set()

    def call(self, function: Callable[[], T], around: Any = None) -> Call[T]:
        """Makes a call in a thread of its own; returns when its request is in the queue.

        Or when it has ended without one. ``around`` is a context manager for the thread.
        """
        while self._queue.arrived.acquire(blocking=False):
            pass
        call = Call(function, around)
        self._calls.append(call)
        call.start()
        deadline = time.monotonic() + SILENCE_S
        while not self._queue.arrived.acquire(timeout=0.01) and not call.ended(0):
            assert time.monotonic() < deadline, "the request has not come to the queue"
        return call

    def join(self, timeout_s: float = SILENCE_S) -> list[Call[Any]]:
        """Waits for all calls; returns those that hang."""
        deadline = time.monotonic() + timeout_s
        hanging = [
            call for call in self._calls if not call.ended(max(0.0, deadline - time.monotonic()))
        ]
        self._calls = []
        return hanging
