"""transact and update: run again until they commit, and give the result as JSON."""

from __future__ import annotations

from typing import Any

import pytest

import agentmem
from agentmem import (
    ClosedError,
    ConflictError,
    InvalidValueError,
    Store,
    Transaction,
    TransientError,
)
from tests.contract.conftest import StoreMaker


@pytest.fixture
def other(make_store: StoreMaker) -> Store:
    return make_store()


def test_transact_commits_and_returns_the_result(store: Store) -> None:
    store.put("seats", 3)

    def book(tx: Transaction) -> int:
        tx["seats"] -= 1
        left: int = tx["seats"]
        return left

    assert store.transact(book, agent="ann", note="why", metadata={"a": 1}) == 2
    assert store["seats"] == 2
    (commit, _first) = store.log()
    assert (commit.agent, commit.note, commit.metadata) == ("ann", "why", {"a": 1})


@pytest.mark.parametrize("op_id", [None, "op"])
def test_the_result_is_json_at_the_first_call_as_at_a_repeat(
    store: Store, op_id: str | None
) -> None:
    def work(tx: Transaction) -> Any:
        tx["k"] = 1
        return {"seats": (1, 2), "none": None}

    first = store.transact(work, op_id=op_id)
    assert first == {"seats": [1, 2], "none": None}
    assert store.transact(work, op_id=op_id) == first


def test_a_result_that_is_no_json_is_refused_and_nothing_written(store: Store) -> None:
    def work(tx: Transaction) -> object:
        tx["k"] = 1
        return object()

    with pytest.raises(InvalidValueError, match="result of transact"):
        store.transact(work)
    assert store.revision == 0


def test_the_function_runs_again_after_a_conflict(store: Store, other: Store) -> None:
    store.put("k", 0)
    seen: list[int] = []

    def work(tx: Transaction) -> int:
        seen.append(tx["k"])
        if len(seen) < 4:
            other.increment("k", 10)
        tx["k"] = tx["k"] + 1
        return len(seen)

    assert store.transact(work) == 4
    assert seen == [0, 10, 20, 30]
    assert store["k"] == 31


def test_attempts_end_in_a_conflict(store: Store, other: Store) -> None:
    store.put("k", 0)
    runs: list[Transaction] = []

    def work(tx: Transaction) -> None:
        runs.append(tx)
        tx["k"] = tx["k"] + 1
        other.increment("k")

    with pytest.raises(ConflictError, match="after 3 attempts") as caught:
        store.transact(work, attempts=3)
    assert isinstance(caught.value, TransientError)
    assert [conflict.key for conflict in caught.value.conflicts] == ["k"]
    assert len(runs) == 3
    assert store["k"] == 3
    with pytest.raises(ClosedError):
        runs[-1].get("k")


def test_after_the_deadline_no_attempt_begins(store: Store, other: Store) -> None:
    store.put("k", 0)
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        runs.append(1)
        tx["k"] = tx["k"] + 1
        other.increment("k")

    with pytest.raises(ConflictError, match="after 1 attempts"):
        store.transact(work, deadline_s=0)
    assert len(runs) == 1


@pytest.mark.parametrize("attempts", [0, -1, True, 1.5])
def test_attempts_are_a_positive_number(store: Store, attempts: Any) -> None:
    with pytest.raises(InvalidValueError, match="attempts"):
        store.transact(lambda tx: None, attempts=attempts)


def test_a_function_that_raises_writes_nothing_and_stores_nothing(store: Store) -> None:
    calls: list[int] = []

    def work(tx: Transaction) -> int:
        calls.append(1)
        tx["k"] = 1
        if len(calls) == 1:
            raise RuntimeError("model gave up")
        return 7

    with pytest.raises(RuntimeError, match="model gave up"):
        store.transact(work, op_id="op")
    assert store.revision == 0
    assert store.transact(work, op_id="op") == 7
    assert len(calls) == 2


def test_a_conflict_raised_by_the_function_is_a_conflict(store: Store) -> None:
    store.put("k", 1)
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        runs.append(1)
        if len(runs) < 3:
            store.put("k", 2, expected_version=5)
        tx["done"] = True

    store.transact(work)
    assert len(runs) == 3
    assert store["done"] is True


def test_transact_does_not_merge_unless_told(store: Store, other: Store) -> None:
    store.set_merge("n", "counter")
    store.put("n", 0)
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        runs.append(1)
        # The base of a put is the version at the revision, read or not.
        tx["n"] = 1
        if len(runs) in (1, 3):
            other.increment("n", 10)

    store.transact(work)
    assert len(runs) == 2
    assert store["n"] == 1
    store.transact(work, merge=True)
    assert len(runs) == 3
    assert store["n"] == 11  # theirs + ours - base = 11 + 1 - 1
    assert store.log(limit=1)[0].merged == (((), "n"),)


def test_isolation_is_passed_on(store: Store, other: Store) -> None:
    store.put("k", 0)
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        runs.append(tx["k"])
        other.increment("k")
        tx.put(f"run{len(runs)}", 1)

    store.transact(work, isolation="snapshot")
    assert runs == [0]


def test_update_is_run_again_on_the_new_value(store: Store, other: Store) -> None:
    store.put("k", 0)
    seen: list[int] = []

    def change(value: int) -> int:
        seen.append(value)
        if len(seen) < 4:
            other.increment("k", 10)
        return value + 1

    entry = store.update("k", change)
    assert entry is not None
    assert (entry.value, seen) == (31, [0, 10, 20, 30])
    assert entry.version == 5


def test_update_may_find_the_key_deleted_or_created_meanwhile(store: Store, other: Store) -> None:
    store.put("k", 1)
    seen: list[Any] = []

    def change(value: Any) -> Any:
        seen.append(value)
        if len(seen) == 1:
            other.delete("k")
        if len(seen) == 2:
            other.put("k", 7)
        return value + 1

    store.update("k", change, default=100)
    assert seen == [1, 100, 7]
    assert store["k"] == 8


def test_update_may_delete(store: Store) -> None:
    store.put("k", 1)
    tombstone = store.update("k", lambda value: agentmem.DELETE)
    assert tombstone is not None
    assert tombstone.deleted
    assert "k" not in store
    assert store.update("k", lambda value: agentmem.DELETE, default=0) is None
    assert store.revision == 2


def test_update_does_not_share_the_default_or_the_value(store: Store) -> None:
    default: list[int] = []

    def change(value: list[int]) -> list[int]:
        value.append(1)
        return value

    assert store.update("a", change, default=default) is not None
    assert default == []
    store.update("b", change, default=default)
    assert (store["a"], store["b"]) == ([1], [1])


def test_an_update_that_raises_writes_nothing(store: Store) -> None:
    store.put("k", 1)
    with pytest.raises(ZeroDivisionError):
        store.update("k", lambda value: value / 0)
    with pytest.raises(InvalidValueError):
        store.update("k", lambda value: object())
    assert store.revision == 1


def test_update_never_merges(store: Store, other: Store) -> None:
    store.set_merge("k", "ours")
    store.put("k", 0)
    seen: list[int] = []

    def change(value: int) -> int:
        seen.append(value)
        if len(seen) == 1:
            other.put("k", 10)
        return value + 1

    store.update("k", change)
    assert store["k"] == 11


def test_code_of_the_user_may_write_to_the_store(store: Store) -> None:
    def change(value: int) -> int:
        store.increment("calls")
        return value + 1

    def work(tx: Transaction) -> None:
        tx["done"] = store.update("k", change, default=0) is not None

    store.transact(work)
    assert (store["k"], store["calls"], store["done"]) == (1, 1, True)
