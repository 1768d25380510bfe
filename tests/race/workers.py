"""What the processes of these tests do; `Crew` starts them, so they must be importable."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import agentmem

Report = Callable[[Any], None]
Begin = Callable[[], object]


def open_and_write(report: Report, begin: Begin, path: str, worker: int) -> None:
    """Opens a path that is not there yet, at the same moment as all others, and writes."""
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


def hold_the_lock(path: str) -> None:
    """Enters a session, says so and holds it: the parent stops this process meanwhile."""
    store = agentmem.open(path, durability="relaxed", blind_writes="allow")
    make = store._core.engine.session

    def session() -> Any:
        made = make()
        append = made.append

        def held(rows: Any) -> None:
            append(rows)
            os.write(1, b"holding\n")
            os.read(0, 1)

        made.append = held  # type: ignore[method-assign]  # a fault on purpose
        return made

    store._core.engine.session = session  # type: ignore[method-assign]  # a fault on purpose
    store.put("k", "from the one that was stopped")
    os.write(1, b"done\n")


if __name__ == "__main__":
    import sys

    hold_the_lock(sys.argv[1])
