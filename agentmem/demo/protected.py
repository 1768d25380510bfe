"""The same work on agentmem. Each function stands beside its namesake in `unprotected`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import agentmem
from agentmem.demo.channel import Channel
from agentmem.demo.scenario import DRAFT_PARTS, JOBS, draft, section, start

__all__ = ["WAYS", "Protected"]

_ATTEMPTS: Final = 1_000
_MAX_DRAFTS: Final = 10_000


class Protected:
    """The store, and what became of the work in it; see `agentmem.demo.stage.Memory`."""

    def __init__(self, path: str) -> None:
        self.store = agentmem.open(path, embedder=None)

    @classmethod
    def create(cls, path: str, seed: int) -> None:
        """Makes the store and fills it with what is known before the races."""
        memory = cls(path)
        note = f"what is known before the races, seed {seed}"
        with memory.store.transaction(agent="demo", op_id="demo:start", note=note) as tx:
            for (namespace, key), value in start().items():
                tx.put(key, value, namespace=namespace)
        memory.store.set_merge("itinerary", "json")
        for job in JOBS:
            memory.store.queue("jobs").put(job, op_id=f"demo:{job}")
        memory.close()

    def number(self, key: str) -> int:
        return int(self.store[key])

    def sections(self, key: str) -> list[str]:
        return list(self.store[key]["sections"])

    def calls(self) -> list[int]:
        return [booking["call"] for booking in self._listed("bookings")]

    def done(self, key: str) -> list[str]:
        return [done["what"] for done in self._listed(key)]

    def drafts(self) -> list[int]:
        return [entry.value["draft"] for entry in self.store.list("drafts")]

    def _listed(self, key: str) -> list[dict[str, Any]]:
        entry = self.store.get(key)
        return list(entry.value) if entry is not None else []

    def close(self) -> None:
        """Closes the store."""
        self.store.close()


# What the processes run: (channel, memory, task) -> how often the race was noticed.


def _counter_by_version(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    agent, runs = task["agent"], 0

    def add_one(number: int) -> int:
        nonlocal runs
        runs += 1
        return number + 1

    channel.meet()
    for number in range(1, task["writes"] + 1):
        op_id = f"{agent}:source-{number}"
        note = f"{agent} has read source {number}"
        memory.store.update("counter", add_one, agent=agent, op_id=op_id, note=note)
        channel.step()
    return runs - int(task["writes"])


def _counter_by_lease(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    agent, runs = task["agent"], 0

    def add_one(tx: agentmem.Transaction) -> None:
        nonlocal runs
        runs += 1
        tx["counter_in_turns"] += 1

    channel.meet()
    for number in range(1, task["writes"] + 1):
        memory.store.transact(
            add_one,
            lock=["counter_in_turns"],
            agent=agent,
            op_id=f"{agent}:turn-{number}",
            note=f"turn {number} of {agent}",
        )
        channel.step()
    return runs - int(task["writes"])


def _counter_by_increment(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    agent = task["agent"]
    channel.meet()
    for number in range(1, task["writes"] + 1):
        op_id = f"{agent}:edit-{number}"
        note = f"{agent} has made edit {number}"
        memory.store.increment("counter_incremented", agent=agent, op_id=op_id, note=note)
        channel.step()
    return 0


def _document_by_version(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    store, agent = memory.store, task["agent"]
    entry = store.get("plan")
    channel.meet()
    for refused in range(_ATTEMPTS):
        assert entry is not None, "the plan is never deleted"
        note = f"section of {agent}" + (", put into the newer plan" if refused else "")
        try:
            store.put(
                "plan",
                _with_section(entry.value, agent),
                expected_version=entry.version,
                agent=agent,
                op_id=f"{agent}:plan",
                note=note,
            )
        except agentmem.ConflictError:
            # The section cost a model's time, and it is still right: only the plan around it
            # has changed, so it goes into the plan as it is now.
            entry = store.get("plan")
        else:
            channel.step()
            return refused
    raise RuntimeError(f"{agent} was refused {_ATTEMPTS} times")


def _document_merged(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    store, agent = memory.store, task["agent"]
    entry = store.get("itinerary")
    assert entry is not None, "the itinerary is never deleted"
    channel.meet()
    with store.transaction(
        agent=agent, op_id=f"{agent}:itinerary", note=f"section of {agent}"
    ) as tx:
        tx.put("itinerary", _with_section(entry.value, agent), expected_version=entry.version)
        merged = tx.commit().merged
    channel.step()
    return len(merged)


def _with_section(plan: dict[str, Any], agent: str) -> dict[str, Any]:
    return {**plan, "sections": {**plan["sections"], agent: section(agent)}}


def _book(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    call = task["call"]
    op_id, note = f"booker:call-{call}", f"a seat for guest {call}"
    with memory.store.transaction(agent="booker", op_id=op_id, note=note) as tx:
        tx["seats"] -= 1
        tx.append("bookings", {"call": call, "guest": f"guest {call}"})
        return int(tx.commit().replayed)


def _claim(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    agent, late = task["agent"], 0
    for name in task["tasks"]:
        tx = memory.store.transaction(
            agent=agent, op_id=f"{agent}:{name}", note=f"{agent} takes {name}"
        )
        job = tx.get(name, namespace="tasks")
        channel.meet()
        if job is not None and job.value["status"] == "open":
            tx.put(name, {**job.value, "status": "taken", "by": agent}, namespace="tasks")
            tx.append("work_done", {"what": name, "by": agent})
            try:
                tx.commit()
            except agentmem.ConflictError:
                late += 1
        tx.rollback()
        channel.step()
    return late


def _drafts(channel: Channel, memory: Protected, task: dict[str, Any]) -> int:
    for number in range(task["first"], task["first"] + _MAX_DRAFTS):
        op_id, note = f"{task['agent']}:draft-{number}", f"draft {number}, all parts"
        with memory.store.transaction(agent=task["agent"], op_id=op_id, note=note) as tx:
            for index, part in enumerate(DRAFT_PARTS):
                if task["in_middle"] and index == len(DRAFT_PARTS) // 2:
                    channel.halt_in_the_middle()
                tx.put(part, draft(part, number), namespace="drafts")
        channel.tell("acknowledged", draft=number)
    return 0


WAYS: Final[dict[str, Callable[[Channel, Protected, dict[str, Any]], int]]] = {
    "counter_by_version": _counter_by_version,
    "counter_by_lease": _counter_by_lease,
    "counter_by_increment": _counter_by_increment,
    "document_by_version": _document_by_version,
    "document_merged": _document_merged,
    "book": _book,
    "claim": _claim,
    "drafts": _drafts,
}
