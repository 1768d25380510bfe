"""why, revert-derived, races; resolve of a key that has moved on."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import agentmem
from tests.cli.program import Program, answering, on_terminal, without_colours


@pytest.fixture
def poisoned(store: agentmem.Store) -> agentmem.Store:
    """A web page, a plan made from it, a booking made from both; the plan was written anew."""
    store.put("fact", {"price": 90}, namespace="sources", agent="web", note="scraped")
    with store.transaction(agent="planner", note="trip to rome") as tx:
        tx.list("sources")
        tx.put("plan", {"days": 3}, namespace="team")
    with store.transaction(agent="booker") as tx:
        tx.get("plan", namespace="team")
        tx.get("fact", namespace="sources")
        tx.put("booking", {"hotel": "x"}, namespace="team")
        tx.increment("count", namespace="team")
    store.increment("count", namespace="team", agent="other")
    with warnings.catch_warnings(action="ignore", category=agentmem.BlindWriteWarning):
        store.put("plan", {"days": 9}, namespace="team", agent="eva")
    return store


def without_times(text: str) -> list[str]:
    """The lines, without what differs from run to run."""
    return [line.split(", 20")[0] + line.partition("Z")[2] for line in text.splitlines()]


def test_why_draws_what_an_entry_was_derived_from(
    program: Program, poisoned: agentmem.Store
) -> None:
    assert without_times(program.ok("why", "booking", "-n", "team")) == [
        "team/booking@1  put by booker, revision 3",
        "├── read: team/plan@1  put by planner, revision 2: trip to rome",
        "│   └── scan of sources: sources/fact@1  put by web, revision 1: scraped",
        "└── read: sources/fact@1  put by web, revision 1: scraped",
    ]
    shown = program.ok("why", "booking@1", "-n", "team", "--depth", "1").splitlines()
    assert (
        shown[-1] == "this is not all: --depth or --limit left something out, or it was compacted"
    )
    assert "no version 7" in program.fails(1, "why", "booking@7", "-n", "team")
    assert program.fails(1, "why", "nothing")


def test_why_down_draws_what_was_derived_from_it(
    program: Program, poisoned: agentmem.Store
) -> None:
    lines = without_times(program.ok("why", "fact@1", "--down", "-n", "sources"))
    assert lines == [
        "sources/fact@1  put by web, revision 1: scraped",
        "├── read: team/booking@1  put by booker, revision 3",
        "├── read: team/count@1  increment by booker, revision 3",
        "│   └── base: team/count@2  increment by other, revision 4",
        "└── scan of sources: team/plan@1  put by planner, revision 2: trip to rome",
        "    ├── read: team/booking@1  put by booker, revision 3",
        "    └── read: team/count@1  increment by booker, revision 3 (above)",
    ]
    assert (
        len(program.ok("why", "fact", "--down", "--limit", "2", "-n", "sources").splitlines()) == 3
    )


def test_why_as_json_names_nodes_by_their_place(program: Program, poisoned: agentmem.Store) -> None:
    found = program.document("why", "plan@1", "-n", "team")
    assert [(each["key"], each["version"]) for each in found["nodes"]] == [("fact", 1), ("plan", 1)]
    assert (found["root"], found["complete"]) == (1, True)
    assert found["edges"] == [
        {"derived": 1, "source": 0, "why": "scan", "asked": {"namespace": ["sources"]}}
    ]


def test_revert_derived_shows_its_plan_asks_and_does_it(
    program: Program, poisoned: agentmem.Store, path: Path
) -> None:
    plan = program.ok("revert-derived", "fact@1", "--dry-run", "-n", "sources")
    assert [line.split() for line in plan.splitlines()] == [
        ["namespace", "key", "version", "outcome", "restored", "now", "agent", "strategy"],
        ["sources", "fact", "1", "undone", "absent", "1", "web"],
        ["team", "booking", "1", "undone", "absent", "1", "booker"],
        ["team", "count", "1", "merged", "absent", "2", "other", "undo"],
        ["team", "plan", "1", "overwritten", "2", "eva"],
        [*"4 derived entries in 4 keys; innocent ones that carry them: 1".split()],  # noqa: SIM905  # as it is read
    ]
    assert poisoned.revision == 5
    refused = program("revert-derived", "fact@1", "-n", "sources")
    assert (refused.exit_code, poisoned.revision) == (2, 5)
    assert "give --yes" in refused.stderr
    arguments = ("--store", str(path), "revert-derived", "fact@1", "-n", "sources")
    code, shown = answering("n\n", *arguments)
    assert (code, poisoned.revision) == (8, 5)
    assert "Undo what was derived from 'fact' version 1 in 3 keys? [y/N]" in without_colours(shown)
    code, shown = answering("y\n", *arguments)
    assert (code, poisoned.revision) == (0, 6)
    assert without_colours(shown).rstrip().endswith("undone at revision 6")
    assert [entry.key for entry in poisoned.list()] == ["count", "plan"]
    again = program.ok("revert-derived", "fact@1", "-n", "sources")  # nothing to ask about
    assert "undone at" not in again
    assert "unchanged" in again


def test_revert_derived_with_yes_tells_what_it_did(
    program: Program, poisoned: agentmem.Store
) -> None:
    done = program.document(
        "revert-derived", "fact@1", "-n", "sources", "--yes", "--agent", "eva", "--op-id", "clean"
    )
    assert done["commit"]["agent"] == "eva"
    assert [each["outcome"] for each in done["keys"]] == [
        "undone", "undone", "merged", "overwritten",
    ]  # fmt: skip


def test_races_are_listed_with_what_would_help(
    program: Program, poisoned: agentmem.Store, path: Path
) -> None:
    shown = program.ok("races", "-n", "team").splitlines()
    assert len(shown) == 2
    assert shown[1].startswith("blind_write  team       plan  2, 5       'eva' replaced team/plan")
    (race,) = program.document("races", "--since", "1", "--fresh-s", "600")
    assert (race["kind"], race["revisions"]) == ("blind_write", [2, 5])
    assert race["agents"] == ["planner", "eva"]
    assert program.document("races", "--since", "5") == []
    for columns in ("80", "200"):
        _code, seen = on_terminal("--store", str(path), "races", COLUMNS=columns)
        lines = without_colours(seen).splitlines()
        assert max(map(len, lines)) <= int(columns)
        assert lines[0].split() == ["kind", "blind_write"]
        assert "without having read it" in " ".join(" ".join(lines).split())


def test_a_parked_conflict_of_a_key_that_moved_on_needs_its_version(
    program: Program, store: agentmem.Store
) -> None:
    store.set_merge("k", "escalate")
    for version, value in ((0, 1), (1, 2), (1, 3), (3, 4)):
        store.put("k", value, expected_version=version)
    (record,) = store.audit.conflicts("open")
    assert "moved on" in program.fails(3, "resolve", str(record.id), "--take", "ours")
    program.ok("resolve", str(record.id), "--take", "ours", "--expected-version", "4")
    assert store["k"] == 3
    assert "resolved by" in program.fails(6, "resolve", str(record.id), "--take", "ours")
