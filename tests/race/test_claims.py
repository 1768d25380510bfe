"""Processes that repeat a claim: at the same moment, and after one of them was killed."""

from __future__ import annotations

from typing import Any

import pytest

import agentmem
from agentmem.testing.crew import Crew
from tests.race.workers import claim_once

WORKERS = 3


@pytest.mark.stress
def test_a_claim_is_one_claim_whoever_repeats_it_and_whoever_is_killed(target: str) -> None:
    with agentmem.open(target, durability="relaxed") as store:
        for payload in ("a", "b"):
            store.queue("tasks").put(payload)
    crew = Crew(
        claim_once,
        [(target, worker == 0) for worker in range(WORKERS)],
        revived=lambda _worker: (target, False),
    )
    told: list[Any] = []

    def heard(worker: int, claim: Any) -> None:
        told.append((worker, claim))
        if [each for each, _claim in told].count(0) == 1 and worker == 0:
            crew.kill(0)  # nobody else knows what it got

    crew.run(heard)
    assert sorted(worker for worker, _claim in told) == [0, 0, 1, 2]
    assert len({claim for _worker, claim in told}) == 1
    with agentmem.open(target) as store:
        shown = [(each.payload, each.state, each.attempts) for each in store.queue("tasks").peek()]
        assert shown == [("a", "claimed", 1), ("b", "waiting", 0)]
        assert store.admin.verify().problems == []
