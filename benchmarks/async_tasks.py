"""Tasks of one event loop that commit through one async store, against threads with a plain one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import agentmem
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, Crowd, interleave, require, verify

__all__ = ["BENCHMARKS"]

_THREADS: Final = 8
_TASKS: Final = 100
_WRITES: Final = 400  # of a sample, on either side


def _compare(bench: Bench, durability: str) -> Figure:
    target = bench.path(f"{durability}.db")
    with ExitStack() as stack:
        plain = stack.enter_context(agentmem.open(target, embedder=None, durability=durability))
        runner = stack.enter_context(asyncio.Runner())

        async def open_store() -> agentmem.AsyncStore:
            return await agentmem.aopen(target, embedder=None, durability=durability)

        store = runner.run(open_store())
        stack.callback(lambda: runner.run(store.close()))

        async def put(number: int) -> None:
            for _time in range(_WRITES // _TASKS):
                await store.put(f"task-{number}", SMALL)

        async def all_tasks() -> None:
            await asyncio.gather(*(put(number) for number in range(_TASKS)))

        crowd = stack.enter_context(
            Crowd(_THREADS, lambda number: plain.put(f"thread-{number}", SMALL))
        )
        sides = {
            "threads": crowd.turn(_WRITES // _THREADS),
            "tasks": lambda _round: runner.run(all_tasks()),
        }
        samples = interleave(bench, 15, sides)
        rounds = len(samples["tasks"].seconds)
        for name, size in (("thread", _THREADS), ("task", _TASKS)):
            for number in range(size):
                entry = plain.get(f"{name}-{number}")
                found = entry.version if entry else 0
                wanted = rounds * _WRITES // size
                require(found == wanted, f"{name}-{number} is at version {found}, not {wanted}")
        verify(plain, 2 * rounds * _WRITES)
    return Figure.speed(samples["tasks"], samples["threads"], _WRITES, _WRITES)


def _async(bench: Bench) -> Mapping[str, Figure]:
    return {
        "async-full": _compare(bench, "full"),
        "async-relaxed": _compare(bench, "relaxed"),
    }


BENCHMARKS: Final = (
    Benchmark(
        "async",
        (
            Line("async-full", "put by 100 tasks, full", "put by 8 threads", Goal(">=", 0.8)),
            Line("async-relaxed", "put by 100 tasks, relaxed", "put by 8 threads"),
        ),
        _async,
    ),
)
