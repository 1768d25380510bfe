"""Undoing: a key goes back to an older version, a commit is undone by a new one."""

from __future__ import annotations

from typing import Any

import pytest

import agentmem
from agentmem import (
    DELETE,
    AccessDeniedError,
    CompactedError,
    ConflictError,
    Entry,
    InvalidValueError,
    KeyMissingError,
    OperationMismatchError,
    Reversal,
    RevisionError,
    Store,
    Undone,
)
from tests.contract.conftest import ManualClock, StoreMaker
from tests.embedders import WordsEmbedder


def outcomes(reversal: Reversal) -> dict[str, str]:
    return {key.key: key.outcome for key in reversal.keys}


def values(store: Store) -> dict[str, Any]:
    return {"/".join((*entry.namespace, entry.key)): entry.value for entry in store.list()}


# One key.


def test_revert_puts_an_older_value_back_as_a_new_version(
    make_store: StoreMaker, store: Store
) -> None:
    store.put("plan", {"days": 3}, namespace="n")
    store.put("plan", {"days": 9}, namespace="n", overwrite=True)
    entry = store.audit.revert(
        "plan", 1, namespace="n", agent="eve", note="wrong", metadata={"ticket": 4}
    )
    assert entry is not None
    assert (entry.version, entry.value, entry.agent) == (3, {"days": 3}, "eve")
    other = make_store()
    assert other.get("plan", namespace="n") == entry
    assert [each.value for each in other.history("plan", namespace="n")] == [
        {"days": 3},
        {"days": 9},
        {"days": 3},
    ]
    commit = other.log(limit=1)[0]
    assert (commit.note, commit.metadata, commit.agent) == ("wrong", {"ticket": 4}, "eve")
    assert commit.changes[0].base_version == 2


def test_a_revert_says_in_the_log_what_it_is(store: Store) -> None:
    store.put("k", 1)
    store.put("k", 2)
    store.audit.revert("k", 1)
    store.audit.revert_commit(2)
    assert [commit.note for commit in store.log(limit=1)] == ["revert to version 1"]
    store.put("k", 3)
    store.audit.revert_commit(4)
    assert [commit.note for commit in store.log(limit=1)] == ["revert of revision 4"]
    assert store.log(limit=1)[0].metadata == {"reverts": 4}


@pytest.mark.parametrize("version", [0, 2])
def test_revert_to_an_absent_or_deleted_version_deletes(store: Store, version: int) -> None:
    store.put("k", 1)
    store.delete("k")
    store.put("k", 3)
    entry = store.audit.revert("k", version)
    assert entry is not None
    assert (entry.deleted, entry.version) == (True, 4)
    assert "k" not in store
    assert store.audit.revert("k", version) is None
    assert store.revision == 4


def test_revert_brings_a_deleted_key_back(store: Store) -> None:
    first = store.put("k", {"a": 1})
    store.delete("k")
    entry = store.audit.revert("k", 1)
    assert entry is not None
    assert (entry.version, entry.value) == (3, first.value)
    assert store.log(limit=1)[0].changes[0].base_version == 0


def test_revert_to_the_version_that_is_there_writes_nothing(store: Store) -> None:
    entry = store.put("k", 1)
    assert store.audit.revert("k", 1) == entry
    assert store.revision == 1


@pytest.mark.parametrize("version", [3, -1, 2**70])
def test_revert_to_a_version_that_is_not_there_is_refused(store: Store, version: int) -> None:
    store.put("k", 1)
    with pytest.raises(KeyMissingError, match=f"no version {version}"):
        store.audit.revert("k", version)
    with pytest.raises(KeyMissingError):
        store.audit.revert("other", 1)
    assert store.revision == 1


def test_a_version_is_an_int(store: Store) -> None:
    store.put("k", 1)
    for version in (False, "1", 1.0, None):
        with pytest.raises(TypeError):
            store.audit.revert("k", version)  # type: ignore[arg-type]  # the point of the test
    assert store.revision == 1


