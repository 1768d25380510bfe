"""Scoped views: a chroot, an access level, and nothing of the world outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import agentmem
from agentmem import (
    AccessDeniedError,
    ConflictError,
    InvalidValueError,
    KeyMissingError,
    LimitExceededError,
    RevisionError,
    Store,
)
from tests.contract.conftest import StoreMaker


def places(view: Any, *args: Any) -> list[tuple[tuple[str, ...], str]]:
    return [(entry.namespace, entry.key) for entry in view.list(*args)]


def test_names_go_in_and_come_out_relative(store: Store) -> None:
    view = store.scoped("team/alice")
    assert view.put("k", 1).namespace == ()
    assert view.put("k", 2, namespace="notes").namespace == ("notes",)
    assert places(view) == [((), "k"), (("notes",), "k")]
    assert places(store) == [(("team", "alice"), "k"), (("team", "alice", "notes"), "k")]
    assert view.namespaces() == [(), ("notes",)]
    assert view.namespaces(depth=1) == [(), ("notes",)]
    assert view["k"] == 1
    assert view.get("k", namespace="notes") == view.list()[1]
    assert view.list(after=view.list()[0]) == view.list("notes")
    assert view.transaction().list() == view.snapshot().list() == view.list()


def test_what_lies_outside_cannot_be_named(store: Store) -> None:
    store.put("k", "root")
    store.put("k", "bob", namespace="team/bob")
    store.put("k", "sibling", namespace=("team", "alice2"))
    view = store.scoped("team/alice")
    for namespace in ("..", "../bob", "team/bob", ("..", "bob"), ("\x01team", "bob"), "", ()):
        assert view.get("k", namespace=namespace) is None
        assert view.list(namespace) == []
    assert view.clear() == 0
    view.put("k", "mine", namespace=("..", "bob"))
    assert store.get("k", namespace="team/bob").value == "bob"  # type: ignore[union-attr]  # it is there
    assert store.count() == 4


def test_a_hostile_label_is_a_scope_of_its_own(store: Store) -> None:
    hostile = ("a\x01", "a\x02", "a", "a/b", "*", "**")
    for label in hostile:
        store.scoped((label,)).put("k", label)
    for label in hostile:
        assert [entry.value for entry in store.scoped((label,)).list()] == [label]


LEVELS: dict[str, tuple[str, Callable[[Store], Any]]] = {
    "get": ("read", lambda view: view.get("k")),
    "list": ("read", lambda view: view.list()),
    "history": ("read", lambda view: view.history("k")),
    "diff": ("read", lambda view: view.audit.diff("k", 0, 1)),
    "put new": ("append", lambda view: view.put("new", 1)),
    "put_many new": ("append", lambda view: view.put_many({"new": 1, "newer": 2})),
    "add": ("append", lambda view: view.add(1)),
    "append": ("append", lambda view: view.append("l", 1)),
    "add_to_set": ("append", lambda view: view.add_to_set("l", 1)),
    "put new in a transaction": ("append", lambda view: commit(view, "put", "new", 1)),
    "append in a transaction": ("append", lambda view: commit(view, "append", "l", 1)),
    "put": ("write", lambda view: view.put("k", 2)),
    "put by version": ("write", lambda view: view.put("k", 2, expected_version=1)),
    "put_many": ("write", lambda view: view.put_many({"new": 1, "k": 2})),
    "delete": ("write", lambda view: view.delete("k")),
    "clear": ("write", lambda view: view.clear()),
    "touch": ("write", lambda view: view.touch("k", 60)),
    "increment": ("write", lambda view: view.increment("k")),
    "increment new": ("write", lambda view: view.increment("new")),
    "patch": ("write", lambda view: view.patch("p", {})),
    "update": ("write", lambda view: view.update("k", lambda value: value)),
    "put in a transaction": ("write", lambda view: commit(view, "put", "k", 2)),
    "delete in a transaction": ("write", lambda view: commit(view, "delete", "k")),
    "increment in a transaction": ("write", lambda view: commit(view, "increment", "k")),
    "patch in a transaction": ("write", lambda view: commit(view, "patch", "p", {})),
    "touch in a transaction": ("write", lambda view: commit(view, "touch", "k", 60)),
    "clear in a transaction": ("write", lambda view: commit(view, "clear")),
}
ORDER = ["nothing", "read", "append", "write"]


def commit(view: Store, call: str, *args: Any) -> None:
    with view.transaction() as tx:
        getattr(tx, call)(*args)


@pytest.fixture
def filled(store: Store) -> Store:
    store.put("k", 1, namespace="team")
    store.put("l", [], namespace="team")
    store.put("p", {}, namespace="team")
    return store


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("by", ["level", "mapping"])
def test_each_access_level_allows_what_it_says(filled: Store, name: str, by: str) -> None:
    needed, call = LEVELS[name]
    for level in ORDER[1:]:
        access: Any = level if by == "level" else {"**": level}
        view = filled.scoped("team", access=access)
        before = filled.list()
        if ORDER.index(level) >= ORDER.index(needed):
            call(view)
            filled.scoped("team", access="write").clear()
            filled.put_many({"k": 1, "l": [], "p": {}}, namespace="team")
        else:
            with pytest.raises(AccessDeniedError) as caught:
                call(view)
            assert caught.value.access in ORDER[2:]
            assert filled.list() == before


def test_append_takes_no_second_put_in_one_transaction_as_a_trick(filled: Store) -> None:
    view = filled.scoped("team", access="append")
    tx = view.transaction()
    tx.put("fresh", 1)
    tx.put("fresh", 2)
    filled.put("fresh", "theirs", namespace="team")
    with pytest.raises((AccessDeniedError, ConflictError)):
        tx.commit()
    tx = view.transaction()
    tx.append("l", 1)
    with pytest.raises(AccessDeniedError):
        tx.put("l", [])
    tx.rollback()
    assert filled.get("fresh", namespace="team").value == "theirs"  # type: ignore[union-attr]  # it is there


def test_a_mapping_spans_namespaces_and_refuses_all_else(filled: Store) -> None:
    filled.put("secret", 1, namespace="private")
    filled.put("k", 1, namespace="agents/alice")
    view = filled.scoped(
        agent="alice", access={"agents/alice/**": "write", "team/**": "read", "team/l": "append"}
    )
    with view.transaction() as tx:
        assert tx.get("k", namespace="team") is not None
        tx.put("k", 2, namespace="agents/alice")
        tx.append("l", "from alice", namespace="team")
    assert filled.get("k", namespace="agents/alice").agent == "alice"  # type: ignore[union-attr]  # it is there
    assert [entry.namespace for entry in view.list()] == [("agents", "alice")] + [("team",)] * 3
    assert view.namespaces() == [("agents", "alice"), ("team",)]
    assert view.count() == 4
    refused: list[Callable[[], Any]] = [
        lambda: view.get("secret", namespace="private"),
        lambda: view.list("private"),
        lambda: view.count("private"),
        lambda: view.namespaces("private"),
        lambda: view.get("k"),
        lambda: view.get_many(["secret"], namespace="private"),
        lambda: view.history("secret", namespace="private"),
        lambda: view.log("private"),
        lambda: view.put("k", 1, namespace="team"),
        lambda: view.put("k", 1, namespace="agents"),
        lambda: view.put("k", 1, namespace="agents/bob"),
        lambda: view.clear("team"),
    ]
    for call in refused:
        with pytest.raises(AccessDeniedError):
            call()


def test_the_most_specific_rule_decides(store: Store) -> None:
    store.put_many({"open": 1, "closed": 1}, namespace="team")
    view = store.scoped(access={"**": "write", "team/*": "read", "team/open": "append"})
    view.put("k", 1, namespace="elsewhere")
    view.put("k", 1, namespace="team/deeper")
    with pytest.raises(AccessDeniedError):
        view.put("closed", 2, namespace="team")
    with pytest.raises(AccessDeniedError):
        view.append("closed", 2, namespace="team")


def test_nested_scopes_never_widen(filled: Store) -> None:
    read = filled.scoped("team", access="read")
    assert read.scoped(access="write").get("k") is not None
    for inner in (
        read.scoped(access="write"),
        read.scoped("deeper", access="write"),
        read.scoped(access={"**": "write"}),
        filled.scoped(access={"team/**": "read"}).scoped(access="write"),
    ):
        with pytest.raises(AccessDeniedError):
            inner.put("new", 1)
    append = filled.scoped("team", access="append").scoped(access={"k": "write"})
    with pytest.raises(AccessDeniedError):
        append.put("k", 2)
    mapped = filled.scoped(access={"team/**": "read"})
    for narrower in (
        lambda: mapped.scoped("team"),
        lambda: mapped.scoped(access={"**": "write"}),
    ):
        with pytest.raises(AccessDeniedError):
            narrower()
    inner = filled.scoped("team").scoped("a").scoped("b")
    inner.put("k", 1)
    assert places(filled, "team/a") == [(("team", "a", "b"), "k")]


@pytest.mark.parametrize(
    ("access", "error"),
    [
        ("all", InvalidValueError),
        (None, TypeError),
        ({}, TypeError),
        (["read"], TypeError),
        ({"**": "all"}, InvalidValueError),
        ({"**": None}, InvalidValueError),
        ({"a//b": "read"}, InvalidValueError),
        ({5: "read"}, TypeError),
    ],
)
def test_an_unknown_access_is_refused(store: Store, access: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        store.scoped("team", access=access)


def test_history_and_log_show_what_lies_inside(store: Store) -> None:
    view = store.scoped("team", agent="alice")
    view.put("k", 1, note="mine")
    store.put("k", "outside")
    store.put("k", 2, namespace="team", note="from outside", overwrite=True)
    store.put("k", 3, namespace="other")
    with store.transaction() as tx:
        tx.put("both", 1, namespace="team")
        tx.put("both", 1, namespace="other")
    assert [entry.value for entry in view.history("k")] == [2, 1]
    log = view.log()
    assert [commit.revision for commit in log] == [5, 3, 1]
    assert [[(c.namespace, c.key) for c in commit.changes] for commit in log] == [
        [((), "both")],
        [((), "k")],
        [((), "k")],
    ]
    assert view.history("k", namespace="team") == []


def test_the_log_of_a_scope_shows_no_result_and_op_id_of_others(store: Store) -> None:
    store.put("secret", "S", namespace="private")

    def work(tx: agentmem.Transaction) -> Any:
        tx.put("k", 1, namespace="team")
        return tx.get("secret", namespace="private").value  # type: ignore[union-attr]  # it is there

    store.transact(work, op_id="root-op")
    (commit,) = store.scoped("team").log()
    assert (commit.result, commit.op_id) == (None, None)


def test_tags_stay_inside_the_scope_that_set_them(store: Store) -> None:
    view = store.scoped("team")
    view.put("k", 1)
    view.audit.tag("release")
    store.put("k", 2)
    store.audit.tag("release")
    assert [tag.revision for tag in view.audit.tags()] == [1]
    assert [tag.revision for tag in store.audit.tags()] == [2]
    assert view.snapshot(at="release").revision == 1
    with pytest.raises(RevisionError):
        store.scoped("other").snapshot(at="release")
    view.audit.untag("release")
    assert len(store.audit.tags()) == 1


def test_a_view_that_can_only_read_moves_no_tag(store: Store) -> None:
    store.put("k", 1)
    store.audit.tag("release")
    view = store.scoped(access="read")
    with pytest.raises(AccessDeniedError):
        view.audit.tag("release", at=0)
    with pytest.raises(AccessDeniedError):
        view.audit.untag("release")


def test_conflicts_show_what_lies_inside(store: Store) -> None:
    view = store.scoped("team")
    for each in (store, view):
        each.put("k", 1)
        with pytest.raises(ConflictError) as caught:
            each.put("k", 2, expected_version=0)
        assert caught.value.conflicts[0].namespace == ()
    assert [(each.namespace, each.key) for each in view.audit.conflicts()] == [((), "k")]
    assert len(store.audit.conflicts()) == 2
    assert store.scoped(access={"other/**": "read"}).audit.conflicts() == []


def test_a_conflict_outside_cannot_be_resolved(store: Store) -> None:
    store.set_merge("**", "escalate")
    for namespace in ("team", "other"):
        store.put("k", 1, namespace=namespace)
        store.put("k", 2, namespace=namespace)
        store.put("k", 3, namespace=namespace, expected_version=1)
    inside, outside = store.audit.conflicts("open")
    view = store.scoped("team")
    with pytest.raises(InvalidValueError, match="no open conflict"):
        view.audit.resolve(outside.id, "ours")
    with pytest.raises(AccessDeniedError):
        store.scoped("team", access="read").audit.resolve(inside.id, "ours")
    assert view.audit.resolve(inside.id, "ours") == view.get("k")


def test_errors_name_keys_as_the_view_does(store: Store) -> None:
    view = store.scoped("secret/team", access="append")
    view.put("k", 1, namespace="n")

    @store.merge_hook("**")
    def broken(conflict: agentmem.Conflict) -> Any:
        raise LookupError

    writer = store.scoped("secret/team")
    writer.put("k", 2, namespace="n")
    calls: list[Callable[[], Any]] = [
        lambda: view.put("k", 2, namespace="n"),
        lambda: view.increment("k", namespace="n"),
        lambda: view.append("k", 1, namespace="n"),
        lambda: writer.put("k", 3, namespace="n", expected_version=1),
        lambda: writer.put("k", 3, namespace="n", expected_version=1, merge=False),
        lambda: view.touch("missing", 1),
        lambda: writer.touch("missing", 1, namespace="n"),
        lambda: view.scoped("n")["missing"],
    ]
    for call in calls:
        with pytest.raises(agentmem.AgentMemError) as caught:
            call()
        assert "secret" not in str(caught.value)
        assert "secret" not in str(vars(caught.value))


def test_hooks_and_strategies_of_a_scope_are_for_what_lies_inside(store: Store) -> None:
    view = store.scoped("team")
    view.merge_hook("notes/*")(lambda conflict: "merged")
    view.set_merge("**", "ours")
    assert view.merges() == [("**", "ours")]
    assert store.merges() == [("team/**", "ours")]
    assert store.scoped("other").merges() == []
    for namespace in ("team/notes", "team", "notes", ""):
        store.put("k", 1, namespace=namespace)
        store.put("k", 2, namespace=namespace)
    results = {}
    for namespace in ("team/notes", "team", "notes", ""):
        try:
            entry = store.put("k", 3, namespace=namespace, expected_version=1)
        except ConflictError:
            results[namespace] = None
        else:
            results[namespace] = entry.value
    assert results == {"team/notes": "merged", "team": 3, "notes": None, "": None}


@pytest.mark.parametrize(
    "access", ["read", "append", {"team/**": "read"}, {"team/**": "write"}], ids=str
)
def test_a_restricted_view_stores_no_strategy(store: Store, access: Any) -> None:
    view = store.scoped(access=access)
    with pytest.raises(AccessDeniedError):
        view.set_merge("**", "ours")
    assert store.merges() == []


@pytest.mark.parametrize("access", ["read", "append", {"team/**": "write"}], ids=str)
def test_a_restricted_view_is_shown_no_conflicts_of_others_by_a_hook(
    store: Store, access: Any
) -> None:
    view = store.scoped(access=access)
    seen: list[Any] = []
    try:
        view.merge_hook("**")(seen.append)
    except AccessDeniedError:
        return
    store.put("k", "secret", namespace="private")
    store.put("k", "secret too", namespace="private")
    with pytest.raises(agentmem.AgentMemError):
        store.put("k", "x", namespace="private", expected_version=1)
    assert seen == []


def test_admin_is_for_the_whole_store(store: Store) -> None:
    for view in (
        store.scoped("team"),
        store.scoped(access="read"),
        store.scoped(access={"**": "write"}),
    ):
        with pytest.raises(AccessDeniedError, match="whole store"):
            view.admin.verify()
    store.scoped().admin.verify()


def test_the_depth_of_a_namespace_is_limited_from_the_root(store: Store) -> None:
    view = store.scoped("a/b/c/d/e/f/g/h/i/j")
    with pytest.raises(LimitExceededError):
        view.put("k", 1, namespace="a/b/c/d/e/f/g")


def test_the_agent_of_a_scope_writes_unless_a_call_says_otherwise(
    make_store: StoreMaker,
) -> None:
    store = make_store(agent="root")
    view = store.scoped("team", agent="alice")
    assert view.put("k", 1).agent == "alice"
    assert view.scoped("deeper").put("k", 1).agent == "alice"
    assert view.put("k", 1, agent="bob", overwrite=True).agent == "bob"
    assert store.scoped("other").put("k", 1).agent == "root"


def test_a_scope_closes_with_the_store(make_store: StoreMaker) -> None:
    store = make_store()
    view = store.scoped("team")
    store.close()
    with pytest.raises(agentmem.ClosedError):
        view.get("k")
    with pytest.raises(agentmem.ClosedError):
        view.put("k", 1)


def test_brackets_name_what_is_missing_relative_to_the_view(store: Store) -> None:
    with pytest.raises(KeyMissingError) as caught:
        store.scoped("team")["k"]
    assert (caught.value.namespace, caught.value.key) == ((), "k")


def test_a_view_tells_where_it_lies_and_who_acts_in_it(make_store: StoreMaker) -> None:
    limits = agentmem.Limits(max_k=7)
    store = make_store(agent="ann", limits=limits)
    assert (store.prefix, store.agent) == ((), "ann")
    team = store.scoped("team/red", agent="bob")
    inner = team.scoped("plans", access={"**": "read"})
    assert (team.prefix, team.agent) == (("team", "red"), "bob")
    assert (inner.prefix, inner.agent) == (("team", "red", "plans"), "bob")
    other = make_store("other")
    again = make_store()
    for view in (team, inner, again):
        assert view.store_id == store.store_id != other.store_id
    assert inner.limits is store.limits
    assert store.limits == limits
    assert (again.agent, again.limits) == (None, agentmem.Limits())


def test_every_view_knows_the_floor(make_store: StoreMaker) -> None:
    store = make_store()
    team = store.scoped("team", access="read")
    assert (store.floor, team.floor) == (0, 0)
    for value in range(4):
        store.put("k", value, overwrite=True)
    store.admin.compact(keep_revision=3)
    assert (store.floor, team.floor) == (3, 3)
    with pytest.raises(agentmem.CompactedError):
        store.snapshot(at=store.floor - 1)
    assert store.snapshot(at=store.floor)["k"] == 2
    store.close()
    with pytest.raises(agentmem.ClosedError):
        _ = team.floor
