"""Every conflict is on record, with how it was resolved."""

from __future__ import annotations

from typing import Any

import pytest

from agentmem import BlindWriteWarning, ConflictError, InvalidValueError, Store, Transaction
from tests.contract.conftest import ManualClock, StoreMaker


@pytest.fixture
def other(make_store: StoreMaker) -> Store:
    return make_store()


def records(store: Store) -> list[tuple[Any, ...]]:
    return [
        (each.status, each.key, each.kind, each.base_version, each.theirs_version, each.revision)
        for each in store.audit.conflicts()
    ]


def test_a_rejected_put_is_on_record(store: Store, other: Store, clock: ManualClock) -> None:
    store.put("k", 1, namespace="n")
    store.put("k", 2, namespace="n")
    clock.advance(5)
    with pytest.raises(ConflictError):
        store.put("k", 3, namespace="n", expected_version=1, agent="ann", op_id="op")
    (record,) = other.audit.conflicts("rejected")
    assert (record.namespace, record.key, record.status, record.kind) == (
        ("n",),
        "k",
        "rejected",
        "write",
    )
    assert (record.base_version, record.theirs_version, record.revision) == (1, 2, None)
    assert (record.agent, record.op_id, record.detected_at) == ("ann", "op", clock())
    assert store.revision == 2


def test_every_stale_observation_of_a_rejected_commit_is_on_record(
    store: Store, other: Store
) -> None:
    store.put_many({"r": 1, "s": 1, "w": 1})
    tx = store.transaction()
    tx.get("r")
    tx.list(key_prefix="s")
    tx["w"] = 2
    other.put_many({"r": 2, "s": 2, "w": 2})
    with pytest.raises(ConflictError):
        tx.commit()
    assert records(store) == [
        ("rejected", "w", "write", 1, 2, None),
        ("rejected", "r", "read", 1, 2, None),
        ("rejected", "s", "scan", 1, 2, None),
    ]


def test_a_retried_conflict_is_on_record_with_the_commit_that_ended_it(
    store: Store, other: Store
) -> None:
    store.put("k", 0)
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        runs.append(1)
        tx["k"] = tx["k"] + 1
        if len(runs) < 3:
            other.increment("k")

    store.transact(work, agent="ann", op_id="op")
    assert records(store) == [
        ("retried", "k", "write", 1, 2, 4),
        ("retried", "k", "write", 2, 3, 4),
    ]
    assert {(each.agent, each.op_id) for each in store.audit.conflicts()} == {("ann", "op")}
    assert store.revision == 4


def test_a_conflict_of_the_last_attempt_is_rejected(store: Store, other: Store) -> None:
    store.put("k", 0)

    def work(tx: Transaction) -> None:
        tx["k"] = 1
        other.increment("k")

    with pytest.raises(ConflictError):
        store.transact(work, attempts=2)
    assert records(store) == [
        ("retried", "k", "write", 1, 2, None),
        ("rejected", "k", "write", 2, 3, None),
    ]


def test_a_retried_conflict_is_on_record_though_nothing_was_written_at_last(
    store: Store, other: Store
) -> None:
    store.put("k", 0)
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        runs.append(tx["k"])
        if len(runs) == 1:
            tx["k"] = 1
            other.increment("k")

    store.transact(work)
    assert [record[:5] for record in records(store)] == [("retried", "k", "write", 1, 2)]


def test_a_conflict_is_on_record_though_the_function_gave_up(store: Store, other: Store) -> None:
    store.put("k", 0)
    runs: list[int] = []

    def work(tx: Transaction) -> None:
        runs.append(1)
        if len(runs) == 2:
            raise RuntimeError("gave up")
        tx["k"] = 1
        other.increment("k")

    with pytest.raises(RuntimeError):
        store.transact(work)
    assert [record[1:5] for record in records(store)] == [("k", "write", 1, 2)]


def test_a_conflict_that_update_retried_is_on_record(store: Store, other: Store) -> None:
    store.put("k", 0)
    seen: list[int] = []

    def change(value: int) -> int:
        seen.append(value)
        if len(seen) == 1:
            other.increment("k")
        return value + 1

    store.update("k", change)
    assert records(store) == [("retried", "k", "write", 1, 2, 3)]


@pytest.mark.parametrize("resolver", ["hook", "stored"])
def test_a_merge_is_on_record_with_what_the_loser_wanted(
    store: Store, other: Store, resolver: str
) -> None:
    if resolver == "hook":
        store.merge_hook("n")(lambda conflict: conflict.theirs + conflict.ours)
    else:
        store.set_merge("n", "counter")
    store.put("n", 1)
    store.put("n", 10)
    store.put("n", 100, expected_version=1, agent="bob")
    (record,) = other.audit.conflicts("merged")
    assert (record.strategy, record.ours, record.agent) == (
        "<lambda>" if resolver == "hook" else "counter",
        100,
        "bob",
    )
    assert (record.base_version, record.theirs_version, record.revision) == (1, 2, 3)


