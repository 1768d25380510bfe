"""Graphs for the tests of LangGraph's integration: branches that read, think and put."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import Annotated, Any, Final, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import RetryPolicy

__all__ = [
    "BOARD",
    "BRANCHES",
    "State",
    "branching",
    "eager_retries",
    "notes_of",
    "run",
    "take_note",
]

BRANCHES: Final = 8
BOARD: Final = ("team",)
KEY: Final = "board"


class State(TypedDict):
    """What the branches add to."""

    done: Annotated[list[str], operator.add]


Node = Callable[..., Any]


def eager_retries() -> RetryPolicy:
    """LangGraph's default policy, but for how long it waits and how often it tries."""
    return RetryPolicy(initial_interval=0.001, max_interval=0.05, max_attempts=100)


def take_note(name: str, pause: Callable[[], object] = lambda: None) -> Node:
    """A node as people write it: gets a list, and puts it back with one note more.

    Args:
        pause: what it does between reading and writing, the first time: others may come.
    """
    waits = [pause]

    def node(state: State, *, store: BaseStore) -> dict[str, Any]:
        found = store.get(BOARD, KEY)
        notes = list(found.value["notes"]) if found is not None else []
        if waits:
            waits.pop()()
        store.put(BOARD, KEY, {"notes": [*notes, name]})
        return {"done": [name]}

    return node


def branching(
    store: BaseStore,
    *,
    wrap: Callable[[Node], Node] = lambda node: node,
    retry_policy: RetryPolicy | None = None,
    saver: BaseCheckpointSaver[Any] | None = None,
    make: Callable[[str, Callable[[], object]], Node] = take_note,
) -> CompiledStateGraph[Any]:
    """Eight branches that all have read before the first of them writes."""
    together = threading.Barrier(BRANCHES)
    builder = StateGraph(State)
    for number in range(BRANCHES):
        name = f"branch_{number}"
        builder.add_node(name, wrap(make(name, together.wait)), retry_policy=retry_policy)
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    return builder.compile(store=store, checkpointer=saver)


def run(graph: CompiledStateGraph[Any], thread: str = "1") -> Any:
    """One invocation with a thread for each branch."""
    config: Any = {"configurable": {"thread_id": thread}, "max_concurrency": BRANCHES}
    saved: Any = {"durability": "sync"} if graph.checkpointer is not None else {}
    return graph.invoke({"done": []}, config, **saved)


def notes_of(store: BaseStore) -> list[str]:
    """What is on the board."""
    found = store.get(BOARD, KEY)
    return [] if found is None else list(found.value["notes"])
