"""Repair instead of abort: stale, rebase, and transact with a judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentmem import (
    ClosedError,
    Conflict,
    ConflictError,
    InvalidValueError,
    Stale,
    Store,
    Transaction,
)
from tests.contract.conftest import StoreMaker


@pytest.fixture
def other(make_store: StoreMaker) -> Store:
    return make_store()


@pytest.fixture
def moved(store: Store, other: Store) -> Transaction:
    """Has read r, scanned s, and written w; all three moved since."""
    store.put_many({"r": 1, "w": 1, "fine": 1})
    store.put("s", 1, namespace="n")
    tx = store.transaction()
    assert (tx["r"], tx["fine"]) == (1, 1)
    tx.list("n")
    tx["w"] = "mine"
    other.put_many({"r": 2, "w": 2})
    other.put("new", 1, namespace="n")
    return tx


def test_stale_tells_what_moved_early_and_changes_nothing(store: Store, moved: Transaction) -> None:
    items = moved.stale()
    assert items == [
        Stale((), "r", 1, 2),
        Stale((), "w", 1, 2),
        Stale(("n",), "new", 0, 1),
    ]
    assert [tuple(item) for item in items] == [("r", 1, 2), ("w", 1, 2), ("new", 0, 1)]
    assert moved.stale() == items
    assert moved["r"] == 1
    assert store.audit.conflicts() == []


def test_nothing_is_stale_if_it_could_commit(store: Store, other: Store) -> None:
    store.put("k", 1)
    tx = store.transaction()
    tx["k"] += 1
    other.put("unrelated", 1)
    assert tx.stale() == []
    tx.commit()


def test_rebase_moves_to_the_revision_of_the_stale_call(
    store: Store, other: Store, moved: Transaction
) -> None:
    items = moved.stale()
    other.put("later", 1)
    moved.rebase(accept=items)
    assert moved.revision == 4
    assert moved["r"] == 2
    assert moved["w"] == "mine"
    assert moved.get("later", track=False) is None
    assert moved.stale() == []
    commit = moved.commit()
    assert store["w"] == "mine"
    assert commit.base_revision == 4
    assert commit.changes[0].base_version == 2


def test_what_was_judged_is_stored_on_the_commit(store: Store, moved: Transaction) -> None:
    moved.rebase(accept=moved.stale())
    commit = moved.commit()
    assert commit.accepted == (((), "r", 1, 2), ((), "w", 1, 2), (("n",), "new", 0, 1))
    assert store.log(limit=1)[0].accepted == commit.accepted


def test_what_moves_again_conflicts_again(other: Store, moved: Transaction) -> None:
    moved.rebase(accept=moved.stale())
    other.put("r", 3)
    assert [tuple(item) for item in moved.stale()] == [("r", 2, 3)]
    with pytest.raises(ConflictError) as caught:
        moved.commit()
    assert [conflict.key for conflict in caught.value.conflicts] == ["r"]
    moved.rebase(accept=moved.stale())
    moved.commit()
    assert other["w"] == "mine"


def test_what_moves_after_the_judgement_conflicts(other: Store, moved: Transaction) -> None:
    items = moved.stale()
    other.put("new", 2, namespace="n")
    moved.rebase(accept=items)
    with pytest.raises(ConflictError) as caught:
        moved.commit()
    assert [conflict.key for conflict in caught.value.conflicts] == ["new"]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_an_item_that_was_not_accepted_leaves_the_transaction_unchanged(
    moved: Transaction, missing: int
) -> None:
    items = moved.stale()
    accepted = [item for item in items if item is not items[missing]]
    with pytest.raises(ConflictError) as caught:
        moved.rebase(accept=accepted)
    assert [conflict.key for conflict in caught.value.conflicts] == [items[missing].key]
    assert moved.revision == 2
    assert moved["r"] == 1
    assert moved.stale() == items


def test_an_item_of_an_earlier_judgement_does_not_count(other: Store, moved: Transaction) -> None:
    items = moved.stale()
    other.put("r", 3)
    moved.stale()
    with pytest.raises(ConflictError):
        moved.rebase(accept=items)


def test_rebase_needs_a_stale_call_and_items(store: Store) -> None:
    tx = store.transaction()
    with pytest.raises(InvalidValueError, match=r"stale\(\) first"):
        tx.rebase(accept=[])
    tx.stale()
    with pytest.raises(InvalidValueError, match="items of stale"):
        tx.rebase(accept=["k"])
    with pytest.raises(TypeError):
        tx.rebase(accept=5)
    tx.rebase(accept=[])
    tx.rollback()
    with pytest.raises(ClosedError):
        tx.stale()


def test_a_transaction_that_is_not_stale_can_be_moved_on(store: Store, other: Store) -> None:
    tx = store.transaction()
    tx["k"] = 1
    other.put("other", 1)
    assert tx.stale() == []
    tx.rebase(accept=[])
    assert tx["other"] == 1
    assert tx.commit().base_revision == 1


def test_a_deleted_base_can_be_accepted(store: Store, other: Store) -> None:
    store.put("k", 1)
    tx = store.transaction()
    tx.put("k", 2, expected_version=1)
    other.delete("k")
    (item,) = tx.stale()
    assert (item.seen_version, item.judged_version) == (1, 0)
    tx.rebase(accept=[item])
    assert tx.commit().changes[0].base_version == 0
    assert store["k"] == 2


def test_a_touched_key_that_is_gone_can_be_accepted(store: Store, other: Store) -> None:
    store.put("k", 1)
    tx = store.transaction()
    tx.touch("k", 60)
    tx["result"] = 1
    other.delete("k")
    tx.rebase(accept=tx.stale())
    assert tx.stale() == []
    tx.commit()
    assert store["result"] == 1


def test_conflicts_of_a_failed_commit_can_be_accepted(store: Store, moved: Transaction) -> None:
    with pytest.raises(ConflictError) as caught:
        moved.commit()
    moved.stale()
    moved.rebase(accept=caught.value.conflicts)
    moved.commit()
    assert store["w"] == "mine"


# --- transact(repair=...) ---


def interrupted(other: Store, times: int, key: str = "w") -> Callable[[Transaction], str]:
    """A function that writes what it has read, while another writes the key, so many times."""
    left = [times]

    def work(tx: Transaction) -> str:
        tx["w"] = [tx["w"], "mine"]
        if left[0]:
            left[0] -= 1
            other.put(key, "theirs", overwrite=True)
        return "worked"

    return work


def test_repair_is_called_in_place_of_the_function(store: Store, other: Store) -> None:
    store.put("w", "base")
    calls: list[Any] = []
    work = interrupted(other, 1)

    def counted(tx: Transaction) -> str:
        calls.append("work")
        return work(tx)

    def judge(tx: Transaction, conflicts: list[Conflict]) -> None:
        calls.append([(each.key, each.base, each.theirs, each.ours) for each in conflicts])
        tx.rebase(accept=conflicts)

    assert store.transact(counted, repair=judge) == "worked"
    assert calls == ["work", [("w", "base", "theirs", ["base", "mine"])]]
    assert store["w"] == ["base", "mine"]
    commit = store.log(limit=1)[0]
    assert commit.accepted == (((), "w", 1, 2),)


def test_repair_may_write_anew_and_give_the_result(store: Store, other: Store) -> None:
    store.put("w", "base")

    def judge(tx: Transaction, conflicts: list[Conflict]) -> str:
        tx.rebase(accept=conflicts)
        tx["w"] = [conflicts[0].theirs, "repaired"]
        return "repaired"

    assert store.transact(interrupted(other, 1), repair=judge, op_id="op") == "repaired"
    assert store["w"] == ["theirs", "repaired"]
    assert store.transact(interrupted(other, 1), repair=judge, op_id="op") == "repaired"


def test_repair_is_called_again_if_it_moves_again(store: Store, other: Store) -> None:
    store.put("w", "base")
    judged: list[int] = []

    def judge(tx: Transaction, conflicts: list[Conflict]) -> None:
        judged.append(conflicts[0].current_version)
        tx.rebase(accept=conflicts)
        if len(judged) < 3:
            other.put("w", "again", overwrite=True)

    store.transact(interrupted(other, 1), repair=judge)
    assert judged == [2, 3, 4]
    assert store.history("w")[0].version == 5


def test_a_repair_that_accepts_nothing_ends_with_the_attempts(store: Store, other: Store) -> None:
    store.put("w", "base")
    calls: list[int] = []

    def judge(tx: Transaction, conflicts: list[Conflict]) -> None:
        calls.append(len(conflicts))

    with pytest.raises(ConflictError, match="after 3 attempts"):
        store.transact(interrupted(other, 1), repair=judge, attempts=3)
    assert calls == [1, 1]
    assert store["w"] == "theirs"


def test_a_repair_that_raises_ends_the_transaction(store: Store, other: Store) -> None:
    store.put("w", "base")
    seen: list[Transaction] = []

    def judge(tx: Transaction, conflicts: list[Conflict]) -> None:
        seen.append(tx)
        raise RuntimeError("cannot judge")

    with pytest.raises(RuntimeError, match="cannot judge"):
        store.transact(interrupted(other, 1), repair=judge)
    with pytest.raises(ClosedError):
        seen[0].commit()
    assert store["w"] == "theirs"


def test_a_repaired_conflict_is_on_record(store: Store, other: Store) -> None:
    store.put("w", "base")
    store.transact(interrupted(other, 1), repair=lambda tx, found: tx.rebase(accept=found))
    (record,) = store.audit.conflicts("repaired")
    assert (record.key, record.base_version, record.theirs_version) == ("w", 1, 2)
    assert record.revision == store.revision
