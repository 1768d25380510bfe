"""The store: reads of the present, writes that commit at once, and the way to everything else."""

from __future__ import annotations

import os
from builtins import list as List  # noqa: N812  # the method list() hides the type in the class
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar, Unpack

from agentmem.clock import Clock, as_microsecond_clock
from agentmem.coordination.view import CoordinatingView
from agentmem.core import Core
from agentmem.course import drive, refuse_async
from agentmem.engines.rows import (
    Change,
    Place,
)
from agentmem.errors import IndeterminateCommitError, InvalidValueError
from agentmem.history.admin import Admin
from agentmem.history.audit import Audit
from agentmem.history.commits import LogOptions, log_of
from agentmem.history.log import history_of
from agentmem.limits import Limits
from agentmem.merge.registry import Hook
from agentmem.model import Commit, Entry, Hit
from agentmem.namespaces import Pattern
from agentmem.records import entry_of
from agentmem.scope import root_scope
from agentmem.search.embedders import resolve
from agentmem.search.query import SearchQuery
from agentmem.snapshot import Snapshot, on_replica, resolve_at
from agentmem.stored import pattern_text, strategy_text
from agentmem.transact import transact
from agentmem.transaction import Isolation, Transaction
from agentmem.views import PinnedView, Query
from agentmem.writing import WritingView

__all__ = ["Store"]

T = TypeVar("T")
H = TypeVar("H", bound=Hook)


