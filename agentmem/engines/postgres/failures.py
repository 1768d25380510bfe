"""The server's errors in agentmem's words. https://www.postgresql.org/docs/current/errcodes-appendix.html"""

from __future__ import annotations

from typing import Final

from agentmem.errors import (
    AgentMemError,
    CorruptionError,
    DiskFullError,
    StorageError,
    StoreBusyError,
)

__all__ = ["LostError", "ServerError", "row_missing", "translated"]

_LOCK_TIMEOUT: Final = "55P03"
_SERIALIZATION: Final = ("40001", "40P01")
# A pooler has given another of the server's sessions, in which nothing was prepared.
_STATEMENTS: Final = ("26000", "42P05")
_DISK_FULL: Final = "53100"
_CORRUPT: Final = ("XX001", "XX002")
_RIGHTS: Final = "42501"
_READ_ONLY: Final = "25006"
_GONE: Final = ("42P01", "3F000")
# The session is ended by the server; while COMMIT runs, nobody knows what it has come to.
_ENDED: Final = ("57P01", "57P02", "57P03", "57P04", "57P05", "25P04")
_IDLE: Final = "25P03"


class LostError(Exception):
    """The connection is gone. What it was told last may or may not have been done."""


class ServerError(Exception):
    """The server refused a statement; the transaction, if one is open, is aborted.

    Attributes:
        code: the SQLSTATE.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def can_try_again(self) -> bool:
        """Whether the same transaction may work at once."""
        return self.code in _SERIALIZATION or self.code in _STATEMENTS or self.code == _IDLE

    @property
    def not_prepared(self) -> bool:
        """Whether a prepared statement was not where it should have been."""
        return self.code in _STATEMENTS

    @property
    def ended(self) -> bool:
        """Whether the server ended the session."""
        return self.code in _ENDED or self.code.startswith("08")


def translated(error: ServerError | LostError, place: str, *, waited_ms: int = 0) -> AgentMemError:
    """A server's error as agentmem's; raise it ``from`` the server's."""
    if isinstance(error, LostError):
        said = " ".join(str(error).split())
        return StorageError(f"the connection to {place} was lost: {said}; run it again")
    code = error.code
    if code == _LOCK_TIMEOUT:
        return StoreBusyError(
            f"another process held the lock of {place} for {waited_ms} ms; run it again, or look "
            "for a stopped process",
            waited_ms=waited_ms,
        )
    if code in _SERIALIZATION or code == _IDLE:
        return StoreBusyError(f"{place} gave the transaction up: {error}; run it again")
    if code == _DISK_FULL:
        return DiskFullError(
            f"no space left on the server of {place}; nothing was written: free space and run it "
            "again"
        )
    if code in _CORRUPT:
        return CorruptionError(f"{place} is damaged: {error}")
    if code == _RIGHTS:
        return StorageError(
            f"the role may not do this in {place}: {error}; docs/postgresql.md lists the rights"
        )
    if code == _READ_ONLY:
        return StorageError(f"{place} is read-only, a replica perhaps; name the primary server")
    if code in _GONE:
        return StorageError(f"the tables of {place} are gone: {error}; open the store again")
    return StorageError(f"{place}: {error} (SQLSTATE {code})")


def row_missing(place: str) -> CorruptionError:
    """The row that every commit locks is not there."""
    return CorruptionError(
        f"{place} is damaged: its row in the table store is missing; restore a backup"
    )
