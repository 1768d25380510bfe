"""What is in a store is never taken for markup, and plays no tricks on a terminal."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

import agentmem
from agentmem.cli.output import as_json, printable
from tests.cli.program import Program, on_terminal, without_colours

HOSTILE = "[bold red]x[/] :boom: \x1b]0;owned\x07\x1b[2J \u202egnp.exe \x9b31m\r\ntwo\tparts\u2028 "


@pytest.fixture
def hostile(store: agentmem.Store) -> agentmem.Store:
    """A store in which every text is hostile."""
    store.set_merge("**", "escalate")
    for version, value in ((0, 1), (1, {HOSTILE: [HOSTILE]}), (1, HOSTILE)):
        store.put(
            HOSTILE,
            value,
            namespace=(HOSTILE,),
            expected_version=version,
            agent=HOSTILE,
            op_id=f"{version}{value}",
            note=HOSTILE,
        )
    store.audit.tag(HOSTILE, note=HOSTILE)
    return store


PRINTING = (
    ("list",),
    ("log",),
    ("history", HOSTILE, "-n", json.dumps([HOSTILE])),
    ("show", f"{HOSTILE}@2", "-n", json.dumps([HOSTILE])),
    ("diff", HOSTILE, "1", "2", "-n", json.dumps([HOSTILE])),
    ("get", HOSTILE, "-n", json.dumps([HOSTILE])),
    ("conflicts",),
    ("tags",),
)


def tricks(text: str) -> set[str]:
    """The characters of a text that are no plain ones."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}


@pytest.mark.parametrize("arguments", PRINTING, ids=lambda arguments: arguments[0])
def test_every_command_prints_hostile_texts_harmlessly(
    program: Program, hostile: agentmem.Store, arguments: tuple[str, ...]
) -> None:
    out = program.ok(*arguments)
    assert not tricks(out)
    assert "[bold red]x[/]" in out
    rows = {"list": 2, "log": 4, "history": 4, "diff": 1, "get": 1, "conflicts": 2, "tags": 2}
    if arguments[0] in rows:
        assert out.count("\n") == rows[arguments[0]]


@pytest.mark.parametrize("arguments", PRINTING, ids=lambda arguments: arguments[0])
def test_json_gives_hostile_texts_back_exactly(
    program: Program, hostile: agentmem.Store, arguments: tuple[str, ...]
) -> None:
    out = program.ok(*arguments, "--json")
    assert not tricks(out)
    assert out.count("\n") == 1
    assert HOSTILE in _texts(json.loads(out))


def _texts(document: object) -> set[str]:
    if isinstance(document, str):
        return {document}
    if isinstance(document, dict):
        document = [*document, *document.values()]
    return {t for part in document for t in _texts(part)} if isinstance(document, list) else set()


@pytest.mark.parametrize("arguments", PRINTING[::2], ids=lambda arguments: arguments[0])
def test_a_terminal_shows_hostile_texts_literally(
    path: Path, hostile: agentmem.Store, arguments: tuple[str, ...]
) -> None:
    code, shown = on_terminal("--store", str(path), *arguments, COLUMNS="2000")
    assert code == 0
    assert not tricks(without_colours(shown))
    assert "[bold red]x[/] :boom:" in without_colours(shown)


def test_errors_and_warnings_are_one_harmless_line(program: Program) -> None:
    program.ok("put", "k", "1", "--agent", HOSTILE)
    blind = program("put", "k", "2")
    assert (blind.exit_code, blind.stderr.count("\n")) == (0, 1)
    for line in (blind.stderr, program.fails(1, "get", HOSTILE), program.ok("put", HOSTILE, "1")):
        assert not tricks(line)
        assert "[bold red]" in line


def test_a_string_is_given_exactly_to_a_pipe_and_harmlessly_to_a_terminal(
    program: Program, path: Path, store: agentmem.Store
) -> None:
    store.put("k", HOSTILE)
    assert program("get", "k", "-s").stdout_bytes == HOSTILE.encode()
    code, shown = on_terminal("--store", str(path), "get", "k", "-s")
    assert code == 0
    assert not tricks(shown) - {"\t"}
    assert "two\tparts" in shown


def test_a_terminal_gets_colours_and_a_pipe_none(
    program: Program, path: Path, store: agentmem.Store
) -> None:
    store.put("plan", {"days": 3})
    for arguments in (("list",), ("get", "plan"), ("diff", "plan", "0", "1"), ("log",)):
        code, shown = on_terminal("--store", str(path), *arguments)
        assert code == 0
        assert "\x1b[" in shown
        assert "days" in shown or "plan" in shown
        assert "\x1b" not in program.ok(*arguments)
        assert "\x1b[3" not in on_terminal("--store", str(path), *arguments, NO_COLOR="1")[1]


def test_a_long_value_is_shortened_only_in_a_terminals_table(
    program: Program, path: Path, store: agentmem.Store
) -> None:
    store.put("k", "x" * 5_000)
    _code, shown = on_terminal("--store", str(path), "list")
    assert "(5002 characters)" in shown
    assert shown.count("x") < 1_000
    _code, shown = on_terminal("--store", str(path), "get", "k")
    assert "x" * 5_000 in shown.replace("\n", "")


def test_verify_works_on_a_terminal(path: Path, store: agentmem.Store) -> None:
    store.put("k", 1)
    code, shown = on_terminal("--store", str(path), "verify")
    assert code == 0
    assert "ok: 1 commit, 1 entry, up to revision 1" in shown


def test_json_for_a_terminal_is_indented(path: Path, store: agentmem.Store) -> None:
    store.put("k", {"a": [1]})
    code, shown = on_terminal("--store", str(path), "get", "k", "--json")
    assert code == 0
    assert json.loads(shown)["value"] == {"a": [1]}
    assert '\n  "key": "k"' in shown


def test_escapes_leave_the_meaning_of_json_alone() -> None:
    for code in [*range(0x300), *range(0x2000, 0x2070), 0xD800, 0xE0041, 0x1F600]:
        character = chr(code)
        assert json.loads(as_json({character: [character]})) == {character: [character]}


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Zoë 日本語 👩\u200d👩\u200d👧 a\\b “quoted” …"
    assert printable(text) == text
