"""compact and purge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import agentmem
from tests.cli.program import Program, answering, without_colours


@pytest.fixture
def filled(store: agentmem.Store) -> agentmem.Store:
    for number in range(4):
        store.put("k", number, overwrite=True)
        store.put("n", number, namespace="team", overwrite=True, op_id=f"op-{number}")
    return store


def test_compact_shows_what_it_does_and_would_do(program: Program, filled: Any) -> None:
    assert program.ok("compact", "--keep-versions", "2", "--dry-run") == (
        "would drop 4 versions\nthe oldest revision that can be read is 8\n"
    )
    assert len(filled.history("k")) == 4
    filled.audit.tag("kept", at=6)
    assert program.ok("compact", "--keep-versions", "1", "--yes") == (
        "dropped 4 versions\nthe oldest revision that can be read is 6; the tag 'kept' keeps it "
        "there\n"
    )
    assert len(filled.history("k")) == 2
    assert program.document("compact", "--keep-days", "1") == {
        "floor": 6, "held_by": None, "expired": 0, "versions": 0, "results": 0, "dry_run": False,
    }  # fmt: skip
    assert "buried 1 expired" in _with_an_expired_key(program, filled)
    assert program.ok("verify").startswith("ok: ")


def _with_an_expired_key(program: Program, store: agentmem.Store) -> str:
    store.put("short", 1, ttl_s=0.000_001)
    return program.ok("compact")


def test_compact_asks_before_it_drops(program: Program, filled: Any) -> None:
    line = program.fails(2, "compact", "--keep-revision", "8")
    assert "Drop 6 versions" in line
    assert "--yes" in line
    assert len(filled.history("k")) == 4
    program.ok("compact", "--keep-revision", "8", "--vacuum", "--yes")
    assert len(filled.history("k")) == 1


@pytest.mark.parametrize(
    "arguments",
    [("--keep-days", "-1"), ("--keep-days", "nan"), ("--keep-results-days", "1e30")],
)
def test_days_have_bounds(program: Program, filled: Any, arguments: tuple[str, str]) -> None:
    assert arguments[0] in program.fails(2, "compact", *arguments)


def test_purge_erases_a_key(program: Program, filled: Any) -> None:
    assert program.ok("purge", "k", "--yes", "--agent", "officer", "--note", "ticket 7") == (
        "erased 'k' with its whole history: 4 versions, up to revision 9\n"
    )
    history = program.ok("history", "k")
    assert "(purged)" in history
    assert "(deleted)" in history
    shown = program.ok("show", "k@2")
    assert "by officer: ticket 7" in shown
    assert "value      (purged)" in shown
    assert [entry["purged"] for entry in program.document("history", "k")] == [False, *[True] * 4]
    assert filled.get("k") is None


def test_purge_erases_a_namespace(program: Program, filled: Any) -> None:
    assert program.ok("purge", "-n", "team", "--yes") == (
        "erased all of 'team' and below it: 4 versions, up to revision 9\n"
        "and copies in 4 results of operations\n"
    )
    found = program.document("purge", "-n", "team", "--yes")
    assert (found["versions"], found["deleted"], found["revision"]) == (0, 0, 9)


def test_purge_wants_a_name_a_yes_and_a_key_that_was(program: Program, filled: Any) -> None:
    assert "name a KEY" in program.fails(2, "purge", "--yes")
    assert "Erase 'k' with its whole history" in program.fails(2, "purge", "k")
    assert "never written" in program.fails(1, "purge", "nothing", "--yes")
    assert len(filled.history("k")) == 4


def test_a_person_is_asked(filled: Any, path: Path) -> None:
    for answer, left in (("n\n", 4), ("y\n", 5)):
        code, shown = answering(answer, "purge", "k", "--store", str(path))
        assert "for good? [y/N]" in without_colours(shown)
        assert code == (0 if left == 5 else 8)
        assert len(filled.history("k")) == left
