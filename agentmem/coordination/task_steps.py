"""What is asked of queues, under the store's lock.

A task waits, is claimed for a while, and is acknowledged, which ends it, or given back. Claimed too
often, it is dead. Of a group only the oldest task can be had; the others stand behind it until it
is acknowledged or dead. ::

    state     can be claimed                  becomes
    ------    ----------------------------    ---------------------------------------------
    waits     now                             timed by a claim
    timed     when its delay or claim ends    gone by an ack, waits or timed by a nack, dead
    behind    never                           waits or timed, when those before it are gone
    dead      never                           waits, when it is put again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentmem.coordination.steps import Desk, SmallChange, Subject, fenced
from agentmem.engines.rows import (
    Answer,
    Change,
    Look,
)
from agentmem.errors import InvalidValueError, OperationMismatchError

__all__ = ["Ack", "Claim", "Discard", "Extend", "Nack", "Put", "PutAgain", "TaskRow"]

WAITS, TIMED, BEHIND, DEAD = range(4)


class TaskRow(NamedTuple):
    """One row of ``tasks``; ``queue`` without its scope is not a name."""

    id: int
    scope: str
    queue: str
    state: int
    priority: int
    group: str | None
    payload: str
    op_id: str | None
    put_by: str | None
    put_at: int
    attempts: int
    max_attempts: int
    token: int | None
    agent: str | None
    epoch: str | None
    ready_at: int | None
    note: str | None


@dataclass(slots=True, eq=False)
class _QueueStep(SmallChange):
    scope: str
    queue: str

    @property
    def subject(self) -> Subject:
        return "queue", self.scope, self.queue

    @property
    def _named(self) -> dict[str, Any]:
        return {"scope": self.scope, "queue": self.queue}

    def _after(self, group: str | None) -> list[Change]:
        """Lets the next of the group come forward, once its head is gone."""
        return [] if group is None else [Change("open_group", self._named | {"task_group": group})]


@dataclass(slots=True, eq=False)
class Put(_QueueStep):
    """Puts a task, unless its op_id was used before.

    Attributes:
        payload: JSON text.
        delay_us: before it can be claimed; None: at once.
        fingerprint: of the task, if it has an op_id.
        id: of the task, once it is judged.
    """

    payload: str
    priority: int
    group: str | None
    delay_us: int | None
    max_attempts: int
    agent: str | None
    op_id: str | None
    fingerprint: bytes
    id: int = 0

    @property
    def size(self) -> int:
        return len(self.payload)

    def looks(self) -> Sequence[Look]:
        if self.op_id is None:
            return ()
        return (Look("task_operation", (self.scope, self.queue, self.op_id)),)

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        if answers and answers[0]:
            self.id, first = answers[0][0]
            if first != self.fingerprint:
                raise self.mismatch()
            return []
        self.id = desk.number()
        values = {
            "id": self.id, "priority": self.priority, "task_group": self.group,
            "payload": self.payload, "op_id": self.op_id, "put_by": self.agent,
            "put_at": desk.now, "max_attempts": self.max_attempts,
        }  # fmt: skip
        changes = [Change("put_task", self._named | values | _delayed(desk, self.delay_us))]
        if self.op_id is not None:
            operation = {"op_id": self.op_id, "task_id": self.id, "fingerprint": self.fingerprint}
            changes.append(Change("note_operation", self._named | operation))
        return changes

    def mismatch(self) -> OperationMismatchError:
        """The error for an op_id of another task."""
        return OperationMismatchError(
            f"op_id {self.op_id!r} was used to put another task into {self.queue!r}; "
            "nothing was put: give each task its own op_id",
            op_id=self.op_id or "",
            revision=0,
        )


def _delayed(desk: Desk, delay_us: int | None) -> dict[str, Any]:
    """When a task can be had; for another epoch of the clock by the time of day."""
    if delay_us is None:
        return {"epoch": None, "ready_at": None, "due_at": None}
    epoch, at = desk.moment
    return {"epoch": epoch, "ready_at": at + delay_us, "due_at": desk.now + delay_us}


@dataclass(slots=True, eq=False)
class Claim(_QueueStep):
    """Claims the next task, if there is one; or finds what its op_id holds already.

    Attributes:
        task: as it was found; None: there is none to be had, or it was buried.
        token: of the claim.
        attempts: how often the task was claimed, this claim included.
        buried: the next task was claimed too often and is dead now; ask again.
    """

    agent: str | None
    visibility_us: int
    op_id: str | None = None
    task: TaskRow | None = None
    token: int = 0
    attempts: int = 0
    buried: bool = False

    def looks(self) -> Sequence[Look]:
        following = Look("next_task", (self.scope, self.queue))
        if self.op_id is None:
            return (following,)
        return following, Look("claim_operation", (self.scope, self.queue, self.op_id))

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self.task, self.buried = None, False
        changes: list[Change] = []
        if self.op_id is not None and answers[1]:
            earlier = TaskRow._make(answers[1][0])
            if not desk.moment.has_passed(earlier.epoch or "", earlier.ready_at or 0):
                self._repeat(earlier)
                return []
            # It has ended. Who made it may still acknowledge, but what it is repeated for is new.
            changes.append(Change("forget_claim", {"id": earlier.id}))
        if not answers[0]:
            return []
        found = TaskRow._make(answers[0][0])
        if found.attempts >= found.max_attempts:
            self.buried = True
            note = f"claimed {found.attempts} times, and never acknowledged in time"
            bury = Change("bury_task", {"id": found.id, "note": found.note or note})
            return [bury, *self._after(found.group)]
        self.task, self.token, self.attempts = found, desk.number(), found.attempts + 1
        epoch, at = desk.moment
        until = {"epoch": epoch, "ready_at": at + self.visibility_us}
        claim = {"id": found.id, "token": self.token, "agent": self.agent, "op_id": self.op_id}
        return [*changes, Change("claim_task", claim | until)]

    def _repeat(self, earlier: TaskRow) -> None:
        """Takes what the op_id has claimed and still holds. Nothing is written: it runs on."""
        if earlier.agent != self.agent:
            raise OperationMismatchError(
                f"op_id {self.op_id!r} was used by {earlier.agent!r} to claim from "
                f"{self.queue!r}; nothing was claimed: give each claim its own op_id",
                op_id=self.op_id or "",
                revision=0,
            )
        self.task, self.token, self.attempts = earlier, earlier.token or 0, earlier.attempts


@dataclass(slots=True, eq=False)
class _TaskStep(_QueueStep):
    id: int

    def looks(self) -> Sequence[Look]:
        return (Look("task", (self.id,)),)

    def _found(self, answer: Answer) -> TaskRow | None:
        found = TaskRow._make(answer[0]) if answer else None
        mine = found is not None and (found.scope, found.queue) == (self.scope, self.queue)
        return found if mine else None


@dataclass(slots=True, eq=False)
class _ClaimStep(_TaskStep):
    """What only the latest claim of a task may do, even past its end."""

    token: int

    def _claimed(self, answer: Answer) -> TaskRow:
        found = self._found(answer)
        if found is None or found.token != self.token:
            current = 0 if found is None or found.token is None else found.token
            what = f"task {self.id} of {self.queue!r}"
            raise fenced(what, self.token, current, "acknowledged, given back, or is dead")
        return found


@dataclass(slots=True, eq=False)
class Ack(_ClaimStep):
    """Ends a task that is done."""

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        found = self._claimed(answers[0])
        return [Change("end_task", {"id": self.id}), *self._after(found.group)]


@dataclass(slots=True, eq=False)
class Nack(_ClaimStep):
    """Gives a task back; dead, if that was its last attempt.

    Attributes:
        delay_us: before it can be claimed again; None: at once.
        note: why.
    """

    delay_us: int | None
    note: str | None

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        found = self._claimed(answers[0])
        back = {"id": self.id, "note": self.note}
        if found.attempts >= found.max_attempts:
            return [Change("bury_task", back), *self._after(found.group)]
        return [Change("give_task_back", back | _delayed(desk, self.delay_us))]


@dataclass(slots=True, eq=False)
class Extend(_ClaimStep):
    """Lets a claim run on from now."""

    visibility_us: int

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self._claimed(answers[0])
        epoch, at = desk.moment
        until = {"epoch": epoch, "ready_at": at + self.visibility_us}
        return [Change("extend_task", {"id": self.id} | until)]


@dataclass(slots=True, eq=False)
class _DeadStep(_TaskStep):
    def _dead(self, answer: Answer) -> TaskRow:
        found = self._found(answer)
        if found is None or found.state != DEAD:
            raise InvalidValueError(
                f"no dead task of {self.queue!r} has the id {self.id}; look at those that are dead"
            )
        return found


@dataclass(slots=True, eq=False)
class PutAgain(_DeadStep):
    """Puts a dead task at the end of the queue, under a new id."""

    new_id: int = 0

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self._dead(answers[0])
        self.new_id = desk.number()
        return [Change("revive_task", {"id": self.id, "new_id": self.new_id})]


@dataclass(slots=True, eq=False)
class Discard(_DeadStep):
    """Forgets a dead task."""

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self._dead(answers[0])
        return [Change("end_task", {"id": self.id})]
