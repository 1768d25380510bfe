"""The audit and the administration of a store: diff, version, tags, statistics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from agentmem import (
    ConflictError,
    Difference,
    InvalidValueError,
    KeyMissingError,
    RevisionError,
    Store,
)
from tests.contract.conftest import ManualClock, StoreMaker


def test_diff_tells_path_by_path_what_changed(store: Store) -> None:
    store.put("plan", {"days": 3, "tags": ["a", "b"], "gone": 1, "same": {"x": 1}}, namespace="n")
    store.put("plan", {"days": 4, "tags": ["a"], "new": None, "same": {"x": 1}}, namespace="n")
    assert store.audit.diff("plan", 1, 2, namespace="n") == [
        Difference("$.days", "changed", 3, 4),
        Difference("$.gone", "removed", 1, None),
        Difference("$.new", "added", None, None),
        Difference("$.tags[1]", "removed", "b", None),
    ]
    assert store.audit.diff("plan", 2, 2, namespace="n") == []
    assert [each.kind for each in store.audit.diff("plan", 2, 1, namespace="n")] == [
        "changed",
        "added",
        "removed",
        "added",
    ]


def test_diff_takes_version_zero_and_tombstones_as_absent(store: Store) -> None:
    store.put("k", 1)
    store.delete("k")
    store.put("k", [1])
    diff = store.audit.diff
    assert diff("k", 0, 1) == [Difference("$", "added", None, 1)]
    assert diff("k", 1, 2) == [Difference("$", "removed", 1, None)]
    assert diff("k", 2, 0) == []
    assert diff("k", 1, 3) == [Difference("$", "changed", 1, [1])]


def test_diff_keeps_types_apart(store: Store) -> None:
    store.put("k", [1, True, "1", None])
    store.put("k", [True, 1, 1, 0])
    assert len(store.audit.diff("k", 1, 2)) == 4


def test_version_gives_any_version_tombstones_included(store: Store) -> None:
    first = store.put("k", 1, namespace="n")
    tombstone = store.delete("k", namespace="n")
    assert store.audit.version("k", 1, namespace="n") == first
    assert store.audit.version("k", 2, namespace="n") == tombstone
    for version in (0, 3, -1):
        with pytest.raises(KeyMissingError, match=f"no version {version}"):
            store.audit.version("k", version, namespace="n")
    with pytest.raises(KeyMissingError):
        store.audit.diff("k", 1, 5, namespace="n")
    with pytest.raises(KeyMissingError):
        store.audit.version("other", 1)


def test_tags_name_revisions_and_move(
    make_store: StoreMaker, store: Store, clock: ManualClock
) -> None:
    began = clock()
    store.put("k", 1)
    clock.advance(10)
    store.put("k", 2)
    store.audit.tag("now", agent="ann", note="why")
    store.audit.tag("first", at=1)
    store.audit.tag("empty", at=0)
    store.audit.tag("then", at=began)
    store.audit.tag("same", at="first")
    tags = make_store().audit.tags()
    assert [(tag.name, tag.revision) for tag in tags] == [
        ("empty", 0),
        ("first", 1),
        ("now", 2),
        ("same", 1),
        ("then", 1),
    ]
    assert (tags[2].agent, tags[2].note, tags[2].created_at) == ("ann", "why", clock())
    store.audit.tag("first", at=2)
    assert store.snapshot(at="first")["k"] == 2
    assert store.snapshot(at="same")["k"] == 1
    assert store.revision == 2


def test_a_tag_can_be_forgotten(store: Store) -> None:
    store.audit.tag("t")
    store.audit.untag("t")
    assert store.audit.tags() == []
    with pytest.raises(RevisionError, match="no tag 't'"):
        store.audit.untag("t")
    with pytest.raises(RevisionError):
        store.snapshot(at="t")


@pytest.mark.parametrize("name", ["", "a\x00b", "\ud800", None, 5])
def test_a_tag_needs_a_name(store: Store, name: Any) -> None:
    with pytest.raises((InvalidValueError, TypeError), match="tag"):
        store.audit.tag(name)
    assert store.audit.tags() == []


def test_a_tag_needs_a_moment_that_can_be_read(store: Store) -> None:
    for at in (5, -1, "other"):
        with pytest.raises(RevisionError):
            store.audit.tag("t", at=at)


def test_the_agent_of_a_tag_or_resolution_is_a_text(make_store: StoreMaker) -> None:
    store = make_store(intact=False)
    store.set_merge("k", "escalate")
    store.put("k", 1)
    store.put("k", 2)
    store.put("k", 3, expected_version=1)
    (parked,) = store.audit.conflicts("open")
    for agent in (5, "\ud800", ""):
        with pytest.raises((InvalidValueError, TypeError), match="agent"):
            store.audit.tag("t", agent=agent)  # type: ignore[arg-type]  # the point of the test
        with pytest.raises((InvalidValueError, TypeError), match="agent"):
            store.audit.resolve(parked.id, "ours", agent=agent)  # type: ignore[arg-type]  # the same


def put_and_commit(store: Store, number: Any) -> None:
    with store.transaction() as tx:
        tx.put("k", 1, expected_version=number)


NUMBERS: dict[str, Callable[[Store, Any], Any]] = {
    "snapshot": lambda store, number: store.snapshot(at=number),
    "tag": lambda store, number: store.audit.tag("t", at=number),
    "log limit": lambda store, number: store.log(limit=number),
    "history limit": lambda store, number: store.history("k", limit=number),
    "list limit": lambda store, number: store.list(limit=number),
}
UNCHECKED: dict[str, Callable[[Store, Any], Any]] = {
    "put": lambda store, number: store.put("k", 1, expected_version=number),
    "put in a transaction": put_and_commit,
    "delete": lambda store, number: store.delete("k", expected_version=number),
    "version": lambda store, number: store.audit.version("k", number),
    "diff": lambda store, number: store.audit.diff("k", 1, number),
    "resolve": lambda store, number: store.audit.resolve(number, "ours"),
    "log after": lambda store, number: store.log(after=number),
    "log upto": lambda store, number: store.log(upto=number),
}
TYPED = (RevisionError, KeyMissingError, InvalidValueError, ConflictError, TypeError)


def untyped_errors(store: Store, call: Callable[[Store, Any], Any]) -> list[Exception]:
    found: list[Exception] = []
    for number in (2**63, 2**70, -(2**70), object(), "x", 1.5):
        try:
            call(store, number)
        except TYPED:
            continue
        except Exception as error:  # noqa: BLE001  # what is looked for
            found.append(error)
    return found


@pytest.mark.parametrize("call", NUMBERS.values(), ids=NUMBERS)
def test_a_number_that_can_name_nothing_is_a_typed_error(
    store: Store, call: Callable[[Store, Any], Any]
) -> None:
    entry = store.put("k", 1)
    assert untyped_errors(store, call) == []
    assert store.list() == [entry]


@pytest.mark.parametrize("call", UNCHECKED.values(), ids=UNCHECKED)
def test_a_number_that_no_database_holds_is_a_typed_error(
    store: Store, call: Callable[[Store, Any], Any]
) -> None:
    entry = store.put("k", 1)
    assert untyped_errors(store, call) == []
    assert store.list() == [entry]


def test_stats_tell_sizes_and_numbers(store: Store, clock: ManualClock) -> None:
    empty = store.admin.stats()
    assert (empty["revision"], empty["committed_at"], empty["commits"]) == (0, None, 0)
    store.put_many({"a": 1, "b": 1})
    store.delete("a")
    stats = store.admin.stats()
    assert {name: stats[name] for name in ("revision", "commits", "entries", "keys", "floor")} == {
        "revision": 2,
        "commits": 2,
        "entries": 3,
        "keys": 2,
        "floor": 0,
    }
    assert datetime.fromisoformat(stats["committed_at"]) == clock()
    assert (stats["conflicts"], stats["open_conflicts"]) == (0, 0)
    assert stats["durability"] == "relaxed"
    assert stats["store_id"] == empty["store_id"]


def test_the_store_id_belongs_to_the_store(make_store: StoreMaker, store: Store) -> None:
    assert make_store().admin.stats()["store_id"] == store.admin.stats()["store_id"]
    assert make_store("other").admin.stats()["store_id"] != store.admin.stats()["store_id"]


def test_verify_reads_everything_and_tells_how_far_it_is(store: Store) -> None:
    store.put_many({"a": 1, "b": 1})
    for _ in range(1_200):
        store.increment("n")
    told: list[tuple[int, int]] = []
    report = store.admin.verify(progress=lambda done, of: told.append((done, of)))
    assert report.ok
    assert (report.revision, report.commits, report.entries) == (1_201, 1_201, 1_202)
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (1_201, 1_201)
