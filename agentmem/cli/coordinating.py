"""Leases and queues: leases, queue."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from agentmem.cli.arguments import ValuesCommand, parse_value, whole_number
from agentmem.cli.asking import YesOption, confirm
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import AgentOption, LimitOption, NoteOption, OpIdOption, StringOption
from agentmem.cli.output import as_json
from agentmem.cli.shapes import lease_document, queue_document, queued_document, task_document
from agentmem.cli.spelling import namespace_text, second
from agentmem.coordination.queue_states import QueuedTask
from agentmem.coordination.queues import MAX_ATTEMPTS, Queue

__all__ = ["ListsByItself", "register", "scope_text"]

_PEEKED = 10
_LISTED = 1_000

QueueArgument = Annotated[
    str, typer.Argument(metavar="QUEUE", help="The queue.", show_default=False)
]
TaskArgument = Annotated[
    int,
    typer.Argument(metavar="ID", help="Of the task.", parser=whole_number, show_default=False),
]
TokenArgument = Annotated[
    int,
    typer.Argument(metavar="TOKEN", help="Of the claim.", parser=whole_number, show_default=False),
]
DelayOption = Annotated[
    float, typer.Option("--delay-s", metavar="SECONDS", help="Not before so many seconds.")
]


class ListsByItself(TyperGroup):
    """A group that lists, if no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`."""
        named = args and (not args[0].startswith("-") or args[0] in ("--help", "-h"))
        parsed: list[str] = super().parse_args(ctx, args if named else ["list", *args])
        return parsed


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    leases = typer.Typer(
        help="List the leases that are held, or break one.",
        cls=ListsByItself,
        rich_markup_mode=None,
    )
    app.add_typer(leases, name="leases")
    command(leases, name="list", example="agentmem leases list")(list_leases)
    command(leases, name="break", example="agentmem leases break plan --yes")(break_)
    queue = typer.Typer(
        help="Put tasks into queues, claim and acknowledge them.",
        cls=ListsByItself,
        rich_markup_mode=None,
    )
    app.add_typer(queue, name="queue")
    command(queue, name="list", example="agentmem queue list")(list_queues)
    command(queue, example="agentmem queue peek tasks --limit 5")(peek)
    example = """agentmem queue put tasks '{"city": "Rome"}' --op-id rome"""
    command(queue, cls=ValuesCommand, example=example)(put)
    command(queue, example="agentmem queue claim tasks --visibility-s 300")(claim)
    command(queue, example="agentmem queue ack tasks 1 2")(ack)
    command(queue, example="agentmem queue nack tasks 1 2 --delay-s 60")(nack)
    command(queue, example="agentmem queue dead tasks")(dead)
    command(queue, name="put-again", example="agentmem queue put-again tasks 1")(put_again)
    command(queue, example="agentmem queue discard tasks 1 --yes")(discard)


def list_leases(call: Call) -> None:
    """List the leases that are held; leases alone does the same."""
    found = _view(call).leases()
    if call.out.json:
        call.out.document([lease_document(each) for each in found])
        return
    call.out.table(
        ("lease", "of", "token", "agent", "granted", "expires in", "waiting"),
        [
            (
                each.name,
                "a key" if each.key else scope_text(each.scope),
                each.token,
                each.agent,
                second(each.granted_at),
                f"{each.expires_in_s:.0f} s" if each.expires_in_s else "expired",
                each.waiting or None,
            )
            for each in found
        ],
        empty="no lease is held",
    )


def _view(call: Call) -> Any:
    """The store, or the view of a namespace: leases and queues belong to one of them."""
    return call.store if call.namespace is None else call.store.scoped(call.namespace)


def scope_text(scope: tuple[str, ...] | None) -> str | None:
    """The view that something belongs to."""
    return "(a mapping)" if scope is None else namespace_text(scope)


def break_(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the lease.", show_default=False)],
    key: Annotated[
        bool, typer.Option("--key", help="NAME is a key, whose lease transact(lock=...) took.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """End a lease, whoever holds it: its holder's guarded commits fail."""
    confirm(f"Break the lease {name!r}?", yes=yes)
    if key:
        token = call.store.break_lease(name, key=True, namespace=call.namespace)
    else:
        token = _view(call).break_lease(name)
    if token is None:
        raise CommandError(ExitCode.ABSENT, f"the lease {name!r} is not held")
    if call.out.json:
        call.out.document({"lease": name, "token": token})
    else:
        call.out.line(f"{name}: token {token} is broken")


def list_queues(call: Call) -> None:
    """List the queues, with how many tasks are in which state; queue alone does the same."""
    found = _view(call).queues()
    if call.out.json:
        call.out.document([queue_document(each) for each in found])
        return
    call.out.table(
        ("queue", "of", "waiting", "delayed", "claimed", "behind", "dead"),
        [
            (
                each.name,
                scope_text(each.scope),
                each.waiting,
                each.delayed,
                each.claimed,
                each.behind,
                each.dead,
            )
            for each in found
        ],
        empty="no queue holds a task",
    )


def _queue(call: Call, name: str, max_attempts: int = MAX_ATTEMPTS) -> Queue:
    found: Queue = _view(call).queue(name, max_attempts=max_attempts)
    return found


def peek(call: Call, queue: QueueArgument, limit: LimitOption = None) -> None:
    """Show the next tasks of a QUEUE, and claim none."""
    _show(call, _queue(call, queue).peek(_PEEKED if limit is None else limit))


def dead(call: Call, queue: QueueArgument, limit: LimitOption = None) -> None:
    """Show the tasks of a QUEUE that were claimed too often."""
    _show(call, _queue(call, queue).dead(_LISTED if limit is None else limit))


def _show(call: Call, found: list[QueuedTask]) -> None:
    if call.out.json:
        call.out.document([queued_document(each) for each in found])
        return
    call.out.table(
        ("id", "state", "priority", "group", "attempts", "token", "agent", "note", "payload"),
        [
            (
                each.id,
                each.state,
                each.priority or None,
                each.group,
                f"{each.attempts}/{each.max_attempts}",
                each.token,
                each.agent,
                each.note,
                as_json(each.payload),
            )
            for each in found
        ],
        empty="no task",
    )


def put(
    call: Call,
    queue: QueueArgument,
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD", help="JSON, or - for standard input.")
    ],
    string: StringOption = False,
    priority: Annotated[
        int, typer.Option("--priority", metavar="N", help="Larger ones come first.")
    ] = 0,
    group: Annotated[
        str | None,
        typer.Option("--group", metavar="NAME", help="Tasks of a group come one after another."),
    ] = None,
    delay_s: DelayOption = 0,
    max_attempts: Annotated[
        int, typer.Option("--max-attempts", metavar="N", help="Dead after so many claims.")
    ] = MAX_ATTEMPTS,
    agent: AgentOption = None,
    op_id: OpIdOption = None,
) -> None:
    """Put a task into a QUEUE."""
    id = _queue(call, queue, max_attempts).put(
        parse_value(payload, string=string),
        op_id=op_id,
        delay_s=delay_s,
        priority=priority,
        group=group,
        agent=agent,
    )
    _say(call, queue, id, "put")


def claim(
    call: Call,
    queue: QueueArgument,
    visibility_s: Annotated[
        float, typer.Option("--visibility-s", metavar="SECONDS", help="Nobody else's for so long.")
    ] = 60,
    wait_s: Annotated[
        float, typer.Option("--wait-s", metavar="SECONDS", help="How long to wait for a task.")
    ] = 0,
    agent: AgentOption = None,
    op_id: OpIdOption = None,
) -> None:
    """Claim the next task of a QUEUE; acknowledge it with its ID and TOKEN."""
    task = _queue(call, queue).claim(agent, visibility_s=visibility_s, wait_s=wait_s, op_id=op_id)
    if task is None:
        raise CommandError(ExitCode.ABSENT, f"the queue {queue!r} has no task to be had")
    if call.out.json:
        call.out.document(task_document(task))
        return
    call.out.fields(
        [
            ("id", task.id),
            ("token", task.token),
            ("attempt", f"{task.attempts} of {task.max_attempts}"),
            ("group", task.group),
        ],
        value=task.payload,
    )


def ack(call: Call, queue: QueueArgument, id: TaskArgument, token: TokenArgument) -> None:
    """End a task that is done."""
    _queue(call, queue).task(id, token).ack()
    _say(call, queue, id, "acknowledged")


def nack(
    call: Call,
    queue: QueueArgument,
    id: TaskArgument,
    token: TokenArgument,
    delay_s: DelayOption = 0,
    note: NoteOption = None,
) -> None:
    """Give a task back, to be claimed again."""
    _queue(call, queue).task(id, token).nack(delay_s, note=note)
    _say(call, queue, id, "given back")


def put_again(call: Call, queue: QueueArgument, id: TaskArgument) -> None:
    """Put a dead task at the end of its QUEUE."""
    _say(call, queue, _queue(call, queue).put_again(id), "put")


def discard(call: Call, queue: QueueArgument, id: TaskArgument, yes: YesOption = False) -> None:
    """Forget a dead task."""
    confirm(f"Forget the dead task {id} of {queue!r}?", yes=yes)
    _queue(call, queue).discard(id)
    _say(call, queue, id, "discarded")


def _say(call: Call, queue: str, id: int, what: str) -> None:
    if call.out.json:
        call.out.document({"queue": queue, "id": id})
    else:
        call.out.line(f"{queue}: task {id} {what}")
