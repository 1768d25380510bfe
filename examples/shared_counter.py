"""Eight processes add to one counter in one store, and no addition is lost.

Three ways that lose nothing: `transact` reads and writes in a transaction and runs it again if
another was faster, `update` does the same for one key, `increment` needs no read at all. Their
versions are 1, 2, 3, ... without a gap: each write is one version, and none replaced another's.

    python examples/shared_counter.py
    python examples/shared_counter.py 'postgresql://host/database?store=counter'

A store that is named must be new; without one, it is a file in a temporary folder.
"""

import multiprocessing
import sys
import tempfile
from multiprocessing.synchronize import Barrier
from pathlib import Path

import agentmem

AGENTS = 8
ADDITIONS = 25  # by each agent
WAYS = ("transact", "update", "increment")


def add_one(store: agentmem.Store, way: str) -> None:
    if way == "transact":

        def read_and_write(tx: agentmem.Transaction) -> None:
            tx[way] = tx[way] + 1 if way in tx else 1

        store.transact(read_and_write)
    elif way == "update":
        store.update(way, lambda count: count + 1, default=0)
    else:
        store.increment(way)


def work(path: str, agent: str, start_line: Barrier) -> None:
    with agentmem.open(path, agent=agent) as store:
        for way in WAYS:
            start_line.wait(60)  # so that all begin at once
            for _ in range(ADDITIONS):
                add_one(store, way)


def main() -> int:
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "counter.db")
        with agentmem.open(path) as store:
            if store.revision:
                sys.exit("there is something in this store; name a new one")
        start_line = processes.Barrier(AGENTS)
        agents = [
            processes.Process(target=work, args=(path, f"agent-{number}", start_line))
            for number in range(AGENTS)
        ]
        for agent in agents:
            agent.start()
        for agent in agents:
            agent.join()
        with agentmem.open(path) as store:
            return report(store) or max(abs(agent.exitcode or 0) for agent in agents)


def report(store: agentmem.Store) -> int:
    expected = AGENTS * ADDITIONS
    print(f"{AGENTS} processes, {ADDITIONS} additions each: {expected} expected")
    wrong = 0
    for way in WAYS:
        versions = [entry.version for entry in store.history(way)]
        gapless = versions == list(range(expected, 0, -1))
        wrong += store[way] != expected or not gapless
        gaps = "without a gap" if gapless else "with gaps"
        print(f"{way:10} {store[way]:>4}, versions {versions[-1]} to {versions[0]} {gaps}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
