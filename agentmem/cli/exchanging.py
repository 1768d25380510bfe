"""A store out and back in: backup, export, import."""

from __future__ import annotations

import sys
from typing import Annotated, BinaryIO, Final, cast

import typer

from agentmem.cli.arguments import parse_at
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import AgentOption, AtOption, NoteOption
from agentmem.cli.output import counted, stages_bar
from agentmem.cli.shapes import backup_document, exported_document, loaded_document

__all__ = ["register"]

_STANDARD: Final = "-"
_EXISTING: Final = ("refuse", "keep", "replace")

_OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace FILE if it is there, unless it is in use.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, namespaced=False, example="agentmem backup backups/monday.db")(backup)
    command(app, namespaced=False, example="agentmem export team.jsonl.gz")(export)
    command(
        app,
        name="import",
        namespaced=False,
        creates=True,
        example="agentmem import team.jsonl.gz --store new.db",
    )(load)


def backup(
    call: Call,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The file to make.", show_default=False)
    ],
    overwrite: _OverwriteOption = False,
) -> None:
    """Write a verified copy into a new file, while agents write.

    The file is a store, of one revision. Whatever interrupts this leaves no FILE behind.
    """
    with stages_bar("copying") as progress:
        made = call.store.admin.backup(file, overwrite=overwrite, progress=progress)
    if call.out.json:
        call.out.document(backup_document(made))
        return
    call.out.line(
        f"{file}: revision {made.revision}, {counted(made.commits, 'commit')}, "
        f"{counted(made.entries, 'entry')}, verified"
    )


def export(
    call: Call,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Where to; compressed if it ends in .gz; - or nothing: standard output.",
            show_default=False,
        ),
    ] = _STANDARD,
    at: AtOption = None,
    overwrite: _OverwriteOption = False,
) -> None:
    """Write the history, or with --at one revision, as lines of JSON.

    `agentmem import` reads both back, into a file or a server.
    """
    moment = parse_at(at)
    if file == _STANDARD:
        if call.out.terminal:
            raise CommandError(
                ExitCode.USAGE, "name a FILE, or send the lines elsewhere: a terminal is no file"
            )
        call.store.admin.export(cast("BinaryIO", sys.stdout.buffer), at=moment)
        return
    with stages_bar("exporting") as progress:
        made = call.store.admin.export(file, at=moment, overwrite=overwrite, progress=progress)
    if call.out.json:
        call.out.document(exported_document(made))
        return
    commits = f"{counted(made.commits, 'commit')}, " if made.commits else ""
    entries = counted(made.entries, "entry")
    call.out.line(f"{file}: {made.kind} of revision {made.revision}, {commits}{entries}")


def load(
    call: Call,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="What to read; - is standard input.", show_default=False
        ),
    ],
    existing: Annotated[
        str,
        typer.Option(
            "--existing",
            metavar="WHAT",
            help="Of one revision: refuse, keep or replace keys that are there.",
        ),
    ] = _EXISTING[0],
    agent: AgentOption = None,
    note: NoteOption = None,
) -> None:
    """Load what `agentmem export` wrote; make the store if need be.

    A history goes into an empty store, one revision into any. The whole file is checked before
    anything is written, and the same file applies once.
    """
    if existing not in _EXISTING:
        raise CommandError(ExitCode.USAGE, "--existing is refuse, keep or replace")
    source: str | BinaryIO = file
    if file == _STANDARD:
        if sys.stdin is None:
            raise CommandError(ExitCode.USAGE, "- reads standard input, but it is closed")
        source = cast("BinaryIO", sys.stdin.buffer)
    with stages_bar("reading") as progress:
        done = call.store.admin.load(
            source, existing=existing, agent=agent, note=note, progress=progress
        )
    if call.out.json:
        call.out.document(loaded_document(done))
        return
    what = [f"{counted(done.entries, 'entry')} in {counted(done.commits, 'commit')}"]
    for number, name in ((done.kept, "kept"), (done.expired, "expired"), (done.repeated, "there")):
        if number:
            what.append(f"{number} {name}")
    call.out.line(f"{call.target}: {', '.join(what)}; now at revision {done.revision}")
