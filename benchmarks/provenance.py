"""What it costs to keep what a transaction has read, and to walk along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import agentmem
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, interleave, require, verify

__all__ = ["BENCHMARKS"]

_READ: Final = 1_000  # keys that are read, three a transaction
_READS: Final = 3


def _writer(store: agentmem.Store) -> Callable[[int], None]:
    def write(number: int) -> None:
        with store.transaction() as tx:
            for step in range(_READS):
                tx.get(f"read {(number * _READS + step) % _READ}")
            tx.put(f"written {number}", SMALL)

    return write


def _provenance(bench: Bench) -> Mapping[str, Figure]:
    with (
        agentmem.open(bench.path("on.db"), embedder=None, durability="relaxed") as on,
        agentmem.open(
            bench.path("off.db"), embedder=None, durability="relaxed", provenance=False
        ) as off,
    ):
        for store in (on, off):
            store.put_many({f"read {number}": SMALL for number in range(_READ)})
        sides = {"on": _writer(on), "off": _writer(off)}
        samples = interleave(bench, 3_000, sides)
        rounds = len(samples["on"].seconds)
        for store in (on, off):
            verify(store, rounds + 1)
        up = on.audit.lineage("written 0")
        require(len(up.edges) == _READS, "not every read was kept")
        require(off.audit.lineage("written 0").unkept == 1, "what was read was kept")
    return {"provenance": Figure.cost(samples["on"], samples["off"])}


BENCHMARKS: Final = (
    Benchmark(
        "provenance",
        (
            Line(
                "provenance",
                "1-key transaction with 3 reads, relaxed",
                "the same with provenance=False",
                Goal("<=", 1.3),
            ),
        ),
        _provenance,
    ),
)
