"""The store as a whole: init, stats, verify, tag, tags."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer

from agentmem.cli.arguments import check_tag_name, parse_at
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import AgentOption, AtOption, NoteOption
from agentmem.cli.output import counted, progress_bar
from agentmem.cli.shapes import report_document, tag_document
from agentmem.cli.spelling import second

__all__ = ["register", "register_init"]

_HASH: Final = re.compile(r"[0-9a-f]{64}")


def register_init(app: typer.Typer) -> None:
    """Adds the command that comes first."""
    command(app, namespaced=False, creates=True, example="agentmem init team.db")(init)


def register(app: typer.Typer) -> None:
    """Adds the other commands of this module."""
    command(app, namespaced=False, example="agentmem stats")(stats)
    command(app, namespaced=False, example="agentmem verify --json")(verify)
    command(app, namespaced=False, example="agentmem tag before-cleanup")(tag)
    command(app, namespaced=False, example="agentmem tags")(tags)


def init(
    call: Call,
    path: Annotated[
        str | None, typer.Argument(metavar="STORE", show_default=False, help="As --store.")
    ] = None,
) -> None:
    """Make a store, if there is none yet."""
    found = call.store.admin.stats()
    if call.out.json:
        document = {"location": found["location"], "store_id": found["store_id"]}
        call.out.document({**document, "revision": found["revision"], "made": call.made})
    elif call.made:
        call.out.line(f"{call.target}: a new store")
    else:
        call.out.line(f"{call.target}: a store already, at revision {found['revision']}")


def stats(call: Call) -> None:
    """Show sizes and numbers of the store."""
    found = call.store.admin.stats()
    if call.out.json:
        call.out.document(found)
    else:
        call.out.fields([(name.replace("_", " "), value) for name, value in found.items()])


def verify(
    call: Call,
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect",
            metavar="REVISION:HASH",
            help="As an earlier verify has printed it: the log must still hold it.",
        ),
    ] = None,
) -> None:
    """Prove that the log is whole, and that all else agrees with it."""
    expected = _expected(expect)
    with progress_bar("verifying") as progress:
        report = call.store.admin.verify(expected=expected, progress=progress)
    if call.out.json:
        call.out.document(report_document(report))
    else:
        for problem in report.problems:
            call.out.line(problem)
        call.out.line(
            f"{'ok' if report.ok else 'DAMAGED'}: {counted(report.commits, 'commit')}, "
            f"{counted(report.entries, 'entry')}, up to revision {report.revision}"
        )
        if report.ok and report.revision:
            call.out.line(f"to expect next time: {report.revision}:{report.hash}")
    if not report.ok:
        raise CommandError(ExitCode.STORAGE, f"{call.target} is damaged; restore a backup")


def _expected(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    revision, colon, known = text.partition(":")
    if not (colon and revision.isascii() and revision.isdigit() and _HASH.fullmatch(known)):
        raise CommandError(
            ExitCode.USAGE, "--expect is REVISION:HASH, as an earlier verify has printed it"
        )
    return int(revision), known


def tag(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tag.", show_default=False)],
    at: AtOption = None,
    agent: AgentOption = None,
    note: NoteOption = None,
) -> None:
    """Name a revision: the latest, or that of --at.

    An earlier tag of that name moves.
    """
    made = call.store.audit.tag(check_tag_name(name), at=parse_at(at), agent=agent, note=note)
    if call.out.json:
        call.out.document(tag_document(made))
    else:
        call.out.line(f"{made.name}: revision {made.revision}")


def tags(call: Call) -> None:
    """List the tags."""
    found = call.store.audit.tags()
    if call.out.json:
        call.out.document([tag_document(each) for each in found])
        return
    call.out.table(
        ("tag", "revision", "time", "agent", "note"),
        [
            (each.name, each.revision, second(each.created_at), each.agent, each.note)
            for each in found
        ],
    )
