"""Interleavings drawn by hand: what serializable prevents, and what it must not abort."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

import agentmem
from agentmem import ConflictError, Store, Transaction

Isolation = Literal["serializable", "snapshot"]
Ask = Callable[[Transaction], object]


@pytest.fixture
def store(target: str) -> Iterator[Store]:
    with agentmem.open(target, durability="relaxed") as store:
        yield store


@pytest.fixture
def other(store: Store, target: str) -> Iterator[Store]:
    """Another connection: what others do."""
    with agentmem.open(target, durability="relaxed") as other:
        yield other


# Write skew.


def go_off_call(tx: Transaction, doctor: str) -> None:
    on_call = [name for name in ("alice", "bob") if tx[name] == "on call"]
    if len(on_call) > 1:
        tx[doctor] = "off call"


def both_go_off_call(store: Store, other: Store, isolation: Isolation) -> None:
    """::

    alice's transaction              bob's transaction
    reads alice, bob: both on call   reads alice, bob: both on call
    writes alice: off call
    commits
                                     writes bob: off call
                                     commits
    """
    store.put_many({"alice": "on call", "bob": "on call"})
    one = store.transaction(isolation=isolation)
    two = other.transaction(isolation=isolation)
    go_off_call(one, "alice")
    go_off_call(two, "bob")
    one.commit()
    two.commit()


def doctors_on_call(store: Store) -> list[str]:
    return [entry.key for entry in store.list() if entry.value == "on call"]


def test_write_skew_is_prevented_under_serializable(store: Store, other: Store) -> None:
    with pytest.raises(ConflictError) as caught:
        both_go_off_call(store, other, "serializable")
    assert [(each.key, each.kind) for each in caught.value.conflicts] == [("alice", "read")]
    assert doctors_on_call(store) == ["bob"]


def test_write_skew_is_possible_under_snapshot(store: Store, other: Store) -> None:
    both_go_off_call(store, other, "snapshot")
    assert doctors_on_call(store) == []


def test_a_transact_that_lost_the_race_runs_again_and_sees_the_winner(
    store: Store, other: Store
) -> None:
    store.put_many({"alice": "on call", "bob": "on call"})
    runs: list[str] = []

    def leave(tx: Transaction) -> None:
        runs.append("bob")
        go_off_call(tx, "bob")
        if len(runs) == 1:
            other.transact(lambda rival: go_off_call(rival, "alice"))

    store.transact(leave)
    assert len(runs) == 2
    assert doctors_on_call(other) == ["bob"]


def test_a_stale_write_conflicts_under_snapshot_too(store: Store, other: Store) -> None:
    store.put("k", 1)
    tx = store.transaction(isolation="snapshot")
    tx["k"] = tx["k"] + 1
    other.put("k", 10)
    with pytest.raises(ConflictError):
        tx.commit()
    assert other["k"] == 10


# Phantoms.

PRESENT = {"a1": {"open": True}, "a2": {"open": True}, "b1": {"open": False}}
OPEN = {"open": True}
PHANTOMS: dict[str, tuple[Ask, Callable[[Store], object]]] = {
    "list, a new key": (
        lambda tx: tx.list("tasks"),
        lambda other: other.put("a3", {}, namespace="tasks"),
    ),
    "list, a key gone": (
        lambda tx: tx.list("tasks"),
        lambda other: other.delete("a1", namespace="tasks"),
    ),
    "list, a key changed": (
        lambda tx: tx.list("tasks"),
        lambda other: other.put("a1", {}, namespace="tasks"),
    ),
    "list, a new key below": (
        lambda tx: tx.list("tasks"),
        lambda other: other.put("k", 1, namespace="tasks/sub"),
    ),
    "count": (lambda tx: tx.count("tasks"), lambda other: other.put("a3", {}, namespace="tasks")),
    "count where": (
        lambda tx: tx.count("tasks", where=OPEN),
        lambda other: other.put("b1", {"open": True}, namespace="tasks"),
    ),
    "list where, comes to match": (
        lambda tx: tx.list("tasks", where=OPEN),
        lambda other: other.put("b1", {"open": True}, namespace="tasks"),
    ),
    "list where, matches no more": (
        lambda tx: tx.list("tasks", where=OPEN),
        lambda other: other.put("a2", {"open": False}, namespace="tasks"),
    ),
    "prefix": (
        lambda tx: tx.list("tasks", key_prefix="a"),
        lambda other: other.put("a3", {}, namespace="tasks"),
    ),
    "limit, comes in before its end": (
        lambda tx: tx.list("tasks", limit=2),
        lambda other: other.put("a11", {}, namespace="tasks"),
    ),
    "limit not reached, comes in at the end": (
        lambda tx: tx.list("tasks", limit=4),
        lambda other: other.put("z", {}, namespace="tasks"),
    ),
    "after": (
        lambda tx: tx.list("tasks", after=("tasks", "a2")),
        lambda other: other.put("z", {}, namespace="tasks"),
    ),
    "namespaces": (
        lambda tx: tx.namespaces(),
        lambda other: other.put("k", 1, namespace="new"),
    ),
    "namespaces, one emptied": (
        lambda tx: tx.namespaces(),
        lambda other: other.delete("k", namespace="lonely"),
    ),
    "an absent key": (lambda tx: tx.get("nobody"), lambda other: other.put("nobody", 1)),
    "a membership": (lambda tx: "nobody" in tx, lambda other: other.put("nobody", 1)),
    "many keys": (
        lambda tx: tx.get_many(["nobody", "noone"]),
        lambda other: other.put("noone", 1),
    ),
}


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_phantom_aborts_the_transaction_that_had_not_seen_it(
    store: Store, other: Store, name: str
) -> None:
    ask, change = PHANTOMS[name]
    store.put_many(PRESENT, namespace="tasks")
    store.put("k", 1, namespace="lonely")
    tx = store.transaction()
    before = ask(tx)
    change(other)
    assert ask(tx) == before, "what a transaction sees does not change"
    tx["report"] = "written from what was seen"
    with pytest.raises(ConflictError):
        tx.commit()
    assert other.get("report") is None


@pytest.mark.parametrize("name", PHANTOMS)
def test_a_phantom_does_not_abort_under_snapshot(store: Store, other: Store, name: str) -> None:
    ask, change = PHANTOMS[name]
    store.put_many(PRESENT, namespace="tasks")
    store.put("k", 1, namespace="lonely")
    tx = store.transaction(isolation="snapshot")
    ask(tx)
    change(other)
    tx["report"] = "written from what was seen"
    tx.commit()
    assert other["report"] == "written from what was seen"


@pytest.mark.parametrize("name", [name for name in PHANTOMS if name != "a membership"])
def test_an_unchecked_read_aborts_nothing(store: Store, other: Store, name: str) -> None:
    # All but `in`, which takes no track=False.
    ask, change = PHANTOMS[name]
    store.put_many(PRESENT, namespace="tasks")
    store.put("k", 1, namespace="lonely")
    tx = store.transaction()
    ask(_Untracked(tx))  # type: ignore[arg-type]  # passes every call on
    change(other)
    tx["report"] = 1
    tx.commit()


class _Untracked:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tx, name)
        return lambda *args, **named: method(*args, track=False, **named)


# What does not matter aborts nothing.

HARMLESS: dict[str, tuple[Ask, Callable[[Store, int], object]]] = {
    "beyond the end of a limit": (
        lambda tx: tx.list("tasks", limit=2),
        lambda other, n: other.put(f"z{n}", n, namespace="tasks"),
    ),
    "before the beginning": (
        lambda tx: tx.list("tasks", after=("tasks", "a2")),
        lambda other, n: other.put("a1", n, namespace="tasks"),
    ),
    "no match before and after": (
        lambda tx: tx.list("tasks", where=OPEN),
        lambda other, n: other.put("b1", {"open": n}, namespace="tasks"),
    ),
    "a new key that does not match": (
        lambda tx: tx.list("tasks", where=OPEN, limit=1),
        lambda other, n: other.put(f"a0{n}", {"open": False}, namespace="tasks"),
    ),
    "another prefix": (
        lambda tx: tx.list("tasks", key_prefix="a"),
        lambda other, n: other.put(f"b{n}", n, namespace="tasks"),
    ),
    "another namespace": (
        lambda tx: tx.list("tasks"),
        lambda other, n: other.put("k", n, namespace="tasks2"),
    ),
    "a key of the root": (lambda tx: tx.list("tasks"), lambda other, n: other.put("tasks", n)),
    "another value under a count": (
        lambda tx: tx.count("tasks"),
        lambda other, n: other.put("a1", n, namespace="tasks"),
    ),
    "another value under the list of namespaces": (
        lambda tx: tx.namespaces(),
        lambda other, n: other.put("a1", n, namespace="tasks"),
    ),
    "another key": (lambda tx: tx.get("k"), lambda other, n: other.put(f"k{n}", n)),
    "a key that comes and goes": (
        lambda tx: (tx.list("tasks"), tx.get("guest", namespace="tasks")),
        lambda other, n: (
            other.put("guest", n, namespace="tasks"),
            other.delete("guest", namespace="tasks"),
        ),
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_hundred_writes_that_do_not_alter_an_answer_abort_nothing(
    store: Store, other: Store, name: str
) -> None:
    ask, change = HARMLESS[name]
    store.put_many(PRESENT, namespace="tasks")
    tx = store.transaction()
    ask(tx)
    for number in range(100):
        change(other, number)
    tx["report"] = "still right"
    assert tx.commit().revision == other.revision
    assert other["report"] == "still right"


def test_read_only_transactions_never_fail(store: Store, other: Store) -> None:
    store.put_many(PRESENT, namespace="tasks")
    store.put("k", 1, namespace="lonely")
    for name, (ask, change) in PHANTOMS.items():
        tx = store.transaction()
        ask(tx)
        change(other)
        ask(tx)
        assert tx.commit().revision is None, name


def test_an_atomic_operation_reads_nothing_and_never_conflicts(store: Store, other: Store) -> None:
    tx = store.transaction()
    tx.increment("n")
    tx.append("list", "mine")
    other.increment("n", 10)
    other.append("list", "theirs")
    tx.commit()
    assert (other["n"], other["list"]) == (11, ["theirs", "mine"])


def test_a_read_beside_an_atomic_operation_is_validated(store: Store, other: Store) -> None:
    tx = store.transaction()
    if tx.get("n") is None:
        tx.increment("n")
    other.increment("n", 10)
    with pytest.raises(ConflictError):
        tx.commit()
    assert other["n"] == 10
