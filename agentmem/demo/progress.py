"""How far the demo is: a bar on a terminal, a line for each race elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from agentmem.demo.stage import Watcher

__all__ = ["watching"]


@contextmanager
def watching(races: int) -> Iterator[Watcher]:
    """A watcher that writes to standard error, and leaves nothing on a terminal.

    Args:
        races: how often `Watcher.begin` will be called.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, races)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, races)


class _Lines:
    def __init__(self, console: Console, races: int) -> None:
        self._console, self._races, self._begun = console, races, 0

    def begin(self, words: str, steps: int) -> None:
        self._begun += 1
        text = f"[{self._begun}/{self._races}] {words}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self) -> None:
        """Not worth a line."""


class _Bar:
    def __init__(self, progress: Progress, races: int) -> None:
        self._progress = progress
        self._all = progress.add_task("all races", total=races)
        self._now = progress.add_task("", total=None, visible=False)
        self._begun = 0

    def begin(self, words: str, steps: int) -> None:
        self._progress.update(self._all, completed=self._begun)
        self._begun += 1
        self._progress.reset(self._now, description=words, total=steps, visible=True)

    def step(self) -> None:
        self._progress.advance(self._now)
