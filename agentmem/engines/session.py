"""A write session: the store's lock, one database transaction, and what a commit reads and writes.

The protocol is the specification, for every engine; see `agentmem.engines.base`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agentmem.engines.rows import (
    Answer,
    Change,
    EntryRow,
    Look,
    NewCommit,
    Place,
    Range,
    ReadRow,
    Spaces,
    Start,
    StrategyRow,
)

__all__ = ["CommitUnknownError", "TryAgainError", "WriteSession"]


class WriteSession(Protocol):
    """One database transaction under the store's lock. Used once, by one thread.

    ``enter`` → reads → ``append`` → ``commit``; then ``release``, whatever happened. ``rollback``
    and ``release`` may be called in any state and any number of times.

    Reads see what was committed before ``enter``, not what this session appends: judging keeps
    what the requests of a batch change in memory, so that a batch costs an engine on the
    network one round trip to read and one to write. Only ``look`` sees changes of the session,
    those that it is given.
    """

    def enter(
        self,
        timeout_ms: int,
        places: Sequence[Place],
        operations: Sequence[tuple[str, str]],
        *,
        spaces: bool = False,
        looks: Sequence[Look] = (),
    ) -> Start:
        """Takes the lock, in the order in which processes ask for it, and begins.

        Args:
            timeout_ms: the longest to wait for the lock.
            places: whose heads are wanted.
            operations: the (scope, op_id) pairs that may have been used before.
            spaces: whether the spaces are wanted.
            looks: questions to the tables of coordination.

        Raises:
            StoreBusyError: the lock was not to be had within ``timeout_ms``.
            StorageError: the storage failed; nothing is held.
            TryAgainError: nothing is held, and it may work at once.
        """

    def heads(self, places: Sequence[Place]) -> dict[Place, EntryRow | None]:
        """As those of `Start`, for places that were not known when it began."""

    def entry_at(self, place: Place, revision: int) -> EntryRow | None:
        """The newest entry of the key at or below the revision."""

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        """The entry of the key with that version, unless compacted."""

    def changed_since(self, revision: int, within: Range, expired: tuple[int, int]) -> list[Place]:
        """The keys in the range that changed, each once.

        These have an entry above the revision, or one whose ``expires_at`` lies after the first
        and not after the second instant of ``expired``.
        """

    def strategies(self) -> list[StrategyRow]:
        """The stored merge strategies, in order of registration."""

    def floor(self) -> int:
        """The compaction floor: the lowest revision that can be read."""

    def spaces(self) -> Spaces:
        """Which vectors the top-level namespaces have."""

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        """As `Engine.vectors`."""

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        """As `Engine.text_scores`."""

    def embedded_since(self, revision: int, within: Range, set_id: int) -> list[Place]:
        """As `Engine.embedded_since`."""

    def confirm(self) -> None:
        """Ends a session that appends nothing: that what it was told was true.

        Raises:
            TryAgainError: an engine may guess what a session finds, and let the commit prove it;
                where there is none, it must be run again.
        """

    def reads_of(self, after: int, upto: int) -> list[ReadRow]:
        """As `Engine.reads_of`."""

    def look(self, look: Look, after: Sequence[Change]) -> Answer:
        """Answers a question about coordination as it stands after these changes.

        The changes are made at once, and are part of the session's transaction.
        """

    def append(self, rows: NewCommit) -> None:
        """Writes the rows. Nothing is visible to others before ``commit``.

        Raises:
            StorageError: the transaction must be rolled back; nothing was written.
        """

    def commit(self) -> None:
        """Commits, durable as the engine was opened.

        Raises:
            DiskFullError: not committed.
            TryAgainError: not committed, and it may work at once.
            CommitUnknownError: an I/O or network error: it may or may not have been committed.
        """

    def was_committed(self, attempt: bytes, revision: int) -> bool:
        """Whether ``commit`` took effect when an asynchronous exception hid its return.

        Args:
            attempt: of one of the commits appended, or of the mark.
            revision: that it was to have; 0: it is that of the mark.
        """

    def rollback(self) -> None:
        """Ends the database transaction, if one is open, without effect."""

    def release(self) -> None:
        """Gives the lock back."""


class CommitUnknownError(Exception):
    """COMMIT failed in a way that leaves its outcome open. Never leaves `agentmem.commit`."""


class TryAgainError(Exception):
    """The database gave a transaction up, and nothing was written. As CommitUnknownError."""
