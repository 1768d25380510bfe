"""transactional_node: a node is one transaction, and applies once however often it is replayed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_store
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import Command, Overwrite, Send, interrupt

import agentmem
from langchain_agentmem.runs import Run
from langgraph_agentmem import AgentMemStore, transactional_node
from langgraph_agentmem.results import decoded, encoded
from tests.integrations.langgraph_team import BRANCHES, State, branching, notes_of, run

NS: Final = ("team",)
CONFIG: Final[Any] = {"configurable": {"thread_id": "1"}}


@pytest.fixture
def memory(store: agentmem.Store) -> Iterator[AgentMemStore]:
    """A store for LangGraph over each kind of store."""
    with AgentMemStore(store) as made:
        yield made


@pytest.fixture
def one() -> Iterator[AgentMemStore]:
    """A store where the kind makes no difference."""
    with AgentMemStore(":memory:", durability="relaxed") as made:
        yield made


class Unwell(InMemorySaver):
    """A checkpointer that keeps nothing while it is away.

    To the graph it is as if the process had died then: what was kept before is there.
    """

    away = False

    def put(self, *args: Any, **kwargs: Any) -> Any:
        if self.away:
            raise OSError("the checkpointer is away")
        return super().put(*args, **kwargs)

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        if self.away:
            raise OSError("the checkpointer is away")
        super().put_writes(*args, **kwargs)


def add(store: BaseStore, key: str = "count") -> int:
    """Adds one as code does that knows no transactions."""
    found = store.get(NS, key)
    count = (found.value["n"] if found is not None else 0) + 1
    store.put(NS, key, {"n": count})
    return count


def graph_of(store: AgentMemStore, *nodes: Any, saver: Any = None, state: Any = State) -> Any:
    """Nodes one after the other."""
    builder = StateGraph(state)
    last = START
    for number, node in enumerate(nodes):
        name = f"node_{number}"
        builder.add_node(name, node)
        builder.add_edge(last, name)
        last = name
    builder.add_edge(last, END)
    return builder.compile(store=store, checkpointer=saver)


def count_of(store: BaseStore, key: str = "count") -> int:
    found = store.get(NS, key)
    return 0 if found is None else int(found.value["n"])


# One transaction.


def test_parallel_branches_lose_no_note_without_a_retry_policy(memory: AgentMemStore) -> None:
    graph = branching(memory, wrap=transactional_node(memory))
    assert len(run(graph)["done"]) == BRANCHES
    assert sorted(notes_of(memory)) == [f"branch_{n}" for n in range(BRANCHES)]


def test_all_ways_to_the_store_go_through_one_commit(one: AgentMemStore) -> None:
    @transactional_node(one, agent="ann")
    def node(
        state: State, store: BaseStore, runtime: Runtime[None], tx: agentmem.Transaction
    ) -> dict[str, Any]:
        store.put(NS, "injected", {"n": 1}, ttl=5)
        get_store().put(NS, "gotten", {"n": 2})
        assert runtime.store is not None
        runtime.store.put(NS, "runtime", {"n": 3})
        tx.increment("edits", namespace="stats")
        assert store.get(NS, "gotten").value == {"n": 2}  # type: ignore[union-attr]  # it is there
        assert [item.key for item in store.search(NS)] == ["gotten", "injected", "runtime"]
        assert store.list_namespaces() == [("stats",), NS]
        assert one.agentmem.revision == 0
        return {"done": ["all"]}

    assert graph_of(one, node, saver=InMemorySaver()).invoke({"done": []}, CONFIG)["done"] == [
        "all"
    ]
    (commit,) = one.agentmem.log()
    assert commit.agent == "ann"
    assert len(commit.changes) == 5  # and how long the first one lives
    assert commit.metadata["thread_id"] == "1"
    assert commit.metadata["node"] == "node_0"
    assert one.get(NS, "injected") is not None


def test_who_commits_is_whom_the_store_or_the_decorator_names(one: AgentMemStore) -> None:
    def node(state: State) -> None:
        get_store().put(NS, "k", {})

    ann = AgentMemStore(one.agentmem, agent="ann")
    for store, options in ((one, {}), (ann, {}), (ann, {"agent": "bob"})):
        graph_of(store, transactional_node(store, **options)(node)).invoke({"done": []})
    graph_of(ann, node).invoke({"done": []})
    assert [entry.agent for entry in one.history(NS, "k")] == ["ann", "bob", "ann", "node_0"]


def test_an_exception_writes_nothing(one: AgentMemStore) -> None:
    @transactional_node(one)
    def node(state: State, *, store: BaseStore) -> None:
        add(store)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        graph_of(one, node).invoke({"done": []})
    assert one.agentmem.revision == 0


def test_a_node_runs_again_if_what_it_read_has_changed(one: AgentMemStore) -> None:
    runs: list[int] = []

    def node(state: State, *, store: BaseStore) -> None:
        runs.append(add(store))
        if len(runs) == 1:
            one.agentmem.put("count", {"n": 10}, namespace=NS, overwrite=True)

    graph_of(one, transactional_node(one)(node)).invoke({"done": []})
    assert runs == [1, 11]
    assert count_of(one) == 11
    runs.clear()
    with pytest.raises(agentmem.ConflictError, match="1 attempts"):
        graph_of(one, transactional_node(one, attempts=1)(node)).invoke({"done": []})
    assert len(runs) == 1


def test_a_search_is_part_of_what_it_read(one: AgentMemStore) -> None:
    runs: list[int] = []

    @transactional_node(one)
    def node(state: State, *, store: BaseStore) -> None:
        runs.append(len(store.search(NS)))
        if len(runs) == 1:
            one.agentmem.put("new", {}, namespace=NS)
        store.put(("sums",), "size", {"n": runs[-1]})

    graph_of(one, node).invoke({"done": []})
    assert runs == [0, 1]


def test_merge_strategies_may_settle_it(one: AgentMemStore) -> None:
    one.agentmem.set_merge("team/**", "json")
    one.put(NS, "plan", {"a": 0, "b": 0})
    runs: list[int] = []

    @transactional_node(one, merge=True)
    def node(state: State, *, store: BaseStore) -> None:
        runs.append(1)
        store.put(NS, "plan", {"a": 0, "b": 1})
        one.agentmem.put("plan", {"a": 1, "b": 0}, namespace=NS, overwrite=True)

    graph_of(one, node).invoke({"done": []})
    assert runs == [1]
    assert one.get(NS, "plan").value == {"a": 1, "b": 1}  # type: ignore[union-attr]  # it is there


def test_parallel_tools_of_one_transaction_do_not_overwrite_each_other(one: AgentMemStore) -> None:
    have_read = threading.Barrier(2)

    @tool
    def note(name: str) -> str:
        """Takes a note."""
        store = get_store()
        store.get(NS, "k")
        have_read.wait(60)
        store.put(NS, "k", {"by": name})
        return "noted"

    tools = ToolNode([note])

    @transactional_node(one, attempts=1)
    def node(state: MessagesState, config: RunnableConfig) -> Any:
        return tools.invoke(state, config)

    calls = [{"name": "note", "args": {"name": name}, "id": name} for name in ("a", "b")]
    with pytest.raises(agentmem.ConflictError):
        graph_of(one, node, state=MessagesState).invoke(
            {"messages": [AIMessage("", tool_calls=calls)]}, {"max_concurrency": 4}
        )
    assert one.get(NS, "k") is None


def test_a_node_in_a_node_is_part_of_it(one: AgentMemStore) -> None:
    inner = transactional_node(one)(add)

    @transactional_node(one)
    def outer(state: State, *, store: BaseStore) -> dict[str, Any]:
        return {"done": [str(inner(store)), str(inner(store))]}

    assert graph_of(one, outer).invoke({"done": []})["done"] == ["1", "2"]
    assert one.agentmem.revision == 1


def test_another_view_of_the_same_store_is_refused(one: AgentMemStore) -> None:
    scoped = AgentMemStore(one.agentmem.scoped("team"))

    @transactional_node(one)
    def node(state: State) -> None:
        scoped.put(("x",), "k", {})

    with pytest.raises(agentmem.InvalidValueError, match="another view"):
        graph_of(one, node).invoke({"done": []})
    for wrong in ("team.db", None):
        with pytest.raises(TypeError):
            transactional_node(wrong)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(TypeError, match="function"):
        transactional_node(one)(RunnableLambda(lambda state: state))


# Once.


def test_a_replayed_node_applies_once_and_returns_what_it_returned(memory: AgentMemStore) -> None:
    runs: list[int] = []

    def node(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
        runs.append(add(store))
        saver.away = len(runs) == 1
        return {"messages": [AIMessage(f"run {len(runs)}", id=f"m{len(runs)}")]}

    saver = Unwell()
    graph = graph_of(memory, transactional_node(memory)(node), saver=saver, state=MessagesState)
    with pytest.raises(OSError, match="away"):
        graph.invoke({"messages": [HumanMessage("go")]}, CONFIG, durability="sync")
    assert count_of(memory) == 1
    saver.away = False
    result = graph.invoke(None, CONFIG, durability="sync")
    assert runs == [1]
    assert count_of(memory) == 1
    assert [message.content for message in result["messages"]] == ["go", "run 1"]
    # Another invocation of the thread is another operation.
    graph.invoke({"messages": [HumanMessage("more")]}, CONFIG, durability="sync")
    assert count_of(memory) == 2


@pytest.mark.parametrize("called", [False, True], ids=["as a node", "called by a node"])
def test_a_replayed_node_of_a_subgraph_applies_once(one: AgentMemStore, called: bool) -> None:
    runs: list[int] = []

    @transactional_node(one)
    def node(state: State, *, store: BaseStore) -> None:
        runs.append(add(store))
        saver.away = len(runs) == 1

    def call(state: State, config: RunnableConfig) -> Any:
        return inner.invoke(state, config)

    saver = Unwell()
    inner = graph_of(one, node)
    graph = graph_of(one, call if called else inner, saver=saver)
    with pytest.raises(OSError, match="away"):
        graph.invoke({"done": []}, CONFIG, durability="sync")
    saver.away = False
    graph.invoke(None, CONFIG, durability="sync")
    assert runs == [1]
    assert count_of(one) == 1


def test_the_same_without_a_transaction_applies_twice(one: AgentMemStore) -> None:
    def node(state: State, *, store: BaseStore) -> None:
        saver.away = add(store) == 1

    saver = Unwell()
    graph = graph_of(one, node, saver=saver)
    with pytest.raises(OSError, match="away"):
        graph.invoke({"done": []}, CONFIG, durability="sync")
    saver.away = False
    graph.invoke(None, CONFIG, durability="sync")
    assert count_of(one) == 2


def test_an_interrupt_writes_nothing_and_the_resumed_node_applies_once(one: AgentMemStore) -> None:
    @transactional_node(one)
    def node(state: State, *, store: BaseStore) -> dict[str, Any]:
        add(store)
        return {"done": [interrupt("sure?")]}

    graph = graph_of(one, node, saver=InMemorySaver())
    graph.invoke({"done": []}, CONFIG)
    assert one.agentmem.revision == 0
    assert graph.invoke(Command(resume="yes"), CONFIG)["done"] == ["yes"]
    assert count_of(one) == 1


def test_two_functions_of_one_task_are_two_operations(one: AgentMemStore) -> None:
    def first(store: BaseStore) -> int:
        return add(store)

    def second(store: BaseStore) -> int:
        return add(store)

    def node(state: State, *, store: BaseStore) -> dict[str, Any]:
        each = transactional_node(one)
        return {"done": [f"{each(first)(store)} {each(second)(store)} {each(first)(store)}"]}

    assert graph_of(one, node, saver=InMemorySaver()).invoke({"done": []}, CONFIG)["done"] == [
        "1 2 1"
    ]


def test_the_operation_may_be_named_otherwise(one: AgentMemStore) -> None:
    def of_thread(run: Run) -> str | None:
        return f"once a thread: {run.thread_id}"

    @transactional_node(one, op_id=of_thread)
    def node(state: State, *, store: BaseStore) -> None:
        add(store)

    graph = graph_of(one, node, saver=InMemorySaver())
    for thread in ("1", "1", "2"):
        graph.invoke({"done": []}, {"configurable": {"thread_id": thread}})
    assert count_of(one) == 2
    outside = transactional_node(one)(add)
    assert [outside(one), outside(one)] == [3, 4]


def test_a_result_that_was_dropped_is_not_made_up(one: AgentMemStore) -> None:
    node = transactional_node(one, op_id=lambda run: "known")(add)
    assert node(one) == node(one) == 1
    one.agentmem.admin.compact(keep_results=timedelta(0))
    with pytest.raises(agentmem.CompactedError, match="'known'"):
        node(one)


# Asynchronous nodes.


def test_asynchronous_nodes_run_side_by_side_on_one_loop(memory: AgentMemStore) -> None:
    names = [f"branch_{number}" for number in range(BRANCHES)]
    builder = StateGraph(State)
    together = asyncio.Barrier(BRANCHES)

    def make(name: str) -> Any:
        waits = [together.wait]

        async def node(state: State, *, store: BaseStore) -> dict[str, Any]:
            found = await store.aget(NS, "board")
            notes = found.value["notes"] if found is not None else []
            if waits:
                await waits.pop()()
            await store.aput(NS, "board", {"notes": [*notes, name]})
            return {"done": [name]}

        return node

    for name in names:
        builder.add_node(name, transactional_node(memory)(make(name)))
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    graph = builder.compile(store=memory)
    result = asyncio.run(graph.ainvoke({"done": []}))
    assert sorted(result["done"]) == names
    assert sorted(notes_of(memory)) == names


def test_an_asynchronous_node_that_is_cancelled_writes_nothing(one: AgentMemStore) -> None:
    ended = threading.Event()

    async def use() -> None:
        begun = asyncio.Event()

        @transactional_node(one)
        async def node(store: AgentMemStore) -> None:
            await store.aput(NS, "k", {})
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        task = asyncio.create_task(node(one))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Here: at its end the loop would cancel whatever was left.
        assert await asyncio.to_thread(ended.wait, 60)

    asyncio.run(use())
    assert one.agentmem.revision == 0


def test_an_asynchronous_node_applies_once_and_takes_its_transaction(one: AgentMemStore) -> None:
    @transactional_node(one, op_id=lambda run: "known")
    async def node(tx: agentmem.Transaction) -> list[Any]:
        tx.increment("n")
        inner = transactional_node(one)(count)
        return [await inner()]

    async def count(tx: agentmem.Transaction) -> int:
        return int(tx["n"])

    async def use() -> list[Any]:
        return [await node(), await node()]  # type: ignore[call-arg]  # it is given the transaction

    assert asyncio.run(use()) == [[1], [1]]
    assert one.agentmem["n"] == 1

    @transactional_node(one)
    async def fails() -> None:
        one.put(NS, "k", {})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fails())
    assert one.get(NS, "k") is None


# Results.


@pytest.mark.parametrize(
    "result",
    [
        None,
        3.5,
        {"a": [1, {"b": None}], "t": (1, (2,))},
        {"$message": 1},
        {"$object": {"$tuple": [1]}, "x": {"$command": {}}},
        {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}},
        {
            "messages": [
                HumanMessage("hi", id="1"),
                SystemMessage([{"type": "text", "text": "x"}]),
                AIMessage("", tool_calls=[{"name": "f", "args": {"$send": 1}, "id": "c"}]),
                ToolMessage("done", tool_call_id="c", artifact={"n": (1, 2)}),
                RemoveMessage("1"),
            ]
        },
        Command(update=[("a", 1)], goto=[Send("b", {"n": 1}), "c"], graph=Command.PARENT),
        {"done": Overwrite([1])},
    ],
    ids=lambda result: str(result)[:30],
)
def test_what_a_node_returns_comes_back_as_it_was(result: Any, one: AgentMemStore) -> None:
    assert decoded(encoded(result)) == result
    node = transactional_node(one, op_id=lambda run: "known")(lambda: result)
    assert node() == node() == result


@pytest.mark.parametrize(
    "result", [{"a": [object()]}, datetime(2026, 1, 1, tzinfo=UTC), {"a": {1}}, b"x", {"a": 2**70}]
)
def test_what_has_no_form_is_refused_before_anything_is_written(
    result: Any, one: AgentMemStore
) -> None:
    def node() -> Any:
        one.put(NS, "k", {})
        return result

    with pytest.raises(agentmem.InvalidValueError):
        transactional_node(one)(node)()
    assert one.agentmem.revision == 0
