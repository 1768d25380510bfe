"""What a task of a graph writes carries what it has read; nothing is lost silently."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.config import get_store
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.store.base import BaseStore, GetOp, PutOp
from langgraph.store.sqlite import SqliteStore
from langgraph.types import RetryPolicy, default_retry_on

import agentmem
from langgraph_agentmem import AgentMemStore, seen
from tests.integrations.langgraph_team import (
    BRANCHES,
    State,
    branching,
    eager_retries,
    notes_of,
    run,
)

NS: Final = ("team",)


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


def in_task(
    store: BaseStore,
    node: Callable[[BaseStore], object],
    *,
    retry_policy: RetryPolicy | None = None,
    asynchronous: bool = False,
) -> None:
    """Runs code as the one node of a graph."""

    def work(state: State, *, store: BaseStore) -> None:
        node(store)

    async def awork(state: State, *, store: BaseStore) -> None:
        await node(store)  # type: ignore[misc]  # it is a coroutine function then

    builder = StateGraph(State)
    builder.add_node("work", awork if asynchronous else work, retry_policy=retry_policy)
    builder.add_edge(START, "work")
    builder.add_edge("work", END)
    graph = builder.compile(store=store)
    if asynchronous:
        asyncio.run(graph.ainvoke({"done": []}))
    else:
        graph.invoke({"done": []})


def other_writes(memory: AgentMemStore, value: dict[str, Any], key: str = "k") -> None:
    """Somebody else, who is in no task."""
    memory.agentmem.put(key, value, namespace=NS, overwrite=True)


# A graph.


def test_parallel_branches_lose_no_note(memory: AgentMemStore) -> None:
    graph = branching(memory, retry_policy=eager_retries())
    for thread in ("1", "2"):
        result = run(graph, thread)
        assert len(result["done"]) == BRANCHES
    assert sorted(notes_of(memory)) == sorted(2 * [f"branch_{n}" for n in range(BRANCHES)])
    history = memory.history(NS, "board")
    assert [entry.version for entry in history] == list(range(2 * BRANCHES, 0, -1))
    for entry in history:
        (commit,) = memory.agentmem.log(after=(entry.revision or 0) - 1, upto=entry.revision)
        assert commit.agent == commit.metadata["node"] == entry.value["notes"][-1]
        assert commit.metadata["thread_id"] in ("1", "2")
        assert set(commit.metadata) >= {"checkpoint_id", "task_id", "step"}


def test_the_same_graph_on_langgraphs_own_store_loses_notes() -> None:
    with SqliteStore.from_conn_string(":memory:") as store:
        store.setup()
        run(branching(store, retry_policy=eager_retries()))
        assert len(notes_of(store)) < BRANCHES


def test_without_a_retry_policy_the_graph_fails_and_loses_nothing(one: AgentMemStore) -> None:
    with pytest.raises(agentmem.ConflictError, match="board"):
        run(branching(one))
    notes = notes_of(one)
    assert 0 < len(notes) < BRANCHES
    assert len(one.history(NS, "board")) == len(notes)


def test_told_to_overwrite_it_loses_notes_as_any_other(one: AgentMemStore) -> None:
    with AgentMemStore(one.agentmem, conflicts="overwrite") as store:
        run(branching(store))
        assert len(notes_of(store)) < BRANCHES


def test_langgraphs_default_policy_retries_a_conflict() -> None:
    assert default_retry_on(agentmem.ConflictError())
    assert default_retry_on(agentmem.StoreBusyError())


# One task.


def test_a_put_carries_the_version_that_the_task_read(memory: AgentMemStore) -> None:
    def work(store: BaseStore) -> None:
        assert store.get(NS, "k") is None
        other_writes(memory, {"by": "other"})
        store.put(NS, "k", {"by": "task"})

    with pytest.raises(agentmem.ConflictError) as caught:
        in_task(memory, work)
    (conflict,) = caught.value.conflicts
    assert (conflict.namespace, conflict.key) == (NS, "k")
    assert (conflict.base_version, conflict.current_version) == (0, 1)
    assert memory.get(NS, "k").value == {"by": "other"}  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("read", ["get", "search", "batch"])
@pytest.mark.parametrize("write", ["put", "delete", "batch"])
def test_every_read_counts_and_every_write_carries_it(
    one: AgentMemStore, read: str, write: str
) -> None:
    one.put(NS, "k", {"n": 1})

    def work(store: BaseStore) -> None:
        if read == "get":
            store.get(NS, "k")
        elif read == "search":
            store.search((), filter={"n": 1})
        else:
            store.batch([GetOp(NS, "k"), PutOp(NS, "beside", {})])
        other_writes(one, {"n": 2})
        if write == "put":
            store.put(NS, "k", {"n": 3})
        elif write == "delete":
            store.delete(NS, "k")
        else:
            store.batch([PutOp(NS, "more", {}), GetOp(NS, "k"), PutOp(NS, "k", {"n": 3})])

    with pytest.raises(agentmem.ConflictError):
        in_task(one, work)
    assert one.get(NS, "k").value == {"n": 2}  # type: ignore[union-attr]  # it is there
    assert one.get(NS, "more") is None


def test_a_task_goes_on_from_its_own_writes(one: AgentMemStore) -> None:
    def work(store: BaseStore) -> None:
        store.get(NS, "k")
        store.put(NS, "k", {"n": 1})
        store.put(NS, "k", {"n": 2})
        store.delete(NS, "k")
        store.put(NS, "k", {"n": 3}, ttl=60)
        store.batch([PutOp(NS, "k", {"n": 4}), PutOp(NS, "j", {"n": 1})])
        store.put(NS, "j", {"n": 2})
        other_writes(one, {"n": 9}, "j")
        with pytest.raises(agentmem.ConflictError):
            store.put(NS, "j", {"n": 3})

    in_task(one, work)
    assert [entry.value and entry.value["n"] for entry in one.history(NS, "k")] == [
        4,
        3,
        None,
        2,
        1,
    ]


def test_the_last_read_counts(one: AgentMemStore) -> None:
    def work(store: BaseStore) -> None:
        store.get(NS, "k")
        other_writes(one, {"n": 1})
        store.get(NS, "k")
        store.put(NS, "k", {"n": 2})

    in_task(one, work)
    assert one.version_of(NS, "k") == 2


def test_a_key_that_the_task_has_not_read_is_written_as_it_comes(one: AgentMemStore) -> None:
    other_writes(one, {"n": 1})
    in_task(one, lambda store: store.put(NS, "k", {"n": 2}))
    assert one.version_of(NS, "k") == 2


def test_who_catches_a_conflict_has_to_read_again(one: AgentMemStore) -> None:
    def work(store: BaseStore) -> None:
        store.get(NS, "k")
        other_writes(one, {"n": 1})
        for _time in range(2):
            with pytest.raises(agentmem.ConflictError):
                store.put(NS, "k", {"n": 2})
        store.get(NS, "k")
        store.put(NS, "k", {"n": 2})

    in_task(one, work)
    assert one.version_of(NS, "k") == 2


def test_a_retry_starts_without_the_reads_of_the_first_attempt(one: AgentMemStore) -> None:
    attempts: list[int] = []

    def work(store: BaseStore) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            store.get(NS, "k")
            other_writes(one, {"n": 1})
        store.put(NS, "k", {"n": 2})  # the second time without having read it

    in_task(one, work, retry_policy=RetryPolicy(initial_interval=0.001))
    assert len(attempts) == 2
    assert one.version_of(NS, "k") == 2


def test_another_task_has_reads_of_its_own(one: AgentMemStore) -> None:
    in_task(one, lambda store: store.get(NS, "k"))
    other_writes(one, {"n": 1})
    in_task(one, lambda store: store.put(NS, "k", {"n": 2}))
    assert one.version_of(NS, "k") == 2


def test_merge_strategies_merge_and_go_on_merging(one: AgentMemStore) -> None:
    one.agentmem.set_merge("team/**", "json")
    one.put(NS, "k", {"a": 0, "b": 0})

    def work(store: BaseStore) -> None:
        store.get(NS, "k")
        other_writes(one, {"a": 1, "b": 0})
        store.put(NS, "k", {"a": 0, "b": 1})
        # It has not seen what was merged, and must not take it away.
        store.put(NS, "k", {"a": 0, "b": 1, "c": 1})

    in_task(one, work)
    assert one.get(NS, "k").value == {"a": 1, "b": 1, "c": 1}  # type: ignore[union-attr]  # it is there


def test_reading_a_listing_of_namespaces_holds_nobody_up(one: AgentMemStore) -> None:
    def work(store: BaseStore) -> None:
        store.list_namespaces()
        other_writes(one, {"n": 1})
        store.put(NS, "k", {"n": 2})

    in_task(one, work)
    assert one.version_of(NS, "k") == 2


def test_what_a_task_writes_is_known_to_come_of_what_it_read(memory: AgentMemStore) -> None:
    memory.put(NS, "source", {"price": 9})
    memory.put(("other",), "found", {"n": 1})
    memory.put(NS, "unread", {})

    def work(store: BaseStore) -> None:
        store.get(NS, "source")
        store.get(NS, "absent")
        store.search(("other",))
        store.put(NS, "result", {"sum": 10})
        store.batch([PutOp(NS, "more", {}), PutOp(NS, "most", {})])

    in_task(memory, work)
    audit = memory.agentmem.audit
    for key in ("result", "more", "most"):
        edges = audit.lineage(key, namespace=NS).edges
        assert {(edge.source.namespace, edge.source.key, edge.why) for edge in edges} == {
            (NS, "source", "read"), (("other",), "found", "read"),
        }  # fmt: skip
    derived = audit.lineage("source", namespace=NS, direction="down")
    assert {node.key for node in derived.nodes} == {"source", "result", "more", "most"}
    # It is named, and not checked: others may go on.
    memory.put(NS, "source", {"price": 90})


def test_reads_that_are_named_are_bounded(
    one: AgentMemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "MAX_CITED", 2)
    for number in range(4):
        one.put(NS, f"k{number}", {})

    def work(store: BaseStore) -> None:
        for number in (0, 1, 2, 3, 2):
            store.get(NS, f"k{number}")
        store.put(NS, "result", {})

    in_task(one, work)
    edges = one.agentmem.audit.lineage("result", namespace=NS).edges
    assert {edge.source.key for edge in edges} == {"k2", "k3"}


# Side by side within a task.


def test_parallel_coroutines_of_one_node_do_not_overwrite_each_other(one: AgentMemStore) -> None:
    outcomes: list[object] = []

    async def work(store: BaseStore) -> None:
        have_read, written = asyncio.Barrier(2), asyncio.Event()

        async def note(name: str) -> None:
            await store.aget(NS, "k")
            await have_read.wait()
            if name == "b":
                await written.wait()
            await store.aput(NS, "k", {"by": name})
            written.set()

        outcomes.extend(await asyncio.gather(note("a"), note("b"), return_exceptions=True))

    in_task(one, work, asynchronous=True)
    assert [type(each).__name__ for each in outcomes] == ["NoneType", "ConflictError"]
    assert one.version_of(NS, "k") == 1


def test_parallel_tools_of_one_node_do_not_overwrite_each_other(one: AgentMemStore) -> None:
    have_read, written = threading.Barrier(2), threading.Event()

    @tool
    def note(name: str) -> str:
        """Takes a note."""
        store = get_store()
        found = store.get(NS, "k")
        notes = found.value["notes"] if found else []
        have_read.wait(60)
        if name == "b":
            written.wait(60)
        store.put(NS, "k", {"notes": [*notes, name]})
        written.set()
        return "noted"

    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([note]))
    builder.add_edge(START, "tools")
    builder.add_edge("tools", END)
    calls = [{"name": "note", "args": {"name": name}, "id": name} for name in ("a", "b")]
    with pytest.raises(agentmem.ConflictError):
        builder.compile(store=one).invoke(
            {"messages": [AIMessage("", tool_calls=calls)]}, {"max_concurrency": 4}
        )
    assert one.version_of(NS, "k") == 1


def test_what_was_read_in_one_thread_is_carried_by_a_write_in_another(one: AgentMemStore) -> None:
    async def work(store: BaseStore) -> None:
        await asyncio.to_thread(store.get, NS, "k")
        other_writes(one, {"n": 1})
        await asyncio.to_thread(store.put, NS, "k", {"n": 2})

    with pytest.raises(agentmem.ConflictError):
        in_task(one, work, asynchronous=True)


def test_who_waits_for_a_put_elsewhere_knows_of_it(one: AgentMemStore) -> None:
    async def work(store: BaseStore) -> None:
        await store.aget(NS, "k")
        await asyncio.create_task(store.aput(NS, "k", {"n": 1}))
        await store.aput(NS, "k", {"n": 2})
        other_writes(one, {"n": 3})
        with pytest.raises(agentmem.ConflictError):
            await asyncio.create_task(store.aput(NS, "k", {"n": 4}))

    in_task(one, work, asynchronous=True)
    assert one.version_of(NS, "k") == 3


def test_no_more_is_remembered_than_the_limits_say(
    one: AgentMemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "MAX_TASKS", 2)
    monkeypatch.setattr(seen, "MAX_KEYS", 3)
    for _task in range(4):
        in_task(one, lambda store: [store.get(NS, f"k{n}") for n in range(5)])
    assert len(one._seen) == 2
    for kept in one._seen._attempts.values():
        assert [key for _ns, key in kept.last] == ["k2", "k3", "k4"]
        assert len(kept.by_flow) == 3
