"""The command line on PostgreSQL: every command works, and no password is ever printed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import psycopg
import pytest

import agentmem
from agentmem.cli.targets import hide_passwords, shown, store_name, with_store
from tests import postgres_server
from tests.cli.program import (
    Program,
    environment,
    on_terminal,
    one_line,
    run,
    without_colours,
)

_PASSWORD: Final = "s3cret p@ss/w?rd#%"  # noqa: S105  # opens nothing
_PIECES: Final = ("s3cret", "p@ss", "p%40ss", "w?rd", "w%3Frd")
_WRONG: Final = "postgresql://ann:s3cret@127.0.0.1:1/db?store=team"


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a store that is not there."""
    name = postgres_server.new_name()
    yield name
    postgres_server.drop([name])


@pytest.fixture
def url(name: str) -> str:
    """The URL of a store that is not there."""
    return postgres_server.store_url(name)


@pytest.fixture
def secret(name: str) -> str:
    """The same with a password in it, in two places; the server of the tests asks for none."""
    if postgres_server.DSN_VARIABLE in os.environ:
        pytest.skip("the server that was given may check passwords")
    parts = urlsplit(postgres_server.server_url())
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{parts.username}:{quote(_PASSWORD, safe='')}@{host}"
    options = f"{parts.query}&pass%77ord={quote(_PASSWORD)}&store={name}"
    return f"postgresql://{netloc}{parts.path}?{options}"


def schemas() -> set[str]:
    with psycopg.connect(postgres_server.server_url()) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace").fetchall()
    return {name for (name,) in found}


def tell_nothing(*texts: str) -> None:
    for text in texts:
        for piece in _PIECES:
            assert piece not in text


# That it works.


def test_a_store_on_a_server_is_used_as_a_file_is(url: str, name: str) -> None:
    program = Program(url)
    assert program.document("init")["made"] is True
    assert program.document("init")["made"] is False
    program.ok("put", "plan", '{"days": 3}', "--agent", "ann")
    program.ok("put", "plan", '{"days": 4}', "--agent", "bob", "--expected-version", "1")
    assert program.ok("get", "plan") == '{"days": 4}\n'
    assert program.ok("get", "plan", "--at", "1") == '{"days": 3}\n'
    assert "version 1" in program.ok("increment", "edits", "5", "-n", "stats")
    program.ok("append", "notes", '"a"')
    assert program.document("count") == {"count": 3}
    assert [each["key"] for each in program.document("list")] == ["notes", "plan", "edits"]
    assert program.ok("diff", "plan", "1", "2") == "~ $.days  3 -> 4\n"
    assert len(program.document("history", "plan")) == 2
    assert len(program.document("log")) == 4
    assert program.document("show", "plan@1")["agent"] == "ann"
    program.ok("tag", "now")
    assert [each["name"] for each in program.document("tags")] == ["now"]
    program.ok("merge", "set", "rules/*", "escalate")
    program.ok("put", "r", "1", "-n", "rules")
    program.ok("put", "r", "2", "-n", "rules", "--expected-version", "1")
    program.ok("put", "r", "3", "-n", "rules", "--expected-version", "1")
    (conflict,) = program.document("conflicts", "--status", "open")
    program.ok("resolve", str(conflict["id"]), "--take", "ours")
    assert program.ok("get", "r", "-n", "rules") == "3\n"
    program.ok("merge", "unset", "rules/*")
    assert program.document("merge", "list") == []
    program.ok("delete", "plan", "--overwrite")
    stats = program.document("stats")
    assert (stats["engine"], stats["revision"]) == ("postgres", 9)
    assert stats["location"].endswith(f"store={name}")
    assert program.document("verify")["ok"] is True


def test_a_conflict_on_a_server_has_its_code(url: str) -> None:
    program = Program(url)
    program.ok("init")
    program.ok("put", "k", "1")
    assert "but is at version 1" in program.fails(3, "put", "k", "2", "--expected-version", "4")


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "k"),
        ("put", "k", "1"),
        ("stats",),
        ("verify",),
        ("migrate",),
        ("migrate", "--dry-run"),
    ],
)
def test_no_command_but_init_makes_a_store_on_a_server(
    url: str, name: str, arguments: tuple[str, ...]
) -> None:
    line = Program(url).fails(5, *arguments)
    assert line.startswith("there is no store at postgresql://")
    hint = shlex.split(line.split("make one with: ")[1])
    assert hint[:2] == ["agentmem", "init"]
    assert name not in schemas()
    assert Program(url).document(*hint[1:])["made"] is True
    assert name in schemas()


