"""Merging: what happens to a write whose base has moved, if somebody knows how to merge it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import agentmem
from agentmem import (
    DELETE,
    Conflict,
    ConflictError,
    InvalidValueError,
    Limits,
    MergeError,
    Store,
    Unmergeable,
    merge,
)
from tests.contract.conftest import ManualClock, StoreMaker


@pytest.fixture
def other(make_store: StoreMaker) -> Store:
    return make_store()


def both(conflict: Conflict) -> Any:
    return sorted({*conflict.theirs, *conflict.ours})


def moved(store: Store, key: str = "k", namespace: object = "notes") -> None:
    """Version 1 is the base ["a"], version 2 is theirs ["a", "b"]."""
    store.put(key, ["a"], namespace=namespace)
    store.put(key, ["a", "b"], namespace=namespace)


def put_stale(store: Store, **options: Any) -> Any:
    return store.put("k", ["a", "c"], namespace="notes", expected_version=1, **options)


def test_a_hook_merges_a_put_of_an_older_version(store: Store, other: Store) -> None:
    seen: list[Conflict] = []

    @store.merge_hook("notes/**")
    def keep_both(conflict: Conflict) -> Any:
        seen.append(conflict)
        return both(conflict)

    moved(other)
    entry = put_stale(store)
    assert (entry.value, entry.version) == (["a", "b", "c"], 3)
    assert other.get("k", namespace="notes") == entry
    (conflict,) = seen
    assert (conflict.namespace, conflict.key, conflict.kind) == (("notes",), "k", "write")
    assert (conflict.base, conflict.theirs, conflict.ours) == (["a"], ["a", "b"], ["a", "c"])
    assert (conflict.base_version, conflict.current_version) == (1, 2)


def test_a_hook_merges_the_writes_of_a_transaction(store: Store, other: Store) -> None:
    store.merge_hook("notes/*")(both)
    store.put("k", ["a"], namespace="notes")
    tx = store.transaction()
    tx.put("k", ["a", "c"], namespace="notes")
    tx["other"] = 1
    other.put("k", ["b"], namespace="notes")
    commit = tx.commit()
    assert store.get("k", namespace="notes").value == ["a", "b", "c"]  # type: ignore[union-attr]  # it is there
    assert commit.merged == ((("notes",), "k"),)
    assert store.log(limit=1)[0].merged == commit.merged
    (change, plain) = sorted(commit.changes, key=lambda change: change.merged is None)
    assert (change.merged, change.base_version, change.version) == ("both", 1, 3)
    assert (plain.key, plain.merged) == ("other", None)


def test_a_put_that_is_not_stale_is_not_merged(store: Store) -> None:
    store.merge_hook("**")(lambda conflict: 1 / 0)
    store.put("k", 1)
    assert store.put("k", 2, expected_version=1).value == 2
    assert store.put("k", 3).value == 3
    assert store.put("k", 4, overwrite=True).value == 4
    assert store.increment("k").value == 5


def test_without_merge_a_put_is_a_strict_compare_and_set(store: Store, other: Store) -> None:
    store.merge_hook("**")(both)
    moved(other)
    with pytest.raises(ConflictError):
        put_stale(store, merge=False)
    tx = store.transaction()
    tx.put("k", ["x"], namespace="notes", merge=False)
    other.put("k", ["y"], namespace="notes")
    with pytest.raises(ConflictError):
        tx.commit()
    assert store.get("k", namespace="notes") == other.get("k", namespace="notes")


def test_a_hook_applies_to_the_keys_of_its_pattern_alone(store: Store) -> None:
    store.merge_hook("notes/*")(both)
    for namespace in ("", "other", "notes/deeper", ("notes/",)):
        moved(store, namespace=namespace)
        with pytest.raises(ConflictError):
            store.put("k", ["c"], namespace=namespace, expected_version=1)
    moved(store)
    assert put_stale(store).value == ["a", "b", "c"]


def test_the_most_specific_pattern_wins(store: Store) -> None:
    for pattern in ("**", "notes/**", "notes/k", "notes/*", "*/k"):
        store.merge_hook(pattern)(lambda conflict, pattern=pattern: pattern)
    moved(store)
    assert put_stale(store).value == "notes/k"
    moved(store, key="j")
    assert store.put("j", 1, namespace="notes", expected_version=1).value == "notes/*"
    moved(store, key="k", namespace="notes/deeper")
    assert store.put("k", 1, namespace="notes/deeper", expected_version=1).value == "notes/**"
    moved(store, key="j", namespace="x")
    assert store.put("j", 1, namespace="x", expected_version=1).value == "**"


def test_a_hook_belongs_to_the_store_object_that_registered_it(store: Store, other: Store) -> None:
    store.merge_hook("**")(both)
    moved(store)
    with pytest.raises(ConflictError):
        put_stale(other)
    assert put_stale(store).version == 3


def test_a_hook_that_raises_is_a_merge_error_and_nothing_is_written(
    store: Store, other: Store
) -> None:
    @store.merge_hook("notes/**")
    def broken(conflict: Conflict) -> Any:
        raise LookupError("no such model")

    moved(other)
    with pytest.raises(MergeError, match=r"'broken' of 'notes/k' raised LookupError") as caught:
        put_stale(store)
    assert isinstance(caught.value.__cause__, LookupError)
    assert (caught.value.namespace, caught.value.key) == (("notes",), "k")
    assert not isinstance(caught.value, agentmem.TransientError)
    assert store.revision == 2
    assert store.audit.conflicts() == []
    with store.transaction() as tx:
        tx.put("k", 1, namespace="free")
        tx.rollback()


def test_a_merge_error_is_never_retried(store: Store, other: Store) -> None:
    calls: list[int] = []

    @store.merge_hook("k")
    def broken(conflict: Conflict) -> Any:
        calls.append(1)
        raise LookupError

    def work(tx: agentmem.Transaction) -> None:
        tx["k"] = 1
        other.put("k", 2)

    with pytest.raises(MergeError):
        store.transact(work, merge=True)
    assert len(calls) == 1


def test_a_hook_that_returns_no_value_is_a_merge_error(store: Store) -> None:
    store.merge_hook("**")(lambda conflict: object())
    moved(store)
    with pytest.raises(MergeError) as caught:
        put_stale(store)
    assert isinstance(caught.value.__cause__, InvalidValueError)
    assert store.revision == 2


def test_unmergeable_is_a_conflict(store: Store) -> None:
    @store.merge_hook("**")
    def refuse(conflict: Conflict) -> Any:
        raise Unmergeable("they disagree on the budget")

    moved(store)
    with pytest.raises(ConflictError) as caught:
        put_stale(store)
    assert caught.value.conflicts[0].theirs == ["a", "b"]
    assert caught.value.__cause__ is None
    assert store.revision == 2


def test_the_conflict_tells_why_the_hook_could_not_merge(store: Store) -> None:
    @store.merge_hook("**")
    def refuse(conflict: Conflict) -> Any:
        raise Unmergeable("they disagree on the budget")

    moved(store)
    with pytest.raises(ConflictError, match="they disagree on the budget"):
        put_stale(store)


def test_a_hook_sees_deletes_and_may_delete(store: Store, clock: ManualClock) -> None:
    seen: list[tuple[Any, Any, Any]] = []

    @store.merge_hook("notes/**")
    def remember(conflict: Conflict) -> Any:
        seen.append((conflict.base, conflict.theirs, conflict.ours))
        return DELETE if conflict.ours is DELETE else ["merged"]

    moved(store)
    tombstone = store.delete("k", namespace="notes", expected_version=1)
    assert tombstone is not None
    assert (tombstone.deleted, tombstone.version) == (True, 3)
    assert put_stale(store).value == ["merged"]
    store.put("e", 1, namespace="notes", ttl_s=10)
    clock.advance(10)
    store.put("e", 2, namespace="notes", expected_version=1)
    store.put("n", None, namespace="notes")
    store.put("n", 5, namespace="notes", expected_version=0)
    assert seen == [
        (["a"], ["a", "b"], DELETE),
        (["a"], DELETE, ["a", "c"]),
        (1, DELETE, 2),
        (None, None, 5),
    ]


def test_a_hook_is_told_absence_from_null_by_the_entries(store: Store) -> None:
    seen: list[Conflict] = []
    store.merge_hook("**")(seen.append)
    store.put("k", None)
    store.put("k", 1, expected_version=0)
    (conflict,) = seen
    assert (conflict.base, conflict.base_entry) == (None, None)
    assert (conflict.theirs, conflict.theirs_entry is None) == (None, False)


@pytest.mark.parametrize("strategy", ["theirs", "escalate"])
def test_a_put_may_be_merged_into_an_absent_key(store: Store, strategy: str) -> None:
    store.set_merge("k", strategy)
    store.put("k", 1)
    store.delete("k")
    store.put("k", 2, expected_version=1)
    assert "k" not in store


def test_a_hook_runs_again_if_the_key_moves_meanwhile(store: Store, other: Store) -> None:
    theirs: list[Any] = []

    @store.merge_hook("notes/**")
    def slow(conflict: Conflict) -> Any:
        theirs.append(conflict.theirs)
        if len(theirs) < 4:
            other.append("k", len(theirs), namespace="notes")
        return [*conflict.theirs, "ours"]

    moved(store)
    assert put_stale(store).value == ["a", "b", 1, 2, 3, "ours"]
    assert theirs == [["a", "b"], ["a", "b", 1], ["a", "b", 1, 2], ["a", "b", 1, 2, 3]]


def test_a_hook_that_is_overtaken_too_often_gives_up(make_store: StoreMaker, other: Store) -> None:
    store = make_store(limits=Limits(max_merge_rounds=3))

    @store.merge_hook("notes/**")
    def slow(conflict: Conflict) -> Any:
        other.append("k", "more", namespace="notes")
        return both(conflict)

    moved(store)
    with pytest.raises(ConflictError, match="moved 3 times while it was merged"):
        put_stale(store)


def test_several_keys_of_one_transaction_are_merged_together(store: Store, other: Store) -> None:
    store.merge_hook("notes/**")(both)
    store.set_merge("n/*", "counter")
    store.put("k", ["a"], namespace="notes")
    store.put("n", 1, namespace="n")
    tx = store.transaction()
    tx.put("k", ["c"], namespace="notes")
    tx.put("n", 2, namespace="n")
    other.put("k", ["b"], namespace="notes")
    other.put("n", 11, namespace="n")
    commit = tx.commit()
    assert commit.merged == ((("n",), "n"), (("notes",), "k"))
    assert [entry.value for entry in store.list()] == [12, ["b", "c"]]


def test_one_key_that_cannot_be_merged_fails_them_all(store: Store, other: Store) -> None:
    store.merge_hook("notes/**")(both)
    store.put("k", ["a"], namespace="notes")
    tx = store.transaction()
    tx.put("k", ["c"], namespace="notes")
    tx.put("free", 1)
    other.put("k", ["b"], namespace="notes")
    other.put("free", 2)
    with pytest.raises(ConflictError) as caught:
        tx.commit()
    assert "free" in [conflict.key for conflict in caught.value.conflicts]
    assert store.get("k", namespace="notes").value == ["b"]  # type: ignore[union-attr]  # it is there


# --- a stale read beside a merge ---


def read_and_write(tx: agentmem.Transaction) -> None:
    tx.get("k", namespace="notes")
    tx.put("k", ["a", "c"], namespace="notes")


Work = Callable[[agentmem.Transaction], None]
EXCUSED: dict[str, Work] = {
    "nothing else": lambda tx: None,
    "an atomic operation": lambda tx: tx.increment("n"),
    "a read that holds": lambda tx: tx.__contains__("steady"),
}
NOT_EXCUSED: dict[str, Work] = {
    "a second put": lambda tx: tx.put("second", 1),
    "a delete": lambda tx: tx.delete("steady"),
    "a stale read of another key": lambda tx: tx.__contains__("moving"),
    "a scan": lambda tx: tx.list("notes") and None,  # type: ignore[func-returns-value]  # for its effect
}


def merged_read(store: Store, other: Store, beside: Work) -> agentmem.Transaction:
    store.put("steady", 1)
    store.put("k", ["a"], namespace="notes")
    tx = store.transaction()
    read_and_write(tx)
    beside(tx)
    other.put("k", ["b"], namespace="notes")
    other.put("moving", 1)
    return tx


@pytest.mark.parametrize("resolver", ["hook", "stored"])
@pytest.mark.parametrize("beside", EXCUSED.values(), ids=EXCUSED)
def test_a_stale_read_is_excused_if_its_key_is_the_only_write_and_was_merged(
    store: Store, other: Store, resolver: str, beside: Work
) -> None:
    if resolver == "hook":
        store.merge_hook("notes/**")(both)
    else:
        store.set_merge("notes/**", "union")
    commit = merged_read(store, other, beside).commit()
    assert commit.merged == ((("notes",), "k"),)
    assert sorted(store.get("k", namespace="notes").value) in (["a", "b", "c"], ["b", "c"])  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("resolver", ["hook", "stored"])
@pytest.mark.parametrize("beside", NOT_EXCUSED.values(), ids=NOT_EXCUSED)
def test_a_stale_read_beside_more_than_its_merged_write_is_a_conflict(
    store: Store, other: Store, resolver: str, beside: Work
) -> None:
    if resolver == "hook":
        store.merge_hook("notes/**")(both)
    else:
        store.set_merge("notes/**", "union")
    with pytest.raises(ConflictError):
        merged_read(store, other, beside).commit()
    assert store.get("k", namespace="notes").value == ["b"]  # type: ignore[union-attr]  # it is there


def test_a_stale_read_of_a_key_that_is_only_added_to_is_not_excused(
    store: Store, other: Store
) -> None:
    store.set_merge("**", "counter")
    store.put("n", 1)
    tx = store.transaction()
    tx.get("n")
    tx.increment("n")
    other.increment("n")
    with pytest.raises(ConflictError):
        tx.commit()


# --- strategies that the store keeps ---


def test_a_stored_strategy_is_seen_by_every_store_object(
    make_store: StoreMaker, store: Store, other: Store
) -> None:
    assert other.merges() == []
    store.set_merge("notes/**", merge.union)
    store.set_merge("stats/*", "counter")
    assert other.merges() == [("notes/**", "union"), ("stats/*", "counter")]
    moved(store)
    entry = put_stale(other)
    assert (entry.value, entry.version) == (["a", "b", "c"], 3)
    other.close()
    assert make_store().merges() == store.merges()


def test_a_stored_strategy_may_have_fields(store: Store, other: Store) -> None:
    store.set_merge("docs/*", merge.model({"tags": merge.union, "edits": "counter"}))
    store.put("d", {"tags": ["a"], "edits": 1, "title": "x"}, namespace="docs")
    store.put("d", {"tags": ["a", "b"], "edits": 2, "title": "x"}, namespace="docs")
    entry = other.put(
        "d", {"tags": ["c"], "edits": 3, "title": "y"}, namespace="docs", expected_version=1
    )
    assert entry.value == {"tags": ["b", "c"], "edits": 4, "title": "y"}


def test_a_stored_strategy_can_be_replaced_and_forgotten(store: Store, other: Store) -> None:
    store.set_merge("k", "counter")
    store.set_merge("k", "maximum")
    assert other.merges() == [("k", "maximum")]
    store.put("k", 1)
    store.put("k", 5)
    assert other.put("k", 3, expected_version=1).value == 5
    other.set_merge("k", None)
    assert store.merges() == []
    with pytest.raises(ConflictError):
        store.put("k", 3, expected_version=1)
    with pytest.raises(InvalidValueError, match="no merge strategy is stored for 'k'"):
        store.set_merge("k", None)


def test_an_unknown_strategy_is_refused(store: Store) -> None:
    for strategy in ("onion", {"model": 1}, 5):
        with pytest.raises((InvalidValueError, TypeError)):
            store.set_merge("k", strategy)
    with pytest.raises(InvalidValueError):
        store.set_merge("a//b", "union")
    assert store.merges() == []


def test_a_stored_strategy_that_cannot_merge_is_a_conflict(store: Store) -> None:
    store.set_merge("**", "counter")
    moved(store)
    with pytest.raises(ConflictError, match=r"counter: .* not a number"):
        put_stale(store)


def test_a_large_merge_by_a_stored_strategy_runs_outside_the_lock(make_store: StoreMaker) -> None:
    store = make_store(limits=Limits(max_merge_bytes=10))
    store.set_merge("**", "union")
    moved(store)
    assert put_stale(store).value == ["a", "b", "c"]


def test_escalate_parks_ours_as_an_open_conflict(store: Store, other: Store) -> None:
    store.set_merge("budget", "escalate")
    store.put("budget", 100)
    store.put("budget", 200, agent="ann", overwrite=True)
    entry = other.put("budget", 300, expected_version=1, agent="bob")
    assert entry.value == 200
    (parked,) = store.audit.conflicts("open")
    assert (parked.key, parked.ours, parked.agent, parked.strategy) == (
        "budget",
        300,
        "bob",
        "escalate",
    )
    assert store.admin.stats()["open_conflicts"] == 1


@pytest.mark.parametrize(
    ("take", "value", "version"), [("theirs", 200, 3), ("ours", 300, 4), ([5], [5], 4)]
)
def test_a_person_resolves_what_was_parked(
    store: Store, other: Store, take: Any, value: Any, version: int
) -> None:
    store.set_merge("budget", "escalate")
    store.put("budget", 100)
    store.put("budget", 200)
    store.put("budget", 300, expected_version=1)
    (parked,) = store.audit.conflicts("open")
    entry = other.audit.resolve(parked.id, take, agent="carla", note="called them")
    assert (entry is None) == (take == "theirs")
    assert store["budget"] == value
    assert store.history("budget")[0].version == version
    assert store.audit.conflicts("open") == []
    (settled,) = store.audit.conflicts("resolved")
    assert (settled.id, settled.note, settled.revision) == (parked.id, "called them", 4)
    commit = store.log(limit=1)[0]
    assert (commit.agent, commit.note) == ("carla", "called them")
    for id in (parked.id, 99):
        with pytest.raises(InvalidValueError, match="no open conflict"):
            store.audit.resolve(id, "ours")


def test_a_parked_delete_can_be_resolved(store: Store) -> None:
    store.set_merge("k", "escalate")
    store.put("k", 1)
    store.put("k", 2)
    kept = store.delete("k", expected_version=1)
    assert kept is not None
    assert kept.value == 2
    (parked,) = store.audit.conflicts("open")
    tombstone = store.audit.resolve(parked.id, "ours")
    assert tombstone is not None
    assert tombstone.deleted
    assert "k" not in store


def test_no_op_id_of_a_user_keeps_a_conflict_open(store: Store) -> None:
    store.set_merge("k", "escalate")
    store.put("k", 1)
    store.put("k", 2)
    store.put("k", 3, expected_version=1)
    (parked,) = store.audit.conflicts("open")
    store.put("other", 1, op_id=f"resolve conflict {parked.id}")
    store.audit.resolve(parked.id, "ours")
    assert store["k"] == 3


def test_a_root_key_with_a_slash_under_a_pattern_warns(store: Store, other: Store) -> None:
    store.merge_hook("notes/**")(both)
    store.set_merge("stats/*/total", "counter")
    with pytest.warns(UserWarning, match=r"did you mean namespace='notes', key='plan'"):
        store.put("notes/plan", 1)
    with pytest.warns(UserWarning, match="namespace='stats/a'"):
        other.put("stats/a/total", 1)
    store.put("notes/plan", 2)
    store.put("plan/notes", 1)
    with store.transaction() as tx, pytest.warns(UserWarning, match="does not apply"):
        tx["notes/other"] = 1


def test_a_root_key_with_a_slash_does_not_warn_if_the_pattern_applies_to_it(store: Store) -> None:
    store.set_merge("**", "ours")
    store.put("notes/plan", 1)
    store.put("notes/plan", 2)
    assert store.put("notes/plan", 3, expected_version=1).value == 3
