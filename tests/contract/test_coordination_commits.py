"""COMMIT without an answer, and interruptions in it: what a step does, it does once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import agentmem
from agentmem.coordination import judging
from agentmem.coordination.lease_steps import Acquire
from agentmem.engines.session import CommitUnknownError

LOST = [("after", CommitUnknownError), ("before", CommitUnknownError)]
lost = pytest.mark.parametrize(("when", "error"), LOST, ids=str)


def fail_once(store: agentmem.Store, when: str, error: type[BaseException]) -> list[str]:
    """Lets the next COMMIT fail, before or after it took effect; returns a list that tells it."""
    engine = store._core.engine
    told: list[str] = []

    def session(make: Callable[[], Any]) -> Any:
        made = make()
        commit = made.commit

        def failing() -> None:
            if told:
                commit()
                return
            told.append(when)
            commit() if when == "after" else made.rollback()
            raise error

        made.commit = failing
        return made

    for name in ("session", "unsynced_session"):
        setattr(engine, name, partial(session, getattr(engine, name)))
    return told


@lost
def test_a_task_is_put_once(store: agentmem.Store, when: str, error: type[BaseException]) -> None:
    queue = store.queue("tasks")
    told = fail_once(store, when, error)
    id = queue.put("a")
    assert told == [when]
    assert [each.id for each in queue.peek()] == [id]


@lost
def test_a_task_is_claimed_and_acknowledged_once(
    store: agentmem.Store, when: str, error: type[BaseException]
) -> None:
    queue = store.queue("tasks")
    queue.put("a")
    fail_once(store, when, error)
    task = queue.claim()
    assert task is not None
    assert queue.peek()[0].attempts == task.attempts == 1
    fail_once(store, when, error)
    task.ack()
    assert len(queue) == 0


@lost
def test_a_lease_is_granted_and_released_once(
    store: agentmem.Store, when: str, error: type[BaseException]
) -> None:
    fail_once(store, when, error)
    lease = store.lease("plan").acquire()
    assert [each.token for each in store.leases()] == [lease.token]
    fail_once(store, when, error)
    assert lease.release()
    assert store.leases() == []


@lost
def test_an_effect_happens_once(
    store: agentmem.Store, when: str, error: type[BaseException]
) -> None:
    effects: list[int] = []
    fail_once(store, when, error)
    store.once("pay", lambda: effects.append(1))
    assert effects == [1]


@lost
def test_an_ack_with_writes_is_settled_by_its_op_id(
    store: agentmem.Store, when: str, error: type[BaseException]
) -> None:
    queue = store.queue("tasks")
    queue.put("a")
    task = queue.claim()
    assert task is not None

    def work(tx: agentmem.Transaction) -> None:
        tx.increment("done")
        task.ack(tx)

    fail_once(store, when, error)
    store.transact(work, op_id="op")
    assert (store["done"], len(queue)) == (1, 0)


@pytest.mark.parametrize("when", ["after", "before"])
def test_an_interruption_in_the_commit_leaves_all_or_nothing(
    store: agentmem.Store, when: str
) -> None:
    queue = store.queue("tasks")
    fail_once(store, when, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        queue.put("a")
    assert len(queue) == (1 if when == "after" else 0)
    queue.put("b")
    assert queue.claim() is not None


def test_an_interrupted_wait_leaves_the_line(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    def interrupt(self: Any, until: float) -> None:
        waits.append(store.leases()[0].waiting)
        raise KeyboardInterrupt

    monkeypatch.setattr("agentmem.coordination.waking.Waking.wait", interrupt)
    with store.lease("plan"):
        with pytest.raises(KeyboardInterrupt):
            store.lease("plan", wait_s=60).acquire()
        assert waits == [1]
        assert store.leases()[0].waiting == 0


def test_marks_are_pruned_and_numbers_are_never_given_twice(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_MARKS", 5)
    monkeypatch.setattr(judging, "_PRUNED_EVERY", 10)
    tokens = []
    for _time in range(40):
        with store.lease("plan") as lease:
            tokens.append(lease.token)
    assert tokens == sorted(set(tokens))
    rows = store._core.engine.look(agentmem.engines.rows.Look("number"))
    assert rows[0][0] > tokens[-1]


def test_requests_of_one_batch_see_what_those_before_them_did(store: agentmem.Store) -> None:
    from agentmem.commit import _Batch, _Ticket
    from agentmem.coordination.task_steps import Claim, Put
    from agentmem.request import Request

    core = store._core
    ttl_us = 30_000_000
    leases = [Acquire("", "plan", None, ttl_us, waits=True) for _number in range(3)]
    puts = [
        Put("", "q", str(n), 0, "g", None, 5, None, "op" if n else None, b"") for n in (0, 1, 2)
    ]
    claims = [Claim("", "q", None, ttl_us) for _number in range(2)]
    steps = [*leases, *puts, *claims]
    requests = [Request(core._root, None, None, 0, 0, pinned=False, steps=[s]) for s in steps]
    batch = _Batch()
    batch.tickets = [_Ticket(request) for request in requests]
    core._committer._settle(batch)
    assert all(request.error is None for request in requests)
    assert [step.token is not None for step in leases] == [True, False, False]
    assert leases[1].ticket is not None
    assert puts[1].id == puts[2].id != puts[0].id
    assert claims[0].task is not None
    assert (claims[0].task.payload, claims[1].task) == ("0", None)
    assert [each.state for each in store.queue("q").peek()] == ["claimed", "behind"]
    assert store.leases()[0].waiting == 2


def test_only_what_may_be_lost_does_not_wait_for_the_disk(store: agentmem.Store) -> None:
    engine = store._core.engine
    made: list[str] = []

    def note(name: str, make: Callable[[], Any]) -> Any:
        made.append(name)
        return make()

    for name in ("session", "unsynced_session"):
        setattr(engine, name, partial(note, name, getattr(engine, name)))

    def how(call: Callable[[], object]) -> list[str]:
        made.clear()
        call()
        return made.copy()

    lease, queue = store.lease("plan"), store.queue("tasks")
    assert how(lease.acquire) == ["session"]
    assert how(lease.renew) == ["session"]
    assert how(lease.release) == ["unsynced_session"]
    assert how(lambda: queue.put("a")) == ["session"]
    task = queue.claim()
    assert task is not None
    assert how(task.ack) == ["session"]
    assert how(lambda: store.once("pay", lambda: 1)) == ["session", "session"]
    assert how(lambda: store.put("k", 1)) == ["session"]
