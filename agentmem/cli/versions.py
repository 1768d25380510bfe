"""Looking back at keys: history, show, diff, blame."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from agentmem.cli.arguments import key_and_version, parse_at, whole_number
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import AfterOption, AtOption, KeyArgument, LimitOption, UptoOption
from agentmem.cli.output import as_json
from agentmem.cli.shapes import (
    blame_document,
    difference_document,
    entry_document,
    key_difference_document,
)
from agentmem.cli.spelling import namespace_text, second
from agentmem.history.diff import Difference
from agentmem.model import Entry, display_key

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, example="agentmem history plan -n team/alice")(history)
    command(app, example="agentmem show plan@2")(show)
    command(app, example="agentmem diff plan 1 3")(diff)
    command(app, example="agentmem blame plan --at 42")(blame)


def history(
    call: Call,
    key: KeyArgument,
    after: AfterOption = None,
    upto: UptoOption = None,
    at: AtOption = None,
    limit: LimitOption = None,
) -> None:
    """List the versions of a key, newest first."""
    if at is not None:
        revision = call.store.snapshot(at=parse_at(at)).revision
        upto = revision if upto is None else min(upto, revision)
    entries = call.store.history(
        key, namespace=call.namespace, after=after or 0, upto=upto, limit=limit
    )
    everything = after is None and upto is None and limit != 0
    if not entries and everything:
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
    return _gone(entry) or as_json(entry.value)


def _gone(entry: Entry[Any]) -> str | None:
    """What stands for the value of an entry that has none."""
    if entry.purged is not None:
        return "(purged)"
    return "(deleted)" if entry.deleted else None


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
            ("purged", _purge_text(entry)),
            ("value", _gone(entry)),
        ],
        value=... if _gone(entry) else entry.value,
    )


def _purge_text(entry: Entry[Any]) -> str | None:
    purge = entry.purged
    if purge is None:
        return None
    by = f" by {purge.agent}" if purge.agent is not None else ""
    why = f": {purge.note}" if purge.note is not None else ""
    return f"{second(purge.purged_at) or 'in another store'}{by}{why}"


def diff(
    call: Call,
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="The key, for versions.", show_default=False)
    ],
    a: Annotated[
        str, typer.Argument(metavar="A", help="A version; or the first moment.", show_default=False)
    ],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="Another version.", show_default=False)
    ] = None,
    limit: LimitOption = None,
) -> None:
    """Show what changed in a KEY from version A to B; 0 is absent.

    With two arguments, each a revision, a tag or a time: every key that differs between the two.
    """
    if b is None:
        _diff_moments(call, parse_at(key), parse_at(a), limit)
        return
    if limit is not None:
        raise CommandError(ExitCode.USAGE, "--limit counts keys; a diff of versions is of one")
    versions = whole_number(a), whole_number(b)
    found = call.store.audit.diff(key, *versions, namespace=call.namespace)
    if call.out.json:
        call.out.document([difference_document(difference) for difference in found])
    else:
        call.out.changes([_difference_line(difference) for difference in found])


def _diff_moments(call: Call, a: object, b: object, limit: int | None) -> None:
    found = call.store.audit.diff_revisions(a, b, namespace=call.namespace)
    for each in islice(found, limit):
        if call.out.json:
            call.out.record(key_difference_document(each))
            continue
        name = display_key(each.namespace, each.key)
        versions = [0 if entry is None else entry.version for entry in (each.before, each.after)]
        call.out.changes([f"@ {name}  {versions[0]} -> {versions[1]}"])
        call.out.changes([_difference_line(difference) for difference in each.differences])


def _difference_line(difference: Difference) -> str:
    if difference.kind == "added":
        return f"+ {difference.path}  {as_json(difference.after)}"
    if difference.kind == "removed":
        return f"- {difference.path}  {as_json(difference.before)}"
    return f"~ {difference.path}  {as_json(difference.before)} -> {as_json(difference.after)}"


def blame(call: Call, key: KeyArgument, at: AtOption = None) -> None:
    """Show which commit last set each path of a key's value."""
    found = call.store.audit.blame(key, namespace=call.namespace, at=parse_at(at))
    if call.out.json:
        call.out.document([blame_document(each) for each in found])
        return
    call.out.table(
        ("path", "version", "revision", "time", "agent", "note", "value"),
        [
            (
                each.path,
                f"{each.version} or earlier" if each.or_earlier else each.version,
                each.revision,
                second(each.committed_at),
                each.agent,
                each.note,
                as_json(each.value),
            )
            for each in found
        ],
    )
