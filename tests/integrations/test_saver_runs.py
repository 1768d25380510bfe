"""Two runs on one thread at once are told; forks, resumes and updates that are meant are not."""

from __future__ import annotations

import asyncio
import itertools
import operator
import pickle
import sqlite3
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.test_utils import (
    generate_checkpoint,
    generate_config,
    generate_metadata,
)
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

import agentmem
from agentmem.engines.session import CommitUnknownError
from agentmem.engines.sqlite.session import SqliteSession
from langgraph_agentmem import AgentMemSaver, ConcurrentRunError, ConcurrentRunWarning

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    """Of every graph here."""

    said: Annotated[list[str], operator.add]


def _say(name: str) -> Callable[[State], State]:
    return lambda _state: {"said": [name]}


def _graph(saver: BaseCheckpointSaver[str], **nodes: Callable[..., Any]) -> Any:
    """A graph of nodes one after the other."""
    builder = StateGraph(State)
    order = [START, *nodes, END]
    for name, node in nodes.items():
        builder.add_node(name, node)
    for before, after in itertools.pairwise(order):
        builder.add_edge(before, after)
    return builder.compile(checkpointer=saver)


@pytest.fixture(params=["error", "warn"])
def saver(request: pytest.FixtureRequest, store: agentmem.Store) -> AgentMemSaver:
    """A saver that raises, and one that warns, which is an error in tests, too."""
    return AgentMemSaver(store, concurrent_runs=request.param)


def _at_once(saver: BaseCheckpointSaver[str]) -> list[Any]:
    """Two runs on one thread, each in its node before the other leaves it; what each came to."""
    _graph(saver, first=_say("hello")).invoke({"said": ["before"]}, CONFIG)
    both_inside = threading.Barrier(2)
    outcomes: list[Any] = [None, None]

    def meet(state: State) -> State:
        both_inside.wait(timeout=60)
        return {"said": [state["said"][-1] + " done"]}

    graph = _graph(saver, meet=meet)
    loaded = threading.Barrier(2)
    newest = saver.get_tuple

    def get_tuple(config: Any) -> Any:
        found = newest(config)
        if not loaded.broken:
            loaded.wait(timeout=60)
        return found

    saver.get_tuple = get_tuple  # type: ignore[method-assign]  # so that both start from the same

    def run(number: int) -> None:
        try:
            outcomes[number] = graph.invoke({"said": [f"run {number}"]}, CONFIG)
        except ConcurrentRunError as error:
            both_inside.abort()
            outcomes[number] = error
        except threading.BrokenBarrierError:
            outcomes[number] = "left alone"

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    saver.get_tuple = newest  # type: ignore[method-assign]  # as before
    return outcomes


def _leaves(saver: BaseCheckpointSaver[str]) -> int:
    """How many branches a thread has: checkpoints without a child."""
    found = list(saver.list(CONFIG))
    parents = {each.parent_config["configurable"]["checkpoint_id"] for each in found
               if each.parent_config}  # fmt: skip
    return sum(each.checkpoint["id"] not in parents for each in found)


def test_langgraphs_saver_forks_the_thread_without_a_word(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "peer.db", check_same_thread=False)
    saver = SqliteSaver(connection)
    outcomes = _at_once(saver)
    assert all(isinstance(each, dict) for each in outcomes)
    assert _leaves(saver) == 2
    said = saver.get_tuple(CONFIG)
    assert said is not None
    done = [each for each in said.checkpoint["channel_values"]["said"] if each.endswith("done")]
    assert len(done) == 1  # both runs were told that they are done; one of them is gone
    connection.close()


