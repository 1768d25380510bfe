"""Queues: order, claims that end, groups, dead letters, acks with a transaction's writes."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

import agentmem
from agentmem.engines.sqlite import boot
from tests.contract.conftest import ManualClock, StoreMaker

HOUR = 3_600.0
JUMPS = [HOUR, -HOUR, 30 * 24 * HOUR, -30 * 24 * HOUR]


@pytest.fixture
def queue(store: agentmem.Store) -> agentmem.Queue:
    return store.queue("tasks")


def claimed(queue: agentmem.Queue, **options: Any) -> agentmem.Task:
    task = queue.claim(**options)
    assert task is not None
    return task


def drained(queue: agentmem.Queue) -> list[Any]:
    """What is done if everything is claimed and acknowledged, one task after another."""
    found = []
    while (task := queue.claim()) is not None:
        found.append(task.payload)
        task.ack()
    return found


def test_tasks_come_in_the_order_in_which_they_were_put(queue: agentmem.Queue) -> None:
    ids = [queue.put({"n": number}) for number in range(5)]
    assert ids == sorted(set(ids))
    assert drained(queue) == [{"n": number} for number in range(5)]
    assert len(queue) == 0


def test_larger_priorities_come_first(queue: agentmem.Queue) -> None:
    for payload, priority in (("low", -1), ("first", 0), ("high", 7), ("second", 0)):
        queue.put(payload, priority=priority)
    assert drained(queue) == ["high", "first", "second", "low"]


def test_a_claimed_task_is_nobody_elses_until_its_claim_ends(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    queue.put("a")
    first = claimed(queue, visibility_s=60)
    clock.advance(59.9)
    assert queue.claim() is None
    clock.advance(0.1)
    second = claimed(queue)
    assert (second.id, second.attempts) == (first.id, 2)
    assert second.token > first.token


def test_a_claim_that_was_claimed_again_is_fenced(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    queue.put("a")
    first = claimed(queue)
    clock.advance(60)
    second = claimed(queue)
    for call in (first.ack, first.nack, first.extend):
        with pytest.raises(agentmem.FencedError) as caught:
            call()
        assert (caught.value.token, caught.value.current_token) == (first.token, second.token)
    second.ack()
    with pytest.raises(agentmem.FencedError):
        second.ack()


def test_a_claim_counts_past_its_end_while_nobody_has_claimed_again(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    queue.put("a")
    task = claimed(queue)
    clock.advance(HOUR)
    task.ack()
    assert len(queue) == 0


def test_extending_lets_a_claim_run_on_from_now(queue: agentmem.Queue, clock: ManualClock) -> None:
    queue.put("a")
    task = claimed(queue, visibility_s=60)
    clock.advance(59)
    task.extend()
    clock.advance(59)
    assert queue.claim() is None
    task.extend(10)
    clock.advance(10)
    assert queue.claim() is not None


def test_a_task_that_was_given_back_comes_again_after_its_delay(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    queue.put("a")
    queue.put("b")
    claimed(queue).nack(delay_s=30, note="no answer")
    assert claimed(queue).payload == "b"
    assert [(each.state, each.note) for each in queue.peek()] == [
        ("delayed", "no answer"),
        ("claimed", None),
    ]
    clock.advance(30)
    task = claimed(queue)
    assert (task.payload, task.attempts) == ("a", 2)
    task.nack()
    assert claimed(queue).payload == "a"


def test_a_delayed_task_comes_when_it_is_due(queue: agentmem.Queue, clock: ManualClock) -> None:
    queue.put("later", delay_s=30, priority=9)
    queue.put("now")
    assert drained(queue) == ["now"]
    clock.advance(30)
    assert drained(queue) == ["later"]


def test_a_task_that_is_claimed_too_often_is_dead(
    store: agentmem.Store, clock: ManualClock
) -> None:
    queue = store.queue("tasks", max_attempts=2)
    queue.put("poison")
    queue.put("good")
    for attempt in (1, 2):
        task = claimed(queue)
        assert (task.payload, task.attempts, task.max_attempts) == ("poison", attempt, 2)
        clock.advance(60)
    assert claimed(queue).payload == "good"
    with pytest.raises(agentmem.FencedError):
        task.ack()
    [dead] = queue.dead()
    assert (dead.payload, dead.state, dead.attempts) == ("poison", "dead", 2)
    assert dead.note == "claimed 2 times, and never acknowledged in time"
    assert len(queue) == 1


def test_a_task_that_is_given_back_after_its_last_attempt_is_dead(store: agentmem.Store) -> None:
    queue = store.queue("tasks", max_attempts=1)
    queue.put("poison")
    claimed(queue).nack(note="cannot be read")
    assert queue.claim() is None
    assert [(each.payload, each.note) for each in queue.dead()] == [("poison", "cannot be read")]


def test_a_dead_task_is_put_again_or_discarded(store: agentmem.Store) -> None:
    queue = store.queue("tasks", max_attempts=1)
    for payload in ("a", "b"):
        queue.put(payload)
        claimed(queue).nack()
    first, second = queue.dead()
    queue.put("before")
    assert queue.put_again(first.id) > second.id
    queue.discard(second.id)
    assert queue.dead() == []
    assert drained(queue) == ["before", "a"]
    for call in (queue.put_again, queue.discard):
        with pytest.raises(agentmem.InvalidValueError):
            call(first.id)


# Groups.


def test_the_head_of_a_group_blocks_the_rest_until_it_is_acknowledged(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    for payload in ("a1", "a2"):
        queue.put(payload, group="a")
    queue.put("b1", group="b", priority=-5)
    first = claimed(queue)
    assert (first.payload, first.group) == ("a1", "a")
    assert claimed(queue).payload == "b1"
    assert queue.claim() is None
    clock.advance(60)
    assert claimed(queue).payload == "a1"  # again, before a2
    assert claimed(queue).payload == "b1"
    queue.task(first.id, queue.peek(1)[0].token or 0).ack()
    assert claimed(queue).payload == "a2"


def test_a_group_goes_on_when_its_head_is_dead(store: agentmem.Store, clock: ManualClock) -> None:
    queue = store.queue("tasks", max_attempts=1)
    for payload in ("poison", "second", "third"):
        queue.put(payload, group="a")
    claimed(queue)
    clock.advance(60)
    claimed(queue).nack()
    assert drained(queue) == ["third"]
    # Put again, it stands behind what is there.
    queue.put("fourth", group="a")
    queue.put_again(queue.dead()[0].id)
    assert [each.state for each in queue.peek()] == ["waiting", "behind"]
    assert drained(queue) == ["fourth", "poison"]


def test_a_group_keeps_its_order_whatever_the_priorities_and_delays(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    queue.put(1, group="a", delay_s=10)
    queue.put(2, group="a", priority=9, delay_s=5)
    queue.put(3, group="a")
    assert drained(queue) == []
    clock.advance(5)
    assert drained(queue) == []
    clock.advance(5)
    assert drained(queue) == [1, 2, 3]


def test_a_delayed_task_of_a_group_stays_delayed_when_it_is_the_head(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    queue.put(1, group="a")
    queue.put(2, group="a", delay_s=10)
    assert drained(queue) == [1]
    clock.advance(10)
    assert drained(queue) == [2]


def test_groups_of_queues_and_scopes_are_apart(store: agentmem.Store) -> None:
    queues = [store.queue("x"), store.queue("y"), store.scoped("team").queue("x")]
    for number, queue in enumerate(queues):
        queue.put(number, group="a")
    assert [claimed(queue).payload for queue in queues] == [0, 1, 2]


# Operation ids.


def test_an_op_id_puts_once_even_when_the_task_is_long_done(queue: agentmem.Queue) -> None:
    id = queue.put("a", op_id="op")
    assert queue.put("a", op_id="op") == id
    assert drained(queue) == ["a"]
    assert queue.put("a", op_id="op") == id
    assert len(queue) == 0


@pytest.mark.parametrize(
    "other", [{"payload": "b"}, {"priority": 1}, {"group": "g"}, {"delay_s": 1}]
)
def test_an_op_id_of_another_task_is_an_error(queue: agentmem.Queue, other: dict[str, Any]) -> None:
    queue.put("a", op_id="op")
    with pytest.raises(agentmem.OperationMismatchError):
        queue.put(**{"payload": "a", "op_id": "op"} | other)
    assert len(queue) == 1


def test_op_ids_of_queues_and_scopes_are_apart(store: agentmem.Store) -> None:
    store.put("k", 1, op_id="op")
    for queue in (store.queue("x"), store.queue("y"), store.scoped("team").queue("x")):
        queue.put("a", op_id="op")
        assert len(queue) == 1


# In transactions.


def test_an_ack_and_a_put_are_there_with_the_commit(
    store: agentmem.Store, queue: agentmem.Queue
) -> None:
    queue.put({"city": "Rome"})
    task = claimed(queue)
    with store.transaction() as tx:
        tx["Rome"] = "sunny"
        task.ack(tx)
        tx.queue("next").put("Rome")
        assert len(queue) == 1
        assert len(store.queue("next")) == 0
    assert len(queue) == 0
    assert store["Rome"] == "sunny"
    assert claimed(store.queue("next")).payload == "Rome"
    assert store.revision == 1


def test_a_fenced_ack_writes_nothing(
    store: agentmem.Store, queue: agentmem.Queue, clock: ManualClock
) -> None:
    queue.put("a")
    late = claimed(queue)
    clock.advance(60)
    claimed(queue)
    tx = store.transaction()
    tx["k"] = "late"
    tx.queue("next").put("late")
    late.ack(tx)
    with pytest.raises(agentmem.FencedError):
        tx.commit()
    assert store.revision == 0
    assert store.queues()[0].name == "tasks"
    assert len(store.queues()) == 1


def test_a_transaction_in_conflict_neither_acknowledges_nor_puts(
    store: agentmem.Store, queue: agentmem.Queue
) -> None:
    queue.put("a")
    task = claimed(queue)
    tx = store.transaction()
    tx["k"] = 1
    store.put("k", 5)
    task.ack(tx)
    tx.queue("next").put("b")
    with pytest.raises(agentmem.ConflictError):
        tx.commit()
    assert len(queue) == 1
    assert len(store.queue("next")) == 0
    task.ack()


def test_what_a_transaction_read_is_checked_if_it_only_acknowledges(
    store: agentmem.Store, queue: agentmem.Queue
) -> None:
    queue.put("a")
    task = claimed(queue)
    tx = store.transaction()
    assert tx.get("k") is None
    task.ack(tx)
    store.put("k", 1)
    with pytest.raises(agentmem.ConflictError):
        tx.commit()


def test_a_transaction_that_is_rolled_back_acknowledges_nothing(
    store: agentmem.Store, queue: agentmem.Queue
) -> None:
    queue.put("a")
    task = claimed(queue)
    tx = store.transaction()
    task.ack(tx)
    tx.rollback()
    task.ack()


def test_a_transaction_of_acks_alone_takes_no_revision(
    store: agentmem.Store, queue: agentmem.Queue
) -> None:
    queue.put("a")
    task = claimed(queue)
    with store.transaction() as tx:
        task.ack(tx)
        task.ack(tx)
    assert (len(queue), store.revision) == (0, 0)


def test_a_transaction_with_a_known_op_id_puts_and_acknowledges_once(
    store: agentmem.Store, queue: agentmem.Queue
) -> None:
    queue.put("a")
    task = claimed(queue)
    for _time in range(2):
        with store.transaction(op_id="op") as tx:
            task.ack(tx)
            tx.queue("next").put("b")
    assert len(store.queue("next")) == 1


def test_the_tasks_of_a_transaction_keep_their_order_and_groups(store: agentmem.Store) -> None:
    with store.transaction() as tx:
        for payload in ("a1", "a2", "a3"):
            tx.queue("tasks").put(payload, group="a")
    queue = store.queue("tasks")
    assert [each.state for each in queue.peek()] == ["waiting", "behind", "behind"]
    first = claimed(queue)
    with store.transaction() as tx:
        tx.queue("tasks").put("a4", group="a")
        first.ack(tx)
    assert drained(queue) == ["a2", "a3", "a4"]


def test_op_ids_inside_a_transaction(store: agentmem.Store) -> None:
    with store.transaction() as tx:
        tx.queue("tasks").put("a", op_id="op")
        tx.queue("tasks").put("a", op_id="op")
        with pytest.raises(agentmem.OperationMismatchError):
            tx.queue("tasks").put("b", op_id="op")
    assert drained(store.queue("tasks")) == ["a"]
    tx = store.transaction()
    tx["k"] = 1
    tx.queue("tasks").put("b", op_id="op")
    with pytest.raises(agentmem.OperationMismatchError):
        tx.commit()
    assert "k" not in store


def test_transact_puts_the_tasks_of_the_attempt_that_commits(store: agentmem.Store) -> None:
    attempts = []

    def work(tx: agentmem.Transaction) -> None:
        attempts.append(tx)
        tx["k"] += 1
        tx.queue("tasks").put(len(attempts))
        if len(attempts) == 1:
            store.put("k", 5)

    store.put("k", 0)
    store.transact(work)
    assert drained(store.queue("tasks")) == [2]


def test_a_nack_can_go_with_a_commit(store: agentmem.Store, queue: agentmem.Queue) -> None:
    queue.put("a")
    task = claimed(queue)
    with store.transaction() as tx:
        tx["failure"] = "no answer"
        task.nack(tx=tx)
    assert claimed(queue).attempts == 2


def test_a_task_of_another_store_goes_with_no_commit_here(make_store: StoreMaker) -> None:
    other = make_store("other").queue("tasks")
    other.put("a")
    task = claimed(other)
    with make_store().transaction() as tx, pytest.raises(agentmem.InvalidValueError):
        task.ack(tx)


# Looking, waiting, refusing.


def test_peek_shows_the_states_and_claims_nothing(
    store: agentmem.Store, queue: agentmem.Queue, clock: ManualClock
) -> None:
    queue.put("claimed", agent="ann")
    claimed(queue, agent="bob")
    queue.put("waiting", priority=-1, op_id="op")
    queue.put("delayed", delay_s=10, priority=-2)
    queue.put("head", group="g", priority=-3)
    queue.put("behind", group="g", priority=-4)
    shown = queue.peek()
    assert [each.payload for each in shown] == [each.state for each in shown[:3]] + [
        "head",
        "behind",
    ]
    assert shown[4].state == "behind"
    assert (shown[0].put_by, shown[0].agent, shown[1].op_id) == ("ann", "bob", "op")
    assert shown[0].put_at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert len(queue.peek(2)) == 2
    [state] = store.queues()
    assert (state.name, state.waiting, state.delayed, state.claimed, state.behind, state.dead) == (
        "tasks", 2, 1, 1, 1, 0,
    )  # fmt: skip
    clock.advance(60)
    assert store.queues()[0].waiting == 4
    assert queue.peek(1)[0].state == "waiting"


def test_a_view_sees_its_own_queues_and_the_store_all(store: agentmem.Store) -> None:
    store.queue("x").put(1)
    store.scoped("team").queue("y").put(2)
    assert [(each.scope, each.name) for each in store.queues()] == [((), "x"), (("team",), "y")]
    assert [each.name for each in store.scoped("team").queues()] == ["y"]
    task = claimed(store.queue("x"))
    with pytest.raises(agentmem.FencedError):
        store.scoped("team").queue("x").task(task.id, task.token)


def test_a_claim_can_be_acknowledged_elsewhere_by_its_numbers(make_store: StoreMaker) -> None:
    first = make_store().queue("tasks")
    first.put("a")
    task = claimed(first)
    elsewhere = make_store().queue("tasks")
    with pytest.raises(agentmem.FencedError):
        elsewhere.task(task.id, task.token + 1)
    same = elsewhere.task(task.id, task.token)
    assert (same.payload, same.attempts) == ("a", 1)
    same.ack()
    assert len(first) == 0


def test_waiting_for_a_task_ends_with_one_or_in_time(
    make_store: StoreMaker, queue: agentmem.Queue, clock: ManualClock
) -> None:
    assert queue.claim(wait_s=0.02) is None
    found: list[Any] = []

    def wait() -> None:
        found.append(claimed(make_store().queue("tasks"), wait_s=60).payload)

    thread = threading.Thread(target=wait)
    thread.start()
    queue.put("a")
    thread.join()
    assert found == ["a"]
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.01)  # not a measure: it may wait by now, or not yet
    clock.advance(60)
    thread.join()
    assert found == ["a", "a"]


@pytest.mark.parametrize("jump_s", JUMPS)
def test_however_the_clock_jumps_a_task_is_acknowledged_once(
    queue: agentmem.Queue, clock: ManualClock, jump_s: float
) -> None:
    queue.put("a")
    first = claimed(queue)
    clock.advance(jump_s)
    second = queue.claim()
    assert (second is not None) == (jump_s > 0)
    if second is not None:
        clock.advance(-jump_s)
        with pytest.raises(agentmem.FencedError):
            first.ack()
    (second or first).ack()
    assert len(queue) == 0


@pytest.mark.requires("files")
def test_after_a_restart_of_the_machine_claims_have_ended_and_delays_go_on(
    make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make_store(clock=None).queue("tasks")
    queue.put("claimed")
    late = claimed(queue, visibility_s=HOUR)
    queue.put("delayed", delay_s=HOUR)
    for start in ("0", "z"):  # before and after the first in order
        monkeypatch.setattr(boot, "start_id", lambda start=start: start)
        queue = make_store(clock=None).queue("tasks")
        task = claimed(queue, visibility_s=HOUR)
        assert (task.payload, queue.claim()) == ("claimed", None)
        with pytest.raises(agentmem.FencedError):
            late.ack()
        late = task
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + round(HOUR * 1e9))
    assert claimed(queue).payload == "delayed"


def test_what_is_no_task_is_refused(store: agentmem.Store, queue: agentmem.Queue) -> None:
    with pytest.raises(agentmem.InvalidValueError):
        queue.put({1, 2})
    for arguments in ({"priority": 2**31}, {"delay_s": -1}, {"group": ""}, {"op_id": ""}):
        with pytest.raises(agentmem.InvalidValueError):
            queue.put("a", **arguments)  # type: ignore[arg-type]  # mypy joins the values' types
    with pytest.raises(TypeError):
        queue.put("a", priority=1.5)  # type: ignore[arg-type]  # wrong on purpose
    for number in (0, -1):
        with pytest.raises(agentmem.InvalidValueError):
            store.queue("tasks", max_attempts=number)
    with pytest.raises(agentmem.InvalidValueError):
        queue.claim(visibility_s=0)
    with pytest.raises(agentmem.InvalidValueError):
        queue.peek(-1)
    assert store.queues() == []


def test_a_view_that_only_reads_neither_puts_nor_claims(store: agentmem.Store) -> None:
    queue = store.scoped("team", access="read").queue("tasks")
    for call in (lambda: queue.put("a"), queue.claim, lambda: queue.put_again(1)):
        with pytest.raises(agentmem.AccessDeniedError):
            call()
    assert len(queue) == 0
    assert queue
