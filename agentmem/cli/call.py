"""How a command is called: the options that all of them share, and the store it works on.

A command is a function whose first parameter is a `Call`::

    @command(app, example="agentmem get plan")
    def get(call: Call, key: KeyArgument) -> None: ...

`command` gives it ``--store``, ``--json``, ``--timeout-s`` and ``--namespace``, which may stand
before the command's name as well as after it.
"""

from __future__ import annotations

import inspect
import logging
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

import typer
from typer.core import TyperCommand

import agentmem
from agentmem.cli.arguments import namespace_argument
from agentmem.cli.failures import CommandError, ExitCode, warnings_as_lines
from agentmem.cli.options import JsonOption, NamespaceOption, StoreOption, TimeoutOption
from agentmem.cli.output import Output
from agentmem.cli.targets import is_misspelt, shown
from agentmem.engines import migrations_of
from agentmem.namespaces import parse_namespace

__all__ = [
    "Call",
    "Shared",
    "combined",
    "command",
    "is_there",
    "limits_of",
    "no_store",
    "opened",
    "quiet_drivers",
]

_TIMEOUT_S: Final = 5.0
_MAX_TIMEOUT_S: Final = 24 * 3_600.0
_SHARED: Final = {
    "store": StoreOption,
    "json": JsonOption,
    "timeout_s": TimeoutOption,
    "namespace": NamespaceOption,
}


@dataclass(slots=True)
class Shared:
    """The options that stood before the command's name."""

    store: str | None = None
    json: bool = False
    timeout_s: float | None = None
    namespace: str | None = None


@dataclass(slots=True)
class Call:
    """One call of a command.

    Attributes:
        store: open until the command ends.
        target: the store as the caller named it, without a password.
        made: it was not there before.
        namespace: for the ``namespace`` arguments of the store; None is the root.
        out: where results go.
    """

    store: agentmem.Store
    target: str
    made: bool
    namespace: str | list[str] | None
    out: Output

    @property
    def labels(self) -> tuple[str, ...]:
        """The namespace as its labels."""
        return parse_namespace(self.namespace, agentmem.Limits())


def command(
    app: typer.Typer,
    *,
    example: str,
    name: str | None = None,
    cls: type[TyperCommand] | None = None,
    namespaced: bool = True,
    creates: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command of `app`.

    Args:
        example: one call of it, for the help text.
        name: of the command, where the function cannot have it.
        cls: how its arguments are parsed.
        namespaced: it takes ``--namespace``; without, it is for a whole store.
        creates: it makes the store if there is none; an argument ``path`` may name it.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        shared = {n: o for n, o in _SHARED.items() if namespaced or n != "namespace"}

        def run(ctx: typer.Context, **arguments: Any) -> None:
            own = Shared(**{name: arguments.pop(name) for name in shared})
            if creates:
                own.store = _named_once(own.store, arguments.get("path"))
            with _called(combined(ctx, own), namespaced, creates) as call:
                function(call, **arguments)

        _sign(run, function, shared)
        app.command(name, cls=cls or TyperCommand, epilog=f"Example: {example}")(run)
        return function

    return register


def _sign(run: Callable[..., None], function: Callable[..., None], shared: dict[str, Any]) -> None:
    """Gives `run` the parameters that typer shall see: those of the function and the shared."""
    hints = get_type_hints(function, include_extras=True)
    _call, *own = inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", keyword, annotation=typer.Context)]
    parameters += [each.replace(kind=keyword, annotation=hints[each.name]) for each in own]
    parameters += [
        inspect.Parameter(
            name, keyword, default=False if option is JsonOption else None, annotation=option
        )
        for name, option in shared.items()
    ]
    run.__name__ = function.__name__
    run.__doc__ = function.__doc__
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect


def combined(ctx: typer.Context, own: Shared) -> Shared:
    """The nearer option wins: behind the command's name before in front of it."""
    before = ctx.obj if isinstance(ctx.obj, Shared) else Shared()
    return Shared(
        own.store if own.store is not None else before.store,
        own.json or before.json,
        own.timeout_s if own.timeout_s is not None else before.timeout_s,
        own.namespace if own.namespace is not None else before.namespace,
    )


@contextmanager
def _called(options: Shared, namespaced: bool, creates: bool) -> Iterator[Call]:
    if options.namespace is not None and not namespaced:
        raise CommandError(
            ExitCode.USAGE, "this command is for the whole store; leave --namespace out"
        )
    target = options.store
    if not target:
        raise CommandError(
            ExitCode.USAGE, "no store is named; give --store STORE, or set AGENTMEM_STORE"
        )
    limits = limits_of(options.timeout_s)
    there = is_there(target, limits)
    if not there and not creates:
        raise no_store(target)
    with opened(target, limits) as store:
        namespace = namespace_argument(options.namespace)
        yield Call(store, shown(target), not there, namespace, Output(json=options.json))


def no_store(target: str) -> CommandError:
    """The error of a command that makes no store, where there is none."""
    name = shown(target)
    return CommandError(
        ExitCode.STORAGE,
        f"there is no store at {name}; make one with: agentmem init {shlex.quote(name)}",
    )


def limits_of(timeout_s: float | None) -> agentmem.Limits:
    """The limits of a command, from its ``--timeout-s``."""
    wait_s = _TIMEOUT_S if timeout_s is None else timeout_s
    if not 0 < wait_s <= _MAX_TIMEOUT_S:
        raise CommandError(
            ExitCode.USAGE, f"--timeout-s is more than 0 and at most {_MAX_TIMEOUT_S:.0f} seconds"
        )
    return agentmem.Limits(lock_timeout_ms=max(1, round(wait_s * 1_000)))


@contextmanager
def opened(target: str, limits: agentmem.Limits) -> Iterator[agentmem.Store]:
    """The store for a command; made if it is not there. Its warnings become lines."""
    quiet_drivers()
    with warnings_as_lines(), agentmem.open(target, limits=limits) as store:
        yield store


def quiet_drivers() -> None:
    """Keeps the driver of a database from writing beside the one line that a command prints."""
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)


def _named_once(option: str | None, argument: str | None) -> str | None:
    if option is not None and argument is not None and option != argument:
        raise CommandError(ExitCode.USAGE, "STORE and --store name two stores; give one of them")
    return argument if argument is not None else option


def is_there(target: str, limits: agentmem.Limits) -> bool:
    """Whether there is something at the target that may be a store. Makes nothing."""
    if target == ":memory:":
        raise CommandError(
            ExitCode.USAGE, "a store in memory would end with this command; name a file"
        )
    if is_misspelt(target):
        raise CommandError(
            ExitCode.USAGE, "a server is named as postgresql://USER@HOST/DATABASE?store=NAME"
        )
    if "://" in target:
        return migrations_of(target, limits.lock_timeout_ms) is not None
    path = os.path.realpath(os.path.expanduser(target))
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise CommandError(ExitCode.STORAGE, f"{shown(target)} is not a regular file")
    # A store that is just being made is empty too, but has its write-ahead log beside it.
    return found.st_size > 0 or os.path.exists(path + "-wal")