def test_a_write_between_the_look_and_the_commit_is_a_conflict_or_merged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = store._core
    run = core.run

    def write_first(request: Any) -> Any:
        monkeypatch.setattr(core, "run", run)
        store.put("k", [1, 2, 9], agent="bob", overwrite=True)
        return run(request)

    store.put("k", [1])
    store.put("k", [1, 2])
    monkeypatch.setattr(core, "run", write_first)
    with pytest.raises(ConflictError, match="'bob'"):
        store.audit.revert("k", 1)
    assert store["k"] == [1, 2, 9]
    store.set_merge("k", "union")
    store.audit.revert("k", 2)
    monkeypatch.setattr(core, "run", write_first)
    assert store.audit.revert("k", 1) is not None
    assert store["k"] == [1, 9]
    monkeypatch.setattr(core, "run", write_first)
    with pytest.raises(ConflictError):
        store.audit.revert("k", 1, merge=False)


# What goes with a value.


def test_text_and_hiding_come_back_with_the_value(store: Store) -> None:
    store.put("k", {"n": 1}, text="a walk in lisbon")
    store.put("k", {"n": 2}, text="a flight to rome")
    store.put("hidden", "secret lisbon", text=False)
    store.put("hidden", "open rome")
    store.audit.revert("k", 1)
    store.audit.revert("hidden", 1)
    assert [hit.entry.key for hit in store.search("lisbon", mode="text")] == ["k"]
    assert store.search("rome", mode="text") == []
    store.audit.revert_commit(5)
    store.audit.revert_commit(6)
    assert [hit.entry.key for hit in store.search("rome", mode="text")] == ["hidden", "k"]
    assert store.search("lisbon", mode="text") == []


def test_a_given_vector_comes_back_with_the_value(store: Store) -> None:
    store.put("k", "x", vector=[1.0, 0.0], namespace="n")
    store.put("k", "y", vector=[0.0, 1.0], namespace="n")
    store.put("other", "z", vector=[0.6, 0.8], namespace="n")
    assert [hit.entry.key for hit in store.search([1.0, 0.0])] == ["other", "k"]
    store.audit.revert("k", 1, namespace="n")
    hits = store.search([1.0, 0.0])
    assert [(hit.entry.key, round(hit.distance or 0, 6)) for hit in hits] == [
        ("k", 0.0),
        ("other", 0.4),
    ]


def test_an_embedder_is_not_asked_again_for_what_has_its_vector(make_store: StoreMaker) -> None:
    embedder = WordsEmbedder()
    store = make_store(embedder=embedder)
    store.put("k", "aaa")
    store.put("k", "bbb")
    asked = len(embedder.texts)
    store.audit.revert("k", 1)
    assert len(embedder.texts) == asked
    assert store.search("aaa", mode="vector")[0].distance == pytest.approx(0, abs=1e-6)


def test_an_expiry_ahead_is_kept_to_the_microsecond(store: Store, clock: ManualClock) -> None:
    first = store.put("k", 1, ttl_s=100)
    store.put("k", 2)
    clock.advance(30)
    entry = store.audit.revert("k", 1)
    assert entry is not None
    assert entry.expires_at == first.expires_at
    store.put("k", 3)
    clock.advance(1)
    store.audit.revert_commit(4)
    assert store.get("k") is not None
    assert store.history("k")[0].expires_at == first.expires_at
    clock.advance(69)
    assert "k" not in store


def test_a_version_that_has_expired_lives_again_for_as_long(
    store: Store, clock: ManualClock
) -> None:
    store.put("k", 1, ttl_s=100)
    clock.advance(200)
    entry = store.audit.revert("k", 1)
    assert entry is not None
    assert entry.expires_at is not None
    assert (entry.expires_at - clock()).total_seconds() == 100
    assert store["k"] == 1


def test_a_time_to_live_can_be_given(store: Store, clock: ManualClock) -> None:
    store.put("k", 1)
    store.put("k", 2)
    for version in (1, 3):
        entry = store.audit.revert("k", version, ttl_s=7)
        assert entry is not None
        assert entry.expires_at is not None
        assert (entry.expires_at - clock()).total_seconds() == 7
    with pytest.raises(InvalidValueError):
        store.audit.revert("k", 2, ttl_s=0)


