"""Reads: the same calls with the same answers on stores, snapshots, transactions and scopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentmem import Entry, InvalidValueError, KeyMissingError, LimitExceededError, Store
from agentmem.views import View
from tests.contract.conftest import StoreMaker

# (namespace, key) in the order that `list` promises: bytewise, a namespace before its children.
ORDERED = [
    ((), "Z"),
    ((), "a"),
    ((), "a/b"),
    ((), "é"),
    ((), "\uffff"),
    ((), "\U0001f9e0"),
    (("a",), "k"),
    (("a", "b"), "k"),
    (("a\x01",), "k"),
    (("a\x02",), "k"),
    (("a b",), "k"),
    (("ab",), "k"),
    (("é",), "k"),
    (("\uffff",), "k"),
    (("\U0001f9e0",), "k"),
]

VIEWS: dict[str, Callable[[Store], View]] = {
    "store": lambda store: store,
    "scoped": lambda store: store.scoped(),
    "snapshot": lambda store: store.snapshot(),
    "snapshot at": lambda store: store.snapshot(at=store.revision),
    "transaction": lambda store: store.transaction(),
    "scoped snapshot": lambda store: store.scoped(access={"**": "read"}).snapshot(),
    "scoped transaction": lambda store: store.scoped(access={"**": "read"}).transaction(),
}


@pytest.fixture(params=VIEWS)
def view_of(request: pytest.FixtureRequest) -> Callable[[Store], View]:
    """Every kind of view that can be read."""
    return VIEWS[request.param]


def names(entries: list[Entry[Any]]) -> list[str]:
    return ["/".join((*entry.namespace, entry.key)) for entry in entries]


def test_get_returns_the_entry_that_was_written(
    make_store: StoreMaker, store: Store, view_of: Callable[[Store], View]
) -> None:
    written = store.put("plan", {"days": 3}, namespace="team/alice", agent="ann", op_id="op")
    entry = view_of(make_store()).get("plan", namespace=("team", "alice"))
    assert entry == written
    assert entry is not None
    assert (entry.namespace, entry.key, entry.value) == (("team", "alice"), "plan", {"days": 3})
    assert (entry.version, entry.revision, entry.agent, entry.op_id) == (1, 1, "ann", "op")
    assert not entry.deleted
    assert not entry.pending


def test_get_of_an_absent_key_returns_none_or_the_default(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    store.put("plan", 1)
    store.delete("plan")
    view, marker = view_of(store), object()
    assert view.get("plan") is None
    assert view.get("never", default=marker) is marker
    assert view.get("plan", namespace="team", default=0) == 0


def test_brackets_give_the_value_or_a_key_error(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    store.put("none", None)
    view = view_of(store)
    assert view["none"] is None
    with pytest.raises(KeyMissingError, match="'gone' is absent") as caught:
        view["gone"]
    assert isinstance(caught.value, KeyError)
    assert (caught.value.namespace, caught.value.key) == ((), "gone")


def test_in_tells_whether_a_key_is_present(store: Store, view_of: Callable[[Store], View]) -> None:
    store.put("none", None)
    store.put("gone", 1)
    store.delete("gone")
    view = view_of(store)
    assert "none" in view
    assert "gone" not in view
    assert "never" not in view


def test_a_view_is_not_iterated_by_numbers(store: Store, view_of: Callable[[Store], View]) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(view_of(store))  # type: ignore[call-overload]  # the point of the test


def test_get_many_gives_those_that_are_present_by_key(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    written = {key: store.put(key, key * 2, namespace="team") for key in ("a", "b")}
    store.put("c", "in the root")
    assert view_of(store).get_many(["b", "c", "a", "b"], namespace="team") == written
    assert view_of(store).get_many([]) == {}


def test_get_many_of_one_string_is_refused(store: Store, view_of: Callable[[Store], View]) -> None:
    with pytest.raises(TypeError, match="not one str"):
        view_of(store).get_many("plan")


def test_list_is_in_bytewise_order_of_namespace_and_key(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    for namespace, key in reversed(ORDERED):
        store.put(key, 0, namespace=namespace)
    found = [(entry.namespace, entry.key) for entry in view_of(store).list()]
    by_bytes = sorted(
        ORDERED, key=lambda at: (tuple(label.encode() for label in at[0]), at[1].encode())
    )
    assert found == by_bytes


def test_a_namespace_covers_its_children_and_nothing_else(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    for namespace in ((), "a", "a/b", "ab", ("a/b",), ("a\x01",), ("a", "b", "c")):
        store.put("k", 0, namespace=namespace)
    view = view_of(store)
    assert [entry.namespace for entry in view.list("a")] == [
        ("a",),
        ("a", "b"),
        ("a", "b", "c"),
    ]
    assert [entry.namespace for entry in view.list(("a/b",))] == [("a/b",)]
    assert view.list("a/b/c/d") == []
    assert view.count("a") == 3
    assert view.count() == 7
    assert view.list("") == view.list(()) == view.list(None) == view.list()


def test_key_prefix_is_literal(store: Store, view_of: Callable[[Store], View]) -> None:
    for key in ("a%", "a%b", "ab", "a_", "A%", "\U0010ffff", "\U0010ffffx"):
        store.put(key, 0, namespace="n")
    view = view_of(store)
    assert names(view.list("n", key_prefix="a%")) == ["n/a%", "n/a%b"]
    assert names(view.list(key_prefix="a_")) == ["n/a_"]
    assert names(view.list(key_prefix="\U0010ffff")) == ["n/\U0010ffff", "n/\U0010ffffx"]
    assert view.count("n", key_prefix="a") == 4
    assert len(view.list(key_prefix="")) == 7


def test_where_selects_by_value(store: Store, view_of: Callable[[Store], View]) -> None:
    for key, value in (
        ("a", {"status": "open", "meta": {"priority": 5}}),
        ("b", {"status": "open", "meta": {"priority": 2}}),
        ("c", {"status": "done", "meta": {"priority": 5}}),
        ("d", {"status": "open", "meta": {"priority": True}}),
        ("e", {"status": "open"}),
        ("f", "open"),
    ):
        store.put(key, value)
    view = view_of(store)
    where = {"status": "open", "meta.priority": {"$gte": 3}}
    assert names(view.list(where=where)) == ["a"]
    assert view.count(where=where) == 1
    assert names(view.list(where={"meta.priority": {"$exists": False}})) == ["e", "f"]
    assert names(view.list(where={"status": {"$ne": "open"}})) == ["c", "f"]
    assert names(view.list(where={"$not": {"status": {"$in": ["open", "done"]}}})) == ["f"]
    assert view.count(where={}) == 6


def test_limit_and_after_page_through_everything_once(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    places = [(namespace, f"k{number}") for namespace in ("", "n", "n/m") for number in range(7)]
    for namespace, key in places:
        store.put(key, 0, namespace=namespace)
    view, pages = view_of(store), []
    page = view.list(limit=4)
    while page:
        pages.append(page)
        page = view.list(limit=4, after=page[-1])
    assert [len(page) for page in pages] == [4] * 5 + [1]
    assert [entry for page in pages for entry in page] == view.list()
    assert view.list(limit=0) == []


def test_after_is_an_entry_a_key_or_a_pair_and_need_not_be_present(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    for namespace, key in (("", "z"), ("n", "b"), ("n", "d"), ("n/m", "a")):
        store.put(key, 0, namespace=namespace)
    view = view_of(store)
    assert names(view.list("n", after="c")) == ["n/d", "n/m/a"]
    assert names(view.list(after=("n", "b"))) == ["n/d", "n/m/a"]
    assert names(view.list(after=(("n",), "x"))) == ["n/m/a"]
    assert names(view.list("n", after=view.list()[0])) == ["n/b", "n/d", "n/m/a"]


def test_limit_counts_what_matches_the_filter(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    for number in range(10):
        store.put(f"k{number}", {"odd": bool(number % 2)})
    view = view_of(store)
    first = view.list(where={"odd": True}, limit=3)
    assert names(first) == ["k1", "k3", "k5"]
    assert names(view.list(where={"odd": True}, limit=3, after=first[-1])) == ["k7", "k9"]


def test_namespaces_are_those_that_hold_a_key(
    store: Store, view_of: Callable[[Store], View]
) -> None:
    for namespace in ((), "a/b/c", "a/d", ("x\x01",)):
        store.put("k", 0, namespace=namespace)
    store.put("k", 0, namespace="gone")
    store.delete("k", namespace="gone")
    view = view_of(store)
    assert view.namespaces() == [(), ("a", "b", "c"), ("a", "d"), ("x\x01",)]
    assert view.namespaces("a") == [("a", "b", "c"), ("a", "d")]
    assert view.namespaces(depth=1) == [(), ("a",), ("x\x01",)]
    assert view.namespaces("a", 2) == [("a", "b"), ("a", "d")]
    assert view.namespaces("nothing") == []


def test_a_list_longer_than_a_page_is_whole(store: Store, view_of: Callable[[Store], View]) -> None:
    store.put_many({f"{number:05}": number for number in range(1_100)})
    store.clear("nothing")
    view = view_of(store)
    assert [entry.value for entry in view.list()] == list(range(1_100))
    assert view.count() == 1_100
    assert view.list(after="01050", limit=1)[0].value == 1_051


def test_a_read_returns_a_fresh_value(store: Store, view_of: Callable[[Store], View]) -> None:
    store.put("plan", {"days": [1, 2]})
    view = view_of(store)
    view["plan"]["days"].append(3)
    first = view.get("plan")
    assert first is not None
    first.value.clear()
    view.list()[0].value["days"] = None
    view.get_many(["plan"])["plan"].value.clear()
    assert view["plan"] == store["plan"] == {"days": [1, 2]}


def test_a_string_names_the_same_namespace_as_its_labels(store: Store) -> None:
    store.put("k", 1, namespace="team/alice")
    assert store.get("k", namespace=("team", "alice")) == store.get(
        "k", namespace=["team", "alice"]
    )
    assert store.get("k", namespace=("team/alice",)) is None


def test_a_slash_in_a_key_is_just_a_character(store: Store) -> None:
    store.put("team/alice", 1)
    assert store["team/alice"] == 1
    assert store.list("team") == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda view: view.get(("team", "k")), TypeError, "namespace"),
        (lambda view: view.get(5), TypeError, "a key is a str, not int"),
        (lambda view: view.get(""), InvalidValueError, "must not be empty"),
        (lambda view: view.get("a\x00"), InvalidValueError, "NUL"),
        (lambda view: view.get("\ud800"), InvalidValueError, "surrogate"),
        (lambda view: view["k" * 1_025], LimitExceededError, "1025 bytes"),
        (lambda view: view.get("k", namespace="a//b"), InvalidValueError, "must not be empty"),
        (lambda view: view.get("k", namespace=("a", 5)), TypeError, "a label of a namespace"),
        (lambda view: view.get("k", namespace=5), TypeError, "a namespace is a tuple"),
        (lambda view: view.list("/".join("abcdefghijklmnopq")), LimitExceededError, "17 labels"),
        (lambda view: view.list(limit=-1), InvalidValueError, "limit"),
        (lambda view: view.list(limit=True), InvalidValueError, "limit"),
        (lambda view: view.list(limit=1.5), InvalidValueError, "limit"),
        (lambda view: view.list(after=5), TypeError, "after is"),
        (lambda view: view.list(where={"a": {"$near": 1}}), InvalidValueError, "no operator"),
        (lambda view: view.list(where="a = 1"), InvalidValueError, "mapping"),
        (lambda view: view.count(key_prefix="\x00"), InvalidValueError, "NUL"),
        (lambda view: view.namespaces(depth=0), InvalidValueError, "depth"),
    ],
)
def test_a_bad_argument_of_a_read_is_named(
    store: Store, call: Callable[[View], Any], error: type[Exception], message: str
) -> None:
    for view_of in VIEWS.values():
        with pytest.raises(error, match=message):
            call(view_of(store))


def test_a_bad_filter_tells_where_in_it(store: Store) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.list(where={"meta.priority": {"$gte": None}})
    assert caught.value.path == '$.where["meta.priority"]["$gte"]'


def test_an_empty_store_reads_as_nothing(store: Store, view_of: Callable[[Store], View]) -> None:
    view = view_of(store)
    assert view.list() == []
    assert view.count() == 0
    assert view.namespaces() == []
    assert store.revision == 0


def test_a_limit_counts_what_is_seen_and_not_what_is_gone(store: Store) -> None:
    for number in range(6):
        store.put(f"k{number}", number)
    for number in (0, 1, 2, 4):
        store.delete(f"k{number}")
    with store.transaction() as tx:
        tx.put("k1", "mine")
        for view, first in ((store, 3), (store.snapshot(), 3), (tx, "mine")):
            assert [entry.value for entry in view.list(limit=1)] == [first]
            assert len(view.list(limit=2)) == 2
        assert [entry.value for entry in tx.list(limit=2, after="k0")] == ["mine", 3]
        tx.rollback()
