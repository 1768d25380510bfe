"""Claims with an operation id: whoever repeats one gets the task that it holds."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import agentmem
from tests.contract.conftest import ManualClock

THREADS = 8


@pytest.fixture
def queue(store: agentmem.Store) -> agentmem.Queue:
    """Three tasks, in this order."""
    queue = store.queue("tasks", max_attempts=3)
    for payload in ("a", "b", "c"):
        queue.put(payload)
    return queue


def claimed(queue: agentmem.Queue, op_id: str | None, agent: str | None = None) -> agentmem.Task:
    task = queue.claim(agent, visibility_s=60, op_id=op_id)
    assert task is not None
    return task


def test_a_repeat_gets_the_task_of_the_first_claim(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    first = claimed(queue, "call-1", "ann")
    before = queue.peek()
    clock.advance(59)
    again = claimed(queue, "call-1", "ann")
    assert (again.id, again.token, again.attempts) == (first.id, first.token, 1)
    assert (again.payload, again.queue, again.max_attempts) == ("a", "tasks", 3)
    assert queue.peek() == before
    assert claimed(queue, "call-2").payload == "b"
    assert claimed(queue, None).payload == "c"
    again.ack()
    with pytest.raises(agentmem.FencedError):
        first.ack()  # it is one claim: what one has done, the other cannot do again


def test_a_repeat_does_not_lengthen_the_claim(queue: agentmem.Queue, clock: ManualClock) -> None:
    first = claimed(queue, "call-1")
    clock.advance(59)
    claimed(queue, "call-1")
    clock.advance(1)
    other = claimed(queue, None)
    assert other.id == first.id
    assert other.token > first.token


def test_once_the_claim_has_ended_a_repeat_is_a_new_claim(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    first = claimed(queue, "call-1")
    clock.advance(60)
    again = claimed(queue, "call-1")
    assert (again.id, again.attempts) == (first.id, 2)
    assert again.token > first.token
    with pytest.raises(agentmem.FencedError):
        first.ack()


def test_a_worker_that_dies_of_its_task_each_time_repeats_it_only_so_often(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    payloads = []
    for _life in range(4):
        payloads.append(claimed(queue, "call-1").payload)
        clock.advance(60)
    assert payloads == ["a", "a", "a", "b"]
    assert [each.payload for each in queue.dead()] == ["a"]


@pytest.mark.parametrize("ending", ["ack", "nack"])
def test_a_task_that_is_done_or_given_back_is_not_repeated(
    queue: agentmem.Queue, ending: str
) -> None:
    first = claimed(queue, "call-1")
    first.ack() if ending == "ack" else first.nack(delay_s=30)
    again = claimed(queue, "call-1")
    assert again.payload == "b"
    assert claimed(queue, "call-1").token == again.token


def test_a_task_that_another_has_claimed_since_is_not_repeated(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    first = claimed(queue, "call-1", "ann")
    clock.advance(60)
    assert claimed(queue, None, "bob").id == first.id
    assert claimed(queue, "call-1", "ann").payload == "b"


def test_a_claim_that_runs_on_again_is_not_found_once_a_repeat_has_another(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    urgent = queue.put("urgent", delay_s=60, priority=1)
    first = claimed(queue, "call-1")
    clock.advance(60)
    second = claimed(queue, "call-1")
    assert (first.payload, second.id) == ("a", urgent)
    first.extend()  # it counts past its end while nobody has claimed the task again
    assert claimed(queue, "call-1").token == second.token
    second.ack()
    assert claimed(queue, "call-1").payload == "b"
    first.ack()


def test_an_extended_claim_is_repeated_as_long_as_it_runs(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    first = claimed(queue, "call-1")
    first.extend(600)
    clock.advance(599)
    assert claimed(queue, "call-1").token == first.token


def test_a_claim_that_found_nothing_is_asked_anew(store: agentmem.Store) -> None:
    queue = store.queue("empty")
    assert queue.claim(op_id="call-1") is None
    queue.put("late")
    assert claimed(queue, "call-1").payload == "late"


def test_an_op_id_that_another_agent_holds_a_task_under_is_an_error(
    queue: agentmem.Queue, clock: ManualClock
) -> None:
    first = claimed(queue, "call-1", "ann")
    for other in ("bob", None):
        with pytest.raises(agentmem.OperationMismatchError, match="'ann' to claim from 'tasks'"):
            queue.claim(other, op_id="call-1")
    assert [each.state for each in queue.peek()] == ["claimed", "waiting", "waiting"]
    clock.advance(60)
    assert claimed(queue, "call-1", "bob").id == first.id


def test_op_ids_of_claims_are_those_of_one_queue_and_view_and_not_those_of_puts(
    store: agentmem.Store,
) -> None:
    queues = [store.queue("one"), store.queue("two"), store.scoped("team").queue("one")]
    for queue in queues:
        for payload in ("a", "b"):
            queue.put(payload, op_id=payload)
    tasks = [claimed(queue, "a") for queue in queues]
    assert len({task.id for task in tasks}) == 3
    assert [task.payload for task in tasks] == ["a"] * 3
    assert queues[0].put("a", op_id="a") == tasks[0].id


def test_a_group_stands_behind_a_claim_whoever_repeats_it(store: agentmem.Store) -> None:
    queue = store.queue("grouped")
    for payload in ("book", "pay"):
        queue.put(payload, group="trip")
    first = claimed(queue, "call-1")
    assert claimed(queue, "call-1").token == first.token
    assert queue.claim(op_id="call-2") is None
    first.ack()
    assert claimed(queue, "call-1").payload == "pay"


def test_threads_that_make_one_claim_at_once_have_one_task(queue: agentmem.Queue) -> None:
    together = threading.Barrier(THREADS)

    def claim(_number: int) -> tuple[int, int]:
        together.wait(60)
        task = claimed(queue, "call-1")
        return task.token, task.attempts

    with ThreadPoolExecutor(THREADS) as pool:
        assert len(set(pool.map(claim, range(THREADS)))) == 1
    assert [each.state for each in queue.peek()] == ["claimed", "waiting", "waiting"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [("", agentmem.InvalidValueError), (7, TypeError), ("a\0b", agentmem.InvalidValueError)],
    ids=repr,
)
def test_what_is_no_op_id_is_refused(
    queue: agentmem.Queue, wrong: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        queue.claim(op_id=wrong)  # type: ignore[arg-type]  # on purpose
    assert all(each.state == "waiting" for each in queue.peek())
