"""The thread that removes what has expired, started and stopped as LangGraph's stores do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

__all__ = ["INTERVAL_MINUTES", "Sweeper"]

INTERVAL_MINUTES: Final = 5.0
_log: Final = logging.getLogger("agentmem")


class Sweeper:
    """Calls a function again and again, in one thread."""

    def __init__(self, sweep: Callable[[], int]) -> None:
        self._sweep = sweep
        self._lock = threading.Lock()  # protects _thread and _stop
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self, interval_minutes: float) -> Future[None]:
        """Starts the thread if it does not run; cancelling what is returned stops it."""
        future: Future[None] = Future()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._run,
                    args=(self._stop, interval_minutes * 60, future),
                    daemon=True,
                    name="agentmem-ttl-sweeper",
                )
                self._thread.start()
            stop = self._stop
        future.add_done_callback(lambda done: stop.set() if done.cancelled() else None)
        return future

    def stop(self, timeout_s: float | None = None) -> bool:
        """Ends the thread. Returns whether it has ended within that time."""
        with self._lock:
            thread = self._thread
            self._stop.set()
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def _run(self, stop: threading.Event, interval_s: float, future: Future[None]) -> None:
        while not stop.wait(interval_s):
            try:
                self._sweep()
            except Exception:  # noqa: BLE001  # whatever it is, the next turn tries again
                # The next turn may find the storage well again; until then nothing is lost.
                _log.exception("a sweep of expired items failed")
        if future.set_running_or_notify_cancel():
            future.set_result(None)
