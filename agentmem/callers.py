"""Where a warning belongs: at the line of the user that called agentmem."""

from __future__ import annotations

import sys

__all__ = ["caller_level"]


def caller_level() -> int:
    """The ``stacklevel`` for a warning by the function that calls this."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    return level


def _is_ours(module: str) -> bool:
    return module == "agentmem" or module.startswith("agentmem.")