def test_a_schema_of_another_program_is_left_alone(url: str, name: str) -> None:
    with psycopg.connect(postgres_server.server_url(), autocommit=True) as connection:
        schema = psycopg.sql.Identifier(name)
        connection.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(schema))
        connection.execute(psycopg.sql.SQL("CREATE TABLE {}.mine (x int)").format(schema))
    for command in ("init", "stats", "migrate"):
        assert "no agentmem store" in Program(url).fails(5, command)


def test_a_server_that_is_not_there_is_one_line() -> None:
    for command in ("stats", "init", "migrate"):
        line = Program(_WRONG).fails(5, command)
        assert "cannot be reached" in line
        tell_nothing(line)


# Passwords.


@pytest.mark.parametrize(
    "arguments",
    [
        ("init",), ("stats",), ("verify",), ("log",), ("put", "k", "1"), ("get", "absent"),
        ("put", "k", "2", "--expected-version", "9"), ("get", "k", "--at", "77"), ("migrate",),
        ("resolve", "5", "--take", "ours"), ("--nonsense",), ("nonsense",),
    ],
)  # fmt: skip
def test_no_command_prints_the_password(secret: str, arguments: tuple[str, ...]) -> None:
    before = Program(secret)("get", "k")
    made = Program(secret)("init")
    Program(secret).ok("increment", "n")
    assert (before.exit_code, made.exit_code) == (5, 0)
    for flags in ((), ("--json",)):
        result = Program(secret)(*arguments, *flags)
        assert result.output
        tell_nothing(result.output, result.stderr, before.stderr, made.output)


def test_a_url_in_the_wrong_place_is_not_quoted_with_its_password(secret: str) -> None:
    for arguments in (
        ("stats", secret), ("copy", secret), (secret,), ("--timeout-s", secret, "stats"),
        ("log", "--limit", secret), ("copy", secret, secret, "--store", secret),
    ):  # fmt: skip
        result = Program(secret)(*arguments)
        assert result.exit_code == 2
        assert result.stderr
        tell_nothing(result.stderr, result.stdout)


@pytest.mark.parametrize(
    "target",
    [
        "postgresql://ann:s3cret/p@ss@host/db",
        "postgresql://ann:s3cret?p@ss@host/db",
        "postgresql://ann:s3cret#p@ss@host/db",
        "postgresql://ann:12/s3cret@host/db",
        "postgresql://ann:s3cret@host:port/db",
        "postgresql://ann:s3cret@[::1/db",
        "postgresql://ann:s3cret@host/db?nonsense",
        "postgresql://ann:s3cret@host/db?nonsense=1",
        "postgresql://ann:s3cret@host/db?pool_size=x",
        "postgresql://ann:s3cret@host/db?store=public",
        "postgresql:/ann:s3cret@host/db",
        "POSTGRESQL://ann:s3cret@host/db",
        "mysql://ann:s3cret@host/db",
        "host=localhost password=s3cret dbname=x",
        "host=localhost password = 's3cret p@ss'",
    ],
)
def test_a_target_that_cannot_be_read_is_told_without_its_password(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("stats",), ("init",), ("migrate",), ("copy", target, target), ("demo",)):
        named = () if command[0] == "copy" else ("--store", target)
        result = Program("other.db")(*command, *named)
        assert result.exit_code in (2, 5, 6), (command, result.output)
        tell_nothing(one_line(result.stderr), result.stdout)
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_was_given_as_a_key_is_told_without_its_password(program: Program) -> None:
    assert "postgresql://ann@host/db" in program.fails(1, "get", "postgresql://ann:s3cret@host/db")


def test_a_bug_is_shown_without_the_password(secret: str) -> None:
    script = (
        "import sys, agentmem, agentmem.cli\n"
        "def fail(target, **options):\n"
        "    raise RuntimeError(f'no idea what to do with {target}')\n"
        "agentmem.open = fail\n"
        "agentmem.cli.main()"
    )
    done = run("--store", secret, "init", script=script)
    assert done.returncode == 70
    assert "RuntimeError: no idea what to do with postgresql://" in done.stderr
    tell_nothing(done.stderr, done.stdout)


def test_a_password_of_the_environment_is_not_printed(url: str) -> None:
    for arguments in (("init",), ("stats", "--json"), ("get", "absent")):
        done = run(*arguments, AGENTMEM_STORE=url, PGPASSWORD="s3cret")
        tell_nothing(done.stdout, done.stderr)
    done = run("stats", AGENTMEM_STORE="postgresql://ann@127.0.0.1:1/db", PGPASSWORD="s3cret")
    assert done.returncode == 5
    tell_nothing(one_line(done.stderr))


