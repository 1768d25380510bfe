"""Engines keep commits and entries; what they promise is in `agentmem.engines.base`."""

from __future__ import annotations

import os
from typing import Final, Protocol

from agentmem.clock import MicrosecondClock, system_clock
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    Migrations,
    Position,
)
from agentmem.errors import InvalidValueError, MissingExtraError

__all__ = ["Replica", "migrations_of", "open_engine", "open_replica"]

_DURABILITIES: Final = ("full", "relaxed")
_POSTGRES: Final = ("postgresql://", "postgres://")


class Replica(Protocol):
    """Another server that repeats what the store's own did, a little later; only read."""

    def revision(self) -> int:
        """The revision that it has come to."""

    def pinned(self, store_id: str, commit: Position, instant: int) -> Engine:
        """Reads of one snapshot. Each of them makes sure of what is asked for here.

        Args:
            store_id: that the replica must have.
            commit: of the snapshot, as the store's own server has it.
            instant: of the snapshot, not before the commit.

        Raises:
            FutureRevisionError: the replica is not there yet.
            HistoryReplacedError: it repeats another history.
        """

    def close(self) -> None:
        """Releases everything. May be called again."""


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
    path = _checked(target)
    if durability not in _DURABILITIES:
        raise InvalidValueError(f"durability is 'full' or 'relaxed', not {durability!r}")
    if path.startswith(_POSTGRES):
        _need_psycopg()
        from agentmem.engines.postgres.engine import PostgresEngine

        return PostgresEngine(path, durability, clock, lock_timeout_ms)
    from agentmem.engines.sqlite.engine import SqliteEngine

    return SqliteEngine(path, durability, clock or system_clock, lock_timeout_ms)


def migrations_of(target: str | os.PathLike[str], lock_timeout_ms: int) -> Migrations | None:
    """What the store at a target has been migrated by; None: there is no store. Writes nothing.

    Raises:
        InvalidValueError, MissingExtraError: as `open_engine`.
        CorruptionError: there is something that is no store.
        MigrationError: the store comes from a newer agentmem, or a file was changed.
        StorageError: it cannot be read.
    """
    path = _checked(target)
    if path.startswith(_POSTGRES):
        _need_psycopg()
        from agentmem.engines.postgres import migrate as postgres
        from agentmem.engines.postgres.target import parse_target

        return postgres.look(parse_target(path), lock_timeout_ms)
    from agentmem.engines.sqlite import migrate as sqlite

    return sqlite.look(path)


def open_replica(
    target: str | os.PathLike[str], replica: str | None, lock_timeout_ms: int
) -> Replica | None:
    """The replica that ``agentmem.open(replica=...)`` names; connects when it is first read.

    Raises:
        InvalidValueError: the target can have none, or the URL cannot be read.
        MissingExtraError: what the engine needs is not installed.
    """
    if replica is None:
        return None
    if not isinstance(replica, str):
        raise TypeError(f"a replica is named by a URL, not {type(replica).__name__}")
    if not (isinstance(target, str) and target.startswith(_POSTGRES)):
        raise InvalidValueError("only a postgresql:// store has replicas; leave replica= out")
    _need_psycopg()
    from agentmem.engines.postgres.replica import PostgresReplica

    return PostgresReplica(replica, target, lock_timeout_ms)


def _checked(target: str | os.PathLike[str]) -> str:
    if not isinstance(target, (str, os.PathLike)):
        raise TypeError(f"a store is named by a path or a URL, not {type(target).__name__}")
    path = os.fspath(target)
    if not path or "\x00" in path:
        raise InvalidValueError("name a file for the store, for example 'team.db', or ':memory:'")
    if "://" in path and not path.startswith(_POSTGRES):
        scheme = path.split("://")[0]
        raise InvalidValueError(
            f"{scheme}:// is no store that this agentmem knows; name a file, or postgresql://..."
        )
    return path


def _need_psycopg() -> None:
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtraError(
            "postgresql:// needs psycopg; install it with: pip install 'agentmem-store[postgres]'",
            extra="postgres",
        ) from error
    del psycopg  # only looked for
