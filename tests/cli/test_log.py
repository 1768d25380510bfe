"""log: its filters, the graph, and following."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import agentmem
from agentmem.cli import log_command
from agentmem.cli.call import Call
from agentmem.cli.graph import drawn, plain
from agentmem.model import Commit
from tests.cli.program import Program, on_terminal, streaming, without_colours

TIMEOUT_S = 60


@pytest.fixture
def told(store: agentmem.Store) -> agentmem.Store:
    """A store with commits by several agents, with metadata."""
    store.put("a", 1, agent="ann", metadata={"run": "r1", "n": 1})
    store.put("b", 1, agent="bo", namespace="team", metadata={"run": "r2", "n": 1.0})
    store.put("c", 1, agent="bo", metadata={"run": "7"})
    store.audit.tag("then", at=2)
    return store


@pytest.mark.parametrize(
    ("options", "revisions"),
    [
        (("--oldest-first",), [1, 2, 3]),
        (("--metadata", "run=r2"), [2]),
        (("--metadata", "n=1"), [1]),
        (("--metadata", "run=r1", "--metadata", "n=1"), [1]),
        (("--metadata", "run=r1", "--metadata", "n=2"), []),
        (("--metadata", 'run="7"'), [3]),
        (("--metadata", "run=7"), []),
        (("--where", '{"n": {"$gte": 1}}'), [2, 1]),
        (("--at", "then"), [2, 1]),
        (("--at", "2", "--upto", "1"), [1]),
        (("--since", "2020-01-01T00:00:00Z"), [3, 2, 1]),
        (("--until", "2020-01-01T00:00:00+02:00"), []),
        (("--since", "2999-01-01T00:00:00Z"), []),
        (("--agent", "bo", "-n", "team"), [2]),
    ],
)
def test_log_is_narrowed_by_every_option(
    program: Program, told: agentmem.Store, options: tuple[str, ...], revisions: list[int]
) -> None:
    assert [each["revision"] for each in program.document("log", *options)] == revisions


def test_what_cannot_be_asked_for_is_one_line(program: Program, told: agentmem.Store) -> None:
    assert "NAME=VALUE" in program.fails(2, "log", "--metadata", "run")
    assert "twice" in program.fails(2, "log", "--metadata", "n=1", "--metadata", "n=2")
    assert "time zone" in program.fails(6, "log", "--since", "2026-01-31")
    assert "--until" in program.fails(6, "log", "--until", "2026-99-31")
    assert "no tag" in program.fails(6, "log", "--at", "nowhere")
    assert "leave" in program.fails(2, "log", "--follow", "--graph")
    assert "newest first" in program.fails(2, "log", "--graph", "--oldest-first")


# The graph.


def commit(revision: int, base: int | None = None, *, merged: bool = False) -> Commit:
    merges = (((), "k"),) if merged else ()
    base = revision - 1 if base is None else base
    return Commit(revision, None, None, None, None, {}, base, (), merges)


def pieces(*commits: Commit) -> list[str]:
    return [f"{piece} {each.revision}" for piece, each in drawn(commits)]


def test_a_graph_draws_what_ran_beside_what() -> None:
    assert pieces(commit(9, 6, merged=True), commit(8, 5), commit(7), commit(6), commit(5)) == [
        "M─┐ 9",
        "*─│─┐ 8",
        "* │ │ 7",
        "*─┘ │ 6",
        "*───┘ 5",
    ]


def test_a_column_is_used_again_and_bends_may_meet() -> None:
    assert pieces(
        commit(9, 7), commit(8, 5), commit(7, 5), commit(6), commit(5, 3), commit(4), commit(3)
    ) == [
        "*─┐ 9",
        "*─│─┐ 8",
        "*─┤ │ 7",
        "* │ │ 6",
        "*─┼─┘ 5",
        "* │ 4",
        "*─┘ 3",
    ]


def test_a_branch_whose_beginning_is_not_shown_ends_where_it_would() -> None:
    assert pieces(commit(9, 5), commit(8), commit(2)) == ["*─┐ 9", "* │ 8", "*─┘ 2"]
    assert pieces(commit(9, 5), commit(8)) == ["*─┐ 9", "* │ 8"]


def test_a_graph_has_no_more_branches_than_can_be_read() -> None:
    shown = pieces(*(commit(revision, 0) for revision in range(40, 1, -1)))
    assert max(map(len, shown)) == 1 + 2 * 12 + 3


def test_a_graph_can_be_drawn_in_ascii() -> None:
    assert plain("M─┐│┘┴┬┤┼") == "M-.|'++++"
    assert plain("*─│─┐").isascii()


@pytest.fixture
def raced(store: agentmem.Store) -> agentmem.Store:
    """Transactions that ran beside others, one of them merged."""
    store.set_merge("notes/**", "union")
    store.put("trip", ["museum"], namespace="notes", agent="ann")
    slow = store.transaction(agent="planner", note="took its time")
    slow.put("trip", ["museum", "opera"], namespace="notes")
    store.put("trip", ["beach", "museum"], namespace="notes", expected_version=1, agent="bo")
    store.put("x", 1)
    slow.commit()
    return store


def test_log_draws_the_graph(program: Program, raced: agentmem.Store) -> None:
    lines = program.ok("log", "--graph").splitlines()
    assert [line.split("  ")[0] for line in lines] == ["M─┐", "* │", "* │", "*─┘"]
    assert lines[0].endswith(
        "planner  put notes/trip@3 (merged: union)  took its time  (from 1, beside 2 others)"
    )
    assert program.ok("log", "--graph", "--limit", "0") == ""
    assert program.document("log", "--graph") == program.document("log")
    assert len(program.ok("log", "--graph", "--agent", "planner").splitlines()) == 1


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_line_of_the_graph_is_one_line_of_the_terminal(
    path: Path, raced: agentmem.Store, columns: int
) -> None:
    raced.put("long" * 100, 1, note="n\x1b[2J\u202e" * 100)
    code, shown = on_terminal("log", "--graph", "--store", str(path), COLUMNS=str(columns))
    lines = without_colours(shown).splitlines()
    assert (code, len(lines)) == (0, 5)
    assert max(map(len, lines)) <= columns
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown


def test_a_long_graph_is_read_page_by_page(
    program: Program, store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_command, "_PAGE", 3)
    for number in range(10):
        store.put("k", number, overwrite=True)
    for limit in (0, 1, 3, 4, 9, 10, 11):
        assert len(program.ok("log", "--graph", "--limit", str(limit)).splitlines()) == min(
            limit, 10
        )
    assert len(program.ok("log", "--graph").splitlines()) == 10


# Following.


def following(path: Path, *options: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return streaming("log", "--follow", "--store", str(path), *options)


def next_line(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().decode()


def test_follow_shows_the_past_then_what_comes_and_ends_with_ctrl_c(
    path: Path, told: agentmem.Store
) -> None:
    with following(path, "--limit", "2") as child:
        assert [next_line(child).split()[0] for _line in range(2)] == ["2", "3"]
        told.put("d", 1, agent="eva", note="new")
        assert next_line(child).split()[2:] == ["eva", "put", "d@1", "new"]
        told.put("e", 1)
        assert next_line(child).split()[0] == "5"
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=TIMEOUT_S)
        assert (child.returncode, out, errors) == (0, b"", b"")


def test_follow_narrows_and_prints_a_document_a_line(path: Path, told: agentmem.Store) -> None:
    with following(path, "--json", "--agent", "bo", "--after", "2") as child:
        assert json.loads(next_line(child))["revision"] == 3
        told.put("d", 1, agent="ann")
        told.put("e", 1, agent="bo")
        assert json.loads(next_line(child))["revision"] == 5


def test_a_reader_that_goes_away_ends_following(path: Path, told: agentmem.Store) -> None:
    with following(path) as child:
        next_line(child)
        assert child.stdout is not None
        child.stdout.close()
        told.put("d", 1)
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait(TIMEOUT_S) == 141


def struck_after(
    looks: int, monkeypatch: pytest.MonkeyPatch, between: Callable[[], None]
) -> list[float]:
    """Has something done whenever the command sleeps, and Ctrl-C struck at the last of so many."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == looks:
            raise KeyboardInterrupt
        between()

    monkeypatch.setattr(log_command, "_PAGE", 2)
    monkeypatch.setattr("agentmem.coordination.waking.time.sleep", sleep)
    return pauses


