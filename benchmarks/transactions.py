"""What further keys in a transaction cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import agentmem
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, interleave, require, verify

__all__ = ["BENCHMARKS"]

_SIZES: Final = (1, 10, 100)


def _writer(store: agentmem.Store, size: int) -> Callable[[int], None]:
    def write(number: int) -> None:
        with store.transaction() as tx:
            for key in range(size):
                tx.put(f"{size}-{number}-{key}", SMALL)

    return write


def _transactions(bench: Bench) -> Mapping[str, Figure]:
    with agentmem.open(bench.path("store.db"), embedder=None, durability="relaxed") as store:
        sides = {str(size): _writer(store, size) for size in _SIZES}
        samples = interleave(bench, 400, sides)
        rounds = len(samples["1"].seconds)
        verify(store, rounds * len(_SIZES))
        require(store.count() == rounds * sum(_SIZES), "not every key was written")
    return {
        f"transaction-{size}": Figure.cost(samples[str(size)], samples["1"]) for size in _SIZES[1:]
    }


BENCHMARKS: Final = (
    Benchmark(
        "transactions",
        (
            Line(
                "transaction-10",
                "10-key transaction, relaxed",
                "1-key transaction",
                Goal("<=", 4),
            ),
            Line("transaction-100", "100-key transaction, relaxed", "1-key transaction"),
        ),
        _transactions,
    ),
)
