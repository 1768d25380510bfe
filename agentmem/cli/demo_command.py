"""``agentmem demo``: agents race on real files, without and with agentmem."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agentmem.cli.call import is_there, limits_of, quiet_drivers
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import JsonOption
from agentmem.cli.output import Output
from agentmem.cli.targets import hide_passwords, is_misspelt, is_url, shown, store_name, with_store
from agentmem.demo.scenario import MAX_AGENTS, MAX_WRITES, MIN_AGENTS, Scenario

if TYPE_CHECKING:
    from agentmem.demo.run import Result

__all__ = ["register"]

_SEED: Final = 1
_AGENTS: Final = 8
_WRITES: Final = 50
_STORE: Final = "team.db"
_UNPROTECTED: Final = "-unprotected"
_RANDOM_BYTES: Final = 6


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo", epilog="Example: agentmem demo --agents 4 --seed 7")(_demo)


def _demo(
    ctx: typer.Context,
    seed: Annotated[
        int, typer.Option(help="Chooses which answers are lost, and when writers are killed.")
    ] = _SEED,
    agents: Annotated[
        int, typer.Option(min=MIN_AGENTS, max=MAX_AGENTS, help="Agents, a process each.")
    ] = _AGENTS,
    writes: Annotated[
        int, typer.Option(min=1, max=MAX_WRITES, help="Additions of each agent to each counter.")
    ] = _WRITES,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="Where to make the store: a new file, or postgresql://HOST/DATABASE; else in a "
            "new temporary folder.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Lets agents race for one memory, without and with agentmem.

    Nine races, in real processes on real files: a shared counter, a stale document, a retried
    tool call, many agents after one task, a lock whose holder is stopped, a queue whose workers
    die, a follower of changes, a paid tool, a crash in the middle. Each is run first unprotected
    (JSON documents in SQLite; read, change, write back), then on agentmem. At the end: a table of
    what was lost, and commands that show the history that is left in the store, which is kept.
    With a postgresql:// URL the store is a new schema of that database, with a name of its own if
    the URL names none; the unprotected memory stays a file.

    Exits with 0 if agentmem lost nothing, else with 70.
    """
    from rich.console import Console

    from agentmem.demo.report import as_document, introduce, show

    scenario = Scenario.of(seed, agents, writes)
    json = json or _before(ctx, "json") is True
    files = _new_files(store if store is not None else _before(ctx, "store"))
    console = Console(highlight=False)
    quiet_drivers()
    if not json:
        introduce(scenario, console)
    result = _run(scenario, *files)
    if json:
        Output(json=True).document(as_document(result))
    else:
        show(result, console)
    if not result.ok:
        raise typer.Exit(ExitCode.BUG)


def _before(ctx: typer.Context, option: str) -> Any:
    """An option that stood before the command's name; None if it did not.

    AGENTMEM_STORE does not count: it names the store that a person works with.
    """
    parent = ctx.parent
    source = parent.get_parameter_source(option) if parent is not None else None
    typed = source is not None and source.name == "COMMANDLINE"
    return parent.params[option] if parent is not None and typed else None


def _new_files(wanted: str | None) -> tuple[str, str]:
    """The store and the path of the unprotected memory; there is nothing at either."""
    if wanted == ":memory:":
        raise CommandError(ExitCode.USAGE, "a store in memory cannot be shared; name a file")
    if wanted is not None and (is_misspelt(wanted) or "://" in wanted):
        return _new_schema(wanted), os.path.join(_temporary_folder(), f"demo{_UNPROTECTED}.db")
    store = Path(wanted or os.path.join(_temporary_folder(), _STORE))
    unprotected = store.with_name(f"{store.stem}{_UNPROTECTED}{store.suffix}")
    for path in (store, unprotected):
        if os.path.lexists(path):
            raise CommandError(
                ExitCode.USAGE,
                f"{path} is there, and the demo only writes new files; give another --store",
            )
    if not store.parent.is_dir():
        raise CommandError(ExitCode.USAGE, f"there is no folder {store.parent}; make it first")
    return str(store), str(unprotected)


def _temporary_folder() -> str:
    return tempfile.mkdtemp(prefix="agentmem-demo-")


def _new_schema(url: str) -> str:
    """The URL of a store that is not there."""
    if is_url(url) and not is_misspelt(url) and store_name(url) is None:
        return with_store(url, f"agentmem_demo_{secrets.token_hex(_RANDOM_BYTES)}")
    if is_there(url, limits_of(None)):
        raise CommandError(
            ExitCode.USAGE,
            f"{shown(url)} is there, and the demo only makes new stores; give another ?store=",
        )
    return url


def _run(scenario: Scenario, store: str, unprotected: str) -> Result:
    from agentmem.demo.crew import ChildFailedError
    from agentmem.demo.progress import watching
    from agentmem.demo.races import RACES
    from agentmem.demo.run import Demo

    try:
        with watching(sum(len(race.ways) for race in RACES)) as watcher:
            return Demo(scenario, store, unprotected, watcher).run()
    except ChildFailedError as error:
        typer.echo(hide_passwords(error.details), err=True)
        raise CommandError(ExitCode.OTHER, str(error)) from error
