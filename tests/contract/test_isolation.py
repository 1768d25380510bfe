"""Isolation: what makes a transaction fail, and what must not.

``other`` is a second store object on the same target: what it writes comes between the begin
and the commit of the transaction under test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentmem import ConflictError, Store, Transaction
from tests.contract.conftest import StoreMaker

ISOLATIONS = ["serializable", "snapshot"]


@pytest.fixture
def other(make_store: StoreMaker) -> Store:
    return make_store()


def conflicts_of(tx: Transaction) -> list[tuple[str, str, int, int]]:
    with pytest.raises(ConflictError) as caught:
        tx.commit()
    return [
        (each.key, each.kind, each.base_version, each.current_version)
        for each in caught.value.conflicts
    ]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_no_update_is_lost(store: Store, other: Store, isolation: Any) -> None:
    store.put("k", 1)
    tx = store.transaction(isolation=isolation)
    tx["k"] = tx["k"] + 1
    other.put("k", 10)
    assert conflicts_of(tx) == [("k", "write", 1, 2)]
    assert other["k"] == 10


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("write", [lambda tx: tx.put("k", 5), lambda tx: tx.delete("k")])
def test_the_base_of_a_write_is_the_version_visible_at_the_revision_read_or_not(
    store: Store, other: Store, isolation: Any, write: Callable[[Transaction], None]
) -> None:
    store.put("k", 1)
    tx = store.transaction(isolation=isolation)
    other.put("k", 2)
    write(tx)
    assert conflicts_of(tx) == [("k", "write", 1, 2)]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_two_creations_of_one_key_conflict(store: Store, other: Store, isolation: Any) -> None:
    tx = store.transaction(isolation=isolation)
    tx["k"] = "mine"
    other.put("k", "theirs")
    assert conflicts_of(tx) == [("k", "write", 0, 1)]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_writes_to_different_keys_do_not_conflict(
    store: Store, other: Store, isolation: Any
) -> None:
    one, two = (each.transaction(isolation=isolation) for each in (store, other))
    one["a"], two["b"] = 1, 2
    assert (one.commit().revision, two.commit().revision) == (1, 2)


def test_write_skew_is_prevented_under_serializable(store: Store, other: Store) -> None:
    store.put_many({"alice": "on call", "bob": "on call"})
    one, two = store.transaction(), other.transaction()
    for tx, doctor in ((one, "alice"), (two, "bob")):
        if [tx["alice"], tx["bob"]].count("on call") == 2:
            tx[doctor] = "off"
    one.commit()
    assert conflicts_of(two) == [("alice", "read", 1, 2)]
    assert store["bob"] == "on call"


def test_write_skew_is_possible_under_snapshot(store: Store, other: Store) -> None:
    store.put_many({"alice": "on call", "bob": "on call"})
    one = store.transaction(isolation="snapshot")
    two = other.transaction(isolation="snapshot")
    for tx, doctor in ((one, "alice"), (two, "bob")):
        if tx.count(where={}) == 2 and tx["alice"] == tx["bob"]:
            tx[doctor] = "off"
    one.commit()
    two.commit()
    assert [entry.value for entry in store.list()] == ["off", "off"]


READS: dict[str, Callable[[Transaction], Any]] = {
    "get": lambda tx: tx.get("k"),
    "in": lambda tx: "k" in tx,
    "get_many": lambda tx: tx.get_many(["j", "k"]),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_is_stale_if_the_version_moved(
    store: Store, other: Store, read: Callable[[Transaction], Any]
) -> None:
    store.put("k", "same")
    tx = store.transaction()
    read(tx)
    tx["result"] = 1
    other.put("k", "same")
    assert conflicts_of(tx) == [("k", "read", 1, 2)]


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_of_an_absent_key_is_stale_only_if_it_is_present(
    store: Store, other: Store, read: Callable[[Transaction], Any]
) -> None:
    fine, stale = store.transaction(), store.transaction()
    read(fine)
    read(stale)
    fine["fine"] = stale["stale"] = 1
    other.put("k", 1)
    other.delete("k")
    fine.commit()
    other.put("k", 2)
    assert conflicts_of(stale) == [("k", "read", 0, 3)]


def test_a_read_of_what_was_deleted_and_written_again_is_stale(store: Store, other: Store) -> None:
    store.put("k", "same")
    tx = store.transaction()
    assert tx["k"] == "same"
    tx["result"] = 1
    other.delete("k")
    other.put("k", "same")
    assert conflicts_of(tx) == [("k", "read", 1, 3)]


# What a scan of the keys m1 to m3 of namespace n in state "open" reads, and what it asks.
SCANS: dict[str, Callable[[Transaction], Any]] = {
    "list": lambda tx: tx.list("n"),
    "list of everything": lambda tx: tx.list(),
    "list by prefix": lambda tx: tx.list("n", key_prefix="m"),
    "list by filter": lambda tx: tx.list("n", where={"state": "open"}),
    "list with a limit that was not met": lambda tx: tx.list("n", limit=5),
    "list after a key": lambda tx: tx.list("n", after="m0"),
    "count by filter": lambda tx: tx.count("n", where={"state": "open"}),
    "clear": lambda tx: tx.clear("n"),
}
COUNTS: dict[str, Callable[[Transaction], Any]] = {
    "count": lambda tx: tx.count("n"),
    "count by prefix": lambda tx: tx.count(key_prefix="m"),
    "namespaces": lambda tx: tx.namespaces(),
}
OPEN = {"state": "open"}


@pytest.fixture
def three(store: Store) -> Store:
    store.put_many({"m1": OPEN, "m2": OPEN, "m3": OPEN}, namespace="n")
    return store


def scanned(store: Store, scan: Callable[[Transaction], Any]) -> Transaction:
    tx = store.transaction()
    scan(tx)
    tx["result"] = 1
    return tx


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_a_scan_is_stale_if_a_key_came(
    three: Store, other: Store, scan: Callable[[Transaction], Any]
) -> None:
    tx = scanned(three, scan)
    other.put("m4", OPEN, namespace="n")
    assert conflicts_of(tx) == [("m4", "scan", 0, 1)]


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_a_scan_is_stale_if_a_key_went(
    three: Store, other: Store, scan: Callable[[Transaction], Any]
) -> None:
    tx = scanned(three, scan)
    other.delete("m2", namespace="n")
    assert [(key, now) for key, _kind, _seen, now in conflicts_of(tx)] == [("m2", 0)]


@pytest.mark.parametrize("scan", COUNTS.values(), ids=COUNTS)
def test_a_count_is_stale_if_a_key_came_or_went(
    three: Store, other: Store, scan: Callable[[Transaction], Any]
) -> None:
    came, went = scanned(three, scan), scanned(three, scan)
    other.put("m4", OPEN, namespace="n/new")
    assert [key for key, *_ in conflicts_of(came)] == ["m4"]
    other.delete("m4", namespace="n/new")
    other.delete("m2", namespace="n")
    assert [key for key, *_ in conflicts_of(went)] == ["m2"]


@pytest.mark.parametrize(
    "scan", [scan for name, scan in SCANS.items() if "count" not in name and name != "clear"]
)
def test_a_scan_is_stale_if_a_version_moved(
    three: Store, other: Store, scan: Callable[[Transaction], Any]
) -> None:
    tx = scanned(three, scan)
    other.put("m2", OPEN, namespace="n")
    assert conflicts_of(tx) == [("m2", "scan", 1, 2)]


def test_a_scan_is_stale_if_an_entry_began_or_ceased_to_match(three: Store, other: Store) -> None:
    three.put("m4", {"state": "done"}, namespace="n")
    tx = scanned(three, SCANS["list by filter"])
    other.put("m4", OPEN, namespace="n")
    other.put("m1", {"state": "done"}, namespace="n")
    assert conflicts_of(tx) == [("m1", "scan", 1, 2), ("m4", "scan", 0, 2)]


NARROW_SCANS: dict[str, Callable[[Transaction], Any]] = {
    name: scan for name, scan in SCANS.items() if name != "list of everything"
}


@pytest.mark.parametrize("scan", NARROW_SCANS.values(), ids=NARROW_SCANS)
def test_a_hundred_writes_that_leave_the_answer_as_it_was_abort_nothing(
    three: Store, other: Store, scan: Callable[[Transaction], Any]
) -> None:
    three.put("m0", {"state": "done"}, namespace="m")
    tx = scanned(three, scan)
    for number in range(50):
        other.put("m0", {"state": "done", "number": number}, namespace="m")
        other.put(f"m{number}", OPEN, namespace=("n\x01",))
    # Came and went: the answer is the same again.
    other.put("m9", OPEN, namespace="n")
    other.delete("m9", namespace="n")
    assert tx.commit().revision is not None


def test_a_scan_that_met_its_limit_ends_with_its_last_entry(three: Store, other: Store) -> None:
    fine, stale = three.transaction(), three.transaction()
    for tx, key in ((fine, "fine"), (stale, "stale")):
        assert len(tx.list("n", limit=2)) == 2
        tx[key] = 1
    other.put("m3", OPEN, namespace="n")
    other.put("m21", OPEN, namespace="n")
    fine.commit()
    other.put("m11", OPEN, namespace="n")
    assert conflicts_of(stale) == [("m11", "scan", 0, 1)]


def test_a_scan_by_prefix_filter_or_after_does_not_see_the_rest(three: Store, other: Store) -> None:
    tx = three.transaction()
    tx.list("n", key_prefix="y")
    tx.list("n", after="m1", key_prefix="m", where={"state": "open"})
    tx["result"] = 1
    other.put("x", OPEN, namespace="n")
    other.put("m1", OPEN, namespace="n")
    other.put("m4", {"state": "done"}, namespace="n")
    tx.commit()


def test_untracked_reads_are_not_checked(three: Store, other: Store) -> None:
    tx = three.transaction()
    tx.get("m1", namespace="n", track=False)
    tx.get_many(["m2"], namespace="n", track=False)
    tx.list(track=False)
    tx.count(where={}, track=False)
    tx.namespaces(track=False)
    tx["result"] = 1
    other.clear()
    assert tx.stale() == []
    tx.commit()


def test_a_tracked_read_is_checked_after_an_untracked_one(three: Store, other: Store) -> None:
    tx = three.transaction()
    tx.get("m1", namespace="n", track=False)
    tx.get("m1", namespace="n")
    tx["result"] = 1
    other.put("m1", 5, namespace="n")
    assert conflicts_of(tx) == [("m1", "read", 1, 2)]


@pytest.mark.parametrize("op_id", [None, "op"])
def test_a_transaction_that_only_reads_never_fails(
    three: Store, other: Store, op_id: str | None
) -> None:
    tx = three.transaction(op_id=op_id)
    tx.get("m1", namespace="n")
    tx.list()
    other.clear()
    tx.commit()


def test_snapshot_isolation_checks_only_what_was_written(three: Store, other: Store) -> None:
    tx = three.transaction(isolation="snapshot")
    tx.get("m1", namespace="n")
    tx.list()
    tx["result"] = 1
    other.clear()
    other.put("m5", OPEN, namespace="n")
    assert tx.commit().revision == 4
    tx = three.transaction(isolation="snapshot")
    tx.list()
    tx["result"] = 2
    other.put("result", 3)
    assert conflicts_of(tx) == [("result", "write", 1, 2)]


def test_atomic_operations_alone_never_conflict(store: Store, other: Store) -> None:
    store.put_many({"n": 1, "l": [1], "s": [1], "p": {"a": 1}})
    tx = store.transaction()
    tx.increment("n", 10)
    tx.append("l", "mine")
    tx.add_to_set("s", 2)
    tx.patch("p", {"mine": 1})
    other.increment("n", 100)
    other.append("l", "theirs")
    other.add_to_set("s", 2, 3)
    other.patch("p", {"theirs": 1, "a": None})
    commit = tx.commit()
    assert [store[key] for key in "nlsp"] == [
        111,
        [1, "theirs", "mine"],
        [1, 2, 3],
        {"mine": 1, "theirs": 1},
    ]
    assert [change.base_version for change in commit.changes] == [2, 2, 2, 2]
    assert commit.merged == ()


def test_a_read_beside_an_atomic_operation_is_checked(store: Store, other: Store) -> None:
    store.put("n", 1)
    before, after, untracked = (store.transaction() for _ in range(3))
    before.get("n")
    for tx in (before, after, untracked):
        tx.increment("n")
    assert after["n"] == 2
    untracked.get("n", track=False)
    other.increment("n")
    for tx in (before, after):
        assert conflicts_of(tx) == [("n", "read", 1, 2)]
    untracked.commit()
    assert store["n"] == 3


def test_a_scan_that_shows_an_atomic_write_is_checked(store: Store, other: Store) -> None:
    store.put("k", {"b": 1})
    tx = store.transaction()
    tx.patch("k", {"a": 1})
    assert tx.list(where={"a": 1, "b": 2}) == []
    tx["found"] = 0
    other.put("k", {"b": 2})
    with pytest.raises(ConflictError):
        tx.commit()


def test_expected_version_names_the_base(store: Store, other: Store) -> None:
    seen = store.put("k", 1)
    other.put("k", 2)
    stale, fresh = store.transaction(), store.transaction()
    stale.put("k", 3, expected_version=seen.version)
    fresh.put("k", 4, expected_version=2)
    assert conflicts_of(stale) == [("k", "write", 1, 2)]
    fresh.commit()
    absent = store.transaction()
    absent.put("k", 5, expected_version=0)
    assert conflicts_of(absent) == [("k", "write", 0, 3)]


def test_a_later_write_to_the_key_keeps_the_expected_version(store: Store) -> None:
    store.put("k", 1)
    store.put("k", 2)
    tx = store.transaction()
    tx.put("k", 3, expected_version=1)
    tx.put("k", 4)
    assert conflicts_of(tx) == [("k", "write", 1, 2)]


def test_overwrite_has_no_base(store: Store, other: Store) -> None:
    store.put("k", 1)
    tx = store.transaction()
    tx.put("k", 3, overwrite=True)
    other.put("k", 2)
    commit = tx.commit()
    assert store["k"] == 3
    assert commit.changes[0].base_version is None


def test_a_conflict_names_all_that_is_stale(store: Store, other: Store) -> None:
    store.put_many({"a": 1, "b": 1, "c": 1})
    tx = store.transaction()
    tx["a"] = tx["b"]
    tx.list(key_prefix="c")
    other.put_many({"a": 2, "b": 2, "c": 2})
    assert sorted(conflicts_of(tx)) == [
        ("a", "write", 1, 2),
        ("b", "read", 1, 2),
        ("c", "scan", 1, 2),
    ]


def test_the_base_of_a_key_that_came_and_expired_meanwhile_is_zero(
    store: Store, other: Store, clock: Any
) -> None:
    tx = store.transaction()
    other.put("k", 1, ttl_s=1)
    clock.advance(5)
    tx["k"] = 2
    (change,) = tx.commit().changes
    assert (change.version, change.base_version) == (2, 0)
