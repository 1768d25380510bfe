"""Many threads of one process, each a writer of its own key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import agentmem
from benchmarks.peers import langgraph_store
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, Crowd, interleave, require, verify

__all__ = ["BENCHMARKS"]

_ALONE: Final = 32  # puts in a sample
_EACH: Final = {8: 8, 32: 4}  # puts of each thread in a sample, by the number of threads


def _putter(store: agentmem.Store, prefix: str) -> Callable[[int], object]:
    return lambda number: store.put(f"{prefix}-{number}", SMALL)


def _check(store: agentmem.Store, prefix: str, size: int, version: int) -> None:
    for number in range(size):
        entry = store.get(f"{prefix}-{number}")
        found = entry.version if entry else 0
        require(found == version, f"{prefix}-{number} is at version {found}, not {version}")


def _threads(bench: Bench) -> Mapping[str, Figure]:
    with ExitStack() as stack:
        store = stack.enter_context(agentmem.open(bench.path("store.db"), embedder=None))
        alone = _putter(store, "alone")
        sides: dict[str, Callable[[int], object]] = {
            "alone": lambda number: [alone(0) for _ in range(_ALONE)]
        }
        for size, each in _EACH.items():
            crowd = stack.enter_context(Crowd(size, _putter(store, str(size))))
            sides[str(size)] = crowd.turn(each)
        samples = interleave(bench, 25, sides)
        rounds = len(samples["alone"].seconds)
        _check(store, "alone", 1, rounds * _ALONE)
        for size, each in _EACH.items():
            _check(store, str(size), size, rounds * each)
        verify(store, rounds * (_ALONE + sum(size * each for size, each in _EACH.items())))
    return {
        f"threads-{size}": Figure.speed(samples[str(size)], samples["alone"], size * each, _ALONE)
        for size, each in _EACH.items()
    }


def _langgraph(bench: Bench) -> Mapping[str, Figure]:
    size, each = 8, 8
    value = {"n": SMALL}
    with ExitStack() as stack:
        store = stack.enter_context(agentmem.open(bench.path("store.db"), embedder=None))
        peer = stack.enter_context(langgraph_store(bench.path("langgraph.db"), tuned=True))
        counts: list[list[int]] = [[0] * size, [0] * size]

        def put(number: int) -> None:
            counts[0][number] += 1
            store.put(f"{number}-{counts[0][number]}", value, namespace="notes")

        def put_langgraph(number: int) -> None:
            counts[1][number] += 1
            peer.put(("notes",), f"{number}-{counts[1][number]}", value)

        ours = stack.enter_context(Crowd(size, put))
        theirs = stack.enter_context(Crowd(size, put_langgraph))
        samples = interleave(bench, 25, {"langgraph": theirs.turn(each), "put": ours.turn(each)})
        writes = len(samples["put"].seconds) * size * each
        verify(store, writes)
        _check_langgraph(store, peer, counts[0])
    work = size * each
    return {
        "threads-langgraph": Figure.speed(samples["put"], samples["langgraph"], work, work),
    }


def _check_langgraph(store: agentmem.Store, peer: Any, counts: list[int]) -> None:
    for number, count in enumerate(counts):
        for key in (f"{number}-{index}" for index in range(1, count + 1)):
            require(store.get(key, namespace="notes") is not None, f"{key} is not in agentmem")
            require(peer.get(("notes",), key) is not None, f"{key} is not in LangGraph")


BENCHMARKS: Final = (
    Benchmark(
        "threads",
        (
            Line("threads-8", "put by 8 threads, full", "put by one thread"),
            Line("threads-32", "put by 32 threads, full", "put by one thread", Goal(">=", 2)),
        ),
        _threads,
    ),
    Benchmark(
        "threads-langgraph",
        (
            Line(
                "threads-langgraph",
                "put by 8 threads, full",
                "LangGraph SqliteStore.put, tuned: WAL, synchronous=FULL",
                Goal(">=", 2),
            ),
        ),
        _langgraph,
    ),
)
