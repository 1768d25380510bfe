"""What taking turns costs, against the commits that it protects."""

from __future__ import annotations

from typing import Final

import agentmem
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, interleave, require, verify

__all__ = ["BENCHMARKS"]

_ROUNDS: Final = 1_000
_FULL_ROUNDS: Final = 300


def _leases(bench: Bench, durability: str, count: int) -> Figure:
    """A lease that nobody else wants, from acquiring to releasing it."""
    with agentmem.open(
        bench.path(f"{durability}.db"), embedder=None, durability=durability
    ) as store:

        def take(_number: int) -> None:
            with store.lease("plan"):
                pass

        samples = interleave(
            bench, count, {"put": lambda number: store.put(f"k{number}", SMALL), "lease": take}
        )
        verify(store, len(samples["put"].seconds))
        require(store.leases() == [], "a lease is left")
    return Figure.cost(samples["lease"], samples["put"])


def _queue(bench: Bench, durability: str, count: int) -> Figure:
    """Claim and ack, in a queue that has others waiting, against two commits of one key."""
    with agentmem.open(
        bench.path(f"{durability}.db"), embedder=None, durability=durability
    ) as store:
        queue = store.queue("tasks")
        with store.transaction() as tx:
            for number in range(9_000):
                tx.queue("tasks").put(number)
        done: list[int] = []

        def work(_number: int) -> None:
            task = queue.claim()
            require(task is not None, "there is no task")
            if task is not None:
                done.append(task.payload)
                task.ack()

        def put_two(number: int) -> None:
            store.put(f"a{number}", SMALL)
            store.put(f"b{number}", SMALL)

        samples = interleave(bench, count, {"puts": put_two, "queue": work})
        verify(store, 2 * len(samples["puts"].seconds))
        require(done == list(range(len(done))), "a task was lost, or came twice")
    return Figure.speed(samples["queue"], samples["puts"])


BENCHMARKS: Final = (
    Benchmark(
        "lease",
        (
            Line("lease-relaxed", "lease taken and released, relaxed", "put", Goal("<=", 2)),
            Line("lease-full", "lease taken and released, full", "put", Goal("<=", 2)),
        ),
        lambda bench: {
            "lease-relaxed": _leases(bench, "relaxed", _ROUNDS),
            "lease-full": _leases(bench, "full", _FULL_ROUNDS),
        },
    ),
    Benchmark(
        "queue",
        (
            Line("queue-relaxed", "claim and ack, relaxed", "two puts", Goal(">=", 0.5)),
            Line("queue-full", "claim and ack, full", "two puts", Goal(">=", 0.5)),
        ),
        lambda bench: {
            "queue-relaxed": _queue(bench, "relaxed", _ROUNDS),
            "queue-full": _queue(bench, "full", _FULL_ROUNDS),
        },
    ),
)
