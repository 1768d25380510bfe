"""Lineage and the undoing of what was derived, on random histories, against a graph model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import agentmem
from agentmem import Store
from tests.contract.conftest import BACKENDS
from tests.property.derivation_model import KEYS, MERGED, History, Name, steps


def _names(nodes: tuple[agentmem.Node, ...]) -> set[Name]:
    return {(node.key, node.version) for node in nodes}


def _check(store: Store, history: list[tuple[Any, ...]], data: st.DataObject) -> None:
    played = History(store)
    for step in history:
        played.play(step)
    model = played.model
    if not model.versions:
        return
    by_spoil = sorted(model.versions, key=lambda name: (-len(model.spoilt(name)[0]), name))
    root = data.draw(st.sampled_from(by_spoil[:4]), label="root")
    derived, carrying = model.spoilt(root)

    down = store.audit.lineage(*root, direction="down")
    assert _names(down.nodes) == derived | carrying
    up = store.audit.lineage(*root)
    assert _names(up.nodes) == model.sources(root)
    for edge in (*up.edges, *down.edges):
        assert edge.source.revision is not None
        assert edge.derived.revision is not None
        assert edge.source.revision < edge.derived.revision

    before = {entry.key: entry.value for entry in store.list()}
    plan = store.audit.revert_derived(*root)
    assert store.revision == max(version.revision for version in model.versions.values())
    assert _names(plan.derived) == derived
    assert _names(plan.carrying) == carrying
    done = store.audit.revert_derived(*root, dry_run=False)
    assert (done.derived, done.carrying, done.keys) == (plan.derived, plan.carrying, plan.keys)
    assert {key.key for key in done.keys} == {key for key, _version in derived}

    expected = model.without(derived)
    after = {entry.key: entry.value for entry in store.list()}
    for key in KEYS:
        assert after.get(key) == expected.get(key), key
    touched = {key.key for key in done.keys if key.outcome in ("undone", "merged")}
    for key in {*before, *after} - touched:
        assert after.get(key) == before.get(key)
    if done.commit is not None:
        assert {change.key for change in done.commit.changes} == touched

    again = store.audit.revert_derived(*root, dry_run=False)
    assert again.commit is None
    assert _names(again.derived) == derived
    assert {key.outcome for key in again.keys} <= {"unchanged", "overwritten", "conflict"}
    assert {key.key for key in again.keys if key.outcome == "conflict"} <= {MERGED}


@given(steps, st.data())
@settings(max_examples=150)
def test_exactly_what_was_derived_is_found_and_undone(
    history: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    with agentmem.open(":memory:", durability="relaxed", embedder=None) as store:
        _check(store, history, data)


@given(steps, st.data())
@settings(max_examples=10)
def test_the_same_on_a_server(history: list[tuple[Any, ...]], data: st.DataObject) -> None:
    backend = BACKENDS["postgres"]
    target = backend.target(Path(), "team")
    try:
        with agentmem.open(target, durability="relaxed", embedder=None) as store:
            _check(store, history, data)
    finally:
        backend.remove({target})


@given(steps)
@settings(max_examples=80)
def test_write_skew_is_found_where_it_was_and_nowhere_under_serializable(
    history: list[tuple[Any, ...]],
) -> None:
    with agentmem.open(":memory:", durability="relaxed", embedder=None) as store:
        played = History(store)
        for step in history:
            played.play(step)
        found = {race.revisions for race in store.audit.races() if race.kind == "write_skew"}
        assert played.model.skewed() <= found
    with agentmem.open(":memory:", durability="relaxed", embedder=None) as store:
        played = History(store)
        for step in history:
            played.play((*step[:2], "serializable") if step[0] == "begin" else step)
        assert [race for race in store.audit.races() if race.kind == "write_skew"] == []
