"""Servers and clients that die while others commit."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agentmem.testing.killed_servers import MOMENTS, killed_server_cycles
from agentmem.testing.kills import kill_cycles
from agentmem.testing.list_append import ListAppend, list_append
from agentmem.testing.servers import Server
from tests import postgres_server

TRANSACTIONS = 600
CYCLES = 8
WRITER_CYCLES = 8
pytestmark = [pytest.mark.stress, pytest.mark.slow]


@pytest.fixture(scope="module")
def doomed_server() -> Iterator[Server]:
    """A server that is killed and started again by the harness itself."""
    if os.environ.get(postgres_server.DSN_VARIABLE):
        pytest.skip("a server that was given is not killed")
    with Server() as server:
        yield server


def test_what_is_told_when_the_server_dies_in_commit_is_true_and_all_is_applied_once(
    doomed_server: Server, seed: int
) -> None:
    report = killed_server_cycles(doomed_server, CYCLES, seed=seed)
    assert report.problems == []
    told = {
        moment: {outcome for found, outcome in report.outcomes if found == moment}
        for moment in MOMENTS
    }
    # Nobody can know then: whoever says that he does, lies now and then.
    for moment in ("before", "answered"):
        assert any(outcome.startswith("indeterminate") for outcome in told[moment])
    assert "indeterminate, committed" not in told["before"]
    assert "indeterminate, not committed" not in told["answered"]


def test_four_processes_leave_a_serializable_history_when_the_server_and_they_are_killed(
    doomed_server: Server, seed: int
) -> None:
    work = ListAppend(TRANSACTIONS, seed=seed, durability="full", client_kills=3, server_kills=3)
    target = doomed_server.store("lists")
    verdict = list_append(target, work, server=doomed_server)
    assert verdict.problems == []
    assert verdict.anomalies == []
    outcomes = [observed.outcome for observed in verdict.history]
    assert len(outcomes) == TRANSACTIONS
    assert outcomes.count("committed") > TRANSACTIONS * 2 / 3


def test_no_acknowledged_commit_is_lost_and_none_applied_twice_when_clients_are_killed(
    seed: int,
) -> None:
    target = postgres_server.store_url(postgres_server.new_name())
    assert kill_cycles(target, WRITER_CYCLES, seed=seed) == []
