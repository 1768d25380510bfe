"""What the processes of these tests do; `Crew` starts them, so they must be importable."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import agentmem

Report = Callable[[Any], None]
Begin = Callable[[], object]


def open_and_write(report: Report, begin: Begin, path: str, worker: int) -> None:
    """Opens a store that is not there yet, at the same moment as all others, and writes."""
    begin()
    with agentmem.open(path, agent=f"worker-{worker}") as store:
        store.put(str(worker), worker, namespace="workers")
        report(store._core.engine.store_id)


def commit_many(report: Report, begin: Begin, path: str, commits: int, every: int) -> None:
    """Overwrites a few keys, and says how far it is."""
    with agentmem.open(path, durability="relaxed", blind_writes="allow") as store:
        begin()
        for number in range(commits):
            store.put(f"k{number % 10}", {"number": number, "text": "x" * 200})
            if (number + 1) % every == 0:
                report(number + 1)


def claim_once(report: Report, begin: Begin, target: str, waits: bool) -> None:
    """Claims a task under the same op_id as all others.

    Args:
        waits: to be killed, with the claim.
    """
    with agentmem.open(target, durability="relaxed", embedder=None) as store:
        begin()
        task = store.queue("tasks").claim("ann", visibility_s=600, op_id="call-1")
        assert task is not None
        report((task.id, task.token, task.attempts))
        if waits:
            signal.pause()


def hold_the_lock(target: str, *, idle_ms: int | None = None) -> None:
    """Enters a session, says so and holds it: the parent stops this process meanwhile.

    Args:
        target: the store.
        idle_ms: after so long the server is to cut a client off that holds the lock and is silent.
    """
    if idle_ms is not None:
        from agentmem.engines.postgres import session as postgres_session

        postgres_session._IDLE_MS = idle_ms  # type: ignore[misc]  # ten seconds are long for a test
    store = agentmem.open(target, durability="relaxed", blind_writes="allow")
    make, told = store._core.engine.session, []

    def session() -> Any:
        made = make()
        append = made.append

        def held(rows: Any) -> None:
            append(rows)
            if not told:
                told.append(None)
                os.write(1, b"holding\n")
                os.read(0, 1)

        made.append = held  # type: ignore[method-assign]  # a fault on purpose
        return made

    store._core.engine.session = session  # type: ignore[method-assign]  # a fault on purpose
    try:
        store.put("k", "from the one that was stopped", op_id="stopped")
    except agentmem.IndeterminateCommitError:
        # Cut off while it was stopped, it cannot tell whether COMMIT had gone out before.
        store.put("k", "from the one that was stopped", op_id="stopped")
    os.write(1, b"done\n")


if __name__ == "__main__":
    import sys

    hold_the_lock(sys.argv[1], idle_ms=int(sys.argv[3]) if len(sys.argv) > 3 else None)
