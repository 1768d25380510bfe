"""Purges in a process that kills itself: ``python -m tests.crash.purger STORE WHEN``.

WHEN is the number of the step after which it ends (steps are those that ``progress`` tells), or
``vacuum:N``: in the middle of the VACUUM, after N hundred instructions of SQLite's machine.
Exits with 0 if there is no such step.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import agentmem

NAMESPACE = "private"


def kill() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 1


class Connection:
    """A connection whose VACUUM is cut off."""

    def __init__(self, connection: Any, after: int) -> None:
        self._connection = connection
        self._left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "VACUUM":
            self._connection.set_progress_handler(self._tick, 100)
        return self._connection.execute(statement, *values)

    def _tick(self) -> int:
        self._left -= 1
        return kill() if self._left < 0 else 0


def main() -> None:
    target, when = sys.argv[1:]
    store = agentmem.open(target, embedder=None, durability="relaxed")
    step = 0

    def progress(_what: str, _done: int, _total: int) -> None:
        nonlocal step
        step += 1
        if when == str(step):
            kill()

    if when.startswith("vacuum:"):
        connections = store._core.engine._connections  # type: ignore[attr-defined]  # of this engine
        begin = connections.begin
        connections.begin = lambda: Connection(begin(), int(when.removeprefix("vacuum:")))
    store.admin.purge(namespace=NAMESPACE, agent="officer", progress=progress)


if __name__ == "__main__":
    main()
