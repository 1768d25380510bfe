"""What the store machine draws from, and the words in which store and model are compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import strategies as st

from agentmem import Entry
from tests.property.store_model import DELETED, Place, Version, spell, text_of

EPOCH: Final = datetime(2026, 1, 31, tzinfo=UTC)
# In memory where there is such a place: what is tested here is not the disk.
FOLDER: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  # a fresh folder in it

PLAIN: Final = ((), ("a",), ("a", "b\x01"))
NAMESPACES: Final = (*PLAIN, ("c",), ("u", "x"))
KEYS: Final = ("k", "k%é")
# Filled at the beginning, so that there is something to read.
MET: Final = {((), KEYS[0]): 1, (("a",), KEYS[1]): {"a": 1}, (("c",), KEYS[0]): 0}
STRATEGIES: Final = {"c": "counter", "u": "union"}
WHERES: Final[tuple[tuple[Any, Callable[[Any], bool]], ...]] = (
    (None, lambda value: True),
    ({"a": 1}, lambda value: isinstance(value, dict) and spell(value.get("a")) == "1"),
    (
        {"$not": {"a": {"$exists": True}}},
        lambda value: not (isinstance(value, dict) and "a" in value),
    ),
)

places = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(KEYS))
numbers = st.integers(-2, 3)
items = st.one_of(numbers, st.booleans(), st.sampled_from(("x", "\U0001f9e0")))
lists = st.lists(items, max_size=3)
values = st.one_of(
    numbers,
    lists,
    st.dictionaries(st.sampled_from("ab"), items, max_size=2),
    st.sampled_from((None, True, "", "é")),
)
# Where a key and a value, they fit each other as a rule: else nothing is ever merged.
pairs = st.one_of(
    st.tuples(st.tuples(st.sampled_from(PLAIN), st.sampled_from(KEYS)), values),
    st.tuples(st.tuples(st.just(("c",)), st.sampled_from(KEYS)), numbers),
    st.tuples(st.tuples(st.just(("u", "x")), st.sampled_from(KEYS)), lists),
    st.tuples(places, values),
)
ttls = st.one_of(st.none(), st.none(), st.integers(1, 6))
op_ids = st.sampled_from((*(None,) * 8, "op-1", "op-2", "op-3", "op-4"))
bases = st.sampled_from(("blind", "seen", "absent", "older", "older", "overwrite"))
agents = st.sampled_from((None, "ann", "bob"))
handles = st.integers(0, 1)
steps = st.one_of(
    st.tuples(st.just("increment"), numbers),
    st.tuples(st.sampled_from(("append", "add_to_set")), st.lists(items, max_size=2)),
    st.tuples(
        st.just("patch"), st.dictionaries(st.sampled_from("ab"), items | st.none(), max_size=2)
    ),
)


listing = st.tuples(
    st.just("list"),
    st.sampled_from(((), ("a",), ("c",), ("u",))),
    st.sampled_from(("", "k", "k%")),
    st.sampled_from(WHERES),
    st.sampled_from((None, 1, 2)),
)
# What one step of a transaction does: its kind, and its arguments.
actions = st.one_of(
    st.tuples(
        st.just("get"), st.sampled_from(list(MET)) | places, st.sampled_from((True, True, False))
    ),
    listing,
    listing,
    st.tuples(
        st.just("count"),
        st.sampled_from(((), ("a",), ("u",))),
        st.sampled_from(("", "k")),
        st.sampled_from(WHERES),
    ),
    st.tuples(
        st.just("write"),
        pairs | st.tuples(places, st.just(DELETED)),
        st.sampled_from(("snapshot", "snapshot", "seen", "older", "overwrite")),
        ttls,
    ),
    st.tuples(st.just("atomic"), places, steps),
    st.tuples(st.just("touch"), places, ttls),
)


# What others do to a key meanwhile: seconds pass, an atomic operation, a put, a delete.
others = st.one_of(
    st.tuples(st.just("advance"), st.integers(1, 4)),
    st.tuples(st.just("atomic"), steps),
    st.tuples(st.just("put"), values),
    st.tuples(st.just("put"), st.one_of(numbers, lists)),
    st.tuples(st.just("delete"), st.none()),
)
# A transaction from begin to end: isolation, work, what others do, more work, the end.
rounds = st.tuples(
    st.sampled_from((True, True, False)),
    st.lists(actions, min_size=2, max_size=6),
    st.lists(st.tuples(st.integers(0, 4), others), min_size=1, max_size=4),
    st.lists(actions, max_size=2),
    st.sampled_from(("commit", "commit", "repair")),
)


def moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else EPOCH + timedelta(seconds=seconds)


def described(place: Place, version: Version) -> tuple[Any, ...]:
    """A version in the words of `seen`."""
    gone = version.value is DELETED
    return (
        *place,
        version.number,
        version.revision,
        spell(None if gone else version.value),
        None if gone else text_of(version),
        version.agent,
        version.op_id,
        moment(version.created_at),
        moment(version.committed_at),
        gone,
    )


def seen(entry: Entry[Any]) -> tuple[Any, ...]:
    """An entry as it is compared; its expiry apart, because touch moves it in the past, too."""
    return (
        entry.namespace,
        entry.key,
        entry.version,
        entry.revision,
        spell(entry.value),
        # No text and an empty one are the same to search.
        entry.text or None,
        entry.agent,
        entry.op_id,
        entry.created_at,
        entry.committed_at,
        entry.deleted,
    )


def call(target: Any, step: tuple[str, Any], place: Place, **options: Any) -> Any:
    """One atomic operation, on a store or a transaction."""
    operation, operand = step
    arguments = operand if operation in ("append", "add_to_set") else (operand,)
    return getattr(target, operation)(place[1], *arguments, namespace=place[0], **options)


def outcome(result: Any) -> Any:
    """What a call returned, in the words of `described`."""
    if result is None:
        return []
    if isinstance(result, Entry):
        return [seen(result)]
    if isinstance(result, list):
        return [seen(entry) for entry in result]
    return "count"
