"""Real signals against a process whose main thread commits while other threads do."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

import agentmem
from agentmem.testing.crew import Crew
from agentmem.testing.strikes import Interruption, StormReport

__all__ = ["interrupt_process"]

_KEY: Final = "signals"


def interrupt_process(
    target: str, number: signal.Signals, *, threads: int, commits: int
) -> StormReport:
    """Sends a signal for each report that a process makes of its progress.

    Its main thread makes `commits` increments, as do `threads` other threads together.
    Afterwards what was interrupted is done again under its op_id, by this process.
    """
    report = StormReport()
    children: list[int] = []

    def heard(_worker: int, message: tuple[str, str]) -> None:
        kind, text = message
        if kind == "pid":
            children.append(int(text))
        elif kind == "interrupted":
            report.interrupted.append(text)
        elif kind == "acknowledged":
            report.acknowledged.append(text)
        elif kind == "begins":
            os.kill(children[0], number)

    Crew(_commit_main_and_threads, [(target, int(number), threads, commits)]).run(heard)
    with agentmem.open(target, embedder=None) as store:
        for op_id in report.interrupted:
            store.increment(_KEY, op_id=op_id)
        entry = store.get(_KEY)
        ended = len(report.acknowledged) + len(report.interrupted)
        if entry is None or not entry.value == ended == 2 * commits:
            report.problems.append(f"{2 * commits} calls, {ended} ended, and it holds {entry}")
        report.problems += store.admin.verify().problems
    return report


def _commit_main_and_threads(
    report: Callable[[tuple[str, str]], None],
    begin: Callable[[], object],
    target: str,
    number: int,
    threads: int,
    commits: int,
) -> None:
    inside = False

    def interrupt(_number: int, _frame: object) -> None:
        # As Python's own handler does for SIGINT, but only inside of a call.
        nonlocal inside
        if inside:
            inside = False
            raise Interruption

    signal.signal(number, interrupt)
    with agentmem.open(target, embedder=None, durability="relaxed") as store:
        report(("pid", str(os.getpid())))
        begin()
        shares = [range(thread, commits, threads) for thread in range(threads)]
        others = [
            threading.Thread(target=_commit, args=(store, str(thread), share), daemon=True)
            for thread, share in enumerate(shares)
        ]
        for other in others:
            other.start()
        outcomes = []
        for count in range(commits):
            op_id = f"main:{count}"
            report(("begins", op_id))
            try:
                inside = True
                store.increment(_KEY, op_id=op_id)
                inside = False
                outcomes.append(("acknowledged", op_id))
            except Interruption:
                outcomes.append(("interrupted", op_id))
        for other in others:
            other.join()
        for outcome in outcomes:
            report(outcome)
        for thread, share in enumerate(shares):
            for count in share:
                report(("acknowledged", f"{thread}:{count}"))


def _commit(store: agentmem.Store, name: str, counts: range) -> None:
    for count in counts:
        store.increment(_KEY, op_id=f"{name}:{count}")
