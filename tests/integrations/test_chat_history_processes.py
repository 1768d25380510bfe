"""Processes that add to one history at once, and are killed: every message is there, once."""

from __future__ import annotations

import multiprocessing
import random
from typing import Any

import pytest

import agentmem
from agentmem.testing.crew import Crew
from langchain_agentmem import AgentMemChatMessageHistory
from tests.integrations.history_workers import append

PROCESSES = 8
COMMITS = 25
BATCH = 2


def check(target: str, processes: int, count: int) -> None:
    """Looks at the history from outside of all who wrote it."""
    with agentmem.open(target, embedder=None) as store:
        entries = store.list("chat/shared/messages")
        ids = [message.id or "" for message in AgentMemChatMessageHistory(store, "shared").messages]
        assert sorted(ids) == sorted(f"{w}:{n}" for w in range(processes) for n in range(count))
        for worker in range(processes):
            mine = [id for id in ids if id.startswith(f"{worker}:")]
            assert mine == [f"{worker}:{number}" for number in range(count)]
        # The order is that of the commits, and no message was ever written twice.
        assert [int(entry.key) for entry in entries] == list(range(1, len(ids) + 1))
        revisions = [entry.revision for entry in entries]
        assert revisions == sorted(revisions)
        assert {entry.version for entry in entries} == {1}
        assert store.admin.verify().problems == []


@pytest.fixture(autouse=True)
def _preloaded() -> None:
    """Processes start in a moment: what they import is there."""
    server: Any = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["tests.integrations.history_workers", "agentmem.engines.sqlite.engine",
         "agentmem.engines.postgres.engine"]
    )  # fmt: skip


# In memory a store is a process's own.
shared = pytest.mark.parametrize("kind", ["file", "postgres"])


@pytest.mark.stress
@shared
def test_processes_add_to_one_history_and_none_is_lost_or_doubled(target: str) -> None:
    arguments = [(target, worker, COMMITS, BATCH) for worker in range(PROCESSES)]
    heard: list[int] = []
    Crew(append, arguments, method="forkserver").run(lambda _worker, commit: heard.append(commit))
    assert len(heard) == PROCESSES * COMMITS
    check(target, PROCESSES, COMMITS * BATCH)


@pytest.mark.stress
@shared
def test_processes_that_are_killed_and_begin_again_add_no_message_twice(
    target: str, seed: int
) -> None:
    chance = random.Random(seed)
    arguments = [(target, worker, 6, BATCH) for worker in range(3)]
    crew = Crew(append, arguments, method="forkserver", revived=lambda worker: arguments[worker])
    lives = dict.fromkeys(range(3), 2)

    def heard(worker: int, commit: int) -> None:
        if lives[worker] and commit < 6 and chance.random() < 0.5:
            lives[worker] -= 1
            crew.kill(worker)

    crew.run(heard)
    assert sum(lives.values()) < 6
    check(target, 3, 6 * BATCH)
