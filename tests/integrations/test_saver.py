"""`AgentMemSaver`: the published suite, LangGraph's own saver as the model, sizes, and names."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointTuple,
)
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.test_utils import (
    generate_checkpoint,
    generate_config,
    generate_metadata,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME

import agentmem
from langgraph_agentmem import AgentMemSaver, StrictSerializer
from langgraph_agentmem.checkpoint_places import Graph, checkpoint_key, split_key, task_key
from langgraph_agentmem.checkpoint_records import part_names

# As in the report of the suite: eight capabilities, base and extended.
_SUITE_TESTS = 81
_SIZES = {"small": 1, "large channel": 20_000, "many parts": 2_500_000}


@pytest.fixture
def saver(store: agentmem.Store) -> Iterator[AgentMemSaver]:
    """A saver on an open store, that looks for no concurrent runs: tests write what they like."""
    with AgentMemSaver(store, concurrent_runs="allow") as found:
        yield found


async def test_the_published_suite_passes_whole(target: str) -> None:
    @checkpointer_test(name="AgentMemSaver")
    async def made() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with AgentMemSaver(target, durability="relaxed") as saver:
            yield saver

    report = await validate(made)  # type: ignore[arg-type]  # its decorator is typed for any function
    failures = [each for result in report.results.values() for each in result.failures]
    assert failures == []
    assert {name for name, each in report.results.items() if not each.detected} == set()
    assert sum(each.tests_passed for each in report.results.values()) == _SUITE_TESTS
    assert report.conformance_level() == "FULL"


# The same as LangGraph's own.


def _plain(found: CheckpointTuple | None) -> Any:
    if found is None:
        return None
    return (
        found.config["configurable"],
        found.checkpoint,
        dict(found.metadata),
        found.parent_config,
        found.pending_writes,
    )


class _Both:
    """The same calls on our saver and on LangGraph's in memory; every answer must be the same."""

    def __init__(self, ours: AgentMemSaver, random: random.Random) -> None:
        self.ours = ours
        self.theirs = InMemorySaver(serde=StrictSerializer())
        self.random = random
        self.configs: list[dict[str, Any]] = []
        self.steps = 0

    def put(self) -> None:
        self.steps += 1
        thread, namespace = self.random.choice("ab"), self.random.choice(["", "sub:1", "sub:1|x"])
        configurable = {"thread_id": thread, "checkpoint_ns": namespace}
        before = [each for each in self.configs if configurable.items() <= each.items()]
        parent = self.random.choice(before) if before and self.random.random() < 0.9 else None
        values: dict[str, Any] = {}
        versions: dict[str, Any] = {}
        if parent is not None:
            configurable["checkpoint_id"] = parent["checkpoint_id"]
            earlier = self.theirs.get_tuple({"configurable": parent})
            assert earlier is not None
            values.update(earlier.checkpoint["channel_values"])
            versions.update(earlier.checkpoint["channel_versions"])
        changed = self.random.sample(["messages", "n", "documents"], self.random.randint(1, 3))
        fresh = {}
        for name in changed:
            versions[name] = fresh[name] = f"{self.steps:032}.{self.random.random()}"
            values[name] = self._value(name)
        checkpoint = generate_checkpoint(channel_values=values, channel_versions=versions)
        metadata = generate_metadata(
            source=self.random.choice(["input", "loop"]), step=self.steps, score=self.steps % 3
        )
        config: Any = {"configurable": configurable}
        ours = self.ours.put(config, checkpoint, metadata, fresh)
        theirs = self.theirs.put(config, checkpoint, metadata, fresh)
        assert ours == theirs
        self.configs.append(dict(theirs["configurable"]))

    def _value(self, name: str) -> Any:
        if name == "messages":
            return [HumanMessage(f"say {self.steps}", id="1"), AIMessage("x" * 300, id="2")]
        if name == "documents":
            return "d" * self.random.choice([10, 5_000, 30_000]) + str(self.random.randint(0, 2))
        return self.random.choice([None, 3, b"\x00\xff", {"lc": 1, "k": [1.5]}, {1, 2}])

    def put_writes(self) -> None:
        if not self.configs:
            return
        channels = ["messages", "n", ERROR, INTERRUPT, RESUME]
        size = self.random.randint(1, 3)
        writes = [(self.random.choice(channels), self.random.randint(0, 9)) for _ in range(size)]
        task = self.random.choice(["t1", "t1", "t2"])
        path = self.random.choice(["", "~__pregel_pull, b", "~__pregel_pull, a"])
        # Of the last two, so that a task often writes to one more than once.
        config: Any = {"configurable": self.random.choice(self.configs[-2:])}
        for saver in (self.ours, self.theirs):
            saver.put_writes(config, writes, task, path)

    def delete(self) -> None:
        thread = self.random.choice("ab")
        for saver in (self.ours, self.theirs):
            saver.delete_thread(thread)
        self.configs = [each for each in self.configs if each["thread_id"] != thread]

    def check(self) -> None:
        """Reads by id, the newest, and lists with every kind of argument."""
        asked: list[dict[str, Any]] = [
            {"thread_id": thread, "checkpoint_ns": namespace}
            for thread in "abc"
            for namespace in ("", "sub:1", "other")
        ]
        if self.configs:
            asked.append(self.random.choice(self.configs))
        for configurable in asked:
            config: Any = {"configurable": configurable}
            assert _plain(self.ours.get_tuple(config)) == _plain(self.theirs.get_tuple(config))
            self._lists_alike(config)
        whole = self._listed(self.ours, None)
        assert whole == sorted(whole, key=lambda each: each[0]["checkpoint_id"], reverse=True)
        assert len(whole) == len(self.configs)

    def _lists_alike(self, config: Any) -> None:
        before = self.random.choice([None, *self.configs])
        arguments = {
            "filter": self.random.choice([None, {}, {"score": 1}, {"score": 1, "source": "loop"}]),
            "before": {"configurable": before} if before is not None else None,
            "limit": self.random.choice([None, 0, 1, 3]),
        }
        ours = self._listed(self.ours, config, arguments)
        assert ours == self._listed(self.theirs, config, arguments)

    def _listed(
        self, saver: BaseCheckpointSaver[str], config: Any, arguments: Mapping[str, Any] = {}
    ) -> list[Any]:
        return [_plain(found) for found in saver.list(config, **arguments)]


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_generated_calls_have_the_answers_of_langgraphs_saver(
    saver: AgentMemSaver, seed: int
) -> None:
    both = _Both(saver, random.Random(seed))
    for step in range(90):
        act = both.random.choices([both.put, both.put_writes, both.delete], [5, 8, 0.3])[0]
        act()
        if step % 6 == 5:
            both.check()
    both.check()
    assert both.steps > 25


