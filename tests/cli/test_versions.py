"""log, history, show, diff."""

from __future__ import annotations

from datetime import datetime

import pytest

import agentmem
from tests.cli.program import Program


@pytest.fixture
def told(store: agentmem.Store) -> agentmem.Store:
    """A store with a little history."""
    store.put("plan", {"days": 2, "old": True}, agent="alice", note="first")
    with store.transaction(agent="bo", op_id="op-7", metadata={"ticket": 9}) as tx:
        tx.put("plan", {"days": 3, "new": [1]})
        tx.increment("edits", namespace="stats")
    store.delete("plan", agent="bo", expected_version=2)
    return store


def test_log_lists_commits_newest_first(program: Program, told: agentmem.Store) -> None:
    header, *rows = program.ok("log").splitlines()
    assert header.split("  ")[0] == "revision"
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert rows[0].endswith("delete plan@3")
    assert "put plan@2, increment stats/edits@1" in rows[1]
    assert "op-7" in rows[1]
    assert rows[2].split()[2:] == ["alice", "put", "plan@1", "first"]


def test_log_as_json_holds_the_whole_commit(program: Program, told: agentmem.Store) -> None:
    commit = program.document("log")[1]
    assert datetime.fromisoformat(commit.pop("committed_at")).tzinfo is not None
    plan = {"namespace": [], "key": "plan", "version": 2, "base_version": 1}
    edits = {"namespace": ["stats"], "key": "edits", "version": 1, "base_version": None}
    base = commit.pop("changes")
    assert base[1].pop("base_version") in (0, None)  # an atomic operation reads nothing
    edits.pop("base_version")
    assert base == [
        {**plan, "operation": "put", "merged": None},
        {**edits, "operation": "increment", "merged": None},
    ]
    assert commit == {
        "revision": 2,
        "agent": "bo",
        "op_id": "op-7",
        "note": None,
        "metadata": {"ticket": 9},
        "base_revision": 1,
        "accepted": [],
        "result": None,
    }


@pytest.mark.parametrize(
    ("options", "revisions"),
    [
        ((), [3, 2, 1]),
        (("--agent", "bo"), [3, 2]),
        (("--op-id", "op-7"), [2]),
        (("--limit", "1"), [3]),
        (("--limit", "0"), []),
        (("--after", "1"), [3, 2]),
        (("--upto", "1"), [1]),
        (("--after", "1", "--upto", "2"), [2]),
        (("-n", "stats"), [2]),
        (("--agent", "nobody"), []),
    ],
)
def test_log_is_filtered(
    program: Program, told: agentmem.Store, options: tuple[str, ...], revisions: list[int]
) -> None:
    assert [commit["revision"] for commit in program.document("log", *options)] == revisions


def test_log_of_an_empty_store_is_empty(program: Program) -> None:
    assert program.ok("log") == ""
    assert program.document("log") == []


def test_history_lists_versions_with_tombstones(program: Program, told: agentmem.Store) -> None:
    rows = program.ok("history", "plan").splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert rows[0].endswith("(deleted)")
    assert rows[1].endswith('{"days": 3, "new": [1]}')
    found = program.document("history", "plan", "--limit", "2")
    assert [(entry["version"], entry["deleted"], entry["value"]) for entry in found] == [
        (3, True, None),
        (2, False, {"days": 3, "new": [1]}),
    ]


def test_history_of_a_key_never_written_is_absent(program: Program, told: agentmem.Store) -> None:
    assert program.fails(1, "history", "edits") == "'edits' was never written"
    assert program.document("history", "plan", "--limit", "0") == []


def test_show_tells_all_of_one_version(program: Program, told: agentmem.Store) -> None:
    shown = dict(line.split(maxsplit=1) for line in program.ok("show", "plan@1").splitlines())
    assert shown["agent"] == "alice"
    assert shown["version"] == shown["revision"] == "1"
    assert shown["value"] == '{"days": 2, "old": true}'
    assert program.document("show", "edits@1", "-n", "stats")["value"] == 1
    assert program.document("show", "plan@3")["deleted"] is True


def test_show_of_an_absent_version_says_where_to_look(
    program: Program, told: agentmem.Store
) -> None:
    assert "agentmem history" in program.fails(1, "show", "plan@4")


def test_a_key_may_hold_at_signs(program: Program) -> None:
    program.ok("put", "me@home", "1")
    assert program.document("show", "me@home@1")["key"] == "me@home"


@pytest.mark.parametrize("text", ["plan", "plan@", "@1", "plan@x", "plan@-1", "plan@9" + "9" * 30])
def test_show_needs_key_at_version(program: Program, text: str) -> None:
    result = program("show", text)
    assert result.exit_code == 2
    assert "is not KEY@VERSION" in result.stderr


def test_diff_marks_what_came_went_and_changed(program: Program, told: agentmem.Store) -> None:
    assert program.ok("diff", "plan", "1", "2") == (
        "~ $.days  2 -> 3\n+ $.new  [1]\n- $.old  true\n"
    )
    assert program.ok("diff", "plan", "2", "2") == ""
    assert program.ok("diff", "plan", "0", "1").startswith("+ $  ")
    assert program.ok("diff", "plan", "1", "3").startswith("- $  ")
    assert program.document("diff", "plan", "1", "2")[0] == {
        "path": "$.days",
        "kind": "changed",
        "before": 2,
        "after": 3,
    }
    assert program.fails(1, "diff", "plan", "1", "9")
