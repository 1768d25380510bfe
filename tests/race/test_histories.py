"""Histories of list-append transactions, judged by a dependency graph."""

from __future__ import annotations

import pytest

from agentmem.testing.list_append import ListAppend, list_append
from tests.contract.conftest import Backend

# Fewer over a socket.
TRANSACTIONS = {"sqlite": 3_000, "postgres": 1_200}
CYCLES = {"G0", "G1c", "G-single", "G2-item"}


@pytest.mark.stress
@pytest.mark.slow
def test_four_processes_leave_a_serializable_history(
    backend: Backend, target: str, seed: int
) -> None:
    transactions = TRANSACTIONS[backend.name]
    work = ListAppend(transactions, processes=4, seed=seed)
    verdict = list_append(target, work)
    assert verdict.problems == []
    assert verdict.anomalies == []
    outcomes = [observed.outcome for observed in verdict.history]
    assert len(outcomes) == transactions
    assert outcomes.count("committed") > transactions * 2 / 3, (
        "a workload that commits nothing proves nothing"
    )


@pytest.mark.stress
@pytest.mark.mutant
def test_the_checker_finds_the_anomaly_when_reads_are_not_validated(target: str, seed: int) -> None:
    work = ListAppend(transactions=1_000, processes=4, seed=seed, checked=False)
    verdict = list_append(target, work)
    assert CYCLES & {anomaly.kind for anomaly in verdict.anomalies}


@pytest.mark.stress
@pytest.mark.mutant
def test_the_checker_finds_the_anomaly_that_snapshot_isolation_allows(
    target: str, seed: int
) -> None:
    work = ListAppend(transactions=1_000, processes=4, seed=seed, isolation="snapshot")
    verdict = list_append(target, work)
    assert CYCLES & {anomaly.kind for anomaly in verdict.anomalies}
    assert verdict.problems == []
