"""How results are shown: as JSON, as tables and colours on a terminal, as plain text in a pipe.

Every command prints through an `Output`, and nothing else decides about colours, widths and
escapes. Keys, values, agents and notes come out of the store, and anybody may have written them:
they are never taken for markup, and characters that could move the cursor, hide or reorder text
are shown as JSON escapes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from agentmem.cli.graph import plain
from agentmem.cli.layout import (
    GAP,
    aligned,
    as_json,
    folded,
    padded,
    printable,
    shared_widths,
    shortened,
    width_of,
)
from agentmem.cli.styles import colour_of, has_colours, is_terminal, styled, terminal_width

__all__ = [
    "Branch",
    "Output",
    "as_json",
    "counted",
    "is_terminal",
    "printable",
    "progress_bar",
    "stages_bar",
]

_LAYOUT: Final = "\n\t"
_MAX_CELL: Final = 500
_MAX_LINES: Final = 3  # of a cell
_MIN_FIELD: Final = 10  # columns for a field's text, on however narrow a terminal
_CHANGES: Final = {"+": "green", "-": "red", "~": "yellow", "@": "cyan"}
_FORKS: Final = ("├── ", "└── ", "│   ", "    ")
_PLAIN_FORKS: Final = ("|-- ", "`-- ", "|   ", "    ")


@dataclass(slots=True)
class Branch:
    """A node of a tree, see `Output.tree`.

    Attributes:
        text: its line.
        style: the colour of the line; None is that of the terminal.
        branches: what hangs below it, in order.
    """

    text: str
    style: str | None = None
    branches: list[Branch] = field(default_factory=list)


def counted(number: int, name: str) -> str:
    """A number of things, as English says it: "1 entry", "2 entries"."""
    if number == 1:
        return f"1 {name}"
    return f"{number} {name[:-1]}ies" if name.endswith("y") else f"{number} {name}s"


class Output:
    """Standard output of one command.

    Attributes:
        json: results are shown as JSON documents.
        terminal: a person is looking.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.terminal = is_terminal(sys.stdout)
        self._colours = has_colours(sys.stdout)

    def document(self, document: Any) -> None:
        """Prints one JSON document: on one line, or indented for a person."""
        indent = 2 if self.terminal else None
        text = json.dumps(document, ensure_ascii=False, indent=indent)
        self._write(printable(text, keep="\n") + "\n")

    def record(self, document: Any) -> None:
        """Prints one JSON document of several, on a line of its own."""
        text = json.dumps(document, ensure_ascii=False)
        self._write(printable(text) + "\n")

    def row(self, cells: Iterable[tuple[str, str | None]], graph: str = "") -> None:
        """Prints one line of texts with colours, those that are empty left out.

        On a terminal it takes one line, whatever the texts hold: it is cut.

        Args:
            graph: what is drawn before them, see `agentmem.cli.graph`.
        """
        if not _can_print(graph):
            graph = plain(graph)
        left = terminal_width() if self.terminal else None
        shown: list[tuple[str, str | None]] = [(graph, "dim")] if graph else []
        shown += [(printable(text), style) for text, style in cells if text]
        parts = []
        for text, style in shown:
            if left is not None:
                if left <= 0:
                    break
                text = folded(text, left, 1)[0]  # noqa: PLW2901  # what is shown of it
                left -= width_of(text) + len(GAP)
            parts.append(self._styled(text, style))
        self._write(GAP.join(parts) + "\n")

    def line(self, text: str, style: str | None = None) -> None:
        """Prints one line, whatever the text holds."""
        self.spans([(text, style)])

    def spans(self, spans: Iterable[tuple[str, str | None]]) -> None:
        """Prints one line of texts, each with a colour of its own; None is none."""
        self._write("".join(self._styled(printable(text), style) for text, style in spans) + "\n")

    def string(self, text: str) -> None:
        """Prints a string itself: in a pipe exactly, on a terminal without tricks."""
        if not self.terminal:
            self._write(text)
            return
        self._write(printable(text, keep=_LAYOUT) + ("" if text.endswith("\n") else "\n"))

    def value(self, value: Any) -> None:
        """Prints a value as JSON: on one line, or indented and coloured for a person."""
        self._write(self._shown(value) + "\n")

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        empty: str = "nothing to show",
    ) -> None:
        """Prints rows under headings; None is an empty cell.

        Columns in which every cell is empty are left out. In a pipe nothing is shortened, and
        every row is one line. On a terminal long cells are folded and shortened; if the columns
        do not fit at all, each row is a block of lines.

        Args:
            empty: what a person is told if there are no rows. Nothing is printed in a pipe.
        """
        if not rows:
            if self.terminal:
                self.line(empty, "dim")
            return
        used = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
        headings = [columns[index] for index in used]
        cells = [["" if row[i] is None else printable(str(row[i])) for i in used] for row in rows]
        if not self.terminal:
            self._write(aligned([headings, *cells]))
            return
        cells = [[shortened(cell, _MAX_CELL) for cell in row] for row in cells]
        widths = shared_widths([headings, *cells], terminal_width())
        if widths is None:
            self._print_blocks(headings, cells)
        else:
            self._print_columns(headings, cells, widths)

    def fields(self, fields: Sequence[tuple[str, object]], *, value: Any = ...) -> None:
        """Prints names and values one below the other; those that are None are left out.

        Args:
            value: a JSON value to print last, under the name ``value``.
        """
        rows = [(name, printable(str(each))) for name, each in fields if each is not None]
        names = [name for name, _text in rows] + ([] if value is ... else ["value"])
        width = max(map(len, names), default=0)
        for name, text in rows:
            self._print_field(name, text, width)
        if value is not ...:
            shown = self._shown(value).replace("\n", "\n" + " " * (width + len(GAP)))
            self._write(self._name(padded("value", width)) + GAP + shown + "\n")

    def changes(self, lines: Iterable[str]) -> None:
        """Prints lines that begin with ``+``, ``-``, ``~`` or ``@``, in colours for a person."""
        for line in lines:
            self.line(line, _CHANGES.get(line[:1]))

    def tree(self, root: Branch) -> None:
        """Prints a tree: each branch on a line of its own, below and right of what it hangs on."""
        fork, last, through, blank = _FORKS if _can_print("".join(_FORKS)) else _PLAIN_FORKS
        self.line(root.text, root.style)
        # Not recursive: a lineage can be deeper than Python's stack.
        waiting = [("", root.branches, 0)]
        while waiting:
            before, branches, index = waiting.pop()
            if index == len(branches):
                continue
            branch, ends = branches[index], index == len(branches) - 1
            self.spans([(before + (last if ends else fork), "dim"), (branch.text, branch.style)])
            waiting.append((before, branches, index + 1))
            waiting.append((before + (blank if ends else through), branch.branches, 0))

    # Parts of these.

    def _shown(self, value: Any) -> str:
        if not self.terminal:
            return as_json(value)
        text = printable(json.dumps(value, ensure_ascii=False, indent=2), keep="\n")
        return _highlighted(text) if self._colours else text

    def _print_columns(
        self, headings: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]
    ) -> None:
        self._print_row([[each] for each in headings], widths, ["bold"] * len(headings))
        colours = [colour_of(heading) for heading in headings]
        for row in rows:
            cells = [
                folded(cell, width, _MAX_LINES) for cell, width in zip(row, widths, strict=True)
            ]
            self._print_row(cells, widths, colours)

    def _print_row(
        self,
        cells: Sequence[Sequence[str]],
        widths: Sequence[int],
        colours: Sequence[str | None],
    ) -> None:
        for index in range(max(map(len, cells))):
            parts = [cell[index] if index < len(cell) else "" for cell in cells]
            last = max(i for i, part in enumerate(parts) if part or i == 0)
            shown = [
                self._styled(part, colour) + ("" if i == last else padded(part, width)[len(part) :])
                for i, (part, width, colour) in enumerate(zip(parts, widths, colours, strict=True))
                if i <= last
            ]
            self._write(GAP.join(shown) + "\n")

    def _print_blocks(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        width = max(map(len, headings))
        for index, row in enumerate(rows):
            if index:
                self._write("\n")
            for heading, cell in zip(headings, row, strict=True):
                if cell:
                    self._print_field(heading, cell, width)

    def _print_field(self, name: str, text: str, width: int) -> None:
        if not self.terminal:
            self._write(padded(name, width) + GAP + text + "\n")
            return
        indent = width + len(GAP)
        lines = folded(text, max(_MIN_FIELD, terminal_width() - indent))
        shown = [self._styled(line, colour_of(name)) for line in lines]
        self._write(self._name(padded(name, width)) + GAP)
        self._write(("\n" + " " * indent).join(shown) + "\n")

    def _name(self, name: str) -> str:
        return self._styled(name, "bold")

    def _styled(self, text: str, style: str | None) -> str:
        return styled(text, style) if self._colours else text

    def _write(self, text: str) -> None:
        if sys.stdout is not None:
            sys.stdout.write(text)


def _highlighted(text: str) -> str:
    """JSON in colours."""
    from rich.console import Console
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    shown = Text(text)
    JSONHighlighter().highlight(shown)
    console = Console(markup=False, emoji=False, force_terminal=True)
    with console.capture() as capture:
        console.print(shown, soft_wrap=True)
    return capture.get().removesuffix("\n")


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, called with (done, total); None if nobody would see it."""
    with stages_bar(what) as stages:
        yield None if stages is None else lambda done, total: stages(what, done, total)


@contextmanager
def stages_bar(what: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """As `progress_bar`, called with (what is being done, done, total).

    A total of 0 is one that is not known.
    """
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda stage, done, total: progress.update(
            task, description=stage, completed=done, total=total or None
        )
