"""Compaction: what goes, what stays, and what is said to whoever asks for what is gone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import agentmem
from agentmem import Store
from tests.contract.conftest import ManualClock, StoreMaker


@pytest.fixture
def store(make_store: StoreMaker, clock: ManualClock) -> Store:
    """Ten versions of two keys, one a minute, revisions 1 to 20; then one that stays."""
    store = make_store(blind_writes="allow")
    for number in range(10):
        clock.advance(60)
        store.put("a", {"n": number, "word": "harvest"}, agent="ann")
        store.put("b", number, namespace="team")
    store.put("still", "harvest")
    return store


def versions(store: Store, key: str, namespace: str | None = None) -> list[Any]:
    return [entry.version for entry in store.history(key, namespace=namespace)]


def state(view: Any) -> list[Any]:
    return [(e.namespace, e.key, e.version, e.value) for e in view.list()]


def test_what_can_be_read_at_the_floor_and_later_stays_the_same(store: Store) -> None:
    before = {at: state(store.snapshot(at=at)) for at in range(12, 22)}
    report = store.admin.compact(keep_revision=12)
    assert (report.floor, report.held_by, report.versions) == (12, None, 10)
    assert versions(store, "a") == [10, 9, 8, 7, 6]
    assert versions(store, "b", "team") == [10, 9, 8, 7, 6]
    assert {at: state(store.snapshot(at=at)) for at in before} == before
    assert [h.entry.value["n"] for h in store.snapshot(at=14).search("harvest")] == [6]
    with pytest.raises(agentmem.CompactedError) as caught:
        store.snapshot(at=11)
    assert caught.value.floor == 12
    assert store.admin.verify().problems == []
    assert store.admin.stats()["floor"] == 12


def test_views_of_before_are_told(store: Store) -> None:
    old = store.snapshot(at=5)
    tx = store.transaction()
    tx["mine"] = tx["a"]
    store.put("another", 1)
    store.put("another", 2)
    store.admin.compact(keep_versions=1)
    for look in (
        lambda: old.get("a"),
        old.list,
        lambda: old.search("harvest"),
        lambda: old.search("nothing of that kind"),
        tx.commit,
    ):
        with pytest.raises(agentmem.CompactedError):
            look()
    assert store.get("mine") is None


def test_by_age(store: Store, clock: ManualClock) -> None:
    clock.advance(30)
    report = store.admin.compact(timedelta(minutes=2))
    assert report.floor == 16  # committed two and a half minutes ago
    assert versions(store, "a") == [10, 9, 8]
    assert store.snapshot(at=clock.now - timedelta(minutes=2)).get("a").value["n"] == 7  # type: ignore[union-attr]
    assert store.admin.compact(timedelta(days=3)).floor == 16  # it never falls


def test_by_count_of_versions(store: Store) -> None:
    report = store.admin.compact(keep_versions=3)
    assert (report.floor, report.versions) == (21, 14)
    assert versions(store, "a") == [10, 9, 8]
    assert versions(store, "still") == [1]


def test_each_bound_keeps_what_it_keeps(store: Store) -> None:
    assert store.admin.compact(keep_revision=4, keep_versions=2).versions == 2
    assert store.admin.compact(timedelta(minutes=4), keep_versions=2).floor == 12
    assert versions(store, "a") == [10, 9, 8, 7, 6]


def test_tags_keep_what_they_name(store: Store) -> None:
    store.audit.tag("first", at=7)
    store.audit.tag("second", at=9)
    before = state(store.snapshot(at="first"))
    report = store.admin.compact(keep_versions=1)
    assert (report.floor, report.held_by) == (7, "first")
    assert state(store.snapshot(at="first")) == before
    store.audit.untag("first")
    assert store.admin.compact(keep_versions=1).floor == 9
    with pytest.raises(agentmem.CompactedError):
        store.audit.tag("late", at=8)
    store.audit.untag("second")
    assert store.admin.compact(keep_versions=1).held_by is None


def test_a_dry_run_tells_and_does_nothing(store: Store, clock: ManualClock) -> None:
    store.put("short", 1, ttl_s=5)
    store.transact(lambda _tx: "result", op_id="op")
    clock.advance(10)
    store.audit.tag("first", at=7)
    bounds: dict[str, Any] = {"keep_versions": 1, "keep_results": timedelta(seconds=1)}
    foreseen = store.admin.compact(**bounds, dry_run=True)
    assert foreseen.dry_run
    assert len(versions(store, "a")) == 10
    assert store.admin.stats()["floor"] == 0
    assert store.revision == 23
    done = store.admin.compact(**bounds)
    assert (done.floor, done.held_by, done.versions, done.results, done.expired) == (
        foreseen.floor, foreseen.held_by, foreseen.versions, foreseen.results, 1,
    )  # fmt: skip
    assert foreseen.expired == 1


def test_what_has_expired_becomes_a_tombstone_and_no_answer_changes(
    store: Store, clock: ManualClock
) -> None:
    store.put("short", "harvest", ttl_s=5)
    store.put("touched", 1, ttl_s=5)
    store.put("gone", 1, ttl_s=5)
    store.delete("gone")
    alive = store.snapshot()
    clock.advance(6)
    tx = store.transaction()
    assert tx.get("short") is None
    tx.list()
    tx.put("mine", 1)
    before = state(store), state(alive), [h.entry.key for h in store.search("harvest")]
    report = store.admin.compact()
    assert (report.expired, report.versions, report.floor) == (2, 0, 0)
    assert before == (state(store), state(alive), [h.entry.key for h in store.search("harvest")])
    tx.commit()
    newest = store.history("short")[0]
    assert (newest.deleted, newest.version) == (True, 2)
    assert store.put("short", 2, expected_version=0).version == 3
    assert store.admin.compact().expired == 0
    store.admin.compact(keep_versions=1)
    assert versions(store, "touched") == [2]
    assert store.put("touched", 1).version == 3


def test_versions_go_on_where_a_deleted_key_was(store: Store) -> None:
    store.delete("a")
    store.admin.compact(keep_versions=1)
    assert versions(store, "a") == [11]
    assert store.put("a", 1, expected_version=0).version == 12


def test_operation_ids_survive_and_results_go_by_age(store: Store, clock: ManualClock) -> None:
    store.put("once", 1, op_id="put")
    store.touch("once", 1_000, op_id="touch")
    assert store.transact(lambda _tx: "old", op_id="old") == "old"
    clock.advance(100)
    assert store.transact(lambda _tx: "new", op_id="new") == "new"
    store.put("once", 2)
    store.put("once", 3)
    store.admin.compact(keep_versions=1, keep_results=timedelta(seconds=50))
    revision = store.revision

    def never(_tx: agentmem.Transaction) -> Any:
        raise AssertionError("a known op_id runs nothing")

    assert store.transact(never, op_id="old") is None
    assert store.transact(never, op_id="new") == "new"
    with pytest.raises(agentmem.CompactedError, match="was applied at revision"):
        store.put("once", 1, op_id="put")
    with pytest.raises(agentmem.CompactedError, match="was applied at revision"):
        store.touch("once", 1_000, op_id="touch")
    with pytest.raises(agentmem.OperationMismatchError):
        store.put("once", 9, op_id="put")
    assert store.revision == revision


def test_what_hangs_on_a_version_goes_with_it(store: Store) -> None:
    for number in range(4):
        store.put("v", number, namespace="vectors", vector=[1.0, number])
        store.transact(lambda tx: tx.put("derived", tx["a"]["n"]))
    engine = store._core.engine
    assert len(engine.stored_vectors(0, 100)) == 4
    store.admin.compact(keep_versions=2)
    assert len(engine.stored_vectors(0, 100)) == 2
    assert {row.revision for row in engine.reads_of(0, 1_000)} == {27, 29}
    assert [h.entry.value for h in store.search([1.0, 3.0], namespace="vectors")] == [3]
    assert store.admin.verify().problems == []


def test_a_settled_conflict_forgets_its_copy_and_an_open_one_does_not(store: Store) -> None:
    store.set_merge("parked", "escalate")
    store.put("parked", "base")
    store.put("parked", "theirs", expected_version=1)
    store.put("parked", "ours", expected_version=1)
    store.put("parked", "ours too", expected_version=1)
    first, second = store.audit.conflicts("open")
    store.audit.resolve(first.id, "theirs")
    store.put("a", "later")
    store.admin.compact(keep_versions=1)
    assert [each.ours for each in store.audit.conflicts("open")] == ["ours too"]
    assert [each.ours for each in store.audit.conflicts("resolved")] == [None]
    assert store.audit.resolve(second.id, "ours").value == "ours too"  # type: ignore[union-attr]


def test_purged_and_compacted_history_verifies(store: Store) -> None:
    store.admin.purge("a")
    store.put("a", "again")
    store.admin.compact(keep_versions=2)
    assert versions(store, "a") == [12, 11]
    store.admin.purge(namespace="team")
    store.admin.compact(keep_versions=1)
    assert store.admin.verify().problems == []


@pytest.mark.parametrize(
    "bounds",
    [
        {"keep": timedelta(-1)},
        {"keep_versions": 0},
        {"keep_revision": -1},
        {"keep_results": timedelta(-1)},
    ],
)
def test_bounds_are_checked(store: Store, bounds: dict[str, Any]) -> None:
    with pytest.raises(agentmem.InvalidValueError):
        store.admin.compact(**bounds)


def test_a_revision_of_the_future_is_refused(store: Store) -> None:
    with pytest.raises(agentmem.FutureRevisionError):
        store.admin.compact(keep_revision=22)
    with pytest.raises(TypeError):
        store.admin.compact(5)  # type: ignore[arg-type]  # which it shall notice


def test_space_is_given_back_if_that_is_asked_for(store: Store) -> None:
    for _number in range(40):
        store.put("large", "x" * 20_000)
    before = store.admin.stats()["database_bytes"]
    store.admin.compact(keep_versions=1, vacuum=True)
    assert store.admin.stats()["database_bytes"] < before or before < 500_000
    assert store.admin.verify().problems == []


def test_a_vector_that_comes_late_does_not_come_back(store: Store) -> None:
    """It was made outside of the lock of an entry that was erased meanwhile."""
    from agentmem.engines.rows import (
        NewCommit,
    )
    from agentmem.search.beside import write_beside
    from agentmem.tail import new_vector

    store.put("p", "secret", namespace="vectors", vector=[1.0, 2.0])
    (old,) = store._core.engine.stored_vectors(0, 10)
    entry_id = old.id & ((1 << 40) - 1)
    store.admin.purge("p", namespace="vectors")
    late = NewCommit(vectors=[new_vector(1, entry_id, None, old.vector)])
    late.changes = [agentmem.engines.rows.Change("fence")]
    write_beside(store._core.engine, agentmem.Limits(), lambda _spaces: late)
    assert store._core.engine.stored_vectors(0, 10) == []


def test_a_tag_cannot_come_below_the_floor_however_early_it_was_looked_up(store: Store) -> None:
    """Between the look at the floor and the writing of the tag, another has compacted."""
    values = {"scope": "", "name": "late", "created_at": 1, "agent": None, "note": None}
    store.admin.compact(keep_versions=1)
    change = agentmem.engines.rows.Change("set_tag", {**values, "revision": 3})
    with pytest.raises(agentmem.CompactedError):
        store._core.change(change, store._scope)
    assert store.audit.tags() == []


def test_a_search_that_a_compaction_overtakes_says_so(
    store: Store, make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_store()
    old = store.snapshot(at=10)
    engine = store._core.engine
    begin = engine.reading

    class Overtaken:
        """A reading; as soon as the entries were read, another compacts."""

        def __init__(self) -> None:
            self._reading = begin()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reading, name)

        def entries(self, ids: Any, revision: int, *, now: bool) -> Any:
            rows = self._reading.entries(ids, revision, now=now)
            other.admin.compact(keep_versions=1)
            return rows

    monkeypatch.setattr(engine, "reading", Overtaken)
    with pytest.raises(agentmem.CompactedError):
        old.search("harvest")


def test_a_search_that_read_more_than_entries_looks_at_the_floor_after_that(
    make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = make_store(embedder=None), make_store(embedder=None)
    for number in range(4):
        store.put("k", number, vector=[1, number], overwrite=True)
        store.put(f"other{number}", number, vector=[2, number])
    old = store.snapshot(at=3)
    assert [hit.entry.key for hit in old.search([1, 0])] == ["other0", "k"]
    store.put("other0", 0, vector=[0, 1], overwrite=True)
    assert store.search([0, 1], k=1)[0].entry.key == "other0"
    engine = store._core.engine
    late = engine.vector_revisions

    def overtaken(*arguments: Any) -> Any:
        found = late(*arguments)
        other.admin.compact(keep_versions=1)
        return found

    # The last that is read of the difference: it may be of what is left of it.
    monkeypatch.setattr(engine, "vector_revisions", overtaken)
    with pytest.raises(agentmem.CompactedError):
        old.search([1, 0])


def test_verify_finds_nothing_wrong_where_a_compaction_overtakes_it(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("k", 1)
    engine = store._core.engine
    floor = engine.floor
    asked = 0

    def floor_after_a_compaction() -> int:
        nonlocal asked
        asked += 1
        if asked == 2:  # after the last page was read, which is empty
            for number in range(3):
                store.transact(lambda tx, number=number: tx.put("k", [tx["k"], number]))
            store.admin.compact(keep_versions=1)
        return floor()

    monkeypatch.setattr(engine, "floor", floor_after_a_compaction)
    assert store.admin.verify().problems == []
    assert asked > 2
