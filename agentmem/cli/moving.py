"""Stores that move on: copy to another, migrate to what this agentmem knows."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from typer.core import TyperCommand

from agentmem.cli.call import (
    Shared,
    combined,
    is_there,
    limits_of,
    no_store,
    quiet_drivers,
)
from agentmem.cli.failures import CommandError, ExitCode, warnings_as_lines
from agentmem.cli.options import JsonOption, StoreOption, TimeoutOption
from agentmem.cli.output import Output, counted, stages_bar
from agentmem.cli.shapes import copy_document, migrations_document
from agentmem.cli.targets import shown
from agentmem.engines import migrations_of, open_engine
from agentmem.history.copy import CopyReport, Progress, copy_store

__all__ = ["register"]

_DURABILITY: Final = "full"


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    example = "agentmem copy team.db 'postgresql://host/db?store=team'"
    app.command("copy", cls=TyperCommand, epilog=f"Example: {example}")(_copy)
    app.command("migrate", cls=TyperCommand, epilog="Example: agentmem migrate --dry-run")(_migrate)


def _copy(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="A store: file or URL.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="Where to copy it; made if it is not there.", show_default=False
        ),
    ],
    json: JsonOption = False,
    timeout_s: TimeoutOption = None,
) -> None:
    """Copy a store with its whole history, and verify the copy.

    Between files and servers, in any direction. A copy that was interrupted goes on where it was
    when it is run again; so does a finished one, with what was written since. A TO that has a
    history of its own is refused.
    """
    options = _without_a_store(ctx, Shared(None, json, timeout_s))
    limits = limits_of(options.timeout_s)
    if not is_there(source, limits):
        raise CommandError(ExitCode.STORAGE, f"there is no store at {shown(source)}")
    is_there(target, limits)  # refuses what can be no store, before anything is made
    quiet_drivers()
    with warnings_as_lines(), stages_bar("copying") as progress:
        report = _copied(source, target, limits.lock_timeout_ms, progress)
    out = Output(json=options.json)
    if out.json:
        out.document(copy_document(report))
        return
    copied = report.revision - report.began_at
    out.line(f"{counted(copied, 'commit')} copied to {shown(target)}")
    out.line(
        f"verified: {counted(report.commits, 'commit')}, {counted(report.entries, 'entry')}, "
        f"up to revision {report.revision}, as in {shown(source)}"
    )
    if report.source_revision > report.revision:
        out.line(
            f"{shown(source)} is at revision {report.source_revision} by now; run it again for "
            "the rest"
        )


def _copied(
    source: str, target: str, lock_timeout_ms: int, progress: Progress | None
) -> CopyReport:
    first = open_engine(source, _DURABILITY, None, lock_timeout_ms)
    try:
        second = open_engine(target, _DURABILITY, None, lock_timeout_ms)
        try:
            return copy_store(first, second, progress, lock_timeout_ms=lock_timeout_ms)
        finally:
            second.close()
    finally:
        first.close()


def _without_a_store(ctx: typer.Context, own: Shared) -> Shared:
    """The options that may stand before the command's name; those of one store may not."""
    parent = ctx.parent
    for name in ("store", "namespace"):
        source = parent.get_parameter_source(name) if parent is not None else None
        if source is not None and source.name == "COMMANDLINE":
            raise CommandError(ExitCode.USAGE, f"copy takes FROM and TO; leave --{name} out")
    return combined(ctx, own)


def _migrate(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done; writes nothing.")
    ] = False,
    store: StoreOption = None,
    json: JsonOption = False,
    timeout_s: TimeoutOption = None,
) -> None:
    """Bring a store to the tables that this agentmem knows.

    Every other command does so, too, before it does anything else; this one shows it.
    """
    options = combined(ctx, Shared(store, json, timeout_s))
    if options.namespace is not None:
        raise CommandError(
            ExitCode.USAGE, "this command is for the whole store; leave --namespace out"
        )
    if not options.store:
        raise CommandError(
            ExitCode.USAGE, "no store is named; give --store STORE, or set AGENTMEM_STORE"
        )
    limits = limits_of(options.timeout_s)
    there = is_there(options.store, limits)
    found = migrations_of(options.store, limits.lock_timeout_ms) if there else None
    if found is None:
        raise no_store(options.store)
    done: list[str] = []
    if found.missing and not dry_run:
        quiet_drivers()
        open_engine(options.store, _DURABILITY, None, limits.lock_timeout_ms).close()
        done = found.missing
    out = Output(json=options.json)
    if out.json:
        out.document(migrations_document(found, done, dry_run=dry_run))
        return
    for name in found.applied:
        out.line(f"{name}: there")
    for name in found.missing:
        out.line(f"{name}: {'applied' if done else 'missing'}")
    if not found.missing:
        out.line(f"{shown(options.store)} is up to date")
