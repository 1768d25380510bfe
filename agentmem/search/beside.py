"""Writing rows that belong to no revision, and telling how far long work is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentmem.engines.base import Engine
from agentmem.engines.rows import (
    NewCommit,
    Spaces,
)
from agentmem.engines.session import CommitUnknownError, TryAgainError
from agentmem.errors import StorageError
from agentmem.limits import Limits

__all__ = ["Progress", "tell", "write_beside"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and of how much (0 if that is not known)."""

_TRIES: Final = 10


def write_beside(
    engine: Engine, limits: Limits, rows_for: Callable[[Spaces], NewCommit | None]
) -> None:
    """Writes rows under the store's lock, in one transaction that makes no revision.

    Args:
        rows_for: called under the lock with the spaces; None: nothing is to be written. Rows
            must be such that they can be written twice: if it is not known whether a COMMIT took
            effect, this is done again.
    """
    for _try in range(_TRIES):
        session = engine.session()
        try:
            start = session.enter(limits.lock_timeout_ms, (), (), spaces=True)
            assert start.spaces is not None, "asked for"
            rows = rows_for(start.spaces)
            if rows is None:
                return
            session.append(rows)
            session.commit()
        except (TryAgainError, CommitUnknownError) as error:
            cause = error
        else:
            return
        finally:
            session.rollback()
            session.release()
    raise StorageError(
        f"{engine.describe()['location']} failed {_TRIES} times ({cause}); run it again: it goes "
        "on with what is left"
    ) from cause


def tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    """Tells how far it is."""
    if progress is not None:
        progress(what, done, max(done, total) if total else 0)
