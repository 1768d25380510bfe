"""Commits as they come, and who follows them: watch, consumers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agentmem.cli.arguments import whole_number
from agentmem.cli.asking import YesOption, confirm
from agentmem.cli.call import Call, command
from agentmem.cli.coordinating import ListsByItself, scope_text
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.log_command import commit_spans
from agentmem.cli.options import LimitOption
from agentmem.cli.shapes import consumer_document, event_document
from agentmem.cli.spelling import second
from agentmem.coordination.events import Event

__all__ = ["register_consumers", "register_watch"]


def register_watch(app: typer.Typer) -> None:
    """Adds `watch`."""
    command(app, example="agentmem watch -n team --consumer planner --json")(watch)


def register_consumers(app: typer.Typer) -> None:
    """Adds `consumers`."""
    consumers = typer.Typer(
        help="List who follows the commits by a name, or forget one.",
        cls=ListsByItself,
        rich_markup_mode=None,
    )
    app.add_typer(consumers, name="consumers")
    add = command(consumers, name="list", example="agentmem consumers list", namespaced=False)
    add(list_consumers)
    command(consumers, example="agentmem consumers forget planner --yes", namespaced=False)(forget)


def watch(
    call: Call,
    since: Annotated[
        int | None,
        typer.Option(
            "--since", metavar="REVISION", parser=whole_number,
            help="Begin after this revision; 0: at the beginning. Else now.",
        ),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            "--consumer", metavar="NAME",
            help="Go on where this name has stopped; what is printed is acknowledged.",
        ),
    ] = None,
    limit: LimitOption = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="End with what is there.")
    ] = False,
) -> None:  # fmt: skip
    """Print commits as they come, oldest first, until Ctrl-C."""
    left = limit
    timeout_s = 0 if no_wait else None
    try:
        with call.store.watch(call.namespace, since, consumer, timeout_s=timeout_s) as feed:
            while left is None or left > 0:
                event = feed.next()
                if event is None:
                    return
                _tell(call, event)
                if consumer is not None:
                    feed.ack(event)
                left = None if left is None else left - 1
    except KeyboardInterrupt:
        return


def _tell(call: Call, event: Event) -> None:
    if call.out.json:
        call.out.record(event_document(event))
    else:
        call.out.row(commit_spans(event.commit))
    sys.stdout.flush()  # before it is acknowledged


def list_consumers(call: Call) -> None:
    """List who follows the commits by a name; consumers alone does the same."""
    found = call.store.consumers()
    if call.out.json:
        call.out.document([consumer_document(each) for each in found])
        return
    call.out.table(
        ("consumer", "of", "revision", "behind", "moved", "token", "agent"),
        [
            (
                each.name,
                scope_text(each.scope),
                each.revision,
                each.behind or None,
                second(each.moved_at),
                each.token,
                each.agent,
            )
            for each in found
        ],
        empty="nobody follows the commits by a name",
    )


def forget(
    call: Call,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the consumer.", show_default=False)
    ],
    yes: YesOption = False,
) -> None:
    """Forget a consumer and its place; who reads as it is cut off."""
    confirm(f"Forget the consumer {name!r} and its place?", yes=yes)
    if not call.store.forget_consumer(name):
        raise CommandError(ExitCode.ABSENT, f"there is no consumer {name!r}")
    if call.out.json:
        call.out.document({"consumer": name})
    else:
        call.out.line(f"{name}: forgotten")
