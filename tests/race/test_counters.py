"""Lost updates: one counter, many writers, every way to write, exactly counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.testing.counters import KINDS, WAYS, Kind, Way, check_counter, run_counter

INCREMENTS = 4_000
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
    tmp_path: Path, kind: Kind, way: Way
) -> None:
    path = str(tmp_path / "counter.db")
    run_counter(
        path,
        way,
        kind=kind,
        workers=WORKERS[kind],
        increments=INCREMENTS,
        durability="full" if (kind, way) in FULL else "relaxed",
    )
    assert check_counter(path, INCREMENTS) == []
