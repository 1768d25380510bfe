"""``audit.blame`` and ``audit.diff_revisions``: who set what, and what two states differ in."""

from __future__ import annotations

from typing import Any

import pytest

import agentmem
from agentmem import (
    AccessDeniedError,
    CompactedError,
    FutureRevisionError,
    KeyMissingError,
    RevisionError,
    Store,
)
from agentmem.engines.rows import (
    Change,
    EntryRow,
)
from tests.contract.conftest import ManualClock, StoreMaker


def setters(store: Store, key: str = "k", **options: Any) -> dict[str, int]:
    return {each.path: each.version for each in store.audit.blame(key, **options)}


def changed(store: Store, a: Any, b: Any = None, **options: Any) -> dict[str, tuple[int, int]]:
    """Versions before and after, by "namespace/key"."""
    return {
        "/".join((*each.namespace, each.key)): (
            each.before.version or 0 if each.before else 0,
            each.after.version or 0 if each.after else 0,
        )
        for each in store.audit.diff_revisions(a, b, **options)
    }


# Blame.


def test_blame_names_the_commit_that_last_set_each_path(store: Store, clock: ManualClock) -> None:
    store.put("k", {"a": 1, "b": {"c": [1, 2]}}, agent="ann", op_id="one", note="first")
    later = clock.advance(60)
    store.put("k", {"a": 1, "b": {"c": [1, 3]}, "d": {}}, agent="bob", overwrite=True)
    a, first, second, d = store.audit.blame("k")
    assert (a.path, a.value, a.version, a.revision, a.agent) == ("$.a", 1, 1, 1, "ann")
    assert (a.op_id, a.note, a.operation, a.merged) == ("one", "first", "put", None)
    assert (first.path, first.version) == ("$.b.c[0]", 1)
    assert (second.path, second.value, second.version) == ("$.b.c[1]", 3, 2)
    assert (second.agent, second.committed_at, second.note) == ("bob", later, None)
    assert (d.path, d.value, d.version) == ("$.d", {}, 2)
    assert not any(each.or_earlier for each in (a, first, second, d))
    assert repr(second) == "Blame('$.b.c[1]', 3, version=2, agent='bob')"


def test_blame_keeps_types_and_odd_names_apart(store: Store) -> None:
    store.put("k", {"a.b": 1, "a": {"b": True}, "": [], "é": 1, 'q"': None})
    store.put("k", {"a.b": 1.0, "a": {"b": 1}, "": {}, "é": 1, 'q"': None}, overwrite=True)
    assert setters(store) == {
        '$[""]': 2,
        "$.a.b": 2,
        '$["a.b"]': 2,
        '$["q\\""]': 1,
        "$.é": 1,
    }


def test_blame_goes_through_atomic_operations(store: Store) -> None:
    store.put("k", {"n": 1, "list": ["x"]}, agent="ann")
    store.patch("k", {"n": 2, "gone": 1}, agent="bob")
    store.patch("k", {"gone": None, "new": {"deep": 1}}, agent="eve")
    assert setters(store) == {"$.list[0]": 1, "$.n": 2, "$.new.deep": 3}
    store.append("log", "a")
    store.append("log", "b", "c")
    store.add_to_set("log", "a")
    assert setters(store, "log") == {"$[0]": 1, "$[1]": 2, "$[2]": 2}
    store.increment("n", 5, agent="ann")
    store.increment("n", 0, agent="bob")
    (found,) = store.audit.blame("n")
    assert (found.path, found.version, found.operation, found.agent) == ("$", 1, "increment", "ann")


def test_blame_leaves_to_each_what_a_merge_took_over(store: Store) -> None:
    store.set_merge("k", "json")
    base = store.put("k", {"a": 0, "b": 0, "c": 0}, agent="ann")
    store.put("k", {"a": 1, "b": 0, "c": 0}, expected_version=base.version, agent="bob")
    store.put("k", {"a": 0, "b": 1, "c": 0}, expected_version=base.version, agent="eve")
    found = {each.path: (each.agent, each.merged) for each in store.audit.blame("k")}
    assert found == {"$.a": ("bob", None), "$.b": ("eve", "json"), "$.c": ("ann", None)}


