"""The library does not pay for the command line, and the command line starts the right way."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import agentmem
from tests.cli.program import run

ROOT = Path(__file__).resolve().parents[2]


def test_the_library_imports_neither_typer_nor_rich() -> None:
    code = (
        "import agentmem, agentmem.cli, sys\n"
        "print(sorted({'typer', 'click', 'rich'} & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_help_and_plain_output_do_without_rich(path: Path) -> None:
    code = (
        "import sys, agentmem.cli\n"
        "try:\n"
        "    agentmem.cli.main()\n"
        "finally:\n"
        "    print('rich.console' in sys.modules)\n"
    )
    for arguments in (("--help",), ("list", "--store", str(path))):
        assert run(*arguments, script=code).stdout.endswith("False\n")


@pytest.mark.parametrize("module", ["agentmem", "agentmem.cli"])
def test_both_modules_can_be_run(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"agentmem {agentmem.__version__}\n"


def test_the_installed_command_is_main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"agentmem": "agentmem.cli:main"}
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: agentmem [OPTIONS] COMMAND")
