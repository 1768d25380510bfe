"""Tasks that were claimed: to be acknowledged in time, or given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentmem.coordination.steps import Step
from agentmem.coordination.task_steps import Ack, Extend, Nack, TaskRow
from agentmem.values import check_label_text, load
from agentmem.writes import ttl_microseconds

if TYPE_CHECKING:
    from agentmem.core import Core
    from agentmem.transaction import Transaction

__all__ = ["Task", "delay_microseconds"]


class Task:
    """A task that was claimed: to be acknowledged in time, or given back.

    If neither happens before its claim ends, the next may claim it. It can still be acknowledged
    then, unless it was claimed again: each claim has a token, and only that of the latest counts.

    Attributes:
        id, payload, priority, group: of the task.
        attempts: how often it was claimed, this claim included.
        max_attempts: after how many it is dead.
        token: of this claim; larger than those of all claims before.
        queue: the name of its queue.
    """

    __slots__ = (
        "_core", "_scope", "_visibility_us", "attempts", "group", "id", "max_attempts", "payload",
        "priority", "queue", "token",
    )  # fmt: skip
    __module__ = "agentmem"

    def __init__(
        self, core: Core, row: TaskRow, token: int, attempts: int, visibility_us: int
    ) -> None:
        self._core = core
        self._scope = row.scope
        self._visibility_us = visibility_us
        self.queue = row.queue
        self.id = row.id
        self.payload = load(row.payload)
        self.priority = row.priority
        self.group = row.group
        self.attempts = attempts
        self.max_attempts = row.max_attempts
        self.token = token

    def __repr__(self) -> str:
        return f"Task({self.id}, queue={self.queue!r}, attempts={self.attempts})"

    def ack(self, tx: Transaction | None = None) -> None:
        """Ends the task: it is done.

        Args:
            tx: do it with this transaction's commit, together with what that writes, or not at all.

        Raises:
            FencedError: it was claimed again, acknowledged, given back, or is dead. With `tx`, its
                commit raises it, and writes nothing.
        """
        self._do(Ack(self._scope, self.queue, self.id, self.token), tx)

    def nack(
        self, delay_s: float = 0, *, note: str | None = None, tx: Transaction | None = None
    ) -> None:
        """Gives the task back, to be claimed again; after its last attempt it is dead.

        Args:
            delay_s: seconds before it can be claimed again.
            note: why, kept with it.
            tx: as for `ack`.

        Raises:
            FencedError: as `ack`.
        """
        note = check_label_text(note, "note", self._core.limits)
        delay_us = delay_microseconds(delay_s)
        self._do(Nack(self._scope, self.queue, self.id, self.token, delay_us, note), tx)

    def extend(self, visibility_s: float | None = None) -> None:
        """Lets the claim run on from now.

        Args:
            visibility_s: for so long; None: as long as it was claimed for.

        Raises:
            FencedError: as `ack`.
        """
        visibility_us = ttl_microseconds(visibility_s) or self._visibility_us
        self._do(Extend(self._scope, self.queue, self.id, self.token, visibility_us), None)

    def _do(self, step: Step, tx: Transaction | None) -> None:
        if tx is None:
            self._core.coordinate(step)
        else:
            tx.add_step(self._core, ("task", self._scope, f"{self.id} {self.queue}"), step)


def delay_microseconds(delay_s: float) -> int | None:
    """A delay in microseconds; None: none."""
    if delay_s == 0 and not isinstance(delay_s, bool):
        return None
    return ttl_microseconds(delay_s)
