"""Requests that share a batch: what is wrong with one of them touches no other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import agentmem
from agentmem.engines.rows import (
    NewCommit,
)
from agentmem.engines.session import WriteSession
from agentmem.testing.held import Call, Held

LIMIT = 200


@pytest.fixture
def store(target: str, caplog: pytest.LogCaptureFixture) -> Iterator[agentmem.Store]:
    caplog.set_level(logging.CRITICAL, "agentmem")
    limits = agentmem.Limits(max_value_bytes=LIMIT)
    with agentmem.open(target, durability="relaxed", limits=limits) as store:
        yield store


@pytest.fixture
def witness(store: agentmem.Store, target: str) -> Iterator[agentmem.Store]:
    """A second connection to the same store."""
    with agentmem.open(target) as witness:
        yield witness


def put(store: agentmem.Store, key: str) -> Any:
    return lambda: store.put(key, {"key": key}, op_id=f"op-{key}")


def fail_to_append(session: WriteSession, key: str, error: type[Exception]) -> None:
    """Makes a session fail when it appends an entry of the key."""
    append = session.append

    def failing(rows: NewCommit) -> None:
        append(rows)
        if any(entry.key == key for entry in rows.entries):
            raise error(f"no room for {key}")

    session.append = failing  # type: ignore[method-assign]  # a fault on purpose


def assert_committed(witness: agentmem.Store, calls: dict[str, Call[Any]]) -> None:
    for key, call in calls.items():
        assert call.error is None, key
        entry = witness.get(key)
        assert entry is not None
        assert (entry.value, entry.version) == ({"key": key}, 1)
        assert len(witness.log(op_id=f"op-{key}")) == 1
    assert witness.admin.verify().problems == []


def test_each_failing_request_of_a_batch_gets_its_own_error_and_all_others_commit(
    store: agentmem.Store, witness: agentmem.Store
) -> None:
    store.put("list", ["x" * (LIMIT - 20)])
    store.put("text", "no number")
    store.put("seats", 1)
    store.put("hooked", 1, namespace="hooks")
    store.put("hooked", 2, namespace="hooks")
    store.put("first", 1, op_id="used")

    @store.merge_hook("hooks/**")
    def broken(_conflict: agentmem.Conflict) -> object:
        raise ZeroDivisionError("a bug in the hook")

    held = Held(store)
    before = held.sessions
    with held.back():
        good = {"a": held.call(put(store, "a"))}
        oversize = held.call(lambda: store.append("list", "y" * 40))
        wrong_type = held.call(lambda: store.increment("text"))
        good["b"] = held.call(put(store, "b"))
        hook = held.call(lambda: store.put("hooked", 3, namespace="hooks", expected_version=1))
        mismatch = held.call(lambda: store.put("first", 2, op_id="used"))
        stale = held.call(lambda: store.put("seats", 0, expected_version=7))
        good["c"] = held.call(put(store, "c"))
    assert held.join() == []
    # The held commit, then all others in one batch; and the mismatch is put on record.
    assert held.sessions == before + 3

    assert_committed(witness, good)
    assert isinstance(oversize.error, agentmem.LimitExceededError)
    assert oversize.error.limit == LIMIT
    assert isinstance(wrong_type.error, agentmem.InvalidValueError)
    assert isinstance(hook.error, agentmem.MergeError)
    assert isinstance(hook.error.__cause__, ZeroDivisionError)
    assert isinstance(mismatch.error, agentmem.OperationMismatchError)
    assert isinstance(stale.error, agentmem.ConflictError)
    values = {entry.key: entry.value for entry in witness.list()}
    assert (values["list"], values["text"]) == (["x" * (LIMIT - 20)], "no number")
    assert (values["seats"], values["hooked"], values["first"]) == (1, 2, 1)


def test_a_request_whose_append_fails_is_rolled_back_alone(
    store: agentmem.Store, witness: agentmem.Store
) -> None:
    held = Held(store)
    with held.back():
        # The batch, then three tries of one request each.
        for _session in range(4):
            held.on_session.append(
                lambda session: fail_to_append(session, "poison", agentmem.DiskFullError)
            )
        good = {"a": held.call(put(store, "a"))}
        poison = held.call(put(store, "poison"))
        good["b"] = held.call(put(store, "b"))
    assert held.join() == []
    assert_committed(witness, good)
    assert isinstance(poison.error, agentmem.DiskFullError)
    assert witness.get("poison") is None
    assert witness.log(op_id="op-poison") == []
    held.on_session.clear()
    assert store.put("poison", {"key": "poison"}, op_id="op-poison").version == 1


def test_increments_of_a_batch_that_failed_before_commit_are_counted_once(
    store: agentmem.Store, witness: agentmem.Store
) -> None:
    held = Held(store)
    with held.back("n"):
        held.on_session.append(lambda session: fail_to_append(session, "n", agentmem.StorageError))
        calls = [held.call(lambda: store.increment("n")) for _call in range(5)]
    assert held.join() == []
    assert [call.error for call in calls] == [None] * 5
    assert [entry.value for entry in witness.history("n")] == [6, 5, 4, 3, 2, 1]
    assert witness.admin.verify().problems == []


def test_a_hook_that_raises_writes_nothing_and_the_next_write_is_not_hindered(
    store: agentmem.Store, witness: agentmem.Store
) -> None:
    store.put("k", [0], namespace="notes")
    store.put("k", [0, 1], namespace="notes")
    broken = [True]

    @store.merge_hook("notes/**")
    def keep_both(conflict: agentmem.Conflict) -> object:
        if broken[0]:
            raise KeyError("a bug in the hook")
        return sorted({*conflict.theirs, *conflict.ours})

    with pytest.raises(agentmem.MergeError):
        store.put("k", [0, 2], namespace="notes", expected_version=1)
    assert witness.get("k", namespace="notes").version == 2  # type: ignore[union-attr]  # it is there
    broken[0] = False
    assert store.put("k", [0, 2], namespace="notes", expected_version=1).value == [0, 1, 2]


def test_the_requests_of_a_batch_see_each_other_in_the_order_of_the_queue(
    store: agentmem.Store, witness: agentmem.Store
) -> None:
    held = Held(store)
    before = held.sessions
    with held.back():
        calls = [
            held.call(lambda base=base: store.put("k", base + 1, expected_version=base))  # type: ignore[misc]  # binds the loop's variable
            for base in (0, 1, 1, 2)
        ]
        same = [held.call(lambda: store.put("once", 1, op_id="same")) for _call in range(3)]
    assert held.join() == []
    assert held.sessions == before + 2
    errors = [type(call.error) for call in calls]
    assert errors == [type(None), type(None), agentmem.ConflictError, type(None)]
    assert [entry.value for entry in witness.history("k")] == [3, 2, 1]
    assert {call.result.version for call in same if call.result is not None} == {1}
    assert len(witness.history("once")) == 1
