"""Consumers of the feed in processes that are killed. Full size: agentmem.testing.stress feed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.testing.feeds import FeedWork, check_seen, follow
from tests.contract.conftest import Backend

COMMITS = {"sqlite": 600, "postgres": 200}
CONSUMERS = {"sqlite": 8, "postgres": 4}


@pytest.mark.stress
@pytest.mark.slow
def test_nothing_is_missing_out_of_order_or_twice_whoever_is_killed(
    backend: Backend, target: str, seed: int
) -> None:
    work = FeedWork(COMMITS[backend.name], CONSUMERS[backend.name], kills=5, seed=seed)
    assert follow(target, work) == []


@pytest.mark.parametrize(
    ("runs", "exact", "wrong"),
    [
        ([[1, 3], [3, 4]], False, ""),
        ([[1, 3], [4]], True, ""),
        ([[1], [4]], True, ""),
        ([[1], [4]], False, "3 is missing"),
        ([[1, 4]], False, "out of order"),
        ([[1, 4, 3]], True, "out of order"),
        ([[1, 2, 3, 4]], True, "out of order"),
        ([[1, 3], []], False, "1 events are missing"),
        ([[1, 3], [3, 4]], True, "3 was given twice"),
    ],
)
def test_the_checker_notices(runs: list[list[int]], exact: bool, wrong: str) -> None:
    found = check_seen(1, runs, [1, 3, 4], exact=exact)
    assert wrong in found[0] if wrong else found == []


@pytest.mark.mutant
@pytest.mark.slow
def test_effects_that_are_acknowledged_apart_are_noticed(tmp_path: Path, seed: int) -> None:
    # One engine: it is the checker that is tried.
    work = FeedWork(600, 1, kills=10, seed=seed, apart=True)
    assert any("its effects" in each for each in follow(str(tmp_path / "store.db"), work))
