"""Collections: the entries of a namespace as instances of a pydantic model."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

import agentmem
from agentmem import ConflictError, InvalidValueError, KeyMissingError, Store, merge
from tests.contract.conftest import StoreMaker


class Note(BaseModel):
    title: str
    tags: Annotated[list[str], merge.union] = []
    reads: Annotated[int, Field(ge=0), merge.counter] = 0


def test_values_go_in_and_come_out_as_models(make_store: StoreMaker, store: Store) -> None:
    notes = store.collection(Note, "notes")
    entry = notes.put("plan", Note(title="Plan", tags=["a"]), agent="ann")
    assert entry.value == Note(title="Plan", tags=["a"])
    assert (entry.key, entry.namespace, entry.version, entry.agent) == (
        "plan",
        ("notes",),
        1,
        "ann",
    )
    assert notes.get("plan") == entry
    assert notes["plan"].title == "Plan"
    (plain,) = make_store().list("notes")
    assert plain.value == {"title": "Plan", "tags": ["a"], "reads": 0}
    assert notes.namespace == ("notes",)


def test_absence_in_a_collection(store: Store) -> None:
    notes = store.collection(Note, ("notes",))
    assert notes.get("plan") is None
    assert notes.get("plan", default=5) == 5
    assert "plan" not in notes
    with pytest.raises(KeyMissingError, match="notes/plan"):
        notes["plan"]


def test_what_is_no_model_is_refused_when_written(store: Store) -> None:
    notes = store.collection(Note, "notes")
    with pytest.raises(InvalidValueError, match=r"at \$\.title") as caught:
        notes.put("plan", {"tags": []})  # type: ignore[arg-type]  # the point of the test
    assert caught.value.path == "$.title"
    with pytest.raises(InvalidValueError, match=r"\$\.tags\[1\]"):
        notes.put("plan", {"title": "x", "tags": ["a", 5]})  # type: ignore[arg-type]  # the point of the test
    assert store.revision == 0


def test_what_is_stored_and_no_model_is_refused_when_read(store: Store) -> None:
    store.put("bad", {"title": 5}, namespace="notes")
    store.put("good", {"title": "x"}, namespace="notes")
    notes = store.collection(Note, "notes")
    with pytest.raises(InvalidValueError, match="stored under 'notes/bad' is no Note"):
        notes.get("bad")
    with pytest.raises(InvalidValueError):
        notes.list()
    assert notes["good"].title == "x"


def test_a_collection_lists_the_keys_directly_in_its_namespace(store: Store) -> None:
    notes = store.collection(Note, "notes")
    for number in range(4):
        notes.put(f"k{number}", Note(title=str(number), reads=number))
        store.put(f"k{number}", "something else", namespace=f"notes/{number}")
    assert [entry.value.title for entry in notes.list()] == list("0123")
    assert [entry.value.title for entry in notes.list(where={"reads": {"$gte": 2}})] == ["2", "3"]
    assert [entry.key for entry in notes.list(limit=2, after="k0")] == ["k1", "k2"]
    assert [entry.key for entry in notes.list(key_prefix="k3")] == ["k3"]


def test_strategies_come_from_annotations(store: Store) -> None:
    notes = store.collection(Note, "notes")
    notes.put("plan", Note(title="Plan", tags=["a"], reads=1))
    notes.put("plan", Note(title="Plan", tags=["a", "b"], reads=3), expected_version=1)
    merged = notes.put("plan", Note(title="New", tags=["c"], reads=2), expected_version=1)
    assert merged.value == Note(title="New", tags=["b", "c"], reads=4)
    assert store.log(limit=1)[0].merged == ((("notes",), "plan"),)
    store.put("plan", {}, namespace="notes/deeper")
    store.put("plan", {}, namespace="notes/deeper")
    with pytest.raises(ConflictError):
        store.put("plan", {}, namespace="notes/deeper", expected_version=1)


def test_a_title_that_both_changed_is_a_conflict(store: Store) -> None:
    notes = store.collection(Note, "notes")
    notes.put("plan", Note(title="base"))
    notes.put("plan", Note(title="theirs"))
    with pytest.raises(ConflictError):
        notes.put("plan", Note(title="ours"), expected_version=1)
    with pytest.raises(ConflictError):
        notes.put("plan", Note(title="base", reads=5), expected_version=1, merge=False)


def test_a_collection_in_a_transaction(store: Store) -> None:
    notes = store.collection(Note, "notes")
    notes.put("plan", Note(title="Plan"))
    with store.transaction() as tx:
        inside = notes.on(tx)
        assert inside["plan"].title == "Plan"
        inside.put("other", Note(title="Other"))
        pending = inside.get("other")
        assert pending is not None
        assert pending.pending
        changed = inside.update("plan", lambda note: note.model_copy(update={"reads": 5}))
        assert changed is not None
        assert changed.value.reads == 5
        key = inside.add(Note(title="Added"))
        inside.delete("other")
        with pytest.raises(KeyMissingError):
            inside.update("missing", lambda note: note)
        assert "plan" in inside
        assert notes.get("plan").value.reads == 0  # type: ignore[union-attr]  # it is there
    assert [(entry.key, entry.value.reads) for entry in notes.list()] == sorted(
        [("plan", 5), (key, 0)]
    )


def test_a_collection_on_a_snapshot_can_only_be_read(store: Store) -> None:
    notes = store.collection(Note, "notes")
    notes.put("plan", Note(title="old"))
    held = notes.on(store.snapshot())
    notes.put("plan", Note(title="new"))
    assert held["plan"].title == "old"
    with pytest.raises(TypeError, match="Snapshot can only be read"):
        held.put("plan", Note(title="x"))


def test_update_gives_and_takes_models(store: Store) -> None:
    notes = store.collection(Note, "notes")

    def read(note: Note) -> Note:
        note.reads += 1
        return note

    assert notes.update("plan", read, default=Note(title="Plan")).value.reads == 1  # type: ignore[union-attr]  # it is there
    assert notes.update("plan", read, op_id="op").value.reads == 2  # type: ignore[union-attr]  # it is there
    assert notes.update("plan", read, op_id="op").value.reads == 2  # type: ignore[union-attr]  # it is there
    with pytest.raises(InvalidValueError):
        notes.update("plan", lambda note: {"title": None})
    assert notes["plan"].reads == 2


def test_update_may_delete_a_model(store: Store) -> None:
    notes = store.collection(Note, "notes")
    notes.put("plan", Note(title="Plan"))
    tombstone = notes.update("plan", lambda note: agentmem.DELETE)
    assert tombstone is None or tombstone.deleted
    assert "plan" not in notes


def test_a_collection_may_hold_any_type_that_pydantic_knows(store: Store) -> None:
    numbers = store.collection(list[int], "numbers")  # type: ignore[type-var]  # any type will do
    assert numbers.put("k", [1, 2]).value == [1, 2]
    with pytest.raises(InvalidValueError, match=r"\$\[1\]"):
        numbers.put("k", [1, "x"])


def test_a_collection_of_a_scoped_view_lies_inside(store: Store) -> None:
    notes = store.scoped("team").collection(Note, "notes")
    entry = notes.put("plan", Note(title="Plan"))
    assert entry.namespace == ("notes",)
    assert store.list()[0].namespace == ("team", "notes")


def test_a_hook_registered_after_a_collection_stays(store: Store) -> None:
    notes = store.collection(Note, "notes")

    @store.merge_hook("notes/*")
    def mine(conflict: agentmem.Conflict) -> Any:
        return {"title": "by hook"}

    notes.put("plan", Note(title="base"))
    notes.put("plan", Note(title="theirs"))
    with store.transaction() as tx:
        notes.on(tx).get("plan")
    assert notes.put("plan", Note(title="ours"), expected_version=1).value.title == "by hook"
