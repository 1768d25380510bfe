"""Many processes that ask for the same effects; some are killed in the middle of one."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import agentmem
from agentmem.testing.crew import SILENCE_S, Crew, Step

__all__ = ["ask_once"]

_HOLD_S: Final = 2.0  # so a machine under load kills nobody by being slow


def ask_once(
    target: str,
    folder: Path,
    *,
    keys: int,
    processes: int,
    deadly: int = 0,
    seed: int = 1,
    step: Step = lambda _done: None,
) -> list[str]:
    """Has every process ask for the effect of every key, in an order of its own.

    An effect adds a byte to a file, so that it can be counted.

    Args:
        target: a new store.
        folder: for the files.
        keys: how many effects.
        processes: how many ask.
        deadly: in so many of the effects the process is killed (SIGKILL).
        seed: of all choices.
        step: called with the calls that ended.

    Returns: what is wrong, in words.
    """
    with agentmem.open(target, embedder=None, durability="relaxed"):
        pass
    arguments = [(target, str(folder), keys, deadly, seed, worker) for worker in range(processes)]
    crew = Crew(_ask, arguments, revived=lambda worker: arguments[worker])
    told: dict[int, set[int]] = {key: set() for key in range(deadly)}
    ended: set[tuple[int, int]] = set()  # whoever follows one that was killed asks for all again

    def heard(worker: int, report: tuple[str, int]) -> None:
        what, number = report
        if what == "in the effect":
            crew.kill(worker)
            return
        if what == "unknown":
            told.setdefault(number, set()).add(worker)
        if (worker, number) not in ended:
            ended.add((worker, number))
            step(1)

    crew.run(heard)
    problems = [
        f"key {key} is unknown, and nobody was killed in it" for key in told if key >= deadly
    ]
    for key in range(keys):
        count = (folder / str(key)).stat().st_size
        if count != 1:
            problems.append(f"the effect of key {key} happened {count} times")
        if key < deadly and len(told[key]) != processes:
            problems.append(f"{len(told[key])} of {processes} heard that key {key} is unknown")
    with agentmem.open(target, embedder=None) as store:
        return problems + store.admin.verify().problems


def _ask(
    report: Callable[[Any], None],
    begin: Callable[[], object],
    target: str,
    folder: str,
    keys: int,
    deadly: int,
    seed: int,
    worker: int,
) -> None:
    order = list(range(keys))
    random.Random(f"{seed} {worker}").shuffle(order)  # noqa: S311  # chooses an order

    def effect(key: int) -> int:
        descriptor = os.open(os.path.join(folder, str(key)), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, b"x")
        os.close(descriptor)
        if key < deadly:
            report(("in the effect", key))
            time.sleep(SILENCE_S)
        return key * key

    with agentmem.open(target, embedder=None, durability="relaxed") as store:
        begin()
        for key in order:
            call = f"effect-{key}"
            try:
                result = store.once(call, lambda key=key: effect(key), hold_s=_HOLD_S)  # type: ignore[misc]  # bound now
            except agentmem.OutcomeUnknownError:
                report(("unknown", key))
                continue
            assert result == key * key, f"{call} gave {result}"
            report(("done", key))
