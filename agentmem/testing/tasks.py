"""Workers that are killed while they work through a queue; every result must be there once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import agentmem
from agentmem.testing.crew import Crew, Step

__all__ = ["TaskWork", "check_tasks", "work_through"]

_QUEUE: Final = "work"
_VISIBILITY_S: Final = 1.0
_MOST_ATTEMPTS: Final = 3
_BATCH: Final = 500  # tasks that are put in one transaction


@dataclass(frozen=True, slots=True)
class TaskWork:
    """How much, and how it is disturbed.

    Attributes:
        tasks: in all.
        processes: that work.
        kills: how often one of them is killed (SIGKILL) at a random moment.
        groups: into which half of the tasks fall.
        poisoned: each so many'th task fails whenever it is tried; 0: none.
        seed: of all choices.
    """

    tasks: int
    processes: int = 8
    kills: int = 20
    groups: int = 10
    poisoned: int = 250
    seed: int = 1

    def group_of(self, number: int) -> str | None:
        """The group of a task."""
        return f"group-{number % self.groups}" if number % 2 else None

    def is_poisoned(self, number: int) -> bool:
        """Whether a task fails."""
        return self.poisoned > 0 and number % self.poisoned == self.poisoned - 1


def work_through(target: str, work: TaskWork, step: Step = lambda _done: None) -> list[str]:
    """Puts the tasks and has them done.

    Returns: what is wrong, in words.
    """
    _fill(target, work)
    choice = random.Random(work.seed)  # noqa: S311  # chooses moments and victims
    every = max(1, work.tasks // (work.kills + 1))
    crew = Crew(
        _work,
        [(target, work, worker) for worker in range(work.processes)],
        revived=lambda worker: (target, work, worker),
    )
    done, killed = 0, 0

    def heard(worker: int, report: int) -> None:
        nonlocal done, killed
        done += report
        step(report)
        if killed < work.kills and done >= (killed + 1) * every:
            killed += 1
            crew.kill(choice.choice([worker, worker, (worker + 1) % work.processes]))

    crew.run(heard)
    step(work.tasks - done)  # of those who were killed before they could say it, and poisoned ones
    return check_tasks(target, work)


def _fill(target: str, work: TaskWork) -> None:
    with agentmem.open(target, embedder=None, durability="relaxed") as store:
        for first in range(0, work.tasks, _BATCH):
            with store.transaction() as tx:
                queue = tx.queue(_QUEUE, max_attempts=_MOST_ATTEMPTS)
                for number in range(first, min(first + _BATCH, work.tasks)):
                    queue.put(number, group=work.group_of(number), op_id=f"task-{number}")


def _work(
    report: Callable[[Any], None],
    begin: Callable[[], object],
    target: str,
    work: TaskWork,
    worker: int,
) -> None:
    with agentmem.open(target, embedder=None, durability="relaxed") as store:
        queue = store.queue(_QUEUE)
        begin()
        report(0)
        while len(queue):
            # Whoever was killed leaves its claim to run out.
            task = queue.claim(f"worker-{worker}", visibility_s=_VISIBILITY_S, wait_s=0.2)
            if task is None:
                continue
            if work.is_poisoned(task.payload):
                task.nack(note="poisoned")
                continue
            try:
                _finish(store, task)
            except agentmem.FencedError:
                continue  # its claim had ended, and another has it now
            report(1)


def _finish(store: agentmem.Store, task: agentmem.Task) -> None:
    with store.transaction() as tx:
        tx.increment(str(task.payload), namespace="results")
        if task.group is not None:
            tx.append(task.group, task.payload, namespace="groups")
        task.ack(tx)


def check_tasks(target: str, work: TaskWork) -> list[str]:
    """What is wrong with a store whose queue was worked through."""
    problems = []
    with agentmem.open(target, embedder=None) as store:
        queue = store.queue(_QUEUE)
        numbers = range(work.tasks)
        found = {entry.key: entry.value for entry in store.list("results")}
        for number in numbers:
            expected = 0 if work.is_poisoned(number) else 1
            count = found.get(str(number), 0)
            if count != expected:
                problems.append(f"the result of task {number} was committed {count} times")
        for entry in store.list("groups"):
            members = [
                each
                for each in numbers
                if work.group_of(each) == entry.key and not work.is_poisoned(each)
            ]
            if entry.value != members:
                problems.append(f"{entry.key} was not done in order, or not as a whole")
        dead = sorted(each.payload for each in queue.dead(work.tasks))
        if dead != [number for number in numbers if work.is_poisoned(number)]:
            problems.append(f"dead are {dead[:10]}")
        if len(queue):
            problems.append(f"{len(queue)} tasks are stuck")
        return problems + store.admin.verify().problems
