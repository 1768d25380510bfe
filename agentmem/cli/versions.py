"""Looking back: log, history, show, diff."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmem.cli.arguments import key_and_version, whole_number
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import KeyArgument, LimitOption
from agentmem.cli.output import as_json
from agentmem.cli.shapes import commit_document, difference_document, entry_document
from agentmem.cli.spelling import changes_text, namespace_text, second
from agentmem.history.diff import Difference
from agentmem.model import Entry, display_key

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, example="agentmem log --agent alice --limit 10")(log)
    command(app, example="agentmem history plan -n team/alice")(history)
    command(app, example="agentmem show plan@2")(show)
    command(app, example="agentmem diff plan 1 3")(diff)


def log(
    call: Call,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NAME", help="Only commits of this agent.")
    ] = None,
    op_id: Annotated[
        str | None, typer.Option("--op-id", metavar="ID", help="Only that of this operation.")
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            "--after", metavar="REVISION", parser=whole_number, help="Only later revisions."
        ),
    ] = None,
    upto: Annotated[
        int | None,
        typer.Option(
            "--upto", metavar="REVISION", parser=whole_number, help="No later revisions than this."
        ),
    ] = None,
    limit: LimitOption = None,
) -> None:
    """List the commits, newest first."""
    commits = call.store.log(
        call.namespace, agent=agent, op_id=op_id, after=after or 0, upto=upto, limit=limit
    )
    if call.out.json:
        call.out.document([commit_document(commit) for commit in commits])
        return
    call.out.table(
        ("revision", "time", "agent", "op id", "changes", "note"),
        [
            (
                commit.revision,
                second(commit.committed_at),
                commit.agent,
                commit.op_id,
                changes_text(commit),
                commit.note,
            )
            for commit in commits
        ],
    )


def history(call: Call, key: KeyArgument, limit: LimitOption = None) -> None:
    """List the versions of a key, newest first."""
    entries = call.store.history(key, namespace=call.namespace, limit=limit)
    if not entries and limit != 0:
        name = display_key(call.labels, key)
        raise CommandError(ExitCode.ABSENT, f"{name!r} was never written")
    if call.out.json:
        call.out.document([entry_document(entry) for entry in entries])
        return
    call.out.table(
        ("version", "revision", "time", "agent", "op id", "value"),
        [
            (
                entry.version,
                entry.revision,
                second(entry.committed_at),
                entry.agent,
                entry.op_id,
                _value_text(entry),
            )
            for entry in entries
        ],
    )


def _value_text(entry: Entry[Any]) -> str:
    return "(deleted)" if entry.deleted else as_json(entry.value)


def show(
    call: Call,
    key_version: Annotated[
        str, typer.Argument(metavar="KEY@VERSION", help="As plan@2.", show_default=False)
    ],
) -> None:
    """Show one version of a key: its value, who wrote it and when."""
    key, version = key_and_version(key_version)
    entry = call.store.audit.version(key, version, namespace=call.namespace)
    if call.out.json:
        call.out.document(entry_document(entry))
        return
    call.out.fields(
        [
            ("namespace", namespace_text(entry.namespace)),
            ("key", entry.key),
            ("version", entry.version),
            ("revision", entry.revision),
            ("agent", entry.agent),
            ("op id", entry.op_id),
            ("created", second(entry.created_at)),
            ("committed", second(entry.committed_at)),
            ("expires", second(entry.expires_at)),
            ("value", "(deleted)" if entry.deleted else None),
        ],
        value=... if entry.deleted else entry.value,
    )


def diff(
    call: Call,
    key: KeyArgument,
    a: Annotated[
        int, typer.Argument(metavar="A", help="A version.", parser=whole_number, show_default=False)
    ],
    b: Annotated[
        int, typer.Argument(metavar="B", help="Another.", parser=whole_number, show_default=False)
    ],
) -> None:
    """Show what changed in a key from version A to B; 0 is absent."""
    found = call.store.audit.diff(key, a, b, namespace=call.namespace)
    if call.out.json:
        call.out.document([difference_document(difference) for difference in found])
    else:
        call.out.changes([_difference_line(difference) for difference in found])


def _difference_line(difference: Difference) -> str:
    if difference.kind == "added":
        return f"+ {difference.path}  {as_json(difference.after)}"
    if difference.kind == "removed":
        return f"- {difference.path}  {as_json(difference.before)}"
    return f"~ {difference.path}  {as_json(difference.before)} -> {as_json(difference.after)}"
