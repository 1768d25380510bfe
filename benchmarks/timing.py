"""How time is taken: all sides in turn, many small samples, medians.

The time of a write to disk drifts by a factor of ten with what else the machine does. So the sides
of a comparison take turns within every round, and only ratios of medians say anything.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import agentmem

__all__ = ["Bench", "Crowd", "Samples", "WrongResultError", "interleave", "require", "verify"]

_UPDATES: Final = 50  # of the progress bar, for each benchmark


class WrongResultError(Exception):
    """What was measured did not do what it should."""


def require(ok: bool, words: str) -> None:
    """Raises `WrongResultError` with those words unless it is so."""
    if not ok:
        raise WrongResultError(words)


def verify(store: agentmem.Store, revision: int) -> None:
    """Requires that a store holds exactly so many commits, and that its log is whole."""
    require(store.revision == revision, f"revision {store.revision}, not {revision}")
    report = store.admin.verify()
    require(report.ok, f"the log is not whole: {report.problems}")


@dataclass
class Bench:
    """Where a benchmark works, how much it does, and who is told how far it is.

    Attributes:
        folder: an empty folder of its own.
        scale: by which the number of samples is multiplied.
        progress: called with the fraction that is done.
        store: the URL of a PostgreSQL server; None for one of the benchmark's own.
        about: to it is added what was measured on, for the report.
    """

    folder: Path
    scale: float
    progress: Callable[[float], None]
    store: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """The path of a file in the folder."""
        return str(self.folder / name)

    def rounds(self, count: int) -> Iterator[int]:
        """Counts from 0 on, as many rounds as the scale makes of `count`; at least two."""
        rounds = max(2, round(count * self.scale))
        every = max(1, rounds // _UPDATES)
        for number in range(rounds):
            if number % every == 0:
                self.progress(number / rounds)
            yield number


@dataclass
class Samples:
    """The times that one side took, in seconds."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Half of the samples took less."""
        return statistics.median(self.seconds)


Step = Callable[[int], object]


def interleave(bench: Bench, count: int, sides: Mapping[str, Step]) -> dict[str, Samples]:
    """Times one call of each side in turn, round by round.

    Args:
        count: rounds at scale 1.
        sides: each is called with the number of the round.
    """
    clock = time.perf_counter
    samples = {name: Samples() for name in sides}
    turns = [(step, samples[name].seconds) for name, step in sides.items()]
    for number in bench.rounds(count):
        for step, seconds in turns:
            begun = clock()
            step(number)
            seconds.append(clock() - begun)
    return samples


class Crowd:
    """Threads that stay, so that what they open once is not measured again.

    Args:
        size: how many threads.
        step: called with the number of the thread; one piece of work.
    """

    def __init__(self, size: int, step: Callable[[int], object]) -> None:
        self.size = size
        self._step = step
        self._times = 0
        self._errors: list[BaseException] = []
        self._begin = threading.Barrier(size + 1)
        self._end = threading.Barrier(size + 1)
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(size)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._begin.abort()
        self._end.abort()
        for thread in self._threads:
            thread.join()

    def turn(self, times: int) -> Step:
        """`run` as the side of a comparison."""
        return lambda _round: self.run(times)

    def run(self, times: int) -> None:
        """Each thread does its piece of work so many times, all at once."""
        self._times = times
        self._begin.wait()
        self._end.wait()
        if self._errors:
            raise self._errors[0]

    def _work(self, number: int) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            while True:
                self._begin.wait()
                try:
                    for _ in range(self._times):
                        self._step(number)
                # Raised again by `run`, in the thread that waits for it.
                except BaseException as error:  # noqa: BLE001
                    self._errors.append(error)
                self._end.wait()
