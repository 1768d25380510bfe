"""Stored merge strategies, and the conflicts on record: merge, conflicts, resolve."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from agentmem.cli.arguments import parse_value, whole_number
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import AgentOption, ExpectedOption, LimitOption, NoteOption
from agentmem.cli.output import as_json
from agentmem.cli.shapes import conflict_document, entry_document
from agentmem.cli.spelling import namespace_text, second
from agentmem.model import display_key

__all__ = ["register"]

PatternArgument = Annotated[
    str, typer.Argument(metavar="PATTERN", help="As 'notes/**'.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    merge = typer.Typer(
        help="Keep merge strategies in the store, for every process.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(merge, name="merge")
    example = "agentmem merge set 'notes/**' union"
    command(merge, name="set", namespaced=False, example=example)(set_)
    command(merge, name="list", namespaced=False, example="agentmem merge list")(list_)
    command(merge, namespaced=False, example="agentmem merge unset 'notes/**'")(unset)
    command(app, example="agentmem conflicts --status open")(conflicts)
    command(app, namespaced=False, example="agentmem resolve 7 --take ours")(resolve)


def set_(
    call: Call,
    pattern: PatternArgument,
    strategy: Annotated[
        str, typer.Argument(metavar="STRATEGY", help="As union.", show_default=False)
    ],
) -> None:
    """Keep a STRATEGY for the keys of a PATTERN, which is best quoted.

    STRATEGY: counter, union, append, maximum, minimum, json, text, theirs, ours, escalate, or
    JSON such as '{"model": {"fields": {"tags": "union"}}}'.
    """
    call.store.set_merge(pattern, _strategy(strategy))
    _print_strategies(call)


def _strategy(text: str) -> Any:
    return parse_value(text, string=False) if text.startswith("{") else text


def unset(call: Call, pattern: PatternArgument) -> None:
    """Forget the strategy of a PATTERN."""
    call.store.set_merge(pattern, None)
    _print_strategies(call)


def list_(call: Call) -> None:
    """List the stored strategies."""
    _print_strategies(call)


def _print_strategies(call: Call) -> None:
    found = call.store.merges()
    if call.out.json:
        call.out.document([{"pattern": pattern, "strategy": spec} for pattern, spec in found])
        return
    call.out.table(
        ("pattern", "strategy"),
        [
            (pattern, spec if isinstance(spec, str) else json.dumps(spec, ensure_ascii=False))
            for pattern, spec in found
        ],
    )


def conflicts(
    call: Call,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only merged, retried, rejected, repaired, open or resolved ones.",
        ),
    ] = None,
    limit: LimitOption = None,
) -> None:
    """List the conflicts on record, and how they ended."""
    labels = call.labels
    records = [
        record
        for record in reversed(call.store.audit.conflicts(status))
        if record.namespace[: len(labels)] == labels
    ][:limit]
    if call.out.json:
        call.out.document([conflict_document(record) for record in records])
        return
    call.out.table(
        (
            "id",
            "time",
            "namespace",
            "key",
            "status",
            "kind",
            "base",
            "theirs",
            "strategy",
            "agent",
            "note",
            "ours",
        ),
        [
            (
                record.id,
                second(record.detected_at),
                namespace_text(record.namespace),
                record.key,
                record.status,
                record.kind,
                record.base_version,
                record.theirs_version,
                record.strategy,
                record.agent,
                record.note,
                None if record.ours is None else as_json(record.ours),
            )
            for record in records
        ],
    )


def resolve(
    call: Call,
    id: Annotated[
        int,
        typer.Argument(
            metavar="ID", help="Of the conflict.", parser=whole_number, show_default=False
        ),
    ],
    take: Annotated[
        str,
        typer.Option(
            "--take",
            metavar="SIDE",
            help="ours, theirs, or another value as JSON.",
            show_default=False,
        ),
    ],
    expected_version: ExpectedOption = None,
    agent: AgentOption = None,
    note: NoteOption = None,
) -> None:
    """Settle an open conflict, which `escalate` has parked."""
    entry = call.store.audit.resolve(
        id, _side(take), expected_version=expected_version, agent=agent, note=note
    )
    if call.out.json:
        call.out.document({"id": id, "entry": None if entry is None else entry_document(entry)})
    elif entry is None:
        call.out.line(f"conflict {id}: resolved, nothing was written")
    else:
        name = display_key(entry.namespace, entry.key)
        call.out.line(
            f"conflict {id}: resolved, {name}: version {entry.version}, revision {entry.revision}"
        )


def _side(take: str) -> Any:
    if take in ("ours", "theirs"):
        return take
    value = parse_value(take, string=False)
    if value in ("ours", "theirs"):
        raise CommandError(
            ExitCode.REFUSED,
            f"--take cannot write the string {take}; put it, then resolve with --take theirs",
        )
    return value
