"""Tables fit the terminal and can be read, whatever stands in them."""

from __future__ import annotations

import io
import random
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
from agentmem.cli import output
from agentmem.cli.asking import confirm
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.layout import aligned, folded, shared_widths, shortened, width_of
from agentmem.cli.output import Branch, Output
from agentmem.cli.styles import has_colours
from tests.cli.program import Program, on_terminal, without_colours

WORDS: Final = ("a", "plan", "team/alice", "日本語", "👩\u200d👩\u200d👧", "e\u0301", "x" * 30)


@pytest.fixture
def texts(seed: int) -> list[str]:
    """Texts of all lengths, with wide, joined and combining characters."""
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=chosen.randrange(1, 30))) for _ in range(300)]


def test_folded_lines_fit_and_hold_the_whole_text(texts: list[str]) -> None:
    for text in texts:
        for width in (2, 7, 16, 80):
            lines = folded(text, width)
            assert all(width_of(line) <= width for line in lines)
            assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_words_are_kept_whole_where_they_fit() -> None:
    assert folded("put team/alice/plan@2, put x@1", 21) == ["put", "team/alice/plan@2,", "put x@1"]


def test_a_text_of_too_many_lines_tells_how_long_it_is(texts: list[str]) -> None:
    for text in texts:
        lines = folded(text, 24, 2)
        assert len(lines) <= 2
        assert all(width_of(line) <= 24 for line in lines)
        if folded(text, 24) != lines:
            assert lines[-1].endswith(f"… ({len(text)} characters)")
    assert shortened("abcdef", 3) == "abc… (6 characters)"
    assert shortened("abc", 3) == "abc"


def test_a_table_fits_and_short_cells_stay_whole(seed: int, texts: list[str]) -> None:
    chosen = random.Random(seed)
    fitting = 0
    for _ in range(200):
        rows = [[*chosen.sample(texts, 3), "2026-11-23T20:05:38Z", "7"] for _ in range(5)]
        for total in (40, 80, 200):
            widths = shared_widths(rows, total)
            if widths is not None:
                fitting += 1
                assert sum(widths) + 2 * (len(widths) - 1) <= total
                assert widths[3:] == [20, 1]
                assert min(widths[:3]) >= 1
    assert fitting >= 200


def test_a_long_name_does_not_take_the_room_of_the_values() -> None:
    rows = [["bo", "v" * 90]] * 9 + [["n" * 50, "v" * 90]]
    widths = shared_widths(rows, 80)
    assert widths is not None
    assert widths[1] > 3 * widths[0]


def test_columns_that_cannot_be_read_are_not_made() -> None:
    assert shared_widths([["x" * 100] * 7], 80) is None
    assert shared_widths([["2026-11-23T20:05:38Z"] * 4], 80) is None
    assert shared_widths([["2026-11-23T20:05:38Z"] * 3], 80) == [20, 20, 20]


def test_one_long_cell_does_not_push_the_columns_of_a_pipe_away() -> None:
    text = aligned([["key", "version"], ["k" * 300, "1"], ["日本", "2"]])
    assert text == f"key   version\n{'k' * 300}  1\n日本  2\n"


def test_no_line_of_a_table_is_wider_than_the_terminal(
    program: Program, path: Path, store: agentmem.Store, texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for index, text in enumerate(texts[:20]):
        store.put(f"{index} {text}", {text: [text]}, namespace="国際/x", agent=text, note=text)
    store.put("k" * 500, 1)
    monkeypatch.setattr(output, "is_terminal", lambda _stream: True)
    for arguments in (("log",), ("list",), ("list", "-n", "国際/x", "--limit", "1")):
        for columns in (40, 80, 200):
            shown = program(*arguments, COLUMNS=str(columns)).stdout
            assert max(map(width_of, shown.splitlines())) <= columns
            if columns == 80:
                real = on_terminal("--store", str(path), *arguments, COLUMNS="80")[1]
                assert without_colours(real) == shown


def test_rows_become_blocks_where_columns_do_not_fit(path: Path, store: agentmem.Store) -> None:
    store.set_merge("**", "escalate")
    for version, value in ((0, 1), (1, 2), (1, 3)):
        store.put("plan", value, expected_version=version, namespace="team/alice")
    shown = without_colours(on_terminal("--store", str(path), "conflicts", COLUMNS="80")[1])
    assert "\nstatus     open\n" in shown
    shown = without_colours(on_terminal("--store", str(path), "conflicts", COLUMNS="200")[1])
    assert shown.splitlines()[0].startswith("id  time")


def test_a_person_is_told_that_there_is_nothing_and_a_pipe_gets_nothing(
    program: Program, path: Path
) -> None:
    assert program.ok("list") == ""
    assert "nothing" in on_terminal("--store", str(path), "list")[1]


def test_a_value_is_shown_indented_to_a_person(path: Path, store: agentmem.Store) -> None:
    store.put("plan", {"days": 3})
    _code, shown = on_terminal("--store", str(path), "show", "plan@1")
    assert 'value      {\n             "days": 3\n           }\n' in without_colours(shown)


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_no_colours_without_a_terminal_that_has_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[31m" in on_terminal("--store", str(path), "get", "absent")[1]
    assert "\x1b" not in on_terminal("--store", str(path), "get", "absent", NO_COLOR="1")[1]
    for env, expected in (({}, True), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)):
        for name, value in ({"NO_COLOR": "", "TERM": "xterm"} | env).items():
            monkeypatch.setenv(name, value)
        assert has_colours(Terminal()) == expected
        assert not has_colours(io.StringIO())
    assert not has_colours(None)


def _tree(**branches: Any) -> list[Branch]:
    return [Branch(text, None, _tree(**below)) for text, below in branches.items()]


def test_a_tree_shows_what_hangs_on_what(capsys: pytest.CaptureFixture[str]) -> None:
    root = Branch("plan@2", None, _tree(a={"b": {"c": {}}, "d": {}}, e={"f": {}}))
    Output(json=False).tree(root)
    assert capsys.readouterr().out == (
        "plan@2\n├── a\n│   ├── b\n│   │   └── c\n│   └── d\n└── e\n    └── f\n"
    )


def test_a_tree_may_be_deeper_than_the_stack(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_can_print", lambda _text: False)
    root = Branch("0")
    branch = root
    for depth in range(1, 3_000):
        branch.branches.append(Branch(str(depth)))
        branch = branch.branches[0]
    Output(json=False).tree(root)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3_000
    assert lines[2] == "    `-- 2"


def test_nobody_to_ask_is_no_yes(capsys: pytest.CaptureFixture[str]) -> None:
    confirm("Erase 'plan'?", yes=True)
    with pytest.raises(CommandError, match=r"Erase 'plan'\?.*nobody can be asked.*--yes") as caught:
        confirm("Erase 'plan'?", yes=False)
    assert caught.value.code == ExitCode.USAGE
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("typed", "done"),
    [("y\n", True), ("what?\nYES\n", True), ("\n", False), ("n\n", False), ("x\nx\nx\n", False)],
)
def test_only_a_yes_is_a_yes(monkeypatch: pytest.MonkeyPatch, typed: str, done: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stderr", Terminal())
    with nullcontext() if done else pytest.raises(CommandError, match="nothing was done"):
        confirm("Erase '\x1b[2J'?", yes=False)
    assert "Erase '\\u001b[2J'? [y/N] " in sys.stderr.getvalue()  # type: ignore[attr-defined]  # a Terminal
