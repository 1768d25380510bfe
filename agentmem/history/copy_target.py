"""The end of a log that is copied to: appended to while nobody else writes to it."""

from __future__ import annotations

from typing import Final

from agentmem.engines.base import Engine
from agentmem.engines.rows import NewCommit, Position
from agentmem.engines.session import CommitUnknownError, TryAgainError
from agentmem.errors import AgentMemError, HistoryReplacedError, StorageError
from agentmem.tail import index_texts

__all__ = ["CopyTarget", "LogEnd", "end_of"]

LogEnd = tuple[int, bytes]
"""(revision, hash) of the last commit."""

_TRIES: Final = 5  # of a page whose transaction is given up, or whose connection is lost


def end_of(position: Position) -> LogEnd:
    """The end of a log without its times."""
    return position.revision, position.hash


class CopyTarget:
    """A store that one run of a copy appends to.

    Attributes:
        engine: to read what it holds.
        at: where it ends, as this run has seen or left it.
    """

    def __init__(self, engine: Engine, name: str, at: LogEnd, lock_timeout_ms: int) -> None:
        self.engine = engine
        self._name = name
        self._lock_timeout_ms = lock_timeout_ms
        self.at = at

    def write(self, rows: NewCommit, after: LogEnd | None = None) -> None:
        """Appends as one transaction, if the log is where this run has left it.

        Args:
            after: where it ends once it is done; None: where it is, as no commit is among them.

        Raises:
            HistoryReplacedError: another wrote to it.
            StorageError: it failed again and again; what was appended before stays.
        """
        after = self.at if after is None else after
        may_be_done = False
        for _try in range(_TRIES):
            session = self.engine.session()
            try:
                places = list(dict.fromkeys((each.namespace, each.key) for each in rows.entries))
                start = session.enter(self._lock_timeout_ms, places, ())
                found = end_of(start.position)
                if may_be_done and found == after != self.at:
                    self.at = after
                    return
                if found != self.at:
                    raise self.moved(start.position.revision)
                index_texts(rows, start.heads)
                session.append(rows)
                session.commit()
            except (TryAgainError, CommitUnknownError) as error:
                may_be_done = may_be_done or isinstance(error, CommitUnknownError)
                cause = error
            else:
                self.at = after
                return
            finally:
                session.rollback()
                session.release()
        raise StorageError(
            f"{self._name} failed {_TRIES} times while revision {after[0]} was copied "
            f"({cause}); run the copy again: it goes on from there"
        ) from cause

    def moved(self, revision: int) -> AgentMemError:
        """The error for a log that another has brought to a revision."""
        return HistoryReplacedError(
            f"another wrote to {self._name} while it was copied to: it was left at revision "
            f"{self.at[0]}, and is at {revision}; stop what writes to it, and copy to a new store"
        )