# Sizes.


def _put(
    saver: AgentMemSaver, thread_id: str, values: dict[str, Any], parent: Any = None
) -> tuple[Any, Checkpoint]:
    versions: dict[str, Any] = {name: saver.get_next_version(None, None) for name in values}
    checkpoint = generate_checkpoint(channel_values=values, channel_versions=versions)
    config = generate_config(thread_id, checkpoint_id=parent)
    return saver.put(config, checkpoint, generate_metadata(), versions), checkpoint


@pytest.mark.parametrize("length", _SIZES.values(), ids=list(_SIZES))
def test_a_checkpoint_of_any_size_comes_back(saver: AgentMemSaver, length: int) -> None:
    config, checkpoint = _put(saver, "t", {"text": "x" * length, "n": 1, "bytes": b"\x01" * length})
    saver.put_writes(config, [("text", "y" * length), ("n", 2)], "task")
    saver.put_writes(config, [("other", 1)], "task-2")
    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint == checkpoint
    assert found.pending_writes == [
        ("task", "text", "y" * length), ("task", "n", 2), ("task-2", "other", 1)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_value_that_checkpoints_share_is_kept_once_and_goes_with_the_last(
    saver: AgentMemSaver, store: agentmem.Store
) -> None:
    text = "x" * 100_000
    first, _ = _put(saver, "t", {"text": text})
    second, _ = _put(saver, "t", {"text": text, "n": 1}, first["configurable"]["checkpoint_id"])
    parts = ("langgraph", "t", "parts")
    assert [entry.version for entry in store.list(parts)] == [1]
    saver.prune(["t"])
    assert saver.get_tuple(first) is None
    assert store.count(parts) == 1
    kept = saver.get_tuple(second)
    assert kept is not None
    assert kept.checkpoint["channel_values"]["text"] == text
    saver.prune(["t"], strategy="delete")
    assert store.count("langgraph") == 0


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_long_thread_is_deleted_copied_and_pruned_in_several_commits(
    saver: AgentMemSaver, store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langgraph_agentmem.checkpoint_threads._BATCH", 7)
    parent = None
    for step in range(9):
        config, _ = _put(saver, "t", {"text": f"{step}" * 20_000}, parent)
        parent = config["configurable"]["checkpoint_id"]
        for task in "abc":
            saver.put_writes(config, [("n", step)], task)
    before = store.revision
    saver.copy_thread("t", "u")
    assert store.revision - before > 5
    for revision in range(before + 1, store.revision + 1):  # the copy, cut off there
        with store.snapshot(revision) as snap:
            entries = snap.list(("langgraph", "u"))
            there = {entry.key for entry in entries}
            for entry in entries:
                checkpoint_id, task_id = split_key(entry.key)
                if entry.namespace[2] == "checkpoints" and task_id is None:
                    assert there >= {task_key(checkpoint_id, task) for task in "abc"}
                    assert there.issuperset(part_names(entry.value))
    assert [_plain(each)[1:3] for each in saver.list(generate_config("t"))] == [
        _plain(each)[1:3] for each in saver.list(generate_config("u"))
    ]
    saver.prune(["u"])
    (left,) = saver.list(generate_config("u"))
    assert left.checkpoint["id"] == parent
    assert len(left.pending_writes or ()) == 3
    assert store.count(("langgraph", "u")) == 5  # a checkpoint, its part, three tasks
    saver.delete_thread("t")
    assert store.count(("langgraph", "t")) == 0
    assert saver.get_tuple(generate_config("u")) is not None
    written = store.log(("langgraph",), after=before, limit=1_000)
    assert {len(commit.changes) for commit in written} <= set(range(1, 8))


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_deleted_thread_stays_in_history_until_it_is_purged(
    saver: AgentMemSaver, store: agentmem.Store
) -> None:
    for thread in ("t", "u"):
        _put(saver, thread, {"text": "secret"})
    before = store.revision
    saver.delete_thread("t")
    with store.snapshot(before) as snap:
        assert snap.count(("langgraph", "t")) == 1
    saver.delete_thread("t", purge=True)
    assert store.snapshot(before).count(("langgraph", "t")) == 0
    assert saver.get_tuple(generate_config("u")) is not None


# What a call costs.


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_checkpoint_with_its_tasks_is_read_by_one_statement(
    saver: AgentMemSaver, store: agentmem.Store
) -> None:
    first, _ = _put(saver, "t", {"n": 1})
    parent = first["configurable"]["checkpoint_id"]
    newest, _ = _put(saver, "t", {"n": 2}, parent)
    for config in (first, newest):
        saver.put_writes(config, [("n", 3), ("m", 4)], "task")
    statements: list[str] = []
    store._core.engine._connections.get().set_trace_callback(statements.append)  # type: ignore[attr-defined]  # of SQLite
    for config in (first, newest, generate_config("t")):
        statements.clear()
        found = saver.get_tuple(config)
        assert len(statements) == 1
        assert found is not None
        assert found.pending_writes == [("task", "n", 3), ("task", "m", 4)]


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_put_and_a_task_each_add_one_row_and_no_more_to_the_tables_of_the_log(
    store: agentmem.Store,
) -> None:
    saver = AgentMemSaver(store)
    connection = store._core.engine._connections.get()  # type: ignore[attr-defined]  # of SQLite
    tables = ("commits", "entries", "heads", "log_marks", "operation_results", "reads",
              "conflicts")  # fmt: skip

    def rows() -> list[int]:
        counts = (f"SELECT COUNT(*) FROM {name}" for name in tables)  # noqa: S608  # the names above
        return [connection.execute(count).fetchone()[0] for count in counts]

    saver.get_tuple(generate_config("t"))
    config, _ = _put(saver, "t", {"n": 1})
    before = rows()
    config, _ = _put(saver, "t", {"n": 2}, config["configurable"]["checkpoint_id"])
    put = rows()
    assert [now - then for now, then in zip(put, before, strict=True)] == [1, 1, 1, 0, 0, 0, 0]
    for _ in range(2):  # a second time it changes nothing
        saver.put_writes(config, [("n", 3)], "task")
        written = [now - then for now, then in zip(rows(), put, strict=True)]
        assert written == [1, 1, 1, 0, 0, 0, 0]


def test_more_tasks_than_one_statement_reads_and_tasks_without_a_checkpoint(
    saver: AgentMemSaver,
) -> None:
    first, _ = _put(saver, "t", {"n": 1})
    parent = first["configurable"]["checkpoint_id"]
    later: Any = {"configurable": {**first["configurable"], "checkpoint_id": parent + "~"}}
    for count in range(12):
        tasks = [(f"task-{number:02}", "n", number) for number in range(count)]
        for config in (first, generate_config("t")):
            found = saver.get_tuple(config)
            assert found is not None
            assert found.checkpoint["id"] == parent
            assert found.pending_writes == tasks
        assert saver.get_tuple(later) is None
        (listed,) = saver.list(generate_config("t"))
        assert listed.pending_writes == tasks
        for config in (first, later):
            saver.put_writes(config, [("n", count)], f"task-{count:02}")
    saver.delete_thread("t")
    assert saver.store.count("langgraph") == 0


class _Meanwhile(StrictSerializer):
    """Does something once, when the first payload has been read."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._acts = [act]

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        while self._acts:
            self._acts.pop()()
        return super().loads_typed(data)


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_a_thread_that_is_deleted_while_it_is_read_is_read_whole_or_not_at_all(
    saver: AgentMemSaver, store: agentmem.Store
) -> None:
    config, _ = _put(saver, "t", {"text": "x" * 50_000})
    meanwhile = _Meanwhile(lambda: saver.delete_thread("t"))
    assert AgentMemSaver(store, serde=meanwhile).get_tuple(config) is None
    config, checkpoint = _put(saver, "t", {"text": "x" * 50_000})
    (part,) = store.list(("langgraph", "t", "parts"))
    store.touch(part.key, 3_600, namespace=part.namespace)
    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint == checkpoint


def test_a_checkpoint_that_was_given_an_end_is_there_until_then(tmp_path: Path) -> None:
    now = [datetime(2026, 1, 31, tzinfo=UTC)]
    with AgentMemSaver(tmp_path / "store.db", clock=lambda: now[0]) as saver:
        first, _ = _put(saver, "t", {"n": 1})
        newest, _ = _put(saver, "t", {"n": 2}, first["configurable"]["checkpoint_id"])
        key = newest["configurable"]["checkpoint_id"]
        saver.store.touch(key, 60, namespace=Graph.of(newest).checkpoints)
        for config in (newest, generate_config("t")):
            found = saver.get_tuple(config)
            assert found is not None
            assert found.checkpoint["id"] == key
        now[0] += timedelta(seconds=61)
        assert saver.get_tuple(newest) is None
        found = saver.get_tuple(generate_config("t"))
        assert found is not None
        assert found.config == first


# Names.


def test_keys_of_checkpoints_are_in_the_order_of_their_ids_and_those_of_tasks_after_each(
    seed: int,
) -> None:
    chosen = random.Random(seed)
    letters = '\x01\t !"09-Aa`·ÿz~\x7f€\ud7ff\ue000\U0001f600'
    names = {"".join(chosen.choices(letters, k=chosen.randint(1, 5))) for _ in range(400)}
    names |= {*letters, "!~", "!A", "!!", "\x01!"}
    tasks = ["", *chosen.sample(sorted(names), 3)]
    keys = {checkpoint_key(name): (name, None) for name in names}
    keys |= {task_key(name, task): (name, task) for name in names for task in tasks}
    assert len(keys) == len(names) * 5
    in_order = sorted(keys, key=str.encode)
    assert [split_key(key) for key in in_order] == [keys[key] for key in in_order]
    expected = [(name, task) for name in sorted(names) for task in (None, *sorted(tasks))]
    assert [keys[key] for key in in_order] == expected


_NAMES = ["a/b", "graph:x", "*", "**", "ü·\u2028", "%_", "'; DROP TABLE heads; --", " ", "1" * 1000]


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_threads_and_graphs_with_odd_names_are_kept_apart(saver: AgentMemSaver) -> None:
    for place in [(name, "") for name in _NAMES] + [("t", name) for name in _NAMES]:
        config = generate_config(place[0], checkpoint_ns=place[1][:900])
        checkpoint = generate_checkpoint(channel_values={"me": list(place)})
        saver.put(config, checkpoint, generate_metadata(), {})
    for name in _NAMES:
        (found,) = saver.list(generate_config(name))
        assert found.checkpoint["channel_values"]["me"] == [name, ""]
    for name in _NAMES:
        (found,) = saver.list(generate_config("t", checkpoint_ns=name[:900]))
        assert found.checkpoint["channel_values"]["me"] == ["t", name]
    assert len(list(saver.list(None))) == 2 * len(_NAMES)


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("name", ["", "a\x00b", "\ud800", "x" * 1025])
def test_a_checkpoint_that_no_store_can_hold_is_refused_before_anything_is_written(
    saver: AgentMemSaver, store: agentmem.Store, name: str
) -> None:
    named: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": name}}
    for call in (
        lambda: saver.put(
            generate_config("t"), {**generate_checkpoint(), "id": name}, generate_metadata(), {}
        ),
        lambda: saver.put_writes(named, [("n", 1)], "task"),
    ):
        with pytest.raises(agentmem.InvalidValueError):
            call()
    assert store.revision == 0


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("parent", ["a\x00b", "\ud800"])
def test_a_parent_that_no_store_can_hold_is_refused_before_anything_is_written(
    saver: AgentMemSaver, store: agentmem.Store, parent: str
) -> None:
    with pytest.raises(agentmem.InvalidValueError):
        _put(saver, "t", {"n": 1}, parent)
    assert store.revision == 0
    config, _ = _put(saver, "t", {"n": 1}, r"a\u0000b")  # six characters, and no NUL
    found = saver.get_tuple(config)
    assert found is not None
    assert found.parent_config == generate_config("t", checkpoint_id=r"a\u0000b")


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("name", ["", "a\x00b", "\ud800", "x" * 1025])
def test_a_thread_that_no_store_can_hold_is_refused_before_anything_is_written(
    saver: AgentMemSaver, store: agentmem.Store, name: str
) -> None:
    config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": "", "checkpoint_id": "1"}}
    for call in (
        lambda: saver.put(config, generate_checkpoint(), generate_metadata(), {}),
        lambda: saver.put_writes(config, [("n", 1)], "task"),
        lambda: saver.get_tuple(config),
        lambda: list(saver.list(config)),
        lambda: saver.delete_thread(name),
        lambda: saver.copy_thread(name, "t"),
    ):
        with pytest.raises(agentmem.InvalidValueError):
            call()
    assert store.revision == 0


def test_a_number_names_the_same_thread_as_its_text(saver: AgentMemSaver) -> None:
    config: Any = {"configurable": {"thread_id": 7, "checkpoint_ns": ""}}
    saver.put(config, generate_checkpoint(), generate_metadata(), {})
    assert saver.get_tuple(generate_config("7")) is not None


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_metadata_that_is_no_json_comes_back_as_it_was(saver: AgentMemSaver) -> None:
    odd = {"nested": {"text": "a\x00b"}, "big": 2**63, "names": {1: "one"}, "set": {1, 2}}
    for name, value in odd.items():
        config, metadata = generate_config(name), generate_metadata(**{name: value})
        saver.put(config, generate_checkpoint(), metadata, {})
        (found,) = saver.list(config, filter={name: value})
        assert dict(found.metadata) == dict(metadata)


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_the_log_tells_which_thread_run_and_checkpoint_a_commit_was(
    saver: AgentMemSaver, store: agentmem.Store
) -> None:
    config = generate_config("thread-9")
    config["metadata"] = {"run_id": "run-1"}
    saved = saver.put(config, generate_checkpoint(), generate_metadata(), {})
    saved["metadata"] = {"run_id": "run-2"}
    saver.put_writes(saved, [("n", 1)], "task-1")
    checkpoint_id = saved["configurable"]["checkpoint_id"]
    written, put = store.log(("langgraph", "thread-9"))
    assert put.metadata == {
        "thread_id": "thread-9", "run_id": "run-1", "checkpoint_ns": "",
    }  # fmt: skip
    assert written.metadata == put.metadata | {"run_id": "run-2"}
    assert [change.key for change in put.changes] == [checkpoint_id]
    assert [change.key for change in written.changes] == [f"{checkpoint_id} task-1"]
    assert [entry.text for entry in store.list("langgraph")] == [None, None]


@pytest.mark.parametrize("kind", ["file"], indirect=True)
async def test_sync_and_async_calls_may_be_mixed_and_run_side_by_side(
    saver: AgentMemSaver,
) -> None:
    async def one(number: int) -> None:
        saved = await saver.aput(
            generate_config(f"t{number}"), generate_checkpoint(), generate_metadata(), {}
        )
        await asyncio.gather(
            *(saver.aput_writes(saved, [("n", task)], f"task-{task}") for task in range(5))
        )
        found = await saver.aget_tuple(saved)
        assert found is not None
        assert found.pending_writes == [(f"task-{task}", "n", task) for task in range(5)]
        assert [each async for each in saver.alist(saved)] == list(saver.list(saved))

    await asyncio.gather(*(one(number) for number in range(6)))


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_thread_is_one_namespace(saver: AgentMemSaver, store: agentmem.Store) -> None:
    saved, _ = _put(saver, "t", {"text": "x" * 50_000})
    saver.put_writes(saved, [("n", 1)], "task")
    inside = AgentMemSaver(store.scoped(access={"langgraph/t/**": "write"}))
    assert inside.get_tuple(saved) == saver.get_tuple(saved)
    _put(inside, "t", {"text": "x"}, saved["configurable"]["checkpoint_id"])
    with pytest.raises(agentmem.AccessDeniedError):
        inside.get_tuple(generate_config("u"))
    assert Graph.of(saved).checkpoints[:2] == ("langgraph", "t")


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_view_that_only_appends_gets_new_checkpoints_and_tasks_and_one_that_reads_none(
    store: agentmem.Store,
) -> None:
    adding = AgentMemSaver(store.scoped(access="append"), concurrent_runs="allow")
    saved, checkpoint = _put(adding, "t", {"n": 1})
    for _ in range(2):  # the task runs again, and has nothing to add
        adding.put_writes(saved, [("n", 2)], "task")
    revision = store.revision
    reading = AgentMemSaver(store.scoped(access="read"), concurrent_runs="allow")
    found = reading.get_tuple(saved)
    assert found is not None
    assert found.pending_writes == [("task", "n", 2)]
    for saver in (adding, reading):
        with pytest.raises(agentmem.AccessDeniedError):  # it would replace what is there
            saver.put(generate_config("t"), checkpoint, generate_metadata(step=9), {})
    for call in (
        lambda: _put(reading, "u", {"n": 1}),
        lambda: reading.put_writes(saved, [("n", 3)], "other"),
    ):
        with pytest.raises(agentmem.AccessDeniedError):
            call()
    assert store.revision == revision


def test_only_known_options_are_taken() -> None:
    with pytest.raises(agentmem.InvalidValueError, match="'warn', 'error' or 'allow'"):
        AgentMemSaver(":memory:", concurrent_runs="never")  # type: ignore[arg-type]  # the point
    with AgentMemSaver.from_conn_string(":memory:", durability="relaxed") as saver:
        saver.setup()
        with pytest.raises(agentmem.InvalidValueError, match="keep_latest"):
            saver.prune(["t"], strategy="shorten")
    with pytest.raises(agentmem.ClosedError):
        saver.get_tuple(generate_config("t"))
