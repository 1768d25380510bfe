"""Records: frozen, with a short repr, safe HTML, and picklable; errors likewise."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any, Final

import pytest

import agentmem
from agentmem import (
    AgentMemError,
    BlindWriteWarning,
    Conflict,
    ConflictError,
    Entry,
    KeyMissingError,
    Store,
)

HOSTILE: Final = "<script>alert('x')\"&"


@pytest.fixture
def records(store: Store) -> dict[str, Any]:
    """One record of each kind, with hostile text wherever text can be."""
    name = HOSTILE
    store.set_merge("**", "ours")
    entry = store.put(name, {name: [name]}, namespace=(name,), agent=name, op_id=name, note=name)
    store.put(name, 2, namespace=(name,), agent=name)
    store.put(name, 3, namespace=(name,), agent=name, expected_version=1, metadata={name: name})
    with pytest.raises(ConflictError) as caught:
        store.put(name, 4, namespace=(name,), expected_version=1, merge=False)
    tx = store.transaction()
    tx.get(name, namespace=(name,))
    tx[name] = 1
    pending = tx.get(name)
    store.put(name, 5, namespace=(name,), agent=name)
    (stale,) = tx.stale()
    return {
        "Entry": entry,
        "Entry of a tombstone": store.delete(name, namespace=(name,), agent=name),
        "Entry pending": pending,
        "Commit": store.log()[-1],
        "Commit merged": store.log()[2],
        "Change": store.log()[0].changes[0],
        "Conflict": caught.value.conflicts[0],
        "ConflictRecord": store.audit.conflicts()[0],
        "Stale": stale,
        "Tag": store.audit.tag(name, agent=name, note=name),
        "Difference": store.audit.diff(name, 1, 2, namespace=(name,))[0],
    }


def test_records_are_frozen_and_slotted(records: dict[str, Any]) -> None:
    for record in records.values():
        first = dataclasses.fields(record)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, first, 1)
        with pytest.raises((AttributeError, TypeError)):
            record.new = 1
        assert not hasattr(record, "__dict__")


def test_records_are_of_the_public_module(records: dict[str, Any]) -> None:
    for name, record in records.items():
        kind = type(record)
        assert kind.__module__ == "agentmem"
        assert getattr(agentmem, kind.__name__) is kind
        assert kind.__name__ == name.split()[0]


def test_records_survive_pickling_and_copying(records: dict[str, Any]) -> None:
    for record in records.values():
        for again in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record)):  # noqa: S301  # our own bytes
            assert again == record
            assert repr(again) == repr(record)


def test_the_marker_of_a_delete_stays_itself(records: dict[str, Any]) -> None:
    assert pickle.loads(pickle.dumps(agentmem.DELETE)) is agentmem.DELETE  # noqa: S301  # our own bytes
    assert copy.deepcopy(agentmem.DELETE) is agentmem.DELETE
    assert repr(agentmem.DELETE) == "agentmem.DELETE"


def test_reprs_are_short(store: Store) -> None:
    entry = store.put("k", "long" * 1_000, namespace="team/alice")
    assert len(repr(entry)) < 200
    assert repr(entry).startswith("Entry('team/alice/k', ")
    assert repr(entry).endswith("version=1, revision=1)")
    assert repr(store.put("k", 1)) == "Entry('k', 1, version=1, revision=2)"
    assert repr(store.delete("k")) == "Entry('k', None, version=2, revision=3, deleted)"
    assert repr(store.log()[0]) == "Commit(revision=3, changes=1)"


def test_reprs_of_what_shows_two_values_are_short(store: Store) -> None:
    store.set_merge("k", "ours")
    store.put("k", 1)
    store.put("k", 2)
    store.put("k", "long" * 1_000, expected_version=1)
    assert len(repr(store.audit.conflicts()[0])) < 500
    assert len(repr(store.audit.diff("k", 1, 3)[0])) < 500


def test_html_shows_every_field_and_escapes_everything(records: dict[str, Any]) -> None:
    for name, record in records.items():
        if name == "Difference":
            continue
        page = record._repr_html_()
        assert "<script" not in page
        assert "alert('" not in page
        assert page.count("<th>") == len(dataclasses.fields(record))
        assert f"<caption>{name.split()[0]}</caption>" in page
    assert "&lt;script&gt;" in records["Entry"]._repr_html_()


def test_a_stale_item_unpacks(records: dict[str, Any]) -> None:
    key, seen, judged = records["Stale"]
    assert (key, seen, judged) == (HOSTILE, 3, 4)


def test_the_report_of_verify_survives_pickling(store: Store) -> None:
    report = store.admin.verify()
    again = pickle.loads(pickle.dumps(report))  # noqa: S301  # our own bytes
    assert again == report
    assert again.ok


# --- errors ---


def conflict() -> Conflict:
    entry: Entry[Any] = Entry(("n",), "k", 1, 1, {"a": 1})
    return Conflict(("n",), "k", {"a": 1}, agentmem.DELETE, 5, entry, None)


ERRORS: Final[dict[str, Callable[[], AgentMemError]]] = {
    "ConflictError": lambda: ConflictError("m", conflicts=[conflict()]),
    "StoreBusyError": lambda: agentmem.StoreBusyError("m", waited_ms=7),
    "MergeError": lambda: agentmem.MergeError("m", namespace=("n",), key="k"),
    "IndeterminateCommitError": lambda: agentmem.IndeterminateCommitError(
        "m", op_id="op", attempt=b"a" * 16, revision=5
    ),
    "OperationMismatchError": lambda: agentmem.OperationMismatchError("m", op_id="op", revision=3),
    "InvalidValueError": lambda: agentmem.InvalidValueError("m", path="$.a[1]"),
    "LimitExceededError": lambda: agentmem.LimitExceededError("m", path="$", limit=1, actual=2),
    "KeyMissingError": lambda: KeyMissingError("m", namespace=("n",), key="k"),
    "CompactedError": lambda: agentmem.CompactedError("m", floor=5),
    "FutureRevisionError": lambda: agentmem.FutureRevisionError("m", current=5),
    "FencedError": lambda: agentmem.FencedError("m", token=1, current_token=2),
    "AccessDeniedError": lambda: agentmem.AccessDeniedError(
        "m", namespace=("n",), key="k", access="write"
    ),
    "MissingExtraError": lambda: agentmem.MissingExtraError("m", extra="chroma"),
}


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS)
def test_an_error_survives_pickling_with_its_attributes(make: Callable[[], AgentMemError]) -> None:
    error = make()
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error) == "m"
    assert vars(again) == vars(error)
    assert vars(error)


def all_errors() -> list[type[Exception]]:
    found: list[type[Exception]] = []
    waiting: list[type[Exception]] = [AgentMemError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return found


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_is_public_documented_and_picklable(kind: type[Exception]) -> None:
    assert getattr(agentmem, kind.__name__, kind) is kind
    assert kind.__module__ == "agentmem"
    assert kind.__doc__
    again = pickle.loads(pickle.dumps(kind("it failed")))  # noqa: S301  # our own bytes
    assert (type(again), str(again)) == (kind, "it failed")


def test_the_tree_of_errors_is_the_one_of_the_design() -> None:
    assert AgentMemError.__bases__ == (Exception,)
    assert issubclass(ConflictError, agentmem.TransientError)
    assert issubclass(agentmem.StoreBusyError, agentmem.TransientError)
    assert not issubclass(agentmem.MergeError, agentmem.TransientError)
    assert not issubclass(agentmem.IndeterminateCommitError, agentmem.TransientError)
    assert issubclass(KeyMissingError, KeyError)
    for kind in (agentmem.CompactedError, agentmem.FutureRevisionError):
        assert issubclass(kind, agentmem.RevisionError)
    for kind in (
        agentmem.DiskFullError,
        agentmem.MigrationError,
        agentmem.CorruptionError,
        agentmem.UnsafeStorageError,
    ):
        assert issubclass(kind, agentmem.StorageError)
    assert issubclass(BlindWriteWarning, UserWarning)
    # What default retry policies take for a bug of the caller, and so do not retry.
    for kind in all_errors():
        if kind is not KeyMissingError:
            assert not issubclass(kind, (ValueError, TypeError, OSError, LookupError, RuntimeError))


def test_a_missing_key_is_told_in_a_sentence(store: Store) -> None:
    with pytest.raises(KeyMissingError) as caught:
        store["k"]
    assert str(caught.value) == "'k' is absent: never written, deleted or expired"


def test_errors_name_keys_and_versions_never_values(store: Store) -> None:
    store.set_merge("n", "counter")
    store.put("k", "TOPSECRET")
    store.put("k", "TOPSECRET", expected_version=1)
    store.put("n", "TOPSECRET")
    store.put("n", "TOPSECRET2")
    calls: list[Callable[[], Any]] = [
        lambda: store.put("k", "TOPSECRET", expected_version=1),
        lambda: store.increment("k"),
        lambda: store.put("n", "TOPSECRET3", expected_version=1),
        lambda: store.put("k", {"TOP": "SECRET\x00"}),
        lambda: store.put("k", ["TOPSECRET", {"a": float("nan")}]),
    ]
    for call in calls:
        with pytest.raises(AgentMemError) as caught:
            call()
        assert "TOPSECRET" not in str(caught.value)
        assert "SECRET" not in repr(caught.value)
