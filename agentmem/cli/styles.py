"""Colours: when they are used, and which they are."""

from __future__ import annotations

import os
import shutil
from typing import Final, TextIO

__all__ = ["colour_of", "has_colours", "is_terminal", "styled", "terminal_width"]

_CODES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
# One meaning, one colour, in every table.
_COLUMNS: Final = {
    "id": "yellow",
    "revision": "yellow",
    "version": "yellow",
    "time": "dim",
    "key": "cyan",
    "namespace": "cyan",
    "agent": "green",
    "tag": "magenta",
}
_DUMB: Final = ("dumb", "unknown")
_MIN_WIDTH: Final = 20
_WIDTH: Final = 80


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees what is written there; a closed stream is None."""
    return stream is not None and stream.isatty()


def has_colours(stream: TextIO | None) -> bool:
    """Whether colours may be written there. See https://no-color.org."""
    return (
        is_terminal(stream)
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "").lower() not in _DUMB
    )


def styled(text: str, style: str | None) -> str:
    """A text in a colour; None is that of the terminal."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style is not None and text else text


def colour_of(column: str) -> str | None:
    """The colour of the cells under a heading."""
    return _COLUMNS.get(column)


def terminal_width() -> int:
    """How many columns there are: COLUMNS, or what the terminal says."""
    return max(_MIN_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
