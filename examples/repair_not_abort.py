"""A long transaction is repaired after a conflict, and its costly work is not done again.

An agent reads two keys, thinks for minutes (here: one call of a stand-in for a model), and
writes. Meanwhile another agent changes one of the keys. `transact` alone would think again. With
`repair=` a cheap look at what has moved is enough: the plan still fits the new budget, so the
change is accepted, and the log says that it was judged. If it does not fit, it thinks again.

    python examples/repair_not_abort.py
"""

import sys
import tempfile
from pathlib import Path

import agentmem


class Planner:
    """Plans a trip; counts how often it asks the model."""

    def __init__(self, store: agentmem.Store, budget_meanwhile: int) -> None:
        self.store = store
        self.budget_meanwhile = budget_meanwhile
        self.model_calls = 0

    def ask_model(self, budget: int, days: int) -> dict[str, int]:
        self.model_calls += 1
        if self.model_calls == 1:  # while the model thinks, another agent writes
            self.store.update("budget", lambda _: self.budget_meanwhile, agent="treasurer")
        return {"cost": min(budget, days * 200), "days": days}

    def plan(self, tx: agentmem.Transaction) -> None:
        tx["plan"] = self.ask_model(tx["budget"], tx["days"])

    def repair(self, tx: agentmem.Transaction, conflicts: list[agentmem.Conflict]) -> None:
        for conflict in conflicts:
            print(f"  {conflict.key} moved from {conflict.base} to {conflict.theirs}")
        tx.rebase(accept=conflicts)  # reads now see the present; writes stay
        if tx["plan"]["cost"] > tx["budget"]:
            print("  the plan costs too much now: think again")
            self.plan(tx)


def run(folder: str, name: str, budget_meanwhile: int) -> tuple[int, dict[str, int]]:
    print(name)
    with agentmem.open(Path(folder) / f"{name}.db") as store:
        store.put_many({"budget": 900, "days": 3})
        planner = Planner(store, budget_meanwhile)
        store.transact(planner.plan, repair=planner.repair, agent="planner", op_id="plan-rome")
        commit = store.log(limit=1)[0]
        judged = [
            f"{key} {seen} as {version}" for _namespace, key, seen, version in commit.accepted
        ]
        print(f"  committed {store['plan']}; judged to hold: {', '.join(judged)}")
        print(f"  model calls: {planner.model_calls}")
        return planner.model_calls, store["plan"]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        still_right = run(folder, "still-right", budget_meanwhile=800)
        too_dear = run(folder, "too-dear", budget_meanwhile=500)
    expected = ((1, {"cost": 600, "days": 3}), (2, {"cost": 500, "days": 3}))
    return 0 if (still_right, too_dear) == expected else 1


if __name__ == "__main__":
    sys.exit(main())
