"""Tools that hand tasks to other agents, take them, and end them."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from agentmem import InvalidValueError, Transaction
from langchain_agentmem.desk import Answer, Desk
from langchain_agentmem.invocation import Invocation
from langchain_agentmem.paths import path_of
from langchain_agentmem.tool import Arguments, ToolKind
from langchain_agentmem.wording import value_text

__all__ = ["TASKS"]

_QUEUE: Final = "tasks"
_RESULTS: Final = "task_results"
_NAME: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class PutArguments(Arguments):
    """Of task_put."""

    payload: Any = Field(description="what to do: any JSON or text")
    queue: str = _QUEUE


def put(desk: Desk, call: Invocation, payload: Any, queue: str = _QUEUE) -> Answer:
    """Puts a task into a queue, once for this call."""
    id = desk.view.queue(queue).put(payload, op_id=call.op_id, agent=desk.who(call))
    return Answer(f"Task {id} is in queue {queue}.", facts={"queue": queue, "id": id})


class ClaimArguments(Arguments):
    """Of task_claim."""

    queue: str = _QUEUE
    task: str | SkipJsonSchema[None] = Field(None, description="one you have, to read on")
    offset: int = Field(0, ge=0)


def claim(
    desk: Desk, call: Invocation, queue: str = _QUEUE, task: str | None = None, offset: int = 0
) -> Answer:
    """Claims the next task, once for this call; or shows more of one that was claimed."""
    if task is not None:
        held = desk.view.queue(queue).task(*_numbers(task))
        return _shown(desk, queue, task, value_text(held.payload), offset, [])
    claimed = _claimed(desk, call, queue)
    if claimed is None:
        return Answer(f"No task is waiting in queue {queue}.", facts={"queue": queue})
    task = f"{claimed['id']}-{claimed['token']}"
    earlier = claimed["attempts"] - 1
    notes = [f"It was begun {earlier} times before and not finished."] if earlier else []
    return _shown(desk, queue, task, value_text(claimed["payload"]), offset, notes)


def _claimed(desk: Desk, call: Invocation, queue: str) -> dict[str, Any] | None:
    """What this call has claimed, now or before; None: there was nothing to claim.

    A claim is no part of a commit. What it got is committed under the call's operation id, and a
    replay is told that. If the process dies between the two, the replay gets the same task, as the
    claim has that operation id, too; unless the claim has ended meanwhile: then the task is there
    again, and the replay claims what comes next.
    """
    request = {"queue": queue}
    if call.op_id is not None:
        kept: dict[str, Any] | None = desk.result(call, request)
        if kept is not None:
            return kept
    task = desk.view.queue(queue).claim(desk.who(call), visibility_s=desk.claim_s, op_id=call.op_id)
    if task is None:
        return None
    got = {
        "id": task.id, "token": task.token, "payload": task.payload, "attempts": task.attempts,
    }  # fmt: skip
    if call.op_id is not None:
        desk.keep(call, request, got)
    return got


def _shown(
    desk: Desk, queue: str, task: str, payload: str, offset: int, notes: list[str]
) -> Answer:
    of_queue = "" if queue == _QUEUE else f" and queue={queue!r}"
    first = f"Task {task} of queue {queue} is yours for {desk.claim_s:g} s."
    heading = [first, f"When it is done, call task_done with task={task!r}{of_queue}.", *notes]
    rest = payload[offset:]

    def shown(length: int) -> str:
        text = "\n".join([*heading, rest[:length]])
        if length == len(rest):
            return text
        on = f"task_claim with task={task!r}{of_queue} and offset={offset + length}"
        return f"{text}\n[cut; to read on, call {on}]"

    length = max(desk.budget.most(shown, len(rest)), min(1, len(rest)))
    return Answer(shown(length), facts={"queue": queue, "task": task})


class DoneArguments(Arguments):
    """Of task_done."""

    task: str = Field(description="as task_claim named it")
    result: Any = Field(None, description="kept in memory, if given")
    queue: str = _QUEUE


def done(
    desk: Desk, call: Invocation, task: str, result: Any = None, queue: str = _QUEUE
) -> Answer:
    """Ends a task, and keeps its result, in one commit."""
    id, token = _numbers(task)
    place = (_RESULTS, queue), str(id)

    def end(tx: Transaction) -> None:
        desk.view.queue(queue).task(id, token).ack(tx)
        if result is not None:
            labels, key = place
            tx.put(key, result, namespace=labels, expected_version=0)

    commit = desk.commit(call, end, {"task": task, "result": result, "queue": queue})
    text = f"Task {task} is done."
    facts: dict[str, Any] = {"queue": queue, "task": task}
    if result is not None:
        text += f" Its result is kept as {path_of(place)}."
        facts |= {"key": path_of(place), "revision": commit.revision}
    return Answer(text, facts=facts)


def _numbers(task: str) -> tuple[int, int]:
    match = _NAME.fullmatch(task.strip())
    if match is None:
        raise InvalidValueError(f"task {task!r} is none: task_claim names them, like '7-12'")
    return int(match[1]), int(match[2])


TASKS: Final = (
    ToolKind("task_put", "Put a task into a queue for another agent.", PutArguments, put, True),
    ToolKind("task_claim", "Take the next task of a queue.", ClaimArguments, claim, True),
    ToolKind("task_done", "End a task you have.", DoneArguments, done, True),
)
