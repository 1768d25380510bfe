"""The one commit of a call that undoes: who makes it and why, once for its op_id, and by a plan
that is made anew when what it goes by has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from agentmem import writes
from agentmem.core import Core
from agentmem.course import attempted, drive
from agentmem.engines.rows import KnownOperation
from agentmem.errors import AgentMemError
from agentmem.history.undoing import Plan
from agentmem.model import Commit
from agentmem.request import Receipt, Request, Watch
from agentmem.scope import Scope
from agentmem.single import CommitOptions
from agentmem.values import canonical, load

__all__ = ["UndoingCommit"]

T = TypeVar("T")

_ATTEMPTS: Final = 20


class UndoingCommit:
    """One call's commit.

    Args:
        what: the note of the commit, if the options have none.
        request: the kind of request, and JSON that tells it from others with its op_id.
        found_by: goes into the metadata of the commit, so that it can be found.
    """

    def __init__(
        self,
        core: Core,
        scope: Scope,
        options: CommitOptions,
        *,
        what: str,
        request: tuple[str, list[Any]],
        found_by: dict[str, Any],
    ) -> None:
        self._core = core
        self._scope = scope
        self._mismatch = options.get("on_mismatch", "error")
        fields = [options.get(name) for name in ("agent", "op_id", "note", "metadata")]
        self._agent, self.op_id, note, metadata = writes.commit_fields(scope, *fields)
        if found_by:
            metadata = canonical((load(metadata) if metadata else {}) | found_by).decode()
        self._metadata = metadata
        self._note = what if note is None else note
        kind, body = request
        self._fingerprint = writes.fingerprint(kind, (), body)

    def request(self, plan: Plan, *, record: bool = True, watch: Watch | None = None) -> Request:
        """What is asked of the store to do what is planned.

        Args:
            record: put a conflict on record: this attempt is the last.
            watch: what the commit is judged against, besides the keys of the plan.
        """
        return Request(
            self._scope,
            self.op_id,
            self._agent,
            0,
            0,
            note=self._note,
            metadata=self._metadata,
            fingerprint=self._fingerprint if self.op_id is not None else None,
            reads=plan.reads,
            writes=plan.writes,
            pinned=False,
            record=record,
            cited=plan.cited,
            undoes=True,
            watch=watch,
        )

    def known(self) -> int | None:
        """The revision of what the op_id did first; None if it is new.

        Raises:
            OperationMismatchError: it did something else.
        """
        if self.op_id is None:
            return None
        row = self._core.engine.operation(self._scope.name, self.op_id)
        if row is None:
            return None
        known = KnownOperation(row.revision, row.fingerprint)
        self._check(self.request(Plan()), Receipt(row.revision, None, [], known=known))
        return row.revision

    def first(self, revision: int) -> Commit:
        """The commit that a known op_id made."""
        return self._core.commit_by(revision, self._scope, replayed=True)

    def run(self, request: Request) -> Receipt:
        """Commits; `known` of the receipt is set if the op_id was used before.

        Raises:
            ConflictError: what the plan goes by has moved.
            OperationMismatchError: the op_id was used for something else.
        """
        receipt = self._core.run(request)
        self._check(request, receipt)
        return receipt

    def _check(self, request: Request, receipt: Receipt) -> None:
        self._core.check_known(request, receipt, self._mismatch)

    def attempted(self, attempt: Callable[[bool], T | None]) -> T:
        """Plans and commits until something comes of it.

        Args:
            attempt: ``attempt(last)``; None if what its plan went by has moved, which the last
                one has to raise.
        """
        for number in range(1, _ATTEMPTS + 1):
            last = number == _ATTEMPTS
            trial = attempted(lambda last=last: attempt(last))  # type: ignore[misc]  # binds the loop's variable
            found: T | None = drive(self._core.lane.attempt(number, trial))
            if found is not None:
                return found
        raise AgentMemError("unreachable: the last attempt returns or raises")
