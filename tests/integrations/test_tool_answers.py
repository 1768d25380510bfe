"""What the tools do and say when they are called by hand, without an agent around them."""

from __future__ import annotations

import contextvars
import json
import math
from collections.abc import Callable
from typing import Any, Final

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import RunnableConfig
from langchain_core.utils.function_calling import convert_to_openai_tool

import agentmem
from langchain_agentmem import AgentMemToolkit
from langchain_agentmem.paths import namespace_of, path_of, place_of

MAX_SCHEMA_TOKENS: Final = 1_100

Call = Callable[..., ToolMessage]


@pytest.fixture
def store() -> Any:
    """One store in memory; what differs between the kinds is tested with agents."""
    with agentmem.open(":memory:", durability="relaxed", embedder=None) as opened:
        yield opened
        assert opened.admin.verify().problems == []


def caller(store: agentmem.Store, **options: Any) -> Call:
    """Calls a tool of a toolkit by its name, each time under another tool call id."""
    toolkit = AgentMemToolkit(store, **{"namespace": "team", "agent": "ann", **options})
    tools = {tool.name: tool for tool in toolkit.get_tools()}
    numbers = iter(range(1_000_000))

    def call(name: str, config: RunnableConfig | None = None, **arguments: Any) -> ToolMessage:
        id = f"call-{next(numbers)}"
        asked = {"name": name, "args": arguments, "id": id, "type": "tool_call"}
        message = tools[name].invoke(asked, config)
        assert isinstance(message, ToolMessage)
        return message

    return call


@pytest.fixture
def call(store: agentmem.Store) -> Call:
    """Calls a tool of ann's, who works in ``team``."""
    return caller(store)


def bobs(store: agentmem.Store) -> agentmem.Store:
    """The same namespace, for another agent."""
    return store.scoped("team", agent="bob")


# Versions and conflicts.


def test_a_read_shows_the_version_and_a_write_takes_it(store: agentmem.Store, call: Call) -> None:
    call("memory_write", key="plan", value={"days": 3})
    assert "plan, version 1, by ann" in call("memory_read", key="plan").content
    done = call("memory_write", key="plan", value={"days": 4}, version=1)
    assert (done.status, done.content) == ("success", "Wrote plan: now version 2.")
    entry = store.get("plan", namespace="team")
    assert (entry.value, entry.agent) == ({"days": 4}, "ann")


def test_a_write_without_a_version_creates_and_never_replaces(
    store: agentmem.Store, call: Call
) -> None:
    bobs(store).put("plan", {"days": 3}, expected_version=0)
    told = call("memory_write", key="plan", value={"days": 4})
    assert told.status == "error"
    assert "plan is at version 1, by bob" in told.content
    assert '{"days": 3}' in told.content
    assert "call memory_write with version=1" in told.content
    assert store.get("plan", namespace="team").version == 1


def test_a_conflict_tells_the_base_the_difference_and_what_to_do(
    store: agentmem.Store, call: Call
) -> None:
    call("memory_write", key="plan", value={"days": 3, "city": "Rome"})
    bobs(store).put("plan", {"days": 5, "city": "Rome", "who": ["bob"]}, expected_version=1)
    told = call("memory_write", key="plan", value={"days": 4}, version=1)
    assert told.status == "error"
    lines = told.content.splitlines()
    assert lines[0].startswith("NOT DONE: plan is at version 2, by bob at ")
    assert lines[0].endswith("you started from version 1. Changed since:")
    advice = (
        "Decide what to keep of both, then call memory_write with version=2 and a value that has "
        "the changes by bob and yours."
    )
    assert lines[1:] == [
        "  $.days: 3 -> 5",
        '  $.who: added ["bob"]',
        "It is now:",
        '{"city": "Rome", "days": 5, "who": ["bob"]}',
        advice,
    ]
    assert told.artifact["conflict"] == {"base_version": 1, "theirs_version": 2}
    assert store.get("plan", namespace="team").agent == "bob"
    [record] = store.scoped("team").audit.conflicts()
    assert (record.status, record.agent) == ("rejected", "ann")


def test_a_conflict_with_a_deletion_says_how_to_have_it_again(
    store: agentmem.Store, call: Call
) -> None:
    call("memory_write", key="plan", value=1)
    bobs(store).delete("plan", expected_version=1)
    told = call("memory_write", key="plan", value=2, version=1)
    assert "plan is gone; you started from version 1" in told.content
    assert "version=0" in told.content
    assert call("memory_write", key="plan", value=2, version=0).content.endswith("now version 3.")


