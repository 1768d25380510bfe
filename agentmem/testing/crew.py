"""Worker processes that begin together and report over pipes."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from typing import Any, Final

__all__ = ["SILENCE_S", "Crew", "CrewError", "Step"]

Step = Callable[[int], None]
"""Called with the number of pieces of work that were done since the last call."""

SILENCE_S: Final = 120.0
"""A watchdog, not a measure: nobody is silent for so long unless something hangs."""


class CrewError(Exception):
    """A worker failed, died or fell silent."""


@dataclass(frozen=True)
class Crew:
    """Processes that run one function, begin together and report while they work.

    Attributes:
        target: ``target(report, begin, *arguments)`` of a module that can be imported; calls
            ``begin()`` once, which returns when all workers have called it.
        arguments: one tuple for each worker.
        method: how processes are started.
        revived: what a worker that was killed with `kill` is replaced with: the arguments of its
            successor, which begins at once.
    """

    target: Callable[..., None]
    arguments: Sequence[tuple[Any, ...]]
    method: str = "spawn"
    revived: Callable[[int], tuple[Any, ...]] | None = None
    _processes: dict[int, Any] = field(default_factory=dict, init=False)
    _open_ends: dict[Any, int] = field(default_factory=dict, init=False)
    _killed: set[int] = field(default_factory=set, init=False)

    def run(self, heard: Callable[[int, Any], None]) -> None:
        """Runs the workers until all have ended.

        Args:
            heard: called with (worker, report) for each report, in the order of each worker.

        Raises:
            CrewError: a worker raised, died or fell silent; the others are killed.
        """
        barrier = multiprocessing.get_context(self.method).Barrier(len(self.arguments))
        try:
            for number, arguments in enumerate(self.arguments):
                self._start(number, barrier, arguments)
            self._listen(heard)
        finally:
            for process in self._processes.values():
                process.kill()
                process.join()
            for end in self._open_ends:
                end.close()

    def kill(self, worker: int) -> None:
        """Kills a worker (SIGKILL) that has reported; what it had still said is heard."""
        self._killed.add(worker)
        self._processes[worker].kill()

    def _start(self, number: int, barrier: Barrier | None, arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context(self.method)
        end, far_end = context.Pipe(duplex=False)
        self._open_ends[end] = number
        process = context.Process(  # type: ignore[attr-defined]  # every context has it
            target=_work, args=(far_end, barrier, self.target, arguments), daemon=True
        )
        process.start()
        self._processes[number] = process
        far_end.close()

    def _listen(self, heard: Callable[[int, Any], None]) -> None:
        while self._open_ends:
            ready: list[Any] = wait(list(self._open_ends), timeout=SILENCE_S)
            if not ready:
                silent = sorted(self._open_ends.values())
                raise CrewError(f"workers {silent}: silent for {SILENCE_S} s")
            for end in ready:
                self._hear(end, heard)

    def _hear(self, end: Any, heard: Callable[[int, Any], None]) -> None:
        number = self._open_ends[end]
        try:
            message = end.recv()
        except (EOFError, OSError):  # OSError: killed in the middle of a message
            self._forget(end)
            self._processes[number].join()
            if number not in self._killed or self.revived is None:
                code = self._processes[number].exitcode
                raise CrewError(f"worker {number} died, exit code {code}") from None
            self._killed.remove(number)
            self._start(number, None, self.revived(number))
            return
        if message is None:
            self._forget(end)
            return
        failed, report = message
        if failed:
            raise CrewError(f"worker {number} failed:\n{report}")
        heard(number, report)

    def _forget(self, end: Any) -> None:
        self._open_ends.pop(end)
        end.close()


def _work(
    end: Connection,
    barrier: Barrier | None,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    def begin() -> object:
        return barrier.wait() if barrier is not None else None

    try:
        target(lambda report: end.send((False, report)), begin, *arguments)
    except BaseException:
        end.send((True, traceback.format_exc()))
        raise
    end.send(None)
