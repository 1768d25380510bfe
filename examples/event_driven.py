"""Agent B reacts to what agent A writes, and each report is answered once, whoever dies.

Agent A writes reports. Agent B follows them as a consumer of the feed, and writes an answer to each
in the commit that acknowledges it. B is killed in the middle and started anew: it goes on where
its last commit was, so no report is left out and none is answered twice.

    python examples/event_driven.py
    python examples/event_driven.py 'postgresql://host/database?store=reports'

A store that is named must be new; without one, it is a file in a temporary folder.
"""

import multiprocessing
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import agentmem

REPORTS = 40
KILLED_AFTER = (10, 25)  # answers


def react(path: str, told: Connection) -> None:
    """Agent B."""
    with (
        agentmem.open(path, agent="b") as store,
        store.watch("reports", since=0, consumer="b") as feed,
    ):
        for event in feed:
            answer(store, event)
            told.send(event.revision)


def answer(store: agentmem.Store, event: agentmem.Event) -> None:
    with store.transaction() as tx:
        for entry in event.entries:
            tx.increment(entry.key, namespace="answers")
            tx.append("in order", entry.value["number"])
        tx.ack(event)


def main() -> int:
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "reports.db")
        with agentmem.open(path, agent="a") as store:
            if store.revision:
                sys.exit("there is something in this store; name a new one")
            answers = 0
            for upto in (*KILLED_AFTER, REPORTS):
                store.break_consumer("b")  # whoever it was is dead
                heard, told = processes.Pipe(duplex=False)
                agent_b = processes.Process(target=react, args=(path, told))
                agent_b.start()
                told.close()  # so that we hear if it dies by itself
                for number in range(answers, upto):
                    store.put(f"report-{number:02}", {"number": number}, namespace="reports")
                    heard.recv()  # B has answered
                agent_b.kill()
                agent_b.join()
                answers = upto
            return report(store)


def report(store: agentmem.Store) -> int:
    counts = [entry.value for entry in store.list("answers")]
    in_order = store["in order"] == list(range(REPORTS))
    print(f"{REPORTS} reports, agent B killed {len(KILLED_AFTER)} times")
    print(f"answered {len(counts)}, each {min(counts)} to {max(counts)} times")
    print("in order" if in_order else "out of order")
    return 0 if counts == [1] * REPORTS and in_order else 1


if __name__ == "__main__":
    sys.exit(main())