def followed(program: Program, *options: str) -> list[int]:
    lines = program.ok("log", "--follow", "--json", *options).splitlines()
    return [json.loads(line)["revision"] for line in lines]


def test_following_shows_more_than_a_page_between_two_looks_once_and_in_order(
    program: Program, told: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def between() -> None:
        for number in range(5):
            told.put("k", number, overwrite=True)

    pauses = struck_after(3, monkeypatch, between)

    assert followed(program) == list(range(1, 14))
    assert min(pauses) > 0


def test_following_one_namespace_leaves_out_what_others_hold(
    program: Program, told: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def between() -> None:
        told.put("k", 1, namespace="other", overwrite=True)
        told.put("k", 1, namespace="mine/below", overwrite=True)

    struck_after(3, monkeypatch, between)

    assert followed(program, "-n", "mine") == [5, 7]


def test_following_goes_on_over_what_was_compacted_meanwhile(
    program: Program, store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def between() -> None:
        for number in range(4):
            store.put("k", number, overwrite=True)
        store.admin.compact(keep_revision=store.revision)

    struck_after(3, monkeypatch, between)

    assert followed(program) == list(range(1, 9))
    assert store.admin.stats()["floor"] == 8


def test_following_misses_nothing_that_comes_while_it_shows_the_past(
    program: Program, told: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = log_command._tell

    def slowly(call: Call, commits: Iterator[Commit]) -> None:
        if told.revision == 3:
            told.put("k", 1)
        tell(call, commits)

    monkeypatch.setattr(log_command, "_tell", slowly)
    struck_after(1, monkeypatch, lambda: None)

    assert followed(program) == [1, 2, 3, 4]
