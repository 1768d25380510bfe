"""Compaction beside writers and readers of other processes."""

from __future__ import annotations

import pytest

from agentmem.testing.compactions import compaction_race

pytestmark = pytest.mark.stress


def test_readers_and_writers_get_no_wrong_answer(target: str, seed: int) -> None:
    wrong, told = compaction_race(target, commits=60, writers=2, readers=1, seed=seed)
    assert wrong == []
    assert told["looked"] > 0
    assert told["floor"] > 50
