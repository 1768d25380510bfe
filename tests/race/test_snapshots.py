"""A snapshot that is held for long, while others commit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import agentmem
from agentmem.testing.crew import Crew
from tests.race.workers import commit_many

COMMITS = 10_000
EVERY = 500
MIB = 1024 * 1024


@pytest.mark.stress
@pytest.mark.slow
def test_a_snapshot_held_for_ten_thousand_commits_reads_the_same_and_the_log_does_not_grow_with_it(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "held.db")
    with agentmem.open(path, durability="relaxed", blind_writes="allow") as store:
        store.put_many({f"k{number}": {"first": number} for number in range(10)})
        store.put("gone", "soon")
        snap, tx = store.snapshot(), store.transaction()
        before = (snap.list(), snap.count(), tx.list(track=False))
        store.delete("gone")
        sizes: list[int] = []

        def heard(_worker: int, _done: int) -> None:
            # In the middle of it: the reader reads, and holds nothing while it does not.
            assert (snap.list(), snap.count(), tx.list(track=False)) == before
            assert snap["gone"] == "soon"
            sizes.append(os.stat(path + "-wal").st_size)

        Crew(commit_many, [(path, COMMITS // 2, EVERY) for _writer in range(2)]).run(heard)
        assert store.revision == COMMITS + 3
        assert (snap.list(), snap.count()) == before[:2]
        assert store.snapshot(at=snap.revision).list() == before[0]
    assert len(sizes) == COMMITS // EVERY
    written = COMMITS * 4_096 * 3  # a commit writes a few pages
    assert max(sizes) < 20 * MIB < written
    # Not in proportion to the commits: the second half adds nothing to what the first reached.
    assert max(sizes[len(sizes) // 2 :]) <= 2 * max(sizes[: len(sizes) // 2])
