"""Running a function in a transaction until it commits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Final, TypeVar

from agentmem.coordination.leases import Lease, key_lease
from agentmem.core import Core
from agentmem.course import Call, Course, attempted
from agentmem.engines.rows import (
    ConflictRow,
    Place,
)
from agentmem.errors import (
    AgentMemError,
    ConflictError,
    IndeterminateCommitError,
    InvalidValueError,
    LimitExceededError,
    StorageError,
)
from agentmem.model import Commit, Conflict
from agentmem.scope import Scope
from agentmem.transaction import Isolation, Transaction
from agentmem.values import dump

__all__ = ["transact"]

T = TypeVar("T")

_LOCK_TTL_S: Final = 30  # renewed while the function runs
_LOCK_WAIT_S: Final = 600.0
_MAX_LOCKS: Final = 100


def transact(
    core: Core,
    scope: Scope,
    function: Callable[[Transaction], T],
    *,
    attempts: int,
    deadline_s: float | None,
    repair: Callable[[Transaction, list[Conflict]], object] | None,
    merge: bool,
    lock: Iterable[Any],
    agent: str | None,
    op_id: str | None,
    isolation: Isolation,
    note: str | None,
    metadata: object,
    fingerprint: object,
) -> Course[T]:
    """See `Store.transact`."""
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise InvalidValueError(f"attempts is a positive integer, not {attempts!r}")
    until = None if deadline_s is None else time.monotonic() + deadline_s

    leases: list[Lease] = []

    def begin() -> Transaction:
        tx = Transaction(
            core,
            scope,
            agent=agent,
            op_id=op_id,
            isolation=isolation,
            note=note,
            metadata=metadata,
            fingerprint=fingerprint,
            merge=merge,
        )
        for lease in leases:
            tx.guard(lease)
        return tx

    run = _Run(core, scope, function, begin, repair)
    with ExitStack() as held:
        for place in _locked(scope, lock):
            wait_s = _LOCK_WAIT_S if until is None else max(0.0, until - time.monotonic())
            who = scope.agent if agent is None else agent
            lease = key_lease(core, place, ttl_us=_LOCK_TTL_S * 1_000_000, wait_s=wait_s, agent=who)
            yield from lease.acquiring()
            leases.append(held.enter_context(lease))
        return (yield from run.run(attempts, until))  # type: ignore[no-any-return]  # JSON of T


def _locked(scope: Scope, lock: Iterable[Any]) -> list[Place]:
    """The keys of ``lock``, in the order in which all take their leases: nobody waits in a ring."""
    if isinstance(lock, str):
        raise TypeError("lock is a list of keys, or of (namespace, key), not a str")
    places = set()
    for each in lock:
        namespace, key = each if isinstance(each, tuple) and len(each) == 2 else (None, each)
        place = scope.place(namespace, key)
        scope.check(place, "append")
        places.add(place)
    if len(places) > _MAX_LOCKS:
        raise LimitExceededError(
            f"lock names {len(places)} keys; at most {_MAX_LOCKS} are allowed",
            limit=_MAX_LOCKS,
            actual=len(places),
        )
    return sorted(places)


class _NotCommittedError(Exception):
    """COMMIT failed, and it is certain by now that nothing was committed: try again."""


class _Run:
    """One call of transact."""

    def __init__(
        self,
        core: Core,
        scope: Scope,
        function: Callable[[Transaction], Any],
        begin: Callable[[], Transaction],
        repair: Callable[[Transaction, list[Conflict]], object] | None,
    ) -> None:
        self._core = core
        self._scope = scope
        self._function = function
        self._begin = begin
        self._repair = repair
        self._tx: Transaction | None = None
        self._earlier: list[ConflictRow] = []
        self._result: str | None = None

    def run(self, attempts: int, until: float | None) -> Course[Any]:
        """Tries until it commits, the attempts are used up, or the time is over."""
        for attempt in range(1, attempts + 1):
            try:
                commit = yield from self._core.lane.attempt(attempt, self._attempt(), until)
            except ConflictError as error:
                over = until is not None and time.monotonic() >= until
                self._note(error, final=attempt == attempts or over)
                if attempt == attempts or over:
                    raise self._exhausted(error, attempt) from error
            except _NotCommittedError as error:
                if attempt == attempts:
                    raise StorageError(
                        f"the storage failed in {attempt} attempts; nothing was committed"
                    ) from error.__cause__
            except Exception:
                self._record_earlier()
                raise
            else:
                if commit.revision is None or commit.replayed:
                    self._record_earlier()
                return commit.result
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self) -> Course[Commit]:
        tx = self._tx
        if tx is None or self._repair is None:
            tx = self._tx = self._begin()
            if tx.applied is not None:
                return tx.replay()
            self._result = yield from self._run_function(tx, Call(self._function, tx))
        else:
            conflicts = tx.conflicts()
            answer = yield from self._run_function(tx, Call(self._repair, tx, conflicts))
            self._result = answer if answer != "null" else self._result
        return (yield from self._commit(tx))

    def _run_function(self, tx: Transaction, call: Call) -> Course[str]:
        try:
            returned = yield call
            return dump(returned, self._core.limits, what="result of transact")
        except BaseException:
            tx.rollback()
            raise

    def _commit(self, tx: Transaction) -> Course[Commit]:
        try:
            return (yield from attempted(lambda: tx.finish(self._result, self._earlier)))
        except IndeterminateCommitError as error:
            tx.rollback()
            self._tx = None
            try:
                row = self._core.resolve(error)
            except AgentMemError:
                # The disk still fails: the caller has to ask again, with this error.
                raise error from error.__cause__
            if row is None:
                raise _NotCommittedError from error
            return self._core.commit_by(row.revision, self._scope)
        except ConflictError:
            if self._repair is None:
                tx.rollback()
            raise

    def _note(self, error: ConflictError, *, final: bool) -> None:
        """Keeps the conflicts for the commit that ends them, or, at last, records them."""
        tx = self._tx
        if tx is None:
            return
        status = "repaired" if self._repair is not None else "retried"
        self._earlier += [
            tx.conflict_row(conflict, "rejected" if final else status)
            for conflict in error.conflicts
        ]
        if final and self._earlier:
            self._core.record(self._earlier, self._scope, tx.agent)

    def _record_earlier(self) -> None:
        """Puts on record what no commit of this call will carry."""
        earlier, self._earlier = self._earlier, []
        if earlier:
            self._core.record(earlier, self._scope, earlier[0].agent)

    def _exhausted(self, error: ConflictError, attempt: int) -> ConflictError:
        return ConflictError(
            f"still in conflict after {attempt} attempts: {error}", conflicts=error.conflicts
        )
