"""Limits: each is named, can be changed, and tells what was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentmem import InvalidValueError, LimitExceededError, Limits, Store
from tests.contract.conftest import StoreMaker


def nested(depth: int) -> Any:
    value: Any = 0
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


def test_the_defaults_are_those_of_the_design() -> None:
    limits = Limits()
    assert limits.max_key_bytes == 1_024
    assert limits.max_namespace_depth == 16
    assert limits.max_value_bytes == 4 * 1024 * 1024
    assert limits.max_json_depth == 64
    assert limits.max_writes == 10_000
    assert limits.max_k == 1_000


Call = Callable[[Store], Any]

# name: (limits, what is just allowed, what is not, limit, actual)
CASES: dict[str, tuple[Limits, Call, Call, int, int]] = {
    "key": (
        Limits(max_key_bytes=4),
        lambda store: store.put("éé", 1),
        lambda store: store.put("ééé", 1),
        4,
        6,
    ),
    "label": (
        Limits(max_key_bytes=4),
        lambda store: store.put("k", 1, namespace="abcd/éé"),
        lambda store: store.put("k", 1, namespace="abcd/abcde"),
        4,
        5,
    ),
    "depth of a namespace": (
        Limits(max_namespace_depth=2),
        lambda store: store.put("k", 1, namespace="a/b"),
        lambda store: store.put("k", 1, namespace="a/b/c"),
        2,
        3,
    ),
    "depth of a pattern": (
        Limits(max_namespace_depth=2),
        lambda store: store.set_merge("a/b/*", "union"),
        lambda store: store.set_merge("a/b/c/*", "union"),
        3,
        4,
    ),
    "value": (
        Limits(max_value_bytes=10),
        lambda store: store.put("k", {"a": "éé"[:1]}),
        lambda store: store.put("k", {"a": "éé"}),
        10,
        12,
    ),
    "string": (
        Limits(max_value_bytes=10),
        lambda store: store.put("k", "éééé"),
        lambda store: store.put("k", "ééééé"),
        10,
        12,
    ),
    "operand": (
        Limits(max_value_bytes=10),
        lambda store: store.append("k", "abcdef"),
        lambda store: store.append("k", "abcdefg"),
        10,
        11,
    ),
    "value that an operation makes": (
        Limits(max_value_bytes=10),
        lambda store: (store.append("k", "abc"), store.append("k", 1)),
        lambda store: (store.put("k", ["abc"]), store.append("k", 100)),
        10,
        11,
    ),
    "text": (
        Limits(max_value_bytes=10),
        lambda store: store.put("k", 1, text="ééééé"),
        lambda store: store.put("k", 1, text="éééééé"),
        10,
        12,
    ),
    "JSON depth": (
        Limits(max_json_depth=5),
        lambda store: store.put("k", nested(5)),
        lambda store: store.put("k", nested(6)),
        5,
        6,
    ),
    "writes of put_many": (
        Limits(max_writes=2),
        lambda store: store.put_many({"a": 1, "b": 1}),
        lambda store: store.put_many({"a": 1, "b": 1, "c": 1}),
        2,
        3,
    ),
    "writes of clear": (
        Limits(max_writes=2),
        lambda store: (store.put("a", 1), store.clear()),
        lambda store: ([store.put(key, 1) for key in "abc"], store.clear()),
        2,
        3,
    ),
    "metadata": (
        Limits(max_metadata_bytes=10),
        lambda store: store.put("k", 1, metadata={"a": "éé"[:1]}),
        lambda store: store.put("k", 1, metadata={"a": "éé"}),
        10,
        12,
    ),
    "note": (
        Limits(max_metadata_bytes=10),
        lambda store: store.put("k", 1, note="ééééé"),
        lambda store: store.put("k", 1, note="éééééé"),
        10,
        12,
    ),
    "op_id": (
        Limits(max_metadata_bytes=10),
        lambda store: store.put("k", 1, op_id="ééééé"),
        lambda store: store.transaction(op_id="éééééé"),
        10,
        12,
    ),
    "agent": (
        Limits(max_metadata_bytes=10),
        lambda store: store.put("k", 1, agent="ééééé"),
        lambda store: store.put("j", 1, agent="éééééé"),
        10,
        12,
    ),
    "result of transact": (
        Limits(max_value_bytes=10),
        lambda store: store.transact(lambda tx: "12345678"),
        lambda store: store.transact(lambda tx: "123456789"),
        10,
        11,
    ),
    "result of update": (
        Limits(max_value_bytes=10),
        lambda store: store.update("k", lambda value: "12345678", default=0),
        lambda store: store.update("k", lambda value: "123456789", default=0),
        10,
        11,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_within_a_limit_passes_and_what_is_not_names_it(
    make_store: StoreMaker, case: tuple[Limits, Call, Call, int, int]
) -> None:
    limits, allowed, refused, limit, actual = case
    allowed(make_store(limits=limits))
    fresh = make_store("fresh", limits=limits)
    with pytest.raises(LimitExceededError, match=str(limit)) as caught:
        refused(fresh)
    assert (caught.value.limit, caught.value.actual) == (limit, actual)
    assert isinstance(caught.value, InvalidValueError)


def test_a_value_too_deep_is_refused_by_default_too(store: Store) -> None:
    store.put("k", nested(64))
    assert store["k"] == nested(64)
    with pytest.raises(LimitExceededError, match="deeper than 64") as caught:
        store.put("k", nested(65))
    assert caught.value.path.startswith("$.")
    with pytest.raises(LimitExceededError):
        store.put("k", nested(100_000))


def test_a_value_of_four_mebibytes_passes_and_a_larger_one_does_not(store: Store) -> None:
    store.put("k", "a" * (4 * 1024 * 1024 - 2))
    with pytest.raises(LimitExceededError, match="4194305 bytes"):
        store.put("k", "a" * (4 * 1024 * 1024 - 1))
    assert store.revision == 1


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "1", None])
def test_a_limit_is_a_positive_integer(limit: Any) -> None:
    with pytest.raises(ValueError, match="max_writes must be a positive integer"):
        Limits(max_writes=limit)


def test_limits_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        Limits().max_writes = 5  # type: ignore[misc]  # the point of the test
