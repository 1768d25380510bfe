"""What is told when a command fails: one line on standard error, and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Final

import typer
from typer.core import TyperGroup

from agentmem.cli.layout import printable
from agentmem.cli.panels import order_of, panel_of
from agentmem.cli.styles import has_colours, styled
from agentmem.cli.targets import hide_passwords
from agentmem.errors import (
    AgentMemError,
    ConflictError,
    IndeterminateCommitError,
    InvalidValueError,
    KeyMissingError,
    LeaseError,
    OperationMismatchError,
    RevisionError,
    StorageError,
    StoreBusyError,
)

__all__ = ["CommandError", "Commands", "ExitCode", "exit_codes", "note", "warnings_as_lines"]


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    ABSENT = 1
    USAGE = 2
    CONFLICT = 3
    BUSY = 4
    STORAGE = 5
    REFUSED = 6
    UNKNOWN = 7
    OTHER = 8
    BUG = 70
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141


_MEANINGS: Final = {
    ExitCode.OK: "done",
    ExitCode.ABSENT: "the key, version, task or lease is absent",
    ExitCode.USAGE: "wrong usage, or no store named",
    ExitCode.CONFLICT: "conflict: the key moved, the op id was used otherwise, the claim is lost",
    ExitCode.BUSY: "the store is locked by another process",
    ExitCode.STORAGE: "no store there, not to be read or written, or damaged",
    ExitCode.REFUSED: "a value, key, revision, tag, strategy or limit is refused",
    ExitCode.UNKNOWN: "the storage failed in the commit: it may have been written",
    ExitCode.OTHER: "anything else: a merge that failed, a package missing, an answer of no",
    ExitCode.BUG: "a bug in agentmem",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.OUTPUT_CLOSED: "nobody reads the output any more",
}

_CODES: Final[tuple[tuple[type[AgentMemError], ExitCode], ...]] = (
    (KeyMissingError, ExitCode.ABSENT),
    (ConflictError, ExitCode.CONFLICT),
    (OperationMismatchError, ExitCode.CONFLICT),
    (LeaseError, ExitCode.CONFLICT),
    (StoreBusyError, ExitCode.BUSY),
    (StorageError, ExitCode.STORAGE),
    (InvalidValueError, ExitCode.REFUSED),
    (RevisionError, ExitCode.REFUSED),
    (IndeterminateCommitError, ExitCode.UNKNOWN),
)

# The library gives advice in Python; here it is given in commands.
_ADVICE: Final = (
    (
        "read again and retry, or use store.update or store.transact, which do",
        "read it again (agentmem get --json), then give its version",
    ),
    (
        'give each operation its own op_id, or on_mismatch="replay" for the first result',
        "give each operation its own --op-id",
    ),
    (
        "use store.update, or put(expected_version=...), or overwrite=True if you mean it",
        "give --expected-version, or --overwrite if you mean it",
    ),
    (
        "run it again with the same op_id, or ask store.outcome(error)",
        "run it again with the same --op-id; if it had none, look at agentmem log first",
    ),
    (
        "overwrite=True ignores versions; leave expected_version out",
        "--overwrite ignores versions; leave --expected-version out",
    ),
    ("store.audit.conflicts('open') lists them", "agentmem conflicts --status open lists them"),
    ("wait longer (wait_s=...), or do something else", "try again when it has ended"),
    ("store.audit.tags() lists them", "agentmem tags lists them"),
    ("store.history() lists those it has", "agentmem history lists those it has"),
    (
        "say existing='keep' or existing='replace'",
        "give --existing keep, or --existing replace",
    ),
    ("say that it is to be overwritten", "give --overwrite"),
    (" by None was replaced", " was replaced"),
)


_INDENT: Final = 4  # before a command's name and behind it, in the help text


class CommandError(Exception):
    """A command cannot go on. The message is one line for a person."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Commands(TyperGroup):
    """The whole of the commands; turns whatever one of them raises into a line and a code."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Parses what stands before the command's name; see `click.Command.make_context`."""
        with _usage_without_passwords():
            return super().make_context(*arguments, **more)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the commands, each under its heading; see `click.Group.format_commands`."""
        panels: dict[str, list[str]] = {}
        for name, found in self.commands.items():
            if not found.hidden:
                panels.setdefault(panel_of(name), []).append(name)
        for panel, names in sorted(panels.items(), key=lambda each: order_of(each[0])):
            limit = formatter.width - max(map(len, names)) - _INDENT
            with formatter.section(panel):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(limit)) for name in names]
                )

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; see `click.Group.invoke`."""
        with _usage_without_passwords(), _told():
            result = super().invoke(ctx)
            if sys.stdout is not None:
                # Now, while a reader that has gone away can still be told from a success.
                sys.stdout.flush()
            return result


@contextmanager
def _usage_without_passwords() -> Iterator[None]:
    """Messages on wrong usage quote what was typed, and the URL of a store may be in it."""
    try:
        yield
    except Exception as error:
        # Which class it is hangs on the version of typer: some bring a click of their own.
        if isinstance(message := getattr(error, "message", None), str):
            error.message = hide_passwords(message)  # type: ignore[attr-defined]  # it has one
        raise


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise _ended(error.code, str(error)) from error
    except AgentMemError as error:
        raise _ended(_code_of(error), str(error)) from error
    except BrokenPipeError as error:
        _forget_output()
        raise typer.Exit(ExitCode.OUTPUT_CLOSED) from error
    except OSError as error:
        _forget_output()
        raise _ended(ExitCode.STORAGE, _described(error)) from error
    except KeyboardInterrupt as error:
        raise _ended(ExitCode.INTERRUPTED, "interrupted") from error


def _code_of(error: AgentMemError) -> ExitCode:
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.OTHER)


def _ended(code: ExitCode, message: str) -> typer.Exit:
    note(message, failed=True)
    return typer.Exit(code)


def _described(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    return f"{os.fsdecode(error.filename)}: {what}" if error.filename else what


def _forget_output() -> None:
    """What is still in the buffer has nowhere to go; Python would try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(message: str, *, failed: bool = False) -> None:
    """Tells a person something: one line on standard error, whatever the message holds."""
    for phrase, command in _ADVICE:
        message = message.replace(phrase, command)
    message = hide_passwords(message)
    colour = "red" if failed else "yellow"
    name = styled("agentmem:", colour if has_colours(sys.stderr) else None)
    typer.echo(f"{name} {printable(message)}", err=True)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Shows the library's warnings as notes, without the source line that Python would show."""

    def show(message: Warning | str, *_where: object, **_more: object) -> None:
        note(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def exit_codes() -> str:
    """The exit codes and their meanings, one a line, for the help text."""
    return "\n".join(f"{code:>3}  {meaning}" for code, meaning in _MEANINGS.items())
