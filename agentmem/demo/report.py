"""What the demo shows: what will happen, what was lost, and how to look at what is left."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentmem.cli.targets import is_url, shown, store_name
from agentmem.demo.races import AGENTMEM, RACES, UNPROTECTED
from agentmem.demo.run import Result
from agentmem.demo.scenario import Scenario
from agentmem.demo.stage import Row

__all__ = ["as_document", "commands", "introduce", "show"]

_PROGRAM: Final = "agentmem"
_INTRODUCTION: Final = (
    "{agents} agents share one memory, each in a process of its own, on real files. First "
    "unprotected, as it is often written: JSON documents in SQLite; read, change, write back. "
    "Then on agentmem."
)
# The races in which the agents of the demo wait for one another before they write.
_LATENCY: Final = (
    "In races 2, 4, 7 and 8 agents look before any of them writes. Here they wait for one another; "
    "with a model's seconds between reading and writing it happens by itself."
)
_LOOK: Final = (
    ("log", "--limit", "30"),
    ("history", "counter", "--limit", "5"),
    ("history", "plan"),
    ("show", "plan@2"),
    ("diff", "plan", "1", "3"),
    ("history", "book-hotel", "-n", "tasks"),
    ("get", "bookings"),
    ("history", "release"),
    ("consumers", "list"),
    ("watch", "-n", "notes", "--since", "0", "--no-wait"),
    ("list", "-n", "drafts"),
    ("merge", "list"),
    ("stats",),
    ("verify",),
)


def introduce(scenario: Scenario, console: Console) -> None:
    """Says what is going to happen."""
    console.print(Text(_INTRODUCTION.format(**scenario.numbers)))
    console.print()
    races = Table.grid(padding=(0, 1))
    for number, race in enumerate(RACES, 1):
        story = race.story.format(**scenario.numbers)
        races.add_row(str(number), Text.assemble((race.title, "bold"), ": ", story))
    console.print(races)
    console.print()
    console.print(Text(_LATENCY))
    console.print()


def show(result: Result, console: Console) -> None:
    """Says what has happened, and how to look at it."""
    console.print(_table(result))
    console.print()
    for line in _verdict(result):
        console.print(line)
    console.print()
    console.print(Text("See what the agents have left in the store:"))
    for command in commands(result):
        # A command that is wrapped cannot be copied.
        console.print(Text(f"  {command}", "bold"), soft_wrap=True)
    console.print(Text(f"The unprotected memory is in {result.unprotected}"), soft_wrap=True)
    if (schema := _schema(result.store)) is not None:
        console.print(
            Text(f"The store stays in the database until you DROP SCHEMA {schema} CASCADE"),
            soft_wrap=True,
        )


def _schema(store: str) -> str | None:
    """The schema of a store on a server, quoted for SQL; None for a file."""
    name = store_name(store) if is_url(store) else None
    return None if name is None else '"' + name.replace('"', '""') + '"'


def _table(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what was lost")
    table.add_column(UNPROTECTED, justify="right", no_wrap=True)
    table.add_column(AGENTMEM, justify="right", no_wrap=True)
    table.add_column("how, on agentmem")
    for number, race in enumerate(RACES, 1):
        unprotected, *protected = (row for row in result.rows if row.race is race)
        for index, row in enumerate(protected):
            first = index == 0
            table.add_row(
                f"{number} {race.lost}" if first else "",
                _lost(unprotected) if first else "",
                _lost(row),
                row.way.how(row.noticed),
            )
    return table


def _lost(row: Row) -> Text:
    whole = max(row.expected, row.found)
    return Text(f"{row.lost} of {whole}", "red" if row.lost else "green")


def _verdict(result: Result) -> list[Text]:
    checked = f"{result.commits} commits, {result.entries} entries"
    if result.problems:
        verified = Text(f"The log is NOT whole ({checked}):", "red")
    else:
        verified = Text(f"The log is whole: {checked}, every hash and version checked.")
    lines = [verified, *(Text(f"  {problem}", "red") for problem in result.problems)]
    if result.lost(AGENTMEM):
        lines.append(Text("agentmem has LOST something: this is a bug in agentmem.", "bold red"))
    else:
        lines.append(Text("agentmem has lost nothing.", "bold green"))
    spared = [row.race.title for row in result.rows if _unharmed(row)]
    if spared:
        names = ", ".join(spared)
        lines.append(Text(f"Unprotected, this run lost nothing in: {names}. Races are luck."))
    return lines


def _unharmed(row: Row) -> bool:
    return row.way.side == UNPROTECTED and row.lost == 0


def commands(result: Result) -> list[str]:
    """Commands that show the history that the demo has left, as they are typed in a shell."""
    program = [*_program(), "--store", shown(result.store)]
    return [shlex.join([*program, *words]) for words in _LOOK]


def _program() -> list[str]:
    """How this program is called from here."""
    started = Path(sys.argv[0])
    found = shutil.which(_PROGRAM)
    if found is not None and started.name == _PROGRAM and os.path.samefile(found, started):
        return [_PROGRAM]
    if started.name == _PROGRAM and os.access(started, os.X_OK):
        return [str(started)]
    return [sys.executable, "-m", _PROGRAM]


def as_document(result: Result) -> dict[str, Any]:
    """The result as one JSON document."""
    scenario = result.scenario
    return {
        "ok": result.ok,
        "seed": scenario.seed,
        "agents": list(scenario.agents),
        "writes": scenario.writes,
        "lost_answers": list(scenario.lost_answers),
        "kills": [
            {"in_middle": kill.in_middle, "after_ms": kill.after_ms} for kill in scenario.kills
        ],
        "store": shown(result.store),
        "unprotected": result.unprotected,
        "rows": [_row_document(row) for row in result.rows],
        "lost": {side: result.lost(side) for side in (UNPROTECTED, AGENTMEM)},
        "verify": {
            "commits": result.commits,
            "entries": result.entries,
            "problems": list(result.problems),
        },
        "commands": commands(result),
    }


def _row_document(row: Row) -> dict[str, Any]:
    return {
        "race": row.race.name,
        "side": row.way.side,
        "way": row.way.name,
        "expected": row.expected,
        "found": row.found,
        "lost": row.lost,
        "noticed": row.noticed,
        "what": row.race.lost,
        "how": row.way.how(row.noticed),
    }