def test_the_second_of_two_runs_at_once_is_refused_and_the_thread_is_not_forked(
    store: agentmem.Store,
) -> None:
    saver = AgentMemSaver(store, concurrent_runs="error")
    outcomes = _at_once(saver)
    errors = [each for each in outcomes if isinstance(each, ConcurrentRunError)]
    assert len(errors) == 1
    assert _leaves(saver) == 1
    (error,) = errors
    assert saver.get_tuple(generate_config("t", checkpoint_id=error.other_id)) is not None
    assert saver.get_tuple(generate_config("t", checkpoint_id=error.checkpoint_id)) is None
    assert error.parent_id is not None
    assert all(each in str(error) for each in ("'t'", error.other_id, error.checkpoint_id, "lease"))
    assert pickle.loads(pickle.dumps(error)).other_id == error.other_id  # noqa: S301  # our own
    (record,) = store.audit.conflicts()
    assert (record.kind, record.status) == ("operation", "rejected")


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_two_runs_at_once_are_warned_of_and_the_log_names_both(store: agentmem.Store) -> None:
    saver = AgentMemSaver(store)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcomes = _at_once(saver)
    assert all(isinstance(each, dict) for each in outcomes)
    assert [each.category for each in caught] == [ConcurrentRunWarning]
    assert _leaves(saver) == 2
    (fork,) = store.log(where={"concurrent_with": {"$exists": True}})
    named = generate_config("t", checkpoint_id=fork.metadata["concurrent_with"])
    assert saver.get_tuple(named) is not None


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("size", [1, 50_000])
def test_runs_in_two_savers_are_told_of_each_other(store: agentmem.Store, size: int) -> None:
    one = AgentMemSaver(store, concurrent_runs="error")
    two = AgentMemSaver(store, concurrent_runs="error")
    for parent in (None, "known"):
        start = generate_config("t")
        found = [saver.get_tuple(start) for saver in (one, two)]
        if parent and found[0]:
            start = found[0].config
        first, second = (generate_checkpoint(channel_values={"x": "x" * size}) for _ in "ab")
        one.put(start, first, generate_metadata(), {})
        with pytest.raises(ConcurrentRunError) as raised:
            two.put(start, second, generate_metadata(), {})
        assert raised.value.other_id == first["id"]
        one.put(start, first, generate_metadata(step=7), {})  # the same once more
        (newest, *_) = one.list(generate_config("t"))
        assert newest.metadata["step"] == 7


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("gone", ["deleted", "compacted", "purged"])
@pytest.mark.parametrize("size", [1, 50_000])
def test_a_thread_that_was_deleted_begins_anew_and_is_watched_all_the_same(
    store: agentmem.Store, gone: str, size: int
) -> None:
    saver = AgentMemSaver(store, concurrent_runs="error")
    graph = _graph(saver, one=_say("1"), two=_say("2"))
    for _ in range(2):
        said = ["x" * size]
        assert graph.invoke({"said": said}, CONFIG) == {"said": [*said, "1", "2"]}
        saver.delete_thread("t", purge=gone == "purged")
        if gone == "compacted":
            store.admin.compact(keep_revision=store.revision)
    assert saver.get_tuple(CONFIG) is None
    saver.put(generate_config("t"), generate_checkpoint(), generate_metadata(), {})
    with pytest.raises(ConcurrentRunError):
        saver.put(generate_config("t"), generate_checkpoint(), generate_metadata(), {})


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("size", [1, 50_000])
def test_the_same_put_again_changes_nothing_unless_it_was_deleted(
    store: agentmem.Store, size: int
) -> None:
    saver = AgentMemSaver(store, concurrent_runs="error")
    start, checkpoint = generate_config("t"), generate_checkpoint(channel_values={"x": "x" * size})
    assert saver.get_tuple(start) is None
    saved = saver.put(start, checkpoint, generate_metadata(), {})
    revision = store.revision
    if size == 1:
        saver.put(start, checkpoint, generate_metadata(), {})
        assert store.revision == revision
    saver.delete_thread("t")
    saver.put(start, checkpoint, generate_metadata(), {})
    found = saver.get_tuple(saved)
    assert found is not None
    assert found.checkpoint == checkpoint
    assert store.audit.conflicts() == []


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("took_effect", [True, False])
def test_what_was_cut_off_in_its_commit_is_there_once(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch, took_effect: bool
) -> None:
    saver = AgentMemSaver(store, concurrent_runs="error")
    commit = SqliteSession.commit

    def cut_next() -> None:
        def cut(session: SqliteSession) -> None:
            monkeypatch.setattr(SqliteSession, "commit", commit)
            if took_effect:
                commit(session)
            else:
                session.rollback()
            raise CommitUnknownError("cut off")

        monkeypatch.setattr(SqliteSession, "commit", cut)

    assert saver.get_tuple(CONFIG) is None
    checkpoint = generate_checkpoint()
    cut_next()
    saved = saver.put(generate_config("t"), checkpoint, generate_metadata(), {})
    cut_next()
    saver.put_writes(saved, [("n", 1)], "task")
    found = saver.get_tuple(CONFIG)
    assert found is not None
    assert (found.checkpoint, found.pending_writes) == (checkpoint, [("task", "n", 1)])
    assert [entry.version for entry in store.list("langgraph")] == [1, 1]
    assert store.revision == 2
    assert store.audit.conflicts() == []


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_allow_looks_for_nothing(store: agentmem.Store) -> None:
    saver = AgentMemSaver(store, concurrent_runs="allow")
    assert all(isinstance(each, dict) for each in _at_once(saver))
    assert _leaves(saver) == 2


