"""What queues and their tasks look like from outside: how many there are, in which state."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agentmem.coordination.task_steps import BEHIND, DEAD, TIMED, TaskRow
from agentmem.engines.rows import Look, Moment
from agentmem.model import to_datetime
from agentmem.namespaces import decode
from agentmem.scope import Scope
from agentmem.values import load

if TYPE_CHECKING:
    from agentmem.core import Core

__all__ = ["QueueState", "QueuedTask", "queued_task", "queues_of"]


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task as it stands in a queue.

    Attributes:
        id: rises in the order in which tasks were put.
        payload: what was put, fresh.
        state: ``waiting``, ``delayed``, ``claimed``, ``behind`` (others of its group come
            first) or ``dead``.
        priority, group, op_id: as they were put.
        attempts, max_attempts: how often it was claimed, and after how many claims it is dead.
        token: of the claim that holds it; None: none does.
        agent: who claimed it last; None: nobody, or that was not told.
        put_by, put_at: who put it, and when.
        note: why it was given back, or is dead; None: nothing was said.
    """

    id: int
    payload: Any
    state: str
    priority: int
    group: str | None
    op_id: str | None
    attempts: int
    max_attempts: int
    token: int | None
    agent: str | None
    put_by: str | None
    put_at: datetime
    note: str | None


@dataclass(frozen=True, slots=True)
class QueueState:
    """How many tasks of a queue are in which state.

    Attributes:
        name: of the queue.
        scope: the namespace of the view that it belongs to; None: a view made from a mapping.
        waiting, delayed, claimed, behind, dead: as `QueuedTask.state`.
    """

    name: str
    scope: tuple[str, ...] | None
    waiting: int
    delayed: int
    claimed: int
    behind: int
    dead: int


QueuedTask.__module__ = QueueState.__module__ = "agentmem"


def queues_of(core: Core, scope: Scope) -> list[QueueState]:
    """See `Store.queues`."""
    core.check_open()
    rows = core.engine.look(Look("queues", (None if scope.is_root else scope.name,)))
    found: dict[tuple[str, str], Counter[str]] = {}
    for of_scope, queue, state, claimed, ready, count in rows:
        found.setdefault((of_scope, queue), Counter())[_state(state, claimed, ready)] += count
    return [
        QueueState(
            queue,
            None if of_scope.endswith("}") else decode(of_scope),
            *(counts[name] for name in ("waiting", "delayed", "claimed", "behind", "dead")),
        )
        for (of_scope, queue), counts in found.items()
    ]


def _state(state: int, claimed: bool | int, ready: bool | int) -> str:
    if state == DEAD:
        return "dead"
    if state == BEHIND:
        return "behind"
    if state == TIMED and not ready:
        return "claimed" if claimed else "delayed"
    return "waiting"


def queued_task(row: TaskRow, moment: Moment) -> QueuedTask:
    """A task as it stands in its queue at a moment."""
    timed = row.epoch is not None and row.ready_at is not None
    ready = timed and moment.has_passed(row.epoch or "", row.ready_at or 0)
    return QueuedTask(
        row.id,
        load(row.payload),
        _state(row.state, row.token is not None, ready),
        row.priority,
        row.group,
        row.op_id,
        row.attempts,
        row.max_attempts,
        row.token,
        row.agent,
        row.put_by,
        to_datetime(row.put_at),
        row.note,
    )
