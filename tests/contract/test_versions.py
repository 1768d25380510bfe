"""Versions never restart, and revisions count commits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentmem import ConflictError, Entry, Store
from agentmem.namespaces import encode
from tests.contract.conftest import ManualClock, StoreMaker


def history(store: Store, key: str, namespace: object = None) -> list[tuple[int | None, Any]]:
    return [(entry.version, entry.value) for entry in store.history(key, namespace=namespace)]


def test_a_version_counts_the_commits_that_wrote_the_key(store: Store) -> None:
    for number in range(1, 6):
        assert store.put("a", number).version == number
        assert store.put("b", number).version == number
    assert store.revision == 10
    assert [entry.revision for entry in store.history("b")] == [10, 8, 6, 4, 2]


def test_an_equal_value_still_makes_a_version(store: Store) -> None:
    first, second = store.put("k", {"a": 1}), store.put("k", {"a": 1})
    assert (second.version, second.revision) == (2, 2)
    assert first.value == second.value
    assert store.add_to_set("s", 1).version == 1
    assert store.add_to_set("s", 1).version == 2


def test_versions_go_on_after_a_delete(make_store: StoreMaker, store: Store) -> None:
    store.put("k", 1)
    store.delete("k")
    assert store.put("k", 2).version == 3
    store.delete("k")
    assert make_store().increment("k").version == 5
    assert history(store, "k") == [(5, 1), (4, None), (3, 2), (2, None), (1, 1)]
    assert [entry.deleted for entry in store.history("k")] == [False, True, False, True, False]


def test_versions_go_on_after_an_expiry(store: Store, clock: ManualClock) -> None:
    store.put("k", 1, ttl_s=10)
    clock.advance(11)
    assert store.put("k", 2, expected_version=0).version == 2
    assert store.history("k")[0].created_at == clock()


def test_versions_go_on_after_the_store_was_opened_again(make_store: StoreMaker) -> None:
    with make_store() as store:
        store.put("k", 1)
        store.delete("k")
    again = make_store()
    assert again.put("k", 2).version == 3
    assert again.revision == 3


@pytest.mark.parametrize("gone", ["deleted", "expired"])
def test_delete_and_recreate_does_not_fool_compare_and_set(
    store: Store, clock: ManualClock, gone: str
) -> None:
    seen = store.put("k", "same", ttl_s=10)
    if gone == "deleted":
        store.delete("k")
    clock.advance(11)
    store.put("k", "same")
    with pytest.raises(ConflictError):
        store.put("k", "mine", expected_version=seen.version)
    with pytest.raises(ConflictError):
        store.delete("k", expected_version=seen.version)


def test_several_writes_of_one_key_in_a_transaction_make_one_entry(store: Store) -> None:
    with store.transaction() as tx:
        tx["k"] = 1
        tx["k"] = 2
        tx.increment("k", 40)
        tx.append("log", 1)
        tx.append("log", 2)
    assert history(store, "k") == [(1, 42)]
    assert history(store, "log") == [(1, [1, 2])]
    assert store.revision == 1
    assert [change.key for change in store.log()[0].changes] == ["k", "log"]


def test_a_put_and_delete_of_a_new_key_in_a_transaction_write_nothing(store: Store) -> None:
    tx = store.transaction()
    tx["k"] = 1
    tx.delete("k")
    commit = tx.commit()
    assert (commit.revision, commit.changes) == (None, ())
    assert store.revision == 0
    assert store.history("k") == []


def nothing(tx: Any) -> None:
    tx.get("k")
    tx.list()


def absent(tx: Any) -> None:
    tx.delete("absent")


@pytest.mark.parametrize("work", [nothing, absent])
def test_a_commit_without_writes_takes_no_revision_unless_it_has_an_op_id(
    store: Store, work: Callable[[Any], None]
) -> None:
    store.put("k", 1)
    tx = store.transaction()
    work(tx)
    commit = tx.commit()
    assert (commit.revision, commit.committed_at, commit.changes) == (None, None, ())
    assert store.revision == 1

    tx = store.transaction(op_id="op")
    work(tx)
    assert tx.commit().revision == 2
    assert store.revision == 2
    assert store.log()[0].op_id == "op"


def test_a_delete_of_an_absent_key_with_an_op_id_takes_a_revision(store: Store) -> None:
    assert store.delete("k", op_id="op") is None
    assert store.revision == 1
    store.put("k", 1)
    assert store.delete("k", op_id="op") is None
    assert "k" in store


def test_revisions_are_contiguous_and_in_order_of_time(store: Store, clock: ManualClock) -> None:
    store.put_many({"a": 1, "b": 2})
    clock.advance(1)
    store.delete("a")
    clock.advance(-30)  # a clock that was set back
    store.increment("n")
    commits = store.log()
    assert [commit.revision for commit in commits] == [3, 2, 1]
    times = [commit.committed_at for commit in commits]
    assert times == sorted(times, reverse=True)


def test_a_failed_write_takes_no_revision(store: Store) -> None:
    store.put("k", 1)
    with pytest.raises(ConflictError):
        store.put("k", 2, expected_version=0)
    tx = store.transaction()
    tx["k"] = 2
    store.put("k", 3)
    with pytest.raises(ConflictError):
        tx.commit()
    assert store.revision == 2
    assert store.put("k", 4).revision == 3


def test_history_is_newest_first_with_tombstones_and_a_limit(store: Store) -> None:
    for number in range(3):
        store.put("k", number)
    store.delete("k")
    assert history(store, "k") == [(4, None), (3, 2), (2, 1), (1, 0)]
    assert [entry.version for entry in store.history("k", limit=2)] == [4, 3]
    assert store.history("k", limit=0) == []
    assert store.history("k", namespace="other") == []


def test_a_long_history_is_whole(store: Store) -> None:
    for _ in range(450):
        store.increment("n")
    assert [entry.value for entry in store.history("n")] == list(range(450, 0, -1))
    assert len(store.history("n", limit=201)) == 201


def test_the_log_is_newest_first_and_can_be_narrowed(store: Store) -> None:
    store.put("k", 1, agent="ann")
    store.put("k", 1, namespace="team", agent="bob", op_id="op")
    store.put("k", 1, namespace="team/alice", agent="ann")
    store.put_many({"a": 1}, namespace="other")

    def revisions(*args: Any, **options: Any) -> list[int | None]:
        return [commit.revision for commit in store.log(*args, **options)]

    assert revisions() == [4, 3, 2, 1]
    assert revisions("team") == [3, 2]
    assert revisions(agent="ann") == [3, 1]
    assert revisions(op_id="op") == [2]
    assert revisions(after=1, upto=3) == [3, 2]
    assert revisions(limit=2) == [4, 3]
    assert revisions(limit=0) == []
    assert revisions("team", agent="ann", limit=5) == [3]


def test_a_long_log_is_whole(store: Store) -> None:
    for _ in range(450):
        store.increment("n")
    assert [commit.revision for commit in store.log()] == list(range(450, 0, -1))


def test_a_second_store_object_sees_every_commit(make_store: StoreMaker) -> None:
    one, two = make_store(), make_store()
    entries: list[Entry[Any]] = []
    for number in range(5):
        entries += [one.put("k", number), two.increment("k")]
    assert [entry.version for entry in entries] == list(range(1, 11))
    assert one.history("k") == two.history("k") == entries[::-1]
    assert one.log() == two.log()


def test_a_version_is_the_same_row_however_it_is_asked_for(store: Store) -> None:
    store.set_merge("notes/**", "union")
    store.put("k", ["a"], namespace="notes", agent="ann", op_id="op-1", text="said", ttl_s=60)
    store.put("k", ["b"], namespace="notes", agent="bob", expected_version=1)
    store.put("k", ["c"], namespace="notes", agent='eve "\\\x1f', expected_version=1)
    store.delete("k", namespace="notes", expected_version=3)
    engine, place = store._core.engine, (encode(("notes",)), "k")
    rows = engine.history(place, 0, store.revision, 10)
    assert [(row.version, row.base_version, row.merged) for row in rows] == [
        (4, 3, None),
        (3, 1, "union"),
        (2, 1, None),
        (1, None, None),
    ]
    for row in rows:
        assert engine.point(place, row.revision).row == row
    assert engine.point(place, None).row == rows[0]
    absent = ("", "absent")
    for places in ([place], [place, absent]):
        session = engine.session()
        try:
            heads = session.enter(1_000, places, ()).heads
        finally:
            session.rollback()
            session.release()
        assert heads == {each: rows[0] if each == place else None for each in places}