@pytest.mark.parametrize(("strategy", "value"), [("theirs", "theirs"), ("ours", "ours")])
def test_the_loser_of_a_side_taken_stays_on_record(store: Store, strategy: str, value: str) -> None:
    store.set_merge("k", strategy)
    store.put("k", "base")
    store.put("k", "theirs")
    assert store.put("k", "ours", expected_version=1).value == value
    (record,) = store.audit.conflicts()
    assert (record.status, record.strategy, record.ours) == ("merged", strategy, "ours")
    assert [entry.value for entry in store.history("k")] == [value, "theirs", "base"]


def test_conflicts_are_listed_oldest_first_and_by_status(store: Store) -> None:
    store.set_merge("e", "escalate")
    store.set_merge("m", "ours")
    for key in ("e", "m", "r"):
        store.put(key, 1)
        store.put(key, 2)
    store.put("e", 3, expected_version=1)
    with pytest.raises(ConflictError):
        store.put("r", 3, expected_version=1)
    store.put("m", 3, expected_version=1)
    found = store.audit.conflicts()
    assert [(each.key, each.status) for each in found] == [
        ("e", "open"),
        ("r", "rejected"),
        ("m", "merged"),
    ]
    assert [each.id for each in found] == sorted(each.id for each in found)
    assert store.audit.conflicts("merged") == found[2:]
    assert store.audit.conflicts("repaired") == []
    with pytest.raises(InvalidValueError, match="status is one of"):
        store.audit.conflicts("lost")


def test_many_conflicts_are_listed_whole(store: Store) -> None:
    store.put("k", 1)
    for _ in range(620):
        with pytest.raises(ConflictError):
            store.put("k", 2, expected_version=0)
    assert len(store.audit.conflicts()) == 620
    assert store.admin.stats()["conflicts"] == 620


# --- blind writes ---


def test_a_blind_put_over_another_agents_version_warns(make_store: StoreMaker) -> None:
    ann, bob = make_store(agent="ann"), make_store(agent="bob")
    ann.put("k", 1, namespace="n")
    with pytest.warns(BlindWriteWarning, match=r"'n/k' version 1 by 'ann' was replaced"):
        entry = bob.put("k", 2, namespace="n")
    assert entry.version == 2
    bob.put("k", 3, namespace="n")
    with pytest.warns(BlindWriteWarning, match="by 'bob'"):
        ann.put_many({"k": 4, "new": 5}, namespace="n")
    with pytest.warns(BlindWriteWarning, match="by 'ann'"):
        bob.delete("k", namespace="n")
    ann.put("k", 6, namespace="n")


def test_what_is_not_blind_or_meant_does_not_warn(make_store: StoreMaker) -> None:
    ann, bob = make_store(agent="ann"), make_store(agent="bob")
    ann.put_many({"k": 1, "n": 1})
    bob.put("k", 2, expected_version=1)
    ann.put("k", 3, overwrite=True)
    bob.update("k", lambda value: value + 1)
    ann.increment("k")
    with bob.transaction() as tx:
        tx["k"] = 7
    ann.put_many({"k": 8}, overwrite=True)
    bob.delete("k", overwrite=True)


def test_blind_writes_may_be_allowed(make_store: StoreMaker) -> None:
    make_store(agent="ann").put("k", 1)
    assert make_store(agent="bob", blind_writes="allow").put("k", 2).version == 2


def test_blind_writes_may_be_forbidden(make_store: StoreMaker) -> None:
    make_store(agent="ann").put("k", 1)
    bob = make_store(agent="bob", blind_writes="forbid")
    for call in (
        lambda: bob.put("k", 2),
        lambda: bob.put_many({"j": 1, "k": 2}),
        lambda: bob.delete("k"),
    ):
        with pytest.raises(ConflictError, match="forbids blind writes"):
            call()
    assert [entry.key for entry in bob.list()] == ["k"]
    assert bob.put("k", 2, expected_version=1).version == 2
    assert bob.put("k", 3).version == 3
    assert bob.put("new", 1).version == 1
    assert {record[0] for record in records(bob)} == {"rejected"}


def test_blind_writes_is_one_of_three(make_store: StoreMaker) -> None:
    with pytest.raises(InvalidValueError, match="'warn', 'allow' or 'forbid'"):
        make_store(blind_writes="maybe")
