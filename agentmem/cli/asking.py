"""Questions before a command does what a person may not have meant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.output import is_terminal, printable

__all__ = ["YesOption", "confirm"]

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def confirm(question: str, *, yes: bool) -> None:
    """Asks on the terminal, and returns if the answer is yes.

    The question goes to standard error, so that standard output holds the result alone.

    Args:
        yes: it was answered on the command line.

    Raises:
        CommandError: the answer is no, or nobody can be asked.
    """
    if yes:
        return
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise CommandError(
            ExitCode.USAGE, "this command asks first, and nobody can be asked here; give --yes"
        )
    try:
        meant = typer.confirm(printable(question), err=True)
    except typer.Abort:  # Ctrl-C, or the end of input
        typer.echo(err=True)
        meant = False
    if not meant:
        raise CommandError(ExitCode.OTHER, "nothing was done")
