"""Turns as they are often taken: a lock with an end, a list of jobs, a poll by time, a cache.

Each is careful in itself: whoever looks and then takes does so in one SQL transaction, but for the
cache. What is missing is what ties a turn to the work that is done in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from agentmem.demo.channel import Channel
from agentmem.demo.scenario import TURN_S
from agentmem.demo.unprotected import Unprotected

__all__ = ["WAYS"]

_LONG_TURN_S: Final = 60.0
_PAUSE_S: Final = 0.005


def _deploy(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    agent, is_stopped = task["agent"], task["is_stopped"]
    while not _has_locked(memory, agent, TURN_S if is_stopped else _LONG_TURN_S):
        time.sleep(_PAUSE_S)
    if is_stopped:
        channel.hold()
    memory.write("release", task["release"])
    with memory.alone():
        held = memory.read("deploy_lock")
        if held is not None and held["by"] == agent:
            memory.write("deploy_lock", None)
    return 0


def _has_locked(memory: Unprotected, agent: str, turn_s: float) -> bool:
    """Takes the lock if nobody has it, or its time is over."""
    with memory.alone():
        held, now = memory.read("deploy_lock"), time.time()
        free = held is None or held["until"] <= now
        if free:
            memory.write("deploy_lock", {"by": agent, "until": now + turn_s})
    return free


def _ready(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    """This process has started, and has the file open."""
    return 0


def _queue(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    while (job := _taken(memory)) is not None:
        if task["dies"]:
            channel.halt_in_the_middle()
        memory.add_done("jobs_done", job, task["agent"])
        channel.step()
    return 0


def _taken(memory: Unprotected) -> str | None:
    """Takes the first job off the list; None: there is none."""
    with memory.alone():
        first, *rest = memory.read("jobs") or [None]
        memory.write("jobs", rest)
    return None if first is None else str(first)


def _note(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    if task["is_late"] is None:
        memory.add_note(task["note"], time.time_ns())
        channel.step()
        return 0
    made_at = time.time_ns()
    channel.meet()
    if not task["is_late"]:
        memory.add_note(task["note"], time.time_ns())
    channel.meet()
    channel.meet()
    if task["is_late"]:
        memory.add_note(task["note"], made_at)
    channel.meet()
    channel.step()
    return 0


def _follow(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    if task["meets"]:
        channel.meet()  # the late ones have begun
        channel.meet()  # the others have written
        _answer(channel, memory, task)
        channel.meet()
        channel.meet()  # the late ones have written
    _answer(channel, memory, task)
    channel.step()
    return 0


def _answer(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> None:
    for name, made_at in memory.notes_after(memory.read("answered_up_to") or 0):
        memory.write("answered_up_to", made_at)
        if task["dies"]:
            channel.halt_in_the_middle()
        memory.add_done("answers", name, task["agent"])


def _ask(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    for question in task["questions"]:
        cached = memory.read(f"cache/{question}")
        channel.meet()
        if cached is None:
            memory.add_done("tool_calls", question, task["agent"])  # it is paid for
            memory.write(f"cache/{question}", f"what is known of: {question}")
        channel.step()
    return 0


WAYS: Final[dict[str, Callable[[Channel, Unprotected, dict[str, Any]], int]]] = {
    "deploy": _deploy,
    "ready": _ready,
    "queue": _queue,
    "note": _note,
    "follow": _follow,
    "ask": _ask,
}
