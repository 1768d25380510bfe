"""A copy of the whole database at one revision, while others write.

One read transaction of a connection of the store holds its snapshot from the first page to the
last, so that the copy never begins anew, however much is written meanwhile, and no writer waits
for it. Until it ends the write-ahead log grows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentmem.clock import MicrosecondClock
from agentmem.engines.rows import (
    Position,
)
from agentmem.engines.sqlite import reads
from agentmem.engines.sqlite.driver import driver, translated
from agentmem.errors import DiskFullError

__all__ = ["back_up"]

_PAGES: Final = 512  # copied in one step, without Python; a Ctrl-C waits for no more
_FULL: Final = "database or disk is full"  # of sqlite3_errstr(); this error comes without a code
# Its folders are not copied, and an index can be built anew.
_FORGET_INDEXES: Final = "DELETE FROM generations"


def back_up(
    connection: driver.Connection,
    path: str,
    clock: MicrosecondClock,
    progress: Callable[[int, int], None] | None,
) -> Position:
    """Copies the database into an empty file; returns the end of the log in the copy.

    Args:
        connection: of the store, in no transaction.
        path: of the file; the caller syncs it.
        progress: called with (pages copied, pages).
    """
    connection.execute("BEGIN")
    try:
        position = reads.position(connection, clock)  # from here on it sees this revision
        try:
            _copy(connection, path, progress)
        except driver.Error as error:
            if str(error) == _FULL:
                raise DiskFullError(f"no space left for {path}") from error
            raise translated(error, path) from error
    finally:
        connection.execute("ROLLBACK")
    return position


def _copy(
    connection: driver.Connection, path: str, progress: Callable[[int, int], None] | None
) -> None:
    def told(_status: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    target = driver.connect(path, isolation_level=None)
    try:
        target.execute("PRAGMA synchronous=OFF")
        connection.backup(target, pages=_PAGES, progress=told)
        target.execute(_FORGET_INDEXES)
    finally:
        target.close()
