"""Queues: tasks that agents hand to each other; each is done once, whoever dies on the way."""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from agentmem.coordination.leases import checked_name, checked_wait
from agentmem.coordination.queue_states import QueuedTask, queued_task
from agentmem.coordination.task_steps import Claim, Discard, Put, PutAgain, TaskRow
from agentmem.coordination.tasks import Task, delay_microseconds
from agentmem.coordination.waking import LOOK_S, Waking
from agentmem.course import Course, Pause, drive
from agentmem.engines.rows import Look, Moment
from agentmem.errors import FencedError, InvalidValueError
from agentmem.scope import Scope
from agentmem.values import canonical, check_label_text, dump
from agentmem.writes import ttl_microseconds

if TYPE_CHECKING:
    from agentmem.core import Core
    from agentmem.transaction import Transaction

__all__ = ["MAX_ATTEMPTS", "Queue", "TransactionQueue", "queue_of"]

MAX_ATTEMPTS: Final = 5
_MOST_ATTEMPTS: Final = 1_000_000
_FINGERPRINT_BYTES: Final = 16
_PRIORITIES: Final = range(-(2**31), 2**31)


class Queue:
    """Tasks in order, of one view of the store; made by `Store.queue`. Safe for many threads.

    ::

        queue = store.queue("tasks")
        queue.put({"city": "Rome"}, op_id="plan-7:rome")

        while (task := queue.claim("worker-1", visibility_s=60)) is not None:
            with store.transaction() as tx:
                tx[task.payload["city"]] = research(task.payload)
                task.ack(tx)

    Tasks come by priority, then in the order in which they were put. A task whose worker dies is
    there again when its claim ends; if it was claimed `max_attempts` times in vain, it is dead.
    """

    __slots__ = ("_core", "_max_attempts", "_scope", "name")
    __module__ = "agentmem"

    def __init__(self, core: Core, scope: Scope, name: str, max_attempts: int) -> None:
        self._core = core
        self._scope = scope
        self._max_attempts = max_attempts
        self.name = name

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    def put(
        self,
        payload: object,
        *,
        op_id: str | None = None,
        delay_s: float = 0,
        priority: int = 0,
        group: str | None = None,
        agent: str | None = None,
    ) -> int:
        """Puts a task.

        Args:
            payload: JSON.
            op_id: puts once; a repeat puts nothing, even when the task is long done.
            delay_s: seconds before it can be claimed.
            priority: larger ones are claimed first.
            group: tasks of one group are done one after another, in the order in which they were
                put: while one is waiting, delayed or claimed, those after it wait.
            agent: who puts it.

        Returns: the id of the task; with a known op_id that of the first.

        Raises:
            OperationMismatchError: the op_id was used for another task of this queue.
        """
        step = self._putting(payload, op_id, delay_s, priority, group, agent)
        self._core.coordinate(step)
        return step.id

    def _putting(
        self,
        payload: object,
        op_id: str | None,
        delay_s: float,
        priority: int,
        group: str | None,
        agent: str | None,
    ) -> Put:
        self._scope.check_any("a queue")
        limits = self._core.limits
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise TypeError(f"priority is an int, not {type(priority).__name__}")
        if priority not in _PRIORITIES:
            raise InvalidValueError(f"priority is {priority}; it must fit into 32 bits")
        checked = check_label_text(agent, "agent", limits)
        text = dump(payload, limits, what="payload")
        group = check_label_text(group, "group", limits)
        delay_us = delay_microseconds(delay_s)
        body = canonical([text, priority, group, delay_us])
        return Put(
            self._scope.name,
            self.name,
            text,
            priority,
            group,
            delay_us,
            self._max_attempts,
            self._scope.agent if checked is None else checked,
            check_label_text(op_id, "op_id", limits),
            blake2b(body, digest_size=_FINGERPRINT_BYTES).digest(),
        )

    def claim(
        self,
        agent: str | None = None,
        *,
        visibility_s: float = 60,
        wait_s: float = 0,
        op_id: str | None = None,
    ) -> Task | None:
        """Claims the next task.

        Args:
            agent: who claims it.
            visibility_s: how long it is nobody else's; see `Task.extend`.
            wait_s: how long to wait for one.
            op_id: a repeat gets the task of the first claim, under the same token, while that
                claim runs: for who died before it had written down what it got. The claim ends
                when it would have ended. Once it has ended, or the task was acknowledged or given
                back, a repeat claims what comes next.

        Returns: the task; None: there is none to be had.

        Raises:
            OperationMismatchError: another agent holds a task under the op_id.
        """
        course = self.claiming(agent, visibility_s=visibility_s, wait_s=wait_s, op_id=op_id)
        return drive(course)

    def claiming(
        self,
        agent: str | None = None,
        *,
        visibility_s: float = 60,
        wait_s: float = 0,
        op_id: str | None = None,
    ) -> Course[Task | None]:
        """As `claim`."""
        self._scope.check_any("a queue")
        visibility_us = ttl_microseconds(visibility_s)
        if visibility_us is None:
            raise TypeError("visibility_s is a number of seconds: a claim ends")
        limits = self._core.limits
        who = check_label_text(agent, "agent", limits) or self._scope.agent
        op_id = check_label_text(op_id, "op_id", limits)
        step = Claim(self._scope.name, self.name, who, visibility_us, op_id)
        deadline = time.monotonic() + checked_wait(wait_s)
        waking = Waking(self._core.engine) if wait_s else None
        while True:
            self._core.coordinate(step)
            if step.task is not None:
                return Task(self._core, step.task, step.token, step.attempts, visibility_us)
            if step.buried:
                continue  # there is one task less each time
            if waking is None or not (yield from self._await_task(waking, deadline)):
                return None

    def _await_task(self, waking: Waking, deadline: float) -> Course[bool]:
        """Waits until there may be a task to claim; False: too late."""
        engine = self._core.engine
        name = (self._scope.name, self.name)
        while (now := time.monotonic()) < deadline:
            yield Pause(waking, min(deadline, now + self._quiet_s(name, engine.moment())))
            if engine.look(Look("next_task", name)):
                return True
        return False

    def _quiet_s(self, name: tuple[str, str], moment: Moment) -> float:
        """For how long no task comes by time alone; not long if that can be moved."""
        due = self._core.engine.look(Look("task_due", (*name, moment.epoch)))[0][0]
        return LOOK_S if due is None else min(LOOK_S, max(0.0, (due - moment.at) / 1_000_000))

    def task(self, id: int, token: int) -> Task:
        """A claim that was made elsewhere, by its numbers, to be acknowledged here.

        Raises:
            FencedError: it is not the latest claim of the task any more.
        """
        row = self._row(id)
        if row is None or row.token != token:
            current = 0 if row is None or row.token is None else row.token
            state = "is not there: it is done, or never was"
            if row is not None:
                state = "is not claimed" if row.token is None else f"is held under token {current}"
            raise FencedError(
                f"task {id} of {self.name!r} {state}; token {token} counts no more: claim the next",
                token=token,
                current_token=current,
            )
        return Task(self._core, row, token, row.attempts, 60_000_000)

    def _row(self, id: int) -> TaskRow | None:
        rows = self._core.engine.look(Look("task", (id,)))
        row = TaskRow._make(rows[0]) if rows else None
        mine = row is not None and (row.scope, row.queue) == (self._scope.name, self.name)
        return row if mine else None

    def __len__(self) -> int:
        """How many tasks there are, waiting, delayed, claimed and behind others; not dead ones."""
        self._core.check_open()
        return int(self._core.engine.look(Look("task_count", self._key))[0][0])

    def __bool__(self) -> bool:
        """True: an empty queue is a queue."""
        return True

    @property
    def _key(self) -> tuple[str, str]:
        return self._scope.name, self.name

    def peek(self, limit: int = 10) -> list[QueuedTask]:
        """The tasks that are not done, by priority and age, with their states; claims none."""
        return self._listed("tasks", limit)

    def dead(self, limit: int = 100) -> list[QueuedTask]:
        """The tasks that were claimed too often and are not tried any more, oldest first."""
        return self._listed("dead_tasks", limit)

    def _listed(self, name: str, limit: int) -> list[QueuedTask]:
        self._core.check_open()
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise InvalidValueError(f"limit is a whole number from 0 on, not {limit!r}")
        moment = self._core.engine.moment()
        rows = self._core.engine.look(Look(name, (*self._key, limit)))
        return [queued_task(TaskRow._make(row), moment) for row in rows]

    def put_again(self, id: int) -> int:
        """Puts a dead task at the end of the queue, its attempts not counted; returns its new id.

        Raises:
            InvalidValueError: no dead task of this queue has that id.
        """
        self._scope.check_any("a queue")
        step = PutAgain(self._scope.name, self.name, id)
        self._core.coordinate(step)
        return step.new_id

    def discard(self, id: int) -> None:
        """Forgets a dead task.

        Raises:
            InvalidValueError: no dead task of this queue has that id.
        """
        self._scope.check_any("a queue")
        self._core.coordinate(Discard(self._scope.name, self.name, id))


