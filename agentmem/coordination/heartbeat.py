"""A thread that says again and again that its process is alive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agentmem.errors import AgentMemError, ClosedError, ForkedStoreError, LeaseError

__all__ = ["Heartbeat"]

_log = logging.getLogger("agentmem")


class Heartbeat:
    """Calls a function every few seconds, until it is stopped or what it keeps is lost.

    Attributes:
        failure: why it has ended by itself; None while it has not.
    """

    def __init__(self, beat: Callable[[], object], every_s: float, what: str) -> None:
        """Begins.

        Args:
            beat: raises `LeaseError` when what it keeps is lost; other errors pass.
            what: is kept, for the log.
        """
        self.failure: AgentMemError | None = None
        self._beat = beat
        self._every_s = every_s
        self._what = what
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentmem-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it. A beat that has begun may still be on its way when this returns."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self._beat()
            except (LeaseError, ClosedError, ForkedStoreError) as error:
                self.failure = error
                if not self._stopped.is_set():
                    _log.warning("%s is kept no longer: %s", self._what, error)
                return
            except AgentMemError as error:
                # A busy store, a lost connection: the next beat may come through in time.
                _log.info("%s could not be renewed, and is tried again: %s", self._what, error)
