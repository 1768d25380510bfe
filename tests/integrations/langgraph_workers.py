"""What the processes of `test_langgraph_processes` run: a team of eight, on one shared board."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore

import agentmem
from langgraph_agentmem import AgentMemSaver, AgentMemStore, transactional_node
from tests.integrations.langgraph_team import BOARD, BRANCHES, eager_retries

__all__ = ["KEY", "NAMES", "team", "work"]

KEY: Final = "board"
NAMES: Final = tuple(f"branch_{number}" for number in range(BRANCHES))
Pause = Callable[[str], object]


def speaker(thread: str, name: str, pause: Pause) -> Callable[..., dict[str, Any]]:
    """A node that knows nothing of transactions: gets the board, asks the model, puts the board."""
    model = FakeListChatModel(responses=[f"{name} of {thread} has an idea"])

    def node(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
        found = store.get(BOARD, KEY)
        messages = found.value["messages"] if found is not None else []
        answer = model.invoke(state["messages"])
        answer.id = f"{thread}:{name}"
        pause(name)
        store.put(BOARD, KEY, {"messages": [*messages, f"{thread}:{name}: {answer.content}"]})
        return {"messages": [answer]}

    return node


def team(
    store: BaseStore,
    saver: Any,
    thread: str,
    *,
    wrap: Callable[[Any], Any],
    pause: Pause,
) -> CompiledStateGraph[Any]:
    """Eight branches side by side."""
    builder = StateGraph(MessagesState)
    for name in NAMES:
        builder.add_node(name, wrap(speaker(thread, name, pause)), retry_policy=eager_retries())
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    return builder.compile(store=store, checkpointer=saver)


def work(
    report: Callable[[str], None],
    begin: Callable[[], None],
    target: str,
    thread: str,
    dies: str,
    transactional: bool,
) -> None:
    """Runs the team once, or goes on with it where it was killed.

    Args:
        dies: where the first branch tells that it may be killed, and waits for it: ``"read"``,
            between reading and writing; ``"committed"``, before LangGraph hears that it is done;
            empty: nowhere, and what was begun is resumed.
    """
    together = threading.Barrier(BRANCHES)
    first_time = {*NAMES}

    def wait_for_death(point: str) -> None:
        if dies == point:
            report(point)
            threading.Event().wait()

    def pause(name: str) -> None:
        if name == NAMES[0]:
            wait_for_death("read")
        if name in first_time:  # all have read before the first of them writes
            first_time.remove(name)
            together.wait()

    def wrap(node: Any) -> Any:
        if not transactional:
            return node
        once = transactional_node(store)(node)

        def node_that_dies(state: MessagesState, *, store: BaseStore) -> Any:
            result = once(state, store=store)
            if result["messages"][0].id.endswith(NAMES[0]):
                wait_for_death("committed")
            return result

        return node_that_dies

    with agentmem.open(target, embedder=None) as below:
        store = AgentMemStore(below)
        graph = team(store, AgentMemSaver(below), thread, wrap=wrap, pause=pause)
        config: Any = {"configurable": {"thread_id": thread}, "max_concurrency": BRANCHES}
        begun = graph.get_state(config).next != ()
        if begun:
            # Tasks that were done are not run again, so nobody waits for all eight.
            first_time.clear()
        begin()
        start = None if begun else {"messages": [HumanMessage("go", id=f"{thread}:go")]}
        graph.invoke(start, config, durability="sync")
        report("resumed" if begun else "done")
