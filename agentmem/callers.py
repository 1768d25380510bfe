"""Where a warning belongs: at the line of the user that called agentmem."""

from __future__ import annotations

import sys
import warnings
from contextvars import ContextVar
from typing import Any, NamedTuple

__all__ = ["Caller", "called_from", "caller", "warn"]


class Caller(NamedTuple):
    """A line that called agentmem, and the names of its module."""

    filename: str
    line: int
    names: dict[str, Any]


called_from: ContextVar[Caller | None] = ContextVar("called_from", default=None)
"""Where the call comes from that a worker of an async store makes; None: from this thread."""


def caller() -> Caller:
    """The nearest line in this thread that is none of agentmem's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return Caller(frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


def warn(message: str, category: type[Warning]) -> None:
    """Warns the user at the line that called agentmem."""
    filename, line, names = called_from.get() or caller()
    registry = names.setdefault("__warningregistry__", {})
    module = names.get("__name__", "<string>")
    warnings.warn_explicit(message, category, filename, line, module, registry, names)


def _is_ours(module: str) -> bool:
    return module == "agentmem" or module.startswith("agentmem.")
