"""Histories of list-append transactions, judged by a dependency graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.testing.list_append import ListAppend, list_append

CYCLES = {"G0", "G1c", "G-single", "G2-item"}


@pytest.mark.stress
@pytest.mark.slow
def test_four_processes_leave_a_serializable_history(tmp_path: Path, seed: int) -> None:
    work = ListAppend(transactions=3_000, processes=4, seed=seed)
    verdict = list_append(str(tmp_path / "lists.db"), work)
    assert verdict.problems == []
    assert verdict.anomalies == []
    outcomes = [observed.outcome for observed in verdict.history]
    assert len(outcomes) == 3_000
    assert outcomes.count("committed") > 2_000, "a workload that commits nothing proves nothing"


@pytest.mark.stress
@pytest.mark.mutant
def test_the_checker_finds_the_anomaly_when_reads_are_not_validated(
    tmp_path: Path, seed: int
) -> None:
    work = ListAppend(transactions=1_000, processes=4, seed=seed, checked=False)
    verdict = list_append(str(tmp_path / "lists.db"), work)
    assert CYCLES & {anomaly.kind for anomaly in verdict.anomalies}


@pytest.mark.stress
@pytest.mark.mutant
def test_the_checker_finds_the_anomaly_that_snapshot_isolation_allows(
    tmp_path: Path, seed: int
) -> None:
    work = ListAppend(transactions=1_000, processes=4, seed=seed, isolation="snapshot")
    verdict = list_append(str(tmp_path / "lists.db"), work)
    assert CYCLES & {anomaly.kind for anomaly in verdict.anomalies}
    assert verdict.problems == []
