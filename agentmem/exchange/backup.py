"""Backups: a store as one SQLite file, at one revision, taken while others write.

A file is copied page by page out of one read transaction; a server's store is copied commit by
commit. Either way the copy is verified before it gets its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentmem.engines import open_engine
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    Position,
)
from agentmem.errors import CorruptionError, StorageError
from agentmem.exchange.placing import placed
from agentmem.history.copy import Progress, copy_store
from agentmem.history.verify import verify

__all__ = ["Backup", "back_up"]

_DURABILITY: Final = "relaxed"  # of the file while it is made; it is synced at the end


@dataclass(frozen=True, slots=True)
class Backup:
    """What `Admin.backup` made.

    Attributes:
        path: of the file.
        store_id: of the store that it is of.
        revision: the latest that it holds.
        hash: of that revision: two files with one hash have one history.
        commits, entries: how many it holds, all verified.
        size_bytes: of the file.
    """

    path: str
    store_id: str
    revision: int
    hash: bytes
    commits: int
    entries: int
    size_bytes: int

    __module__ = "agentmem"


def back_up(
    engine: Engine,
    target: str | os.PathLike[str],
    *,
    overwrite: bool,
    progress: Progress | None,
    lock_timeout_ms: int,
) -> Backup:
    """See `Admin.backup`."""

    def stage(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    own = engine.describe()["location"]
    if os.path.realpath(os.path.expanduser(target)) == own:
        raise StorageError(f"{own} is the store itself; name another file for its backup")
    with placed(target, overwrite=overwrite) as path:
        end = engine.back_up(path, stage("copying"))
        copy = open_engine(path, _DURABILITY, None, lock_timeout_ms)
        try:
            if end is None:
                report = copy_store(engine, copy, progress, lock_timeout_ms=lock_timeout_ms)
                end = copy.position()
                commits, entries = report.commits, report.entries
            else:
                commits, entries = _verified(copy, end, own, stage("verifying"))
        finally:
            copy.close()
        size_bytes = os.stat(path).st_size
    place = os.path.realpath(os.path.expanduser(target))
    return Backup(place, engine.store_id, end.revision, end.hash, commits, entries, size_bytes)


def _verified(
    copy: Engine, end: Position, name: str, progress: Callable[[int, int], None] | None
) -> tuple[int, int]:
    """How many commits and entries a copy holds.

    Raises:
        CorruptionError: it is not whole, or does not end where the store ended.
    """
    report = verify(copy, progress)
    found = copy.position()
    if not report.ok or (found.revision, found.hash) != (end.revision, end.hash):
        problem = report.problems[0] if report.problems else "it does not end where it should"
        raise CorruptionError(
            f"the copy of {name} is not what it should be: {problem}; run agentmem verify on the "
            "store: no backup was made"
        )
    return report.commits, report.entries
