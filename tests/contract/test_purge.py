"""Purging: what is gone, what stays, and what everybody else sees of it."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

import agentmem
from agentmem import Store
from tests.contract.conftest import ManualClock, StoreMaker


@pytest.fixture
def store(make_store: StoreMaker) -> Store:
    store = make_store(blind_writes="allow")
    for number in range(3):
        store.put("k", {"n": number, "word": "harvest"}, namespace="team", agent="ann")
    store.put("k", "of the root")
    store.put("other", "harvest too", namespace="team")
    return store


def test_every_view_sees_the_key_as_absent(store: Store) -> None:
    before = store.snapshot()
    report = store.admin.purge("k", namespace="team")
    assert (report.deleted, report.versions) == (1, 3)
    for view in (store, before, store.snapshot(at=1), store.transaction()):
        assert view.get("k", namespace="team") is None
        assert [e.key for e in view.list("team")] == [e.key for e in view.list("team", limit=9)]
        assert "k" not in [entry.key for entry in view.list("team")]
        assert [h.entry.key for h in view.search("harvest", namespace="team")] in (["other"], [])
    assert before.namespaces() == [(), ("team",)]
    assert store.snapshot(at=3).namespaces() == []
    assert store["k"] == "of the root"
    assert before.count("team") == 1


def test_history_shows_when_and_by_whom(store: Store, clock: ManualClock) -> None:
    now = clock.advance(60)
    store.admin.purge("k", namespace="team", agent="officer", note="ticket 7")
    tombstone, *stubs = store.history("k", namespace="team")
    assert (tombstone.version, tombstone.deleted, tombstone.agent) == (4, True, "officer")
    assert tombstone.purged is None
    assert [(e.version, e.value, e.text, e.agent, e.deleted) for e in stubs] == [
        (version, None, None, "ann", False) for version in (3, 2, 1)
    ]
    for stub in stubs:
        purge = stub.purged
        assert purge is not None
        assert (purge.agent, purge.note, purge.finished) == ("officer", "ticket 7", True)
        assert purge.purged_at == now.astimezone(UTC)
        assert "purged" in repr(stub)
    assert store.log(limit=1)[0].note == "ticket 7"
    one = store.audit.version("k", 2, namespace="team")
    assert one.purged == stubs[0].purged
    with pytest.raises(agentmem.InvalidValueError, match="was purged"):
        store.audit.diff("k", 1, 2, namespace="team")
    with pytest.raises(agentmem.InvalidValueError, match="was purged"):
        store.audit.revert("k", 2, namespace="team")


def test_versions_go_on_where_they_were(store: Store) -> None:
    store.admin.purge("k", namespace="team")
    with pytest.raises(agentmem.ConflictError):
        store.put("k", 1, namespace="team", expected_version=3)
    assert store.put("k", 1, namespace="team", expected_version=0).version == 5
    store.admin.purge("k", namespace="team")
    assert store.increment("k", namespace="team").version == 7


def test_what_is_written_afterwards_is_kept(store: Store) -> None:
    store.admin.purge("k", namespace="team")
    store.put("k", "new", namespace="team")
    assert store.get("k", namespace="team").value == "new"  # type: ignore[union-attr]  # it is there
    assert [bool(e.purged) for e in store.history("k", namespace="team")] == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert [h.entry.value for h in store.search("new")] == ["new"]


def test_a_namespace_goes_with_all_below_it_and_nothing_else(store: Store) -> None:
    store.put("k", "deep", namespace="team/a/b")
    store.put("k", "neighbour", namespace="team2")
    report = store.admin.purge(namespace="team")
    assert (report.deleted, report.versions) == (3, 5)
    assert [(e.namespace, e.value) for e in store.list()] == [
        ((), "of the root"),
        (("team2",), "neighbour"),
    ]
    assert store.admin.verify().problems == []
    again = store.admin.purge(namespace="team")
    assert (again.deleted, again.versions) == (0, 0)


def test_a_deleted_and_an_expired_key_are_purged_as_well(store: Store, clock: ManualClock) -> None:
    store.put("expired", "harvest", namespace="team", ttl_s=5)
    store.put("deleted", "harvest", namespace="team")
    store.delete("deleted", namespace="team")
    alive = store.snapshot()
    clock.advance(6)
    assert alive.get("expired", namespace="team") is not None
    assert store.admin.purge("expired", namespace="team").versions == 1
    assert store.admin.purge("deleted", namespace="team").deleted == 0
    assert alive.get("expired", namespace="team") is None
    assert [bool(e.purged) for e in store.history("deleted", namespace="team")] == [False, True]
    assert store.put("expired", 1, namespace="team").version == 3


def test_what_was_read_before_is_stale_after_it(store: Store) -> None:
    def read(tx: agentmem.Transaction) -> Any:
        return tx.get("k", namespace="team")

    def scan(tx: agentmem.Transaction) -> Any:
        return tx.list("team")

    def search(tx: agentmem.Transaction) -> Any:
        return tx.search("harvest", namespace="team", k=1)

    for look in (read, scan, search):
        tx = store.transaction()
        look(tx)
        tx.put("mine", 1)
        store.admin.purge("k", namespace="team")
        assert tx.stale() != []
        with pytest.raises(agentmem.ConflictError):
            tx.commit()
        store.put("k", {"word": "harvest harvest"}, namespace="team")


def test_a_purge_can_name_neither_nothing_nor_what_never_was(store: Store) -> None:
    with pytest.raises(agentmem.InvalidValueError, match="name a key or a namespace"):
        store.admin.purge()
    with pytest.raises(agentmem.KeyMissingError, match="never written"):
        store.admin.purge("nothing")
    assert store.admin.purge(namespace="nothing").versions == 0
    store.admin.purge(namespace=())
    assert store.list() == []
    assert store.search("harvest") == []


def test_results_that_may_hold_the_value_are_erased_and_op_ids_stay(store: Store) -> None:
    put = store.put("k", "secret", namespace="team", op_id="put")
    reader = store.transact(lambda tx: tx.get("k", namespace="team").value, op_id="read")  # type: ignore[union-attr]
    scanner = store.transact(lambda tx: len(tx.list("team")), op_id="scan")
    other = store.transact(lambda tx: tx["k"], op_id="other")
    assert (reader, scanner, other) == ("secret", 2, "of the root")
    store.admin.purge("k", namespace="team")
    revision = store.revision

    def never(_tx: agentmem.Transaction) -> Any:
        raise AssertionError("a known op_id runs nothing")

    assert store.transact(never, op_id="read") is None
    assert store.transact(never, op_id="scan") is None
    assert store.transact(never, op_id="other") == "of the root"
    again = store.put("k", "something else", namespace="team", op_id="put")
    assert (again.version, again.value) == (put.version, None)
    assert store.revision == revision


def test_a_result_that_holds_the_value_is_erased_whatever_is_known_of_its_reads(
    make_store: StoreMaker,
) -> None:
    store = make_store(provenance=False)
    store.put("k", {"who": "a secret of eight"})
    found = store.transact(lambda tx: ["x", tx["k"]["who"]], op_id="read")
    assert found == ["x", "a secret of eight"]
    assert store.transact(lambda _tx: "something else", op_id="other") == "something else"
    assert store.admin.purge("k").results == 1
    assert store._core.engine.results(0, 10) == [(3, '"something else"')]


def test_a_parked_conflict_is_settled_without_its_copy(store: Store) -> None:
    store.set_merge("parked", "escalate")
    store.put("parked", "base")
    store.put("parked", "theirs", expected_version=1)
    store.put("parked", "ours", expected_version=1)
    store.admin.purge("parked")
    assert store.audit.conflicts("open") == []
    (record,) = store.audit.conflicts("resolved")
    assert record.ours is None


def test_vectors_go_with_their_entries_and_late_ones_cannot_come(store: Store) -> None:
    store.put("v", "one", namespace="vectors", vector=[1.0, 0.0])
    store.put("w", "two", namespace="vectors", vector=[0.9, 0.1])
    before = store.snapshot()
    assert [h.entry.key for h in before.search([1.0, 0.0], k=1)] == ["v"]
    store.admin.purge("v", namespace="vectors")
    for view in (store, before):
        assert [h.entry.key for h in view.search([1.0, 0.0], k=5)] == ["w"]
    assert store.admin.stats()["vectors"] == 1


def test_another_opening_sees_it_at_once(make_store: StoreMaker, store: Store) -> None:
    other = make_store()
    old = other.snapshot()
    store.put("more", "something", namespace="team")
    store.put("k", "changed since", namespace="team")
    assert [h.entry.key for h in old.search("harvest", namespace="team")] == ["k", "other"]
    store.admin.purge("k", namespace="team")
    assert [h.entry.key for h in old.search("harvest", namespace="team")] == ["other"]
    assert old.get("k", namespace="team") is None


def test_progress_is_told(store: Store) -> None:
    told: list[tuple[str, int, int]] = []
    store.admin.purge("k", namespace="team", progress=lambda *each: told.append(each))
    assert {what for what, _done, _of in told} == {
        "deleting", "erasing copies", "erasing", "cleaning",
    }  # fmt: skip
    assert told[-1][1] == told[-1][2]
