"""What a benchmark says, and how it is shown."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich import box
from rich.console import Console
from rich.table import Table

from agentmem.engines.sqlite.driver import driver
from benchmarks.timing import Bench, Samples

__all__ = ["Benchmark", "Figure", "Goal", "Line", "MissingPeerError", "Row", "machine", "show"]

MET: Final = "met"
NOT_MET: Final = "not met"
NO_GOAL: Final = "no goal"
NOT_INSTALLED: Final = "not installed"
WRONG: Final = "wrong"


class MissingPeerError(Exception):
    """What agentmem is compared with is not installed; the message says what."""


@dataclass(frozen=True)
class Goal:
    """What the compared number should be: ``<=`` or ``>=`` a bound.

    Attributes:
        stretch: what would be better still.
    """

    sign: str
    bound: float
    stretch: float | None = None

    def met(self, number: float) -> bool:
        """Whether a number reaches it."""
        return number <= self.bound if self.sign == "<=" else number >= self.bound


@dataclass(frozen=True)
class Figure:
    """What was measured for a line.

    Attributes:
        ours, other: in the unit; `other` is None if there is nothing beside it.
        unit: ``s``, ``/s``, or what is counted.
        number: what is compared with the goal.
        measure: the unit of `number`; ``x`` is a ratio.
        samples: how many of `ours` the median is of.
    """

    ours: float
    other: float | None
    unit: str
    number: float
    measure: str
    samples: int

    @classmethod
    def cost(cls, ours: Samples, other: Samples) -> Figure:
        """How many times as long as the other ours takes."""
        mine, others = ours.median, other.median
        return cls(mine, others, "s", mine / others, "x", len(ours.seconds))

    @classmethod
    def speed(cls, ours: Samples, other: Samples, each: int = 1, other_each: int = 1) -> Figure:
        """How many times as much as the other ours gets done.

        Args:
            each, other_each: pieces of work in a sample.
        """
        mine, others = each / ours.median, other_each / other.median
        return cls(mine, others, "/s", mine / others, "x", len(ours.seconds))


@dataclass(frozen=True)
class Line:
    """What one line of the table compares. A line without a goal is there to be known."""

    name: str
    ours: str
    other: str
    goal: Goal | None = None


@dataclass(frozen=True)
class Benchmark:
    """Something that is run as one, and fills one or more lines.

    Attributes:
        run: returns a figure for each line, by its name.
    """

    name: str
    lines: Sequence[Line]
    run: Callable[[Bench], Mapping[str, Figure]]


@dataclass(frozen=True)
class Row:
    """A line with what came out.

    Attributes:
        problem: why there is no figure; empty if there is one.
    """

    line: Line
    figure: Figure | None
    status: str
    problem: str = ""

    @classmethod
    def measured(cls, line: Line, figure: Figure) -> Row:
        """A row with a figure."""
        if line.goal is None:
            return cls(line, figure, NO_GOAL)
        return cls(line, figure, MET if line.goal.met(figure.number) else NOT_MET)

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        line, figure, goal = self.line, self.figure, self.line.goal
        return {
            "name": line.name,
            "ours": {"what": line.ours, "median": figure.ours if figure else None},
            "other": {"what": line.other, "median": figure.other if figure else None},
            "unit": figure.unit if figure else None,
            "number": figure.number if figure else None,
            "measure": figure.measure if figure else None,
            "samples": figure.samples if figure else None,
            "goal": {"sign": goal.sign, "bound": goal.bound, "stretch": goal.stretch}
            if goal
            else None,
            "status": self.status,
            "problem": self.problem,
        }


def machine(folder: Path) -> dict[str, Any]:
    """What was measured on, as JSON values.

    Args:
        folder: where the stores lie.
    """
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": f"{driver.sqlite_version} ({driver.__name__})",
        "sqlite_of_python": sqlite3.sqlite_version,
        "file_system": _file_system(folder),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _file_system(folder: Path) -> str:
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    mounts = [line.split()[1:3] for line in lines]
    resolved = folder.resolve()
    above = [(len(at), kind) for at, kind in mounts if resolved.is_relative_to(at)]
    return max(above)[1] if above else "unknown"


def show(console: Console, rows: Sequence[Row], about: Mapping[str, Any], command: str) -> None:
    """Prints the table, and below it where and how it was made."""
    table = Table(box=box.MARKDOWN if not console.is_terminal else box.SIMPLE_HEAD)
    for title in ("agentmem", "compared with"):
        table.add_column(title, no_wrap=not console.is_terminal)
    for title in ("median", "its median", "ratio", "goal"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items())
    for text in (words, f"$ {command}"):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    for row in rows:
        if row.status == WRONG:
            problem = f"{row.line.name} is WRONG: {row.problem}"
            console.print(problem, markup=False, highlight=False, soft_wrap=True)


def _cells(row: Row) -> tuple[str, ...]:
    line, figure = row.line, row.figure
    goal = ""
    if line.goal is not None:
        sign = "≤" if line.goal.sign == "<=" else "≥"
        goal = f"{sign} {line.goal.bound:g}{_times(figure)}"
    if figure is None:
        return line.ours, line.other, "", "", "", goal, row.status
    other = _amount(figure.other, figure.unit) if figure.other is not None else ""
    number = f"{figure.number:.2f}×" if figure.measure == "x" else _measured(figure)
    status = "" if row.status == NO_GOAL else row.status
    return line.ours, line.other, _amount(figure.ours, figure.unit), other, number, goal, status


def _measured(figure: Figure) -> str:
    return f"{figure.number:.3g} {figure.measure}"


def _times(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return "×" if figure.measure == "x" else f" {figure.measure}"


def _amount(number: float, unit: str) -> str:
    if unit != "s":
        return f"{number:,.0f}{unit if unit.startswith('/') else ' ' + unit}"
    if number < 1e-3:
        return f"{number * 1e6:.1f} µs"
    return f"{number * 1e3:.2f} ms"


def command_line(arguments: Sequence[str], url: str | None = None) -> str:
    """How to run it again.

    Args:
        url: of a server, which may hold a password: only where it is, is shown.
    """
    words = [each.replace(url, _location(url)) if url else each for each in arguments]
    return " ".join((Path(sys.executable).name, "-m", "benchmarks", *words))


def _location(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
