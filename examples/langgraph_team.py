"""A LangGraph team of eight writes one list of notes at once, on LangGraph's store and on agentmem.

The nodes are the same, and know nothing of transactions: they get the notes, ask a chat model, and
put the notes back with one more. LangGraph's own store loses what others have put in between. On
`AgentMemStore` such a put is a conflict, and the node's retry policy runs it again. Then a node
that books a seat is run twice by a crash, and, as a transactional node, books one seat.

    python examples/langgraph_team.py

Everything runs offline: the chat model follows a script. Needs the extra ``langgraph``, and
``langgraph-checkpoint-sqlite`` to compare with.
"""

import contextlib
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.base import BaseStore
from langgraph.store.sqlite import SqliteStore
from langgraph.types import RetryPolicy

from langgraph_agentmem import (
    AgentMemStore,
    transactional_node,
)

TEAM = ("ann", "bob", "cem", "dee", "eva", "fay", "gil", "hal")
NOTES = ("team", "rome")


def member(name: str, together: threading.Barrier) -> Any:
    model = FakeListChatModel(responses=[f"{name}: see the Forum"])
    first_time = [True]

    def node(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
        found = store.get(NOTES, "notes")
        notes = found.value["notes"] if found else []
        answer = model.invoke(state["messages"])
        if first_time:
            first_time.clear()
            together.wait(60)  # so that all have read before the first of them writes
        store.put(NOTES, "notes", {"notes": [*notes, answer.content]})
        return {"messages": [answer]}

    return node


def notes_of_a_team(store: BaseStore) -> int:
    together = threading.Barrier(len(TEAM))
    retries = RetryPolicy(initial_interval=0.001, max_interval=0.05, max_attempts=100)
    builder = StateGraph(MessagesState)
    for name in TEAM:
        builder.add_node(name, member(name, together), retry_policy=retries)
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    graph = builder.compile(store=store)
    graph.invoke({"messages": [HumanMessage("Rome?")]}, {"max_concurrency": len(TEAM)})
    found = store.get(NOTES, "notes")
    return len(found.value["notes"]) if found else 0


class Unwell(InMemorySaver):
    """A checkpointer that keeps nothing while it is away, as if the process had died then."""

    away = False

    def put(self, *args: Any, **kwargs: Any) -> Any:
        if self.away:
            raise OSError("the process has died")
        return super().put(*args, **kwargs)

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        if self.away:
            raise OSError("the process has died")
        super().put_writes(*args, **kwargs)


def seats_after_a_crash(store: AgentMemStore, *, transactional: bool) -> int:
    saver = Unwell()
    runs = []

    def book(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
        runs.append(1)
        found = store.get(NOTES, "seats")
        assert found is not None
        store.put(NOTES, "seats", {"free": found.value["free"] - 1})
        saver.away = len(runs) == 1
        return {"messages": [AIMessage("booked")]}

    store.put(NOTES, "seats", {"free": 10})
    builder = StateGraph(MessagesState)
    builder.add_node("book", transactional_node(store)(book) if transactional else book)
    builder.add_edge(START, "book")
    builder.add_edge("book", END)
    graph = builder.compile(store=store, checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    with contextlib.suppress(OSError):
        graph.invoke({"messages": [HumanMessage("a seat")]}, config, durability="sync")
    saver.away = False
    graph.invoke(None, config, durability="sync")  # LangGraph has not heard that it was done
    found = store.get(NOTES, "seats")
    return int(found.value["free"]) if found else 0


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        with SqliteStore.from_conn_string(str(Path(folder) / "langgraph.db")) as theirs:
            theirs.setup()
            lossy = notes_of_a_team(theirs)
        with AgentMemStore.from_conn_string(str(Path(folder) / "team.db")) as ours:
            kept = notes_of_a_team(ours)
            history = ours.history(NOTES, "notes")
            plain = seats_after_a_crash(ours, transactional=False)
            once = seats_after_a_crash(ours, transactional=True)
    lost = "some" if lossy < len(TEAM) else "none"
    print(f"LangGraph's SqliteStore   {len(TEAM)} notes put, {lost} lost")
    print(f"AgentMemStore             {kept} of {len(TEAM)} notes, {len(history)} versions")
    print(f"a node that is run twice  books {10 - plain} seats")
    print(f"transactional_node        books {10 - once} seat")
    fine = lossy < len(TEAM) and kept == len(history) == len(TEAM) and (plain, once) == (8, 9)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
