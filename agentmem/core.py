"""What a store, its views and its transactions share: engine, commit path, clock, limits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from agentmem.callers import warn
from agentmem.commit import Committer
from agentmem.contention import Lane
from agentmem.coordination.steps import HAS_BATCH_MARK, Step
from agentmem.engines import Replica
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    ERASED,
    Change,
    CommitRow,
    ConflictRow,
    EntryRow,
    Look,
    Place,
    Range,
)
from agentmem.errors import (
    AgentMemError,
    BlindWriteWarning,
    ConflictError,
    IndeterminateCommitError,
    InvalidValueError,
    OperationMismatchError,
    StorageError,
)
from agentmem.judge import check_writes, merge_error, merge_status
from agentmem.limits import Limits
from agentmem.merge.registry import MergeRegistry, StoredStrategy
from agentmem.merge.strategy import Outcome, Unmergeable
from agentmem.model import DELETE, Commit
from agentmem.namespaces import Pattern, encode
from agentmem.records import commit_of, conflict_of
from agentmem.request import Merged, PendingMerge, Receipt, Request, StaleItem
from agentmem.scope import Scope, root_scope
from agentmem.search.embedders import Embedder
from agentmem.search.searcher import Searcher
from agentmem.stored import parse_strategies
from agentmem.values import dump

__all__ = ["Core"]

_PAGE: Final = 1_000
_GROWTH: Final = 8  # of pages, where the first was not enough
_MAX_CONFLICTS: Final = 100
_SETTLED: Final = 3  # times that steps are done again whose COMMIT was certain to have failed


class Core:
    """One open store.

    Attributes:
        engine: where the rows are.
        clock: the storage's, in microseconds since 1970 UTC; for records, not for judging.
        registry: the merge hooks of this process.
        limits: what this process may write.
        blind_writes: ``warn``, ``allow`` or ``forbid``.
        provenance: whether what transactions of this process read is kept.
        lane: where attempts after a conflict wait for each other.
        replica: another server for snapshots that ask for it; None: there is none.
        searcher: what searches it.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        blind_writes: str,
        replica: Replica | None = None,
        *,
        embedder: Embedder | None = None,
        index: str = "auto",
        provenance: bool = True,
    ) -> None:
        if blind_writes not in ("warn", "allow", "forbid"):
            raise InvalidValueError(
                f"blind_writes is 'warn', 'allow' or 'forbid', not {blind_writes!r}"
            )
        self.engine = engine
        self.clock = engine.now
        self.registry = MergeRegistry()
        self.limits = limits
        self.blind_writes = blind_writes
        self.provenance = provenance
        self.lane = Lane(engine)
        self.replica = replica
        self.searcher = Searcher(engine, limits, embedder, index)
        self._committer = Committer(engine, self.registry, limits)
        self._root = root_scope(limits, None)

    def close(self) -> None:
        """Closes the engine and the replica."""
        try:
            self.searcher.close()
            self.engine.close()
        finally:
            if self.replica is not None:
                self.replica.close()

    def on(self, engine: Engine) -> Core:
        """The same store, read from another engine."""
        core = Core(engine, self.limits, self.blind_writes, provenance=self.provenance)
        core.registry = self.registry
        core.searcher = self.searcher  # of the primary: what both have is the same
        return core

    def seen_by(self, embedder: Embedder | None) -> Core:
        """The same open store, whose texts another embedder turns into vectors."""
        other = copy.copy(self)
        other.searcher = self.searcher.seen_by(embedder)
        return other

    def check_open(self) -> None:
        """Raises `ClosedError` after `close`, `ForkedStoreError` after a fork.

        Called before any lock of this process is taken: in a forked child, a thread that held
        one is gone, and would never let it go.
        """
        self.engine.check()

    # Writing.

    def run(self, request: Request) -> Receipt:
        """Commits a request, merging as often as it takes.

        Raises:
            ConflictError: it is stale, and nothing could merge it.
            EmbedderError: what it writes could not be embedded.
            MergeError: a hook raised.
            IndeterminateCommitError: COMMIT failed.
        """
        self.engine.check()
        check_writes(len(request.writes) + len(request.steps), self.limits)
        request.provenance = self.provenance
        if self.provenance:
            for scan in (*request.scans, *request.unchecked):
                scan.kept()  # made here, where no lock is held
        if request.writes:
            self.searcher.prepare(request)
        elif request.late:
            request.embedder = self.searcher.embedder
            request.has_vectors = True
        merged = 0
        while merged < self.limits.max_merge_rounds:
            self._committer.submit(request)
            if request.receipt is not None:
                return request.receipt
            if request.texts is not None:
                request.embeddings += 1  # so it ends
                self.searcher.embed(request, request.texts)
                continue
            merged += 1
            if request.stale is not None:
                raise self.conflict_error(request.stale, request.scope)
            for pending in request.merges or ():
                self._merge(request, pending)
        items = [pending.item for pending in request.merges or ()]
        for item in items:
            item.reason = f"it moved {self.limits.max_merge_rounds} times while it was merged"
        raise self.conflict_error(items, request.scope)

    def _merge(self, request: Request, pending: PendingMerge) -> None:
        """Runs a hook, outside of any lock, and puts its answer into the write."""
        item, match = pending.item, pending.match
        write = item.write
        assert write is not None, "only writes are merged"
        conflict = conflict_of(item, request.scope)
        resolve = match.strategy.resolve if match.strategy is not None else match.merge
        try:
            answer = resolve(conflict)
            outcome = answer if isinstance(answer, Outcome) else Outcome(answer)
            value = None if outcome.value is DELETE else dump(outcome.value, self.limits)
            details = outcome.details
            if details is not None:
                details = dump(details, self.limits, what="details")
        except Unmergeable as error:
            write.refused = str(error) or f"{match.name!r} could not merge it"
            write.merge = False
            return
        except Exception as error:
            raise merge_error(request, item, match.name, error) from error
        status = merge_status(outcome)
        write.merged = Merged(value, item.version, match.name, status, details)

    def conflict_error(self, stale: list[StaleItem], scope: Scope) -> ConflictError:
        """What the caller gets for stale reads, scans and writes."""
        conflicts = [conflict_of(item, scope) for item in stale[:_MAX_CONFLICTS]]
        first, item = conflicts[0], stale[0]
        name = "/".join((*first.namespace, first.key))
        who = ""
        if first.theirs_entry is not None and first.theirs_entry.agent is not None:
            who = f" by {first.theirs_entry.agent!r}"
        more = f" (and {len(stale) - 1} more)" if len(stale) > 1 else ""
        verb = {"write": "was written", "read": "was read", "scan": "was scanned"}[item.kind]
        reason = f"; {item.reason}" if item.reason else ""
        return ConflictError(
            f"{name!r} {verb} from version {item.seen_version}, but is at version "
            f"{item.version}{who}{more}{reason}; nothing was written: read again and retry, or "
            "use store.update or store.transact, which do",
            conflicts=conflicts,
        )

    def check_known(self, request: Request, receipt: Receipt, on_mismatch: str) -> None:
        """Raises if the op_id of a replayed request was used for another request."""
        known = receipt.known
        if known is None or request.fingerprint in (None, known.fingerprint):
            return
        if known.fingerprint == ERASED:
            return  # nobody can tell any more
        self.record_mismatch(request, known.revision, on_mismatch)
        if on_mismatch != "replay":
            raise OperationMismatchError(
                f"op_id {request.op_id!r} was used for another request at revision "
                f"{known.revision}; nothing was written: give each operation its own op_id, or "
                'on_mismatch="replay" for the first result',
                op_id=request.op_id or "",
                revision=known.revision,
            )

    def record_mismatch(self, request: Request, revision: int, on_mismatch: str) -> None:
        """Puts on record that an op_id was used for another request, for `Audit.races`."""
        place = next(iter(request.writes or request.touches), None)
        if place is None:
            rows = self.engine.commit_entries([self.commit_row(revision)])
            place = (rows[0].namespace, rows[0].key) if rows else ("", "")
        strategy = "replay" if on_mismatch == "replay" else None
        row = ConflictRow(
            None, *place, "rejected", "operation", strategy, 0, 0, None, request.agent,
            request.op_id, revision, self.clock(), None,
        )  # fmt: skip
        with suppress(AgentMemError):  # the caller's own error says more
            self.record([row], request.scope, request.agent)

    def warn_blind(self, receipt: Receipt, scope: Scope) -> None:
        """Warns of versions of other agents that were replaced blindly."""
        if not receipt.blind_over:
            return
        for (namespace, key), version, agent in receipt.blind_over:
            name = "/".join((*scope.relative(namespace), key))
            warn(
                f"{name!r} version {version} by {agent!r} was replaced without being read; "
                "use store.update, or put(expected_version=...), or overwrite=True if you mean it",
                BlindWriteWarning,
            )

    def record(self, records: list[ConflictRow], scope: Scope, agent: str | None) -> None:
        """Puts conflicts on record that no commit will carry."""
        request = Request(scope, None, agent, 0, 0, earlier=records, pinned=False)
        self.run(request)

    def change(self, change: Change, scope: Scope) -> int:
        """Applies a change to a table beside the log; returns the rows that it touched."""
        self.run(Request(scope, None, None, 0, 0, pinned=False, change=change))
        return change.count

    def coordinate(self, step: Step) -> None:
        """Has one step judged and, if it changes something, committed durably.

        If COMMIT fails without an answer, it is found out whether it took effect.

        Raises:
            IndeterminateCommitError: that could not be found out either.
        """
        for _try in range(_SETTLED):
            # Judged anew each time, so what it has set before counts for nothing.
            request = Request(self._root, None, None, 0, 0, pinned=False, steps=[step])
            try:
                self.run(request)
            except IndeterminateCommitError as error:
                if not self._took_effect(request, error):
                    continue
            return
        raise StorageError(f"the storage failed {_SETTLED} times; nothing was committed")

    def _took_effect(self, request: Request, error: IndeterminateCommitError) -> bool:
        trace = request.trace
        if trace is None:
            return False
        try:
            self.change(Change("fence"), self._root)
            return bool(self.engine.look(Look(HAS_BATCH_MARK, (trace[0],))))
        except AgentMemError:
            # It still fails: the caller has to look at what it wanted to change.
            raise error from error.__cause__

    def resolve(self, error: IndeterminateCommitError) -> CommitRow | None:
        """The commit, if it took effect; decided for good by an empty write first."""
        if not error.attempt:
            raise InvalidValueError(
                "that write makes no commit that could be looked for; look at its effect instead"
            )
        self.change(Change("fence"), self._root)
        return self.engine.attempt(error.attempt, error.revision)

    # Reading.

    def sees(self, row: EntryRow) -> bool:
        """Whether a view of the present sees the row's key as present.

        The present is never before the last commit, so a clock that was set back brings nothing
        back; the last commit is looked up only for what can expire.
        """
        if row.expires_at is None:
            return not row.deleted
        return row.visible_at(self.engine.position().now)

    def stored_strategies(self) -> list[StoredStrategy]:
        """The stored merge strategies, in order of registration."""
        return parse_strategies(self.engine.strategies())

    def stored_patterns(self) -> tuple[Pattern, ...]:
        """The patterns of the stored merge strategies."""
        return tuple(each.pattern for each in self.stored_strategies())

    def iterate(
        self,
        scope: Scope,
        namespace: object,
        view: tuple[int, int],
        key_prefix: str = "",
        after: Place | None = None,
        first: int | None = None,
        *,
        backwards: bool = False,
    ) -> Iterator[EntryRow]:
        """The entries of a namespace and below that a view may see, in order.

        Args:
            view: (revision, instant).
            after: where to go on.
            first: how many are most likely enough, so that no more are read at first.
            backwards: in the opposite order.
        """
        labels = scope.labels(namespace)
        allowed = scope.readable(labels)
        revision, instant = view
        page = min(first, _PAGE) if first is not None else _PAGE
        while True:
            within = Range(encode(labels), key_prefix, after)
            rows = self.engine.scan(within, revision, page, backwards=backwards)
            for row in rows:
                readable = allowed is None or allowed((row.namespace, row.key))
                if readable and row.visible_at(instant):
                    yield row
            if len(rows) < page:
                return
            after = (rows[-1].namespace, rows[-1].key)
            page = min(page * _GROWTH, _PAGE)

    def commit_by(self, revision: int, scope: Scope, *, replayed: bool = False) -> Commit:
        """The commit with a revision, as the caller sees it."""
        row = self.commit_row(revision)
        return commit_of(row, self.engine.commit_entries([row]), scope, replayed=replayed)

    def commit_row(self, revision: int) -> CommitRow:
        """The commit with a revision that is known to be there; commits are never deleted."""
        return self.engine.commits(revision - 1, revision, 1, newest_first=False)[0]
