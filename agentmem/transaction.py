"""Transactions: one snapshot to read, writes buffered, all or nothing at the end."""

from __future__ import annotations

from builtins import list as List  # noqa: N812  # the method list() hides the type in the class
from enum import Enum
from types import TracebackType
from typing import Final, Literal

from agentmem import writes
from agentmem.buffered import BufferedView
from agentmem.coordination.events import Event
from agentmem.coordination.feed import ack_step
from agentmem.coordination.feed_steps import Move
from agentmem.coordination.leases import Lease
from agentmem.coordination.queues import MAX_ATTEMPTS, TransactionQueue, queue_of
from agentmem.coordination.steps import Step, Subject
from agentmem.core import Core
from agentmem.engines.rows import (
    CommitRow,
    ConflictRow,
    KnownOperation,
)
from agentmem.errors import ClosedError, InvalidValueError
from agentmem.judge import check_writes
from agentmem.model import Commit, Conflict, Stale
from agentmem.provenance import CONTEXT
from agentmem.records import NOTHING, commit_from, commit_of, conflict_of, conflict_row_of
from agentmem.repair import Judged, accepted_places, judge_now, rebase_scan
from agentmem.request import Receipt, Request
from agentmem.scope import Scope
from agentmem.staleness import visible_version
from agentmem.values import canonical, check_number, dump, load

__all__ = ["Transaction"]

Isolation = Literal["serializable", "snapshot"]

_ISOLATIONS: Final = ("serializable", "snapshot")


class _Status(Enum):
    LIVE = "live"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


