"""Engines keep commits and entries; what they promise is in `agentmem.engines.base`."""

from __future__ import annotations

import os
from typing import Final

from agentmem.clock import MicrosecondClock
from agentmem.engines.base import Engine
from agentmem.errors import InvalidValueError

__all__ = ["open_engine"]

_DURABILITIES: Final = ("full", "relaxed")


def open_engine(
    target: str | os.PathLike[str], durability: str, clock: MicrosecondClock, lock_timeout_ms: int
) -> Engine:
    """The engine for a target: a path, ``:memory:``.

    Raises:
        InvalidValueError: the target or durability is none that agentmem knows.
    """
    if not isinstance(target, (str, os.PathLike)):
        raise TypeError(f"a store is named by a path, not {type(target).__name__}")
    path = os.fspath(target)
    if not path or "\x00" in path:
        raise InvalidValueError("name a file for the store, for example 'team.db', or ':memory:'")
    if "://" in path:
        scheme = path.split("://")[0]
        raise InvalidValueError(f"{scheme}:// is no store that this agentmem knows; name a file")
    if durability not in _DURABILITIES:
        raise InvalidValueError(f"durability is 'full' or 'relaxed', not {durability!r}")
    from agentmem.engines.sqlite.engine import SqliteEngine

    return SqliteEngine(path, durability, clock, lock_timeout_ms)
