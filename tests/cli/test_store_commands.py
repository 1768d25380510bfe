"""init, stats, verify, tag, tags, and how a store is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentmem
from agentmem.engines.sqlite.driver import driver
from tests.cli.program import Program


def test_init_makes_a_private_store_once(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    program = Program(path)
    assert program.ok("init") == f"{path}: a new store\n"
    assert path.stat().st_mode & 0o777 == 0o600
    program.ok("put", "k", "1")
    assert program.ok("init", str(path)) == f"{path}: a store already, at revision 1\n"
    assert program.ok("get", "k") == "1\n"


def test_init_as_json_tells_whether_it_was_made(tmp_path: Path) -> None:
    program = Program(tmp_path / "new.db")
    first, second = program.document("init"), program.document("init")
    assert (first.pop("made"), second.pop("made")) == (True, False)
    assert first == second
    assert first["location"] == str(tmp_path / "new.db")
    assert len(first["store_id"]) == 32
    assert first["revision"] == 0


def test_init_makes_a_store_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "new.db").touch()
    program = Program(tmp_path / "new.db")
    assert "there is no store" in program.fails(5, "get", "k")
    assert program.document("init")["made"] is True


def test_init_refuses_two_names(program: Program) -> None:
    assert "two stores" in program.fails(2, "init", "a.db", "--store", "b.db")
    assert not Path("a.db").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "k"),
        ("put", "k", "1"),
        ("list",),
        ("stats",),
        ("verify",),
        ("merge", "list"),
        ("increment", "k"),
    ],
)
def test_no_command_but_init_makes_a_store(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = tmp_path / "it's.db"
    line = Program(path).fails(5, *arguments)
    assert line.startswith(f"there is no store at {path}")
    assert line.endswith("""agentmem init '""" + str(path).replace("'", "'\"'\"'") + "'")
    assert list(tmp_path.iterdir()) == []


def test_without_a_name_the_two_ways_to_give_one_are_told(program: Program) -> None:
    result = program("get", "k", AGENTMEM_STORE="")
    assert result.exit_code == 2
    assert "--store STORE" in result.stderr
    assert "AGENTMEM_STORE" in result.stderr


def test_the_store_may_stand_before_or_behind_the_command(
    program: Program, path: Path, tmp_path: Path
) -> None:
    program.ok("put", "k", "1")
    other = str(tmp_path / "other.db")
    program.ok("init", other)
    for arguments in (
        ("--store", str(path), "get", "k"),
        ("get", "k", "--store", str(path)),
        ("--store", other, "get", "k", "--store", str(path)),
    ):
        result = program(*arguments, AGENTMEM_STORE=other)
        assert (result.exit_code, result.stdout) == (0, "1\n")


def test_namespace_json_and_timeout_may_stand_before_the_command(program: Program) -> None:
    program.ok("-n", "team", "--timeout-s", "2", "put", "k", "1")
    assert program.ok("get", "k", "-n", "team") == "1\n"
    assert program.ok("-n", "other", "get", "k", "-n", "team") == "1\n"
    assert program.ok("--json", "count", "-n", "team") == '{"count": 1}\n'


def test_a_namespace_for_a_whole_store_is_refused(program: Program) -> None:
    assert "whole store" in program.fails(2, "-n", "team", "stats")
    assert program("stats", "-n", "team").exit_code == 2


def test_the_timeout_is_the_stores_and_short_by_itself(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    def noting(target: str, limits: agentmem.Limits) -> agentmem.Store:
        waits.append(limits.lock_timeout_ms)
        return open_store(target, limits=limits)

    open_store = agentmem.open
    monkeypatch.setattr(agentmem, "open", noting)
    for options in ((), ("--timeout-s", "0.25"), ("--timeout-s", "0.0001")):
        program.ok("list", *options)
    assert waits == [5_000, 250, 1]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_timeout_has_bounds(program: Program, seconds: str) -> None:
    assert "--timeout-s" in program.fails(2, "list", "--timeout-s", seconds)


def test_stats_tells_sizes(program: Program, store: agentmem.Store) -> None:
    store.put("k", 1)
    found = program.document("stats")
    assert found == store.admin.stats()
    assert (found["revision"], found["keys"], found["location"]) == (1, 1, str(program.store))
    lines = dict(line.rsplit(maxsplit=1) for line in program.ok("stats").splitlines())
    assert lines["revision"] == "1"
    assert lines["open conflicts"] == "0"


def test_verify_tells_that_all_is_well(program: Program, store: agentmem.Store) -> None:
    store.put_many({"a": 1, "b": 2})
    first, second = program.ok("verify").splitlines()
    assert first == "ok: 1 commit, 2 entries, up to revision 1"
    known = second.removeprefix("to expect next time: ")
    assert known == "1:" + program.document("verify")["hash"]
    assert program.ok("verify", "--expect", known) == f"{first}\n{second}\n"
    for other in ("1:" + "0" * 64, "2:" + known[2:]):
        result = program("verify", "--expect", other)
        assert result.exit_code == 5
        assert "history was replaced" in result.stdout
    for wrong in ("1", "x:" + known[2:], "1:abc", known + "0"):
        assert "--expect" in program.fails(2, "verify", "--expect", wrong)
    assert program.document("verify") == {
        "ok": True,
        "revision": 1,
        "hash": known[2:],
        "commits": 1,
        "entries": 2,
        "problems": [],
    }


def test_verify_tells_of_changed_history(program: Program, store: agentmem.Store) -> None:
    store.put("k", "the truth")
    store.close()
    forger = driver.connect(program.store)
    forger.execute("""UPDATE entries SET value = '"a lie"'""")
    forger.commit()
    forger.close()
    result = program("verify")
    assert result.exit_code == 5
    assert "'k' at revision 1" in result.stdout
    assert "DAMAGED" in result.stdout
    assert "is damaged" in result.stderr
    result = program("verify", "--json")
    assert result.exit_code == 5
    assert '"ok": false' in result.stdout


def test_a_tag_names_a_revision(program: Program, store: agentmem.Store) -> None:
    store.put("k", 1)
    store.put("k", 2)
    assert program.ok("tag", "first", "--at", "1", "--note", "why") == "first: revision 1\n"
    assert program.document("tag", "now", "--agent", "bo")["revision"] == 2
    assert program.ok("get", "k", "--at", "first") == "1\n"
    assert [(each["name"], each["agent"], each["note"]) for each in program.document("tags")] == [
        ("first", None, "why"),
        ("now", "bo", None),
    ]
    assert [line.split()[0] for line in program.ok("tags").splitlines()] == ["tag", "first", "now"]


@pytest.mark.parametrize("name", ["7", "2026-01-31", "2026-01-31T12:00:00Z"])
def test_a_tag_that_would_read_as_something_else_is_refused(program: Program, name: str) -> None:
    result = program("tag", name)
    assert result.exit_code == 2
    assert "would be read as a revision or a time" in result.stderr


def test_version_is_told(program: Program) -> None:
    assert program.ok("--version") == f"agentmem {agentmem.__version__}\n"
