"""The same turns on agentmem. Each function stands beside its namesake in `uncoordinated`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import agentmem
from agentmem.demo.channel import Channel
from agentmem.demo.protected import Protected
from agentmem.demo.scenario import TURN_S

__all__ = ["WAYS"]

_LONG_TURN_S: Final = 60.0
_PATIENCE_S: Final = 60.0
_CLAIM_S: Final = 60.0
_DEAD_CLAIM_S: Final = 1.0  # so long a killed worker's job is nobody else's
_LOOK_S: Final = 0.1
_FOLLOWER: Final = "follower"


def _deploy(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    agent, is_stopped, number = task["agent"], task["is_stopped"], task["release"]
    turn_s = TURN_S if is_stopped else _LONG_TURN_S
    lease = memory.store.lease("deploy", ttl_s=turn_s, wait_s=_PATIENCE_S, agent=agent).acquire()
    if is_stopped:
        channel.hold()
    op_id, note = f"{agent}:release-{number}", f"release {number}"
    try:
        with memory.store.transaction(agent=agent, op_id=op_id, note=note) as tx:
            tx.guard(lease)
            tx.put("release", number)
    except agentmem.FencedError:
        return 1
    finally:
        lease.release()
    return 0


def _ready(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    """This process has started, and has the store open."""
    return 0


def _queue(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    agent, queue, again = task["agent"], memory.store.queue("jobs"), 0
    claim_s = _DEAD_CLAIM_S if task["dies"] else _CLAIM_S
    while len(queue):
        job = queue.claim(agent, visibility_s=claim_s, wait_s=_LOOK_S)
        if job is None:
            continue  # all that are left are claimed by others, who may be dead
        with memory.store.transaction(agent=agent, note=f"{agent} has read it") as tx:
            tx.append("jobs_done", {"what": job.payload, "by": agent})
            if task["dies"]:
                channel.halt_in_the_middle()
            job.ack(tx)
        again += job.attempts > 1
        channel.step()
    return again


def _note(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    agent, note, is_late = task["agent"], task["note"], task["is_late"]

    def begun() -> agentmem.Transaction:
        tx = memory.store.transaction(agent=agent, op_id=f"note:{note}", note="a note")
        tx.put(note, {"by": agent}, namespace="notes")
        return tx

    if is_late is None:
        begun().commit()
        channel.step()
        return 0
    tx = begun()
    channel.meet()
    if not is_late:
        tx.commit()
    channel.meet()
    channel.meet()
    if is_late:
        tx.commit()
    channel.meet()
    channel.step()
    return 0


def _follow(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    store = memory.store
    # Whoever starts a new follower knows that the last one is dead, and need not wait for it.
    store.break_consumer(_FOLLOWER)
    with store.watch("notes", 0, _FOLLOWER, agent=task["agent"]) as feed:
        if task["meets"]:
            channel.meet()  # the late ones have begun
            channel.meet()  # the others have written
            _answer(channel, memory, feed, task)
            channel.meet()
            channel.meet()  # the late ones have written
        _answer(channel, memory, feed, task)
    channel.step()
    return 0


def _answer(channel: Channel, memory: Protected, feed: agentmem.Feed, task: dict[str, Any]) -> None:
    agent = task["agent"]
    while (event := feed.next(timeout_s=0)) is not None:
        (note,) = (change.key for change in event.changes)
        with memory.store.transaction(agent=agent, note=f"answers {note}") as tx:
            tx.append("answers", {"what": note, "by": agent})
            if task["dies"]:
                channel.halt_in_the_middle()
            tx.ack(event)


def _ask(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    agent, calls = task["agent"], 0

    @memory.store.cached_tool(name="search")
    def search(question: str) -> str:
        nonlocal calls
        calls += 1
        # It is paid for, each time anew: nothing but the cache keeps it from happening twice.
        memory.store.append(
            "tool_calls",
            {"what": question, "by": agent},
            agent=agent,
            op_id=f"call:{uuid.uuid4()}",
            note="a paid search",
        )
        return f"what is known of: {question}"

    for question in task["questions"]:
        channel.meet()
        search(question)
        channel.step()
    return len(task["questions"]) - calls


WAYS: Final[dict[str, Callable[[Channel, Protected, dict[str, Any]], int]]] = {
    "deploy": _deploy,
    "ready": _ready,
    "queue": _queue,
    "note": _note,
    "follow": _follow,
    "ask": _ask,
}
