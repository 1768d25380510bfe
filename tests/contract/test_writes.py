"""Writes on the store: each commits at once and returns what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from agentmem import ConflictError, Entry, InvalidValueError, KeyMissingError, Limits, Store
from tests.contract.conftest import ManualClock, StoreMaker


def test_put_returns_the_entry_that_everyone_reads(
    make_store: StoreMaker, store: Store, clock: ManualClock
) -> None:
    entry = store.put(
        "plan", {"b": 1, "a": 2}, namespace="team", agent="ann", op_id="op", text="a plan"
    )
    assert entry == Entry(
        ("team",), "plan", 1, 1, {"a": 2, "b": 1}, "a plan", "ann", "op", clock(), clock()
    )
    other = make_store()
    assert other.get("plan", namespace="team") == entry
    assert other.history("plan", namespace="team") == [entry]


def test_put_keeps_when_the_key_became_present(store: Store, clock: ManualClock) -> None:
    began = clock()
    store.put("plan", 1)
    later = clock.advance(60)
    entry = store.put("plan", 2)
    assert (entry.created_at, entry.committed_at) == (began, later)
    store.delete("plan")
    assert store.put("plan", 3).created_at == later


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**63 - 1,
        -0.0,
        1e308,
        5e-324,
        "",
        "\U0001f9e0 e\u0301 \u2028 \x7f",
        [],
        {},
        {"": [None, {"a.b": {"$gt": [[[1.5]]]}}]},
    ],
)
def test_every_json_value_comes_back_as_it_was(store: Store, value: Any) -> None:
    written = store.put("k", value).value
    assert repr(store["k"]) == repr(written) == repr(value)


class Plan(BaseModel):
    days: int = 3
    tags: tuple[str, ...] = ("a",)


def test_models_are_dumped_and_tuples_become_lists(store: Store) -> None:
    assert store.put("plan", Plan()).value == {"days": 3, "tags": ["a"]}
    assert store.put("plans", {"all": (Plan(days=1), (1, 2))}).value == {
        "all": [{"days": 1, "tags": ["a"]}, [1, 2]]
    }


def test_a_value_given_is_not_kept_by_reference(store: Store) -> None:
    value: dict[str, Any] = {"days": [1]}
    entry = store.put("plan", value)
    value["days"].append(2)
    entry.value["days"].append(3)
    item: list[Any] = ["x"]
    with store.transaction() as tx:
        tx.put("tx", value)
        tx.append("list", item)
        item.append("later")
        value["days"].append(4)
    assert store["plan"] == {"days": [1]}
    assert store["tx"] == {"days": [1, 2]}
    assert store["list"] == [["x"]]


@pytest.mark.parametrize(
    ("text", "value", "seen"),
    [
        (None, "a string", "a string"),
        (None, {"b": ["two", 3], "a": "one"}, "one\ntwo"),
        (None, 5, None),
        ("given", {"a": "one"}, "given"),
        (False, "hidden", None),
        (False, {"a": "one"}, None),
    ],
)
def test_text_is_what_search_will_see(
    store: Store, text: str | bool | None, value: Any, seen: str | None
) -> None:
    assert store.put("k", value, text=text).text == seen
    entry = store.get("k")
    assert entry is not None
    assert entry.text == seen


def test_put_many_commits_once_and_returns_the_entries_in_order(
    make_store: StoreMaker, store: Store
) -> None:
    entries = store.put_many({"b": 1, "a": 2}, namespace="n", agent="ann")
    assert [(entry.key, entry.value, entry.revision) for entry in entries] == [
        ("a", 2, 1),
        ("b", 1, 1),
    ]
    assert [entry.value for entry in store.put_many([("a", 3), ("c", 4), ("c", 5)])] == [3, 5]
    assert make_store().revision == 2
    assert store.put_many({}) == []
    assert store.revision == 2


def test_put_many_writes_nothing_if_one_item_is_wrong(store: Store) -> None:
    with pytest.raises(InvalidValueError):
        store.put_many([("a", 1), ("b", {1: 2})])
    with pytest.raises(InvalidValueError):
        store.put_many([("a", 1), ("", 2)])
    with pytest.raises(TypeError):
        store.put_many(["a", "b"])
    assert store.revision == 0


def test_add_makes_keys_that_sort_by_time(store: Store) -> None:
    entries = [store.add(number, namespace="log") for number in range(50)]
    assert [entry.value for entry in store.list("log")] == list(range(50))
    assert {entry.version for entry in entries} == {1}
    assert store.list("log") == entries


def test_delete_returns_the_tombstone(make_store: StoreMaker, store: Store) -> None:
    store.put("plan", 1, agent="bob")
    tombstone = store.delete("plan", agent="bob")
    assert tombstone is not None
    assert tombstone.deleted
    assert (tombstone.value, tombstone.version, tombstone.agent) == (None, 2, "bob")
    other = make_store()
    assert "plan" not in other
    assert other.history("plan")[0] == tombstone


def test_deleting_an_absent_key_writes_nothing(store: Store) -> None:
    store.put("plan", 1)
    store.delete("plan")
    assert store.delete("plan") is None
    assert store.delete("never", expected_version=0) is None
    assert store.revision == 2
    assert store.history("never") == []
    assert len(store.history("plan")) == 2


def test_clear_deletes_a_namespace_in_one_commit(store: Store) -> None:
    for namespace in ("", "a", "a/b", "ab"):
        store.put("k", 0, namespace=namespace)
    assert store.clear("a") == 2
    assert [entry.namespace for entry in store.list()] == [(), ("ab",)]
    assert store.revision == 5
    assert store.clear("a") == 0
    assert store.clear() == 2
    assert store.count() == 0
    assert store.revision == 6


def test_increment_starts_at_zero_and_adds(store: Store) -> None:
    assert store.increment("n").value == 1
    assert store.increment("n", 41).value == 42
    assert store.increment("n", -0.5).value == 41.5
    assert [entry.version for entry in store.history("n")] == [3, 2, 1]


def test_append_starts_with_an_empty_list_and_takes_several(store: Store) -> None:
    assert store.append("log", "a").value == ["a"]
    assert store.append("log", "b", ["c"], None).value == ["a", "b", ["c"], None]


def test_add_to_set_adds_what_is_not_there_and_keeps_types_apart(store: Store) -> None:
    assert store.add_to_set("s", 1, True, 1).value == [1, True]
    assert store.add_to_set("s", {"a": 1}, {"a": 1}, 1).value == [1, True, {"a": 1}]


def test_patch_is_a_json_merge_patch(store: Store) -> None:
    # The examples of RFC 7396, appendix A, whose target and patch are objects.
    cases = [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    for number, (target, patch, result) in enumerate(cases):
        store.put(f"k{number}", target)
        assert store.patch(f"k{number}", patch).value == result
    assert store.patch("new", {"a": 1, "b": None}).value == {"a": 1}


@pytest.mark.parametrize(
    ("value", "call", "message"),
    [
        ("text", lambda store: store.increment("k"), "increment needs a number"),
        (True, lambda store: store.increment("k"), "increment needs a number"),
        (2**63 - 1, lambda store: store.increment("k"), "64 bits"),
        (1e308, lambda store: store.increment("k", 1e308), "finite"),
        ({}, lambda store: store.append("k", 1), "append needs a list"),
        ("text", lambda store: store.add_to_set("k", 1), "add_to_set needs a list"),
        ([], lambda store: store.patch("k", {"a": 1}), "patch needs an object"),
        (0, lambda store: store.increment("k", True), "by a number"),
        (0, lambda store: store.increment("k", float("nan")), "nan"),
        ({}, lambda store: store.patch("k", [1]), "an object"),
    ],
)
def test_an_operation_on_the_wrong_type_is_refused(
    store: Store, value: Any, call: Callable[[Store], Any], message: str
) -> None:
    before = store.put("k", value)
    with pytest.raises(InvalidValueError, match=message):
        call(store)
    assert store.get("k") == before
    assert store.revision == 1


def test_expected_version_is_a_compare_and_set(store: Store) -> None:
    assert store.put("k", 1, expected_version=0).version == 1
    assert store.put("k", 2, expected_version=1).version == 2
    for expected in (0, 1, 3, 2**40):
        with pytest.raises(ConflictError) as caught:
            store.put("k", 3, expected_version=expected)
        assert caught.value.conflicts[0].current_version == 2
        with pytest.raises(ConflictError):
            store.delete("k", expected_version=expected)
    assert store["k"] == 2
    tombstone = store.delete("k", expected_version=2)
    assert tombstone is not None
    assert tombstone.version == 3
    with pytest.raises(ConflictError):
        store.put("k", 4, expected_version=3)
    assert store.put("k", 4, expected_version=0).version == 4


def test_a_conflict_shows_both_sides(store: Store) -> None:
    base = store.put("k", "base", agent="ann")
    theirs = store.put("k", "theirs", agent="bob", overwrite=True)
    with pytest.raises(ConflictError, match=r"'k' .* version 1, .* version 2 by 'bob'") as caught:
        store.put("k", "ours", expected_version=1)
    (conflict,) = caught.value.conflicts
    assert (conflict.base, conflict.theirs, conflict.ours) == ("base", "theirs", "ours")
    assert (conflict.base_entry, conflict.theirs_entry) == (base, theirs)
    assert (conflict.kind, conflict.base_version, conflict.current_version) == ("write", 1, 2)


@pytest.mark.parametrize("expected", [-1, True, "1", 1.0])
def test_an_impossible_expected_version_is_refused(store: Store, expected: Any) -> None:
    with pytest.raises((InvalidValueError, TypeError)):
        store.put("k", 1, expected_version=expected)


def test_overwrite_and_expected_version_exclude_each_other(store: Store) -> None:
    with pytest.raises(InvalidValueError, match="overwrite"):
        store.put("k", 1, overwrite=True, expected_version=1)


def test_update_reads_changes_and_writes(store: Store) -> None:
    assert store.update("k", lambda days: [*days, 1], default=[]) == store.get("k")
    entry = store.update("k", lambda days: [*days, 2])
    assert entry is not None
    assert (entry.value, entry.version) == ([1, 2], 2)


def test_update_of_an_absent_key_needs_a_default(store: Store) -> None:
    with pytest.raises(KeyMissingError, match="'k' is absent"):
        store.update("k", lambda value: value)
    entry = store.update("k", lambda value: value, default=None)
    assert entry is not None
    assert entry.value is None


def test_update_keeps_the_expiry_unless_told(store: Store, clock: ManualClock) -> None:
    expires_at = store.put("k", 1, ttl_s=60).expires_at
    clock.advance(10)
    entry = store.update("k", lambda value: value + 1)
    assert entry is not None
    assert entry.expires_at == expires_at
    entry = store.update("k", lambda value: value + 1, ttl_s=60)
    assert entry is not None
    assert entry.expires_at == clock() + timedelta(seconds=60)


def test_a_commit_carries_who_why_and_what_else(make_store: StoreMaker, store: Store) -> None:
    store.put("k", 1, agent="ann", note="because", metadata={"run": 7}, op_id="op-1")
    (commit,) = make_store().log()
    assert (commit.agent, commit.note, commit.metadata, commit.op_id) == (
        "ann",
        "because",
        {"run": 7},
        "op-1",
    )
    (change,) = commit.changes
    assert (change.key, change.version, change.base_version, change.operation) == (
        "k",
        1,
        None,
        "put",
    )


def test_the_log_marks_a_blind_put_and_names_every_operation(store: Store) -> None:
    store.put("k", 1)
    store.put("k", 2, expected_version=1)
    store.increment("k")
    store.append("l", 1)
    store.add_to_set("l", 2)
    store.patch("p", {})
    store.delete("k")
    changes = [commit.changes[0] for commit in reversed(store.log())]
    assert [(change.operation, change.base_version) for change in changes] == [
        ("put", None),
        ("put", 1),
        ("increment", 2),
        ("append", 0),
        ("add_to_set", 1),
        ("patch", 0),
        ("delete", None),
    ]


def test_the_agent_of_the_store_writes_unless_a_call_says_otherwise(
    make_store: StoreMaker,
) -> None:
    store = make_store(agent="ann")
    assert store.put("k", 1).agent == "ann"
    assert store.increment("k", agent="bob").agent == "bob"
    with store.transaction() as tx:
        tx["k"] = 5
    assert store.log(limit=1)[0].agent == "ann"


@pytest.mark.parametrize("field", ["agent", "op_id", "note"])
@pytest.mark.parametrize("text", ["", "a\x00b", "\ud800", 5])
def test_names_of_a_commit_are_texts(store: Store, field: str, text: Any) -> None:
    with pytest.raises((InvalidValueError, TypeError), match=field):
        store.put("k", 1, **{field: text})
    with pytest.raises((InvalidValueError, TypeError), match=field):
        store.transaction(**{field: text})
    assert store.revision == 0


@pytest.mark.parametrize("agent", [5, "\ud800", "", "a\x00b"])
def test_an_agent_is_a_text_wherever_it_is_given(make_store: StoreMaker, agent: Any) -> None:
    store = make_store(intact=False)
    with pytest.raises((InvalidValueError, TypeError), match="agent"):
        store.scoped("team", agent=agent)
    with pytest.raises((InvalidValueError, TypeError), match="agent"):
        make_store(agent=agent)


def test_a_store_of_one_process_writes_within_its_own_limits(make_store: StoreMaker) -> None:
    make_store().put("k", "long" * 10)
    small = make_store(limits=Limits(max_value_bytes=10))
    assert small["k"] == "long" * 10
    with pytest.raises(InvalidValueError):
        small.put("k", "long" * 10)
