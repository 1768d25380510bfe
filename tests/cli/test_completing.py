"""Completion, in the shells that are there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.program import Program
from tests.cli.test_documentation import COMMANDS

_ASK = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_agentmem
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(program: Program, tmp_path: Path) -> Path:
    path = tmp_path / "agentmem.bash"
    path.write_text(program.ok("completions", "bash"))
    return path


def completed(script: Path, words: str) -> list[str]:
    """What bash offers for the last of the words."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    asked = _ASK.format(script=script, words=words)
    done = subprocess.run([bash, "--norc", "-c", asked], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("agentmem ba", ["backup"]),
        ("agentmem --store backup.db ex", ["export"]),
        ("agentmem --js", ["--json"]),
        ("agentmem --json hist", ["history"]),
        ("agentmem merge ''", ["set", "list", "unset"]),
        ("agentmem merge set --js", ["--json"]),
        ("agentmem get plan --a", ["--at"]),
        ("agentmem -n get put --exp", ["--expected-version"]),
        ("agentmem import --ex", ["--existing"]),
        ("agentmem nothing", []),
    ],
)
def test_bash_completes(script: Path, words: str, offered: list[str]) -> None:
    assert completed(script, words) == offered


def test_every_command_is_offered(script: Path) -> None:
    offered = completed(script, "agentmem ''")
    assert {name.split()[0] for name in COMMANDS} <= set(offered)
    for name, found in COMMANDS.items():
        options = {each for param in found.params for each in param.opts if each.startswith("-")}
        assert options <= set(completed(script, f"agentmem {name} -"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_take_their_scripts(program: Program, tmp_path: Path, shell: str) -> None:
    text = program.ok("completions", shell)
    assert program.document("completions", shell) == {"shell": shell, "script": text}
    for name in COMMANDS:
        assert name.split()[-1] in text
    if (program_of_it := shutil.which(shell)) is None:
        pytest.skip(f"there is no {shell} here")
    path = tmp_path / "script"
    path.write_text(text)
    how = "--no-execute" if shell == "fish" else "-n"
    subprocess.run([program_of_it, how, str(path)], check=True)


def test_another_shell_is_refused(program: Program) -> None:
    assert "bash, zsh, fish, not tcsh" in program.fails(2, "completions", "tcsh")


def test_the_script_is_json_only_if_asked(program: Program) -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(program.ok("completions", "fish"))
