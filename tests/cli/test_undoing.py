"""revert, revert-commit; diff between moments, blame."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import agentmem
from tests.cli.program import Program, answering, on_terminal, without_colours


@pytest.fixture
def told(store: agentmem.Store) -> agentmem.Store:
    """A key with three versions, and another one."""
    store.put("plan", {"days": 2, "city": "Rome"}, agent="ann", note="first")
    with store.transaction(agent="bo") as tx:
        tx.put("plan", {"days": 9, "city": "Rome"})
        tx.put("seats", 5, namespace="team")
    store.put("plan", {"days": 9, "city": "Oslo"}, agent="eva", overwrite=True)
    store.audit.tag("now")
    return store


def test_revert_puts_a_version_back(program: Program, told: agentmem.Store) -> None:
    assert program.ok("revert", "plan", "--to", "1", "--yes") == "plan: version 4, revision 4\n"
    assert told["plan"] == {"days": 2, "city": "Rome"}
    assert program.ok("revert", "seats", "-n", "team", "--to", "0", "-y") == (
        "team/seats: version 2, revision 5, deleted\n"
    )
    assert program.ok("revert", "seats", "-n", "team", "--to", "0", "-y") == "team/seats: absent\n"
    assert program.document("revert", "seats", "-n", "team", "--to", "0", "-y") is None
    found = program.document(
        "revert", "plan", "--to", "3", "-y", "--agent", "max", "--op-id", "o", "--note", "why"
    )
    assert (found["version"], found["agent"], found["op_id"]) == (5, "max", "o")
    assert told.log(limit=1)[0].note == "why"
    assert "no version 77" in program.fails(1, "revert", "plan", "--to", "77", "--yes")


def test_undoing_asks_first(path: Path, told: agentmem.Store) -> None:
    where = ("--store", str(path))
    code, shown = answering("n\n", "revert", "plan", "--to", "1", *where)
    assert code == 8
    assert "Put version 1 of 'plan' back? It is at version 3. [y/N]" in without_colours(shown)
    code, shown = answering("n\n", "revert-commit", "2", *where)
    assert code == 8
    assert "Undo revision 2, which wrote 'plan', 'team/seats'? [y/N]" in without_colours(shown)
    assert told.revision == 3
    code, shown = answering("y\n", "revert", "plan", "--to", "0", *where)
    assert (code, told.get("plan")) == (0, None)
    assert "Make 'plan' absent? It is at version 3." in without_colours(shown)


def test_undoing_needs_a_yes_where_nobody_can_be_asked(
    program: Program, told: agentmem.Store
) -> None:
    assert "--yes" in program.fails(2, "revert", "plan", "--to", "1")
    assert "--yes" in program.fails(2, "revert-commit", "3")
    assert "no version 9" in program.fails(1, "revert", "plan", "--to", "9")
    assert told.revision == 3


def test_revert_commit_shows_what_would_be_done_and_does_it(
    program: Program, told: agentmem.Store
) -> None:
    dry = program.document("revert-commit", "3", "--dry-run")
    assert dry["commit"] is None
    assert dry["keys"] == [
        {
            "namespace": [],
            "key": "plan",
            "version": 3,
            "restored": 2,
            "current": 3,
            "current_agent": "eva",
            "outcome": "undone",
            "strategy": None,
        }
    ]
    lines = program.ok("revert-commit", "3", "--yes", "--agent", "max").splitlines()
    assert lines[0].split() == ["key", "version", "restored", "current", "agent", "outcome"]
    assert lines[-1] == "revision 4"
    assert told["plan"] == {"days": 9, "city": "Rome"}
    assert told.log(limit=1)[0].note == "revert of revision 3"
    assert "'plan' (now version 4 by 'max')" in program.fails(3, "revert-commit", "2", "-y")
    assert program.ok("revert-commit", "2", "--dry-run").count("conflict") == 1
    program.ok("merge", "set", "plan", "json")
    assert program.document("revert-commit", "2", "-y")["keys"][0]["strategy"] == "json"
    assert "not there yet" in program.fails(6, "revert-commit", "99", "-y")


def test_diff_of_two_moments_shows_every_key_that_differs(
    program: Program, told: agentmem.Store
) -> None:
    assert program.ok("diff", "1", "now") == (
        '@ plan  1 -> 3\n~ $.city  "Rome" -> "Oslo"\n~ $.days  2 -> 9\n'
        "@ team/seats  0 -> 1\n+ $  5\n"
    )
    assert program.ok("diff", "now", "1", "-n", "team") == "@ team/seats  1 -> 0\n- $  5\n"
    assert program.ok("diff", "1", "2", "--limit", "1").startswith("@ plan")
    assert program.ok("diff", "3", "now") == ""
    lines = program.ok("diff", "1", "3", "--json").splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["plan", "seats"]
    assert json.loads(lines[1]) == {
        "namespace": ["team"],
        "key": "seats",
        "before_version": 0,
        "after_version": 1,
        "differences": [{"path": "$", "kind": "added", "before": None, "after": 5}],
    }
    assert "no tag" in program.fails(6, "diff", "plan", "1")
    assert program("diff", "plan", "1", "now").exit_code == 2
    assert program("diff", "plan", "1", "2", "--limit", "1").exit_code == 2


def test_a_diff_has_colours_for_a_person(path: Path, told: agentmem.Store) -> None:
    code, shown = on_terminal("diff", "1", "3", "--store", str(path))
    assert code == 0
    assert "\x1b[32m+ $  5\x1b[0m" in shown
    assert "\x1b[36m@ team/seats" in shown


def test_blame_shows_who_set_what(program: Program, told: agentmem.Store) -> None:
    header, *rows = program.ok("blame", "plan").splitlines()
    assert header.split() == ["path", "version", "revision", "time", "agent", "value"]
    assert [row.split()[0] for row in rows] == ["$.city", "$.days"]
    assert rows[0].split()[1:3] == ["3", "3"]
    assert rows[1].split()[-2:] == ["bo", "9"]
    (city, _days) = program.document("blame", "plan", "--at", "1")
    assert city.pop("committed_at") is not None
    assert city == {
        "path": "$.city",
        "value": "Rome",
        "version": 1,
        "revision": 1,
        "operation": "put",
        "merged": None,
        "agent": "ann",
        "op_id": None,
        "note": "first",
        "or_earlier": False,
    }
    assert "absent" in program.fails(1, "blame", "nothing")


@pytest.mark.parametrize("columns", [80, 200])
def test_blame_fits_the_terminal(path: Path, told: agentmem.Store, columns: int) -> None:
    told.put("plan", {"text": "word " * 200, "days": 9}, overwrite=True)
    code, shown = on_terminal("blame", "plan", "--store", str(path), COLUMNS=str(columns))
    assert code == 0
    assert max(len(line) for line in without_colours(shown).splitlines()) <= columns


def test_history_is_narrowed_by_revisions(program: Program, told: agentmem.Store) -> None:
    def versions(*options: str) -> list[int]:
        return [each["version"] for each in program.document("history", "plan", *options)]

    assert versions("--at", "2") == [2, 1]
    assert versions("--at", "now", "--upto", "2") == [2, 1]
    assert versions("--after", "1") == [3, 2]
    assert versions("--after", "3") == []
