"""Reading and writing entries: get, list, count, put, delete, increment, append."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmem.cli.arguments import (
    ValuesCommand,
    parse_at,
    parse_number,
    parse_value,
    parse_where,
)
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import (
    AgentOption,
    AtOption,
    ExpectedOption,
    KeyArgument,
    LimitOption,
    NoMergeOption,
    NoteOption,
    OpIdOption,
    OverwriteOption,
    StringOption,
)
from agentmem.cli.output import as_json
from agentmem.cli.shapes import entry_document
from agentmem.cli.spelling import namespace_text, second
from agentmem.model import Entry, display_key
from agentmem.views import View

__all__ = ["register"]

PrefixOption = Annotated[
    str | None,
    typer.Option("--key-prefix", metavar="TEXT", help="Only keys that begin with it."),
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="JSON", help="""Only values that match, as '{"done": true}'."""
    ),
]
RawOption = Annotated[
    bool, typer.Option("--string", "-s", help="Print a string itself, not as JSON.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, example="agentmem get plan -n team/alice")(get)
    command(app, cls=ValuesCommand, example="agentmem put plan '{\"days\": 3}'")(put)
    command(app, example="agentmem delete plan --expected-version 4")(delete)
    command(app, name="list", example="""agentmem list -n team --where '{"open": true}'""")(list_)
    command(app, example="agentmem count --key-prefix task-")(count)
    command(app, cls=ValuesCommand, example="agentmem increment edits 5 -n stats")(increment)
    command(app, cls=ValuesCommand, example="agentmem append notes 'call Bo' -s")(append)


def _view(call: Call, at: str | None) -> View:
    return call.store if at is None else call.store.snapshot(parse_at(at))


def get(call: Call, key: KeyArgument, at: AtOption = None, string: RawOption = False) -> None:
    """Print the value of a key as JSON; with --json, the entry."""
    entry = _view(call, at).get(key, namespace=call.namespace)
    if entry is None:
        raise _absent(call, key)
    if call.out.json:
        call.out.document(entry_document(entry))
    elif not string:
        call.out.value(entry.value)
    elif isinstance(entry.value, str):
        call.out.string(entry.value)
    else:
        raise CommandError(ExitCode.REFUSED, f"the value of {key!r} is no string; leave -s out")


def _absent(call: Call, key: str) -> CommandError:
    name = display_key(call.labels, key)
    return CommandError(ExitCode.ABSENT, f"{name!r} is absent: never written, deleted or expired")


def list_(
    call: Call,
    key_prefix: PrefixOption = None,
    where: WhereOption = None,
    limit: LimitOption = None,
    at: AtOption = None,
) -> None:
    """List the entries of a namespace and of those below it."""
    entries = _view(call, at).list(
        call.namespace, key_prefix=key_prefix, where=parse_where(where), limit=limit
    )
    if call.out.json:
        call.out.document([entry_document(entry) for entry in entries])
        return
    call.out.table(
        ("namespace", "key", "version", "agent", "expires", "value"),
        [
            (
                namespace_text(entry.namespace),
                entry.key,
                entry.version,
                entry.agent,
                second(entry.expires_at),
                as_json(entry.value),
            )
            for entry in entries
        ],
    )


def count(
    call: Call, key_prefix: PrefixOption = None, where: WhereOption = None, at: AtOption = None
) -> None:
    """Print how many entries `list` would show."""
    found = _view(call, at).count(call.namespace, key_prefix=key_prefix, where=parse_where(where))
    if call.out.json:
        call.out.document({"count": found})
    else:
        call.out.line(str(found))


def put(
    call: Call,
    key: KeyArgument,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="JSON, or - for stdin.", show_default=False)
    ],
    string: StringOption = False,
    expected_version: ExpectedOption = None,
    overwrite: OverwriteOption = False,
    no_merge: NoMergeOption = False,
    ttl_s: Annotated[
        float | None,
        typer.Option("--ttl-s", metavar="SECONDS", help="Absent again after so long."),
    ] = None,
    agent: AgentOption = None,
    op_id: OpIdOption = None,
    note: NoteOption = None,
) -> None:
    """Set a key to a VALUE: JSON; with -s a string; - reads stdin."""
    entry = call.store.put(
        key,
        parse_value(value, string=string),
        namespace=call.namespace,
        expected_version=expected_version,
        overwrite=overwrite,
        merge=not no_merge,
        ttl_s=ttl_s,
        agent=agent,
        op_id=op_id,
        note=note,
    )
    _print_written(call, entry, *_merged(call, entry, expected_version))


def delete(
    call: Call,
    key: KeyArgument,
    expected_version: ExpectedOption = None,
    overwrite: OverwriteOption = False,
    no_merge: NoMergeOption = False,
    agent: AgentOption = None,
    op_id: OpIdOption = None,
    note: NoteOption = None,
) -> None:
    """Delete a key; its history stays."""
    entry = call.store.delete(
        key,
        namespace=call.namespace,
        expected_version=expected_version,
        overwrite=overwrite,
        merge=not no_merge,
        agent=agent,
        op_id=op_id,
        note=note,
    )
    if entry is None:
        raise _absent(call, key)
    _print_written(call, entry, *_merged(call, entry, expected_version))


def increment(
    call: Call,
    key: KeyArgument,
    by: Annotated[
        str, typer.Argument(metavar="BY", help="A number; else 1.", show_default=False)
    ] = "1",
    agent: AgentOption = None,
    op_id: OpIdOption = None,
    note: NoteOption = None,
) -> None:
    """Add a number to a key; an absent key starts at 0.

    Never conflicts.
    """
    entry = call.store.increment(
        key, parse_number(by), namespace=call.namespace, agent=agent, op_id=op_id, note=note
    )
    _print_written(call, entry, f"value {as_json(entry.value)}")


def append(
    call: Call,
    key: KeyArgument,
    items: Annotated[
        list[str], typer.Argument(metavar="ITEM", help="JSON each.", show_default=False)
    ],
    string: StringOption = False,
    agent: AgentOption = None,
    op_id: OpIdOption = None,
    note: NoteOption = None,
) -> None:
    """Add items to a list; an absent key starts at [].

    Never conflicts.
    """
    values = [parse_value(item, string=string) for item in items]
    entry = call.store.append(
        key, *values, namespace=call.namespace, agent=agent, op_id=op_id, note=note
    )
    _print_written(call, entry)


def _print_written(call: Call, entry: Entry[Any], *more: str) -> None:
    if call.out.json:
        call.out.document(entry_document(entry))
        return
    name = display_key(entry.namespace, entry.key)
    deleted = ("deleted",) if entry.deleted else ()
    parts = (f"{name}: version {entry.version}", f"revision {entry.revision}", *more, *deleted)
    call.out.line(", ".join(parts))


def _merged(call: Call, entry: Entry[Any], expected_version: int | None) -> tuple[str, ...]:
    """Tells of a merge: what was put may then not be what is there."""
    if expected_version is None or entry.revision is None or call.out.json:
        return ()
    return tuple(
        f"merged: {change.merged}"
        for commit in call.store.log(after=entry.revision - 1, upto=entry.revision)
        for change in commit.changes
        if (change.namespace, change.key) == (entry.namespace, entry.key) and change.merged
    )
