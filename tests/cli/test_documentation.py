"""docs/cli.md names every command, option, code and JSON name; tests/docs runs its examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

import agentmem
from agentmem.cli import shapes
from agentmem.cli.app import app
from agentmem.cli.failures import _MEANINGS
from agentmem.cli.panels import OTHER, panel_of
from tests.cli.program import Program

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
SHARED: Final = {"--store", "--namespace", "-n", "--json", "--timeout-s", "--help", "-h"}


def _commands(group: Any, *before: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *before, name)
        else:
            yield " ".join((*before, name)), command


COMMANDS: Final = dict(_commands(get_command(app)))


def _section(text: str, command: str) -> str:
    """The heading of a command, and what stands under it."""
    match = re.search(
        rf"^### `agentmem {command}(?![\w-])[^\n]*\n.*?(?=^##|\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert match is not None, f"docs/cli.md has no heading for agentmem {command}"
    return match[0]


@pytest.fixture(scope="module")
def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_heading_with_its_arguments_and_an_example(
    text: str, command: str
) -> None:
    heading = _section(text, command).splitlines()[0]
    for param in COMMANDS[command].params:
        if param.param_type_name == "argument":
            assert re.search(rf"\b{param.metavar}\b", heading), f"{heading} lacks {param.metavar}"
    assert re.search(rf"^(\$ (.* \| )?)?agentmem {command}(?![\w-])", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_described(text: str, command: str) -> None:
    section = _section(text, command)
    for param in COMMANDS[command].params:
        for option in param.opts if param.param_type_name == "option" else ():
            if option not in SHARED:
                assert re.search(rf"`{option}(?![\w-])", section), f"{command} {option}"


def test_no_option_is_described_that_is_not_there(text: str) -> None:
    for command, found in COMMANDS.items():
        own = {option for param in found.params for option in param.opts}
        described = set(re.findall(r"`(--?[a-z][\w-]*)", _section(text, command)))
        # A sentence about `--at` of other commands stands at the tag.
        assert described <= own | {"--at"}, command


def test_the_options_of_every_command_are_described(text: str) -> None:
    section = text.split("## Options of every command")[1].split("\n## ")[0]
    for param in get_command(app).params:
        for option in param.opts:
            assert f"`{option}" in section


def test_every_command_explains_itself_with_an_example() -> None:
    for name, command in COMMANDS.items():
        assert command.help, name
        assert command.epilog.startswith(f"Example: agentmem {name}"), name


def test_help_of_the_program_names_every_command_whole_under_its_heading(
    program: Program,
) -> None:
    shown = program.ok("--help")
    for name in COMMANDS:
        assert re.search(rf"^  {name.split()[0]} ", shown, re.MULTILINE)
        assert panel_of(name.split()[0]) != OTHER, f"give {name} a heading in cli/panels.py"
    listed = shown.split("  -h, --help")[1].split("Example:")[0]
    assert "..." not in listed
    assert re.findall(r"^(\w+):$", listed, re.MULTILINE)[:3] == ["Memory", "History", "Explain"]
    assert max(map(len, shown.splitlines())) <= 80
    assert "AGENTMEM_STORE" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_offers_json_and_fits_a_terminal(program: Program, command: str) -> None:
    assert any("--json" in param.opts for param in COMMANDS[command].params)
    for columns in ("80", "200"):
        shown = program(*command.split(), "--help", COLUMNS=columns).stdout
        assert f" {command} [OPTIONS]" in shown.splitlines()[0]
        assert max(map(len, shown.splitlines())) <= 80


READING: Final = ("get", "list", "count", "search", "export")


def test_what_reads_the_store_reads_it_as_it_was(program: Program) -> None:
    for name in READING:
        assert any("--at" in param.opts for param in COMMANDS[name].params), name


def test_every_command_is_run_by_a_test() -> None:
    own = Path(__file__)
    texts = [
        path.read_text(encoding="utf-8")
        for path in sorted(own.parent.glob("test_*.py"))
        if path != own
    ]
    for command in COMMANDS:
        words = r",\s*".join(f'"{word}"' for word in command.split())
        assert any(re.search(words, text) for text in texts), f"no test in tests/cli runs {command}"


def test_every_exit_code_is_in_the_document_and_in_the_help(program: Program, text: str) -> None:
    shown = program.ok("--help")
    for code, meaning in _MEANINGS.items():
        assert f"| {code.value} | {meaning} |" in text
        assert f"{code.value}  {meaning}" in shown


def test_every_name_in_json_is_described(
    program: Program, store: agentmem.Store, text: str
) -> None:
    store.put("k", 1)
    store.audit.tag("t")
    table = text.split("## Output")[1].split("## Exit codes")[0]
    described = set(re.findall(r"`(\w+)`", table))
    for command in (
        ("init",), ("get", "k"), ("log",), ("diff", "k", "0", "1"), ("tag", "u"), ("stats",),
        ("verify",), ("count",), ("search", "x"), ("index",),
    ):  # fmt: skip
        assert _names(program.document(*command)) <= described, command
    for code in (
        shapes.backup_document, shapes.commit_document, shapes.conflict_document,
        shapes.exported_document, shapes.loaded_document, shapes.contamination_document,
        shapes.lineage_document, shapes.race_document,
    ):  # fmt: skip
        constants = code.__code__.co_consts
        names = {n for each in constants if isinstance(each, tuple) for n in each}
        assert {n for n in names if isinstance(n, str)} <= described


def _names(document: Any) -> set[str]:
    if isinstance(document, list):
        return {name for each in document for name in _names(each)}
    if isinstance(document, dict):
        return set(document).union(*map(_names, document.values()))
    return set()
