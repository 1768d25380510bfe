"""Operation ids: the same op_id applies once, and a repeat gets the first result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import agentmem
from agentmem import (
    ConflictError,
    InvalidValueError,
    OperationMismatchError,
    Store,
    Transaction,
)
from tests.contract.conftest import ManualClock, StoreMaker

WRITES: dict[str, Callable[..., Any]] = {
    "put": lambda store, **options: store.put("k", [1], **options),
    "put_many": lambda store, **options: store.put_many({"k": [1], "j": 2}, **options),
    "add": lambda store, **options: store.add([1], **options),
    "delete": lambda store, **options: store.delete("old", **options),
    "increment": lambda store, **options: store.increment("n", 5, **options),
    "append": lambda store, **options: store.append("l", 1, **options),
    "add_to_set": lambda store, **options: store.add_to_set("s", 1, **options),
    "patch": lambda store, **options: store.patch("p", {"a": 1}, **options),
    "update": lambda store, **options: store.update("u", lambda v: v + 1, default=0, **options),
    "touch": lambda store, **options: store.touch("old", 60, **options),
    "clear": lambda store, **options: store.clear("c", **options),
}
OTHERS: dict[str, Callable[..., Any]] = {
    "put": lambda store, **options: store.put("k", [2], **options),
    "put_many": lambda store, **options: store.put_many({"k": [1], "j": 3}, **options),
    "add": lambda store, **options: store.add([2], **options),
    "delete": lambda store, **options: store.delete("k", **options),
    "increment": lambda store, **options: store.increment("n", 6, **options),
    "append": lambda store, **options: store.append("l", 2, **options),
    "add_to_set": lambda store, **options: store.add_to_set("s", 2, **options),
    "patch": lambda store, **options: store.patch("p", {"b": 1}, **options),
    "update": lambda store, **options: store.update("w", lambda v: v + 1, default=0, **options),
    "touch": lambda store, **options: store.touch("old", 90, **options),
}


@pytest.fixture
def filled(store: Store) -> Store:
    store.put("old", 1)
    store.put("c", 1, namespace="c")
    return store


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_repeat_applies_nothing_and_gets_the_first_result(
    make_store: StoreMaker, filled: Store, clock: ManualClock, write: Callable[..., Any]
) -> None:
    first = write(filled, op_id="op")
    revision, entries = filled.revision, filled.list()
    assert revision == 3
    clock.advance(30)
    for store in (filled, make_store()):
        assert write(store, op_id="op") == first
        assert store.revision == revision
        assert store.list() == entries


@pytest.mark.parametrize("name", [name for name in WRITES if name not in ("touch", "delete")])
def test_a_repeat_gets_the_first_result_whatever_happened_since(filled: Store, name: str) -> None:
    first = WRITES[name](filled, op_id="op")
    for _ in range(2):
        filled.clear()
        assert WRITES[name](filled, op_id="op") == first
        WRITES[name](filled)


@pytest.mark.parametrize("name", OTHERS)
def test_another_request_under_the_same_op_id_is_a_mismatch(filled: Store, name: str) -> None:
    first = WRITES[name](filled, op_id="op")
    entries = filled.list()
    with pytest.raises(OperationMismatchError, match="'op' was used for another") as caught:
        OTHERS[name](filled, op_id="op")
    assert (caught.value.op_id, caught.value.revision) == ("op", 3)
    assert filled.list() == entries
    assert OTHERS[name](filled, op_id="op", on_mismatch="replay") == first
    assert filled.revision == 3


@pytest.mark.parametrize("one", WRITES)
def test_the_operation_belongs_to_the_fingerprint(filled: Store, one: str) -> None:
    WRITES[one](filled, op_id="op")
    for name, write in WRITES.items():
        if name not in (one, "clear"):
            with pytest.raises(OperationMismatchError):
                write(filled, op_id="op")


@pytest.mark.parametrize(
    "options",
    [
        {"namespace": "n"},
        {"text": "other"},
        {"text": False},
        {"ttl_s": 60},
    ],
)
def test_namespace_text_and_ttl_belong_to_the_fingerprint(
    store: Store, options: dict[str, Any]
) -> None:
    store.put("k", 1, op_id="op")
    with pytest.raises(OperationMismatchError):
        store.put("k", 1, op_id="op", **options)


def test_versions_agent_note_and_metadata_do_not(store: Store) -> None:
    first = store.put("k", 1, op_id="op", agent="ann", expected_version=0)
    for options in (
        {"expected_version": 7},
        {"overwrite": True},
        {"agent": "bob"},
        {"note": "again", "metadata": {"try": 2}},
    ):
        assert store.put("k", 1, op_id="op", **options) == first  # type: ignore[arg-type]  # mixed
    assert store.history("k") == [first]


def test_on_mismatch_is_one_of_two(store: Store) -> None:
    with pytest.raises(InvalidValueError, match="'error' or 'replay'"):
        store.put("k", 1, op_id="op", on_mismatch="ignore")


def test_update_does_not_run_its_function_for_a_known_op_id(store: Store) -> None:
    calls: list[Any] = []

    def change(value: int) -> int:
        calls.append(value)
        return value + 1

    first = store.update("k", change, default=0, op_id="op")
    store.put("k", 50)
    assert store.update("k", change, default=0, op_id="op") == first
    assert store.update("k", change, op_id="op") == first
    assert calls == [0]


def test_update_to_nothing_is_repeated_as_nothing(store: Store) -> None:
    assert store.update("k", lambda value: agentmem.DELETE, default=0, op_id="op") is None
    store.put("k", 1)
    assert store.update("k", lambda value: agentmem.DELETE, default=0, op_id="op") is None
    assert store["k"] == 1


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_refused_call_leaves_its_op_id_unused(filled: Store, write: Callable[..., Any]) -> None:
    view = filled.scoped(access={"**": "read"})
    with pytest.raises(agentmem.AccessDeniedError):
        write(view, op_id="op")
    assert filled.revision == 2
    assert view.log(op_id="op") == []


def test_a_conflict_leaves_the_op_id_unused(store: Store) -> None:
    store.put("k", 1)
    with pytest.raises(ConflictError):
        store.put("k", 2, expected_version=0, op_id="op")
    assert store.put("k", 2, expected_version=1, op_id="op").version == 2


# --- transactions ---


def test_a_transaction_tells_at_once_that_its_op_id_is_known(
    make_store: StoreMaker, store: Store
) -> None:
    with store.transaction(op_id="op", agent="ann") as tx:
        assert tx.applied is None
        tx["k"] = 1
    again = make_store().transaction(op_id="op")
    assert again.applied is not None
    assert (again.applied.revision, again.applied.agent) == (1, "ann")
    assert again.applied.replayed
    again["k"] = 2
    commit = again.commit()
    assert commit == again.applied
    assert store["k"] == 1
    assert store.revision == 1


def test_of_two_transactions_with_one_op_id_the_second_is_a_replay(store: Store) -> None:
    one, two = store.transaction(op_id="op"), store.transaction(op_id="op")
    one["a"] = 1
    two["b"] = 2
    assert (one.commit().replayed, two.commit().replayed) == (False, True)
    assert [entry.key for entry in store.list()] == ["a"]


def test_a_replay_wins_over_a_conflict(store: Store) -> None:
    one, two = store.transaction(op_id="op"), store.transaction(op_id="op")
    one["k"] = 1
    two["k"] = 1
    one.commit()
    store.put("k", 5)
    assert two.commit().revision == 1


def test_a_known_transact_is_not_run(make_store: StoreMaker, store: Store) -> None:
    calls: list[int] = []

    def work(tx: Transaction) -> dict[str, int]:
        calls.append(1)
        tx.increment("n")
        return {"left": 5}

    results = [each.transact(work, op_id="op") for each in (store, make_store(), store)]
    assert results == [{"left": 5}] * 3
    assert len(calls) == 1
    assert store["n"] == 1


@pytest.mark.parametrize("result", [None, 0, False, "", [], {}, {"a": [None]}])
def test_every_result_of_transact_is_repeated_as_it_was(store: Store, result: Any) -> None:
    first = store.transact(lambda tx: result, op_id="op")
    again = store.transact(lambda tx: "other", op_id="op")
    assert repr(first) == repr(again) == repr(result)
    assert store.revision == 1
    assert store.log()[0].result == result


def test_a_transaction_replays_whatever_it_would_do_unless_it_has_a_fingerprint(
    store: Store,
) -> None:
    store.transact(lambda tx: tx.put("a", 1), op_id="plain")
    assert store.transact(lambda tx: tx.put("b", 2), op_id="plain") is None
    store.transact(lambda tx: "first", op_id="op", fingerprint={"seat": 1})
    assert store.transact(lambda tx: "again", op_id="op", fingerprint={"seat": 1}) == "first"
    with pytest.raises(OperationMismatchError):
        store.transact(lambda tx: "other", op_id="op", fingerprint={"seat": 2})
    tx = store.transaction(op_id="op", fingerprint={"seat": 3})
    with pytest.raises(OperationMismatchError):
        tx.commit()
    assert store.revision == 2


def test_an_op_id_of_a_transaction_is_no_op_id_of_a_call(store: Store) -> None:
    store.transact(lambda tx: 1, op_id="op")
    with pytest.raises(OperationMismatchError):
        store.put("k", 1, op_id="op")
    store.put("k", 1, op_id="put")
    assert store.transact(lambda tx: "not run", op_id="put") is None


def test_an_op_id_is_unique_within_the_scope_that_used_it(store: Store) -> None:
    views = [
        store,
        store.scoped("a"),
        store.scoped("a/b"),
        store.scoped(("a/b",)),
        store.scoped(access={"a/**": "write"}),
        store.scoped("a", access={"**": "write"}),
    ]
    namespaces = [None, None, None, None, "a", "x"]
    for number, (view, namespace) in enumerate(zip(views, namespaces, strict=True)):
        assert (
            view.put("k", number, namespace=namespace, op_id="op", overwrite=True).value == number
        )
    assert store.revision == len(views)
    for number, (view, namespace) in enumerate(zip(views, namespaces, strict=True)):
        again = view.put("k", number, namespace=namespace, op_id="op")
        assert again.revision == number + 1
        assert [commit.revision for commit in view.log(op_id="op")] == [number + 1]
    assert store.scoped("a").scoped("b").put("k", 2, op_id="op").revision == 3
    assert store.scoped("a", agent="bob").put("k", 1, op_id="op").revision == 2


def test_an_op_id_survives_the_closing_of_the_store(make_store: StoreMaker) -> None:
    with make_store() as store:
        first = store.put("k", 1, op_id="op")
    assert make_store().put("k", 1, op_id="op") == first