# No false alarms.


def _asking(_state: State) -> State:
    return {"said": [interrupt("go on?")]}


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_runs_that_follow_each_other_interrupts_and_updates_are_no_alarm(
    saver: AgentMemSaver, durability: str
) -> None:
    graph = _graph(saver, one=_say("1"), ask=_asking, two=_say("2"))
    for answer in ("yes", "no"):
        graph.invoke({"said": []}, CONFIG, durability=durability)
        graph.invoke(Command(resume=answer), CONFIG, durability=durability)
        graph.update_state(CONFIG, {"said": ["patched"]}, as_node="two")
    said = graph.get_state(CONFIG).values["said"]
    assert said == ["1", "yes", "2", "patched", "1", "no", "2", "patched"]
    assert _leaves(saver) == 1


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_run_an_update_and_a_copy_from_an_earlier_checkpoint_are_forks_that_are_meant(
    saver: AgentMemSaver,
) -> None:
    graph = _graph(saver, one=_say("1"), two=_say("2"))
    graph.invoke({"said": ["0"]}, CONFIG)
    history = list(graph.get_state_history(CONFIG))
    for past in history:
        if past.next:
            graph.invoke(None, past.config)  # replays
        graph.invoke({"said": ["again"]}, past.config)
        graph.update_state(past.config, {"said": ["patched"]}, as_node="two")
        graph.update_state(past.config, None, as_node="__copy__")
    # Back at the newest, and going on from there.
    graph.invoke({"said": ["newest"]}, CONFIG)
    graph.update_state(CONFIG, {"said": ["x"]}, as_node="two")
    assert _leaves(saver) > len(history)


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_after_a_look_at_an_old_state_a_run_from_the_newest_is_watched_again(
    store: agentmem.Store,
) -> None:
    saver = AgentMemSaver(store, concurrent_runs="error")
    graph = _graph(saver, one=_say("1"))
    graph.invoke({"said": []}, CONFIG)
    newest = graph.get_state(CONFIG).config
    assert graph.get_state(newest).values == {"said": ["1"]}  # named, and it is the newest
    assert graph.get_state(CONFIG).config == newest
    other = AgentMemSaver(store, concurrent_runs="error")
    other.put(newest, generate_checkpoint(), generate_metadata(), {})
    with pytest.raises(ConcurrentRunError):
        saver.put(newest, generate_checkpoint(), generate_metadata(), {})

    def intrude(_state: State) -> State:
        child, parent = generate_checkpoint(), other.get_tuple(CONFIG)
        assert parent is not None
        other.put(parent.config, child, generate_metadata(), {})
        return {"said": ["2"]}

    # In sync, because the node looks for what the run has written before it.
    with pytest.raises(ConcurrentRunError):
        _graph(saver, two=intrude).invoke({"said": []}, CONFIG, durability="sync")


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_run_from_the_newest_is_told_of_a_fork_from_it_that_came_before(
    store: agentmem.Store,
) -> None:
    one, two = (AgentMemSaver(store, concurrent_runs="error") for _ in range(2))
    root = one.put(generate_config("t"), generate_checkpoint(), generate_metadata(), {})
    assert two.get_tuple(generate_config("t")) is not None
    assert one.get_tuple(root) is not None  # named: a fork is meant
    for _ in range(2):
        one.put(root, generate_checkpoint(), generate_metadata(), {})
    with pytest.raises(ConcurrentRunError):
        two.put(root, generate_checkpoint(), generate_metadata(), {})