def test_undoing_a_commit_does_not_bring_back_what_would_have_expired_since(
    store: Store, clock: ManualClock
) -> None:
    store.put("k", 1, ttl_s=100)
    store.put("k", 2)
    clock.advance(200)
    reversal = store.audit.revert_commit(2)
    assert outcomes(reversal) == {"k": "undone"}
    assert store.history("k")[0].deleted


def test_undoing_takes_what_had_expired_before_the_commit_for_absent(
    store: Store, clock: ManualClock
) -> None:
    store.put("k", 1, ttl_s=10)
    clock.advance(20)
    store.put("k", 2)
    assert store.audit.revert_commit(2).keys == (Undone((), "k", 2, 0, 2, None, "undone"),)
    assert "k" not in store


# Operation ids.


def test_a_revert_with_an_op_id_is_done_once(make_store: StoreMaker, store: Store) -> None:
    store.put("k", 1)
    store.put("k", 2)
    first = store.audit.revert("k", 1, op_id="op")
    store.put("k", 5)
    assert make_store().audit.revert("k", 1, op_id="op") == first
    assert store["k"] == 5
    with pytest.raises(OperationMismatchError):
        store.audit.revert("k", 2, op_id="op")
    with pytest.raises(OperationMismatchError):
        store.audit.revert_commit(2, op_id="op")
    with pytest.raises(OperationMismatchError):
        store.put("k", 1, op_id="op")
    assert store.audit.revert("k", 2, op_id="op", on_mismatch="replay") == first


def test_undoing_with_an_op_id_is_done_once(make_store: StoreMaker, store: Store) -> None:
    store.put("k", 1)
    store.put("k", 2)
    first = store.audit.revert_commit(2, op_id="op").commit
    assert first is not None
    store.put("k", 5)
    again = make_store().audit.revert_commit(2, op_id="op")
    assert again.commit is not None
    assert (again.commit.revision, again.commit.replayed, again.keys) == (3, True, ())
    assert store["k"] == 5
    with pytest.raises(OperationMismatchError):
        store.audit.revert_commit(1, op_id="op")


def test_an_op_id_that_found_nothing_to_do_is_kept(store: Store) -> None:
    store.put("k", 1)
    store.audit.revert("k", 1, op_id="op")
    store.put("k", 2)
    assert store.audit.revert("k", 1, op_id="op") is None
    assert store["k"] == 2


# A commit.


def test_a_commit_is_undone_by_a_new_one(make_store: StoreMaker, store: Store) -> None:
    store.put_many({"changed": 1, "deleted": {"a": [1]}, "other": 0})
    with store.transaction(agent="bob") as tx:
        tx["changed"] = 2
        tx["made"] = "new"
        tx.delete("deleted")
    store.put("other", 1)
    reversal = store.audit.revert_commit(2, agent="eve", note="no", metadata={"why": "test"})
    assert outcomes(reversal) == {"changed": "undone", "deleted": "undone", "made": "undone"}
    assert reversal.keys[0] == Undone((), "changed", 2, 1, 2, "bob", "undone")
    commit = reversal.commit
    assert commit is not None
    other = make_store()
    assert values(other) == {"changed": 1, "deleted": {"a": [1]}, "other": 1}
    assert other.log(limit=1) == [commit]
    assert (commit.agent, commit.note) == ("eve", "no")
    assert commit.metadata == {"why": "test", "reverts": 2}
    assert [change.operation for change in commit.changes] == ["put", "put", "delete"]


def test_what_undid_is_undone_the_same_way(store: Store) -> None:
    store.put("k", 1)
    store.put_many({"k": 2, "l": 3}, overwrite=True)
    store.audit.revert_commit(2)
    assert values(store) == {"k": 1}
    store.audit.revert_commit(3)
    assert values(store) == {"k": 2, "l": 3}
    store.audit.revert_commit(4)
    assert values(store) == {"k": 1}


