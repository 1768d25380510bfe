"""Every error that agentmem raises, in one tree.

::

    AgentMemError
    ├── TransientError                 run the whole transaction again, with the same op_id
    │   ├── ConflictError              .conflicts
    │   └── StoreBusyError             .waited_ms
    ├── MergeError                     a merge hook raised; the cause is kept
    ├── IndeterminateCommitError       .op_id .attempt .revision
    ├── OperationMismatchError         .op_id .scope: same op_id, other request
    ├── InvalidValueError              .path
    │   └── LimitExceededError         .limit .actual
    ├── KeyMissingError (KeyError)     .namespace .key
    ├── RevisionError
    │   ├── CompactedError             .floor
    │   ├── FutureRevisionError        .current
    │   └── HistoryReplacedError
    ├── LeaseError
    │   ├── LeaseExpiredError
    │   └── FencedError                .token .current_token
    ├── AccessDeniedError              .namespace .key .access
    ├── ClosedError
    ├── ForkedStoreError
    ├── OutcomeUnknownError
    ├── EmbedderError
    ├── MissingExtraError              .extra
    └── StorageError
        ├── DiskFullError
        ├── MigrationError
        ├── CorruptionError
        └── UnsafeStorageError

A message says what happened, to which key, and what to do next. Attributes are typed and
survive pickling. Whether a failed transaction may be run again is a *type*: catch
``TransientError``. ``AgentMemError`` derives from ``Exception`` alone, because the default
retry policy of LangGraph does not retry ``ValueError``, ``OSError`` and their like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentmem.model import Conflict


class AgentMemError(Exception):
    """Root of all errors of agentmem."""

    __module__ = "agentmem"

    def __init__(self, message: str = "", **attributes: Any) -> None:
        super().__init__(message)
        for name, value in attributes.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(
    kind: type[AgentMemError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> AgentMemError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class TransientError(AgentMemError):
    """Nothing was written; run the whole transaction again with the same op_id."""

    __module__ = "agentmem"


class ConflictError(TransientError):
    """What the transaction read or wrote was changed by another since.

    Attributes:
        conflicts: one `Conflict` for each stale read, scan or write, at least one.
    """

    __module__ = "agentmem"
    conflicts: list[Conflict]

    def __init__(self, message: str = "", *, conflicts: list[Conflict] | None = None) -> None:
        super().__init__(message, conflicts=list(conflicts or ()))


class StoreBusyError(TransientError):
    """The store's lock was held by another for too long.

    Attributes:
        waited_ms: how long this call waited, in milliseconds.
    """

    __module__ = "agentmem"
    waited_ms: int

    def __init__(self, message: str = "", *, waited_ms: int = 0) -> None:
        super().__init__(message, waited_ms=waited_ms)


class MergeError(AgentMemError):
    """A merge hook raised, or returned what is no value. Its exception is ``__cause__``."""

    __module__ = "agentmem"
    namespace: tuple[str, ...]
    key: str

    def __init__(
        self, message: str = "", *, namespace: tuple[str, ...] = (), key: str = ""
    ) -> None:
        super().__init__(message, namespace=namespace, key=key)


class IndeterminateCommitError(AgentMemError):
    """The disk or the network failed during COMMIT: it may or may not have been committed.

    Run the same operation again with the same op_id, or ask ``store.outcome(error)``.

    Attributes:
        op_id: the caller's operation id, or None.
        attempt: the random id that the commit row carries if it was written, 16 bytes.
        revision: the revision that the commit has if it was written.
    """

    __module__ = "agentmem"
    op_id: str | None
    attempt: bytes
    revision: int

    def __init__(
        self,
        message: str = "",
        *,
        op_id: str | None = None,
        attempt: bytes = b"",
        revision: int = 0,
    ) -> None:
        super().__init__(message, op_id=op_id, attempt=attempt, revision=revision)


class OperationMismatchError(AgentMemError):
    """The op_id was used before, for another request. Nothing was written."""

    __module__ = "agentmem"
    op_id: str
    revision: int

    def __init__(self, message: str = "", *, op_id: str = "", revision: int = 0) -> None:
        super().__init__(message, op_id=op_id, revision=revision)


class InvalidValueError(AgentMemError):
    """A value, key, label, pattern or filter is not allowed. Nothing was written.

    Attributes:
        path: where inside the value, as ``$.plan.days[3]``; empty if it is the whole argument.
    """

    __module__ = "agentmem"
    path: str

    def __init__(self, message: str = "", *, path: str = "", **attributes: Any) -> None:
        super().__init__(message, path=path, **attributes)


class LimitExceededError(InvalidValueError):
    """Something is larger than the store's ``Limits`` allow. Nothing was written.

    Attributes:
        limit: the limit, in the unit of its name.
        actual: what was given, in the same unit.
    """

    __module__ = "agentmem"
    limit: int
    actual: int

    def __init__(
        self, message: str = "", *, path: str = "", limit: int = 0, actual: int = 0
    ) -> None:
        super().__init__(message, path=path, limit=limit, actual=actual)


class KeyMissingError(AgentMemError, KeyError):
    """The key is absent: never written, deleted or expired."""

    __module__ = "agentmem"
    namespace: tuple[str, ...]
    key: str

    def __init__(
        self, message: str = "", *, namespace: tuple[str, ...] = (), key: str = ""
    ) -> None:
        super().__init__(message, namespace=namespace, key=key)

    # KeyError shows the repr of its argument, which is right for a key and wrong for a sentence.
    __str__ = Exception.__str__


class RevisionError(AgentMemError):
    """The revision, tag or time that was asked for cannot be read."""

    __module__ = "agentmem"


class CompactedError(RevisionError):
    """The revision lies below the compaction floor.

    Attributes:
        floor: the lowest revision that can still be read.
    """

    __module__ = "agentmem"
    floor: int

    def __init__(self, message: str = "", *, floor: int = 0) -> None:
        super().__init__(message, floor=floor)


class FutureRevisionError(RevisionError):
    """The revision or time lies in the future.

    Attributes:
        current: the store's latest revision.
    """

    __module__ = "agentmem"
    current: int

    def __init__(self, message: str = "", *, current: int = 0) -> None:
        super().__init__(message, current=current)


class HistoryReplacedError(RevisionError):
    """The store's history is not the one that the cursor was made from."""

    __module__ = "agentmem"


