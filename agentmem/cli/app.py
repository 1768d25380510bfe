"""The application: its global options, and the commands in the order of the help text."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from agentmem import __version__
from agentmem.cli import (
    completing,
    coordinating,
    demo_command,
    entries,
    exchanging,
    explaining,
    log_command,
    merging,
    moving,
    retention,
    searching,
    store_commands,
    undoing,
    versions,
    watching,
)
from agentmem.cli.call import Shared
from agentmem.cli.failures import Commands, exit_codes
from agentmem.cli.options import JsonOption, NamespaceOption, TimeoutOption

__all__ = ["app"]

# \b keeps a paragraph's lines as they are.
_EPILOG: Final = f"""\
\b
Example:
  agentmem init team.db && export AGENTMEM_STORE=team.db
  agentmem put plan '{{"days": 3}}' && agentmem get plan && agentmem log

\b
Exit codes:
{exit_codes()}
"""

app = typer.Typer(
    cls=Commands,
    help="A transactional shared-memory store for LLM agents.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    # Plain help is quick, and a message is one line; rich shows results.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentmem {__version__}")
        raise typer.Exit


@app.callback()
def shared(
    ctx: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="STORE",
            envvar="AGENTMEM_STORE",
            help="A file, or postgresql://HOST/DATABASE?store=NAME.",
        ),
    ] = None,
    json: JsonOption = False,
    timeout_s: TimeoutOption = None,
    namespace: NamespaceOption = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Keeps the options that stand before the command's name for the command."""
    ctx.obj = Shared(store, json, timeout_s, namespace)


store_commands.register_init(app)
entries.register(app)
searching.register(app)
watching.register_watch(app)
log_command.register(app)
versions.register(app)
undoing.register(app)
explaining.register(app)
merging.register(app)
coordinating.register(app)
watching.register_consumers(app)
store_commands.register(app)
exchanging.register(app)
retention.register(app)
moving.register(app)
completing.register(app)
demo_command.register(app)
