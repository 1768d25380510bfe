"""backup, export, import."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

import agentmem
from tests.cli.program import Program, on_terminal, run, start, without_colours


@pytest.fixture
def filled(store: agentmem.Store) -> agentmem.Store:
    store.put_many({f"k{number}": {"n": number} for number in range(5)}, agent="ann")
    store.put("k0", "new", overwrite=True)
    store.audit.tag("then", at=1)
    return store


def test_a_backup_is_made_and_told(
    program: Program, filled: agentmem.Store, tmp_path: Path
) -> None:
    path = tmp_path / "b.db"
    shown = program.ok("backup", str(path))
    assert shown == f"{path}: revision 2, 2 commits, 6 entries, verified\n"
    with agentmem.open(path) as copy:
        assert copy["k0"] == "new"
    assert "is there already" in program.fails(5, "backup", str(path))
    made = program.document("backup", str(path), "--overwrite")
    assert made["revision"] == 2
    assert made["hash"] == program.document("export", str(tmp_path / "x"))["hash"]
    assert made["path"] == str(path)


def test_a_history_goes_through_a_pipe(
    program: Program, filled: agentmem.Store, tmp_path: Path
) -> None:
    text = program.ok("export")
    assert json.loads(text.splitlines()[0])["agentmem"] == "history"
    other = Program(tmp_path / "new.db")
    assert (
        other.ok("import", "-", stdin=text)
        == f"{other.store}: 6 entries in 2 commits; now at revision 2\n"
    )
    assert other.ok("export").splitlines()[1:] == text.splitlines()[1:]
    again = json.loads(other("import", "-", "--json", stdin=text).stdout)
    assert (again["commits"], again["revision"], again["kind"]) == (0, 2, "history")


def test_one_revision_goes_through_a_file(
    program: Program, filled: agentmem.Store, tmp_path: Path
) -> None:
    path = tmp_path / "then.jsonl.gz"
    assert program.ok("export", str(path), "--at", "then") == (
        f"{path}: entries of revision 1, 5 entries\n"
    )
    assert gzip.decompress(path.read_bytes()).count(b"\n") == 7
    assert "is there already" in program.fails(5, "export", str(path))
    program.ok("export", str(path), "--at", "1", "--overwrite")
    failed = program.fails(3, "import", str(path))
    assert failed == (
        "'k0' (and 4 more) is there already; nothing was written: give --existing keep, or "
        "--existing replace"
    )
    kept = program.ok("import", str(path), "--existing", "keep", "--agent", "me", "--note", "n")
    assert kept == f"{program.store}: 0 entries in 1 commit, 5 kept; now at revision 3\n"
    repeated = program.ok("import", str(path), "--existing", "replace")
    assert repeated == f"{program.store}: 0 entries in 0 commits, 5 there; now at revision 3\n"
    assert filled["k0"] == "new"
    assert "refuse, keep or replace" in program.fails(2, "import", str(path), "--existing", "x")


def test_a_file_that_is_wrong_is_one_line(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "wrong.jsonl"
    text = program.ok("export")
    path.write_text(text + "{}\n")
    assert f"{path}, line 3: stands after the end" in program.fails(6, "import", str(path))
    path.write_text(text[:-4])
    assert "was cut off" in program.fails(5, "import", str(path))
    assert "No such file" in program.fails(5, "import", str(tmp_path / "nowhere"))


def test_lines_are_not_written_to_a_terminal_but_bars_are_shown_there(
    path: Path, filled: agentmem.Store, tmp_path: Path
) -> None:
    code, shown = on_terminal("--store", str(path), "export")
    assert (code, "a terminal is no file" in shown) == (2, True)
    for command, file in (("backup", "b.db"), ("export", "e.jsonl")):
        code, shown = on_terminal("--store", str(path), command, str(tmp_path / file), COLUMNS="80")
        assert code == 0
        assert "━" in shown
        last = without_colours(shown).splitlines()[-1]
        assert str(tmp_path / file) in last
    code, shown = on_terminal("import", str(tmp_path / "e.jsonl"), "--store", f"{tmp_path}/n.db")
    assert (code, "━" in shown) == (0, True)


def test_a_reader_that_goes_away_ends_an_export(path: Path, store: agentmem.Store) -> None:
    store.put_many({f"k{number}": "x" * 1_000 for number in range(500)})
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start("--store", str(path), "export", **streams) as export:
        assert export.stdout is not None
        assert export.stdout.readline().startswith(b'{"agentmem"')
        export.stdout.close()
        assert export.stderr is not None
        assert export.stderr.read() == b""
        assert export.wait(60) == 141


def test_an_interrupted_backup_leaves_no_file(path: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, agentmem.cli\n"
        "from agentmem.exchange import backup\n"
        "def interrupted(*_arguments, **_more):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "backup._verified = interrupted\n"
        "agentmem.cli.main()\n"
    )
    folder = tmp_path / "backups"
    folder.mkdir()
    done = run("--store", str(path), "backup", str(folder / "b.db"), script=script)
    assert (done.returncode, done.stderr) == (130, "agentmem: interrupted\n")
    assert os.listdir(folder) == []
