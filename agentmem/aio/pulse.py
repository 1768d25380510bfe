"""Tells the tasks of event loops that something was committed, by whatever process.

One thread asks the engine (see `agentmem.coordination.waking`), for all who wait, and only while
anybody does; who waits for a lease, a task or an event holds no thread. Nothing falls between::

    task                                   pulse
    -----------------------------------    ------------------------------
    notes the count, 7
    looks: the lease is not free
                                           sees a commit, counts 8, wakes all who wait
    would wait: the count is not 7
    looks again
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Final

from agentmem.coordination.waking import Waking
from agentmem.engines.base import Engine
from agentmem.errors import AgentMemError, ClosedError, ForkedStoreError

__all__ = ["Pulse"]

_LOOK_S: Final = 1.0  # between looks of the thread whether anybody still waits
_BROKEN_S: Final = 0.1  # before it asks again what could not be asked
_log = logging.getLogger("agentmem")


class Pulse:
    """The commits of a store, counted as they are noticed.

    Attributes:
        count: rises when something was committed, and sometimes without.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Condition(threading.Lock())  # protects the rest; held briefly
        self._waiting: set[asyncio.Future[None]] = set()
        self._runs = False
        self._closed = False

    async def wait(self, engine: Engine, seen: int, until: float) -> None:
        """Returns when the count is not `seen` any more, or at a moment of ``time.monotonic``.

        Args:
            seen: the count before the caller has looked.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self.count != seen or self._closed:
                return
            self._waiting.add(future)
            if self._runs:
                self._lock.notify_all()
            else:
                self._runs = True
                threading.Thread(
                    target=self._watch, args=(engine,), name="agentmem-pulse", daemon=True
                ).start()
        try:
            await woken(future, until - time.monotonic())
        finally:
            with self._lock:
                self._waiting.discard(future)

    def poke(self) -> None:
        """Lets everybody look."""
        with self._lock:
            self.count += 1
            waiting, self._waiting = self._waiting, set()
        for loop in {future.get_loop() for future in waiting}:
            mine = [future for future in waiting if future.get_loop() is loop]
            try:
                loop.call_soon_threadsafe(_wake, mine)
            except RuntimeError:
                # It was closed, and nobody waits in it.
                continue

    def close(self) -> None:
        """Lets everybody look, and nobody wait any more."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self.poke()

    def _watch(self, engine: Engine) -> None:
        while True:
            try:
                waking = Waking(engine, self._is_idle)
                # What was committed before this moment it will not notice.
                self.poke()
                while self._is_wanted():
                    if waking.wait(time.monotonic() + _LOOK_S):
                        self.poke()
                return
            except (ClosedError, ForkedStoreError):
                self.close()
                return
            except AgentMemError as error:
                # Who looks for itself meets the same error, and says so to its caller.
                _log.info("commits could not be watched, and are watched again: %s", error)
                self.poke()
                time.sleep(_BROKEN_S)

    def _is_idle(self) -> bool:
        return not self._waiting or self._closed

    def _is_wanted(self) -> bool:
        """Waits for somebody who waits; False, and the thread is to end: nobody came."""
        with self._lock:
            self._lock.wait_for(lambda: self._waiting or self._closed, _LOOK_S)
            self._runs = bool(self._waiting) and not self._closed
            return self._runs


async def woken(future: asyncio.Future[None], timeout_s: float) -> None:
    """Waits for a future that others make done, so long at most."""
    if timeout_s == float("inf"):
        await future
        return
    timer = future.get_loop().call_later(max(0.0, timeout_s), _wake, [future])
    try:
        await future
    finally:
        timer.cancel()


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
