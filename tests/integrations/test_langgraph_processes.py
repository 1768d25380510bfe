"""Four processes, eight branches each, one killed and resumed: nothing lost, nothing twice."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any, Final

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.sqlite import SqliteStore

import agentmem
from agentmem.testing.crew import Crew
from langgraph_agentmem import AgentMemSaver, AgentMemStore
from tests.integrations.langgraph_team import BOARD, BRANCHES
from tests.integrations.langgraph_workers import KEY, NAMES, team, work

PROCESSES: Final = 4
THREADS: Final = [f"thread-{number}" for number in range(PROCESSES)]


@pytest.fixture(autouse=True)
def _preloaded() -> None:
    """Processes start in a moment: what they import is there."""
    server: Any = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["tests.integrations.langgraph_workers", "agentmem.engines.sqlite.engine",
         "agentmem.engines.postgres.engine"]
    )  # fmt: skip


@pytest.mark.stress
@pytest.mark.parametrize(
    ("kind", "dies", "transactional"),
    [("file", "read", False), ("file", "committed", True), ("postgres", "committed", True)],
)
def test_a_team_in_four_processes_loses_no_message_and_says_none_twice(
    target: str, dies: str, transactional: bool
) -> None:
    def arguments(worker: int, dies: str = "") -> tuple[Any, ...]:
        return target, THREADS[worker], dies, transactional

    started = [arguments(0, dies), *(arguments(worker) for worker in range(1, PROCESSES))]
    crew = Crew(work, started, method="forkserver", revived=arguments)
    heard: list[tuple[int, str]] = []

    def hear(worker: int, said: str) -> None:
        heard.append((worker, said))
        if said == dies:
            crew.kill(worker)

    crew.run(hear)
    assert [said for worker, said in heard if worker == 0] == [dies, "resumed"]
    assert sorted(heard)[2:] == [(worker, "done") for worker in range(1, PROCESSES)]

    with agentmem.open(target, embedder=None) as below:
        store = AgentMemStore(below)
        said = store.get(BOARD, KEY).value["messages"]  # type: ignore[union-attr]  # it is there
        expected = sorted(f"{thread}:{name}" for thread in THREADS for name in NAMES)
        assert sorted(message.rpartition(":")[0] for message in said) == expected
        history = store.history(BOARD, KEY)
        assert [entry.version for entry in history] == list(range(len(expected), 0, -1))
        graph = team(store, AgentMemSaver(below), "", wrap=lambda node: node, pause=lambda _: None)
        for thread in THREADS:
            config: Any = {"configurable": {"thread_id": thread}}
            state = graph.get_state(config)
            assert state.next == ()
            ids = [message.id for message in state.values["messages"]]
            assert sorted(ids) == sorted([f"{thread}:go", *(f"{thread}:{name}" for name in NAMES)])
            commits = [
                commit
                for commit in below.log("team", metadata={"thread_id": thread})
                if commit.changes
            ]
            assert sorted(str(commit.agent) for commit in commits) == sorted(NAMES)
        assert below.admin.verify().problems == []


def test_the_same_team_on_langgraphs_own_store_loses_messages(tmp_path: Path) -> None:

    together = threading.Barrier(BRANCHES)
    with SqliteStore.from_conn_string(str(tmp_path / "langgraph.db")) as store:
        store.setup()
        graph = team(
            store, InMemorySaver(), "t", wrap=lambda node: node, pause=lambda _: together.wait()
        )
        config: Any = {"configurable": {"thread_id": "t"}, "max_concurrency": BRANCHES}
        result = graph.invoke({"messages": []}, config, durability="sync")
        assert len(result["messages"]) == BRANCHES
        found = store.get(BOARD, KEY)
        assert found is not None
        assert len(found.value["messages"]) < BRANCHES