def test_a_version_that_never_was_is_a_conflict_in_words(call: Call) -> None:
    call("memory_write", key="plan", value=1)
    told = call("memory_write", key="plan", value=2, version=9)
    assert (told.status, "version 9" in told.content) == ("error", True)


def test_a_patch_keeps_what_others_wrote(store: agentmem.Store, call: Call) -> None:
    call("memory_write", key="plan", value={"days": 3, "old": 1})
    bobs(store).patch("plan", {"city": "Rome"})
    done = call("memory_patch", key="plan", patch={"days": 4, "old": None})
    assert done.content == 'Patched plan: now version 3. It is:\n{"city": "Rome", "days": 4}'
    assert store.get("plan", namespace="team").value == {"days": 4, "city": "Rome"}


def test_a_patch_with_a_version_is_made_of_that_version_alone(
    store: agentmem.Store, call: Call
) -> None:
    call("memory_write", key="plan", value={"days": 3})
    bobs(store).patch("plan", {"city": "Rome"})
    told = call("memory_patch", key="plan", patch={"days": 4}, version=1)
    assert (told.status, '$.city: added "Rome"' in told.content) == ("error", True)
    assert call("memory_patch", key="plan", patch={"days": 4}, version=2).status == "success"
    assert store.get("plan", namespace="team").value == {"days": 4, "city": "Rome"}


def test_an_append_never_conflicts(store: agentmem.Store, call: Call) -> None:
    call("memory_append", key="log", items=["a"])
    bobs(store).append("log", "b")
    done = call("memory_append", key="log", items=["c", {"d": 1}])
    assert done.content == 'Appended 2 to log: now version 3. It is:\n["a", "b", "c", {"d": 1}]'


def test_a_deletion_takes_the_version_that_was_read(store: agentmem.Store, call: Call) -> None:
    call("memory_write", key="plan", value=1)
    assert "call memory_delete with version=1" in call("memory_delete", key="plan").content
    bobs(store).put("plan", 2, expected_version=1)
    told = call("memory_delete", key="plan", version=1)
    assert (told.status, "$: 1 -> 2" in told.content) == ("error", True)
    assert call("memory_delete", key="plan", version=2).status == "success"
    assert store.get("plan", namespace="team") is None
    assert call("memory_delete", key="plan").content == "plan was absent already."


def test_a_merge_strategy_settles_what_it_can_and_the_model_is_told(
    store: agentmem.Store, call: Call
) -> None:
    store.scoped("team").set_merge("plan", "json")
    call("memory_write", key="plan", value={"days": 3})
    bobs(store).put("plan", {"days": 3, "city": "Rome"}, expected_version=1)
    done = call("memory_write", key="plan", value={"days": 4}, version=1)
    assert done.status == "success"
    assert "merged with a change by another: now version 3" in done.content
    assert '$.city: added "Rome"' in done.content
    assert store.get("plan", namespace="team").value == {"days": 4, "city": "Rome"}


def test_the_history_says_who_when_and_what(store: agentmem.Store, call: Call) -> None:
    call("memory_write", key="plan", value={"days": 3})
    bobs(store).put("plan", {"days": 4}, expected_version=1)
    bobs(store).delete("plan", expected_version=2)
    lines = call("memory_history", key="plan").content.splitlines()
    assert [line.split(" at ")[0] for line in lines] == [
        "plan", "v3 by bob", "v2 by bob", "  $.days: 3 -> 4", "v1 by ann",
        '  $: added {"days": 3}',
    ]  # fmt: skip
    assert "v2" not in call("memory_history", key="plan", before=2).content
    assert "version 1 (now absent)" in call("memory_read", key="plan", version=1).content


# Long results.


def test_a_long_value_is_read_in_pages_that_make_up_the_whole(
    store: agentmem.Store,
) -> None:
    text = "".join(f"{number:05d} " for number in range(2_000))
    call = caller(store, max_result_tokens=500)
    bobs(store).put("long", text, expected_version=0)
    read, offset = "", 0
    for _page in range(50):
        message = call("memory_read", key="long", offset=offset)
        assert count_tokens_approximately([message.content]) <= 500
        body, _, end = message.content.partition("\n")[2].partition("\n[cut")
        read += body
        if not end:
            break
        offset = int(end.partition("offset=")[2].partition(" ")[0])
        assert "version=1" in end
    assert read == text


