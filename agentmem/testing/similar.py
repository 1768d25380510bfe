"""Many agents that add the same at once: of near-duplicates, one must be stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

import agentmem
from agentmem.testing.crew import Crew, Step

__all__ = ["add_similar", "check_similar"]

_DIMENSION = 32
_NOISE = 0.01
_SIMILAR = 0.95


def _thing(item: int) -> NDArray[np.float64]:
    return np.random.default_rng(item).normal(size=_DIMENSION)


def add_similar(
    target: str, *, processes: int, items: int, seed: int, step: Step = lambda _done: None
) -> None:
    """Has every process add its own near-duplicate of every item, in an order of its own."""
    with agentmem.open(target, embedder=None, durability="relaxed"):
        pass
    Crew(_add_all, [(target, worker, items, seed) for worker in range(processes)]).run(
        lambda _worker, done: step(done)
    )


def _add_all(
    report: Callable[[int], None],
    begin: Callable[[], object],
    target: str,
    worker: int,
    items: int,
    seed: int,
) -> None:
    rng = np.random.default_rng([seed, worker])
    with agentmem.open(target, embedder=None, durability="relaxed") as store:
        begin()
        for item in rng.permutation(items).tolist():
            vector = _thing(item) + rng.normal(scale=_NOISE, size=_DIMENSION)
            store.add({"item": item}, vector=vector, similar=_SIMILAR, agent=f"agent-{worker}")
            report(1)


def check_similar(target: str, items: int) -> Sequence[str]:
    """What is wrong with a store that `add_similar` has filled."""
    with agentmem.open(target, embedder=None) as store:
        found = sorted(entry.value["item"] for entry in store.list())
        twice = sorted({item for item in found if found.count(item) > 1})
        problems = [f"item {item} is stored {found.count(item)} times" for item in twice]
        problems += [f"item {item} is missing" for item in sorted(set(range(items)) - set(found))]
        return problems + store.admin.verify().problems
