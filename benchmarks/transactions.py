"""What further keys in a transaction cost, and what it costs at its commit to have looked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

import agentmem
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, Samples, interleave, require, verify

__all__ = ["BENCHMARKS"]

_SIZES: Final = (1, 10, 100)
_ENTRIES: Final = 10_000
_SINCE: Final = 100  # keys that others write while a transaction is open
_DIMENSION: Final = 384
_PAGE: Final = 1_000
_K: Final = 10
_WORDS: Final = "flights to lisbon"


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


def _fill(store: agentmem.Store, count: int) -> NDArray[np.float32]:
    """Writes entries, of which the first few are what is looked for; gives their vector."""
    rng = np.random.default_rng(1)
    towards = rng.normal(size=_DIMENSION).astype(np.float32)
    for start in range(0, count, _PAGE):
        with store.transaction() as tx:
            for index in range(start, min(start + _PAGE, count)):
                text = _WORDS if index < _K else f"to be seen: garden, river and bridge {index}"
                vector = towards if index < _K else rng.normal(size=_DIMENSION)
                tx.put(f"k{index:06}", text, vector=vector)
    return towards


def _write_others(store: agentmem.Store, rng: np.random.Generator) -> None:
    """What is held against all that was found, and enters none of it."""
    with store.transaction() as tx:
        for index in range(_SINCE):
            text = f"flights over many other places than those {index}"
            tx.put(f"since{index}", text, vector=rng.normal(size=_DIMENSION))


def _judged(bench: Bench) -> Mapping[str, Figure]:
    path = bench.path("judged.db")
    with agentmem.open(path, embedder=None, index="exact", durability="relaxed") as store:
        towards = _fill(store, max(200, round(_ENTRIES * bench.scale)))
        looks: dict[str, Callable[[agentmem.Transaction], object]] = {
            "get": lambda tx: tx.get("k000000"),
            "list": lambda tx: tx.list(limit=_K),
            "words": lambda tx: tx.search(_WORDS, k=_K),
            "vector": lambda tx: tx.search(towards, k=_K),
        }
        samples = {name: Samples() for name in looks}
        rng = np.random.default_rng(2)
        for number in bench.rounds(100):
            for name, look in looks.items():
                with store.transaction() as tx:
                    look(tx)
                    tx.put("answer", number, text=False)
                    _write_others(store, rng)
                    begun = time.perf_counter()
                    tx.commit()
                    samples[name].seconds.append(time.perf_counter() - begun)
        answer = store.get("answer")
        rounds = len(looks) * len(samples["get"].seconds)
        require(answer is not None and answer.version == rounds, "not every one was committed")
    return {
        f"judged-{name}": Figure.cost(samples[name], samples["get"])
        for name in looks
        if name != "get"
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
    Benchmark(
        "judged",
        tuple(
            Line(
                f"judged-{name}",
                f"commit after {what}, 100 keys of 10,000 written since",
                "commit after get(), 100 keys written since",
            )
            for name, what in (
                ("list", "list(limit=10)"),
                ("words", "a search by words"),
                ("vector", "a search by vector"),
            )
        ),
        _judged,
    ),
)
