"""What processes do with a graph in these tests; `Crew` starts and kills them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from langgraph_agentmem import AgentMemSaver

CONFIG: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 1_000}


class State(TypedDict, total=False):
    """Of a graph that goes round: two branches each time, and a step that counts."""

    turn: int
    left: Annotated[list[int], operator.add]
    right: Annotated[list[int], operator.add]
    text: str


def turning_graph(saver: AgentMemSaver, turns: int, told: Callable[[str], object]) -> Any:
    """A graph that goes round so often, and tells when it is in a node."""

    def branch(name: str) -> Callable[[State], State]:
        def node(state: State) -> Any:
            told(f"{name} {state['turn']}")
            return {name: [state["turn"]]}

        return node

    def turn(state: State) -> State:
        told(f"turn {state['turn']}")
        return {"turn": state["turn"] + 1, "text": "x" * 6_000 + str(state["turn"])}

    builder = StateGraph(State)
    for name in ("left", "right"):
        builder.add_node(name, branch(name))
        builder.add_edge(name, "turn")
    builder.add_node("turn", turn)
    builder.add_node("start", lambda _state: {})
    builder.add_edge(START, "start")
    builder.add_edge("start", "left")
    builder.add_edge("start", "right")
    builder.add_conditional_edges(
        "turn", lambda state: "start" if state["turn"] < turns else END, ["start", END]
    )
    return builder.compile(checkpointer=saver)


def run(
    report: Callable[[Any], None],
    begin: Callable[[], object],
    target: str,
    turns: int,
    durability: Any,
) -> None:
    """Runs the graph to its end, from wherever it is."""
    with AgentMemSaver(target, durability="relaxed", concurrent_runs="error") as saver:
        graph = turning_graph(saver, turns, report)
        begin()
        started = saver.get_tuple(CONFIG) is not None
        graph.invoke(None if started else {"turn": 0}, CONFIG, durability=durability)