class LeaseError(AgentMemError):
    """A lease could not be had, renewed or used."""

    __module__ = "agentmem"


class LeaseExpiredError(LeaseError):
    """The lease had expired when it was to be renewed."""

    __module__ = "agentmem"


class FencedError(LeaseError):
    """The lease was granted to another, or released, since this token was given out."""

    __module__ = "agentmem"
    token: int
    current_token: int

    def __init__(self, message: str = "", *, token: int = 0, current_token: int = 0) -> None:
        super().__init__(message, token=token, current_token=current_token)


class AccessDeniedError(AgentMemError):
    """A scoped view does not allow this.

    Attributes:
        namespace: as the view names it.
        key: the key, or None if a whole namespace was asked for.
        access: the access that would be needed: ``"read"``, ``"append"`` or ``"write"``.
    """

    __module__ = "agentmem"
    namespace: tuple[str, ...]
    key: str | None
    access: str

    def __init__(
        self,
        message: str = "",
        *,
        namespace: tuple[str, ...] = (),
        key: str | None = None,
        access: str = "",
    ) -> None:
        super().__init__(message, namespace=namespace, key=key, access=access)


class ClosedError(AgentMemError):
    """The store or transaction has ended."""

    __module__ = "agentmem"


class ForkedStoreError(AgentMemError):
    """The store was opened before a fork; open it again in the child."""

    __module__ = "agentmem"


class OutcomeUnknownError(AgentMemError):
    """``once()`` died between the effect and its record."""

    __module__ = "agentmem"


class EmbedderError(AgentMemError):
    """The embedder failed, or returned what are no vectors."""

    __module__ = "agentmem"


class MissingExtraError(AgentMemError):
    """An optional package is not installed; the message names the command that installs it.

    Attributes:
        extra: the name of the extra.
    """

    __module__ = "agentmem"
    extra: str

    def __init__(self, message: str = "", *, extra: str = "") -> None:
        super().__init__(message, extra=extra)


class StorageError(AgentMemError):
    """The storage failed. What was acknowledged before is kept."""

    __module__ = "agentmem"


class DiskFullError(StorageError):
    """No space left: nothing was written, and the store can be read."""

    __module__ = "agentmem"


class MigrationError(StorageError):
    """The store's schema cannot be brought to, or is newer than, what this agentmem knows."""

    __module__ = "agentmem"


class CorruptionError(StorageError):
    """The file is no agentmem store, or is damaged."""

    __module__ = "agentmem"


class UnsafeStorageError(StorageError):
    """The storage cannot keep the promises, for example a network file system."""

    __module__ = "agentmem"


class BlindWriteWarning(UserWarning):
    """A put without ``expected_version`` replaced another agent's version."""

    __module__ = "agentmem"
