"""What goes: compact, purge."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from agentmem.cli.arguments import whole_number
from agentmem.cli.asking import YesOption, confirm
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import AgentOption, NoteOption
from agentmem.cli.output import counted, stages_bar
from agentmem.cli.shapes import compact_document, purge_document
from agentmem.history.compact import CompactReport
from agentmem.model import display_key, display_namespace

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, namespaced=False, example="agentmem compact --keep-days 30 --dry-run")(compact)
    command(app, example="agentmem purge notes -n team/alice --note 'ticket 7'")(purge)


def _days(name: str, days: float | None) -> timedelta | None:
    if days is None:
        return None
    try:
        found = timedelta(days=days)
    except (OverflowError, ValueError):
        found = timedelta(-1)
    if found < timedelta(0):
        raise CommandError(ExitCode.USAGE, f"--{name} is a number of days from 0 on")
    return found


def compact(
    call: Call,
    keep_days: Annotated[
        float | None,
        typer.Option("--keep-days", metavar="DAYS", help="Keep what could be read so long ago."),
    ] = None,
    keep_revision: Annotated[
        int | None,
        typer.Option(
            "--keep-revision",
            metavar="REVISION",
            parser=whole_number,
            help="Keep what can be read at it.",
        ),
    ] = None,
    keep_versions: Annotated[
        int | None,
        typer.Option(
            "--keep-versions",
            metavar="N",
            parser=whole_number,
            help="Keep the newest N versions of each key.",
        ),
    ] = None,
    keep_results_days: Annotated[
        float | None,
        typer.Option(
            "--keep-results-days", metavar="DAYS", help="Drop older results of operations."
        ),
    ] = None,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Give the space back to the disk; writers wait.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done; writes nothing.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Drop old versions that nobody needs, and bury what has expired.

    What is to be kept is kept by each option that is given; without one of them no version goes.
    The newest version of each key stays, and what a tag names.
    """
    bounds = {
        "keep_revision": keep_revision,
        "keep_versions": keep_versions,
        "keep_results": _days("keep-results-days", keep_results_days),
    }
    age = _days("keep-days", keep_days)
    admin = call.store.admin
    if not dry_run and not yes:
        foreseen = admin.compact(age, **bounds, dry_run=True)  # type: ignore[arg-type]  # by name
        if foreseen.versions or foreseen.results:
            confirm(f"Drop {_amount(foreseen)} of {call.target} for good?", yes=yes)
    with stages_bar("compacting") as progress:
        done = admin.compact(age, **bounds, vacuum=vacuum, dry_run=dry_run, progress=progress)  # type: ignore[arg-type]  # by name
    if call.out.json:
        call.out.document(compact_document(done))
        return
    call.out.line(f"{'would drop' if dry_run else 'dropped'} {_amount(done)}")
    if done.expired:
        call.out.line(f"{'would bury' if dry_run else 'buried'} {done.expired} expired keys")
    held = f"; the tag {done.held_by!r} keeps it there" if done.held_by is not None else ""
    call.out.line(f"the oldest revision that can be read is {done.floor}{held}")


def _amount(report: CompactReport) -> str:
    results = f" and {report.results} results" if report.results else ""
    return f"{counted(report.versions, 'version')}{results}"


def purge(
    call: Call,
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY",
            help="The key; without it, the namespace of --namespace goes, with all below it.",
            show_default=False,
        ),
    ] = None,
    agent: AgentOption = None,
    note: NoteOption = None,
    yes: YesOption = False,
) -> None:
    """Erase a key with its history, or a namespace, for good.

    From all files of the store. What stays is that there were versions, who wrote them and when.
    Backups that were made before, and the log of a PostgreSQL server, have to be dealt with by
    other means.
    """
    if key is None and call.namespace is None:
        raise CommandError(ExitCode.USAGE, "name a KEY, or a namespace by --namespace")
    if key is not None:
        what = f"{display_key(call.labels, key)!r} with its whole history"
    else:
        what = f"all of {display_namespace(call.labels)!r} and below it"
    confirm(f"Erase {what} from {call.target} for good?", yes=yes)
    with stages_bar("erasing") as progress:
        done = call.store.admin.purge(
            key, namespace=call.namespace, agent=agent, note=note, progress=progress
        )
    if call.out.json:
        call.out.document(purge_document(done))
        return
    call.out.line(
        f"erased {what}: {counted(done.versions, 'version')}, up to revision {done.revision}"
    )
    copies = [
        f"{count} {name}"
        for name, count in (
            ("results of operations", done.results),
            ("scans", done.scans),
            ("conflicts", done.conflicts),
        )
        if count
    ]
    if copies:
        call.out.line(f"and copies in {', '.join(copies)}")
