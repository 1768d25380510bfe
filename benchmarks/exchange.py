"""A store out and back in: backups beside SQLite's own, exports and loads of a whole history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import agentmem
from agentmem.engines.sqlite.driver import driver
from benchmarks.report import Benchmark, Figure, Line
from benchmarks.timing import Bench, interleave, require

__all__ = ["BENCHMARKS"]

_ENTRIES: Final = 20_000
_EACH: Final = 10  # entries of a commit
_ROUNDS: Final = 7
_TEXT: Final = "what an agent has noted about the trip to Lisbon, and whom it may concern " * 3


def _exchange(bench: Bench) -> Mapping[str, Figure]:
    size = _EACH * max(1, int(_ENTRIES * min(1.0, bench.scale)) // _EACH)
    with agentmem.open(bench.path("store.db"), embedder=None, durability="relaxed") as store:
        for first in range(0, size, _EACH):
            numbers = range(first, first + _EACH)
            store.put_many({f"k{n % 5_000}": {"n": n, "note": _TEXT} for n in numbers}, agent="a")
        lines, copy, plain = (bench.path(name) for name in ("a.jsonl", "b.db", "c.db"))
        loaded: list[Path] = []

        def load(number: int) -> None:
            loaded.append(bench.path(f"loaded-{number}.db"))
            with agentmem.open(loaded[-1], embedder=None) as target:
                target.admin.load(lines)

        def bare(_number: int) -> None:
            with driver.connect(plain) as target:
                store._core.engine._read(lambda c: c.backup(target))  # type: ignore[attr-defined]  # of a file
            target.close()

        sides: dict[str, Callable[[int], Any]] = {
            "export": lambda _number: store.admin.export(lines, overwrite=True),
            "load": load,
            "backup": lambda _number: store.admin.backup(copy, overwrite=True),
            "bare": bare,
            "verify": lambda _number: store.admin.verify(),
        }
        samples = interleave(bench, _ROUNDS, sides)
        for path in (copy, loaded[-1]):
            with agentmem.open(path, embedder=None) as other:
                require(other.snapshot().list() == store.list(), f"{path} is another store")
    read = samples["verify"]
    return {
        "exchange-export": Figure.speed(samples["export"], read, size, size),
        "exchange-load": Figure.speed(samples["load"], read, size, size),
        "exchange-backup": Figure.speed(samples["backup"], samples["bare"], size, size),
    }


BENCHMARKS: Final = (
    Benchmark(
        "exchange",
        (
            Line("exchange-export", "export of a history to a file", "verify of the store"),
            Line("exchange-load", "load: checked, written, verified", "verify of the store"),
            Line("exchange-backup", "backup: copied, verified, synced", "SQLite's backup alone"),
        ),
        _exchange,
    ),
)