@pytest.mark.parametrize("gone", ["deleted", "expired"])
def test_a_key_made_anew_owes_nothing_to_what_was_before(
    store: Store, clock: ManualClock, gone: str
) -> None:
    store.put("k", {"a": 1}, ttl_s=10)
    if gone == "deleted":
        store.delete("k")
    clock.advance(11)
    with pytest.raises(KeyMissingError):
        store.audit.blame("k")
    store.put("k", {"a": 1})
    version = 3 if gone == "deleted" else 2
    assert setters(store) == {"$.a": version}
    assert not store.audit.blame("k")[0].or_earlier
    store.put("k", {"a": 1, "b": 1}, overwrite=True)
    assert setters(store) == {"$.a": version, "$.b": version + 1}


def test_blame_explains_the_value_of_any_moment(store: Store) -> None:
    store.put("k", {"a": 1})
    store.put("other", 1)
    store.put("k", {"a": 2}, overwrite=True)
    store.audit.tag("then", at=2)
    assert setters(store) == {"$.a": 2}
    assert setters(store, at=1) == setters(store, at="then") == {"$.a": 1}
    with pytest.raises(KeyMissingError):
        store.audit.blame("k", at=0)
    with pytest.raises(KeyMissingError):
        store.audit.blame("k", namespace="n")
    with pytest.raises(FutureRevisionError):
        store.audit.blame("k", at=9)


def test_a_revert_has_set_what_it_put_back(store: Store) -> None:
    store.put("k", {"a": 1, "b": 1})
    store.put("k", {"a": 2, "b": 1}, overwrite=True)
    store.audit.revert("k", 1)
    assert setters(store) == {"$.a": 3, "$.b": 1}


def test_blame_reads_no_more_of_a_long_history_than_it_needs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        store.put("k", {"n": number, "same": 0}, overwrite=True)
    engine, read = store._core.engine, []
    real = engine.history

    def history(*arguments: Any) -> list[EntryRow]:
        rows = real(*arguments)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(engine, "history", history)
    assert setters(store) == {"$.n": 100, "$.same": 1}
    assert sum(read) == 99
    read.clear()
    store.put("k", {"n": 1, "same": 1}, overwrite=True)
    assert setters(store) == {"$.n": 101, "$.same": 101}
    assert sum(read) <= 8


@pytest.mark.parametrize("how", ["compacted", "purged"])
def test_blame_says_so_where_older_versions_are_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for number in range(5):
        store.put("k", {"n": number, "same": 0}, overwrite=True)
    engine, real = store._core.engine, store._core.engine.history

    def history(*arguments: Any) -> list[EntryRow]:
        """As if versions 1 and 2 were compacted, or their values purged."""
        rows = real(*arguments)
        if how == "compacted":
            return [row for row in rows if row.version > 2]
        return [row if row.version > 2 else row._replace(value=None, text=None) for row in rows]

    monkeypatch.setattr(engine, "history", history)
    n, same = store.audit.blame("k")
    assert (n.path, n.version, n.or_earlier) == ("$.n", 5, False)
    assert (same.path, same.version, same.or_earlier) == ("$.same", 3, True)
    assert repr(same) == "Blame('$.same', 0, version=3, or earlier)"


def test_a_scoped_view_is_told_of_its_own_keys_alone(store: Store) -> None:
    team = store.scoped("team")
    store.put("k", 1, namespace="team", op_id="theirs", agent="ann")
    team.put("mine", 1, op_id="ours")
    assert [(each.agent, each.op_id) for each in team.audit.blame("k")] == [("ann", None)]
    assert team.audit.blame("mine")[0].op_id == "ours"
    with pytest.raises(AccessDeniedError):
        store.scoped(access={"team/**": "read"}).audit.blame("k", namespace="other")


# Differences between revisions.


def test_all_keys_that_differ_come_in_order_with_their_paths(store: Store) -> None:
    store.put("b", {"x": 1, "y": 1}, namespace="team")
    store.put("a", 1)
    store.put("gone", 1)
    with store.transaction() as tx:
        tx.put("b", {"x": 2, "y": 1}, namespace="team")
        tx.put("new", "n", namespace="team/sub")
        tx.delete("gone")
    found = list(store.audit.diff_revisions(3, 4))
    assert [(each.namespace, each.key) for each in found] == [
        ((), "gone"),
        (("team",), "b"),
        (("team", "sub"), "new"),
    ]
    gone, b, new = found
    assert gone.before == store.audit.version("gone", 1)
    assert (gone.after, gone.differences[0].kind) == (None, "removed")
    assert b.differences == (agentmem.Difference("$.x", "changed", 1, 2),)
    assert (new.before, new.differences[0].after) == (None, "n")
    assert repr(b) == "KeyDifference('team/b', 1 -> 2, paths=1)"
    assert changed(store, 4, 3) == {"gone": (0, 1), "team/b": (2, 1), "team/sub/new": (1, 0)}
    assert changed(store, 3, namespace="team") == {"team/b": (1, 2), "team/sub/new": (0, 1)}
    assert changed(store, 3, after=("team", "b")) == {"team/sub/new": (0, 1)}
    assert changed(store, 4, 4) == {}


