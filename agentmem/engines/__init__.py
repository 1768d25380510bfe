"""Engines keep commits and entries; what they promise is in `agentmem.engines.base`."""

from __future__ import annotations

import os
from typing import Final

from agentmem.clock import MicrosecondClock, system_clock
from agentmem.engines.base import Engine
from agentmem.errors import InvalidValueError, MissingExtraError

__all__ = ["open_engine"]

_DURABILITIES: Final = ("full", "relaxed")
_POSTGRES: Final = ("postgresql://", "postgres://")


def open_engine(
    target: str | os.PathLike[str],
    durability: str,
    clock: MicrosecondClock | None,
    lock_timeout_ms: int,
) -> Engine:
    """The engine for a target: a path, ``:memory:``, or ``postgresql://…``.

    Args:
        clock: in place of the storage's own.

    Raises:
        InvalidValueError: the target or durability is none that agentmem knows.
        MissingExtraError: what the engine needs is not installed.
    """
    if not isinstance(target, (str, os.PathLike)):
        raise TypeError(f"a store is named by a path or a URL, not {type(target).__name__}")
    path = os.fspath(target)
    if not path or "\x00" in path:
        raise InvalidValueError("name a file for the store, for example 'team.db', or ':memory:'")
    if durability not in _DURABILITIES:
        raise InvalidValueError(f"durability is 'full' or 'relaxed', not {durability!r}")
    if path.startswith(_POSTGRES):
        return _postgres(path, durability, clock, lock_timeout_ms)
    if "://" in path:
        scheme = path.split("://")[0]
        raise InvalidValueError(
            f"{scheme}:// is no store that this agentmem knows; name a file, or postgresql://..."
        )
    from agentmem.engines.sqlite.engine import SqliteEngine

    return SqliteEngine(path, durability, clock or system_clock, lock_timeout_ms)


def _postgres(
    url: str, durability: str, clock: MicrosecondClock | None, lock_timeout_ms: int
) -> Engine:
    try:
        import psycopg
        import psycopg_pool
    except ImportError as error:
        raise MissingExtraError(
            "postgresql:// needs psycopg; install it with: pip install 'agentmem-store[postgres]'",
            extra="postgres",
        ) from error
    del psycopg, psycopg_pool  # only looked for
    from agentmem.engines.postgres.engine import PostgresEngine

    return PostgresEngine(url, durability, clock, lock_timeout_ms)
