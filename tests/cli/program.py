"""Runs ``agentmem`` for tests: in this process, in another, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from typer.testing import CliRunner, Result

from agentmem.cli.app import app

__all__ = [
    "Program", "answering", "environment", "on_terminal", "run", "start", "streaming",
    "without_colours",
]  # fmt: skip

_TIMEOUT_S: Final = 120
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class Program:
    """The command line in this process, on one store."""

    def __init__(self, store: Path | str) -> None:
        self.store = store

    def __call__(self, *arguments: str, stdin: str | bytes | None = None, **env: str) -> Result:
        """Runs a command; a bug in it raises here."""
        shown = {"AGENTMEM_STORE": str(self.store), "AGENTMEM_AGENT": None, **env}
        return CliRunner().invoke(app, arguments, input=stdin, env=shown, catch_exceptions=False)

    def ok(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """The output of a command that must do, and say nothing else."""
        result = self(*arguments, stdin=stdin)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    def document(self, *arguments: str) -> Any:
        """The JSON document that a command prints."""
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, code: int, *arguments: str, stdin: str | bytes | None = None) -> str:
        """The one line that a command fails with."""
        result = self(*arguments, stdin=stdin)
        assert (result.exit_code, result.stdout) == (code, "")
        return one_line(result.stderr)


def one_line(stderr: str) -> str:
    """A message of the program, without its name."""
    assert stderr.startswith("agentmem: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1
    return stderr.removeprefix("agentmem: ").rstrip("\n")


def environment(**changes: str) -> dict[str, str]:
    """The environment of a child, without what would change its answers."""
    # Unbuffered output fails at once, and would hide what happens when it is flushed too late.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AGENTMEM_") and name != "PYTHONUNBUFFERED"
    }
    return kept | {"COLUMNS": "200", "TERM": "xterm-256color", "PYTHONWARNINGS": "error"} | changes


def start(
    *arguments: str, script: str | None = None, **streams: int | IO[Any]
) -> subprocess.Popen[bytes]:
    """A child that runs a command; with `script`, a program that calls ``main()`` itself."""
    how = ("-m", "agentmem") if script is None else ("-c", script)
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL, **streams}
    return subprocess.Popen([sys.executable, *how, *arguments], env=environment(), **given)


@contextmanager
def streaming(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child whose output is read while it runs; killed at the end."""
    child = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def run(
    *arguments: str, script: str | None = None, stdin: bytes | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own."""
    how = ("-m", "agentmem.cli") if script is None else ("-c", script)
    done = subprocess.run(
        [sys.executable, *how, *arguments],
        input=stdin or b"",
        capture_output=True,
        env=environment(**env),
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert b"Traceback" not in done.stderr or script is not None
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def on_terminal(*arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and whole output, errors included, of a command on a terminal of its own."""
    return answering(None, *arguments, **env)


def answering(answers: str | None, *arguments: str, **env: str) -> tuple[int, str]:
    """As `on_terminal`, with what a person types; None: nobody sits at the keyboard."""
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "agentmem", *arguments],
            stdin=subprocess.DEVNULL if answers is None else theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(**env),
        )
        if answers is not None:
            os.write(ours, answers.encode())
        os.close(theirs)
        shown = _all_of(ours)
        return child.wait(_TIMEOUT_S), shown.decode().replace("\r\n", "\n")
    finally:
        os.close(ours)


def _all_of(terminal: int) -> bytes:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:  # Linux tells so that the other side was closed
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def without_colours(text: str) -> str:
    """A terminal's output without colours, which alone may be escape sequences."""
    return _COLOUR.sub("", text)
