"""How results are shown: as JSON, as tables on a terminal, as plain columns in a pipe.

Keys, values, agents and notes come out of the store, and anybody may have written them. They
are never taken for markup, and characters that could move the cursor, hide or reorder text are
shown as JSON escapes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

__all__ = ["Output", "as_json", "is_terminal", "printable", "progress_bar", "stages_bar"]

# C0 and C1 controls, DEL; separators that break lines; marks that reorder text; tag characters,
# which are invisible; lone surrogates, which no terminal can show.
_HAZARDS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_LAYOUT: Final = "\n\t"
_GAP: Final = "  "
_MAX_CELL: Final = 500
_COLOURS: Final = {"+": "green", "-": "red", "~": "yellow"}


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees what is written there; a closed stream is None."""
    return stream is not None and stream.isatty()


def printable(text: str, *, keep: str = "") -> str:
    """A text with what could play tricks on a terminal as JSON escapes.

    Inside of JSON text it changes nothing but the spelling.

    Args:
        keep: characters that stay as they are.
    """

    def escaped(match: re.Match[str]) -> str:
        return match[0] if match[0] in keep else json.dumps(match[0])[1:-1]

    return _HAZARDS.sub(escaped, text)


def as_json(value: Any) -> str:
    """A value as JSON on one line."""
    return printable(json.dumps(value, ensure_ascii=False))


class Output:
    """Standard output of one command.

    Attributes:
        json: results are shown as JSON documents.
        terminal: a person is looking.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.terminal = is_terminal(sys.stdout)

    def document(self, document: Any) -> None:
        """Prints one JSON document: on one line, or indented for a person."""
        indent = 2 if self.terminal else None
        text = json.dumps(document, ensure_ascii=False, indent=indent)
        self._write(printable(text, keep="\n") + "\n")

    def line(self, text: str) -> None:
        """Prints one line, whatever the text holds."""
        self._write(printable(text) + "\n")

    def string(self, text: str) -> None:
        """Prints a string itself: in a pipe exactly, on a terminal without tricks."""
        if not self.terminal:
            self._write(text)
            return
        self._write(printable(text, keep=_LAYOUT) + ("" if text.endswith("\n") else "\n"))

    def value(self, value: Any) -> None:
        """Prints a value as JSON: on one line, or indented and coloured for a person."""
        if not self.terminal:
            self._write(as_json(value) + "\n")
            return
        from rich.console import Console
        from rich.highlighter import JSONHighlighter
        from rich.text import Text

        text = json.dumps(value, ensure_ascii=False, indent=2)
        shown = Text(printable(text, keep="\n"))
        JSONHighlighter().highlight(shown)
        Console(markup=False, emoji=False).print(shown, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Prints rows under headings; None is an empty cell.

        Columns in which every cell is empty are left out, and so is a table without rows. In a
        pipe nothing is shortened, and every row is one line.
        """
        if not rows:
            return
        used = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
        headings = [columns[index] for index in used]
        cells = [["" if row[i] is None else printable(str(row[i])) for i in used] for row in rows]
        if self.terminal:
            _print_table(headings, cells)
        else:
            self._write(_aligned([headings, *cells]))

    def fields(self, fields: Sequence[tuple[str, object]]) -> None:
        """Prints names and values one below the other; those that are None are left out."""
        rows = [[name, printable(str(value))] for name, value in fields if value is not None]
        self._write(_aligned(rows))

    def changes(self, lines: Sequence[str]) -> None:
        """Prints lines that begin with ``+``, ``-`` or ``~``, in colours for a person."""
        if not self.terminal:
            self._write("".join(printable(line) + "\n" for line in lines))
            return
        from rich.console import Console
        from rich.text import Text

        console = Console(markup=False, highlight=False, emoji=False)
        for line in lines:
            console.print(Text(printable(line), _COLOURS.get(line[:1], "")), soft_wrap=True)

    def _write(self, text: str) -> None:
        if sys.stdout is not None:
            sys.stdout.write(text)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(line + "\n" for line in lines)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shortened(cell)) for cell in row))
    Console(markup=False, highlight=False, emoji=False).print(table)


def _shortened(cell: str) -> str:
    return cell if len(cell) <= _MAX_CELL else f"{cell[:_MAX_CELL]}… ({len(cell)} characters)"


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, called with (done, total); None if nobody would see it."""
    with stages_bar(what) as stages:
        yield None if stages is None else lambda done, total: stages(what, done, total)


@contextmanager
def stages_bar(what: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """As `progress_bar`, called with (what is being done, done, total)."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda stage, done, total: progress.update(
            task, description=stage, completed=done, total=total
        )