class Transaction(BufferedView):
    """Reads one snapshot, buffers writes, and commits them together or not at all.

    Live from its creation. As a context manager it commits at the end of the block, and an
    exception inside writes nothing::

        with store.transaction(agent="planner", op_id="thread-9:msg-4:call_7Yx") as tx:
            tx["seats"] -= 1

    Guarantees:
        serializable (the default): it behaves as if it ran alone, at its commit revision.
        ``isolation="snapshot"``: only what it wrote is validated; write skew is possible.
        A transaction that only reads never fails.

    It may be used from several threads of one process. After its end every call raises
    `ClosedError`; after a `ConflictError` from ``commit()`` it is still live, so that it can be
    rebased and committed again, or rolled back.

    Attributes:
        applied: the first `Commit` if the op_id is known, so that a block can skip its work;
            else None. What such a transaction writes is not applied again.
    """

    __slots__ = (
        "_accepted",
        "_fingerprint",
        "_isolation",
        "_judged",
        "_merge",
        "_metadata",
        "_note",
        "_status",
        "_steps",
        "applied",
    )
    __module__ = "agentmem"

    def __init__(
        self,
        core: Core,
        scope: Scope,
        *,
        agent: str | None = None,
        op_id: str | None = None,
        isolation: Isolation = "serializable",
        note: str | None = None,
        metadata: object = None,
        fingerprint: object = None,
        merge: bool = True,
    ) -> None:
        core.check_open()
        if isolation not in _ISOLATIONS:
            raise InvalidValueError(f"isolation is 'serializable' or 'snapshot', not {isolation!r}")
        fields = writes.commit_fields(scope, agent, op_id, note, metadata)
        agent, op_id, self._note, self._metadata = fields
        if op_id is not None:
            scope.check_any("a transaction with an op_id")
        position = core.engine.position()
        super().__init__(core, scope, position.revision, position.now, agent, op_id)
        self._isolation = isolation
        self._merge = merge
        self._fingerprint = (
            None
            if fingerprint is None
            else writes.fingerprint("transaction", (), [load(dump(fingerprint, core.limits))])
        )
        self._accepted: List[tuple[str, str, int, int]] = []
        self._judged: Judged | None = None
        self._status = _Status.LIVE
        self._steps: dict[Subject, Step] = {}  # by what they are about
        known = core.engine.operation(scope.name, op_id) if op_id is not None else None
        self.applied: Commit | None = self._replayed(known) if known is not None else None

    def _replayed(self, row: CommitRow) -> Commit:
        entries = self._core.engine.commit_entries([row])
        return commit_of(row, entries, self._scope, replayed=True)

    def __repr__(self) -> str:
        return (
            f"Transaction({self._status.value}, revision={self.revision}, "
            f"writes={len(self._writes)})"
        )

    # Its end.

    def __enter__(self) -> Transaction:
        self._check_live()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not _Status.LIVE:
            return
        if kind is not None:
            self.rollback()
            return
        try:
            self.commit()
        finally:
            if self._status is _Status.LIVE:
                self.rollback()

    def _check_live(self) -> None:
        if self._status is not _Status.LIVE:
            raise ClosedError(
                f"the transaction has ended ({self._status.value}); begin a new one with "
                "store.transaction()"
            )
        self._core.check_open()

    def rollback(self) -> None:
        """Ends it; nothing is written. May be called again."""
        with self._lock:
            if self._status is _Status.LIVE:
                self._status = _Status.ROLLED_BACK

    def commit(self) -> Commit:
        """Commits what was written; durable when it returns.

        Returns:
            The commit. If nothing was written and there is no op_id, its revision is None. If
            the op_id was known, the first commit, with ``replayed=True``.

        Raises:
            ConflictError: something it read or wrote was changed meanwhile; still live.
            MergeError: a merge hook raised; still live.
            OperationMismatchError: the op_id was used with another ``fingerprint``.
            IndeterminateCommitError: the storage failed; see ``store.outcome``.
        """
        return self._commit(None, [], record=True)

    def finish(self, result: str | None, earlier: List[ConflictRow]) -> Commit:
        """As `commit`, for `Store.transact`, which keeps the record of conflicts itself.

        Args:
            result: JSON text of what the function returned.
            earlier: conflicts of earlier attempts, recorded with the commit.
        """
        return self._commit(result, earlier, record=False)

    def replay(self) -> Commit:
        """Ends a transaction whose op_id is known, and returns the first commit."""
        with self._lock:
            self._check_live()
            assert self.applied is not None, "the op_id is known"
            known = self._core.commit_row(self.applied.revision or 0)
            receipt = Receipt(
                known.revision, None, [], known=KnownOperation(known.revision, known.fingerprint)
            )
            self._core.check_known(self._request(None, []), receipt, "error")
            self._status = _Status.COMMITTED
            return self.applied

    def _commit(self, result: str | None, earlier: List[ConflictRow], *, record: bool) -> Commit:
        with self._lock:
            self._check_live()
            nothing = not (self._writes or self._touches or self._steps)
            if nothing and self._op_id is None:
                self._status = _Status.COMMITTED
                return commit_from(self._request(result, earlier), NOTHING, self._scope)
            request = self._request(result, earlier)
            request.record = record
            receipt = self._core.run(request)
            self._core.check_known(request, receipt, "error")
            self._status = _Status.COMMITTED
            if receipt.known is not None:
                return self._core.commit_by(receipt.known.revision, self._scope, replayed=True)
            return commit_from(request, receipt, self._scope)

    def _request(self, result: str | None, earlier: List[ConflictRow]) -> Request:
        writes = bool(self._writes or self._touches) or any(
            step.writes for step in self._steps.values()
        )
        validates = writes and self._isolation == "serializable"
        accepted = canonical(self._accepted).decode() if self._accepted else None
        return Request(
            self._scope,
            self._op_id,
            self._agent,
            self.revision,
            self._instant,
            note=self._note,
            metadata=self._metadata,
            fingerprint=self._fingerprint,
            reads=dict(self._reads),
            scans=List(self._scans),
            writes=dict(self._writes),
            touches=dict(self._touches),
            validate=validates,
            merge=self._merge,
            result=result,
            accepted=accepted,
            vectors=dict(self._vectors),
            cited=List(dict.fromkeys(self._context)),
            unchecked=List(self._unchecked),
            earlier=earlier,
            steps=List(self._steps.values()),
        )

    # Provenance.

    def cite(self, key: str, version: int, *, namespace: object = None) -> None:
        """Names an entry that was seen before, outside of the transaction: in a prompt, say.

        It is kept with the commit, as a read with ``track=False`` is, so that `audit.lineage` and
        `audit.revert_derived` know that what is written here may come of it. Nothing is looked up
        and nothing is checked: the key may have moved on, and a version that never was looks in a
        lineage like one that was compacted.

        Args:
            version: that was seen, as of `Entry.version`.

        Raises:
            InvalidValueError: it is no version: absence is not cited.
            AccessDeniedError: the key may not be read.
        """
        place = self._scope.place(namespace, key)
        self._scope.check(place, "read")
        if not check_number(version, "version"):
            raise InvalidValueError("version 0 is no entry: absence is not cited")
        with self._lock:
            self._check_live()
            self._context.append((CONTEXT, place, version))

    # Coordination.

    def guard(self, lease: Lease) -> None:
        """Ties the commit to a lease.

        The commit fails with `FencedError`, and writes nothing, unless the latest grant of the
        lease is this one, neither released nor broken. That it has expired does no harm while
        nobody else was granted it.

        Raises:
            LeaseError: the lease is not held.
            InvalidValueError: it belongs to another store.
        """
        lease.guard(self)

    def queue(self, name: str, *, max_attempts: int = MAX_ATTEMPTS) -> TransactionQueue:
        """A queue, to put tasks that are there when this commits; see `Store.queue`."""
        queue = queue_of(self._core, self._scope, name, max_attempts)
        return TransactionQueue(self, self._core, queue)

    def ack(self, event: Event) -> None:
        """Acknowledges an event with the commit, and all before it: exactly once.

        The consumer's cursor moves if and only if what this transaction writes is committed. The
        commit fails with `FencedError`, and writes nothing, if another reads as the consumer now,
        or the event was acknowledged before.

        Raises:
            InvalidValueError: the event is of a feed without a consumer, or of another store.
        """
        step = ack_step(event, self._core, effects=True)
        with self._lock:
            subject = ("ack", step.view, f"{step.token} {step.consumer}")
            earlier = self._steps.get(subject)
            if isinstance(earlier, Move):
                # One move for all of them: none may have been acknowledged, the last one is then.
                step.least = min(earlier.least or 0, event.revision)
                step.cursor = max(earlier.cursor, step.cursor)
            self.add_step(self._core, subject, step)

    def add_step(self, core: Core, subject: Subject, step: Step) -> Step | None:
        """Has something done with the commit, or not at all; for leases and queues.

        Args:
            core: of the store that it is about.
            subject: a step takes the place of an earlier one about the same.

        Returns: the earlier one, if there was one.
        """
        if core.engine.store_id != self._core.engine.store_id:
            raise InvalidValueError(
                f"the {subject[0]} belongs to another store than the transaction"
            )
        with self._lock:
            self._check_live()
            check_writes(len(self._writes) + len(self._steps) + 1, self._core.limits)
            earlier = self._steps.get(subject)
            self._steps[subject] = step
            return earlier

    # Repair.

    def stale(self) -> List[Stale]:
        """What of its reads and bases no longer holds now; empty if it could commit.

        Costs a few reads and takes no lock, so an agent can ask before it spends tokens. Give
        the items to `rebase` once they are judged.

        Returns:
            One item (key, seen version, judged version) for each key.
        """
        with self._lock:
            self._check_live()
            self._judged = judge_now(self._core, self._scope, self._request(None, []))
            return List(self._judged.items)

    def rebase(self, accept: object) -> None:
        """Moves the transaction to the revision of the last `stale` call.

        Accepted reads and bases become the judged versions; what moves again conflicts again.
        What was accepted is stored on the commit.

        Args:
            accept: items of that call, or the conflicts that a repair function was given.

        Raises:
            ConflictError: something stale was not accepted; the transaction is unchanged.
        """
        with self._lock:
            self._check_live()
            judged = self._judged
            if judged is None:
                raise InvalidValueError("call stale() first, look at its items, then rebase")
            accepted = accepted_places(accept, self._scope.prefix)
            refused = [item for item in judged.stale if accepted.get(item.place) != item.version]
            if refused:
                raise self._core.conflict_error(refused, self._scope)
            self._move(judged)

    def _move(self, judged: Judged) -> None:
        world = judged.world
        for item in judged.stale:
            write = self._writes.get(item.place)
            if write is not None and write.base >= 0:
                write.base = item.version
            self._accepted.append((*item.place, item.seen_version, item.version))
            # Whoever has judged it has seen both, and what was built on the first stays.
            self._context += [
                (CONTEXT, item.place, version)
                for version in (item.seen_version, item.version)
                if version
            ]
            if not item.version:
                self._touches.pop(item.place, None)  # accepted as gone: nothing is left to move
        for place in self._reads:
            self._reads[place] = visible_version(world.head(place), world.now)
        for scan in self._scans:
            rebase_scan(scan, [item.place for item in judged.stale], world)
        self._revision, self._instant = world.revision, world.now
        self._judged = None

    @property
    def is_live(self) -> bool:
        """Whether it was neither committed nor rolled back."""
        return self._status is _Status.LIVE

    @property
    def agent(self) -> str | None:
        """Who writes."""
        return self._agent

    def conflict_row(self, conflict: Conflict, status: str) -> ConflictRow:
        """A conflict of this transaction, as it goes on record."""
        return conflict_row_of(
            conflict, status, self._scope, self._agent, self._op_id, self._core.clock()
        )

    def conflicts(self) -> List[Conflict]:
        """The conflicts of a `stale()` call, for a repair function."""
        self.stale()
        assert self._judged is not None, "stale() has set it"
        return [conflict_of(item, self._scope) for item in self._judged.stale]
