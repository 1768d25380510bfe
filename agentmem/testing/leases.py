"""Holders of a lease that are stopped while they write; what they write late must be refused."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final

import agentmem
from agentmem.testing.crew import SILENCE_S, Step

__all__ = ["JUMPS_S", "check_leases", "lease_trials"]

JUMPS_S: Final = (0.0, 3_600.0, -3_600.0, 30 * 86_400.0, -30 * 86_400.0)
_TTL_S: Final = 0.03
_WAIT_S: Final = 60.0
_PAUSE_S: Final = 0.002  # between writes
_PATIENCE_S: Final = 0.15  # with a stopped process: it may hold the lock of the store
_MOST_WRITES: Final = 100_000
_LONGEST_RUN_S: Final = 0.02


def lease_trials(
    target: str, trials: int, *, seed: int = 1, jumps: bool = False, step: Step = lambda _done: None
) -> list[str]:
    """Stops a holder at a random moment until another has had the lease and written, again and
    again; then it goes on writing.

    Args:
        target: a new store.
        trials: how often.
        seed: of all choices.
        jumps: leases go by a clock that jumps by up to 30 days, forward and back, while the
            holder is stopped.
        step: called after each trial.

    Returns: what is wrong, in words.
    """
    choice = random.Random(seed)  # noqa: S311  # chooses moments
    context = get_context("spawn")
    # Without a lock, which a stopped process would hold.
    offset = context.RawValue("d", 0.0) if jumps else None
    with agentmem.open(target, embedder=None, durability="relaxed"):
        pass
    actors = [_Actor(context, target, offset, number) for number in range(2)]
    problems: list[str] = []
    try:
        for trial in range(trials):
            holder, other = actors if trial % 2 == 0 else actors[::-1]
            problems += _trial(holder, other, offset, choice)
            step(1)
    finally:
        for actor in actors:
            actor.end()
    return problems + check_leases(target)


def _trial(holder: _Actor, other: _Actor, offset: Any, choice: random.Random) -> list[str]:
    holder.ask("hold")
    first = holder.answer()
    holder.ask("write")
    # Not synchronisation: it spreads the moment over all that a holder does.
    time.sleep(choice.uniform(0, _LONGEST_RUN_S))
    holder.signal(signal.SIGSTOP)
    if offset is not None:
        offset.value = choice.choice(JUMPS_S)
    other.ask("take")
    second = other.answer(_PATIENCE_S)
    if offset is not None:
        offset.value = 0.0
    holder.signal(signal.SIGCONT)
    second = second if second is not None else other.answer()
    fenced_by = holder.answer()
    other.ask("release")
    other.answer()
    if not first < second <= fenced_by:
        return [f"token {first} was fenced off by {fenced_by}, not by {second} or a later one"]
    return []


def check_leases(target: str) -> list[str]:
    """What is wrong with the log: once a token has written, no smaller one may."""
    with agentmem.open(target, embedder=None) as store:
        tokens = [entry.value for entry in reversed(store.history("k", limit=None))]
        late = [b for a, b in itertools.pairwise(tokens) if b < a]
        problems = [f"a write under token {token} came after a later one" for token in late]
        return problems + store.admin.verify().problems


class _Actor:
    """A process that does what it is told with the lease."""

    def __init__(self, context: Any, target: str, offset: Any, number: int) -> None:
        self._end, far_end = context.Pipe()
        self._process = context.Process(
            target=_act, args=(far_end, target, offset, number), daemon=True
        )
        self._process.start()
        far_end.close()

    def ask(self, what: str) -> None:
        self._end.send(what)

    def answer(self, timeout_s: float | None = None) -> Any:
        """What it says; None: nothing, within a timeout."""
        if not self._end.poll(SILENCE_S if timeout_s is None else timeout_s):
            assert timeout_s is not None, f"silent for {SILENCE_S} s"
            return None
        return self._end.recv()

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def end(self) -> None:
        self.signal(signal.SIGCONT)
        self._process.kill()
        self._process.join()
        self._end.close()


def _act(end: Connection, target: str, offset: Any, number: int) -> None:
    clock: Callable[[], float] | None = None
    if offset is not None:

        def clock() -> float:
            return time.time() + float(offset.value)

    options: dict[str, Any] = {"durability": "relaxed", "blind_writes": "allow", "clock": clock}
    with agentmem.open(target, embedder=None, agent=f"actor-{number}", **options) as store:
        lease = store.lease("k", ttl_s=_TTL_S, wait_s=_WAIT_S)
        while True:
            what = end.recv()
            if what == "release":
                end.send(lease.release())
            elif what == "write":
                end.send(_write_until_fenced(store, lease))
                lease.release()
            else:
                lease.acquire()
                if what == "take":
                    _write(store, lease)
                end.send(lease.token)


def _write(store: agentmem.Store, lease: agentmem.Lease) -> None:
    with store.transaction() as tx:
        tx.guard(lease)
        tx["k"] = lease.token


def _write_until_fenced(store: agentmem.Store, lease: agentmem.Lease) -> int:
    """Writes as fast as it can; the token that fenced it off."""
    for _number in range(_MOST_WRITES):
        try:
            _write(store, lease)
        except agentmem.FencedError as error:
            return error.current_token
        # So that it is for the most part stopped where it does not hold the lock of the store.
        time.sleep(_PAUSE_S)
    return 0
