"""Whatever goes wrong: one line, a code of its own, no traceback. Mostly in real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import agentmem
from agentmem import errors
from agentmem.cli.failures import ExitCode, exit_codes
from agentmem.engines.sqlite.driver import driver
from tests.cli.program import Program, one_line, run, start


def failed(code: int, *arguments: str) -> str:
    """The one line of a command that fails in a process of its own."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    return one_line(done.stderr)


def test_a_locked_store_is_busy_after_the_timeout_and_can_be_read(
    path: Path, store: agentmem.Store
) -> None:
    store.put("k", 1)
    session = store._core.engine.session()
    session.enter(1_000, [], [])
    try:
        line = failed(4, "put", "k", "2", "--store", str(path), "--timeout-s", "0.2")
        assert "run it again" in line
        assert run("get", "k", "--store", str(path)).stdout == "1\n"
    finally:
        session.rollback()
        session.release()
    done = run("put", "k", "2", "--store", str(path))
    assert (done.returncode, done.stdout) == (0, "k: version 2, revision 2\n")


def test_a_text_file_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be read as the head of one\n" * 100)
    before = path.read_bytes()
    assert "no agentmem store" in failed(5, "get", "k", "--store", str(path))
    assert path.read_bytes() == before


def test_another_database_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = driver.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.close()
    assert "no agentmem store" in failed(5, "put", "k", "1", "--store", str(path))
    assert "no agentmem store" in failed(5, "init", "--store", str(path))


def test_a_store_of_a_newer_agentmem_is_refused(program: Program) -> None:
    future = driver.connect(program.store)
    future.execute("INSERT INTO agentmem_checksums VALUES ('9999_add_future', 'x')")
    future.commit()
    future.close()
    assert "newer agentmem" in program.fails(5, "get", "k")


@pytest.mark.parametrize(
    ("target", "code", "why"),
    [
        ("/no/such/folder/team.db", 5, "there is no store"),
        (".", 5, "is a folder"),
        ("/dev/null", 5, "not a regular file"),
        ("x" * 300, 5, "too long"),
        (":memory:", 2, "name a file"),
        ("mysql://host/db", 6, "name a file"),
        ("postgresql://127.0.0.1:1/db", 5, "cannot be reached"),
    ],
)
def test_a_target_that_cannot_be_a_store_is_one_line(
    tmp_path: Path, target: str, code: int, why: str
) -> None:
    assert why in Program(Path(target)).fails(code, "--store", target, "get", "k")


def test_init_where_nothing_can_be_made_is_one_line(tmp_path: Path) -> None:
    assert "does not exist" in failed(5, "init", str(tmp_path / "no" / "team.db"))
    assert "agentmem: " in run("init", "/proc/agentmem.db").stderr
    assert run("init", "/proc/agentmem.db").returncode == 5


def test_a_read_only_folder_is_one_line(path: Path) -> None:
    # Root may write everywhere, unless it gives that power away.
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        probe = [*prefix, "true"]
        if shutil.which("setpriv") is None or subprocess.run(probe, check=False).returncode != 0:
            pytest.skip("root may write everywhere, and setpriv cannot take that away here")
    for each in path.parent.iterdir():
        each.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        for arguments in (("get", "k"), ("put", "k", "1"), ("init", str(path.parent / "new.db"))):
            done = subprocess.run(
                [*prefix, sys.executable, "-m", "agentmem", "--store", str(path), *arguments],
                check=False,
                capture_output=True,
                text=True,
            )
            assert (done.returncode, done.stdout) == (5, "")
            assert "ermi" in one_line(done.stderr) or "read" in done.stderr
    finally:
        path.parent.chmod(0o755)


