"""What a commit is told of the run that it is made in."""

from __future__ import annotations

from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy

from langchain_agentmem.runs import Run, current_run


class State(TypedDict):
    """Of the graph."""

    n: int


def test_outside_of_any_run_nothing_is_known() -> None:
    assert current_run() == Run()
    assert current_run().metadata() == {}


def test_a_node_knows_its_run_and_keeps_its_task_in_a_retry() -> None:
    seen: list[Run] = []

    def node(state: State) -> State:
        seen.append(current_run())
        if len(seen) == 1:
            raise ValueError("once more")
        return {"n": state["n"] + 1}

    graph = StateGraph(State)
    graph.add_node("work", node, retry_policy=RetryPolicy(retry_on=ValueError, initial_interval=0))
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    app = graph.compile(checkpointer=InMemorySaver())
    app.invoke({"n": 0}, {"configurable": {"thread_id": "thread-9"}})
    app.invoke({"n": 0}, {"configurable": {"thread_id": "thread-9"}})

    first, again, later = seen
    assert first == again
    assert (first.thread_id, first.node, first.step) == ("thread-9", "work", 1)
    assert first.task_id is not None
    assert first.task_id != later.task_id
    assert set(first.metadata()) >= {"thread_id", "checkpoint_id", "task_id", "node", "step"}
