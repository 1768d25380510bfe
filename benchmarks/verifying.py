"""How many entries a second `verify` reads and proves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import agentmem
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.server import postgres_server
from benchmarks.timing import Bench, interleave, require

__all__ = ["BENCHMARKS"]

_ENTRIES: Final = 100_000
_KEYS: Final = 20_000
_ROUNDS: Final = 5


def _filled(store: agentmem.Store, bench: Bench, each: int) -> int:
    """Fills a store by transactions of so many entries; returns how many entries it has."""
    commits = max(2, round(_ENTRIES * bench.scale / each))
    for commit in range(commits):
        with store.transaction() as tx:
            for number in range(each):
                value = {"n": commit, "text": f"some words {number} of an entry"}
                key = f"k{(commit * each + number) % _KEYS}"
                tx.put(key, value, overwrite=True)
    return commits * each


def _verified(store: agentmem.Store, bench: Bench, entries: int) -> Figure:
    def verify(_number: int) -> None:
        report = store.admin.verify()
        require(report.ok and report.entries == entries, f"{report}")

    samples = interleave(bench, _ROUNDS, {"verify": verify})["verify"]
    rate = entries / samples.median
    return Figure(rate, None, "/s", rate, "/s", len(samples.seconds))


def _verify(bench: Bench) -> Mapping[str, Figure]:
    found = {}
    for name, each in (("verify", 100), ("verify-short", 1)):
        path = bench.path(f"{name}.db")
        with agentmem.open(path, embedder=None, durability="relaxed") as store:
            found[name] = _verified(store, bench, _filled(store, bench, each))
    return found


def _verify_postgres(bench: Bench) -> Mapping[str, Figure]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(
            agentmem.open(server.new_store(), embedder=None, durability="relaxed")
        )
        return {"pg-verify": _verified(store, bench, _filled(store, bench, 100))}


BENCHMARKS: Final = (
    Benchmark(
        "verify",
        (
            Line("verify", "verify, 100 entries a commit", "", Goal(">=", 100_000)),
            Line("verify-short", "verify, 1 entry a commit", ""),
        ),
        _verify,
    ),
    Benchmark(
        "pg-verify",
        (Line("pg-verify", "PostgreSQL: verify, 100 entries a commit", "", Goal(">=", 100_000)),),
        _verify_postgres,
    ),
)
