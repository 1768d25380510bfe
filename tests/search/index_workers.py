"""A builder of an index that is killed: ``python -m tests.search.index_workers STORE STEP``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentmem.search import generations
from agentmem.testing.indexes import indexed_store


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
    with indexed_store(path) as store:
        store.admin.index()


def kill_builder(path: Path, step: int) -> bool:
    """Has a process build the index, and die at a step; whether it did before it was done."""
    command = [sys.executable, "-m", "tests.search.index_workers", str(path), str(step)]
    code = subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode
    assert code in (0, -signal.SIGKILL), f"exit {code}"
    return code != 0


if __name__ == "__main__":
    build_and_die(sys.argv[1], int(sys.argv[2]))
