"""List-append: transactions that read lists and append to them, and so tell whom they saw."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import agentmem
from agentmem import judge
from agentmem.course import attempted, drive
from agentmem.testing.crew import Crew, Step
from agentmem.testing.histories import Anomaly, Append, Observed, Read, check, check_revisions
from agentmem.testing.servers import Server, patiently

__all__ = ["ListAppend", "Verdict", "list_append"]

_ACTIVE_KEYS: Final = 4
_TRANSACTIONS_A_KEY: Final = 15  # of one worker, before it moves on to a new key
_MAX_OPERATIONS: Final = 4
_ATTEMPTS: Final = 40
_ROLLED_BACK: Final = 0.03  # the share of transactions that are given up after they wrote
_REPORTED_TOGETHER: Final = 50
_DONE: Final = "done"  # a namespace
_LOOK_S: Final = 0.002  # between looks of the watcher: it is not to keep the writers from working
_AWAY_S: Final = 0.02  # between tries while the server is away

Operations = tuple[Append | Read, ...]


@dataclass(frozen=True, slots=True)
class ListAppend:
    """A workload of transactions that read lists and append to them.

    Attributes:
        transactions: of all workers together.
        processes: how many workers; one more watches the log.
        seed: decides which keys each transaction reads and appends to.
        isolation: ``serializable`` or ``snapshot``.
        checked: False switches the read-set check of the commit path off, to see that a
            history without it is found wrong.
        durability: ``full`` if servers are killed.
        client_kills: how many workers are killed, and go on as another process.
        server_kills: how often the server is killed, and started again.
    """

    transactions: int
    processes: int = 4
    seed: int = 1
    isolation: Literal["serializable", "snapshot"] = "serializable"
    checked: bool = True
    durability: str = "relaxed"
    client_kills: int = 0
    server_kills: int = 0

    @property
    def kills(self) -> bool:
        """Whether anything is killed: then each transaction has an op_id and is announced."""
        return bool(self.client_kills or self.server_kills)


@dataclass(slots=True)
class Verdict:
    """What the checkers found in a history.

    Attributes:
        history: what the clients saw.
        anomalies: what a strictly serializable store never does.
        problems: what `Admin.verify` found in the log, and what the watcher saw.
    """

    history: list[Observed] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.anomalies and not self.problems


class _Run:
    """One run of a workload, as the process that starts the others sees it."""

    def __init__(self, target: str, work: ListAppend, server: Server | None, step: Step) -> None:
        self.verdict = Verdict()
        self._work = work
        self._target = target
        self._server = server
        self._step = step
        self._choice = random.Random(work.seed)  # noqa: S311  # chooses victims
        self._ended = [0] * work.processes
        self._announced: dict[int, Observed] = {}
        self._next = {
            kind: _moments(work.transactions, kills)
            for kind, kills in (("client", work.client_kills), ("server", work.server_kills))
        }
        arguments: list[tuple[Any, ...]] = [
            (target, work, worker, 0, None) for worker in range(work.processes)
        ]
        self.crew = Crew(_work, [*arguments, (target, work, work.processes, 0, None)],
                         revived=self._revived)  # fmt: skip

    def heard(self, worker: int, report: list[Observed] | list[str]) -> None:
        """Takes what a worker reports: what it saw, what it begins, or what is wrong."""
        for each in report:
            if isinstance(each, str):
                self.verdict.problems.append(each)
            elif each.outcome == "indeterminate":
                self._announced[worker] = each
            else:
                self._end(worker, each)

    def _end(self, worker: int, observed: Observed) -> None:
        self._ended[worker] += 1
        self.verdict.history.append(observed)
        self._step(1)
        if self._due("server"):
            assert self._server is not None, "only a server of our own is killed"
            self._choice.choice((self._server.stop, self._server.kill))()
            self._server.start()
        if self._due("client"):
            busy = [each for each in self._announced if self._ended[each] < self._share(each)]
            if busy:
                self.crew.kill(self._choice.choice(busy))

    def _due(self, kind: str) -> bool:
        moments = self._next[kind]
        if not moments or len(self.verdict.history) < moments[0]:
            return False
        moments.pop(0)
        return True

    def _share(self, worker: int) -> int:
        return len(range(worker, self._work.transactions, self._work.processes))

    def _revived(self, worker: int) -> tuple[Any, ...]:
        return (
            self._target, self._work, worker, self._ended[worker], self._announced.get(worker)
        )  # fmt: skip


def _moments(transactions: int, kills: int) -> list[int]:
    """After how many transactions something is killed, spread over all of them."""
    return [transactions * (number + 1) // (kills + 1) for number in range(kills)]


def list_append(
    target: str,
    work: ListAppend,
    step: Step = lambda _done: None,
    *,
    server: Server | None = None,
) -> Verdict:
    """Runs the workload on a new store and checks the history that its clients saw.

    Beside the workers one process watches the log: revisions must come in order, without a gap,
    and what was seen once must stay.

    Args:
        server: the target's, if it is to be killed.
    """
    run = _Run(target, work, server, step)
    with agentmem.open(target, embedder=None, durability=work.durability) as store:
        run.crew.run(run.heard)
        entries = patiently(store.list)
        final = {entry.key: list(entry.value) for entry in entries if not entry.namespace}
        run.verdict.problems += store.admin.verify().problems
    history = run.verdict.history
    run.verdict.anomalies = check(history, final) + check_revisions(history)
    return run.verdict


def _work(
    report: Callable[[Any], None],
    begin: Callable[[], object],
    target: str,
    work: ListAppend,
    worker: int,
    first: int,
    announced: Observed | None,
) -> None:
    name = f"writer-{worker}" if worker < work.processes else "watcher"
    # A worker that was killed may come back while the server is away.
    store = patiently(
        lambda: agentmem.open(target, embedder=None, durability=work.durability, agent=name)
    )
    with store:
        begin()
        if worker == work.processes:
            report(_watch(store, work))
        else:
            _append_lists(report, store, work, worker, first, announced)


def _append_lists(
    report: Callable[[list[Observed]], None],
    store: agentmem.Store,
    work: ListAppend,
    worker: int,
    first: int,
    announced: Observed | None,
) -> None:
    """Runs the transactions of one worker, from the first that was not ended on."""
    if not work.checked:
        # The seeded bug, in this process alone: what a transaction has read is not validated.
        for name in ("stale_reads", "stale_scans"):
            setattr(judge, name, lambda _request, _world: [])
    share = len(range(worker, work.transactions, work.processes))
    seen: list[Observed] = []
    for number in range(first, share):
        attempts = _Attempts(report, store, work, worker, number, announced)
        seen.append(attempts.observed())
        if work.kills or len(seen) == _REPORTED_TOGETHER or number == share - 1:
            report(seen)
            seen = []
    patiently(
        lambda: store.increment("workers", namespace=_DONE, op_id=f"done-{worker}"),
        same_op_id=True,
    )


class _Attempts:
    """One transaction, again while it conflicts, and while its outcome is not known."""

    def __init__(
        self,
        report: Callable[[list[Observed]], None],
        store: agentmem.Store,
        work: ListAppend,
        worker: int,
        number: int,
        announced: Observed | None,
    ) -> None:
        # Of the transaction alone, so that the successor of a killed process draws the same.
        choice = random.Random(f"{work.seed}-{worker}-{number}")  # noqa: S311  # chooses a workload
        self._plan = _planned(number, choice)
        self._gives_up = choice.random() < _ROLLED_BACK
        self._asks = choice.random() < 1 / 2  # what became of a commit, or does it again
        self._first_element = 1 + (worker * work.transactions + number) * _MAX_OPERATIONS
        self._store = store
        self._work = work
        self._report = report
        self._seen = Observed(f"T{worker}.{number}", worker, time.monotonic_ns(), 0, (), "aborted")
        # The operations of the last attempt whose COMMIT may have been sent: if an earlier one
        # had been committed, this one would have found its op_id.
        self._maybe: Operations | None = None
        if announced is not None and announced.id == self._seen.id:
            self._maybe = announced.operations
            self._seen = replace(self._seen, started=announced.started)

    def observed(self) -> Observed:
        """Runs it, and says what came of it."""
        conflicts = 0
        while conflicts < _ATTEMPTS:
            try:
                lane = self._store._core.lane
                done = drive(lane.attempt(conflicts + 1, attempted(self._attempt)))
            except agentmem.ConflictError:
                conflicts += 1
                continue
            except (agentmem.StorageError, agentmem.StoreBusyError):
                if not self._work.kills:
                    raise
                time.sleep(_AWAY_S)
                continue
            if done is not None:
                return replace(done, ended=time.monotonic_ns())
        if self._maybe is not None:
            self._seen = replace(self._seen, operations=self._maybe, outcome="indeterminate")
        return replace(self._seen, ended=time.monotonic_ns())

    def _attempt(self) -> Observed | None:
        """One attempt; None if nobody knows what has become of it."""
        op_id = self._seen.id if self._work.kills else None
        tx = self._store.transaction(isolation=self._work.isolation, op_id=op_id)
        if tx.applied is not None:
            return self._committed(tx.applied)
        elements = iter(range(self._first_element, 1 << 60))
        operations = tuple(_operate(tx, kind, key, elements) for kind, key in self._plan)
        self._seen = replace(self._seen, operations=operations)
        # Not if an attempt before it may stand.
        if self._gives_up and self._maybe is None:
            tx.rollback()
            return self._seen
        if self._work.kills:
            self._report([replace(self._seen, outcome="indeterminate")])
        try:
            commit = tx.commit()
        except agentmem.IndeterminateCommitError as error:
            self._maybe = operations
            if not self._asks:
                return None
            unknown = error
            known = patiently(lambda: self._store.outcome(unknown), same_op_id=True)
            return None if known is None else self._committed(known)
        except agentmem.AgentMemError:
            tx.rollback()
            raise
        if not commit.replayed:
            self._maybe = operations
        return self._committed(commit)

    def _committed(self, commit: agentmem.Commit) -> Observed:
        assert self._maybe is not None, "an op_id that was never sent is known"
        # What only reads is not validated: it stands at its base, and its op_id on record later.
        writes = any(isinstance(each, Append) for each in self._maybe)
        revision = commit.revision if writes else None
        return replace(self._seen, operations=self._maybe, outcome="committed", revision=revision)


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


def _watch(store: agentmem.Store, work: ListAppend) -> list[str]:
    """Reads the log while others write it; returns what is wrong with it."""
    problems: list[str] = []
    seen: list[tuple[int | None, object]] = []  # (revision, hash) of each commit

    def look() -> bool:
        done = store.get("workers", namespace=_DONE)
        revision = store.revision
        rows = store._core.engine.commits(len(seen), None, 1 << 30, newest_first=False)
        found = [row.revision for row in rows]
        if found != list(range(len(seen) + 1, len(seen) + 1 + len(found))):
            problems.append(f"after revision {len(seen)} a reader saw {found[:5]}")
        if len(seen) + len(found) < revision:
            problems.append(f"revision {revision} was told, and {len(seen) + len(found)} is last")
        seen.extend((row.revision, row.hash) for row in rows)
        return done is not None and done.value == work.processes

    while not patiently(look):
        if problems:
            return problems
        time.sleep(_LOOK_S)
    rows = store._core.engine.commits(0, None, 1 << 30, newest_first=False)
    if [(row.revision, row.hash) for row in rows][: len(seen)] != seen:
        problems.append("a commit that a reader had seen is gone, or another")
    return problems
