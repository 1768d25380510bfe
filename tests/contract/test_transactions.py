"""Transactions: one snapshot to read, own writes on top, all or nothing at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agentmem import (
    ClosedError,
    ConflictError,
    InvalidValueError,
    KeyMissingError,
    LimitExceededError,
    Limits,
    Store,
    Transaction,
)
from tests.contract.conftest import ManualClock, StoreMaker


def test_a_transaction_commits_everything_at_once(make_store: StoreMaker, store: Store) -> None:
    other = make_store()
    with store.transaction(agent="ann", note="why", metadata={"run": 7}) as tx:
        tx["seats"] = 5
        tx.put("plan", {"days": 3}, namespace="team")
        tx.increment("edits", namespace="stats")
        assert other.list() == []
        assert other.revision == 0
    assert {entry.key: (entry.value, entry.revision) for entry in other.list()} == {
        "seats": (5, 1),
        "plan": ({"days": 3}, 1),
        "edits": (1, 1),
    }
    (commit,) = other.log()
    assert (commit.agent, commit.note, commit.metadata) == ("ann", "why", {"run": 7})


def test_commit_returns_what_was_committed(store: Store, clock: ManualClock) -> None:
    store.put("a", 1)
    tx = store.transaction(agent="ann", op_id="op")
    tx["a"] = 2
    tx.delete("b")
    tx.put("c", 3, namespace="n")
    commit = tx.commit()
    assert commit == store.log(limit=1)[0]
    assert (commit.revision, commit.base_revision, commit.committed_at) == (2, 1, clock())
    assert [(change.key, change.version, change.base_version) for change in commit.changes] == [
        ("a", 2, 1),
        ("c", 1, 0),
    ]
    assert (commit.merged, commit.accepted, commit.replayed) == ((), (), False)


def test_an_exception_in_the_block_writes_nothing(store: Store) -> None:
    def work() -> None:
        with store.transaction() as tx:
            tx["k"] = 1
            raise RuntimeError("model gave up")

    with pytest.raises(RuntimeError, match="model gave up"):
        work()
    assert store.revision == 0
    assert store.list() == []


def test_a_transaction_is_live_from_its_creation(store: Store) -> None:
    tx = store.transaction()
    tx["k"] = 1
    assert tx.commit().revision == 1
    assert store["k"] == 1


def test_rollback_writes_nothing_and_may_be_repeated(store: Store) -> None:
    tx = store.transaction()
    tx["k"] = 1
    tx.rollback()
    tx.rollback()
    assert store.list() == []


def test_a_block_may_commit_or_roll_back_itself(store: Store) -> None:
    with store.transaction() as tx:
        tx["a"] = 1
        tx.commit()
    with store.transaction() as tx:
        tx["b"] = 1
        tx.rollback()
    assert [entry.key for entry in store.list()] == ["a"]


USES: list[Callable[[Transaction], Any]] = [
    lambda tx: tx.get("k"),
    lambda tx: tx["k"],
    lambda tx: "k" in tx,
    lambda tx: tx.get_many(["k"]),
    lambda tx: tx.list(),
    lambda tx: tx.count(where={}),
    lambda tx: tx.put("k", 1),
    lambda tx: tx.__setitem__("k", 1),
    lambda tx: tx.put_many({"k": 1}),
    lambda tx: tx.add(1),
    lambda tx: tx.delete("k"),
    lambda tx: tx.clear(),
    lambda tx: tx.increment("k"),
    lambda tx: tx.append("k", 1),
    lambda tx: tx.add_to_set("k", 1),
    lambda tx: tx.patch("k", {}),
    lambda tx: tx.touch("k", 1),
    lambda tx: tx.stale(),
    lambda tx: tx.rebase([]),
    lambda tx: tx.commit(),
    lambda tx: tx.__enter__(),
]


@pytest.mark.parametrize("end", [Transaction.commit, Transaction.rollback])
def test_every_call_after_the_end_is_refused(
    store: Store, end: Callable[[Transaction], Any]
) -> None:
    store.put("k", 1)
    tx = store.transaction()
    end(tx)
    for use in USES:
        with pytest.raises(ClosedError, match="has ended"):
            use(tx)


@pytest.mark.parametrize("use", [Transaction.count, Transaction.namespaces])
def test_counting_after_the_end_is_refused(store: Store, use: Callable[[Transaction], Any]) -> None:
    tx = store.transaction()
    tx.rollback()
    with pytest.raises(ClosedError, match="has ended"):
        use(tx)


def test_reads_are_of_one_revision(make_store: StoreMaker, store: Store) -> None:
    store.put_many({"a": 1, "b": 1})
    tx = store.transaction()
    make_store().put_many({"a": 2, "b": 2, "c": 2})
    assert tx.revision == 1
    assert (tx["a"], tx["b"], tx.get("c")) == (1, 1, None)
    assert [entry.value for entry in tx.list()] == [1, 1]


def test_own_writes_are_read_as_pending_entries(store: Store) -> None:
    store.put("a", 1)
    with store.transaction(agent="ann", op_id="op") as tx:
        tx.put("a", [2], text="two")
        entry = tx.get("a")
        assert entry is not None
        assert entry.pending
        assert (entry.value, entry.text, entry.agent, entry.op_id) == ([2], "two", "ann", "op")
        assert (entry.version, entry.revision, entry.committed_at) == (None, None, None)
        entry.value.append(3)
        assert tx["a"] == [2]


def test_lists_in_a_transaction_show_its_writes(store: Store) -> None:
    store.put_many({"a": {"n": 1}, "b": {"n": 1}, "d": {"n": 2}})
    tx = store.transaction()
    tx.put("a", {"n": 2})
    tx.delete("b")
    tx.put("c", {"n": 1})
    tx.patch("d", {"m": 5})
    found = [(entry.key, entry.value, entry.pending) for entry in tx.list()]
    assert found == [
        ("a", {"n": 2}, True),
        ("c", {"n": 1}, True),
        ("d", {"n": 2, "m": 5}, True),
    ]
    assert [entry.key for entry in tx.list(where={"n": 2})] == ["a", "d"]
    assert tx.count(where={"n": 1}) == 1
    assert [entry.key for entry in tx.list(limit=2)] == ["a", "c"]
    assert [entry.key for entry in tx.list(after="a", limit=1)] == ["c"]
    assert [entry.key for entry in tx.list(key_prefix="d")] == ["d"]
    assert set(tx.get_many(["a", "b", "c"])) == {"a", "c"}
    assert "b" not in tx


def test_counts_in_a_transaction_show_its_writes(store: Store) -> None:
    store.put("a", 1, namespace="n")
    tx = store.transaction()
    tx.put("b", 1, namespace="m")
    tx.delete("a", namespace="n")
    assert tx.namespaces() == [("m",)]
    assert tx.count() == 1
    assert tx.count("n") == 0


def test_a_page_of_own_and_committed_entries_is_in_order(store: Store) -> None:
    store.put_many({f"k{number:02}": number for number in range(0, 40, 2)})
    tx = store.transaction()
    for number in range(1, 40, 2):
        tx.put(f"k{number:02}", number)
    tx.delete("k10")
    expected = [number for number in range(40) if number != 10]
    assert [entry.value for entry in tx.list()] == expected
    assert [entry.value for entry in tx.list(after="k05", limit=7)] == expected[6:13]


def test_atomic_operations_build_on_what_the_transaction_sees(store: Store) -> None:
    store.put_many({"n": 40, "l": ["a"], "s": [1], "p": {"x": 1}})
    tx = store.transaction()
    tx.increment("n")
    tx.increment("n")
    tx.append("l", "b")
    tx.add_to_set("s", 1, 2)
    tx.patch("p", {"y": 2, "x": None})
    assert [tx[key] for key in "nlsp"] == [42, ["a", "b"], [1, 2], {"y": 2}]
    tx.commit()
    assert [store[key] for key in "nlsp"] == [42, ["a", "b"], [1, 2], {"y": 2}]


def test_several_writes_to_one_key_fold_in_their_order(store: Store) -> None:
    store.put_many({"gone": 1, "back": 7})
    with store.transaction() as tx:
        tx["k"] = 1
        tx.increment("k", 4)
        tx.put("list", [1])
        tx.append("list", 2)
        tx.increment("n")
        tx["n"] = 9
        tx.put("gone", 2)
        tx.delete("gone")
        tx.delete("back")
        tx.increment("back")
        assert (tx["k"], tx["list"], tx["n"], tx["back"]) == (5, [1, 2], 9, 1)
        assert "gone" not in tx
    assert {entry.key: entry.value for entry in store.list()} == {
        "k": 5,
        "list": [1, 2],
        "n": 9,
        "back": 1,
    }
    assert store.history("back")[0].version == 2


def test_a_refused_write_leaves_the_transaction_as_it_was(store: Store) -> None:
    tx = store.transaction()
    tx["k"] = "text"
    with pytest.raises(InvalidValueError, match="increment needs a number"):
        tx.increment("k")
    with pytest.raises(InvalidValueError):
        tx.put("k", {1: 2})
    with pytest.raises(InvalidValueError):
        tx.put("other", float("nan"))
    assert [entry.value for entry in tx.list()] == ["text"]
    tx.commit()
    assert [entry.value for entry in store.list()] == ["text"]


def test_an_operation_that_cannot_apply_fails_the_commit_as_a_whole(store: Store) -> None:
    tx = store.transaction()
    tx["other"] = 1
    tx.increment("n")
    store.put("n", "no number")
    with pytest.raises(InvalidValueError, match="'n' holds str"):
        tx.commit()
    assert [entry.key for entry in store.list()] == ["n"]
    tx.rollback()


def test_put_many_and_add_in_a_transaction(store: Store) -> None:
    with store.transaction() as tx:
        tx.put_many([("a", 1), ("b", 2)], namespace="n")
        first, second = tx.add("x", namespace="log"), tx.add("y", namespace="log")
        assert tx.get(first, namespace="log") is not None
    assert [entry.key for entry in store.list("log")] == [first, second]
    assert [entry.value for entry in store.list("n")] == [1, 2]
    assert store.revision == 1


def test_clear_in_a_transaction_deletes_what_it_sees(store: Store) -> None:
    store.put_many({"a": 1, "b": 1}, namespace="n/m")
    with store.transaction() as tx:
        tx.put("c", 1, namespace="n")
        tx.clear("n")
        assert tx.list() == []
        tx.put("d", 1, namespace="n")
    assert [entry.key for entry in store.list()] == ["d"]


def test_writes_in_a_transaction_return_nothing(store: Store) -> None:
    tx = store.transaction()
    calls = (
        tx.put("k", 1),  # type: ignore[func-returns-value]  # the point of the test
        tx.delete("k"),  # type: ignore[func-returns-value]  # the point of the test
        tx.increment("n"),  # type: ignore[func-returns-value]  # the point of the test
    )
    assert calls == (None, None, None)


def test_missing_keys_are_named(store: Store) -> None:
    tx = store.transaction()
    with pytest.raises(KeyMissingError, match="'k' is absent"):
        tx["k"]
    with pytest.raises(KeyMissingError, match="'k' is absent"):
        tx.touch("k", 60)


def test_a_transaction_may_be_used_from_several_threads(store: Store) -> None:
    store.put("seen", 1)
    tx = store.transaction()
    start = threading.Barrier(8)

    def work(worker: int) -> None:
        start.wait()
        for number in range(25):
            tx.put(f"{worker}-{number}", number)
            tx.increment("total")
            assert tx["seen"] == 1

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tx["total"] == 200
    tx.commit()
    assert store.count() == 202
    assert store["total"] == 200
    assert store.revision == 2


def test_the_number_of_writes_is_limited(make_store: StoreMaker) -> None:
    store = make_store(limits=Limits(max_writes=3))
    tx = store.transaction()
    for key in "abc":
        tx.put(key, 1)
    tx.put("a", 2)
    with pytest.raises(LimitExceededError, match="at most 3") as caught:
        tx.put("d", 1)
    assert (caught.value.limit, caught.value.actual) == (3, 4)
    tx.commit()
    with pytest.raises(LimitExceededError):
        store.put_many(dict.fromkeys("wxyz", 1))
    assert store.count() == 3


def test_isolation_is_one_of_two(store: Store) -> None:
    with pytest.raises(InvalidValueError, match="'serializable' or 'snapshot'"):
        store.transaction(isolation="none")  # type: ignore[arg-type]  # the point of the test


def test_a_transaction_says_what_it_is(store: Store) -> None:
    tx = store.transaction()
    tx["k"] = 1
    assert repr(tx) == "Transaction(live, revision=0, writes=1)"
    tx.commit()
    assert repr(tx).startswith("Transaction(committed")


def test_a_transaction_is_live_after_a_conflict_and_may_be_rolled_back(store: Store) -> None:
    tx = store.transaction()
    tx["k"] = 1
    store.put("k", 2)
    with pytest.raises(ConflictError):
        tx.commit()
    assert tx["k"] == 1
    tx.rollback()
    with pytest.raises(ClosedError):
        tx.commit()


def test_a_block_that_ends_in_conflict_is_rolled_back(store: Store) -> None:
    def work() -> None:
        with store.transaction() as tx:
            tx["k"] = 1
            store.put("k", 2)

    with pytest.raises(ConflictError):
        work()
    assert store["k"] == 2