def test_a_reader_that_goes_away_ends_the_command_quietly(
    path: Path, store: agentmem.Store
) -> None:
    store.put("k", "x" * 100_000)
    for arguments in (("list",), ("get", "k"), ("count",), ("log", "--json")):
        reading, writing = os.pipe()
        os.close(reading)
        child = start(
            "--store", str(path), *arguments, stdout=writing, stderr=subprocess.PIPE
        )  # fmt: skip
        os.close(writing)
        _out, told = child.communicate()
        assert (child.returncode, told) == (141, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_in_the_middle_is_no_success(
    path: Path, store: agentmem.Store, unbuffered: str
) -> None:
    store.put("k", "x" * 1_000_000)  # more than a pipe takes at once
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    arguments = [sys.executable, "-m", "agentmem", "--store", str(path), "get", "k"]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    child.stdout.read(1)
    child.stdout.close()
    assert child.wait(60) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_is_told(path: Path, store: agentmem.Store) -> None:
    store.put("k", 1)
    with open("/dev/full", "wb") as full:
        child = start("--store", str(path), "get", "k", stdout=full, stderr=subprocess.PIPE)
        _out, told = child.communicate()
    assert child.returncode == 5
    assert "No space left" in one_line(told.decode())


def test_a_closed_output_is_no_failure(path: Path, store: agentmem.Store) -> None:
    store.put("k", 1)
    command = f"{sys.executable} -m agentmem --store {path} get k >&-"
    done = subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# Reads standard input only after it has said so; then the parent interrupts it.
_ANNOUNCING = """
import os, sys
from agentmem.cli import main

class Announcing:
    @property
    def buffer(self):
        os.write(1, b"reading")
        return self

    def read(self, size):
        return os.read(0, size)

sys.stdin = Announcing()
main()
"""


def test_an_interruption_is_told_and_writes_nothing(path: Path, store: agentmem.Store) -> None:
    reading, writing = os.pipe()
    child = start(
        *("--store", str(path), "put", "k", "-"),
        script=_ANNOUNCING,
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(reading)
    assert child.stdout is not None
    assert child.stdout.read(7) == b"reading"
    child.send_signal(signal.SIGINT)
    out, told = child.communicate()
    os.close(writing)
    assert (child.returncode, out, told) == (130, b"", b"agentmem: interrupted\n")
    assert store.revision == 0


def test_a_bug_is_shown_whole_under_its_own_code(path: Path) -> None:
    script = (
        "import agentmem, agentmem.cli\n"
        "agentmem.Store.count = lambda *a, **k: 1 // 0\n"
        "agentmem.cli.main()"
    )
    done = run("--store", str(path), "count", script=script)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr


def test_output_in_a_poor_encoding_is_escaped(path: Path, store: agentmem.Store) -> None:
    store.put("zoë", "naïve 🙂")
    done = run("list", "--json", AGENTMEM_STORE=str(path), PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert r"na\xefve" in done.stdout


_CODES = {
    errors.ConflictError: 3,
    errors.OperationMismatchError: 3,
    errors.LeaseError: 3,
    errors.LeaseExpiredError: 3,
    errors.FencedError: 3,
    errors.StoreBusyError: 4,
    errors.StorageError: 5,
    errors.DiskFullError: 5,
    errors.MigrationError: 5,
    errors.CorruptionError: 5,
    errors.UnsafeStorageError: 5,
    errors.InvalidValueError: 6,
    errors.LimitExceededError: 6,
    errors.RevisionError: 6,
    errors.CompactedError: 6,
    errors.FutureRevisionError: 6,
    errors.HistoryReplacedError: 6,
    errors.KeyMissingError: 1,
    errors.IndeterminateCommitError: 7,
}


def _every_error() -> list[type[errors.AgentMemError]]:
    found = [errors.AgentMemError]
    for each in found:
        found += each.__subclasses__()
    return sorted({each for each in found if each.__module__ == "agentmem"}, key=str)


@pytest.mark.parametrize("kind", _every_error(), ids=lambda kind: kind.__name__)
def test_every_error_is_one_line_with_its_code(
    program: Program, monkeypatch: pytest.MonkeyPatch, kind: type[errors.AgentMemError]
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise kind("first\nsecond\x1b[31m")

    monkeypatch.setattr(agentmem.Store, "count", fail)
    assert program.fails(_CODES.get(kind, 8), "count") == r"first\nsecond\u001b[31m"


def test_an_indeterminate_commit_says_what_to_do_next(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise errors.IndeterminateCommitError(
            "the storage or the connection failed while 'k' was committed: it may or may not have "
            "been written; "
            "run it again with the same op_id, or ask store.outcome(error)"
        )

    monkeypatch.setattr(agentmem.Store, "put", fail)
    line = program.fails(7, "put", "k", "1")
    assert "run it again with the same --op-id" in line
    assert "store." not in line


def test_an_interruption_in_this_process_has_its_code(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(agentmem.Store, "count", interrupt)
    assert program.fails(130, "count") == "interrupted"


def test_every_exit_code_is_explained() -> None:
    lines = exit_codes().splitlines()
    assert [int(line.split()[0]) for line in lines] == [code.value for code in ExitCode]


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("get",), ("get", "k", "extra"), ("--nonsense",), ("merge", "x")]
)
def test_wrong_usage_has_code_two(program: Program, arguments: tuple[str, ...]) -> None:
    result = program(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr
