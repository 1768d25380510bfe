"""The SQLite library of this process, and its errors in agentmem's words.

``pysqlite3`` bundles a SQLite without the WAL-reset bug (versions 3.7.0 to 3.51.2 can corrupt a
database when a checkpoint meets a writer that restarts the log); it is used where it is
installed. Its exceptions are not those of ``sqlite3``, so everything that talks to the database
imports the driver from here. Two SQLite libraries in one process must never open one file: each
would drop the other's POSIX locks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from agentmem.errors import (
    AgentMemError,
    CorruptionError,
    DiskFullError,
    StorageError,
    StoreBusyError,
)

if TYPE_CHECKING:
    import sqlite3 as driver
else:
    try:
        import pysqlite3 as driver
    except ImportError:
        import sqlite3 as driver

__all__ = [
    "HAS_WAL_RESET_BUG",
    "NULL",
    "bound",
    "bound_by_name",
    "driver",
    "is_busy",
    "is_corrupt",
    "is_io_error",
    "translated",
]

_FIRST_WITH_BUG: Final = (3, 7, 0)
_LAST_WITH_BUG: Final = (3, 51, 2)

HAS_WAL_RESET_BUG: Final = _FIRST_WITH_BUG <= driver.sqlite_version_info <= _LAST_WITH_BUG
"""Whether checkpoints must be kept away from writers, see `agentmem.engines.sqlite.session`."""

NULL: Final = math.nan
"""What NULL is bound as: SQLite has no NaN, and takes it for NULL. See `bound`."""

# Primary result codes, https://sqlite.org/rescode.html
_BUSY: Final = 5
_LOCKED: Final = 6
_READONLY: Final = 8
_IOERR: Final = 10
_CORRUPT: Final = 11
_FULL: Final = 13
_CANTOPEN: Final = 14
_NOTADB: Final = 26
_PRIMARY_CODE: Final = 0xFF


def bound(row: Iterable[Any]) -> list[Any]:
    """The values of a row, to be bound to the parameters of a statement that runs often.

    The driver binds exact int, float, str and bytearray at once. For all else, None and bytes
    included, it first looks for an adapter, in vain: that takes 0.9 µs for each value, and a put
    has sixteen of them.
    """
    return [
        NULL if value is None else bytearray(value) if type(value) is bytes else value
        for value in row
    ]


def bound_by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """As `bound`, by the names of the parameters; a list is bound as JSON."""
    found = dict(zip(values, bound(values.values()), strict=True))
    for name, value in values.items():
        if type(value) is list:
            found[name] = json.dumps(value)
    return found


def primary_code(error: driver.Error) -> int:
    """The primary result code of a driver's exception; 0 if it has none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & _PRIMARY_CODE


def is_io_error(error: driver.Error) -> bool:
    """Whether the operating system failed a read, write or sync."""
    return primary_code(error) == _IOERR


def is_busy(error: driver.Error) -> bool:
    """Whether a lock of SQLite's could not be had."""
    return primary_code(error) == _BUSY


def is_corrupt(error: driver.Error) -> bool:
    """Whether something in the file is not as it should be."""
    return primary_code(error) == _CORRUPT


def translated(error: driver.Error, path: str, *, waited_ms: int = 0) -> AgentMemError:
    """A driver's exception as agentmem's; raise it ``from`` the driver's."""
    code = primary_code(error)
    if code in (_BUSY, _LOCKED):
        return StoreBusyError(
            f"{path} is locked by another program after {waited_ms} ms; run it again",
            waited_ms=waited_ms,
        )
    if code == _FULL:
        return DiskFullError(
            f"no space left for {path}; nothing was written: free space and run it again"
        )
    if code in (_CORRUPT, _NOTADB):
        return CorruptionError(f"{path} is damaged or no agentmem store: {error}")
    if code == _READONLY:
        return StorageError(f"{path} cannot be written by this user: {error}")
    if code == _CANTOPEN:
        return StorageError(f"{path} cannot be opened: {error}")
    if code == _IOERR:
        return StorageError(f"the disk failed under {path}: {error}; look at the system's log")
    return StorageError(f"{path}: {error}")
