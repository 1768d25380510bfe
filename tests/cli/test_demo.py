"""``agentmem demo``: what it reports is what is in its files, and it can report a loss."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

import agentmem
from agentmem.demo import report
from agentmem.demo.crew import ChildFailedError, Crew
from agentmem.demo.races import AGENTMEM, RACES, UNPROTECTED
from agentmem.demo.run import Result
from agentmem.demo.scenario import (
    CALLS,
    DEATHS,
    DRAFT_PARTS,
    JOBS,
    QUESTIONS,
    SEATS,
    STOPS,
    TASKS,
    Scenario,
)
from agentmem.demo.stage import Row

pytestmark = [pytest.mark.slow, pytest.mark.stress]

_COMMAND: Final = (sys.executable, "-m", "agentmem", "demo")
_AGENTS: Final = 3
_WRITES: Final = 20
_SMALL: Final = ("--agents", "2", "--writes", "1")
_RUNS: Final = sum(len(race.ways) for race in RACES)
_OTHER: Final = 8
_BUG: Final = 70
_INTERRUPTED: Final = 130
_ON_LINUX: Final = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def _environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "AGENTMEM_STORE"} | more


@dataclass(frozen=True)
class _Run:
    """A run of the demo: where, what it printed, and its JSON document."""

    store: Path
    stderr: str
    document: dict[str, Any]

    def row(self, side: str, way: str) -> dict[str, Any]:
        """The one row of a way."""
        (found,) = (
            row for row in self.document["rows"] if (row["side"], row["way"]) == (side, way)
        )
        return dict(found)


def _run_json(folder: Path, *options: object, status: int = 0, **environment: str) -> _Run:
    store = folder / "team.db"
    sizes = ("--agents", _AGENTS, "--writes", _WRITES)
    done = subprocess.run(
        [*_COMMAND, "--json", "--store", str(store), *map(str, sizes), *map(str, options)],
        cwd=folder,
        env=_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return _Run(store, done.stderr, json.loads(done.stdout) if done.stdout else {})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, seed: int) -> _Run:
    """One small run."""
    return _run_json(tmp_path_factory.mktemp("demo"), "--seed", seed)


# What it reports.


def test_agentmem_loses_nothing_in_any_race(run: _Run) -> None:
    lost = {row["way"]: row["lost"] for row in run.document["rows"] if row["side"] == AGENTMEM}

    assert lost == {way.name: 0 for race in RACES for way in race.ways if way.side == AGENTMEM}
    assert run.document["verify"]["problems"] == []
    assert run.document["ok"] is True


def test_the_unprotected_side_loses_wherever_the_interleaving_is_forced(run: _Run) -> None:
    stale, retry, claim, crash = (
        run.row(UNPROTECTED, way) for way in ("document", "book", "claim", "drafts")
    )
    in_middle = sum(kill["in_middle"] for kill in run.document["kills"])
    deploy, queue, follow, ask = (
        run.row(UNPROTECTED, way) for way in ("deploy", "queue", "follow", "ask")
    )

    assert (stale["found"], stale["lost"]) == (1, _AGENTS - 1)
    assert retry["lost"] == len(run.document["lost_answers"]) > 0
    assert (claim["found"], claim["lost"]) == (_AGENTS * len(TASKS), (_AGENTS - 1) * len(TASKS))
    assert in_middle <= crash["lost"] <= len(run.document["kills"])
    assert (deploy["expected"], deploy["lost"]) == (STOPS, STOPS)
    assert (queue["expected"], queue["lost"]) == (len(JOBS), DEATHS)
    assert (follow["expected"], follow["lost"]) == (2 * _AGENTS, _AGENTS // 2 + DEATHS)
    assert (ask["found"], ask["lost"]) == (
        _AGENTS * len(QUESTIONS),
        (_AGENTS - 1) * len(QUESTIONS),
    )


def test_a_loss_of_the_unprotected_counter_is_what_the_file_lacks(run: _Run) -> None:
    row = run.row(UNPROTECTED, "counter")
    with closing(sqlite3.connect(run.document["unprotected"])) as connection:
        query = "SELECT value FROM memory WHERE key = 'counter'"
        found = int(connection.execute(query).fetchone()[0])

    assert row["expected"] == _AGENTS * _WRITES
    assert (row["found"], row["lost"]) == (found, _AGENTS * _WRITES - found)


def test_agentmem_meets_the_conflicts_that_the_unprotected_side_overlooks(run: _Run) -> None:
    assert run.row(AGENTMEM, "document_by_version")["noticed"] >= _AGENTS - 1
    assert run.row(AGENTMEM, "document_merged")["noticed"] == _AGENTS - 1
    assert run.row(AGENTMEM, "book")["noticed"] == len(run.document["lost_answers"])
    assert run.row(AGENTMEM, "claim")["noticed"] == (_AGENTS - 1) * len(TASKS)
    assert run.row(AGENTMEM, "deploy")["noticed"] == STOPS
    assert run.row(AGENTMEM, "queue")["noticed"] == DEATHS
    assert run.row(AGENTMEM, "ask")["noticed"] == (_AGENTS - 1) * len(QUESTIONS)


def test_nobody_counts_in_vain_who_waits_for_a_lease(run: _Run) -> None:
    assert run.row(AGENTMEM, "counter_by_lease")["noticed"] == 0


def test_the_store_holds_what_the_table_says(run: _Run) -> None:
    with agentmem.open(run.store) as store:
        plan, itinerary = store["plan"], store["itinerary"]

        for key in ("counter", "counter_incremented", "counter_in_turns"):
            assert store[key] == _AGENTS * _WRITES
        assert [e.version for e in store.history("counter")] == list(
            range(_AGENTS * _WRITES + 1, 0, -1)
        )
        assert sorted(plan["sections"]) == sorted(run.document["agents"])
        assert itinerary["sections"] == plan["sections"]
        assert sorted(each["call"] for each in store["bookings"]) == list(CALLS)
        assert store["seats"] == SEATS - len(CALLS)
        for key, whole in (
            ("work_done", TASKS),
            ("jobs_done", JOBS),
            ("answers", [entry.key for entry in store.list("notes")]),
            ("tool_calls", QUESTIONS),
        ):
            assert sorted(each["what"] for each in store[key]) == sorted(whole)
        assert [entry.value for entry in store.history("release")] == [6, 4, 2, 0]
        assert (store.queues(), store.leases()) == ([], [])
        assert [(each.name, each.token) for each in store.consumers()] == [("follower", None)]
        assert {e.value["status"] for e in store.list("tasks")} == {"taken"}
        assert len({e.value["draft"] for e in store.list("drafts")}) == 1
        assert store.count("drafts") == len(DRAFT_PARTS)


def test_every_commit_in_the_log_says_who_why_and_under_which_op_id(run: _Run) -> None:
    with agentmem.open(run.store) as store:
        log = store.log()
    # A task and an event are acknowledged in the commit: there an op_id would hide a repeat.
    acknowledged = {
        *JOBS,
        *(f"{agent}-{number}" for agent in run.document["agents"] for number in (1, 2)),
    }
    named = [commit.op_id for commit in log if commit.op_id is not None]

    assert all(commit.agent and commit.note for commit in log)
    assert len(log) - len(named) == len(acknowledged)
    assert len(set(named)) == len(named)
    assert {*run.document["agents"], "booker", "writer"} <= {commit.agent for commit in log}


def test_the_json_output_is_one_document_and_progress_goes_to_standard_error(run: _Run) -> None:
    lines = run.stderr.splitlines()

    assert [line.split()[0] for line in lines] == [f"[{n}/{_RUNS}]" for n in range(1, _RUNS + 1)]


def test_the_files_are_for_their_owner_alone(run: _Run) -> None:
    for path in (run.document["store"], run.document["unprotected"]):
        assert os.stat(path).st_mode & 0o077 == 0


# The seed.


def test_the_seed_decides_which_answers_are_lost(run: _Run, seed: int) -> None:
    query = "SELECT call FROM bookings GROUP BY call HAVING COUNT(*) = 2 ORDER BY call"
    with closing(sqlite3.connect(run.document["unprotected"])) as connection:
        twice = [row[0] for row in connection.execute(query)]

    assert twice == run.document["lost_answers"]
    assert tuple(twice) == Scenario.of(seed, _AGENTS, _WRITES).lost_answers


def test_the_same_seed_makes_the_same_scenario_and_others_make_others(run: _Run, seed: int) -> None:
    again = Scenario.of(seed, _AGENTS, _WRITES)
    others = {Scenario.of(other, _AGENTS, _WRITES).kills for other in range(20)}

    assert [(kill["in_middle"], kill["after_ms"]) for kill in run.document["kills"]] == [
        (kill.in_middle, kill.after_ms) for kill in again.kills
    ]
    assert run.document["agents"] == list(again.agents)
    assert len(others) == 20


def test_every_agent_has_a_name_of_its_own() -> None:
    names = Scenario.of(1, 32, 1).agents

    assert len(set(names)) == 32
    assert names[0] == "planner"


# What a person sees.


@contextmanager
def _screen() -> Iterator[tuple[int, list[bytes]]]:
    """A terminal: the descriptor to write to, and what was written when the block is over."""
    master, slave = pty.openpty()
    seen: list[bytes] = []

    def drain() -> None:
        # A terminal whose last writer has gone away fails with EIO.
        try:
            while piece := os.read(master, 65_536):
                seen.append(piece)
        except OSError:
            return

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        yield slave, seen
    finally:
        os.close(slave)
        reader.join()
        os.close(master)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """A run for a person, in a folder of the name "a b": output, terminal, and the folder.

    The variable is set that names the store that the person works with.
    """
    folder = tmp_path_factory.mktemp("shown") / "a b"
    folder.mkdir()
    mine = folder / "mine.db"
    mine.write_text("somebody's own")
    with _screen() as (terminal, seen):
        done = subprocess.run(
            [*_COMMAND, *_SMALL],
            cwd=folder,
            env=_environment(
                TERM="xterm", TMPDIR=str(folder), COLUMNS="80", AGENTMEM_STORE=str(mine)
            ),
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            check=True,
        )
    return done.stdout, b"".join(seen).decode(), folder


def test_every_printed_command_works(shown: tuple[str, str, Path]) -> None:
    output, _screen, folder = shown
    commands = [line.strip() for line in output.splitlines() if " --store " in line]

    assert len(commands) == len(report._LOOK)
    for command in commands:
        done = subprocess.run(
            shlex.split(command),
            cwd=folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout.strip(), command


def test_the_table_has_a_line_for_each_race_on_a_narrow_terminal(
    shown: tuple[str, str, Path],
) -> None:
    table = shown[0][shown[0].index("what was lost") :]

    for number, race in enumerate(RACES, 1):
        cells = rf"^{number} {race.lost} +\d+ of \d+ +0 of \d+ +\w"
        assert re.search(cells, table, re.MULTILINE), table
    assert "agentmem has lost nothing." in table


def test_the_progress_bar_is_gone_in_the_end(shown: tuple[str, str, Path]) -> None:
    output, screen, _folder = shown
    erased = "\x1b[1A\x1b[2K"

    assert "all races" in screen
    assert screen.rstrip().endswith(erased)
    assert "all races" not in output


def test_without_a_store_option_the_files_are_kept_in_a_new_temporary_folder(
    shown: tuple[str, str, Path],
) -> None:
    (made,) = shown[2].glob("agentmem-demo-*")

    assert {path.name for path in made.glob("*.db")} == {"team.db", "team-unprotected.db"}


def test_the_store_that_the_environment_names_is_left_alone(shown: tuple[str, str, Path]) -> None:
    assert (shown[2] / "mine.db").read_text() == "somebody's own"


def _shown(lost: dict[str, int], problems: list[str]) -> str:
    """The text of a made-up result in which each side has lost so much in every race."""
    result = Result(Scenario.of(1, 2, 1), "team.db", "team-unprotected.db", problems=problems)
    for race in RACES:
        for way in race.ways:
            result.rows.append(Row(race, way, 4, 4 - lost[way.side], lost[way.side], 0))
    text = io.StringIO()
    report.show(result, Console(file=text, width=200))
    return text.getvalue()


def test_a_run_in_which_the_unprotected_side_was_lucky_says_so() -> None:
    text = _shown({UNPROTECTED: 0, AGENTMEM: 0}, [])

    assert "Unprotected, this run lost nothing in: a shared counter, a stale document," in text
    assert "lost nothing in" not in _shown({UNPROTECTED: 1, AGENTMEM: 0}, [])


def test_a_loss_on_agentmem_is_called_a_bug() -> None:
    text = _shown({UNPROTECTED: 4, AGENTMEM: 1}, ["revision 7 is missing"])

    assert "agentmem has LOST something: this is a bug in agentmem." in text
    assert "The log is NOT whole" in text
    assert "revision 7 is missing" in text
    assert "agentmem has lost nothing" not in text


def test_commands_are_printed_as_the_program_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "agentmem"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])

    monkeypatch.setenv("PATH", str(tmp_path))
    assert report._program() == ["agentmem"]
    monkeypatch.setenv("PATH", str(tmp_path.parent))
    assert report._program() == [str(script)]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "__main__.py")])
    assert report._program() == [sys.executable, "-m", "agentmem"]


# What goes wrong.


@pytest.mark.parametrize("name", ["team.db", "team-unprotected.db"])
def test_a_file_that_is_there_is_never_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("somebody's own")

    done = _run_json(tmp_path, status=2)

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "somebody's own"
    assert re.fullmatch(rf"agentmem: .*{name} is there.*\n", done.stderr)


def test_a_store_named_before_the_command_is_as_good_as_one_named_after_it(tmp_path: Path) -> None:
    (tmp_path / "mine.db").write_text("somebody's own")
    command = [*_COMMAND[:-1], "--store", "mine.db", "--json", "demo"]
    done = subprocess.run(
        command, cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("agentmem: mine.db is there")


@pytest.mark.parametrize(
    "options",
    [
        ("--agents", "1"),
        ("--agents", "33"),
        ("--writes", "0"),
        ("--store", "no/such/folder/x.db"),
        ("--store", ":memory:"),
    ],
)
def test_sizes_and_places_that_make_no_sense_are_refused(
    tmp_path: Path, options: tuple[str, str]
) -> None:
    _run_json(tmp_path, *options, status=2)

    assert list(tmp_path.iterdir()) == []


@contextmanager
def _running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A long demo that is in its first race."""
    process = subprocess.Popen(
        [*_COMMAND, "--store", str(folder / "team.db"), "--agents", "2", "--writes", "10000"],
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None, "it is a pipe"
    try:
        process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


@_ON_LINUX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_demo_that_ends_early(tmp_path: Path, how: signal.Signals) -> None:
    with _running(tmp_path) as process:
        children = [os.pidfd_open(child) for child in _children(process.pid)]
        if how is signal.SIGINT:  # as Ctrl-C, it goes to the whole group
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        assert process.stderr is not None, "it is a pipe"
        error = process.stderr.read()
        process.wait()

    assert len(children) == 2
    for child in children:
        # Readable once the process has ended.
        assert select.select([child], [], [], 60)[0], "it is still there"
        os.close(child)
    assert process.returncode == (_INTERRUPTED if how is signal.SIGINT else -how)
    assert "Traceback" not in error


def test_an_idle_process_ends_when_the_one_that_started_it_is_gone() -> None:
    command = [sys.executable, "-m", "agentmem.demo.workers"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_failure_in_a_process_is_reported_with_its_name_and_traceback() -> None:
    with Crew() as crew:
        task = {"side": UNPROTECTED, "way": "no such way", "path": ":memory:", "agent": "critic"}
        with pytest.raises(ChildFailedError, match=r"'critic' failed: KeyError") as caught:
            crew.together({crew.take("critic"): task}, lambda: None)

    assert caught.value.child == "critic"
    assert "Traceback" in caught.value.details


@_ON_LINUX
def test_a_stopped_process_does_not_outlive_the_one_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from agentmem.demo.crew import Crew\n"
        "child = Crew().take('holder')\n"
        "child.stop()\n"
        "print(child._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None, "it is a pipe"
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        # Readable once the process has ended.
        assert select.select([child], [], [], 60)[0], "it is still there"
    os.close(child)


def test_a_process_that_is_to_be_stopped_and_is_dead_is_reported() -> None:
    with Crew() as crew:
        child = crew.take("holder")
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(ChildFailedError, match=r"'holder' failed: .*SIGKILL"):
            child.stop()


def test_a_process_that_dies_is_reported_with_how_it_died() -> None:
    with Crew() as crew:
        child = crew.take("critic")
        child.kill()
        with pytest.raises(ChildFailedError, match=r"'critic' failed: .*SIGKILL"):
            crew.together({child: {}}, lambda: None)


# Whether it can report a loss.

_MUTATIONS: Final = {
    "the plan is written whatever its version": (
        "protected",
        "                expected_version=entry.version,\n",
        "                overwrite=True,\n",
    ),
    "the itinerary is written whatever its version": (
        "protected",
        "agent), expected_version=entry.version)",
        "agent), overwrite=True)",
    ),
    "a booking has no op_id": (
        "protected",
        'transaction(agent="booker", op_id=op_id, note=note)',
        'transaction(agent="booker", note=note)',
    ),
    "a task is done whether or not the claim stands": (
        "protected",
        "                tx.commit()\n",
        '                memory.store.append("work_done", {"what": name, "by": agent})\n',
    ),
    "the parts of a draft are written one by one": (
        "protected",
        'tx.put(part, draft(part, number), namespace="drafts")',
        'memory.store.put(part, draft(part, number), namespace="drafts", overwrite=True)',
    ),
    "a deploy is not guarded by its lease": (
        "coordinated",
        "            tx.guard(lease)\n",
        "",
    ),
    "a job is acknowledged before it is done": (
        "coordinated",
        '            tx.append("jobs_done"',
        '            job.ack()\n            tx.append("jobs_done"',
    ),
    "a note is acknowledged before it is answered": (
        "coordinated",
        "        (note,) = (change",
        "        feed.ack(event)\n        (note,) = (change",
    ),
    "a tool is called without its cache": (
        "coordinated",
        '    @memory.store.cached_tool(name="search")\n',
        "",
    ),
}
_WITHOUT: Final = {  # what goes with two of them, so that nothing fails
    "        job.ack(tx)\n": "        pass\n",
    "            tx.ack(event)\n": "            pass\n",
}


def _copy_of_agentmem(folder: Path) -> Path:
    package = Path(agentmem.__file__).parent
    copy = folder / "copy"
    shutil.copytree(package, copy / "agentmem", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def _mutate(copy: Path, module: str, old: str, new: str) -> None:
    path = copy / "agentmem" / "demo" / f"{module}.py"
    source = path.read_text()
    assert source.count(old) == 1, old
    path.write_text(source.replace(old, new))


@pytest.mark.mutant
def test_the_demo_reports_what_agentmem_loses_when_it_is_used_without_its_means(
    tmp_path: Path,
) -> None:
    copy = _copy_of_agentmem(tmp_path)
    for module, old, new in _MUTATIONS.values():
        _mutate(copy, module, old, new)
    for old, new in _WITHOUT.items():
        _mutate(copy, "coordinated", old, new)

    run = _run_json(tmp_path, *_SMALL, status=_BUG, PYTHONPATH=str(copy))

    ways = ("document_by_version", "document_merged", "book", "claim", "drafts", "deploy",
            "queue", "follow", "ask")  # fmt: skip
    assert {way: run.row(AGENTMEM, way)["lost"] > 0 for way in ways} == dict.fromkeys(ways, True)
    assert run.row(AGENTMEM, "counter_by_version")["lost"] == 0
    assert run.document["ok"] is False


@pytest.mark.mutant
def test_a_demo_with_a_failing_process_ends_with_one_line_after_its_traceback(
    tmp_path: Path,
) -> None:
    copy = _copy_of_agentmem(tmp_path)
    _mutate(
        copy,
        "protected",
        '    entry = store.get("plan")\n    channel',
        "    raise RuntimeError('struck')\n    channel",
    )

    run = _run_json(tmp_path, *_SMALL, status=_OTHER, PYTHONPATH=str(copy))

    assert run.document == {}
    assert "Traceback" in run.stderr
    assert re.search(
        r"\nagentmem: the process of '\w+' failed: RuntimeError: struck\n$", run.stderr
    )
