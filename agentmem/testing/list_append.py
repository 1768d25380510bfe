"""List-append: transactions that read lists and append to them, and so tell whom they saw."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import agentmem
from agentmem import judge
from agentmem.testing.crew import Crew, Step
from agentmem.testing.histories import Anomaly, Append, Observed, Read, check, check_revisions

__all__ = ["ListAppend", "Verdict", "list_append"]

_ACTIVE_KEYS: Final = 4
_TRANSACTIONS_A_KEY: Final = 15  # of one worker, before it moves on to a new key
_MAX_OPERATIONS: Final = 4
_ATTEMPTS: Final = 40
_ROLLED_BACK: Final = 0.03  # the share of transactions that are given up after they wrote
_REPORTED_TOGETHER: Final = 50


@dataclass(frozen=True, slots=True)
class ListAppend:
    """A workload of transactions that read lists and append to them.

    Attributes:
        transactions: of all workers together.
        processes: how many workers.
        seed: decides which keys each transaction reads and appends to.
        isolation: ``serializable`` or ``snapshot``.
        checked: False switches the read-set check of the commit path off, to see that a
            history without it is found wrong.
    """

    transactions: int
    processes: int = 4
    seed: int = 1
    isolation: Literal["serializable", "snapshot"] = "serializable"
    checked: bool = True
    durability: str = "relaxed"


@dataclass(slots=True)
class Verdict:
    """What the checkers found in a history.

    Attributes:
        history: what the clients saw.
        anomalies: what a strictly serializable store never does.
        problems: what `Admin.verify` found in the log.
    """

    history: list[Observed] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.anomalies and not self.problems


def list_append(path: str, work: ListAppend, step: Step = lambda _done: None) -> Verdict:
    """Runs the workload on a new store and checks the history that its clients saw."""
    verdict = Verdict()

    def heard(_worker: int, observed: list[Observed]) -> None:
        verdict.history += observed
        step(len(observed))

    with agentmem.open(path, durability=work.durability) as store:
        Crew(_append_lists, [(path, work, worker) for worker in range(work.processes)]).run(heard)
        final = {entry.key: list(entry.value) for entry in store.list()}
        verdict.problems = list(store.admin.verify().problems)
    verdict.anomalies = check(verdict.history, final) + check_revisions(verdict.history)
    return verdict


def _append_lists(
    report: Callable[[list[Observed]], None],
    begin: Callable[[], object],
    path: str,
    work: ListAppend,
    worker: int,
) -> None:
    if not work.checked:
        # The seeded bug, in this process alone: what a transaction has read is not validated.
        for name in ("stale_reads", "stale_scans"):
            setattr(judge, name, lambda _request, _world: [])
    choice = random.Random(f"{work.seed}-{worker}")  # noqa: S311  # chooses a workload
    share = len(range(worker, work.transactions, work.processes))
    with agentmem.open(path, durability=work.durability, agent=f"writer-{worker}") as store:
        begin()
        seen: list[Observed] = []
        for number in range(share):
            seen.append(_observe(store, work, worker, number, choice))
            if len(seen) == _REPORTED_TOGETHER or number == share - 1:
                report(seen)
                seen = []


def _observe(
    store: agentmem.Store, work: ListAppend, worker: int, number: int, choice: random.Random
) -> Observed:
    """Runs one transaction, again while it conflicts, and says what came of it."""
    plan = _planned(number, choice)
    gives_up = choice.random() < _ROLLED_BACK
    id = f"T{worker}.{number}"
    started = time.monotonic_ns()
    operations: tuple[Append | Read, ...] = ()
    revision, outcome = None, "aborted"
    for attempt in range(_ATTEMPTS):
        with store._core.lane.attempt(attempt + 1):
            tx = store.transaction(isolation=work.isolation)
            elements = iter(
                range(1 + (worker * work.transactions + number) * _MAX_OPERATIONS, 1 << 60)
            )
            operations = tuple(_operate(tx, kind, key, elements) for kind, key in plan)
            if gives_up:
                tx.rollback()
                break
            try:
                revision = tx.commit().revision
            except agentmem.ConflictError:
                tx.rollback()
                continue
            outcome = "committed"
            break
    return Observed(id, worker, started, time.monotonic_ns(), operations, outcome, revision)  # type: ignore[arg-type]  # one of the literals


def _planned(number: int, choice: random.Random) -> list[tuple[str, str]]:
    newest = number // _TRANSACTIONS_A_KEY
    keys = [f"x{newest + place}" for place in range(_ACTIVE_KEYS)]
    count = choice.randint(1, _MAX_OPERATIONS)
    kinds = choice.choices(("read", "append", "rewrite"), (5, 4, 1), k=count)
    return [(kind, choice.choice(keys)) for kind in kinds]


def _operate(
    tx: agentmem.Transaction, kind: str, key: str, elements: Iterator[int]
) -> Append | Read:
    if kind == "read":
        entry = tx.get(key)
        return Read(key, tuple(entry.value) if entry is not None else ())
    element = next(elements)
    if kind == "append":
        tx.append(key, element)
    else:
        entry = tx.get(key)
        tx.put(key, [*(entry.value if entry is not None else ()), element])
    return Append(key, element)
