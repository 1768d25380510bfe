"""merge set, list, unset; conflicts; resolve."""

from __future__ import annotations

from typing import Any

import pytest

import agentmem
from tests.cli.program import Program


def test_a_strategy_that_is_set_merges_for_every_process(
    program: Program, store: agentmem.Store
) -> None:
    assert program.ok("merge", "set", "notes/**", "union").endswith("notes/**  union\n")
    for version, value in ((0, ["a"]), (1, ["a", "b"]), (1, ["a", "c"])):
        store.put("n", value, namespace="notes", expected_version=version)
    entry = store.get("n", namespace="notes")
    assert entry is not None
    assert entry.value == ["a", "b", "c"]


def test_strategies_are_listed_replaced_and_forgotten(program: Program) -> None:
    assert program.ok("merge", "list") == ""
    program.ok("merge", "set", "**", "counter")
    program.ok("merge", "set", "a/*", '{"model": {"fields": {"tags": "union"}}}')
    program.ok("merge", "set", "**", "maximum")
    found = {each["pattern"]: each["strategy"] for each in program.document("merge", "list")}
    assert found["**"] == "maximum"
    assert found["a/*"]["model"]["fields"] == {"tags": "union"}
    program.ok("merge", "unset", "**")
    assert [each["pattern"] for each in program.document("merge", "list")] == ["a/*"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "**", "nothing"),
        ("set", "**", "{no json"),
        ("set", "", "union"),
        ("set", "a**", "union"),
        ("unset", "**"),
    ],
)
def test_a_wrong_strategy_or_pattern_is_refused(
    program: Program, arguments: tuple[str, ...]
) -> None:
    assert program.fails(6, "merge", *arguments)
    assert program.ok("merge", "list") == ""


def parked(store: agentmem.Store, ours: Any) -> None:
    """Leaves an open conflict on team/k: theirs is 2."""
    store.set_merge("team/*", "escalate")
    for version, value in ((0, 1), (1, 2), (1, ours)):
        store.put("k", value, namespace="team", expected_version=version, agent="bo")


def test_conflicts_are_listed_and_filtered(program: Program, store: agentmem.Store) -> None:
    parked(store, 3)
    store.put("root", 1)
    with pytest.raises(agentmem.ConflictError):
        store.put("root", 2, expected_version=0)
    found = program.document("conflicts")
    assert [(each["key"], each["status"]) for each in found] == [
        ("root", "rejected"),
        ("k", "open"),
    ]
    assert found[1]["ours"] == 3
    assert (found[1]["base_version"], found[1]["theirs_version"]) == (1, 2)
    [row] = program.ok("conflicts", "--status", "open").splitlines()[1:]
    assert "team" in row.split()
    assert [each["key"] for each in program.document("conflicts", "-n", "team")] == ["k"]
    assert [each["key"] for each in program.document("conflicts", "--limit", "1")] == ["root"]
    assert "status is one of" in program.fails(6, "conflicts", "--status", "lost")


@pytest.mark.parametrize(
    ("take", "value"), [("ours", 3), ("theirs", 2), ("[4]", [4]), ("-7", -7), ("null", None)]
)
def test_an_open_conflict_is_resolved(
    program: Program, store: agentmem.Store, take: str, value: Any
) -> None:
    parked(store, 3)
    out = program.ok("resolve", "1", "--take", take, "--agent", "eva", "--note", "looked")
    assert out.startswith("conflict 1: resolved")
    entry = store.get("k", namespace="team")
    assert entry is not None
    assert entry.value == value
    [record] = store.audit.conflicts()
    assert (record.status, record.note) == ("resolved", "looked")
    assert "no open conflict 1" in program.fails(6, "resolve", "1", "--take", take)


def test_resolving_prints_json(program: Program, store: agentmem.Store) -> None:
    parked(store, 3)
    found = program.document("resolve", "1", "--take", "ours")
    assert (found["id"], found["entry"]["value"]) == (1, 3)
    parked_again = program.fails(6, "resolve", "99", "--take", "theirs")
    assert "agentmem conflicts --status open" in parked_again


def test_a_side_that_could_be_taken_for_a_string_is_refused(
    program: Program, store: agentmem.Store
) -> None:
    parked(store, 3)
    assert 'cannot write the string "ours"' in program.fails(6, "resolve", "1", "--take", '"ours"')
    assert "not JSON" in program.fails(6, "resolve", "1", "--take", "mine")