def _failures(saver: AgentMemSaver, monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What puts raise: LangGraph hides it where a subgraph is interrupted meanwhile."""
    failures: list[BaseException] = []
    put = saver.put

    def watched(*arguments: Any) -> Any:
        try:
            return put(*arguments)
        except BaseException as error:
            failures.append(error)
            raise

    monkeypatch.setattr(saver, "put", watched)
    return failures


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_subgraphs_parallel_branches_and_their_replays_are_no_alarm(
    saver: AgentMemSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = _failures(saver, monkeypatch)
    inner = StateGraph(State)
    inner.add_node("ask", _asking)
    inner.add_edge(START, "ask")
    for kept in (None, True):  # a subgraph of each call, and one with a memory of its own
        outer = StateGraph(State)
        outer.add_node("sub", inner.compile(checkpointer=kept))
        outer.add_node("work", _say("w"))
        outer.add_node("join", _say("j"))
        outer.add_edge(START, "sub")
        outer.add_conditional_edges(
            "sub", lambda _s: [Send("work", {}) for _ in range(3)], ["work"]
        )
        outer.add_edge("work", "join")
        graph = outer.compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": f"sub {kept}"}}
        for _ in range(2):
            graph.invoke({"said": ["0"]}, config)
            graph.invoke(Command(resume="yes"), config)
        waiting = [past for past in graph.get_state_history(config) if past.next == ("sub",)]
        for past in waiting:
            graph.invoke(None, past.config)
            graph.invoke(Command(resume="again"), config)
        assert graph.get_state(config).values["said"][-4:] == ["w", "w", "w", "j"]
    assert failures == []


@pytest.mark.parametrize("kind", ["file"], indirect=True)
async def test_two_async_runs_at_once_are_told_and_forks_are_no_alarm(
    store: agentmem.Store,
) -> None:
    saver = AgentMemSaver(store, concurrent_runs="error")
    inside, arrived = asyncio.Event(), []

    async def meet(state: State) -> State:
        arrived.append(state)
        await inside.wait()
        return {"said": ["met"]}

    graph = _graph(saver, meet=meet)
    first = asyncio.create_task(graph.ainvoke({"said": ["1"]}, CONFIG))
    while not arrived:
        await asyncio.sleep(0)
    # The second goes on from what the first has written, and both then from the same.
    second = asyncio.create_task(graph.ainvoke({"said": ["2"]}, CONFIG))
    while len(arrived) < 2:
        await asyncio.sleep(0)
    inside.set()
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert sum(isinstance(each, ConcurrentRunError) for each in outcomes) == 1
    history = [past async for past in graph.aget_state_history(CONFIG)]
    for past in history:
        await graph.ainvoke({"said": ["fork"]}, past.config)
        await graph.aupdate_state(past.config, {"said": ["patched"]}, as_node="meet")
    assert _leaves(saver) > len(history)