class Store(WritingView, CoordinatingView):
    """A shared memory, or a scoped part of it. Safe for use from many threads.

    Made by `agentmem.open` and `Store.scoped`. Reads show the present; use `snapshot` for
    several reads of one state, and `transaction` or `transact` to read and write as one.
    """

    __slots__ = ()
    __module__ = "agentmem"

    # Reading the present.

    def _point(self, place: Place, *, track: bool) -> Entry[Any] | None:
        core = self._core
        core.check_open()
        row = core.engine.point(place, None).row
        if row is None or not core.sees(row):
            return None
        return entry_of(row, self._scope)

    def _now(self) -> PinnedView:
        return Snapshot(self._core, self._scope, *resolve_at(self._core, self._scope, None))

    def _points(self, places: List[Place], *, track: bool) -> List[Entry[Any]]:
        return self._now()._points(places, track=track)

    def _scan(self, query: Query) -> List[Entry[Any]]:
        return self._now()._scan(query)

    def _count(self, query: Query) -> int:
        return self._now()._count(query)

    def _namespaces(self, query: Query) -> Any:
        return self._now()._namespaces(query)

    def _search(self, query: SearchQuery) -> List[Hit]:
        core = self._core
        core.check_open()
        reading = core.engine.reading()
        view = (reading.position.revision, reading.position.now)
        found = core.searcher.search(self._scope, query, view, reading)
        return found.answer.hits(query, self._scope)

    @property
    def revision(self) -> int:
        """The latest revision; 0 for an empty store."""
        self._core.check_open()
        return self._core.engine.position().revision

    @property
    def floor(self) -> int:
        """The compaction floor: the lowest revision that can be read."""
        self._core.check_open()
        return self._core.engine.floor()

    # What it is.

    @property
    def store_id(self) -> str:
        """Tells this store from all others: random, made with it, the same in every view."""
        return self._core.engine.store_id

    @property
    def prefix(self) -> tuple[str, ...]:
        """The labels that are the root inside of a scoped view; () for the store itself."""
        return self._scope.prefix

    @property
    def agent(self) -> str | None:
        """Who acts where a call names nobody."""
        return self._scope.agent

    @property
    def limits(self) -> Limits:
        """What may be written."""
        return self._core.limits

    # Reading the past.

    def snapshot(self, at: object = None, *, replica: bool = False) -> Snapshot:
        """A read view pinned at one revision.

        Args:
            at: None is now; a revision, the name of a tag, or an aware datetime.
            replica: read from the replica that `agentmem.open` was given, if that has the
                revision. ``at=None`` is then the newest revision that it has, and what expires
                does so as of that revision's time.

        Raises:
            FutureRevisionError: it lies in the future, or the replica is not there yet; its
                ``current`` says how far the store, or the replica, is.
            CompactedError: it can no longer be read.
            HistoryReplacedError: the replica has another history than the store.
            RevisionError: there is no such tag.
        """
        if replica:
            return on_replica(self._core, self._scope, at)
        return Snapshot(self._core, self._scope, *resolve_at(self._core, self._scope, at))

    def history(
        self,
        key: str,
        *,
        namespace: object = None,
        after: int = 0,
        upto: int | None = None,
        limit: int | None = None,
    ) -> List[Entry[Any]]:
        """The versions of a key, newest first, tombstones included.

        Args:
            after, upto: only those of revisions with ``after < revision <= upto``; the next page
                has ``upto`` one below the last revision of this one.
            limit: at most so many; None is all.
        """
        place = self._scope.place(namespace, key)
        self._scope.check(place, "read")
        return history_of(self._core, self._scope, place, after, upto, limit)

    def log(self, namespace: object = None, **options: Unpack[LogOptions]) -> List[Commit]:
        """Commits, newest first, with the changes that this view sees.

        Pages: the next one has ``upto`` one below the last revision of this one (with
        ``oldest_first``, ``after`` equal to it). Commits that come meanwhile move nothing.

        Args:
            namespace: only those that changed a key in it or below.
            options: `agent`, `op_id`, `since`, `until`, `after`, `upto`, `metadata`, `where`,
                `oldest_first` and `limit`; see `LogOptions`.
        """
        return log_of(self._core, self._scope, namespace, options)

    # Transactions.

    def clear(
        self,
        namespace: object = None,
        *,
        agent: str | None = None,
        op_id: str | None = None,
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """Deletes every key of a namespace and all below it, in one commit.

        Returns: how many keys were deleted.

        Raises:
            LimitExceededError: more keys than one transaction may write.
        """

        def delete_all(tx: Transaction) -> int:
            count = tx.count(namespace)
            tx.clear(namespace)
            return count

        count: int = self.transact(
            delete_all, agent=agent, op_id=op_id, note=note, metadata=metadata
        )
        return count

    def transaction(
        self,
        *,
        agent: str | None = None,
        op_id: str | None = None,
        isolation: Isolation = "serializable",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        fingerprint: object = None,
    ) -> Transaction:
        """Begins a transaction; see `Transaction`.

        Args:
            op_id: applies once; if it is known, ``tx.applied`` is the first commit.
            isolation: ``"serializable"``, or ``"snapshot"``, which validates only what it wrote.
            fingerprint: JSON that tells this request from others; with it, another request
                under the same op_id is an error instead of a replay.
        """
        return Transaction(
            self._core,
            self._scope,
            agent=agent,
            op_id=op_id,
            isolation=isolation,
            note=note,
            metadata=metadata,
            fingerprint=fingerprint,
        )

    def transact(
        self,
        fn: Callable[[Transaction], T],
        *,
        attempts: int = 20,
        deadline_s: float | None = None,
        repair: Callable[[Transaction, List[Any]], object] | None = None,
        merge: bool = False,
        lock: Iterable[Any] = (),
        agent: str | None = None,
        op_id: str | None = None,
        isolation: Isolation = "serializable",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        fingerprint: object = None,
    ) -> T:
        """Runs ``fn(tx)`` in a transaction and commits; on a conflict runs it again.

        Args:
            fn: reads and writes through ``tx``; may run several times, so it must have no other
                effects. Its result must be JSON.
            attempts: how often it may be tried.
            deadline_s: after so many seconds no new attempt is begun.
            repair: ``repair(tx, conflicts)`` is called in place of running `fn` again; it
                calls ``tx.rebase(accept=...)`` for what is still right, and may write more.
            merge: let merge hooks settle conflicts, instead of running `fn` again.
            lock: keys, or (namespace, key), whose leases are taken first, in a fixed order, kept
                while `fn` runs, and released after: where agents keep colliding, they take
                turns instead. A lease that is lost meanwhile fails the commit.
            op_id: applies once; a known op_id returns the stored result, and `fn` is not run.

        Returns: the result of `fn`, as JSON gives it back (tuples are lists).

        Raises:
            ConflictError: still in conflict after the last attempt.
            LeaseError: a lease of `lock` was not to be had within `deadline_s`, or 10 minutes.
            FencedError: a lease of `lock` was lost; nothing was written.
        """
        refuse_async(fn, "transact")
        return drive(
            transact(
                self._core,
                self._scope,
                fn,
                attempts=attempts,
                deadline_s=deadline_s,
                repair=repair,
                merge=merge,
                lock=lock,
                agent=agent,
                op_id=op_id,
                isolation=isolation,
                note=note,
                metadata=metadata,
                fingerprint=fingerprint,
            )
        )

    def outcome(self, error: IndeterminateCommitError) -> Commit | None:
        """What became of a commit whose outcome the disk or the network hid.

        Returns: the commit if it took effect; None if it did not, and never will.
        """
        row = self._core.resolve(error)
        return self._core.commit_by(row.revision, self._scope) if row is not None else None

    # Merging.

    def merge_hook(self, pattern: str) -> Callable[[H], H]:
        """Registers a merge hook for the keys of a pattern, in this process.

        ::

            @store.merge_hook("notes/**")
            def keep_both(conflict):
                return sorted({*conflict.theirs, *conflict.ours})

        The hook gets a `Conflict` and returns the merged value, `agentmem.DELETE`, or a
        `merge.Outcome` with either and what is to stay on record; or it raises `Unmergeable`. It
        runs outside of any lock, and again if the key moves meanwhile.
        """
        self._scope.check_all("merge_hook")
        parsed = Pattern.parse(pattern, self._core.limits, self._scope.prefix)

        def register(hook: H) -> H:
            refuse_async(hook, "merge_hook")
            name = getattr(hook, "__name__", type(hook).__name__)
            self._core.registry.add_hook(parsed, hook, name)
            return hook

        return register

    def set_merge(self, pattern: str, strategy: object) -> None:
        """Keeps a built-in strategy for a pattern in the store, for every process.

        Args:
            pattern: as in `merge_hook`; replaces an earlier strategy of the same pattern.
            strategy: a name such as ``"union"``, or a strategy of `agentmem.merge`; None
                forgets the pattern.

        Raises:
            InvalidValueError: there is no such strategy, or nothing to forget.
        """
        from agentmem.merge import strategy_from_spec

        self._scope.check_all("set_merge")
        parsed = Pattern.parse(pattern, self._core.limits, self._scope.prefix)
        if strategy is None:
            forgotten = self._core.change(
                Change("unset_strategy", {"pattern": pattern_text(parsed)}), self._scope
            )
            if not forgotten:
                raise InvalidValueError(f"no merge strategy is stored for {pattern!r}")
            return
        spec = strategy_text(strategy_from_spec(strategy))
        values = {"pattern": pattern_text(parsed), "spec": spec}
        self._core.change(Change("set_strategy", values), self._scope)

    def merges(self) -> List[tuple[str, Any]]:
        """The stored strategies as (pattern, spec), in order of registration."""
        stored = self._core.stored_strategies()
        depth = len(self._scope.prefix)
        inside = [each for each in stored if each.pattern.parts[:depth] == self._scope.prefix]
        return [("/".join(each.pattern.parts[depth:]), each.strategy.spec) for each in inside]

    # Parts and tools.

    def scoped(
        self,
        namespace: object = None,
        *,
        agent: str | None = None,
        access: str | Mapping[str, str] = "write",
    ) -> Store:
        """A part of the store that looks like a store: a chroot with an access level.

        Args:
            namespace: the root inside; arguments and results are relative to it.
            agent: who acts in it.
            access: ``"write"``, ``"append"`` (creates absent keys, appends, adds to sets,
                nothing else), ``"read"``, or a mapping of patterns to these, such as
                ``{"agents/alice/**": "write", "team/**": "read"}``; all else is refused.
        """
        return Store(self._core, self._scope.narrowed(namespace, agent, access))

    def with_embedder(self, embedder: object) -> Store:
        """The same open store for whoever embeds by other means than it was opened with.

        What it writes and searches is embedded by `embedder`; hooks, commits and what is kept in
        memory are those of this store, and closing either closes both. As ever, the vectors
        below one top-level namespace are of one embedder.

        Args:
            embedder: as in `agentmem.open`.
        """
        return Store(self._core.seen_by(resolve(embedder)), self._scope)

    @property
    def audit(self) -> Audit:
        """Who changed what: differences, conflicts, tags."""
        return Audit(self._core, self._scope)

    @property
    def admin(self) -> Admin:
        """Statistics, verification, backups, exports; of the whole store only."""
        self._scope.check_whole("store.admin")
        return Admin(self._core, self._scope)

    def close(self) -> None:
        """Closes the store and all views of it. May be called again."""
        self._core.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        location = self._core.engine.describe()["location"]
        scope = f", scope={'/'.join(self._scope.prefix)!r}" if self._scope.prefix else ""
        return f"Store({location!r}{scope})"


def open_store(
    target: str | os.PathLike[str],
    *,
    durability: str,
    agent: str | None,
    blind_writes: str,
    limits: Limits,
    clock: Clock | None,
    replica: str | None,
    embedder: object,
    index: str,
    provenance: bool,
) -> Store:
    """See `agentmem.open`."""
    from agentmem.engines import open_engine, open_replica

    scope = root_scope(limits, agent)
    made = resolve(embedder)
    other = open_replica(target, replica, limits.lock_timeout_ms)
    engine = open_engine(target, durability, as_microsecond_clock(clock), limits.lock_timeout_ms)
    core = Core(
        engine, limits, blind_writes, other, embedder=made, index=index, provenance=provenance
    )
    return Store(core, scope)