class TransactionQueue:
    """A queue inside a transaction: what is put is there when it commits. See `Queue`."""

    __slots__ = ("_core", "_queue", "_tx")
    __module__ = "agentmem"

    def __init__(self, tx: Transaction, core: Core, queue: Queue) -> None:
        self._tx = tx
        self._core = core
        self._queue = queue

    def put(
        self,
        payload: object,
        *,
        op_id: str | None = None,
        delay_s: float = 0,
        priority: int = 0,
        group: str | None = None,
        agent: str | None = None,
    ) -> None:
        """Puts a task with the transaction's commit; see `Queue.put`.

        Raises:
            OperationMismatchError: this transaction puts another task under the op_id; that it
                was used before is found by the commit.
        """
        step = self._queue._putting(payload, op_id, delay_s, priority, group, agent)
        name = f"{id(step)}" if op_id is None else f"{op_id} {step.queue}"
        kind = "put" if op_id is None else "put once"
        first = self._tx.add_step(self._core, (kind, step.scope, name), step)
        if isinstance(first, Put) and first.fingerprint != step.fingerprint:
            self._tx.add_step(self._core, (kind, step.scope, name), first)
            raise step.mismatch()


def queue_of(core: Core, scope: Scope, name: object, max_attempts: object) -> Queue:
    """See `Store.queue`."""
    if isinstance(max_attempts, bool) or not isinstance(max_attempts, int):
        raise TypeError(f"max_attempts is an int, not {type(max_attempts).__name__}")
    if not 1 <= max_attempts <= _MOST_ATTEMPTS:
        raise InvalidValueError(f"max_attempts is {max_attempts}; it is at least 1")
    return Queue(core, scope, checked_name(name, "a queue", scope), max_attempts)
