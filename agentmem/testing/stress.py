"""Stress as commands, with a progress bar; the exit status is 1 if anything was wrong.

::

    python -m agentmem.testing.stress counter --increments 4000 --processes 8
    python -m agentmem.testing.stress list-append --transactions 100000 --processes 4
    python -m agentmem.testing.stress kill --cycles 300
    python -m agentmem.testing.stress interrupt --commits 20000 --threads 8
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import agentmem
from agentmem.testing.counters import WAYS, check_counter, run_counter
from agentmem.testing.crew import Step
from agentmem.testing.kills import kill_cycles
from agentmem.testing.list_append import ListAppend, list_append
from agentmem.testing.strikes import storm

__all__ = ["app"]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Stress an agentmem store.")
_console: Final = Console(stderr=True)
Processes = Annotated[int, typer.Option(min=1, help="Worker processes.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]


@contextmanager
def _bar(words: str, total: int) -> Iterator[Step]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=_console) as progress:
        task = progress.add_task(words, total=total)
        yield lambda done: progress.advance(task, done)


def _end(problems: Sequence[object], good: str) -> None:
    for problem in problems[:20]:
        _console.print(f"wrong: {problem}", markup=False, style="red")
    if problems:
        raise typer.Exit(1)
    _console.print(good, markup=False)


@contextmanager
def _new_path(path: Path | None) -> Iterator[str]:
    if path is not None:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="agentmem-stress-") as folder:
        yield str(Path(folder) / "stress.db")


StorePath = Annotated[
    Path | None, typer.Option(help="A new store, which is kept; else a temporary one.")
]


@app.command("counter")
def counter_command(
    increments: Annotated[int, typer.Option(min=1, help="Of all workers.")] = 4_000,
    processes: Processes = 8,
    durability: Annotated[str, typer.Option(help="full or relaxed.")] = "relaxed",
) -> None:
    """Counts up by every way to write; none may be lost."""
    problems = []
    for way in WAYS:
        with _new_path(None) as path, _bar(way, increments) as step:
            run_counter(
                path, way, kind="processes", workers=processes, increments=increments,
                durability=durability, step=step,
            )  # fmt: skip
            problems += [f"{way}: {problem}" for problem in check_counter(path, increments)]
    _end(problems, f"counted exactly to {increments}, {len(WAYS)} times")


@app.command("list-append")
def list_append_command(
    transactions: Annotated[int, typer.Option(min=1, help="Of all workers.")] = 10_000,
    processes: Processes = 4,
    seed: Seed = 1,
    unchecked: Annotated[bool, typer.Option(help="Seed a bug: no read is validated.")] = False,
    store: StorePath = None,
) -> None:
    """Appends to lists and checks by a dependency graph that the history is serializable."""
    work = ListAppend(transactions, processes, seed, checked=not unchecked)
    with _new_path(store) as path, _bar("list-append", transactions) as step:
        verdict = list_append(path, work, step)
    committed = sum(each.outcome == "committed" for each in verdict.history)
    _end(
        [*verdict.anomalies, *verdict.problems],
        f"{committed} of {len(verdict.history)} transactions committed; no anomaly",
    )


@app.command("kill")
def kill_command(
    cycles: Annotated[int, typer.Option(min=1, help="How often the writers are killed.")] = 300,
    seed: Seed = 1,
) -> None:
    """Kills writers (SIGKILL) while they commit; what they were told must hold."""
    with tempfile.TemporaryDirectory(prefix="agentmem-kill-") as folder:
        with _bar("kill", cycles) as step:
            problems = kill_cycles(Path(folder), cycles, seed=seed, step=step)
        _end(problems, f"{cycles} cycles: nothing lost, nothing applied twice")


@app.command("interrupt")
def interrupt_command(
    commits: Annotated[int, typer.Option(min=1, help="Of all threads.")] = 20_000,
    threads: Annotated[int, typer.Option(min=1, help="Threads that commit.")] = 8,
    seed: Seed = 1,
    store: StorePath = None,
) -> None:
    """Raises asynchronous exceptions in threads that commit; none may touch another."""
    with _new_path(store) as path, agentmem.open(path, durability="relaxed") as opened:
        with _bar("interrupt", commits) as step:
            report = storm(opened, threads=threads, commits=commits, seed=seed, step=step)
        _end(
            report.problems,
            f"{len(report.interrupted)} of {commits} calls were interrupted; each counts once",
        )


if __name__ == "__main__":
    app()
