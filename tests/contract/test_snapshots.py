"""Snapshots: pinned at a revision, a tag or a time, exact for as long as they are held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agentmem import (
    ClosedError,
    FutureRevisionError,
    InvalidValueError,
    RevisionError,
    Snapshot,
    Store,
)
from tests.contract.conftest import ManualClock, StoreMaker


def contents(view: Any) -> dict[str, Any]:
    return {"/".join((*entry.namespace, entry.key)): entry.value for entry in view.list()}


def test_a_snapshot_does_not_see_later_commits(make_store: StoreMaker, store: Store) -> None:
    store.put("a", 1, namespace="n")
    store.put("b", 1, namespace="n")
    snapshot = store.snapshot()
    make_store().put("a", 2, namespace="n")
    store.delete("b", namespace="n")
    store.put("c", 1, namespace="m")
    assert snapshot.revision == 2
    assert contents(snapshot) == {"n/a": 1, "n/b": 1}
    assert snapshot.count() == 2
    assert snapshot.namespaces() == [("n",)]
    assert set(snapshot.get_many(["a", "b", "c"], namespace="n")) == {"a", "b"}
    assert snapshot.get("c", namespace="m") is None
    assert contents(store) == {"n/a": 2, "m/c": 1}


def test_every_revision_reads_exactly_as_it_was(make_store: StoreMaker, store: Store) -> None:
    expected: list[dict[str, Any]] = [{}]
    for number in range(40):
        key = f"k{number % 7}"
        if number % 5 == 4:
            store.delete(key)
        else:
            store.put(key, number)
        if store.revision == len(expected):
            expected.append(contents(store))
    other = make_store()
    for revision, state in enumerate(expected):
        snapshot = other.snapshot(at=revision)
        assert contents(snapshot) == state
        assert snapshot.count() == len(state)
        assert {key: snapshot[key] for key in state} == state
        assert all(snapshot.get(f"k{n}") is None for n in range(7) if f"k{n}" not in state)


def test_revision_zero_is_the_empty_store(store: Store) -> None:
    held = store.snapshot()
    store.put("k", 1)
    for snapshot in (held, store.snapshot(at=0)):
        assert snapshot.revision == 0
        assert snapshot.list() == []
        assert "k" not in snapshot


def test_a_snapshot_shows_the_version_of_its_time(store: Store) -> None:
    first = store.put("k", 1)
    store.put("k", 2)
    store.delete("k")
    store.put("k", 4)
    assert store.snapshot(at=1).get("k") == first
    assert [store.snapshot(at=n).get("k") is None for n in range(5)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_tag_names_a_revision(make_store: StoreMaker, store: Store) -> None:
    store.put("k", 1)
    tag = store.audit.tag("release/1 é", agent="ann", note="first")
    assert (tag.name, tag.revision, tag.agent, tag.note) == ("release/1 é", 1, "ann", "first")
    store.put("k", 2)
    held = make_store().snapshot(at="release/1 é")
    assert held.revision == 1
    store.audit.tag("release/1 é", at=2)
    assert held["k"] == 1
    assert store.snapshot(at="release/1 é")["k"] == 2
    with pytest.raises(RevisionError, match="no tag 'other'"):
        store.snapshot(at="other")


def test_a_time_means_the_last_commit_at_or_before_it(store: Store, clock: ManualClock) -> None:
    began = clock()
    for number in range(5):
        store.put("k", number)
        clock.advance(10)
    for number in range(5):
        moment = began + timedelta(seconds=10 * number)
        assert store.snapshot(at=moment)["k"] == number
        assert store.snapshot(at=moment + timedelta(seconds=9.999))["k"] == number
        assert store.snapshot(at=moment + timedelta(seconds=9.999)).revision == number + 1
    assert store.snapshot(at=began - timedelta(microseconds=1)).revision == 0
    assert store.snapshot(at=datetime(1, 1, 1, tzinfo=UTC)).list() == []


def test_a_time_may_be_given_in_any_time_zone(store: Store, clock: ManualClock) -> None:
    store.put("k", 1)
    moment = clock().astimezone(timezone(timedelta(hours=-9)))
    clock.advance(10)
    store.put("k", 2)
    assert store.snapshot(at=moment)["k"] == 1


def test_of_commits_at_one_instant_a_time_means_the_last(store: Store, clock: ManualClock) -> None:
    store.put("k", 1)
    store.put("k", 2)
    assert store.snapshot(at=clock())["k"] == 2


def test_a_naive_time_is_refused(store: Store) -> None:
    with pytest.raises(InvalidValueError, match="no time zone"):
        store.snapshot(at=datetime(2026, 1, 1))  # noqa: DTZ001  # the point of the test


def test_the_future_is_refused(store: Store, clock: ManualClock) -> None:
    store.put("k", 1)
    with pytest.raises(FutureRevisionError, match="the latest is 1") as caught:
        store.snapshot(at=2)
    assert caught.value.current == 1
    with pytest.raises(FutureRevisionError):
        store.snapshot(at=2**80)
    with pytest.raises(FutureRevisionError, match="future"):
        store.snapshot(at=clock() + timedelta(microseconds=1))
    assert isinstance(caught.value, RevisionError)


def test_a_negative_revision_is_refused(store: Store) -> None:
    with pytest.raises(RevisionError, match="negative"):
        store.snapshot(at=-1)


@pytest.mark.parametrize("at", [True, 1.0, b"tag", ("n", "k")])
def test_what_names_no_moment_is_refused(store: Store, at: Any) -> None:
    store.put("k", 1)
    with pytest.raises(TypeError, match="a revision, a tag, an aware datetime"):
        store.snapshot(at=at)


def test_snapshots_cost_nothing_to_hold_and_outlive_many_commits(store: Store) -> None:
    held = []
    for number in range(200):
        store.put("k", number)
        held.append(store.snapshot())
    assert [snapshot["k"] for snapshot in held] == list(range(200))
    assert [snapshot.revision for snapshot in held] == list(range(1, 201))


def test_a_snapshot_may_be_used_as_a_block_and_after_it(store: Store) -> None:
    store.put("k", 1)
    with store.snapshot() as snapshot:
        assert snapshot["k"] == 1
    assert snapshot["k"] == 1
    assert repr(snapshot) == "Snapshot(revision=1)"
    assert isinstance(snapshot, Snapshot)


def test_a_snapshot_cannot_write(store: Store) -> None:
    snapshot = store.snapshot()
    for name in ("put", "delete", "increment", "update", "transaction", "touch", "clear"):
        assert not hasattr(snapshot, name)
    with pytest.raises(TypeError):
        snapshot["k"] = 1  # type: ignore[index]  # the point of the test


def test_a_snapshot_ends_with_its_store(make_store: StoreMaker) -> None:
    store = make_store()
    snapshot = store.snapshot()
    store.close()
    for call in (
        lambda: snapshot.get("k"),
        snapshot.list,
        snapshot.count,
        snapshot.namespaces,
        lambda: snapshot.get_many(["k"]),
    ):
        with pytest.raises(ClosedError):
            call()
