"""System calls that fail under a store, by strace: an honest answer, and exactly once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import agentmem
from agentmem.testing.faults import failing_calls, injected

WRITER = Path(__file__).parent / "writer.py"
MOST_CALLS = 300
INDETERMINATE = "IndeterminateCommitError"
pytestmark = [pytest.mark.stress, pytest.mark.slow]


@dataclass
class Run:
    """A writer whose system calls failed, and the store that it left."""

    path: Path
    events: list[dict[str, Any]]
    injected: int
    killed: bool
    log: dict[str, agentmem.Commit] = field(default_factory=dict)

    @property
    def failures(self) -> Iterator[dict[str, Any]]:
        return (event for event in self.events if event.get("error"))


@pytest.fixture(scope="module", autouse=True)
def strace_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("strace") / "log"
    writes = [
        sys.executable,
        "-c",
        "import os, sys; os.fsync(os.open(sys.executable, os.O_RDONLY))",
    ]
    command = failing_calls(writes, call="fsync", error="EIO", when="1", log=log)
    if command is None:
        pytest.skip("strace is not installed")
    subprocess.run(command, check=False, capture_output=True)
    if not injected(log):
        pytest.skip("strace may not trace, or cannot inject, on this system")


def run(folder: Path, call: str, error: str, when: str, *, end: str = "") -> Run:
    path, log = folder / f"{call}-{when}.db", folder / f"{call}-{when}.log"
    agentmem.open(path).close()
    writer = [sys.executable, str(WRITER), str(path), "full", *([end] if end else [])]
    command = failing_calls(writer, call=call, error=error, when=when, log=log)
    assert command is not None
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert killed or done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return Run(path, events, injected(log), killed)


def retry_all(store: agentmem.Store) -> None:
    """The writer's operations, by another process, under the same op ids."""
    store.put("text", "x" * 5_000, op_id="put")
    store.increment("n", op_id="increment")
    with store.transaction(op_id="transaction") as tx:
        tx.put("a", 1, namespace="pair")
        tx.put("b", 1, namespace="pair")
    store.transact(lambda tx: tx.increment("n"), op_id="transact")


def check(found: Run) -> None:
    """All that must hold, whichever call failed."""
    for event in found.failures:
        assert event["known"], f"no error of agentmem's: {event}"
        assert event.get("readable", "yes") == "yes", f"the store cannot be read: {event}"
        if event["error"] == INDETERMINATE:
            assert len(event["attempt"]) == 32
            assert event["revision"] > 0, event
            if isinstance(event.get("outcome"), str):
                # Nothing can be known yet, and what is asked again is asked of the same attempt.
                assert event["outcome_attempt"] in ("", event["attempt"]), event
    with agentmem.open(found.path) as store:
        found.log = {commit.op_id: commit for commit in store.log() if commit.op_id is not None}
        acknowledged = [event["operation"] for event in found.events if event.get("error") is None]
        assert [op for op in acknowledged if op not in ("close", *found.log)] == [], "lost"
        for event in found.failures:
            if event["error"] == INDETERMINATE:
                check_outcome(store, found, event)
        retry_all(store)
        assert Counter(commit.op_id for commit in store.log()) == {
            "put": 1,
            "increment": 1,
            "transaction": 1,
            "transact": 1,
        }
        assert (store["n"], store.get("n").version) == (2, 2)  # type: ignore[union-attr]  # it is there
        assert [entry.version for entry in store.list()] == [2, 1, 1, 1]
        assert store.admin.verify().problems == []


def check_outcome(store: agentmem.Store, found: Run, event: dict[str, Any]) -> None:
    """What the writer was told of an attempt, and what this process is told, is so."""
    attempt = bytes.fromhex(event["attempt"])
    rows = store._core.engine.commits(0, None, MOST_CALLS, newest_first=False)
    row = next((each for each in rows if each.attempt == attempt), None)
    told = event.get("outcome", "it died")
    if not isinstance(told, str):
        assert told == (row.revision if row is not None else None), event
    error = agentmem.IndeterminateCommitError(
        "", op_id=event["op_id"], attempt=attempt, revision=event["revision"]
    )
    commit = store.outcome(error)
    assert (commit.revision if commit is not None else None) == (
        row.revision if row is not None else None
    )
    if commit is not None:
        assert commit.op_id == event["op_id"]
        assert commit.revision == event["revision"]


def fail_each(
    folder: Path, call: str, error: str, pattern: str, *, step: int = 1, end: str = ""
) -> Counter[str]:
    """Fails each (or each `step`-th) call of a kind; returns the errors that this caused."""
    errors: Counter[str] = Counter()
    for number in range(1, MOST_CALLS, step):
        found = run(folder, call, error, pattern.format(number, number + 2), end=end)
        if found.injected == 0:
            assert number > step, f"no {call} was made to fail"
            return errors
        check(found)
        errors.update(event["error"] for event in found.failures)
        failed = INDETERMINATE in [event["error"] for event in found.failures]
        assert found.killed == (bool(end) and failed)
    raise AssertionError(f"more than {MOST_CALLS} calls of {call}")


@pytest.mark.parametrize("pattern", ["{}", "{}..{}", "{}+"], ids=["once", "thrice", "for good"])
def test_a_failing_fsync_is_indeterminate_and_a_retry_applies_once(
    tmp_path: Path, pattern: str
) -> None:
    errors = fail_each(tmp_path, "fsync", "EIO", pattern)
    assert errors[INDETERMINATE] >= 3


def test_a_writer_killed_after_a_failing_fsync_leaves_one_of_two_states(tmp_path: Path) -> None:
    errors = fail_each(tmp_path, "fsync", "EIO", "{}", end="die")
    assert errors[INDETERMINATE] >= 4


def test_what_a_writer_was_told_of_its_commit_stays_so_when_it_is_killed(tmp_path: Path) -> None:
    errors = fail_each(tmp_path, "fsync", "EIO", "{}", end="ask-and-die")
    assert errors[INDETERMINATE] >= 3


def test_a_failing_write_is_a_typed_error_and_a_retry_applies_once(tmp_path: Path) -> None:
    errors = fail_each(tmp_path, "pwrite64", "EIO", "{}", step=4)
    assert errors[INDETERMINATE] >= 3


def test_no_space_for_a_write_is_a_disk_full_error_and_a_retry_applies_once(
    tmp_path: Path,
) -> None:
    errors = fail_each(tmp_path, "pwrite64", "ENOSPC", "{}", step=4)
    assert errors["DiskFullError"] >= 3
    assert errors[INDETERMINATE] == 0, "it was not committed, and the store knows it"


def test_a_writer_killed_after_a_failing_write_leaves_one_of_two_states(tmp_path: Path) -> None:
    errors = fail_each(tmp_path, "pwrite64", "EIO", "{}", step=5, end="die")
    assert errors[INDETERMINATE] >= 3
