"""Leases and queues against models of plain lists, from two stores on one target."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import agentmem
from agentmem.coordination.lease_steps import STAY_S, Acquire, Leave
from tests.contract.conftest import BACKENDS, Backend, ManualClock

handles = st.integers(0, 1)
names = st.sampled_from(("a", "b"))
picks = st.integers(0, 5)
# Also back, and further than anything lasts.
jumps = st.sampled_from((1, 5, 29, 30, 60, 3_600, 30 * 86_400, -1, -3_600, -30 * 86_400))
TTL_S = 30
AT_ONCE = float("-inf")  # however far the clock is set back


class Machine(RuleBasedStateMachine):
    """Two stores on one target, and a clock."""

    backend: Backend = BACKENDS["sqlite"]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.target = self.backend.target(Path(self.folder.name), "team")
        self.clock = ManualClock()
        self.now = 0.0
        options: dict[str, Any] = {"durability": "relaxed", "clock": self.clock, "embedder": None}
        self.stores = [agentmem.open(self.target, **options) for _handle in range(2)]

    def teardown(self) -> None:
        problems = self.stores[0].admin.verify().problems
        for store in self.stores:
            store.close()
        self.backend.remove({self.target})
        self.folder.cleanup()
        assert problems == []

    @rule(seconds=jumps)
    def jump(self, seconds: int) -> None:
        self.now += seconds
        self.clock.advance(seconds)


@dataclass
class Grant:
    """The latest grant of a lease, as the model has it."""

    token: int
    until: float


@dataclass
class Place:
    """Somebody in the line."""

    step: Acquire
    until: float


@dataclass
class Lease:
    """One lease, as the model has it."""

    grant: Grant | None = None
    line: list[Place] = field(default_factory=list)

    def is_free(self, now: float) -> bool:
        return self.grant is None or self.grant.until <= now

    def live(self, now: float) -> list[Place]:
        return [each for each in self.line if each.until > now]


class LeaseMachine(Machine):
    """Whoever holds, waits, comes too late or gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.model = {"a": Lease(), "b": Lease()}
        self.handed: list[tuple[str, agentmem.Lease]] = []  # all that were ever granted
        self.gone: list[tuple[str, Acquire]] = []  # that waited once
        self.highest = 0
        self.written = 0

    def granted(self, name: str, token: int) -> None:
        assert token > self.highest, "tokens rise"
        self.highest = token
        self.model[name].grant = Grant(token, self.now + TTL_S)

    @rule(handle=handles, name=names)
    def acquire(self, handle: int, name: str) -> None:
        model = self.model[name]
        free = model.is_free(self.now) and not model.live(self.now)
        lease = self.stores[handle].lease(name, ttl_s=TTL_S)
        if free:
            self.granted(name, lease.acquire().token)
            model.line = []
            self.handed.append((name, lease))
        else:
            with pytest.raises(agentmem.LeaseError):
                lease.acquire()

    @rule(handle=handles, name=names, pick=picks, again=st.booleans())
    def wait(self, handle: int, name: str, pick: int, again: bool) -> None:
        """Somebody joins the line, or says again that it waits."""
        model = self.model[name]
        waiting = [each.step for each in model.line] + [s for n, s in self.gone if n == name]
        if again and waiting:
            step = waiting[pick % len(waiting)]
        else:
            step = Acquire("", name, None, TTL_S * 1_000_000, waits=True)
        live = model.live(self.now)
        mine = next((each for each in live if each.step is step), None)
        turn = model.is_free(self.now) and (not live or live[0] is mine)
        self.stores[handle]._core.coordinate(step)
        assert (step.token is not None) == turn
        lost = [(name, e.step) for e in model.line if e not in live and e.step is not step]
        self.gone = [(n, s) for n, s in self.gone if s is not step] + lost
        model.line = live
        if turn:
            self.granted(name, step.token or 0)
            model.line = [each for each in live if each is not mine]
        elif mine is None:
            model.line.append(Place(step, self.now + STAY_S))
        else:
            mine.until = self.now + STAY_S

    @rule(handle=handles, name=names, pick=picks)
    def leave(self, handle: int, name: str, pick: int) -> None:
        line = self.model[name].line
        if line:
            each = line.pop(pick % len(line))
            self.stores[handle]._core.coordinate(Leave("", name, each.step.ticket or 0))

    def picked(self, pick: int) -> tuple[str, agentmem.Lease, bool]:
        """A lease that was granted once, and whether its grant is the latest."""
        name, lease = self.handed[-1 - pick % len(self.handed)]
        grant = self.model[name].grant
        token = lease._token
        return name, lease, grant is not None and grant.token == token

    @rule(pick=picks)
    def renew(self, pick: int) -> None:
        if not self.handed:
            return
        name, lease, latest = self.picked(pick)
        grant = self.model[name].grant
        if lease._token is None:
            with pytest.raises(agentmem.LeaseError):
                lease.renew()
        elif not latest or grant is None:
            with pytest.raises(agentmem.FencedError):
                lease.renew()
        elif grant.until <= self.now:
            with pytest.raises(agentmem.LeaseExpiredError):
                lease.renew()
        else:
            lease.renew()
            grant.until = self.now + TTL_S

    @rule(pick=picks)
    def release(self, pick: int) -> None:
        if self.handed:
            name, lease, latest = self.picked(pick)
            assert lease.release() == latest
            if latest:
                self.model[name].grant = None

    @rule(handle=handles, name=names)
    def break_it(self, handle: int, name: str) -> None:
        grant = self.model[name].grant
        assert self.stores[handle].break_lease(name) == (grant.token if grant else None)
        self.model[name].grant = None

    @rule(handle=handles, pick=picks, other=picks)
    def write(self, handle: int, pick: int, other: int) -> None:
        """A commit under one or two guards, of whatever age."""
        if not self.handed:
            return
        guards = [g for g in (self.picked(pick), self.picked(other)) if g[1]._token is not None]
        tx = self.stores[handle].transaction()
        tx["k"] = self.written + 1
        for _name, lease, _latest in guards:
            tx.guard(lease)
        if all(latest for _name, _lease, latest in guards):
            tx.commit()
            self.written += 1
        else:
            with pytest.raises(agentmem.FencedError):
                tx.commit()

    @invariant()
    def what_is_there_is_what_the_model_has(self) -> None:
        for store in self.stores:
            assert store.revision == self.written
            assert [(each.name, each.token, each.expires_in_s) for each in store.leases()] == [
                (name, model.grant.token, max(0.0, model.grant.until - self.now))
                for name, model in sorted(self.model.items())
                if model.grant is not None
            ]


@dataclass
class Item:
    """A task, as the model has it."""

    id: int
    payload: int
    priority: int
    group: str | None
    ready: float  # from then on
    attempts: int = 0
    token: int | None = None


MOST = 2  # attempts


class QueueMachine(Machine):
    """Whoever puts, claims, dies, acknowledges late, or with a commit that conflicts."""

    def __init__(self) -> None:
        super().__init__()
        self.living: list[Item] = []
        self.dead: list[Item] = []
        self.done: list[int] = []
        self.claims: list[agentmem.Task] = []
        self.op_ids: dict[str, tuple[tuple[Any, ...], int]] = {}
        self.next = 0
        self.highest = 0

    def queue(self, handle: int) -> agentmem.Queue:
        return self.stores[handle].queue("tasks", max_attempts=MOST)

    @rule(
        handle=handles,
        priority=st.integers(-1, 1),
        group=st.sampled_from((None, None, "g", "h")),
        delay=st.sampled_from((0, 0, 10)),
        inside=st.booleans(),
    )
    def put(self, handle: int, priority: int, group: str | None, delay: int, inside: bool) -> None:
        self.next += 1
        options: dict[str, Any] = {"priority": priority, "group": group, "delay_s": delay}
        if inside:
            with self.stores[handle].transaction() as tx:
                tx.queue("tasks", max_attempts=MOST).put(self.next, **options)
                tx.queue("tasks", max_attempts=MOST).put(-self.next, **options)
            new = [
                each.id for each in self.queue(handle).peek(1_000) if abs(each.payload) == self.next
            ]
            for payload, id in zip((self.next, -self.next), sorted(new), strict=True):
                self.added(Item(id, payload, priority, group, self.later(delay)))
        else:
            id = self.queue(handle).put(self.next, **options)
            self.added(Item(id, self.next, priority, group, self.later(delay)))

    def later(self, delay: int) -> float:
        return self.now + delay if delay else AT_ONCE

    def added(self, item: Item) -> None:
        assert item.id > self.highest, "numbers rise"
        self.highest = item.id
        self.living.append(item)

    @rule(handle=handles, op_id=st.sampled_from("xy"), priority=st.integers(0, 1))
    def put_once(self, handle: int, op_id: str, priority: int) -> None:
        if op_id not in self.op_ids:
            id = self.queue(handle).put(0, op_id=op_id, priority=priority)
            self.op_ids[op_id] = ((priority,), id)
            self.added(Item(id, 0, priority, None, AT_ONCE))
        elif self.op_ids[op_id][0] == (priority,):
            first = self.queue(handle).put(0, op_id=op_id, priority=priority)
            assert first == self.op_ids[op_id][1]
        else:
            with pytest.raises(agentmem.OperationMismatchError):
                self.queue(handle).put(0, op_id=op_id, priority=priority)

    def heads(self) -> list[Item]:
        """What no other of its group stands before."""
        first: dict[str, int] = {}
        for item in sorted(self.living, key=lambda item: item.id):
            if item.group is not None:
                first.setdefault(item.group, item.id)
        return [i for i in self.living if i.group is None or first[i.group] == i.id]

    @rule(handle=handles)
    def claim(self, handle: int) -> None:
        expected = None
        while ready := [item for item in self.heads() if item.ready <= self.now]:
            item = min(ready, key=lambda item: (-item.priority, item.id))
            if item.attempts < MOST:
                expected = item
                break
            item.token = None
            self.living.remove(item)
            self.dead.append(item)
        task = self.queue(handle).claim(visibility_s=60)
        if expected is None:
            assert task is None
            return
        assert task is not None
        assert (task.id, task.payload) == (expected.id, expected.payload)
        assert task.token > self.highest
        self.highest = expected.token = task.token
        expected.attempts += 1
        expected.ready = self.now + 60
        assert task.attempts == expected.attempts
        self.claims.append(task)

    def held(self, task: agentmem.Task) -> Item | None:
        return next((i for i in self.living if i.token == task.token and i.id == task.id), None)

    @rule(pick=picks, how=st.sampled_from(("ack", "commit", "conflict", "nack", "later", "extend")))
    def end(self, pick: int, how: str) -> None:
        """What one can do with a claim, of whatever age."""
        if not self.claims:
            return
        task = self.claims[-1 - pick % len(self.claims)]
        item = self.held(task)
        calls = {
            "ack": task.ack,
            "commit": lambda: self.commit(task, conflict=False),
            "conflict": lambda: self.commit(task, conflict=True),
            "nack": task.nack,
            "later": lambda: task.nack(10),
            "extend": task.extend,
        }
        if item is None:
            with pytest.raises(agentmem.FencedError):
                calls[how]()
            return
        if how == "conflict":
            with pytest.raises(agentmem.ConflictError):
                calls[how]()
            return
        calls[how]()
        if how in ("ack", "commit"):
            self.living.remove(item)
            self.done.append(item.id)
        elif how == "extend":
            item.ready = self.now + 60
        else:
            item.token = None
            item.ready = self.later(10 if how == "later" else 0)
            if item.attempts >= MOST:
                self.living.remove(item)
                self.dead.append(item)

    def commit(self, task: agentmem.Task, *, conflict: bool) -> None:
        store = self.stores[0]
        tx = store.transaction()
        tx.append("done", task.id)
        tx.get("other")
        task.ack(tx)
        if conflict:
            store.increment("other")
        tx.commit()

    @rule(handle=handles, pick=picks, again=st.booleans())
    def bury(self, handle: int, pick: int, again: bool) -> None:
        """A dead task is put again, or discarded."""
        if not self.dead:
            return
        item = self.dead.pop(pick % len(self.dead))
        if again:
            item.id = self.queue(handle).put_again(item.id)
            item.attempts, item.ready = 0, AT_ONCE
            self.added(item)
        else:
            self.queue(handle).discard(item.id)

    @invariant()
    def what_is_there_is_what_the_model_has(self) -> None:
        heads = [item.id for item in self.heads()]
        for handle in (0, 1):
            queue = self.queue(handle)
            assert len(queue) == len(self.living)
            shown = [
                (each.id, each.payload, each.state, each.attempts) for each in queue.peek(1_000)
            ]
            assert shown == [
                (item.id, item.payload, self.state(item, heads), item.attempts)
                for item in sorted(self.living, key=lambda item: (-item.priority, item.id))
            ]
            dead = [each.id for each in queue.dead(1_000)]
            assert dead == sorted(item.id for item in self.dead)

    def state(self, item: Item, heads: list[int]) -> str:
        if item.id not in heads:
            return "behind"
        if item.ready <= self.now:
            return "waiting"
        return "delayed" if item.token is None else "claimed"


# One machine is a few round trips a step on a server.
LeaseMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLeaseMachine = LeaseMachine.TestCase
TestQueueMachine = QueueMachine.TestCase


class PostgresLeaseMachine(LeaseMachine):
    """The same on PostgreSQL."""

    backend = BACKENDS["postgres"]


class PostgresQueueMachine(QueueMachine):
    """The same on PostgreSQL."""

    backend = BACKENDS["postgres"]


PostgresLeaseMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=40)
PostgresQueueMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=40)
TestPostgresLeaseMachine = PostgresLeaseMachine.TestCase
TestPostgresQueueMachine = PostgresQueueMachine.TestCase