def test_the_help_says_that_a_store_can_be_a_url(program: Program) -> None:
    for arguments in (("--help",), ("get", "--help"), ("migrate", "--help")):
        assert "postgresql://" in program.ok(*arguments)


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("team.db", "team.db"),
        ("postgresql://h/d?store=x", "postgresql://h/d?store=x"),
        ("postgresql:///d?host=/tmp", "postgresql:///d?host=/tmp"),
        ("postgresql://u:p@h:5/d?store=x", "postgresql://u@h:5/d?store=x"),
        ("postgresql://u:p@/d?host=/tmp&password=q", "postgresql://u@/d?host=/tmp"),
        ("postgres://u@[::1]:5,h2/d?sslpassword=p&a=b", "postgres://u@[::1]:5,h2/d?a=b"),
        ("postgresql://h?scram_client_key=p&oauth_client_secret=p", "postgresql://h"),
        ("postgresql://u:p/q@h/d", "postgresql://..."),
        ("postgresql://u:12/q@h/d", "postgresql://..."),
        ("postgresql://u:12#q@h/d", "postgresql://..."),
    ],
)
def test_a_url_is_shown_without_what_is_secret(target: str, seen: str) -> None:
    assert shown(target) == seen
    assert hide_passwords(f"at {target} (it is)") == f"at {seen} (it is)"


def test_the_store_of_a_url_is_found_and_added() -> None:
    assert store_name("postgresql://h/d?a=b&store=x%20y") == "x y"
    assert store_name("postgresql://h/d?a=b") is None
    assert with_store("postgresql:///d", "s") == "postgresql:///d?store=s"
    assert with_store("postgresql://u:p@h/d?a=b", "s") == "postgresql://u:p@h/d?a=b&store=s"


# copy and migrate.


def test_copy_from_a_file_to_a_server_and_back(
    program: Program, store: agentmem.Store, secret: str, tmp_path: Path
) -> None:
    store.put("k", 1)
    store.put("k", 2)
    told = program.ok("copy", str(program.store), secret)
    assert told.splitlines()[0].startswith("2 commits copied to postgresql://")
    assert "verified: 2 commits, 2 entries, up to revision 2" in told
    store.put("k", 3)
    document = program.document("copy", str(program.store), secret)
    assert (document["began_at"], document["revision"], document["commits"]) == (2, 3, 3)
    assert document["from"] == str(program.store)
    back = tmp_path / "back.db"
    told += program.ok("copy", secret, str(back))
    assert back.stat().st_mode & 0o777 == 0o600
    assert Program(back).document("history", "k") == program.document("history", "k")
    tell_nothing(told, json.dumps(document))


def test_copy_shows_a_bar_on_a_terminal_and_takes_it_away(
    program: Program, store: agentmem.Store, url: str
) -> None:
    store.put_many({"a": 1, "b": 2})
    code, screen = on_terminal("copy", str(program.store), url)
    assert code == 0
    assert "verifying" in screen
    assert without_colours(screen).rstrip().splitlines()[-1].startswith("verified: 1 commit")


def test_copy_refuses_a_target_with_a_history(program: Program, url: str) -> None:
    program.ok("put", "k", "1")
    other = Program(url)
    other.ok("init")
    other.ok("put", "mine", "1")
    line = program.fails(6, "copy", str(program.store), url)
    assert "has a history of its own" in line
    assert other.ok("get", "mine") == "1\n"


def test_copy_makes_nothing_where_there_is_no_source(
    program: Program, url: str, name: str, tmp_path: Path
) -> None:
    absent = str(tmp_path / "absent.db")
    assert "there is no store at" in program.fails(5, "copy", absent, url)
    assert "there is no store at" in program.fails(5, "copy", url, str(tmp_path / "new.db"))
    assert name not in schemas()
    assert not (tmp_path / "new.db").exists()


def test_copy_takes_two_stores_and_no_third(program: Program) -> None:
    path = str(program.store)
    assert "FROM and TO" in program.fails(2, "--store", path, "copy", path, "b.db")
    assert "FROM and TO" in program.fails(2, "-n", "team", "copy", path, "b.db")
    assert "same store" in program.fails(6, "copy", path, path)
    assert program("copy", path, ":memory:").exit_code == 2


