"""Fenced blocks of a Markdown document, and how they are run.

The convention, for README.md, everything in ``docs/`` and ``examples/README.md``:

* ``python`` blocks run in order, in one namespace for each document, in a temporary folder that
  is the working directory. Warnings are errors.
* A ``text`` block directly after a ``python`` block (blank lines between are allowed) is what
  the block printed, exactly. A ``python`` block that prints has one. Any other ``text`` block
  is a picture, and nothing is promised for it.
* ``console`` blocks run in a real shell in the same folder, with the commands of this
  environment on PATH. A line ``$ command`` is a command, which goes on while lines end with
  ``\\``; what follows it is its output, standard error included. Variables and the folder that
  ``cd`` chose live until the block ends. A command that fails must be followed by
  ``$ echo $?``.
* ``sh`` blocks tell how to install or set up; they are not run, and may hold nothing else.
* No other language is allowed, so that no block can be forgotten.

A document whose ``python`` or ``console`` blocks name ``db.example.com`` is run beside a PostgreSQL
server that answers to it, see `tests.docs.server`.

The temporary folder holds a link to ``examples``. Two things change from run to run and are
compared by their shape alone, see `VARYING`: times, random ids and hashes in hexadecimal.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.docs.server import HOSTS, DocumentServer, document_server

__all__ = ["LANGUAGES", "VARYING", "Block", "DocumentError", "blocks_of", "run", "shape_of"]

LANGUAGES: Final = ("python", "text", "console", "sh")

VARYING: Final = (
    (
        re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|UTC|[+-]\d\d:\d\d))?"),
        "<time>",
    ),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<hash>"),
)

ROOT: Final = Path(__file__).resolve().parents[2]

_FENCE: Final = re.compile(r"```(\S*)\s*")
_TIMEOUT_S: Final = 240
_SEPARATOR: Final = "~~~ the next command ~~~"


class DocumentError(AssertionError):
    """A document promises something else than what happens."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        language: what stands behind the opening fence.
        line: the number of its first line of content, from 1.
        content: without the fences, each line ended by a newline.
        follows: the language of the block before it, if only blank lines lie between.
    """

    language: str
    line: int
    content: str
    follows: str | None = None


def blocks_of(document: str) -> list[Block]:
    """The fenced blocks of a document, in order.

    Raises:
        DocumentError: a fence is not closed.
    """
    found: list[Block] = []
    lines = document.splitlines(keepends=True)
    follows: str | None = None
    index = 0
    while index < len(lines):
        opening = _FENCE.fullmatch(lines[index].rstrip("\n"))
        if opening is None:
            follows = follows if not lines[index].strip() else None
            index += 1
            continue
        start = index = index + 1
        while index < len(lines) and lines[index].rstrip() != "```":
            index += 1
        if index == len(lines):
            raise DocumentError(f"line {start}: the fence is not closed")
        block = Block(opening[1], start + 1, "".join(lines[start:index]), follows)
        found.append(block)
        follows = block.language
        index += 1
    return found


def shape_of(text: str) -> str:
    """A text with what varies replaced, and without white space at the ends of lines."""
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def run(path: Path, folder: Path) -> None:
    """Runs all blocks of a document in a folder.

    Raises:
        DocumentError: a block does not do what the document says.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    blocks = blocks_of(path.read_text(encoding="utf-8"))
    with _place_of(blocks) as server, _namespace() as names, contextlib.chdir(folder):
        for index, block in enumerate(blocks):
            where = f"{path.name}, line {block.line}"
            if block.language == "python":
                after = blocks[index + 1] if index + 1 < len(blocks) else None
                shown = after is not None and (after.language, after.follows) == ("text", "python")
                printed = _run_python(block, path, names, server)
                _compare(where, after.content if after is not None and shown else "", printed)
            elif block.language == "console":
                _run_console(block, folder, where, server)
            elif block.language not in LANGUAGES:
                raise DocumentError(
                    f"{where}: language {block.language!r} is not one of {LANGUAGES}"
                )


def _place_of(blocks: list[Block]) -> contextlib.AbstractContextManager[DocumentServer | None]:
    run = "".join(block.content for block in blocks if block.language in ("python", "console"))
    if any(host in run for host in HOSTS):
        return document_server()
    return contextlib.nullcontext()


@contextlib.contextmanager
def _namespace() -> Iterator[dict[str, object]]:
    # A module of its own, where classes that a document defines can be found by their name.
    module = ModuleType("document")
    sys.modules[module.__name__] = module
    try:
        yield module.__dict__
    finally:
        del sys.modules[module.__name__]
        for each in list(module.__dict__.values()):
            if type(each).__name__ == "Store":
                each.close()


def _run_python(
    block: Block, path: Path, names: dict[str, object], server: DocumentServer | None
) -> str:
    # The empty lines make tracebacks name the line of the document.
    source = "\n" * (block.line - 1) + block.content
    if server is not None:
        source = server.reached(source)
    code = compile(source, str(path), "exec", dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)  # noqa: S102  # running documents is what this module is for
    return server.shown(printed.getvalue()) if server is not None else printed.getvalue()


def _run_console(block: Block, folder: Path, where: str, server: DocumentServer | None) -> None:
    commands = _commands(block, where)
    script = "".join(
        f"{command}\n__status=$?\nprintf '\\n%s %s\\n' '{_SEPARATOR}' $__status\n(exit $__status)\n"
        for command, _output in commands
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("AGENTMEM_")
    }
    # Wide, plain and without a terminal: as the output of a pipe.
    environment |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "TZ": "UTC"}
    environment["PYTHONWARNINGS"] = "error"
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    if server is not None:
        script = server.reached(script)
        # Before those of the system, which may be too old for the server.
        environment["PATH"] = f"{server.programs}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["/bin/sh"],
        input=script,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    output = server.shown(done.stdout) if server is not None else done.stdout
    answers = re.split(rf"\n{_SEPARATOR} (\d+)\n", output)
    for index, (command, promised) in enumerate(commands):
        if 2 * index + 1 >= len(answers):
            raise DocumentError(f"{where}: the shell ended at $ {command}:\n{output}")
        printed, status = answers[2 * index], answers[2 * index + 1]
        _compare(f"{where}: $ {command}", promised, printed)
        told = index + 1 < len(commands) and commands[index + 1][0] == "echo $?"
        if status != "0" and not told:
            raise DocumentError(f"{where}: $ {command} exits with {status}; show it with $ echo $?")


def _commands(block: Block, where: str) -> list[tuple[str, str]]:
    """(command, output) of each command."""
    found: list[tuple[str, str]] = []
    continued = False
    for line in block.content.splitlines(keepends=True):
        if continued:
            found[-1] = (found[-1][0] + "\n" + line.rstrip("\n"), "")
        elif line.startswith("$ "):
            found.append((line[2:].rstrip("\n"), ""))
        elif not found:
            raise DocumentError(f"{where}: a transcript begins with $ and a command")
        else:
            found[-1] = (found[-1][0], found[-1][1] + line)
            continue
        continued = line.rstrip("\n").endswith("\\")
    return found


def _compare(where: str, promised: str, printed: str) -> None:
    if shape_of(promised) != shape_of(printed):
        raise DocumentError(
            f"{where}\n--- the document shows:\n{promised}\n--- but this was printed:\n{printed}"
        )