def test_a_key_written_since_is_a_conflict_that_names_it(store: Store) -> None:
    store.put_many({"a": 1, "b": 1, "c": 1})
    store.put_many({"a": 2, "b": 2, "c": 2}, overwrite=True)
    store.put("b", 3, agent="bob", overwrite=True)
    store.delete("c", agent="bob", overwrite=True)
    for merge in (True, False):
        with pytest.raises(ConflictError, match=r"'b' \(now version 3 by 'bob'\), 'c'") as caught:
            store.audit.revert_commit(2, merge=merge)
        assert [conflict.key for conflict in caught.value.conflicts] == ["b", "c"]
        conflict = caught.value.conflicts[0]
        assert (conflict.base, conflict.theirs, conflict.ours) == (2, 3, 1)
    assert values(store) == {"a": 2, "b": 3}
    assert store.revision == 4
    rejected = store.audit.conflicts("rejected")
    assert [record.key for record in rejected] == ["b", "c", "b", "c"]


def test_a_key_written_since_is_merged_by_its_strategy_or_hook(store: Store) -> None:
    store.set_merge("tags", "union")
    store.set_merge("plan", "json")

    @store.merge_hook("hooked")
    def tell(conflict: agentmem.Conflict) -> Any:
        return [conflict.base, conflict.theirs, conflict.ours]

    store.put_many({"tags": ["a"], "plan": {"days": 3, "city": "Rome"}, "hooked": 1})
    many = {"tags": ["a", "b"], "plan": {"days": 9, "city": "Rome"}, "hooked": 2}
    store.put_many(many, overwrite=True)
    store.append("tags", "c")
    store.patch("plan", {"city": "Oslo"})
    store.put("hooked", 3)
    assert outcomes(store.audit.revert_commit(2, dry_run=True)) == dict.fromkeys(many, "merged")
    reversal = store.audit.revert_commit(2)
    assert {key.key: (key.outcome, key.strategy) for key in reversal.keys} == {
        "hooked": ("merged", "tell"),
        "plan": ("merged", "json"),
        "tags": ("merged", "union"),
    }
    assert values(store) == {
        "tags": ["a", "c"],
        "plan": {"days": 3, "city": "Oslo"},
        "hooked": [2, 3, 1],
    }
    assert [record.status for record in store.audit.conflicts()] == ["merged"] * 3


def test_a_hook_may_delete_or_refuse(store: Store) -> None:
    answers: list[Any] = [DELETE]

    @store.merge_hook("k")
    def decide(conflict: agentmem.Conflict) -> Any:
        if not answers:
            raise agentmem.Unmergeable("ask a person")
        return answers.pop()

    for value in (1, 2, 3):
        store.put("k", value)
    store.audit.revert_commit(2)
    assert "k" not in store
    store.put("k", 4)
    with pytest.raises(ConflictError):
        store.audit.revert_commit(3)


def test_merging_can_be_ruled_out(store: Store) -> None:
    store.set_merge("n", "counter")
    store.increment("n")
    store.increment("n")
    with pytest.raises(ConflictError, match="'n'"):
        store.audit.revert_commit(1, merge=False)
    assert outcomes(store.audit.revert_commit(1, merge=False, dry_run=True)) == {"n": "conflict"}


def test_atomic_operations_are_undone_among_others_of_their_kind(store: Store) -> None:
    store.put_many({"list": [0], "set": ["x"], "doc": {"a": 1, "b": 1}})
    with store.transaction() as tx:
        tx.increment("n", 5)
        tx.append("list", 1, 1)
        tx.add_to_set("set", "x", "y")
        tx.patch("doc", {"a": 2, "c": 3})
        tx.append("born", "it")
    store.increment("n", 2)
    store.append("list", 2)
    store.add_to_set("set", "z")
    store.patch("doc", {"b": 7})
    store.append("born", "later")
    reversal = store.audit.revert_commit(2)
    assert set(outcomes(reversal).values()) == {"merged"}
    after = {"list": [0, 2], "set": ["x", "z"], "doc": {"a": 1, "b": 7}, "n": 2, "born": ["later"]}
    assert values(store) == after
    # And back again, with others in between.
    store.increment("n")
    assert reversal.commit is not None
    store.audit.revert_commit(reversal.commit.revision or 0)
    assert store["n"] == 8
    assert store["list"] == [0, 1, 1, 2]