def _with_one_more_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later agentmem would see the stores of this one."""
    from agentmem.engines.postgres import migrate as postgres
    from agentmem.engines.sqlite import migrate as sqlite
    from agentmem_migrations import Migration, migrations_for

    def later(engine: str) -> list[Migration]:
        sql = "CREATE TABLE later (id integer PRIMARY KEY);"
        return [*migrations_for(engine), Migration("0099_create_later", sql, "c" * 32)]

    for module in (postgres, sqlite):
        monkeypatch.setattr(module, "migrations_for", later)


@pytest.fixture(params=["file", "server"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Program:
    """A store on either engine."""
    if request.param == "file":
        program = Program(tmp_path / "team.db")
    else:
        program = Program(request.getfixturevalue("url"))
    program.ok("init")
    return program


def test_migrate_shows_what_is_there(anywhere: Program) -> None:
    for options in ((), ("--dry-run",)):
        lines = anywhere.ok("migrate", *options).splitlines()
        assert lines[:2] == ["0001_create_log: there", "0002_add_search: there"]
        assert lines[-1].endswith("is up to date")
    document = anywhere.document("migrate")
    assert (document["missing"], document["done"]) == ([], [])


def test_a_dry_run_shows_what_is_missing_and_writes_nothing(
    anywhere: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    anywhere.ok("put", "k", "1")
    applied = anywhere.document("migrate")["applied"]
    with monkeypatch.context() as later:
        _with_one_more_migration(later)
        for _again in range(2):
            shown = anywhere.ok("migrate", "--dry-run")
            assert shown.splitlines()[-1] == "0099_create_later: missing"
        document = anywhere.document("migrate", "--dry-run")
        assert document["missing"] == ["0099_create_later"]
        assert (document["done"], document["dry_run"]) == ([], True)
    # This agentmem would refuse it if anything had been written.
    assert anywhere.document("migrate")["applied"] == applied
    with monkeypatch.context() as later:
        _with_one_more_migration(later)
        document = anywhere.document("migrate")
        assert document["done"] == ["0099_create_later"]
        assert document["applied"] == [*applied, "0099_create_later"]
        assert anywhere.document("migrate")["done"] == []
        assert anywhere.ok("get", "k") == "1\n"
    for options in ((), ("--dry-run",)):
        assert "newer agentmem" in anywhere.fails(5, "migrate", *options)


# The demo and the examples.


def _child(*command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _demo(store: str, *options: str) -> subprocess.CompletedProcess[str]:
    sizes = ("--agents", "2", "--writes", "3")
    return _child("-m", "agentmem", "demo", "--store", store, *sizes, *options)


@pytest.mark.slow
def test_the_demo_runs_on_a_server_and_says_what_it_leaves(
    secret: str, name: str, tmp_path: Path
) -> None:
    done = _child(
        "-m", "agentmem", "demo", "--store", secret, "--agents", "2", "--writes", "3",
        TMPDIR=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "agentmem has lost nothing." in done.stdout
    assert f'DROP SCHEMA "{name}" CASCADE' in done.stdout
    tell_nothing(done.stdout, done.stderr)
    command = next(line for line in done.stdout.splitlines() if line.endswith(" verify"))
    checked = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
    assert checked.stdout.startswith("ok: ")
    (folder,) = tmp_path.iterdir()
    assert [each.name for each in folder.glob("*.db")] == ["demo-unprotected.db"]
    again = _demo(secret)
    assert again.returncode == 2
    assert "only makes new stores" in one_line(again.stderr)
    tell_nothing(again.stderr)


@pytest.mark.slow
def test_the_demo_names_a_store_of_its_own() -> None:
    before = schemas()
    done = _demo(postgres_server.server_url(), "--json")
    made = schemas() - before
    mine = {each for each in made if each.startswith("agentmem_demo_")}
    try:
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["ok"] is True
        assert store_name(document["store"]) in mine
    finally:
        postgres_server.drop(sorted(mine))


@pytest.mark.slow
@pytest.mark.parametrize("script", ["shared_counter", "merge_notes", "typed_collection"])
def test_the_examples_run_on_a_server(url: str, script: str) -> None:
    path = str(Path(__file__).parents[2] / "examples" / f"{script}.py")
    first, second = _child(path, url), _child(path, url)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (second.returncode, second.stdout) == (1, "")
    assert "name a new one" in second.stderr
    with agentmem.open(url) as store:
        assert store.revision > 3
        assert store.admin.verify().ok


@pytest.mark.slow
def test_the_conversation_example_runs_on_a_server(url: str) -> None:
    path = str(Path(__file__).parents[2] / "examples" / "conversation_memory.py")
    done = _child(path, "--store", url, "--kills", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the log is whole: verified" in done.stdout
