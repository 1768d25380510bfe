"""What the processes of the index tests do."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import agentmem
from agentmem.search import generations

DIMENSION = 8


def vector(number: int) -> NDArray[np.float32]:
    """The vector of a number; near those of its neighbours in no way."""
    found: NDArray[np.float32] = np.random.default_rng(number).normal(size=DIMENSION)
    return found.astype(np.float32)


def opened(path: str) -> agentmem.Store:
    """A store whose searches use an index."""
    return agentmem.open(path, embedder=None, index="chroma", durability="relaxed")


def build_and_die(path: str, after: int) -> None:
    """Builds an index, and is killed at one of the steps that change a file."""
    left = after

    def step(original: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        return counted

    generations._sync = step(generations._sync)
    generations._sync_folder = step(generations._sync_folder)
    generations._manifest = step(generations._manifest)
    generations._link = step(generations._link)
    generations.shutil.copytree = step(generations.shutil.copytree)  # type: ignore[attr-defined]
    os.rename = step(os.rename)
    fill = generations._fill

    def filled(folder: str, gone: Any, added: Any, dimension: int) -> int:
        def batches() -> Iterator[Any]:
            for ids, rows in added:
                for start in range(0, len(ids), 50):
                    step(lambda: None)()
                    yield ids[start : start + 50], rows[start : start + 50]

        return fill(folder, gone, batches(), dimension)

    generations._fill = filled
    with opened(path) as store:
        store.admin.index()


def search_on(path: str, rounds: int) -> None:
    """Searches, and holds every answer against a look at all entries."""
    rng = np.random.default_rng(os.getpid())
    with opened(path) as store:
        for _round in range(rounds):
            snap = store.snapshot()
            query = rng.normal(size=DIMENSION).astype(np.float32)
            hits = snap.search(query, k=5)
            entries = snap.list()
            rows = np.array([vector(entry.value["n"]) for entry in entries])
            near = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
            best = [entries[index].key for index in np.argsort(-near)[:5]]
            if len({hit.entry.key for hit in hits} & set(best)) < min(4, len(best)):
                sys.exit(f"at revision {snap.revision}: {hits} instead of {best}")
            for hit in hits:
                expected = near[[entry.key for entry in entries].index(hit.entry.key)]
                if abs(hit.score - expected) > 1e-5:
                    sys.exit(f"{hit} scores {hit.score}, not {expected}")


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build_and_die(sys.argv[2], int(sys.argv[3]))
    else:
        search_on(sys.argv[2], int(sys.argv[3]))
