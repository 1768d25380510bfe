"""Eight agents ask a slow, paid tool the same few questions at once; each is paid for once.

`store.cached_tool` runs a function once for the same arguments, for all agents in all processes.
Who asks while it runs waits for its result.

    python examples/tool_cache.py
    python examples/tool_cache.py 'postgresql://host/database?store=tools'

A store that is named must be new; without one, it is a file in a temporary folder.
"""

import multiprocessing
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import agentmem

AGENTS = 8
QUESTIONS = ("weather in Rome", "weather in Oslo", "trains to Lima")


def ask_all(path: str, agent: str, start_line: Barrier) -> None:
    with agentmem.open(path, agent=agent) as store:

        @store.cached_tool(ttl_s=3_600, name="search")
        def search(question: str, limit: int = 3) -> list[str]:
            time.sleep(0.1)  # the tool is slow
            store.increment("paid", namespace="bill")  # and costs
            return [f"{question}: answer {number}" for number in range(limit)]

        start_line.wait(60)  # so that all begin at once
        for question in QUESTIONS:
            answers = search(question, limit=2)
            store.append(question, answers[0], namespace="heard")


def main() -> int:
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "tools.db")
        start_line = processes.Barrier(AGENTS)
        agents = [
            processes.Process(target=ask_all, args=(path, f"agent-{number}", start_line))
            for number in range(AGENTS)
        ]
        for agent in agents:
            agent.start()
        for agent in agents:
            agent.join()
        with agentmem.open(path) as store:
            paid = store.scoped("bill")["paid"]
            heard = [len(entry.value) for entry in store.list("heard")]
        print(
            f"{AGENTS} agents asked {len(QUESTIONS)} questions each, and heard {sum(heard)} answers"
        )
        print(f"the tool was paid {paid} times")
        return 0 if paid == len(QUESTIONS) and heard == [AGENTS] * len(QUESTIONS) else 1


if __name__ == "__main__":
    sys.exit(main())