def test_reading_on_stays_with_the_version_that_was_begun(store: agentmem.Store) -> None:
    call = caller(store, max_result_tokens=100)
    bobs(store).put("long", "a" * 1_000, expected_version=0)
    call("memory_read", key="long")
    bobs(store).put("long", "b" * 1_000, expected_version=1)
    message = call("memory_read", key="long", offset=200, version=1)
    assert "version 1 (now version 2)" in message.content
    assert "aaa" in message.content
    assert "bbb" not in message.content


def test_a_list_is_read_in_pages_that_make_up_the_whole(store: agentmem.Store) -> None:
    keys = [f"key-{number:04d}" for number in range(450)]
    bobs(store).put_many(dict.fromkeys(keys, "x" * 300), namespace="many")
    call = caller(store, max_result_tokens=2_000)
    found: list[str] = []
    after: dict[str, Any] = {}
    while True:
        message = call("memory_list", namespace="many", **after)
        assert count_tokens_approximately([message.content]) <= 2_000
        found += message.artifact["keys"]
        if not message.artifact["more"]:
            break
        after = {"after": message.content.rpartition("after='")[2].removesuffix("']")}
    assert found == [f"many/{key}" for key in keys]


@pytest.mark.parametrize("name", ["memory_search", "memory_history"])
def test_other_long_results_stop_and_say_how_to_read_on(store: agentmem.Store, name: str) -> None:
    view = bobs(store)
    for number in range(30):
        view.put(f"note-{number}", f"rome {'word ' * 50}{number}", expected_version=0)
        view.put("plan", {"days": number, "why": "x" * 80}, expected_version=number)
    call = caller(store, max_result_tokens=400)
    first, on = {
        "memory_search": ({"query": "rome", "k": 20}, "offset"),
        "memory_history": ({"key": "plan"}, "before"),
    }[name]
    message = call(name, **first)
    assert count_tokens_approximately([message.content]) <= 400
    next_page = int(message.content.rpartition(f"{on}=")[2].removesuffix("]"))
    more = call(name, **first, **{on: next_page})
    shown = message.artifact.get("keys") or message.artifact["versions"]
    assert len(shown) >= 3
    assert not set(shown) & set(more.artifact.get("keys") or more.artifact["versions"])


def test_a_long_conflict_stays_within_the_limit(store: agentmem.Store) -> None:
    call = caller(store, max_result_tokens=300)
    view = bobs(store)
    view.put("plan", {f"field-{n}": n for n in range(200)}, expected_version=0)
    view.put("plan", {f"field-{n}": n + 1 for n in range(200)}, expected_version=1)
    told = call("memory_write", key="plan", value={}, version=1)
    assert count_tokens_approximately([told.content]) <= 300
    assert "$.field-0: 0 -> 1" in told.content
    assert "version=2" in told.content


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("memory_list", {}),
        ("memory_search", {"query": "rome"}),
        ("memory_history", {"key": "plan"}),
        ("memory_read", {"key": "plan"}),
        ("memory_write", {"key": "plan", "value": 1, "version": 1}),
    ],
)
def test_the_least_limit_is_kept_whatever_is_in_memory(
    store: agentmem.Store, name: str, arguments: dict[str, Any]
) -> None:
    view = bobs(store)
    view.put("plan", {"rome": ["x" * 500] * 3}, expected_version=0)
    view.put("plan", {f"rome {n}": "y" * 500 for n in range(9)}, expected_version=1)
    view.put("k" * 200, "rome " * 100, expected_version=0)
    message = caller(store, max_result_tokens=100)(name, **arguments)
    assert 50 < count_tokens_approximately([message.content]) <= 100


def test_a_counter_of_tokens_can_be_given(store: agentmem.Store) -> None:
    def characters(messages: Any) -> int:
        return sum(len(message.content) for message in messages)

    call = caller(store, max_result_tokens=200, token_counter=characters)
    bobs(store).put("long", "a" * 1_000, expected_version=0)
    message = call("memory_read", key="long")
    assert 190 <= len(message.content) <= 200


