"""Hostile input: nothing reaches another scope, and what is refused changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import agentmem
from agentmem import AgentMemError, Store
from agentmem.filters import Filter
from agentmem.history.verify import _is_found
from agentmem.limits import Limits
from agentmem.namespaces import Pattern, decode, encode, range_end
from agentmem.search.words import found_by
from agentmem.values import canonical
from tests.strategies import (
    HOSTILE,
    invalid_values,
    json_values,
    keys,
    labels,
    namespaces,
    texts,
    wheres,
)

# In memory where there is such a place: what is tested here is not the disk.
FOLDER: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  # a fresh folder in it
LIMITS: Final = Limits()
NAIVE: Final = datetime(2026, 1, 31)  # noqa: DTZ001  # what must be refused

Labels = tuple[str, ...]
Place = tuple[Labels, str]


@contextmanager
def opened() -> Iterator[Store]:
    """A fresh store, that is verified and removed."""
    folder = tempfile.mkdtemp(prefix="agentmem-hostile-", dir=FOLDER)
    try:
        with agentmem.open(os.path.join(folder, "team.db"), durability="relaxed") as store:
            yield store
            assert store.admin.verify().problems == []
    finally:
        shutil.rmtree(folder)


def order(place: Place) -> tuple[tuple[bytes, ...], bytes]:
    return tuple(label.encode() for label in place[0]), place[1].encode()


def contents(view: Any) -> dict[Place, Any]:
    return {(entry.namespace, entry.key): entry.value for entry in view.list()}


def spell(value: Any) -> str:
    """A value such that booleans, numbers and texts are told apart; names have no order."""
    return json.dumps(value, sort_keys=True)


# --- scopes ---


def apart(one: Labels, two: Labels) -> bool:
    """Whether neither namespace lies in the other."""
    shorter = min(len(one), len(two))
    return one[:shorter] != two[:shorter]


roots = st.builds(lambda first, rest: (first, *rest), labels(), namespaces(max_depth=1))
writes = st.lists(
    st.tuples(st.integers(0, 2), namespaces(max_depth=2), keys(), json_values(max_leaves=3)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100)
@given(roots, roots, writes, wheres())
def test_two_scopes_and_their_root_see_each_others_writes_only_where_they_should(
    one: Labels, two: Labels, todo: list[tuple[int, Labels, str, Any]], where: Any
) -> None:
    assume(apart(one, two))
    expected: dict[Place, Any] = {}
    with opened() as store:
        tops: list[Labels] = [(), one, two]
        views = [store, store.scoped(one), store.scoped(two)]
        for number, namespace, key, value in todo:
            views[number].put(key, value, namespace=namespace)
            expected[tops[number] + namespace, key] = value
        for root, view in zip(tops, views, strict=True):
            inside = {
                (namespace[len(root) :], key): value
                for (namespace, key), value in expected.items()
                if namespace[: len(root)] == root
            }
            assert [(place, spell(value)) for place, value in contents(view).items()] == [
                (place, spell(inside[place])) for place in sorted(inside, key=order)
            ]
            assert view.count() == len(inside)
            assert set(view.namespaces()) == {namespace for namespace, _key in inside}
            check = Filter.parse(where)
            assert check is not None
            found = [(entry.namespace, entry.key) for entry in view.list(where=where)]
            assert found == [
                place for place in sorted(inside, key=order) if check.matches(inside[place])
            ]
            changed = {
                (change.namespace, change.key) for each in view.log() for change in each.changes
            }
            assert changed == set(inside)
        cleared = views[1].clear()
        assert cleared == sum(namespace[: len(one)] == one for namespace, _key in expected)
        assert contents(views[2]) == {
            (namespace[len(two) :], key): value
            for (namespace, key), value in expected.items()
            if namespace[: len(two)] == two
        }


@settings(max_examples=300)
@given(json_values(max_leaves=6))
@example({":": None})
@example({"[": [{":": {}}]})
@example(["]"])
@example({"a": ":"})
@example({"a": ""})
def test_verify_knows_what_words_find_without_parsing(value: Any) -> None:
    text = canonical(value).decode()
    assert _is_found(text, None) == (found_by(text, None) is not None)


@settings(max_examples=100)
@given(st.lists(st.tuples(namespaces(max_depth=3), keys()), min_size=1, max_size=15), st.data())
def test_a_list_is_bytewise_and_every_part_of_it_is_a_part(
    places: list[Place], data: st.DataObject
) -> None:
    with opened() as store:
        for namespace, key in places:
            store.put(key, 0, namespace=namespace)
        everything = [(entry.namespace, entry.key) for entry in store.list()]
        assert everything == sorted(set(places), key=order)
        under = data.draw(st.sampled_from(places))[0]
        prefix = data.draw(st.sampled_from(places))[1][: data.draw(st.integers(0, 2))]
        after = data.draw(st.sampled_from(places) | st.tuples(namespaces(max_depth=2), keys()))
        limit = data.draw(st.none() | st.integers(0, 5))
        expected = [
            place
            for place in everything
            if place[0][: len(under)] == under
            and place[1].startswith(prefix)
            and order(place) > order(after)
        ][:limit]
        views: list[Any] = [store, store.snapshot(), store.transaction()]
        for view in views:
            found = view.list(under, key_prefix=prefix, after=after, limit=limit)
            assert [(entry.namespace, entry.key) for entry in found] == expected
            assert view.namespaces(under) == sorted(
                {place[0] for place in everything if place[0][: len(under)] == under},
                key=lambda namespace: order((namespace, "")),
            )


# --- rejections ---

lone = st.sampled_from(("\ud800", "a\udfff", "\udc00\ud83d"))
bad_texts = st.one_of(st.just(""), st.builds(lambda text: text + "\x00", texts(max_size=2)), lone)
no_text = st.one_of(
    st.integers(), st.binary(max_size=2), st.none(), st.tuples(st.just("a"), st.just("b"))
)
long_texts = st.text(HOSTILE.replace("/", ""), min_size=1_025, max_size=1_030)
bad_keys = st.one_of(bad_texts, no_text, long_texts)
bad_namespaces = st.one_of(
    st.tuples(st.one_of(bad_texts, long_texts, st.integers(), st.none())),
    st.sampled_from(("a//b", "/a", "a/", "/")),
    st.lists(labels(), min_size=17, max_size=18).map(tuple),
    st.integers(),
    st.binary(max_size=2),
    st.sets(labels(), min_size=1, max_size=2),
    st.dictionaries(labels(), labels(), min_size=1, max_size=2),
)
bad_wheres = st.one_of(
    st.integers(),
    st.lists(st.integers(), min_size=1),
    texts(),
    st.dictionaries(
        st.sampled_from(("$where", "$near", "a..b", ".", "", "a\\", "$", "\\x")),
        json_values(max_leaves=2),
        min_size=1,
        max_size=2,
    ),
    st.fixed_dictionaries(
        {"a": st.dictionaries(st.sampled_from(("$regex", "$", "$sql", "$$")), texts(), min_size=1)}
    ),
    st.fixed_dictionaries({"$or": st.one_of(st.just([]), texts(), st.integers())}),
    st.fixed_dictionaries({"a": st.fixed_dictionaries({"$gt": st.none() | st.booleans()})}),
    st.fixed_dictionaries({"a": invalid_values()}),
    st.fixed_dictionaries(
        {"a": st.fixed_dictionaries({"$in": st.lists(invalid_values(), min_size=1)})}
    ),
)

KEY_CALLS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "get": lambda view, key: view.get(key),
    "brackets": lambda view, key: view[key],
    "in": lambda view, key: key in view,
    "get_many": lambda view, key: view.get_many(["k", key]),
    "put": lambda view, key: view.put(key, 1),
    "put_many": lambda view, key: view.put_many([("k", 2), (key, 1)]),
    "delete": lambda view, key: view.delete(key),
    "increment": lambda view, key: view.increment(key),
    "append": lambda view, key: view.append(key, 1),
    "add_to_set": lambda view, key: view.add_to_set(key, 1),
    "patch": lambda view, key: view.patch(key, {}),
    "touch": lambda view, key: view.touch(key, 1),
}
STORE_KEY_CALLS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "history": lambda view, key: view.history(key),
    "update": lambda view, key: view.update(key, lambda value: value, default=0),
    "diff": lambda view, key: view.audit.diff(key, 0, 0),
    "version": lambda view, key: view.audit.version(key, 1),
}
NAMESPACE_CALLS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "get": lambda view, namespace: view.get("k", namespace=namespace),
    "list": lambda view, namespace: view.list(namespace),
    "count": lambda view, namespace: view.count(namespace),
    "namespaces": lambda view, namespace: view.namespaces(namespace),
    "put": lambda view, namespace: view.put("k", 1, namespace=namespace),
    "put_many": lambda view, namespace: view.put_many({"k": 1}, namespace=namespace),
    "add": lambda view, namespace: view.add(1, namespace=namespace),
    "delete": lambda view, namespace: view.delete("k", namespace=namespace),
    "clear": lambda view, namespace: view.clear(namespace),
    "append": lambda view, namespace: view.append("k", 1, namespace=namespace),
    "after": lambda view, namespace: view.list(after=(namespace, "k")),
    "collection": lambda view, namespace: view.collection(int, namespace),
}
STORE_NAMESPACE_CALLS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "log": lambda view, namespace: view.log(namespace),
    "scoped": lambda view, namespace: view.scoped(namespace),
    "history": lambda view, namespace: view.history("k", namespace=namespace),
}
VALUE_CALLS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "put": lambda view, value: view.put("k", value),
    "put_many": lambda view, value: view.put_many([("new", 1), ("k", value)]),
    "add": lambda view, value: view.add(value),
    "append": lambda view, value: view.append("l", 1, value),
    "add_to_set": lambda view, value: view.add_to_set("l", value),
    "patch": lambda view, value: view.patch("p", {"a": value}),
}
STORE_VALUE_CALLS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "update": lambda view, value: view.update("k", lambda _value: value),
    "default": lambda view, value: view.update("x", lambda _value: 1, default=value),
    "metadata": lambda view, value: view.put("k", 1, metadata={"a": value}),
    "result": lambda view, value: view.transact(lambda tx: value),
}
WHERE_CALLS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "list": lambda view, where: view.list(where=where),
    "count": lambda view, where: view.count(where=where),
}


@contextmanager
def untouched() -> Iterator[list[Any]]:
    """A store, a scope and a transaction on it, all of which must stay as they are."""
    with opened() as store:
        store.put_many({"k": 1, "l": [], "p": {}})
        store.put("k", 1, namespace="team")
        tx = store.transaction()
        tx.put("own", 1)
        before, own = store.list(), tx.list()
        yield [store, store.scoped("team"), tx]
        assert store.revision == 2
        assert store.list() == before
        assert store.log(limit=1)[0].revision == 2
        assert tx.list() == own
        tx.commit()


def refused(
    views: list[Any],
    calls: dict[str, Callable[[Any, Any], Any]],
    store_calls: dict[str, Callable[[Any, Any], Any]],
    argument: Any,
) -> None:
    for number, view in enumerate(views):
        for name, call in (calls | (store_calls if number < 2 else {})).items():
            try:
                call(view, argument)
            except agentmem.StorageError as error:
                pytest.fail(f"{name} let {argument!r} reach the storage: {error}")
            except (AgentMemError, TypeError):
                continue
            pytest.fail(f"{name} took {argument!r}")


@settings(max_examples=60)
@given(bad_keys)
def test_a_bad_key_is_a_typed_error_and_changes_nothing(key: Any) -> None:
    with untouched() as views:
        refused(views, KEY_CALLS, STORE_KEY_CALLS, key)


@settings(max_examples=60)
@given(bad_namespaces)
def test_a_bad_namespace_is_a_typed_error_and_changes_nothing(namespace: Any) -> None:
    with untouched() as views:
        refused(views, NAMESPACE_CALLS, STORE_NAMESPACE_CALLS, namespace)


@settings(max_examples=100)
@given(invalid_values())
def test_a_bad_value_is_a_typed_error_and_changes_nothing(value: Any) -> None:
    with untouched() as views:
        refused(views, VALUE_CALLS, STORE_VALUE_CALLS, value)


@settings(max_examples=100)
@given(bad_wheres)
def test_a_bad_filter_is_a_typed_error_and_changes_nothing(where: Any) -> None:
    with untouched() as views:
        refused(views, WHERE_CALLS, {}, where)


bad_options = st.one_of(
    st.tuples(st.sampled_from(("agent", "op_id", "note")), bad_texts | st.integers()),
    st.tuples(
        st.just("metadata"), invalid_values().filter(bool) | st.lists(st.just(1), min_size=1)
    ),
)


@settings(max_examples=60)
@given(bad_options)
def test_a_bad_name_of_a_commit_is_a_typed_error_and_changes_nothing(
    option: tuple[str, Any],
) -> None:
    options = dict([option])
    calls: dict[str, Callable[[Any, Any], Any]] = {
        "put": lambda view, given: view.put("k", 2, **given),
        "delete": lambda view, given: view.delete("k", **given),
        "increment": lambda view, given: view.increment("k", **given),
        "touch": lambda view, given: view.touch("k", 5, **given),
        "update": lambda view, given: view.update("k", lambda value: 2, **given),
        "clear": lambda view, given: view.clear(**given),
        "transaction": lambda view, given: view.transaction(**given),
        "transact": lambda view, given: view.transact(lambda tx: tx.put("k", 5), **given),
    }
    with untouched() as views:
        refused(views[:2], calls, {}, options)


@settings(max_examples=60)
@given(st.one_of(bad_texts, no_text, st.floats(), st.booleans(), st.just(NAIVE)))
def test_what_names_no_moment_is_a_typed_error(moment: Any) -> None:
    assume(moment is not None and type(moment) is not int)
    with untouched() as views:
        refused(views[:2], {"snapshot": lambda view, at: view.snapshot(at=at)}, {}, moment)


# --- what passes, comes back ---


@settings(max_examples=100)
@given(namespaces(), keys(), json_values(), texts(min_size=1), texts())
def test_everything_that_is_accepted_comes_back_as_it_was(
    namespace: Labels, key: str, value: Any, name: str, text: str
) -> None:
    with opened() as store:
        entry = store.put(
            key, value, namespace=namespace, agent=name, op_id=name, note=name, text=text
        )
        assert (entry.namespace, entry.key) == (namespace, key)
        assert spell(entry.value) == spell(value)
        assert entry.agent == entry.op_id == name
        assert (entry.text or "") == text
        assert store.get(key, namespace=namespace) == entry
        assert store.history(key, namespace=namespace) == [entry]
        assert store.list(namespace) == [entry]
        assert store.put(key, value, namespace=namespace, op_id=name, text=text) == entry
        assert store.audit.tag(name).name == name
        assert store.snapshot(at=name).list() == [entry]
        (commit,) = store.log(namespace, agent=name, op_id=name)
        assert commit.note == name


# --- the encoding of namespaces ---


@settings(max_examples=500)
@given(namespaces(), namespaces())
def test_the_encoding_is_injective_keeps_order_and_can_be_scanned(one: Labels, two: Labels) -> None:
    first, second = encode(one), encode(two)
    assert decode(first) == one
    assert (first == second) == (one == two)
    by_bytes = [tuple(label.encode() for label in each) for each in (one, two)]
    assert (first < second) == (by_bytes[0] < by_bytes[1])
    assert (first.encode() < second.encode()) == (first < second)
    inside = two[: len(one)] == one
    assert second.startswith(first) == inside
    end = range_end(first)
    assert (first <= second and (end is None or second < end)) == inside
    assert "\x00" not in first


# --- patterns, against a naive reference ---

parts = st.one_of(
    st.sampled_from(("**", "*", "a", "b", "a*", "*b", "a*b*", "**")),
    st.text("ab*?.[", min_size=1, max_size=4).filter(lambda part: part == "**" or "**" not in part),
)
patterns = st.lists(parts, min_size=1, max_size=5).map("/".join)
small_labels = st.lists(st.text("ab?.[*", min_size=1, max_size=3), max_size=4).map(tuple)
small_keys = st.text("ab?.[*/", min_size=1, max_size=3)


def fits(part: str, name: str) -> bool:
    """Whether a part with stars fits a label or key."""
    if not part:
        return not name
    if part[0] == "*":
        return any(fits(part[1:], name[index:]) for index in range(len(name) + 1))
    return bool(name) and part[0] == name[0] and fits(part[1:], name[1:])


def naive(pattern: list[str], names: list[str]) -> bool:
    """Whether a pattern fits labels and, last, a key."""
    first, rest = pattern[0], pattern[1:]
    if not rest:
        return bool(names) if first == "**" else len(names) == 1 and fits(first, names[0])
    if first == "**":
        return any(naive(rest, names[count:]) for count in range(len(names)))
    return len(names) > 1 and fits(first, names[0]) and naive(rest, names[1:])


@settings(max_examples=600)
@given(patterns, small_labels, small_keys)
def test_a_pattern_matches_as_the_reference_does(text: str, inside: Labels, key: str) -> None:
    pattern = Pattern.parse(text, LIMITS)
    assert pattern.matches(inside, key) == naive(text.split("/"), [*inside, key])


@settings(max_examples=300)
@given(patterns, small_labels, small_labels, small_keys)
def test_what_a_pattern_covers_and_reaches_agrees_with_what_it_matches(
    text: str, inside: Labels, below: Labels, key: str
) -> None:
    pattern = Pattern.parse(text, LIMITS)
    matches = pattern.matches(inside + below, key)
    if pattern.covers(inside):
        assert matches
    if matches:
        assert pattern.reaches(inside)


@settings(max_examples=300)
@given(patterns, small_labels, small_labels, small_keys)
def test_a_pattern_of_a_scope_stays_inside_of_it(
    text: str, prefix: Labels, inside: Labels, key: str
) -> None:
    pattern = Pattern.parse(text, LIMITS, prefix)
    plain = Pattern.parse(text, LIMITS)
    assert pattern.matches(prefix + inside, key) == plain.matches(inside, key)
    if inside[: len(prefix)] != prefix:
        assert not pattern.matches(inside, key)


@settings(max_examples=100)
@given(namespaces(max_depth=2), namespaces(max_depth=2), keys(), patterns)
def test_a_mapping_shows_what_its_pattern_matches_and_nothing_else(
    prefix: Labels, namespace: Labels, key: str, text: str
) -> None:
    places: list[Place] = [
        (prefix, "a"),
        (prefix, "ab"),
        ((*prefix, "a"), "b"),
        ((*prefix, "a", "b"), "a"),
        ((*prefix, *namespace), key),
        (("outside",), "a"),
        ((), "a"),
    ]
    with opened() as store:
        for number, (labels_of, name) in enumerate(places):
            store.put(name, number, namespace=labels_of)
        view = store.scoped(prefix, access={text: "read"})
        expected = {
            (entry.namespace[len(prefix) :], entry.key): entry.value
            for entry in store.list(prefix)
            if naive(text.split("/"), [*entry.namespace[len(prefix) :], entry.key])
        }
        try:
            shown = contents(view)
        except agentmem.AccessDeniedError:
            shown = {}
        assert shown == expected
        for labels_of, name in places:
            if labels_of[: len(prefix)] != prefix:
                continue
            inside = labels_of[len(prefix) :]
            try:
                entry = view.get(name, namespace=inside)
            except agentmem.AccessDeniedError:
                assert (inside, name) not in expected
            else:
                assert entry is not None
                assert expected[inside, name] == entry.value
