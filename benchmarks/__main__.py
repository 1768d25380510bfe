"""Runs the benchmarks: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    async_tasks,
    checkpoints,
    collisions,
    coordination,
    counters,
    exchange,
    history,
    langgraph_stores,
    postgres,
    postgres_counter,
    processes,
    provenance,
    reads,
    search,
    single_calls,
    texts,
    threads,
    transactions,
    vector_store,
    verifying,
    watching,
)
from benchmarks.report import (
    NOT_INSTALLED,
    WRONG,
    Benchmark,
    MissingPeerError,
    Row,
    command_line,
    machine,
    show,
)
from benchmarks.timing import Bench, WrongResultError

BENCHMARKS: Final[Sequence[Benchmark]] = (
    *single_calls.BENCHMARKS,
    *transactions.BENCHMARKS,
    *threads.BENCHMARKS,
    *async_tasks.BENCHMARKS,
    *processes.BENCHMARKS,
    *reads.BENCHMARKS,
    *search.BENCHMARKS,
    *texts.BENCHMARKS,
    *vector_store.BENCHMARKS,
    *history.BENCHMARKS,
    *provenance.BENCHMARKS,
    *counters.BENCHMARKS,
    *coordination.BENCHMARKS,
    *collisions.BENCHMARKS,
    *exchange.BENCHMARKS,
    *verifying.BENCHMARKS,
    *postgres.BENCHMARKS,
    *postgres_counter.BENCHMARKS,
    *watching.BENCHMARKS,
    *langgraph_stores.BENCHMARKS,
    *checkpoints.BENCHMARKS,
)
_STORE_VARIABLE: Final = "AGENTMEM_TEST_DSN"

_WIDE: Final = 240  # columns: in a file or a pipe no cell of the table is wrapped


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures agentmem beside its alternatives, each side in turn.",
        epilog="Exits with 1 if a result was wrong; a goal that was not met is only shown.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"run this one; may be repeated: {', '.join(names)}",
    )
    parser.add_argument(
        "--scale",
        type=_positive,
        default=1.0,
        metavar="FACTOR",
        help="multiplies the number of samples (default: 1)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the results as JSON; - is standard output"
    )
    parser.add_argument(
        "--folder",
        default=tempfile.gettempdir(),
        metavar="FOLDER",
        help="on which disk to measure (default: %(default)s)",
    )
    parser.add_argument(
        "--store",
        type=_server_url,
        default=os.environ.get(_STORE_VARIABLE) or None,
        metavar="URL",
        help="the PostgreSQL server of the pg- benchmarks, as postgresql://USER@HOST/DATABASE; "
        f"without it {_STORE_VARIABLE}, else one of its own is started in the folder",
    )
    return parser.parse_args(given)


def _server_url(text: str) -> str:
    # No message holds the URL, which may hold a password.
    try:
        parts = urlsplit(text)
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise argparse.ArgumentTypeError("the URL cannot be read") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise argparse.ArgumentTypeError("a URL that begins with postgresql://")
    if "store" in options:
        raise argparse.ArgumentTypeError("leave ?store= out: stores are made and dropped")
    return text


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("a number above 0")
    return number


class _Watcher(Protocol):
    def begin(self, name: str) -> None: ...

    def step(self, fraction: float) -> None: ...


class _Lines:
    """What is being run, a line each: for a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()

    def begin(self, name: str) -> None:
        text = f"{time.monotonic() - self._begun:5.0f} s  {name}"
        self._console.print(text, markup=False, highlight=False)

    def step(self, fraction: float) -> None:
        """Not worth a line."""


class _Bar:
    def __init__(self, progress: Progress, count: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=count)
        self._begun = -1

    def begin(self, name: str) -> None:
        self._begun += 1
        self._progress.update(self._task, description=name, completed=self._begun)

    def step(self, fraction: float) -> None:
        self._progress.update(self._task, completed=self._begun + fraction)


@contextmanager
def _watching(count: int) -> Iterator[_Watcher]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # Two looks a second: what draws the bar takes time from what is measured.
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as progress:
        yield _Bar(progress, count)


def _run(
    benchmark: Benchmark, arguments: argparse.Namespace, about: dict[str, Any], watcher: _Watcher
) -> list[Row]:
    watcher.begin(benchmark.name)
    try:
        with tempfile.TemporaryDirectory(prefix="agentmem-bench-", dir=arguments.folder) as inside:
            bench = Bench(Path(inside), arguments.scale, watcher.step, arguments.store, about)
            figures = benchmark.run(bench)
    except MissingPeerError as error:
        return [Row(line, None, NOT_INSTALLED, str(error)) for line in benchmark.lines]
    except WrongResultError as error:
        return [Row(line, None, WRONG, str(error)) for line in benchmark.lines]
    # Whatever it was, it is shown, and the other benchmarks are not lost with it.
    except Exception as error:  # noqa: BLE001
        problem = f"{type(error).__name__}: {error}"
        return [Row(line, None, WRONG, problem) for line in benchmark.lines]
    return [Row.measured(line, figures[line.name]) for line in benchmark.lines]


def _write_json(target: str, results: dict[str, Any]) -> None:
    text = json.dumps(results, indent=2, ensure_ascii=False)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def main(given: Sequence[str]) -> int:
    """Runs what the arguments ask for, and returns the exit code."""
    arguments = _arguments(given)
    chosen = [one for one in BENCHMARKS if not arguments.only or one.name in arguments.only]
    about = machine(Path(arguments.folder))
    command = command_line(given, arguments.store)
    started, begun = datetime.now(UTC), time.monotonic()
    rows: list[Row] = []
    with _watching(len(chosen)) as watcher:
        for benchmark in chosen:
            rows += _run(benchmark, arguments, about, watcher)
    about["seconds"] = round(time.monotonic() - begun)
    if arguments.json is not None:
        found = {
            "command": command,
            "started": started.isoformat(),
            "scale": arguments.scale,
            "machine": about,
            "rows": [row.as_json() for row in rows],
        }
        _write_json(arguments.json, found)
    if arguments.json != "-":
        console = Console()
        if not console.is_terminal:
            console.width = _WIDE
        show(console, rows, about, command)
    return 1 if any(row.status == WRONG for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
