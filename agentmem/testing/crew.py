"""Worker processes that begin together and report over pipes."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """

    target: Callable[..., None]
    arguments: Sequence[tuple[Any, ...]]
    method: str = "spawn"

    def run(self, heard: Callable[[int, Any], None]) -> None:
        """Runs the workers until all have ended.

        Args:
            heard: called with (worker, report) for each report, in the order of each worker.

        Raises:
            CrewError: a worker raised, died or fell silent; the others are killed.
        """
        context = multiprocessing.get_context(self.method)
        barrier = context.Barrier(len(self.arguments))
        processes: list[Any] = []
        open_ends: dict[Any, int] = {}
        try:
            for number, arguments in enumerate(self.arguments):
                end, far_end = context.Pipe(duplex=False)
                open_ends[end] = number
                process = context.Process(  # type: ignore[attr-defined]  # every context has it
                    target=_work, args=(far_end, barrier, self.target, arguments), daemon=True
                )
                process.start()
                processes.append(process)
                far_end.close()
            _listen(open_ends, heard)
        finally:
            for process in processes:
                process.kill()
                process.join()
            for end in open_ends:
                end.close()


def _work(
    end: Connection, barrier: Barrier, target: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    try:
        target(lambda report: end.send((False, report)), barrier.wait, *arguments)
    except BaseException:
        end.send((True, traceback.format_exc()))
        raise
    end.send(None)


def _listen(open_ends: dict[Any, int], heard: Callable[[int, Any], None]) -> None:
    while open_ends:
        ready: list[Any] = wait(list(open_ends), timeout=SILENCE_S)
        if not ready:
            raise CrewError(f"workers {sorted(open_ends.values())}: silent for {SILENCE_S} s")
        for end in ready:
            number = open_ends[end]
            try:
                message = end.recv()
            except EOFError:
                raise CrewError(f"worker {number} died") from None
            if message is None:
                open_ends.pop(end)
                end.close()
                continue
            failed, report = message
            if failed:
                raise CrewError(f"worker {number} failed:\n{report}")
            heard(number, report)