def test_an_atomic_operation_after_which_something_else_came_is_a_conflict(store: Store) -> None:
    store.put("list", [0])
    store.append("list", 1)
    store.put("list", [1, 0])
    with pytest.raises(ConflictError, match="'list'"):
        store.audit.revert_commit(2)
    store.increment("n")
    store.put("n", "five")
    with pytest.raises(ConflictError, match="'n'"):
        store.audit.revert_commit(4)
    store.delete("n")
    store.put("n", 9)
    assert store.audit.revert_commit(4).keys[0].outcome == "merged"


def test_undoing_twice_takes_nothing_off_twice(store: Store) -> None:
    store.increment("n", 5)
    store.increment("n", 1)
    first = store.audit.revert_commit(1).commit
    assert first is not None
    assert store["n"] == 1
    with pytest.raises(InvalidValueError, match="revision 3 has undone this already"):
        store.audit.revert_commit(1)
    assert store["n"] == 1
    store.audit.revert_commit(3)
    assert store["n"] == 6
    store.increment("n", 10)
    store.audit.revert_commit(1)
    assert store["n"] == 11


def test_a_key_that_is_as_before_already_stays(store: Store) -> None:
    store.put_many({"a": 1, "b": 1})
    store.put_many({"a": 2, "b": 2, "c": 2}, overwrite=True)
    store.put("a", 1)
    store.delete("c")
    reversal = store.audit.revert_commit(2)
    assert outcomes(reversal) == {"a": "unchanged", "b": "undone", "c": "unchanged"}
    assert reversal.commit is not None
    assert [change.key for change in reversal.commit.changes] == ["b"]
    assert store.audit.revert_commit(1, dry_run=True).commit is None


def test_a_key_that_is_as_before_and_then_moves_is_looked_at_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = store._core
    run = core.run

    def write_first(request: Any) -> Any:
        monkeypatch.setattr(core, "run", run)
        store.put("a", 3)
        return run(request)

    store.put_many({"a": 1, "b": 1})
    store.put_many({"a": 2, "b": 2}, overwrite=True)
    store.put("a", 1)
    monkeypatch.setattr(core, "run", write_first)
    with pytest.raises(ConflictError, match="'a'") as caught:
        store.audit.revert_commit(2)
    assert [conflict.kind for conflict in caught.value.conflicts] == ["write"]
    assert values(store) == {"a": 3, "b": 2}
    assert [record.kind for record in store.audit.conflicts()] == ["write"]


def test_a_key_that_moves_and_is_as_before_each_time_is_a_conflict_in_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = store._core
    run = core.run
    looked = 0

    def write_first(request: Any) -> Any:
        nonlocal looked
        looked += 1
        with monkeypatch.context() as patched:
            patched.setattr(core, "run", run)
            for value in (9, 1):
                store.put("a", value, overwrite=True)
            return run(request)

    store.put_many({"a": 1, "b": 1})
    store.put_many({"a": 2, "b": 2}, overwrite=True)
    store.put("a", 1)
    monkeypatch.setattr(core, "run", write_first)
    with pytest.raises(ConflictError, match="'a'") as caught:
        store.audit.revert_commit(2)
    assert looked == 20
    assert [conflict.kind for conflict in caught.value.conflicts] == ["read"]
    assert values(store) == {"a": 1, "b": 2}
    assert [record.kind for record in store.audit.conflicts()] == ["read"]


def test_nothing_to_undo_writes_nothing(store: Store) -> None:
    with store.transaction(op_id="op"):
        pass
    assert store.audit.revert_commit(1) == Reversal(None, ())
    store.put("k", 1)
    store.delete("k")
    assert outcomes(store.audit.revert_commit(2)) == {"k": "unchanged"}
    assert store.revision == 3


def test_a_dry_run_tells_all_and_writes_nothing(store: Store) -> None:
    store.set_merge("merged", "union")
    store.put_many({"merged": ["a"], "same": 1, "clean": 1, "moved": 1})
    store.put_many({"merged": ["b"], "same": 2, "clean": 2, "moved": 2}, overwrite=True)
    store.append("merged", "c")
    store.put("same", 1)
    store.put("moved", 3, agent="bob", overwrite=True)
    found = store.audit.revert_commit(2, dry_run=True, op_id="op")
    assert found.commit is None
    assert found.keys == (
        Undone((), "clean", 2, 1, 2, None, "undone"),
        Undone((), "merged", 2, 1, 3, None, "merged", "union"),
        Undone((), "moved", 2, 1, 3, "bob", "conflict"),
        Undone((), "same", 2, 1, 3, None, "unchanged"),
    )
    assert (store.revision, store.audit.conflicts()) == (5, [])