def test_schemas_cost_few_tokens(store: agentmem.Store) -> None:
    tools = [convert_to_openai_tool(tool) for tool in AgentMemToolkit(store).get_tools()]
    assert len(tools) == 11
    assert count_tokens_approximately([json.dumps(tools)]) <= MAX_SCHEMA_TOKENS
    assert not [tool for tool in tools if "runtime" in json.dumps(tool)]


# Where a model can go, and what it is told of its mistakes.


def test_paths_name_every_key_and_no_two_alike() -> None:
    places = [
        (("a",), "b"), ((), "a/b"), (("a/b",), "c"), (("a", "b"), "c"), ((), "~1"), ((), "~0"),
        ((), "/"), (("~",), "/~"), ((), "a"),
    ]  # fmt: skip
    paths = [path_of(place) for place in places]
    assert len(set(paths)) == len(paths)
    assert [place_of(path) for path in paths] == places
    assert place_of("/plan") == place_of("plan")
    assert namespace_of("a/b~1c/") == ("a", "b/c")


def test_a_model_cannot_leave_its_namespace(store: agentmem.Store, call: Call) -> None:
    store.put("other", "hidden", expected_version=0)
    store.put("other", "hidden", namespace="team2", expected_version=0)
    for key in ("../other", "/other", "..~1other", "team/other", "../team2/other"):
        assert "hidden" not in call("memory_read", key=key).content
    assert call("memory_list").content == "No keys in memory."
    call("memory_write", key="../other", value="mine")
    assert store["other"] == "hidden"
    assert store.get("other", namespace=("team", "..")).value == "mine"


def test_access_that_is_not_granted_is_told(store: agentmem.Store) -> None:
    call = caller(store, namespace=None, access={"team/**": "read", "mine/**": "write"})
    bobs(store).put("plan", 1, expected_version=0)
    assert call("memory_read", key="team/plan").status == "success"
    told = call("memory_write", key="team/plan", value=2, version=1)
    assert (told.status, "use another key" in told.content) == ("error", True)
    assert call("memory_write", key="mine/plan", value=2).status == "success"


def test_tools_can_be_chosen(store: agentmem.Store) -> None:
    names = [tool.name for tool in AgentMemToolkit(store, read_only=True).get_tools()]
    assert names == ["memory_read", "memory_list", "memory_search", "memory_history"]
    [tool] = AgentMemToolkit(store, tools=["memory_append"]).get_tools()
    assert tool.name == "memory_append"
    with pytest.raises(ValueError, match="memory_erase"):
        AgentMemToolkit(store, tools=["memory_erase"])


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("memory_write", {"key": "", "value": 1}, "a key must not be empty"),
        ("memory_write", {"key": "a//b", "value": 1}, "a label must not be empty"),
        ("memory_write", {"key": "x", "value": math.nan}, "nan is not JSON"),
        ("memory_write", {"key": "x", "value": 2**70}, "64"),
        ("memory_write", {"key": "k" * 2_000, "value": 1}, "1024"),
        ("memory_write", {"key": "x"}, "value: Field required"),
        ("memory_write", {"key": "x", "value": 1, "expected_version": 3}, "expected_version"),
        ("memory_append", {"key": "text", "items": [1]}, "append needs a list"),
        ("memory_patch", {"key": "text", "patch": {"a": 1}}, "patch needs an object"),
        ("memory_read", {"key": "text", "version": 7}, "text has no such version"),
        ("memory_search", {"query": "x", "k": 1_000}, "less than or equal to 50"),
        ("task_done", {"task": "seven"}, "task_claim names them"),
        ("task_done", {"task": "7-12"}, "you do not hold that task"),
    ],
)
def test_mistakes_are_told_in_words(
    call: Call, name: str, arguments: dict[str, Any], words: str
) -> None:
    call("memory_write", key="text", value="hello")
    told = call(name, **arguments)
    assert (told.status, words in told.content) == ("error", True), told.content
    assert "memory_list" not in told.content or name != "memory_write"


def test_what_no_model_can_mend_is_raised(store: agentmem.Store, call: Call) -> None:
    @store.merge_hook("team/plan")
    def broken(conflict: agentmem.Conflict) -> Any:
        raise RuntimeError("a bug")

    call("memory_write", key="plan", value=1)
    bobs(store).put("plan", 2, expected_version=1)
    with pytest.raises(agentmem.MergeError):
        call("memory_write", key="plan", value=3, version=1)


