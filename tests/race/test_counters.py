"""Lost updates: one counter, many writers, every way to write, exactly counted."""

from __future__ import annotations

import pytest

from agentmem.testing.counters import KINDS, WAYS, Kind, Way, check_counter, run_counter
from tests.contract.conftest import Backend

# Fewer over a socket: each commit is two round trips, and a second process that works for it.
INCREMENTS = {"sqlite": 4_000, "postgres": 1_000}
WORKERS: dict[Kind, int] = {"processes": 8, "threads": 32, "tasks": 32}
# Where durability is not the point; one run of each kind is full.
FULL: set[tuple[Kind, Way]] = {
    ("processes", "increment"),
    ("threads", "transact"),
    ("tasks", "merge"),
}


@pytest.mark.stress
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_increment_is_lost_and_no_version_or_revision_is_left_out(
    backend: Backend, target: str, kind: Kind, way: Way
) -> None:
    increments = INCREMENTS[backend.name]
    run_counter(
        target,
        way,
        kind=kind,
        workers=WORKERS[kind],
        increments=increments,
        durability="full" if (kind, way) in FULL else "relaxed",
    )
    assert check_counter(target, increments) == []