def test_what_was_changed_back_does_not_differ(store: Store) -> None:
    store.put("k", {"a": 1})
    store.put("k", {"a": 2}, overwrite=True)
    store.put("k", {"a": 1}, overwrite=True)
    assert changed(store, 1, 3) == {}
    assert changed(store, 0) == {"k": (0, 3)}


def test_what_expired_between_differs(store: Store, clock: ManualClock) -> None:
    began = clock()
    store.put("short", 1, ttl_s=10)
    store.put("touched", 1, ttl_s=10)
    clock.advance(5)
    store.touch("touched", 100)
    clock.advance(10)
    assert changed(store, 2) == {"short": (1, 0)}
    assert changed(store, began) == {"short": (1, 0)}
    store.put("other", 1)
    assert changed(store, 2, 3) == {"short": (1, 0), "other": (0, 1)}


@pytest.mark.parametrize("few", [0, 5, 20_000])
def test_many_keys_are_read_a_few_at_a_time(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr("agentmem.history.between._FEW", few)
    monkeypatch.setattr("agentmem.history.between._KEYS", 7)
    monkeypatch.setattr("agentmem.history.between._PAGE", 3)
    for number in range(20):
        store.put(f"k{number:02}", 1, namespace=("n", str(number % 3)), ttl_s=10)
    with store.transaction() as tx:
        for number in range(0, 20, 2):
            tx.put(f"k{number:02}", 2, namespace=("n", str(number % 3)))
    wanted = {f"n/{n % 3}/k{n:02}": (1, 2) for n in range(0, 20, 2)}
    assert changed(store, 20) == dict(sorted(wanted.items()))
    assert changed(store, 20, 21, namespace="n/1") == {
        name: each for name, each in sorted(wanted.items()) if name.startswith("n/1")
    }
    clock.advance(11)
    everything = changed(store, 21)
    assert list(everything) == sorted(f"n/{n % 3}/k{n:02}" for n in range(1, 20, 2))
    store.put("late", 1)
    assert "late" not in changed(store, 20, 21)


def test_a_scoped_view_compares_what_it_sees(store: Store) -> None:
    store.put("k", 1, namespace="team")
    store.put("k", 1, namespace="other")
    team = store.scoped("team")
    assert changed(team, 0) == {"k": (0, 1)}
    ruled = store.scoped(access={"other/**": "read"})
    assert changed(ruled, 0) == {"other/k": (0, 1)}
    with pytest.raises(AccessDeniedError):
        ruled.audit.diff_revisions(0, 1, namespace="team")


def test_states_that_cannot_be_read_are_refused_at_once(store: Store) -> None:
    for number in range(3):
        store.put("k", number, overwrite=True)
    with pytest.raises(FutureRevisionError):
        store.audit.diff_revisions(1, 9)
    with pytest.raises(RevisionError, match="no tag"):
        store.audit.diff_revisions("nothing", 1)
    rests = [store.audit.diff_revisions(1, 3, namespace=each) for each in (None, "empty")]
    store._core.change(Change("raise_floor", {"floor": 2}), store._scope)
    for rest in rests:
        with pytest.raises(CompactedError):
            list(rest)
    with pytest.raises(CompactedError):
        store.audit.diff_revisions(1, 3)
    assert changed(store, 2, 3) == {"k": (2, 3)}


def test_hostile_names_are_only_names(make_store: StoreMaker) -> None:
    store = make_store()
    name = "k'\"%_\u202e\U0001f9e0"
    store.put(name, {name: 1}, namespace=(name, "/"))
    store.put(name, {name: 2}, namespace=(name, "/"), overwrite=True)
    (found,) = store.audit.diff_revisions(1, 2, namespace=(name,))
    assert (found.namespace, found.key) == ((name, "/"), name)
    assert [each.version for each in store.audit.blame(name, namespace=(name, "/"))] == [2]