def test_a_closed_store_is_no_answer(tmp_path: Any) -> None:
    with AgentMemToolkit(tmp_path / "team.db", tools=["memory_read"]) as toolkit:
        [tool] = toolkit.get_tools()
        assert tool.invoke({"key": "plan"}).startswith("plan is absent")
    with pytest.raises(agentmem.ClosedError):
        tool.invoke({"key": "plan"})


def test_a_store_that_the_caller_opened_stays_open(store: agentmem.Store) -> None:
    AgentMemToolkit(store).close()
    assert store.revision == 0


# What is stored stays data.

LC: Final = {
    "lc": 1, "type": "constructor", "id": ["langchain_core", "prompts", "PromptTemplate"],
    "kwargs": {"template": "{x}", "input_variables": ["x"]},
}  # fmt: skip


def test_constructor_keys_stay_data(store: agentmem.Store, call: Call) -> None:
    secret = {"lc": 1, "type": "secret", "id": ["HOME"]}
    call("memory_write", key="a", value=LC)
    call("memory_patch", key="b", patch={"inner": LC})
    call("memory_append", key="c", items=[secret, LC])
    call("task_put", payload=LC)
    assert store.get("a", namespace="team").value == LC
    assert store.get("b", namespace="team").value == {"inner": LC}
    assert store.get("c", namespace="team").value == [secret, LC]
    # As it was written, name by name: the store sorts the names.
    shown = json.dumps(LC, sort_keys=True)
    assert shown in call("memory_read", key="a").content
    assert shown in call("task_claim").content


# Tasks.


def test_a_task_is_put_claimed_and_done_with_its_result(store: agentmem.Store, call: Call) -> None:
    call("task_put", payload={"city": "Rome"})
    assert call("task_claim", queue="other").content == "No task is waiting in queue other."
    claimed = call("task_claim")
    task = claimed.artifact["task"]
    assert claimed.content.endswith('{"city": "Rome"}')
    assert f"call task_done with task='{task}'" in claimed.content
    assert call("task_claim").content == "No task is waiting in queue tasks."
    done = call("task_done", task=task, result={"hotel": "Roma"})
    assert "kept as task_results/tasks/1" in done.content
    view = store.scoped("team")
    assert view.get("1", namespace=("task_results", "tasks")).value == {"hotel": "Roma"}
    assert len(view.queue("tasks")) == 0
    again = call("task_done", task=task, result="again")
    assert (again.status, "you do not hold that task" in again.content) == ("error", True)
    assert view.get("1", namespace=("task_results", "tasks")).version == 1


def test_a_task_that_was_taken_over_is_ended_by_its_new_holder_alone(
    store: agentmem.Store, call: Call
) -> None:
    call("task_put", payload="x")
    first = call("task_claim").artifact["task"]
    queue = store.scoped("team").queue("tasks")
    queue.task(*map(int, first.split("-"))).nack()
    second = call("task_claim")
    assert "begun 1 times before" in second.content
    assert call("task_done", task=first, result="late").status == "error"
    assert call("task_done", task=second.artifact["task"], result="right").status == "success"
    assert store.get("1", namespace=("team", "task_results", "tasks")).value == "right"


def test_a_long_payload_is_read_on_by_its_claim(store: agentmem.Store) -> None:
    call = caller(store, max_result_tokens=200)
    payload = "".join(f"{number:04d} " for number in range(400))
    call("task_put", payload=payload)
    message = call("task_claim")
    task, read = message.artifact["task"], ""
    for _page in range(20):
        assert count_tokens_approximately([message.content]) <= 200
        body, _, end = message.content.partition(f"task='{task}'.\n")[2].partition("\n[cut")
        read += body
        if not end:
            break
        offset = int(end.rpartition("offset=")[2].removesuffix("]"))
        message = call("task_claim", task=task, offset=offset)
    assert read == payload


# Operation ids: what is known of a call that is made by hand.


def thread(name: str, **more: str) -> RunnableConfig:
    """The config of a conversation, in a task of a graph if that is given."""
    return {"configurable": {"thread_id": name, **more}}


def test_a_call_id_alone_is_no_operation_id(store: agentmem.Store) -> None:
    [tool] = AgentMemToolkit(store, tools=["memory_append"]).get_tools()
    asked = {
        "name": "memory_append", "args": {"key": "log", "items": ["x"]}, "id": "call_1",
        "type": "tool_call",
    }  # fmt: skip
    for config in (None, None, thread("t"), thread("t")):
        assert "op_id" not in tool.invoke(asked, config).artifact
    assert store["log"] == ["x"] * 4


