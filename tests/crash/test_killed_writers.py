"""Writers that are killed while they commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.testing.kills import kill_cycles

CYCLES = 30


@pytest.mark.stress
@pytest.mark.slow
def test_no_acknowledged_commit_is_lost_and_no_operation_applied_twice_when_writers_are_killed(
    tmp_path: Path, seed: int
) -> None:
    assert kill_cycles(tmp_path, CYCLES, seed=seed) == []
