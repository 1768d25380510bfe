"""What the processes of these tests do; `Crew` starts them, so they must be importable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import agentmem

Report = Callable[[Any], None]
Begin = Callable[[], object]


def move(report: Report, begin: Begin, url: str, worker: int, rounds: int) -> None:
    """Moves one from account to account, each move under an op_id that is used twice."""
    with agentmem.open(url, durability="relaxed", agent=f"worker-{worker}") as store:

        def moved(tx: agentmem.Transaction) -> int:
            accounts = [entry.key for entry in tx.list("accounts")]
            source, aim = accounts[worker % 3], accounts[(worker + 1) % 3]
            tx.put(source, tx.get(source, namespace="accounts").value - 1, namespace="accounts")  # type: ignore[union-attr]  # it is there
            tx.increment(aim, namespace="accounts")
            tx.increment("moves")
            return worker

        begin()
        for number in range(rounds):
            op_id = f"{worker}-{number}"
            assert store.transact(moved, op_id=op_id, attempts=1_000) == worker
            assert store.transact(moved, op_id=op_id) == worker
            report(number)
        report(store._core.engine._pool.prepares)  # type: ignore[attr-defined]  # PostgreSQL's
