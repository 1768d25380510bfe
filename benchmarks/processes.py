"""Writer processes on one file: how much they get done, how evenly, and how long one waits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import agentmem
from agentmem.testing.crew import Crew
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, require, verify

__all__ = ["BENCHMARKS"]

_SIZES: Final = (1, 4, 8)
_ROUNDS: Final = 5
_WINDOW_S: Final = 2.0
_SHORTEST_WINDOW_S: Final = 0.1


def write(
    report: Callable[[Any], None], begin: Callable[[], Any], path: str, number: int, window_s: float
) -> None:
    """A writer: puts its own key until the time is over.

    Reports (puts in that time, longest put in seconds).
    """
    clock = time.perf_counter
    with agentmem.open(path, embedder=None) as store:
        store.put(f"k{number}", SMALL)
        begin()
        last = clock()
        end = last + window_s
        count, longest = 0, 0.0
        while last < end:
            store.put(f"k{number}", SMALL)
            now = clock()
            longest = max(longest, now - last)
            count, last = count + 1, now
    report((count, longest))


@dataclass
class _Window:
    counts: list[int]
    longest_s: float

    @property
    def evenness(self) -> float:
        return min(self.counts) / max(self.counts)


def _window(path: str, size: int, window_s: float) -> _Window:
    heard: dict[int, tuple[int, float]] = {}
    agentmem.open(path, embedder=None).close()
    crew = Crew(write, [(path, number, window_s) for number in range(size)])
    crew.run(heard.__setitem__)
    with agentmem.open(path, embedder=None) as store:
        for number, (count, _longest) in heard.items():
            entry = store.get(f"k{number}")
            require(entry is not None and entry.version == count + 1, f"k{number} lost a put")
        verify(store, sum(count for count, _longest in heard.values()) + size)
    counts = [count for count, _longest in heard.values()]
    return _Window(counts, max(longest for _count, longest in heard.values()))


def _processes(bench: Bench) -> Mapping[str, Figure]:
    window_s = max(_SHORTEST_WINDOW_S, _WINDOW_S * min(1.0, bench.scale))
    windows: dict[int, list[_Window]] = {size: [] for size in _SIZES}
    for number in bench.rounds(_ROUNDS):
        for size in _SIZES:
            path = bench.path(f"{number}-{size}.db")
            windows[size].append(_window(path, size, window_s))
    figures: dict[str, Figure] = {}
    for size in _SIZES[1:]:
        figures[f"processes-{size}-rate"] = _rate(windows[size], windows[1], window_s)
        figures[f"processes-{size}-evenness"] = _evenness(windows[size])
        figures[f"processes-{size}-longest-wait"] = _longest(windows[size], windows[1])
    return figures


def _rate(many: list[_Window], one: list[_Window], window_s: float) -> Figure:
    ours, other = (
        statistics.median(sum(window.counts) for window in side) / window_s for side in (many, one)
    )
    return Figure(ours, other, "/s", ours / other, "x", len(many))


def _evenness(many: list[_Window]) -> Figure:
    slowest = statistics.median(min(window.counts) for window in many)
    fastest = statistics.median(max(window.counts) for window in many)
    evenness = statistics.median(window.evenness for window in many)
    return Figure(slowest, fastest, "puts", evenness, "x", len(many))


def _longest(many: list[_Window], one: list[_Window]) -> Figure:
    """Not a median: the longest of all, beside the longest of a writer that has no rivals."""
    ours, other = (max(window.longest_s for window in side) for side in (many, one))
    return Figure(ours, other, "s", ours * 1e3, "ms", len(many))


def _lines(size: int, evenness: Goal | None, longest_ms: Goal | None) -> tuple[Line, ...]:
    name = f"processes-{size}"
    return (
        Line(f"{name}-rate", f"put by {size} processes, full", "put by one process"),
        Line(f"{name}-evenness", f"slowest of {size} processes", "fastest of them", evenness),
        Line(
            f"{name}-longest-wait",
            f"longest put of {size} processes",
            "longest of one process",
            longest_ms,
        ),
    )


BENCHMARKS: Final = (
    Benchmark(
        "processes",
        (*_lines(4, None, None), *_lines(8, Goal(">=", 0.6), Goal("<=", 500))),
        _processes,
    ),
)
