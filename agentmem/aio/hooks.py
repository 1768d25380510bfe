"""Merge hooks that are ``async def``, in a commit path that knows nothing of event loops.

A commit that needs one ends in its worker with `NeededError`, before anything was written. The task
that commits awaits the hook, on its own loop, and commits again; the answer is kept for as long as
the conflict is the same one::

    task                     worker
    ---------------------    ----------------------------------------
    awaits the commit        judged: key k conflicts, version 5 by ann
                             the hook is asked: NeededError, nothing is held
    awaits the hook
    awaits the commit        judged again: the same conflict, answered
                             committed

So a hook may use the store, take as long as a model takes, and be cancelled with its task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NoReturn

from agentmem.course import NeededError
from agentmem.merge.strategy import Unmergeable
from agentmem.model import DELETE, Conflict
from agentmem.values import canonical

__all__ = ["Answers", "HookAsk", "LoopHook", "answers_of_call"]

AsyncHook = Callable[[Conflict], Awaitable[Any]]


class Answers:
    """What hooks have answered in one call."""

    def __init__(self) -> None:
        self.known: dict[object, tuple[Any, Exception | None]] = {}
        self.asked: Counter[object] = Counter()


answers_of_call: ContextVar[Answers | None] = ContextVar("answers_of_call", default=None)
"""In a worker: what the call that it makes was answered so far."""


class LoopHook:
    """An async hook, as the commit path calls it."""

    def __init__(self, hook: AsyncHook, rounds: int) -> None:
        """Wraps it.

        Args:
            rounds: how often it may be asked for one key in one call.
        """
        self.hook = hook
        self.rounds = rounds

    def __call__(self, conflict: Conflict) -> Any:
        """Returns what the hook has answered.

        Raises:
            NeededError: it has to be asked first.
        """
        answers = answers_of_call.get() or Answers()
        place = (id(self), conflict.namespace, conflict.key)
        # The same write may be made anew, with another value, on the same versions.
        ours = conflict.ours if conflict.ours is DELETE else canonical(conflict.ours)
        which = (*place, conflict.base_version, conflict.current_version, ours)
        if which not in answers.known:
            raise NeededError(HookAsk(answers, self, conflict, place, which))
        value, error = answers.known[which]
        if error is not None:
            raise error
        return value


class HookAsk:
    """A hook to be awaited.

    Attributes:
        answers: where its answer is kept.
    """

    def __init__(
        self, answers: Answers, hook: LoopHook, conflict: Conflict, place: object, which: object
    ) -> None:
        self.answers = answers
        self._hook = hook
        self._conflict = conflict
        self._place = place
        self._which = which

    def perform(self) -> NoReturn:
        """No thread can do it: it is for the task that waits for the thread."""
        raise NeededError(self)

    async def answer(self) -> None:
        """Awaits the hook, and keeps what it returns or raises."""
        answers = self.answers
        answers.asked[self._place] += 1
        try:
            if answers.asked[self._place] > self._hook.rounds:
                raise Unmergeable(f"it moved {self._hook.rounds} times while it was merged")
            answers.known[self._which] = await self._hook.hook(self._conflict), None
        except Exception as error:  # noqa: BLE001  # raised where the hook is called
            answers.known[self._which] = None, error
