"""A run that is killed goes on in another process: no step is lost, and none counts twice."""

from __future__ import annotations

import multiprocessing
import random
from typing import Any

import pytest

from agentmem.testing.crew import Crew
from langgraph_agentmem import AgentMemSaver
from tests.integrations.saver_workers import CONFIG, run, turning_graph

TURNS = 6
KILLS = 5


@pytest.fixture(autouse=True)
def _preloaded() -> None:
    """Processes start in a moment: what they import is there."""
    server: Any = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["tests.integrations.saver_workers", "agentmem.engines.sqlite.engine",
         "agentmem.engines.postgres.engine"]
    )  # fmt: skip


@pytest.mark.stress
@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_killed_run_goes_on_where_it_was_and_every_step_counts_once(
    target: str, seed: int, durability: str
) -> None:
    chosen = random.Random(seed)
    kills: list[str] = []
    crew = Crew(run, [(target, TURNS, durability)], "forkserver",
                revived=lambda _worker: (target, TURNS, durability))  # fmt: skip

    def heard(worker: int, told: str) -> None:
        if len(kills) < KILLS and chosen.random() < 0.4:
            kills.append(told)
            crew.kill(worker)

    crew.run(heard)
    assert len(kills) == KILLS
    with AgentMemSaver(target) as saver:
        graph = turning_graph(saver, TURNS, kills.append)
        state = graph.get_state(CONFIG)
        turns = list(range(TURNS))
        assert state.values["left"] == turns
        assert state.values["right"] == turns
        assert (state.values["turn"], state.next) == (TURNS, ())
        assert state.values["text"].endswith(str(TURNS - 1))
        found = list(saver.list(CONFIG))
        parents = {str(each.parent_config) for each in found}
        assert len(parents) == len(found)  # no checkpoint has two children
        assert saver.store.admin.verify().problems == []
