"""A transactional shared-memory store for LLM agents.

::

    import agentmem

    store = agentmem.open("team.db")
    store.update("plan", lambda plan: {**plan, "days": 3}, default={})
    with store.transaction(agent="planner", op_id="thread-9:msg-4") as tx:
        tx["seats"] = 12
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agentmem import merge
from agentmem.clock import Clock
from agentmem.coordination.events import Event
from agentmem.coordination.feed import ConsumerState, Feed
from agentmem.coordination.leases import Lease, LeaseState
from agentmem.coordination.queue_states import QueuedTask, QueueState
from agentmem.coordination.queues import Queue
from agentmem.coordination.tasks import Task
from agentmem.errors import (
    AccessDeniedError,
    AgentMemError,
    BlindWriteWarning,
    ClosedError,
    CompactedError,
    ConflictError,
    CorruptionError,
    DiskFullError,
    EmbedderError,
    FencedError,
    ForkedStoreError,
    FutureRevisionError,
    HistoryReplacedError,
    IndeterminateCommitError,
    InvalidValueError,
    KeyMissingError,
    LeaseError,
    LeaseExpiredError,
    LimitExceededError,
    MergeError,
    MigrationError,
    MissingExtraError,
    OperationMismatchError,
    OutcomeUnknownError,
    RevisionError,
    StorageError,
    StoreBusyError,
    TransientError,
    UnsafeStorageError,
)
from agentmem.exchange.backup import Backup
from agentmem.exchange.exporting import Exported
from agentmem.exchange.loading import Loaded
from agentmem.history.between import KeyDifference
from agentmem.history.blame import Blame
from agentmem.history.cleaning import Contamination
from agentmem.history.compact import CompactReport
from agentmem.history.diff import Difference
from agentmem.history.lineage import Edge, Lineage, Node
from agentmem.history.purge import PurgeReport
from agentmem.history.races import Race
from agentmem.history.revert import Reversal
from agentmem.history.undoing import Undone
from agentmem.history.verify import Report
from agentmem.limits import Limits
from agentmem.merge import Unmergeable
from agentmem.model import (
    DELETE,
    Change,
    Commit,
    Conflict,
    ConflictRecord,
    Entry,
    Hit,
    Purge,
    Stale,
    Tag,
)
from agentmem.snapshot import Snapshot
from agentmem.store import Store, open_store
from agentmem.transaction import Transaction

if TYPE_CHECKING:
    from agentmem.aio import (
        AsyncAdmin,
        AsyncAudit,
        AsyncCollection,
        AsyncFeed,
        AsyncLease,
        AsyncQueue,
        AsyncSnapshot,
        AsyncStore,
        AsyncTask,
        AsyncTransaction,
        aopen,
    )

__version__ = "0.1.0"

__all__ = [
    "DELETE",
    "AccessDeniedError",
    "AgentMemError",
    "AsyncAdmin",
    "AsyncAudit",
    "AsyncCollection",
    "AsyncFeed",
    "AsyncLease",
    "AsyncQueue",
    "AsyncSnapshot",
    "AsyncStore",
    "AsyncTask",
    "AsyncTransaction",
    "Backup",
    "Blame",
    "BlindWriteWarning",
    "Change",
    "Clock",
    "ClosedError",
    "Commit",
    "CompactReport",
    "CompactedError",
    "Conflict",
    "ConflictError",
    "ConflictRecord",
    "ConsumerState",
    "Contamination",
    "CorruptionError",
    "Difference",
    "DiskFullError",
    "Edge",
    "EmbedderError",
    "Entry",
    "Event",
    "Exported",
    "Feed",
    "FencedError",
    "ForkedStoreError",
    "FutureRevisionError",
    "HistoryReplacedError",
    "Hit",
    "IndeterminateCommitError",
    "InvalidValueError",
    "KeyDifference",
    "KeyMissingError",
    "Lease",
    "LeaseError",
    "LeaseExpiredError",
    "LeaseState",
    "LimitExceededError",
    "Limits",
    "Lineage",
    "Loaded",
    "MergeError",
    "MigrationError",
    "MissingExtraError",
    "Node",
    "OperationMismatchError",
    "OutcomeUnknownError",
    "Purge",
    "PurgeReport",
    "Queue",
    "QueueState",
    "QueuedTask",
    "Race",
    "Report",
    "Reversal",
    "RevisionError",
    "Snapshot",
    "Stale",
    "StorageError",
    "Store",
    "StoreBusyError",
    "Tag",
    "Task",
    "Transaction",
    "TransientError",
    "Undone",
    "Unmergeable",
    "UnsafeStorageError",
    "__version__",
    "aopen",
    "merge",
    "open",
]


def open(  # agentmem.open is the name that users know
    target: str | os.PathLike[str],
    *,
    embedder: object = "auto",
    index: str = "auto",
    durability: str = "full",
    agent: str | None = None,
    blind_writes: str = "warn",
    limits: Limits | None = None,
    clock: Clock | None = None,
    replica: str | None = None,
    provenance: bool = True,
) -> Store:
    """Opens a store; a file is created if it is not there.

    Args:
        target: the path of a file on a local disk, ``":memory:"`` for a private one that
            goes with the store, or ``postgresql://USER@HOST/DATABASE?store=NAME``.
        embedder: what makes vectors of texts: ``"auto"`` is the static model of the extra
            ``local`` if that is installed, else nothing; or a LangChain ``Embeddings``, a Chroma
            embedding function, a callable ``list[str] -> array (n, dimension)``, or None.
        index: of the vectors of a file: ``"exact"`` looks at all of them, ``"chroma"`` (extra)
            keeps an approximate index beside it, ``"auto"`` chooses by their number.
        durability: what a returned write survives: ``"full"`` the loss of power,
            ``"relaxed"`` the death of the process.
        agent: who writes, unless a call says otherwise.
        blind_writes: what if a put without `expected_version` meets another agent's version:
            ``"warn"``, ``"allow"``, or ``"forbid"`` (`ConflictError`).
        limits: what this process may write.
        clock: a function that returns an aware datetime, or seconds since 1970; for tests.
        replica: ``postgresql://`` of a standby server of the target's; only
            ``store.snapshot(replica=True)`` reads from it.
        provenance: keep what each transaction has read, for ``store.audit.lineage``; False keeps
            only that something was read.

    Raises:
        InvalidValueError: the target, or an option, is none that agentmem knows.
        StorageError: the file cannot be made or opened.
        UnsafeStorageError: it lies on a network file system.
        CorruptionError: it is no agentmem store.
        MigrationError: it was written by a newer agentmem.
        StoreBusyError: another process held the store's lock for too long.
    """
    return open_store(
        target,
        durability=durability,
        agent=agent,
        blind_writes=blind_writes,
        limits=limits if limits is not None else Limits(),
        clock=clock,
        replica=replica,
        embedder=embedder,
        index=index,
        provenance=provenance,
    )


def __getattr__(name: str) -> object:
    # Imported when they are asked for: asyncio alone would take a tenth of the time of importing.
    if name == "aopen" or (name.startswith("Async") and name in __all__):
        from agentmem import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
