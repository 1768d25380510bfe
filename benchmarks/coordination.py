"""What taking turns costs, against the commits that it protects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import agentmem
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.server import postgres_server
from benchmarks.timing import Bench, interleave, require, verify

__all__ = ["BENCHMARKS"]

_ROUNDS: Final = {"relaxed": 1_000, "full": 300}
_TASKS: Final = 9_000  # of which the first are worked on


def _lease(bench: Bench, target: str, durability: str) -> Figure:
    """A lease that nobody else wants, from acquiring to releasing it."""
    with agentmem.open(target, embedder=None, durability=durability) as store:

        def take(_number: int) -> None:
            with store.lease("plan"):
                pass

        sides = {"put": lambda number: store.put(f"k{number}", SMALL), "lease": take}
        samples = interleave(bench, _ROUNDS[durability], sides)
        verify(store, len(samples["put"].seconds))
        require(store.leases() == [], "a lease is left")
    return Figure.cost(samples["lease"], samples["put"])


def _queue(bench: Bench, target: str, durability: str) -> Figure:
    """Claim and ack, with others waiting, against two commits of one key."""
    with agentmem.open(target, embedder=None, durability=durability) as store:
        queue = store.queue("tasks")
        with store.transaction() as tx:
            for number in range(_TASKS):
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

        samples = interleave(bench, _ROUNDS[durability], {"puts": put_two, "queue": work})
        verify(store, 2 * len(samples["puts"].seconds))
        require(done == list(range(len(done))), "a task was lost, or came twice")
    return Figure.speed(samples["queue"], samples["puts"])


def _leases(bench: Bench) -> Mapping[str, Figure]:
    return {f"lease-{each}": _lease(bench, bench.path(f"{each}.db"), each) for each in _ROUNDS}


def _queues(bench: Bench) -> Mapping[str, Figure]:
    return {f"queue-{each}": _queue(bench, bench.path(f"{each}.db"), each) for each in _ROUNDS}


def _on_postgres(bench: Bench) -> Mapping[str, Figure]:
    with postgres_server(bench) as server:
        return {
            "pg-lease": _lease(bench, server.new_store(), "full"),
            "pg-queue": _queue(bench, server.new_store(), "full"),
        }


BENCHMARKS: Final = (
    Benchmark(
        "lease",
        (
            Line("lease-relaxed", "lease taken and released, relaxed", "put", Goal("<=", 2)),
            Line("lease-full", "lease taken and released, full", "put", Goal("<=", 2)),
        ),
        _leases,
    ),
    Benchmark(
        "queue",
        (
            Line("queue-relaxed", "claim and ack, relaxed", "two puts", Goal(">=", 0.5)),
            Line("queue-full", "claim and ack, full", "two puts", Goal(">=", 0.5)),
        ),
        _queues,
    ),
    Benchmark(
        "pg-coordination",
        (
            Line("pg-lease", "lease taken and released, PostgreSQL", "put", Goal("<=", 2)),
            Line("pg-queue", "claim and ack, PostgreSQL", "two puts", Goal(">=", 0.5)),
        ),
        _on_postgres,
    ),
)