@pytest.mark.parametrize("revision", [0, -1, 2, 2**70])
def test_a_revision_that_is_not_there_is_refused(store: Store, revision: int) -> None:
    store.put("k", 1)
    with pytest.raises((RevisionError, InvalidValueError)):
        store.audit.revert_commit(revision)
    assert store.revision == 1


# Scopes.


def test_a_view_undoes_what_lies_inside(store: Store) -> None:
    view = store.scoped("team", agent="ann")
    view.put("k", 1)
    view.put("k", 2)
    reversal = view.audit.revert_commit(2)
    assert reversal.keys == (Undone((), "k", 2, 1, 2, "ann", "undone"),)
    assert store.get("k", namespace="team") is not None
    assert view.log(limit=1)[0].agent == "ann"
    entry = view.audit.revert("k", 2)
    assert isinstance(entry, Entry)
    assert (entry.namespace, entry.value) == ((), 2)


def test_a_view_undoes_no_commit_that_reaches_beyond_it(store: Store) -> None:
    view = store.scoped("team")
    with store.transaction() as tx:
        tx.put("k", 1, namespace="team")
        tx.put("secret", 1, namespace="other")
    store.put("secret", 2, namespace="other")
    with pytest.raises(AccessDeniedError, match="outside of this view") as caught:
        view.audit.revert_commit(1)
    assert "secret" not in str(caught.value)
    with pytest.raises(RevisionError, match="nothing that this view sees"):
        view.audit.revert_commit(2)
    assert store.revision == 2


@pytest.mark.parametrize(
    "access", ["read", "append", {"k": "append"}, {"k": "read", "**": "write"}]
)
def test_undoing_needs_write_access(store: Store, access: Any) -> None:
    store.put("k", 1)
    store.put("k", 2)
    view = store.scoped(access=access)
    with pytest.raises(AccessDeniedError):
        view.audit.revert("k", 1)
    with pytest.raises(AccessDeniedError):
        view.audit.revert_commit(2)
    assert store.revision == 2


def test_rules_are_held_key_by_key(store: Store) -> None:
    store.put_many({"a": 1, "b": 1})
    store.put_many({"a": 2, "b": 2}, overwrite=True)
    with pytest.raises(AccessDeniedError, match="outside"):
        store.scoped(access={"a": "write"}).audit.revert_commit(2)
    with pytest.raises(AccessDeniedError, match="'b'"):
        store.scoped(access={"a": "write", "b": "read"}).audit.revert_commit(2)
    store.scoped(access={"*": "write"}).audit.revert_commit(2)
    assert values(store) == {"a": 1, "b": 1}


def test_a_hook_of_the_whole_store_merges_for_a_view(store: Store) -> None:
    store.set_merge("team/**", "union")
    view = store.scoped("team")
    view.put("k", ["a"])
    view.put("k", ["a", "b"])
    view.append("k", "c")
    assert view.audit.revert_commit(2, dry_run=True).keys[0].strategy == "union"
    view.audit.revert_commit(2)
    assert view["k"] == ["a", "c"]


def test_what_was_compacted_cannot_be_undone(store: Store) -> None:
    from agentmem.engines.rows import (
        Change,
    )

    for value in (1, 2, 3):
        store.put("k", value)
    store._core.change(Change("raise_floor", {"floor": 2}), store._scope)
    with pytest.raises(CompactedError):
        store.audit.revert_commit(2)
    store.audit.revert_commit(3)
    assert store["k"] == 2


def test_records_show_themselves_in_short(store: Store) -> None:
    store.put("k", 1, namespace="n")
    found = store.audit.revert_commit(1)
    assert repr(found) == "Reversal(Commit(revision=2, changes=1), keys=1)"
    assert repr(found.keys[0]) == "Undone('n/k', 1 -> 0, undone)"
