"""A snapshot that is held for long, while others commit."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import agentmem
from agentmem.testing.crew import Crew
from tests.contract.conftest import Backend
from tests.race.workers import commit_many

COMMITS = {"sqlite": 10_000, "postgres": 2_000}  # fewer over a socket
REPORTS = 20
MIB = 1024 * 1024


def hold_a_snapshot(target: str, commits: int, look: Callable[[], None]) -> None:
    """Two processes commit; meanwhile a snapshot is read, and `look` called, again and again."""
    with agentmem.open(target, durability="relaxed", blind_writes="allow") as store:
        store.put_many({f"k{number}": {"first": number} for number in range(10)})
        store.put("gone", "soon")
        snap, tx = store.snapshot(), store.transaction()
        before = (snap.list(), snap.count(), tx.list(track=False))
        store.delete("gone")

        def heard(_worker: int, _done: int) -> None:
            # In the middle of it: the reader reads, and holds nothing while it does not.
            assert (snap.list(), snap.count(), tx.list(track=False)) == before
            assert snap["gone"] == "soon"
            look()

        Crew(commit_many, [(target, commits // 2, commits // REPORTS) for _writer in range(2)]).run(
            heard
        )
        assert store.revision == commits + 3
        assert (snap.list(), snap.count()) == before[:2]
        assert store.snapshot(at=snap.revision).list() == before[0]


@pytest.mark.stress
@pytest.mark.slow
def test_a_snapshot_held_for_thousands_of_commits_reads_the_same_and_no_log_grows_with_it(
    backend: Backend, target: str
) -> None:
    commits = COMMITS[backend.name]
    sizes: list[int] = []

    def look() -> None:
        # PostgreSQL's log is one of all databases, and no transaction of ours is open meanwhile.
        sizes.append(os.stat(target + "-wal").st_size if backend.name == "sqlite" else 0)

    hold_a_snapshot(target, commits, look)
    assert len(sizes) == REPORTS
    if backend.name != "sqlite":
        return
    written = commits * 4_096 * 3  # a commit writes a few pages
    assert max(sizes) < 20 * MIB < written
    # Not in proportion to the commits: the second half adds nothing to what the first reached.
    assert max(sizes[len(sizes) // 2 :]) <= 2 * max(sizes[: len(sizes) // 2])
