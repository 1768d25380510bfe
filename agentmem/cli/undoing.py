"""Undoing, by new commits: revert, revert-commit."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from agentmem.cli.arguments import whole_number
from agentmem.cli.asking import YesOption, confirm
from agentmem.cli.call import Call, command
from agentmem.cli.options import AgentOption, KeyArgument, NoMergeOption, NoteOption, OpIdOption
from agentmem.cli.shapes import entry_document, reversal_document
from agentmem.cli.spelling import namespace_text
from agentmem.history.revert import Reversal
from agentmem.model import display_key

__all__ = ["register"]

_NAMED: Final = 5  # keys in a question


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, example="agentmem revert plan --to 2")(revert)
    command(
        app, name="revert-commit", namespaced=False, example="agentmem revert-commit 42 --dry-run"
    )(revert_commit)


def revert(
    call: Call,
    key: KeyArgument,
    to: Annotated[
        int,
        typer.Option(
            "--to",
            metavar="VERSION",
            parser=whole_number,
            help="The version to go back to; 0: the key becomes absent.",
            show_default=False,
        ),
    ],
    no_merge: NoMergeOption = False,
    agent: AgentOption = None,
    op_id: OpIdOption = None,
    note: NoteOption = None,
    yes: YesOption = False,
) -> None:
    """Put an older value of a key back, as a new version."""
    name = display_key(call.labels, key)
    if not yes:
        if to:
            call.store.audit.version(key, to, namespace=call.namespace)
        there = call.store.get(key, namespace=call.namespace)
        now = "absent" if there is None else f"at version {there.version}"
        goal = f"Put version {to} of {name!r} back" if to else f"Make {name!r} absent"
        confirm(f"{goal}? It is {now}.", yes=yes)
    entry = call.store.audit.revert(
        key,
        to,
        namespace=call.namespace,
        merge=not no_merge,
        agent=agent,
        op_id=op_id,
        note=note,
    )
    if call.out.json:
        call.out.document(None if entry is None else entry_document(entry))
    elif entry is None:
        call.out.line(f"{name}: absent")
    else:
        gone = ", deleted" if entry.deleted else ""
        call.out.line(f"{name}: version {entry.version}, revision {entry.revision}{gone}")


def revert_commit(
    call: Call,
    revision: Annotated[
        int,
        typer.Argument(
            metavar="REVISION", help="Of the commit.", parser=whole_number, show_default=False
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; show what would be done.")
    ] = False,
    no_merge: NoMergeOption = False,
    agent: AgentOption = None,
    op_id: OpIdOption = None,
    note: NoteOption = None,
    yes: YesOption = False,
) -> None:
    """Undo a commit by a new one.

    Each key goes back to what it was before. What was written since is merged, or the command
    fails and names it.
    """
    audit = call.store.audit
    fields: dict[str, Any] = {"agent": agent, "op_id": op_id, "note": note, "merge": not no_merge}
    if dry_run or not yes:
        planned = audit.revert_commit(revision, dry_run=True, **fields)
        if dry_run:
            _show(call, planned)
            return
        keys = [display_key(each.namespace, each.key) for each in planned.keys]
        named = ", ".join(map(repr, keys[:_NAMED])) + (", ..." if len(keys) > _NAMED else "")
        confirm(f"Undo revision {revision}, which wrote {named or 'nothing'}?", yes=yes)
    _show(call, audit.revert_commit(revision, **fields))


def _show(call: Call, reversal: Reversal) -> None:
    if call.out.json:
        call.out.document(reversal_document(reversal))
        return
    call.out.table(
        ("namespace", "key", "version", "restored", "current", "agent", "outcome", "strategy"),
        [
            (
                namespace_text(each.namespace),
                each.key,
                each.version,
                each.restored,
                each.current,
                each.current_agent,
                each.outcome,
                each.strategy,
            )
            for each in reversal.keys
        ],
        empty="no key was changed",
    )
    if reversal.commit is not None:
        call.out.line(f"revision {reversal.commit.revision}")
