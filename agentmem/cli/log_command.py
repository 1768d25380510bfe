"""The commits of a store: log, as a table, as a graph, and as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from agentmem.cli.arguments import (
    parse_at,
    parse_fields,
    parse_time,
    parse_where,
)
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.graph import drawn
from agentmem.cli.options import AfterOption, AtOption, LimitOption, UptoOption
from agentmem.cli.shapes import commit_document
from agentmem.cli.spelling import changes_text, second
from agentmem.errors import CompactedError
from agentmem.model import Commit

__all__ = ["commit_spans", "register"]

_PAGE: Final = 500
_FOLLOWED: Final = 10  # commits that --follow shows of the past

ByOption = Annotated[
    str | None, typer.Option("--agent", metavar="NAME", help="Only commits of this agent.")
]
OperationOption = Annotated[
    str | None, typer.Option("--op-id", metavar="ID", help="Only that of this operation.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only those from then on.")
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only those before then.")
]
MetadataOption = Annotated[
    str | None,
    typer.Option("--where", metavar="JSON", help="Only those whose metadata matches this filter."),
]
FieldsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="NAME=VALUE",
        help="Only those with this field of metadata; VALUE is JSON, else a string. Repeatable.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the command of this module."""
    command(app, example="agentmem log --agent alice --since 2026-01-31T12:00:00Z --limit 10")(log)


def log(
    call: Call,
    agent: ByOption = None,
    op_id: OperationOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    after: AfterOption = None,
    upto: UptoOption = None,
    at: AtOption = None,
    metadata: FieldsOption = None,
    where: MetadataOption = None,
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="The other way round.")
    ] = False,
    limit: LimitOption = None,
    graph: Annotated[
        bool, typer.Option("--graph", help="Draw which commits were made at the same time.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new commits as they come, until Ctrl-C.")
    ] = False,
) -> None:
    """List the commits, newest first."""
    filters: dict[str, Any] = {
        "agent": agent,
        "op_id": op_id,
        "since": parse_time(since, "--since"),
        "until": parse_time(until, "--until"),
        "metadata": parse_fields(metadata, "--metadata"),
        "where": parse_where(where),
    }
    if at is not None:
        revision = call.store.snapshot(at=parse_at(at)).revision
        upto = revision if upto is None else min(upto, revision)
    bounds: dict[str, Any] = {"after": after or 0, "upto": upto, "limit": limit}
    if follow:
        if graph or oldest_first or until is not None or upto is not None:
            raise CommandError(
                ExitCode.USAGE,
                "--follow goes on into the future; leave --graph, --oldest-first, --until, "
                "--upto and --at out",
            )
        _follow(call, filters, after, _FOLLOWED if limit is None else limit)
    elif graph and not call.out.json:
        if oldest_first:
            raise CommandError(ExitCode.USAGE, "--graph is drawn with the newest first")
        _draw(call, filters, bounds)
    else:
        _show(call, call.store.log(call.namespace, oldest_first=oldest_first, **filters, **bounds))


def _show(call: Call, commits: list[Commit]) -> None:
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


# The graph.


def _draw(call: Call, filters: dict[str, Any], bounds: dict[str, Any]) -> None:
    seen = False
    for piece, commit in drawn(_newest_first(call, filters, bounds)):
        seen = True
        call.out.row(commit_spans(commit), graph=piece)
    if not seen:
        call.out.table((), [])


def _newest_first(call: Call, filters: dict[str, Any], bounds: dict[str, Any]) -> Iterator[Commit]:
    """The commits page by page: a person looks at the first ones, and stops."""
    left = bounds["limit"]
    upto = bounds["upto"]
    while left is None or left > 0:
        page = _PAGE if left is None else min(left, _PAGE)
        commits = call.store.log(
            call.namespace, after=bounds["after"], upto=upto, limit=page, **filters
        )
        yield from commits
        if len(commits) < page:
            return
        left = None if left is None else left - page
        upto = (commits[-1].revision or 1) - 1


def _came_from(commit: Commit) -> str:
    revision, base = commit.revision or 0, commit.base_revision
    between = revision - 1 - base
    if between <= 0:
        return ""
    return f"(from {base}, beside {between} other{'s' if between > 1 else ''})"


def commit_spans(commit: Commit) -> list[tuple[str, str | None]]:
    """A commit in the words of a line."""
    op_id = f"[{commit.op_id}]" if commit.op_id is not None else ""
    return [
        (str(commit.revision), "yellow"),
        (second(commit.committed_at) or "", "dim"),
        (commit.agent or "", "green"),
        (op_id, None),
        (changes_text(commit) or "nothing", None),
        (commit.note or "", None),
        (_came_from(commit), "dim"),
    ]


# As they come.


def _follow(call: Call, filters: dict[str, Any], after: int | None, limit: int) -> None:
    """Prints what there is, then what comes, oldest first; ends with Ctrl-C.

    The feed tells that something has come, from whatever process or machine; the log is asked
    for it, since it knows the filters.
    """
    try:
        last = call.store.revision
        past: dict[str, Any] = {"after": after or 0, "upto": last}
        if after is None:
            past["limit"] = limit
        commits = call.store.log(call.namespace, **filters, **past)
        _tell(call, reversed(commits))
        for upto in _news(call, last):
            commits = call.store.log(
                call.namespace, after=last, upto=upto, oldest_first=True, **filters
            )
            _tell(call, iter(commits))
            last = upto
    except KeyboardInterrupt:
        return


def _news(call: Call, last: int) -> Iterator[int]:
    """Waits for commits; gives the revisions up to which there are some, a page at most each."""
    while True:
        try:
            with call.store.watch(call.namespace, last) as feed:
                while (event := feed.next()) is not None:
                    last = event.revision
                    for _more in range(_PAGE - 1):
                        if (event := feed.next(timeout_s=0)) is None:
                            break
                        last = event.revision
                    yield last
        except CompactedError:
            # What the commits wrote is gone, but not that they were made.
            last = call.store.revision
            yield last


def _tell(call: Call, commits: Iterator[Commit]) -> None:
    for commit in commits:
        if call.out.json:
            call.out.record(commit_document(commit))
        else:
            call.out.row(commit_spans(commit))
    sys.stdout.flush()