def test_in_a_task_of_a_graph_a_call_applies_once(store: agentmem.Store) -> None:
    [tool] = AgentMemToolkit(store, tools=["memory_append"]).get_tools()
    asked = {
        "name": "memory_append", "args": {"key": "log", "items": ["x"]}, "id": "call_1",
        "type": "tool_call",
    }  # fmt: skip
    first = tool.invoke(asked, thread("t", __pregel_task_id="task-1"))
    again = tool.invoke(asked, thread("t", __pregel_task_id="task-1"))
    assert again.content == first.content
    for config in (
        thread("t", __pregel_task_id="task-2"),
        thread("u", __pregel_task_id="task-1"),
        # Neither can the parts run into each other.
        thread("a:task-b", __pregel_task_id="c"),
        thread("a", __pregel_task_id="b:task-c"),
        thread("a%3Atask-b", __pregel_task_id="c"),
    ):
        tool.invoke(asked, config)
    assert store["log"] == ["x"] * 6


def test_another_request_under_the_same_call_is_told(store: agentmem.Store) -> None:
    [tool] = AgentMemToolkit(store, tools=["memory_append"]).get_tools()
    asked = {"name": "memory_append", "id": "call_1", "type": "tool_call"}
    config = thread("t", __pregel_task_id="task-1")
    tool.invoke({**asked, "args": {"key": "log", "items": ["x"]}}, config)
    told = tool.invoke({**asked, "args": {"key": "log", "items": ["y"]}}, config)
    assert (told.status, "made before with other arguments" in told.content) == ("error", True)
    assert "op_id" not in told.content
    assert store["log"] == ["x"]


@pytest.fixture
def cut_off(store: agentmem.Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the next commit end as one whose connection breaks, after it took effect or before."""
    commit = agentmem.Transaction.commit

    def cut_next(*, committed: bool) -> None:
        def cut(tx: agentmem.Transaction) -> Any:
            monkeypatch.setattr(agentmem.Transaction, "commit", commit)
            row = store._core.commit_row(commit(tx).revision) if committed else None
            raise agentmem.IndeterminateCommitError(
                "cut off",
                attempt=b"never written..." if row is None else row.attempt,
                revision=store.revision + 1 if row is None else row.revision,
            )

        monkeypatch.setattr(agentmem.Transaction, "commit", cut)

    return cut_next


def test_a_commit_that_was_cut_off_is_settled_before_the_model_hears(
    store: agentmem.Store, call: Call, cut_off: Callable[..., None]
) -> None:
    call("memory_append", key="log", items=["a"])
    cut_off(committed=True)
    assert "Done, in revision 2" in call("memory_append", key="log", items=["b"]).content
    cut_off(committed=False)
    told = call("memory_append", key="log", items=["c"])
    assert (told.status, "nothing was written" in told.content) == ("error", True)
    assert store.get("log", namespace="team").value == ["a", "b"]


@pytest.mark.parametrize("committed", [True, False])
def test_a_call_that_was_cut_off_goes_on_by_its_operation_id(
    store: agentmem.Store, call: Call, cut_off: Callable[..., None], committed: bool
) -> None:
    config = thread("t", __pregel_task_id="task-1")
    cut_off(committed=committed)
    done = call("memory_append", config, key="log", items=["a"])
    assert done.content == 'Appended 1 to log: now version 1. It is:\n["a"]'
    assert store.get("log", namespace="team").value == ["a"]


async def test_async_calls_run_in_a_thread_with_their_context(store: agentmem.Store) -> None:
    seen: list[str] = []
    current: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="nothing")

    @store.merge_hook("log")
    def look(conflict: agentmem.Conflict) -> Any:
        seen.append(current.get())
        return [*conflict.theirs, *conflict.ours]

    tools = {tool.name: tool for tool in AgentMemToolkit(store).get_tools()}
    await tools["memory_write"].ainvoke({"key": "log", "value": ["a"]})
    store.put("log", ["b"], expected_version=1)
    current.set("mine")
    await tools["memory_write"].ainvoke({"key": "log", "value": ["c"], "version": 1})
    assert seen == ["mine"]
    assert store["log"] == ["b", "c"]
