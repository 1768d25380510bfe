"""A memory turns out to be wrong: find all that was made from it, and take it out again.

    python examples/poisoned_memory.py

Four agents share a store. One stores a claim from a web page; two others work from it, one after
the other; a fourth only adds to the same notes. Then the page turns out to be a fake. `lineage`
follows the claim, and `revert_derived` undoes what came of it in one commit, and nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import agentmem


def work(store: agentmem.Store) -> int:
    """What the agents do; returns the version of the notes that holds the fake."""
    store.append("notes", "Museum: closed on Mondays.", agent="ann")
    store.put("budget", {"hotel": 120}, agent="ann")

    fake = store.append("notes", "Hotel Roma: 9 euro a night.", agent="web")
    with store.transaction(agent="planner", note="plan the stay") as tx:
        cheap = tx["notes"][-1]
        tx.put("budget", {"hotel": 9, "because": cheap})
    with store.transaction(agent="booker", note="book the room") as tx:
        tx.put("booking", {"price": tx["budget"]["hotel"]})
    store.append("notes", "Trams: free for children.", agent="ann")
    return fake.version


def show(store: agentmem.Store) -> None:
    """Prints what is in memory."""
    for entry in store.list():
        print(f"  {entry.key}: {entry.value}")


def run(target: str) -> bool:
    """Whether everything that came of the fake is gone, and nothing else."""
    with agentmem.open(target, embedder=None) as store:
        fake = work(store)
        print("in memory:")
        show(store)

        print("what came of the fake:")
        for edge in store.audit.lineage("notes", fake, direction="down").edges:
            derived = edge.derived
            print(f"  {derived.key}@{derived.version} by {derived.agent}: {edge.why}")

        done = store.audit.revert_derived("notes", fake, dry_run=False, agent="eva")
        print("undone in one commit:")
        for key in done.keys:
            print(f"  {key.key}: {key.outcome}")
        print("in memory:")
        show(store)
        return {entry.key: entry.value for entry in store.list()} == {
            "budget": {"hotel": 120},
            "notes": ["Museum: closed on Mondays.", "Trams: free for children."],
        }


def main() -> int:
    """Runs it, on a new store of yours if one is named."""
    if len(sys.argv) > 1:
        return 0 if run(sys.argv[1]) else 1
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run(str(Path(folder) / "trip.db")) else 1


if __name__ == "__main__":
    sys.exit(main())
