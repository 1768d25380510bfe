"""Texts in columns, by the width that a terminal gives them: no colours, no input or output.

A table is laid out so that what is short stays whole: numbers, times and states are never
folded. Long cells share what is left and take a few lines each. If they would get less than can
be read, every row becomes a block of lines, a name and a value each::

    revision  time                  agent    changes
    55        2026-11-25T02:54:43Z  planner  put team/alice/plan@6

    revision  55
    time      2026-11-25T02:54:43Z
    agent     planner
    changes   put team/alice/plan@6
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = [
    "GAP",
    "aligned",
    "as_json",
    "folded",
    "padded",
    "printable",
    "shared_widths",
    "shortened",
    "width_of",
]

GAP: Final = "  "

# C0 and C1 controls, DEL; separators that break lines; marks that reorder text; tag characters,
# which are invisible; lone surrogates, which no terminal can show.
_HAZARDS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_WHOLE: Final = 20  # a cell that is no wider is never folded
_MIN_SHARE: Final = 12  # with less for a long cell, rows become blocks
_MAX_PADDING: Final = 40  # one long cell shall not push the columns of all other rows away
_ELLIPSIS: Final = "…"


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


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int) -> str:
    """A text with blanks behind it, up to a width."""
    return text + " " * (width - width_of(text))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns, one line a row, nothing shortened."""
    widths = [_padding(column) for column in zip(*rows, strict=True)]
    lines = (
        GAP.join(padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(line + "\n" for line in lines)


def _padding(column: Sequence[str]) -> int:
    widths = [width_of(cell) for cell in column]
    return max((width for width in widths if width <= _MAX_PADDING), default=0)


def shared_widths(rows: Sequence[Sequence[str]], total: int) -> list[int] | None:
    """The width of each column of a table, so that it fits; None if it cannot be read then.

    Long columns share by how long their cells are on the average: one long name among short ones
    shall not take the room that every value needs.
    """
    found = [[width_of(cell) for cell in column] for column in zip(*rows, strict=True)]
    widths = [max(column) for column in found]
    room = total - len(GAP) * (len(widths) - 1)
    if sum(widths) <= room:
        return widths
    left = room - sum(width for width in widths if width <= _WHOLE)
    if left <= 0:
        return None
    sums = {
        index: sum(min(width, left) for width in found[index])
        for index, width in enumerate(widths)
        if width > _WHOLE
    }
    weight = sum(sums.values())
    for index in sorted(sums, key=sums.__getitem__):
        share = max(_MIN_SHARE, left * sums[index] // weight)
        widths[index] = min(widths[index], share)
        left -= widths[index]
        weight -= sums[index]
    return widths if left >= 0 else None


def shortened(text: str, max_characters: int) -> str:
    """A text, or its beginning and how long it is."""
    if len(text) <= max_characters:
        return text
    return f"{text[:max_characters]}{_ELLIPSIS} ({len(text)} characters)"


def folded(text: str, width: int, max_lines: int | None = None) -> list[str]:
    """A text in lines of at most a width, parted at blanks where there are some.

    Args:
        max_lines: what is left beyond is not shown, but told of.
    """
    lines: list[str] = []
    for line in _lines(text, width):
        if max_lines is not None and len(lines) == max_lines:
            lines[-1] = _told(lines[-1], f"{_ELLIPSIS} ({len(text)} characters)", width)
            break
        lines.append(line)
    return lines or [""]


def _told(line: str, more: str, width: int) -> str:
    """A line whose end gives way to what is told, if that fits."""
    more = more if len(more) < width else _ELLIPSIS
    kept = next(_lines(line, width - len(more), words=False), "")
    # A wide character is more than no room at all.
    return (kept if width_of(kept) + len(more) <= width else "") + more


def _lines(text: str, width: int, *, words: bool = True) -> Iterator[str]:
    start, used, blank = 0, 0, -1
    for index, cells in _cells(text):
        if used + cells > width and index > start:
            end = blank + 1 if words and blank > start else index
            yield text[start:end].rstrip()
            used = width_of(text[end:index])
            start, blank = end, -1
        used += cells
        if text[index] == " ":
            blank = index
    if start < len(text):
        yield text[start:].rstrip()


def _cells(text: str) -> Iterator[tuple[int, int]]:
    """Where each character that is seen as one begins, and how many columns it takes."""
    if text.isascii():
        for index in range(len(text)):
            yield index, 1
        return
    from rich.cells import split_graphemes

    for start, _end, cells in split_graphemes(text)[0]:
        yield start, cells
