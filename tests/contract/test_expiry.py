"""Expiry: what is visible is decided by the view's instant alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agentmem import ConflictError, InvalidValueError, KeyMissingError, Store
from tests.contract.conftest import ManualClock, StoreMaker


def test_an_entry_is_absent_from_the_moment_it_expires(store: Store, clock: ManualClock) -> None:
    entry = store.put("k", 1, namespace="n", ttl_s=10)
    assert entry.expires_at == clock() + timedelta(seconds=10)
    clock.advance(9.999_999)
    assert store.get("k", namespace="n") == entry
    clock.advance(0.000_001)
    assert store.get("k", namespace="n") is None
    assert store.get_many(["k"], namespace="n") == {}
    assert store.list() == []
    assert store.count() == 0
    assert store.namespaces() == []
    assert store.history("k", namespace="n") == [entry]
    assert store.revision == 1


def test_a_view_sees_the_instant_at_which_it_was_made(store: Store, clock: ManualClock) -> None:
    store.put("k", 1, ttl_s=10)
    snapshot, transaction = store.snapshot(), store.transaction()
    clock.advance(11)
    late = store.snapshot()
    assert snapshot["k"] == transaction["k"] == 1
    assert snapshot.count() == transaction.count() == 1
    assert snapshot.namespaces() == [()]
    assert late.get("k") is None
    assert late.list() == []
    assert late.revision == snapshot.revision


def test_a_snapshot_at_a_revision_has_the_time_of_its_commit(
    store: Store, clock: ManualClock
) -> None:
    store.put("k", 1, ttl_s=10)
    clock.advance(11)
    store.put("other", 1)
    assert store.snapshot(at=1)["k"] == 1
    assert store.snapshot(at=2).get("k") is None
    assert store.snapshot(at=1).instant == clock() - timedelta(seconds=11)


def test_a_snapshot_at_a_time_has_that_time(store: Store, clock: ManualClock) -> None:
    began = clock()
    store.put("k", 1, ttl_s=10)
    clock.advance(60)
    assert store.snapshot(at=began + timedelta(seconds=9))["k"] == 1
    late = store.snapshot(at=began + timedelta(seconds=10))
    assert late.revision == 1
    assert late.get("k") is None


def test_touch_moves_the_expiry_without_a_new_version(
    make_store: StoreMaker, store: Store, clock: ManualClock
) -> None:
    written = store.put("k", 1, ttl_s=10)
    clock.advance(5)
    entry = store.touch("k", 60)
    assert (entry.version, entry.revision) == (written.version, written.revision)
    assert entry.expires_at == clock() + timedelta(seconds=60)
    assert store.revision == 1
    clock.advance(59)
    assert make_store().get("k") == entry
    clock.advance(1)
    assert make_store().get("k") is None


def test_touch_can_end_and_begin_an_expiry(store: Store, clock: ManualClock) -> None:
    store.put("k", 1)
    store.touch("k", 10)
    assert store.touch("k", None).expires_at is None
    clock.advance(1_000)
    assert store["k"] == 1
    store.touch("k", 10)
    clock.advance(11)
    assert "k" not in store


@pytest.mark.parametrize("ttl_s", [None, 1.0, 1_000.0])
def test_touch_does_not_change_older_snapshots(
    store: Store, clock: ManualClock, ttl_s: float | None
) -> None:
    store.put("k", 1, ttl_s=10)
    held = store.snapshot()
    clock.advance(5)
    moment = clock()
    store.touch("k", ttl_s)
    clock.advance(500)
    for view in (held, store.snapshot(at=1), store.snapshot(at=moment)):
        assert view["k"] == 1
        assert view.count() == 1


def test_touch_of_an_absent_key_is_an_error(store: Store, clock: ManualClock) -> None:
    store.put("expired", 1, ttl_s=10)
    store.put("deleted", 1)
    store.delete("deleted")
    clock.advance(10)
    for key in ("never", "deleted", "expired"):
        with pytest.raises(KeyMissingError, match=key):
            store.touch(key, 60)
        with pytest.raises(KeyMissingError, match=key):
            store.transaction().touch(key, 60)
    assert store.list() == []


def test_a_refused_touch_leaves_its_op_id_unused(store: Store) -> None:
    with pytest.raises(KeyMissingError):
        store.touch("k", 60, op_id="op")
    assert store.revision == 0
    store.put("k", 1)
    assert store.touch("k", 60, op_id="op").expires_at is not None


def test_a_repeated_touch_moves_nothing(store: Store, clock: ManualClock) -> None:
    store.put("k", 1)
    first = store.touch("k", 60, op_id="op")
    clock.advance(30)
    assert store.touch("k", 60, op_id="op") == first
    assert store.get("k") == first


def test_a_repeated_touch_of_a_key_that_is_gone_gets_the_first_result(store: Store) -> None:
    store.put("k", 1)
    first = store.touch("k", 60, op_id="op")
    store.delete("k")
    assert store.touch("k", 60, op_id="op").version == first.version


def test_a_put_without_ttl_ends_an_expiry_and_atomic_operations_keep_it(
    store: Store, clock: ManualClock
) -> None:
    expires_at = store.put("n", 1, ttl_s=60).expires_at
    clock.advance(10)
    assert store.increment("n").expires_at == expires_at
    assert store.put("n", 5).expires_at is None


def test_an_atomic_operation_on_an_expired_key_starts_anew(
    store: Store, clock: ManualClock
) -> None:
    store.put("n", 41, ttl_s=10)
    clock.advance(10)
    entry = store.increment("n")
    assert (entry.value, entry.version, entry.expires_at) == (1, 2, None)
    assert entry.created_at == clock()


def test_an_expired_key_is_at_version_zero(store: Store, clock: ManualClock) -> None:
    store.put("k", 1, ttl_s=10)
    clock.advance(10)
    assert store.delete("k") is None
    with pytest.raises(ConflictError) as caught:
        store.put("k", 2, expected_version=1)
    assert caught.value.conflicts[0].current_version == 0
    with pytest.raises(KeyMissingError):
        store.update("k", lambda value: value)
    entry = store.update("k", lambda value: value + 1, default=6)
    assert entry is not None
    assert (entry.value, entry.version) == (7, 2)


def test_what_expired_while_a_transaction_ran_is_stale(store: Store, clock: ManualClock) -> None:
    store.put("k", 1, ttl_s=10)
    reading, scanning, writing = (store.transaction() for _ in range(3))
    assert reading["k"] == 1
    assert len(scanning.list()) == 1
    reading["result"] = scanning["result"] = 1
    writing["k"] = 2
    clock.advance(10)
    for tx in (reading, scanning, writing):
        assert [(item.key, item.judged_version) for item in tx.stale()] == [("k", 0)]
        with pytest.raises(ConflictError):
            tx.commit()


@pytest.mark.parametrize("ttl_s", [None, 1_000.0])
def test_a_scan_is_stale_if_a_touch_let_an_entry_expire_early(
    store: Store, clock: ManualClock, ttl_s: float | None
) -> None:
    store.put("k", 1, ttl_s=ttl_s)
    tx = store.transaction()
    assert len(tx.list()) == 1
    tx["counted"] = 1
    store.touch("k", 1)
    clock.advance(2)
    with pytest.raises(ConflictError):
        tx.commit()


def test_touch_in_a_transaction_takes_effect_at_the_commit(
    store: Store, clock: ManualClock
) -> None:
    store.put("k", 1, ttl_s=10)
    tx = store.transaction()
    tx.touch("k", 60)
    clock.advance(5)
    commit = tx.commit()
    assert commit.revision is None
    entry = store.get("k")
    assert entry is not None
    assert (entry.version, entry.expires_at) == (1, clock() + timedelta(seconds=60))


def touch_first(tx: Any) -> None:
    tx.touch("n", 60)
    tx.increment("n")


def touch_last(tx: Any) -> None:
    tx.increment("n")
    tx.touch("n", 60)


@pytest.mark.parametrize("work", [touch_first, touch_last])
def test_touch_and_an_atomic_operation_in_one_transaction_both_count(
    store: Store, clock: ManualClock, work: Any
) -> None:
    store.put("n", 1)
    with store.transaction() as tx:
        work(tx)
    entry = store.get("n")
    assert entry is not None
    assert (entry.value, entry.version) == (2, 2)
    assert entry.expires_at == clock() + timedelta(seconds=60)


def test_touch_and_put_in_one_transaction_count_in_their_order(
    store: Store, clock: ManualClock
) -> None:
    store.put_many({"a": 1, "b": 1})
    with store.transaction() as tx:
        tx.touch("a", 60)
        tx.put("a", 2)
        tx.put("b", 2)
        tx.touch("b", 60)
    a, b = store.list()
    assert a.expires_at is None
    assert b.expires_at == clock() + timedelta(seconds=60)


def test_a_clock_that_was_set_back_does_not_bring_an_entry_back(
    store: Store, clock: ManualClock
) -> None:
    store.put("k", 1, ttl_s=10)
    clock.advance(20)
    store.put("other", 1)
    clock.advance(-15)
    assert store.list(key_prefix="k") == []
    assert store.snapshot().get("k") is None
    assert store.get("k") is None


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), float("inf"), 10**12, True, "60"])
def test_a_ttl_is_a_positive_number_of_seconds(store: Store, ttl_s: Any) -> None:
    for call in (
        lambda: store.put("k", 1, ttl_s=ttl_s),
        lambda: store.touch("k", ttl_s),
        lambda: store.transaction().put("k", 1, ttl_s=ttl_s),
        lambda: store.update("k", lambda value: value, default=0, ttl_s=ttl_s),
    ):
        with pytest.raises((InvalidValueError, TypeError), match="ttl_s"):
            call()
    assert store.revision == 0
