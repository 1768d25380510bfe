"""Real processes that are stopped and killed: leases, queues, once. Full sizes: testing.stress."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentmem
from agentmem.coordination import lease_steps
from agentmem.testing.leases import check_leases, lease_trials
from agentmem.testing.once import ask_once
from agentmem.testing.tasks import TaskWork, check_tasks, work_through
from tests.contract.conftest import Backend

TRIALS = {"sqlite": 20, "postgres": 8}
TASKS = {"sqlite": 400, "postgres": 120}
KEYS = {"sqlite": 40, "postgres": 15}
PROCESSES = {"sqlite": 8, "postgres": 4}


@pytest.mark.stress
@pytest.mark.parametrize("jumps", [False, True])
def test_a_holder_that_was_stopped_past_the_end_writes_nothing_late(
    backend: Backend, target: str, seed: int, jumps: bool
) -> None:
    assert lease_trials(target, TRIALS[backend.name], seed=seed, jumps=jumps) == []


@pytest.mark.stress
@pytest.mark.slow
def test_every_result_is_committed_once_whoever_is_killed(
    backend: Backend, target: str, seed: int
) -> None:
    work = TaskWork(
        TASKS[backend.name], PROCESSES[backend.name], kills=4, groups=4, poisoned=50, seed=seed
    )
    assert work_through(target, work) == []


@pytest.mark.stress
@pytest.mark.slow
def test_every_effect_happens_once_and_a_death_in_one_is_told(
    backend: Backend, target: str, tmp_path: Path, seed: int
) -> None:
    found = ask_once(
        target,
        tmp_path,
        keys=KEYS[backend.name],
        processes=PROCESSES[backend.name],
        deadly=1,
        seed=seed,
    )
    assert found == []


# The checkers can fail.


@pytest.mark.mutant
def test_the_checker_of_leases_finds_a_write_under_a_stale_token(target: str) -> None:
    with agentmem.open(target, embedder=None) as store:
        for token in (1, 3, 2):
            store.put("k", token, overwrite=True)
    assert check_leases(target) == ["a write under token 2 came after a later one"]


@pytest.mark.mutant
def test_the_checker_of_tasks_finds_lost_repeated_disordered_and_stuck_ones(target: str) -> None:
    work = TaskWork(4, groups=1, poisoned=4)
    with agentmem.open(target, embedder=None) as store:
        store.put_many({"0": 2, "3": 1}, namespace="results")
        store.put("group-0", [3, 1], namespace="groups")
        store.queue("work").put(5)
    found = check_tasks(target, work)
    for part in ("task 0 was committed 2", "task 1 was committed 0", "group-0", "dead", "stuck"):
        assert any(part in each for each in found), part


@pytest.mark.mutant
def test_a_guard_that_is_not_looked_at_is_found(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_steps.Guard, "judge", lambda self, answers, desk: [])
    with agentmem.open(target, embedder=None, blind_writes="allow") as store:
        late = store.lease("k").acquire()
        store.break_lease("k")
        for lease in (store.lease("k").acquire(), late):
            with store.transaction() as tx:
                tx.guard(lease)
                tx["k"] = lease.token
    assert check_leases(target) == ["a write under token 1 came after a later one"]
