"""A process whose forked child ends in some way: ``python forked_ending.py URL ENDING``.

Prints one JSON object: the server's processes that serve the parent, before and after.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys

import agentmem


def connections(store: agentmem.Store) -> list[int]:
    """The server's processes behind the idle connections of the store, used once each."""
    pool = store._core.engine._pool  # type: ignore[attr-defined]  # PostgreSQL's
    wires = [pool.take() for _each in range(2)]
    pids = sorted(wire.connection.info.backend_pid for wire in wires)
    for wire in wires:
        wire.connection.execute("SELECT 1")
        pool.give_back(wire)
    return pids


def main(url: str, ending: str) -> None:
    store = agentmem.open(url, durability="relaxed")
    store.put("k", 1)
    before = connections(store)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        if ending == "collected":
            del store
            gc.collect()
        elif ending == "closed":
            store.close()
        elif ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        # As a program ends: with its exit functions, finalizers and destructors.
        sys.exit(0)
    os.waitpid(child, 0)
    after = connections(store)
    value = store.put("k", 2, expected_version=1).value
    problems = store.admin.verify().problems
    print(json.dumps({"before": before, "after": after, "value": value, "problems": problems}))


if __name__ == "__main__":
    main(*sys.argv[1:])
