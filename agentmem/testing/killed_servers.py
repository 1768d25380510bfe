"""A PostgreSQL server that dies while clients commit, and what they must be told.

The server is killed at a random moment, or at one of three moments of a commit::

    client                                        server
    BEGIN; lock; read                         ->
                                              <-  rows
                    -- "before" --
    insert; COMMIT                            ->
                    -- "sent" --                  works, or has done it
                                              <-  COMMIT
                    -- "answered" --              the client has not read it
    reads the answer
"""

from __future__ import annotations

import os
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import agentmem
from agentmem.testing.crew import SILENCE_S, Step
from agentmem.testing.servers import Server, patiently

__all__ = ["MOMENTS", "KilledServers", "Moment", "killed_server_cycles"]

Moment = Literal["before", "sent", "answered", "random"]
MOMENTS: Final[tuple[Moment, ...]] = get_args(Moment)

_CYCLES_A_STORE: Final = 25  # then a new one, so that checking the whole log stays cheap
_THREADS: Final = 3  # of the client, which share batches
_OPERATIONS: Final = 8  # of each thread in a cycle
_KINDS: Final = ("increment", "append", "transact", "plain")  # plain: without an op_id
_LONGEST_WAIT_S: Final = 0.01  # before a random moment


@dataclass(slots=True)
class KilledServers:
    """What clients were told.

    Attributes:
        outcomes: how often an operation ended how, by (moment, outcome): ``committed``, ``not
            committed``; ``indeterminate`` is followed by what it came to.
        problems: what is wrong, in words.
    """

    outcomes: Counter[tuple[Moment, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class _Fault:
    """Kills the server at a moment of the commit that has a number, counted from 1.

    Attributes:
        happened: set when the server was killed.
    """

    def __init__(self, kill: Callable[[], None], moment: Moment, number: int) -> None:
        self.happened = threading.Event()
        self._kill = kill
        self._moment = moment
        self._left = number
        self._struck = threading.local()

    def strike(self) -> None:
        """Kills it now."""
        self._kill()
        self.happened.set()

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Watches the round trips of all connections of this process."""
        from agentmem.engines.postgres.statements import COMMIT
        from agentmem.engines.postgres.wire import Wire

        patched: Any = Wire  # a fault on purpose
        run, answers = Wire.run, Wire._answers

        def watched_run(wire: Any, batch: Any) -> Any:
            if batch[-1][0] is COMMIT and self._moment != "random":
                self._left -= 1
                if self._left == 0:
                    if self._moment == "before":
                        self.strike()
                    self._struck.now = True
            return run(wire, batch)

        def watched_answers(wire: Any, *arguments: Any) -> Any:
            if getattr(self._struck, "now", False):
                self._struck.now = False
                self._between(wire._pq)
            return answers(wire, *arguments)

        patched.run, patched._answers = watched_run, watched_answers
        try:
            yield
        finally:
            patched.run, patched._answers = run, answers

    def _between(self, link: Any) -> None:
        """All is sent, and nothing of the answer was read."""
        if self._moment == "before":
            return
        poll = select.poll()
        poll.register(link.socket, select.POLLIN | select.POLLOUT)
        while link.flush():
            poll.poll(SILENCE_S * 1_000)
        if self._moment == "answered":
            poll.modify(link.socket, select.POLLIN)
            poll.poll(SILENCE_S * 1_000)
            os.read(link.socket, 1 << 20)  # what the client would have read is gone
        self.strike()


class _Client:
    """Threads that perform operations, each again under its op_id until it is acknowledged."""

    def __init__(
        self, store: agentmem.Store, witness: agentmem.Store, report: KilledServers, moment: Moment
    ) -> None:
        self.begun: list[str] = []
        self.refused: set[str] = set()  # plain ones that are not committed, and never will be
        self.acknowledged = threading.Semaphore(0)
        self._store = store
        self._witness = witness
        self._report = report
        self._moment = moment
        self._errors: list[BaseException] = []

    def run(self, cycle: int, meanwhile: Callable[[], None]) -> None:
        """Performs all operations of a cycle; raises what an operation must not raise."""
        threads = [
            threading.Thread(target=self._work, args=(cycle, number), daemon=True)
            for number in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        meanwhile()
        for thread in threads:
            thread.join(SILENCE_S)
            assert not thread.is_alive(), "a client hangs"
        if self._errors:
            raise self._errors[0]

    def _work(self, cycle: int, number: int) -> None:
        try:
            for count in range(_OPERATIONS):
                op_id = f"{cycle}:{number}:{count}"
                self.begun.append(op_id)
                self._until_acknowledged(op_id, count)
                self.acknowledged.release()
        except BaseException as error:  # noqa: BLE001  # raised by run, in the thread that waits
            self._errors.append(error)

    def _until_acknowledged(self, op_id: str, count: int) -> None:
        while True:
            try:
                _perform(self._store, op_id)
            except agentmem.IndeterminateCommitError as error:
                if self._resolve(op_id, count, error):
                    return
            except (agentmem.StorageError, agentmem.StoreBusyError):
                self._note("not committed")
                if self._known(op_id):
                    self._wrong(f"{op_id}: committed, although the error said that it was not")
            else:
                self._note("committed")
                return

    def _resolve(self, op_id: str, count: int, error: agentmem.IndeterminateCommitError) -> bool:
        """Asks what has become of it, or leaves that to its repetition; whether it is settled."""
        plain = _kind(op_id) == "plain"
        if not plain and count // len(_KINDS) % 2:
            self._note("indeterminate")
            return False
        commit = patiently(lambda: self._store.outcome(error), same_op_id=True)
        self._note(f"indeterminate, {'committed' if commit else 'not committed'}")
        if self._known(op_id) != (commit is not None):
            self._wrong(f"{op_id}: its outcome was said to be {commit}, and it is not so")
        if plain and commit is None:
            self.refused.add(op_id)
        return plain

    def _known(self, op_id: str) -> bool:
        """Whether it was committed, now and for good."""

        def look() -> bool:
            # Whoever had the lock before this is done.
            self._witness.increment("looks", namespace="witness", op_id=f"{op_id}, looked for")
            if _kind(op_id) != "plain":
                return bool(self._witness.log(op_id=op_id, limit=1))
            entry = self._witness.get("plain")
            return entry is not None and op_id in entry.value

        return patiently(look, same_op_id=True)

    def _note(self, outcome: str) -> None:
        self._report.outcomes[self._moment, outcome] += 1

    def _wrong(self, words: str) -> None:
        self._report.problems.append(words)


def _kind(op_id: str) -> str:
    return _KINDS[int(op_id.rpartition(":")[2]) % len(_KINDS)]


def _perform(store: agentmem.Store, op_id: str) -> None:
    kind = _kind(op_id)
    if kind == "increment":
        store.increment(kind, op_id=op_id)
    elif kind == "append":
        store.append(kind, op_id, op_id=op_id)
    elif kind == "plain":
        store.append(kind, op_id)
    else:

        def add(tx: agentmem.Transaction) -> None:
            entry = tx.get(kind)
            tx.put(kind, (entry.value if entry is not None else 0) + 1)

        store.transact(add, op_id=op_id, attempts=1_000)


def killed_server_cycles(
    server: Server,
    cycles: int,
    *,
    seed: int = 1,
    step: Step = lambda _done: None,
) -> KilledServers:
    """Kills the server while three threads commit, and starts it again, again and again.

    It is killed (SIGKILL) and shut down immediately in turn. Whatever a thread is told must be
    true, and when it does the same again under its op_id, it must have happened once.
    """
    choice = random.Random(seed)  # noqa: S311  # chooses moments
    report = KilledServers()
    for first in range(0, cycles, _CYCLES_A_STORE):
        target = server.store(f"killed-{first}")
        begun: list[str] = []
        refused: set[str] = set()
        with (
            agentmem.open(target, embedder=None) as store,
            agentmem.open(target, embedder=None) as witness,
        ):
            for cycle in range(first, min(cycles, first + _CYCLES_A_STORE)):
                moment = MOMENTS[cycle % len(MOMENTS)]
                kill = (server.kill, server.stop)[cycle // len(MOMENTS) % 2]
                client = _Client(store, witness, report, moment)
                fault = _Fault(kill, moment, choice.randint(1, _OPERATIONS))
                with fault.armed():
                    client.run(cycle, lambda: _meet(server, fault, client, moment, choice))  # noqa: B023  # called in this turn
                begun += client.begun
                refused |= client.refused
                found = _check(witness, begun, refused)
                report.problems += [f"cycle {cycle}: {each}" for each in found]
                step(1)
    return report


def _meet(
    server: Server, fault: _Fault, client: _Client, moment: Moment, choice: random.Random
) -> None:
    """Kills the server at a random moment, if that is asked for; starts it when it was killed."""
    if moment == "random":
        for _operation in range(choice.randint(1, _OPERATIONS)):
            assert client.acknowledged.acquire(timeout=SILENCE_S), "no client commits"
        # Not synchronisation: it spreads the moment of death over the steps of a commit.
        time.sleep(choice.uniform(0, _LONGEST_WAIT_S))
        fault.strike()
    assert fault.happened.wait(SILENCE_S), "the commit to be struck has not come"
    server.start()


def _check(witness: agentmem.Store, begun: Sequence[str], refused: set[str]) -> list[str]:
    """What is wrong with the log, in which every operation that was begun must be, once."""
    log = witness.log()
    problems = list(witness.admin.verify().problems)
    if [commit.revision for commit in log] != list(range(len(log), 0, -1)):
        problems.append("the revisions have a gap")
    counts = Counter(commit.op_id for commit in log if commit.op_id is not None)
    problems += [f"{op_id} was applied {n} times" for op_id, n in counts.items() if n > 1]
    of_kind: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for op_id in begun:
        if op_id not in refused:
            of_kind[_kind(op_id)].append(op_id)
    named = [op_id for kind in ("increment", "append", "transact") for op_id in of_kind[kind]]
    if lost := set(named) - counts.keys():
        problems.append(f"lost: {sorted(lost)}")
    values = {entry.key: entry.value for entry in witness.list() if not entry.namespace}
    for kind in ("append", "plain"):
        if sorted(values[kind]) != sorted(of_kind[kind]):
            difference = Counter(values[kind])
            difference.subtract(of_kind[kind])
            wrong = {op_id: n for op_id, n in difference.items() if n}
            problems.append(f"the list {kind!r} has too many, or too few: {wrong}")
    for kind in ("increment", "transact"):
        if values[kind] != len(of_kind[kind]):
            problems.append(f"{kind!r} counted {values[kind]}, not {len(of_kind[kind])}")
    return problems
