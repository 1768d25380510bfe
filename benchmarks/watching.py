"""The feed: how soon another process is told of a commit, and what waiting costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import agentmem
from agentmem.testing.crew import Crew
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.server import postgres_server
from benchmarks.timing import Bench, require

__all__ = ["BENCHMARKS"]

_COMMITS: Final = 300
_PAUSE_S: Final = 0.037  # beside the pace of looks, so that commits fall anywhere between two
_IDLE_S: Final = 5.0


def write(report: Callable[[Any], None], begin: Callable[[], Any], target: str, count: int) -> None:
    """Commits now and then; reports when each commit had returned."""
    with agentmem.open(target, embedder=None, durability="relaxed") as store:
        begin()
        returned = []
        for number in range(count):
            time.sleep(_PAUSE_S + number % 7 * 0.001)
            store.put("k", number)
            returned.append(time.monotonic())
        report(("returned", returned))


def follow(
    report: Callable[[Any], None], begin: Callable[[], Any], target: str, count: int, idle_s: float
) -> None:
    """Follows; reports when each event came, and the share of a processor that waiting took."""
    with agentmem.open(target, embedder=None) as store, store.watch() as feed:
        begin()
        came = []
        for _number in range(count):
            require(feed.next(timeout_s=60) is not None, "an event did not come")
            came.append(time.monotonic())
        used, began = time.process_time(), time.monotonic()
        require(feed.next(timeout_s=idle_s) is None, "an event came twice")
        share = (time.process_time() - used) / (time.monotonic() - began)
        report(("came", came))
        report(("share", share))


def _measured(bench: Bench, target: str, name: str) -> Mapping[str, Figure]:
    count = max(3, round(_COMMITS * min(1.0, bench.scale)))
    idle_s = max(0.1, _IDLE_S * min(1.0, bench.scale))
    agentmem.open(target, embedder=None).close()
    heard: dict[str, Any] = {}
    watcher = _Either((follow, write))
    crew = Crew(watcher, [(0, target, count, idle_s), (1, target, count)])
    crew.run(lambda _worker, found: heard.update([found]))
    late = sorted(
        max(0.0, came - returned)
        for came, returned in zip(heard["came"], heard["returned"], strict=True)
    )
    middle, longest = statistics.median(late), late[min(count - 1, int(count * 0.99))]
    share = heard["share"]
    return {
        f"{name}-p50": Figure(middle, None, "s", middle * 1e3, "ms", count),
        f"{name}-p99": Figure(longest, None, "s", longest * 1e3, "ms", count),
        f"{name}-idle": Figure(share * 100, None, "%", share * 100, "%", 1),
    }


class _Either:
    """One function for each worker; can be sent to a process."""

    def __init__(self, functions: tuple[Callable[..., None], ...]) -> None:
        self._functions = functions

    def __call__(
        self, report: Callable[[Any], None], begin: Callable[[], Any], which: int, *rest: Any
    ) -> None:
        self._functions[which](report, begin, *rest)


def _sqlite(bench: Bench) -> Mapping[str, Figure]:
    return _measured(bench, bench.path("watched.db"), "watch")


def _postgres(bench: Bench) -> Mapping[str, Figure]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        return _measured(bench, server.new_store(), "pg-watch")


def _lines(name: str, where: str, p50: float, p99: float | None) -> tuple[Line, ...]:
    goal = None if p99 is None else Goal("<=", p99)
    return (
        Line(f"{name}-p50", f"commit to wake-up, median, {where}", "", Goal("<=", p50)),
        Line(f"{name}-p99", f"commit to wake-up, p99, {where}", "", goal),
        Line(f"{name}-idle", f"a processor's share for waiting, {where}", "", Goal("<=", 2)),
    )


BENCHMARKS: Final = (
    Benchmark("watch", _lines("watch", "a file", 3, 15), _sqlite),
    Benchmark("pg-watch", _lines("pg-watch", "PostgreSQL", 5, None), _postgres),
)
