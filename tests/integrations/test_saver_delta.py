"""`DeltaChannel`: a channel that is rebuilt from writes comes back the same, pruned or not."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.test_utils import (
    generate_checkpoint,
    generate_config,
    generate_metadata,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

import agentmem
from langgraph_agentmem import AgentMemSaver, StrictSerializer

CONFIG: Any = {"configurable": {"thread_id": "t"}}
TURNS = 7


def _join(before: list[str], writes: list[list[str]]) -> list[str]:
    return [*before, *(each for write in writes for each in write)]


class State(TypedDict, total=False):
    """With a channel that is stored whole only now and then."""

    said: Annotated[list[str], DeltaChannel(_join, snapshot_frequency=5)]
    turn: int


def _graph(saver: BaseCheckpointSaver[str]) -> Any:
    builder = StateGraph(State)
    for name in ("left", "right"):
        builder.add_node(name, lambda state, name=name: {"said": [f"{name} {state['turn']}"]})
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    return builder.compile(checkpointer=saver)


def _said(saver: BaseCheckpointSaver[str]) -> list[list[str]]:
    """The channel at every checkpoint, newest first."""
    return [state.values.get("said", []) for state in _graph(saver).get_state_history(CONFIG)]


def _run(saver: BaseCheckpointSaver[str]) -> None:
    graph = _graph(saver)
    for turn in range(TURNS):
        graph.invoke({"turn": turn, "said": [f"input {turn}" + "x" * 2_000]}, CONFIG)


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_a_channel_is_the_same_at_every_checkpoint_as_with_langgraphs_saver(
    store: agentmem.Store,
) -> None:
    ours = AgentMemSaver(store, concurrent_runs="error")
    theirs = InMemorySaver(serde=StrictSerializer())
    for saver in (ours, theirs):
        _run(saver)
    assert _said(ours) == _said(theirs)
    assert len(_said(ours)[0]) == 3 * TURNS


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_pruning_keeps_what_a_channel_is_rebuilt_from(store: agentmem.Store) -> None:
    saver = AgentMemSaver(store, concurrent_runs="error")
    _run(saver)
    before = _said(saver)
    saver.prune(["t"])
    after = _said(saver)
    assert after[0] == before[0]
    assert 1 < len(after) < len(before)
    _run(saver)
    assert _said(saver)[0][: 3 * TURNS] == before[0]


@pytest.mark.parametrize("kind", ["file"], indirect=True)
async def test_checkpoints_whose_parents_go_round_in_a_circle_have_an_end(
    store: agentmem.Store,
) -> None:
    saver = AgentMemSaver(store, concurrent_runs="allow")
    first, second = generate_checkpoint(), generate_checkpoint()
    one = saver.put(generate_config("t"), first, generate_metadata(), {})
    two = saver.put(one, second, generate_metadata(), {})
    saver.put(two, first, generate_metadata(), {})  # again, as the child of its own child
    saver.put_writes(one, [("said", ["a"]), ("turn", 1)], "task")
    saver.put_writes(two, [("said", ["b"])], "task")
    found = await saver.aget_delta_channel_history(config=two, channels=["said"])
    assert found == {"said": {"writes": [("task", "said", ["a"])]}}
    assert saver.get_delta_channel_history(config=two, channels=[]) == {}
    missing = saver.get_delta_channel_history(config=generate_config("u"), channels=["said"])
    assert missing == {"said": {"writes": []}}
