"""Questions before a command does what a person may not have meant."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.layout import printable
from agentmem.cli.styles import has_colours, is_terminal, styled
from agentmem.cli.targets import hide_passwords

__all__ = ["YesOption", "confirm"]

_MAX_ANSWERS: Final = 3
_ANSWERS: Final = {"y": True, "yes": True, "n": False, "no": False, "": False}

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def confirm(question: str, *, yes: bool) -> None:
    """Asks on the terminal, and returns if the answer is yes; Enter alone is no.

    The question goes to standard error, so that standard output holds the result alone.

    Args:
        question: what will be done, and to what: ``Erase 'plan' and its 12 versions?``
        yes: it was answered on the command line.

    Raises:
        CommandError: the answer is no, or nobody can be asked.
    """
    if yes:
        return
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise CommandError(
            ExitCode.USAGE,
            f"this command asks first ({question}), and nobody can be asked here; give --yes",
        )
    prompt = f"{hide_passwords(printable(question))} [y/N] "
    for _attempt in range(_MAX_ANSWERS):
        sys.stderr.write(styled(prompt, "yellow" if has_colours(sys.stderr) else None))
        sys.stderr.flush()
        typed = sys.stdin.readline()
        if not typed.endswith("\n"):  # the end of input
            sys.stderr.write("\n")
        answer = _ANSWERS.get(typed.strip().lower())
        if answer is True:
            return
        if answer is False:
            break
    raise CommandError(ExitCode.OTHER, "the answer was not yes; nothing was done")
