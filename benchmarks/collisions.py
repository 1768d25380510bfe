"""Processes that read, think and write, some of them the same key: what each tool makes of it.

A piece of work adds 1 to a number, with a pause between reading and writing, where an agent would
ask a model. With a share of the work the number is one that all want, else the process's own. Each
piece is tried until it is committed; an attempt that is not has thought in vain.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import agentmem
from agentmem.testing.crew import Crew
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.server import postgres_server
from benchmarks.timing import Bench, require

__all__ = ["BENCHMARKS", "Cell", "Found", "check"]

_PROCESSES: Final = 8
_FEW: Final = 2  # at a scale at which nothing is measured
_MEASURED: Final = 0.05
_ROUNDS: Final = 3
_ATTEMPTS: Final = 10_000
_WINDOWS_S: Final = {0: 0.4, 20: 1.0}  # by how long one thinks, in milliseconds
_SHARES: Final = (0, 10, 50, 100)  # percent of the work that is on one key
_HOT: Final = "hot"
_MS: Final = 1_000.0

Think = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """How much collides, and for how long one thinks.

    Attributes:
        think_ms: between reading and writing.
        share: percent of the work that is on one key.
    """

    think_ms: int
    share: int

    def named(self, prefix: str, tool: str) -> str:
        """The name of a line."""
        return f"{prefix}-{self.think_ms}ms-{self.share}-{tool}"


_CELLS: Final = tuple(Cell(think, share) for think in _WINDOWS_S for share in _SHARES)
_POSTGRES_CELLS: Final = (Cell(0, 10), Cell(20, 10), Cell(20, 100))


# The tools: (store, key, think) -> nothing; each adds 1, and thinks in every attempt.


def _version(store: agentmem.Store, key: str, think: Think) -> None:
    def add(tx: agentmem.Transaction) -> None:
        number = tx.get(key, namespace="version")
        think()
        tx.put(key, (0 if number is None else number.value) + 1, namespace="version")

    store.transact(add, attempts=_ATTEMPTS)


def _lease(store: agentmem.Store, key: str, think: Think) -> None:
    def add(tx: agentmem.Transaction) -> None:
        number = tx.get(key, namespace="lease")
        think()
        tx.put(key, (0 if number is None else number.value) + 1, namespace="lease")

    store.transact(add, attempts=_ATTEMPTS, lock=[("lease", key)])


def _merge(store: agentmem.Store, key: str, think: Think) -> None:
    with store.transaction() as tx:
        number = tx.get(key, namespace="merge")
        think()
        tx.put(key, (0 if number is None else number.value) + 1, namespace="merge")


def _atomic(store: agentmem.Store, key: str, think: Think) -> None:
    think()
    store.increment(key, namespace="atomic")


_TOOLS: Final[Mapping[str, Callable[[agentmem.Store, str, Think], None]]] = {
    "version": _version,
    "lease": _lease,
    "merge": _merge,
    "atomic": _atomic,
}
_WORDS: Final = {
    "lease": "transact with lock=",
    "merge": "put with a merge strategy",
    "atomic": "increment",
}


def work(
    report: Callable[[Any], None],
    begin: Callable[[], Any],
    target: str,
    number: int,
    rounds: int,
    cells: Sequence[Cell],
    windows_s: Mapping[int, float],
) -> None:
    """A process: all tools in turn, in every cell, in every round.

    Reports (cell, tool, commits, attempts, seconds) for each.
    """
    clock = time.perf_counter
    choice = random.Random(number)
    with agentmem.open(target, embedder=None, agent=f"agent-{number}") as store:
        for _round in range(rounds):
            for cell in cells:
                for tool, piece in _TOOLS.items():
                    thoughts = 0

                    def think() -> None:
                        nonlocal thoughts
                        thoughts += 1
                        if cell.think_ms:  # noqa: B023  # called within this turn alone
                            time.sleep(cell.think_ms / _MS)  # noqa: B023  # as above

                    begin()
                    commits, begun = 0, clock()
                    while not commits or clock() < begun + windows_s[cell.think_ms]:
                        is_hot = choice.uniform(0, 100) < cell.share
                        piece(store, _HOT if is_hot else f"own-{number}", think)
                        commits += 1
                    report((cell, tool, commits, thoughts, clock() - begun))


@dataclass
class Found:
    """What one tool did in one cell.

    Attributes:
        rates: commits a second of all processes, for each round.
        commits, attempts: of all processes in all rounds.
    """

    rates: list[float]
    commits: int = 0
    attempts: int = 0


def _raced(bench: Bench, target: str, cells: Sequence[Cell]) -> dict[tuple[Cell, str], Found]:
    factor = min(1.0, bench.scale)
    processes = _PROCESSES if factor >= _MEASURED else _FEW
    windows_s = {think: window * factor for think, window in _WINDOWS_S.items()}
    rounds = max(2, round(_ROUNDS * factor))
    with agentmem.open(target, embedder=None) as store:
        store.set_merge("merge/**", "counter")
    heard: dict[tuple[Cell, str], list[list[tuple[int, int, float]]]] = defaultdict(
        lambda: [[] for _ in range(processes)]
    )
    done = 0

    def hear(worker: int, found: tuple[Cell, str, int, int, float]) -> None:
        nonlocal done
        cell, tool, *counts = found
        heard[cell, tool][worker].append((counts[0], counts[1], counts[2]))
        done += 1
        bench.progress(done / (processes * rounds * len(cells) * len(_TOOLS)))

    arguments = [(target, each, rounds, cells, windows_s) for each in range(processes)]
    Crew(work, arguments).run(hear)
    result: dict[tuple[Cell, str], Found] = {}
    for where, by_worker in heard.items():
        # A process's own time: the last piece of work goes beyond the window.
        per_round = [
            sum(commits / seconds for commits, _attempts, seconds in turn)
            for turn in zip(*by_worker, strict=True)
        ]
        everything = [each for turns in by_worker for each in turns]
        result[where] = Found(
            per_round, sum(each[0] for each in everything), sum(each[1] for each in everything)
        )
    check(target, result)
    return result


def check(target: str, found: Mapping[tuple[Cell, str], Found]) -> None:
    """Requires that every addition is there, and that only versions let anyone think in vain."""
    with agentmem.open(target, embedder=None) as store:
        for tool in _TOOLS:
            counted = sum(entry.value for entry in store.list(tool))
            commits = sum(each.commits for where, each in found.items() if where[1] == tool)
            require(counted == commits, f"{tool} counted {counted}, not {commits}")
            attempts = sum(each.attempts for where, each in found.items() if where[1] == tool)
            in_vain = attempts - commits
            require(tool == "version" or not in_vain, f"{tool} has thought {in_vain} times in vain")
        report = store.admin.verify()
        require(report.ok, f"the log is not whole: {report.problems}")


def _figures(
    prefix: str, cells: Sequence[Cell], found: Mapping[tuple[Cell, str], Found]
) -> dict[str, Figure]:
    figures = {}
    for cell in cells:
        other = statistics.median(found[cell, "version"].rates)
        for tool in _TOOLS:
            each = found[cell, tool]
            rate, attempts = statistics.median(each.rates), each.attempts / each.commits
            if tool == "version":
                name = cell.named(prefix, "attempts")
                figures[name] = Figure(attempts, None, "attempts", attempts, "a commit", 1)
            else:
                name = cell.named(prefix, tool)
                figures[name] = Figure(rate, other, "/s", rate / other, "x", len(each.rates))
    return figures


def _lines(prefix: str, where: str, cells: Sequence[Cell]) -> tuple[Line, ...]:
    lines: list[Line] = []
    for cell in cells:
        words = f"{cell.share} % on one key, thinking {cell.think_ms} ms{where}"
        lines.append(Line(cell.named(prefix, "attempts"), f"transact, {words}", ""))
        for tool, name in _WORDS.items():
            in_vain = cell.share == 100 and cell.think_ms and tool in ("merge", "atomic")
            goal = Goal(">=", 3) if in_vain else None
            lines.append(Line(cell.named(prefix, tool), f"{name}, {words}", "transact", goal))
    return tuple(lines)


def _sqlite(bench: Bench) -> Mapping[str, Figure]:
    found = _raced(bench, bench.path("collisions.db"), _CELLS)
    return _figures("collisions", _CELLS, found)


def _postgres(bench: Bench) -> Mapping[str, Figure]:
    with postgres_server(bench) as server:
        found = _raced(bench, server.new_store(), _POSTGRES_CELLS)
        return _figures("pg-collisions", _POSTGRES_CELLS, found)


BENCHMARKS: Final = (
    Benchmark("collisions", _lines("collisions", "", _CELLS), _sqlite),
    Benchmark("pg-collisions", _lines("pg-collisions", ", PostgreSQL", _POSTGRES_CELLS), _postgres),
)
