"""The commit path: one for all engines, the only way into the log.

**Flat combining** (Hendler, Incze, Shavit & Tzafrir, SPAA 2010). There is no writer thread. The
first thread that submits becomes the leader, takes what waits, commits it as one database
transaction, and hands over to a thread that has come meanwhile::

    thread A                     thread B               thread C
    submits, leads
    commits {A}                  submits, waits         submits, waits
    hands over to B
    returns                      leads
                                 commits {B, C}
                                 returns                returns

One thread alone pays nothing for it; many share one sync to disk.

**Interruptions.** An asynchronous exception (KeyboardInterrupt, say) can strike the leader
between any two steps. What it leaves is a `_Batch` that knows its phase, and every step can be
taken again: the loop in `submit` goes on until the batch is settled and leadership handed on,
and only then lets the exception through, to its own caller alone.
"""

from __future__ import annotations

import copy
import logging
import threading
import traceback
from collections import deque
from enum import Enum
from typing import Final

from agentmem.engines.base import Engine
from agentmem.engines.session import CommitUnknownError, TryAgainError, WriteSession
from agentmem.errors import AgentMemError, IndeterminateCommitError, StoreBusyError
from agentmem.judge import Judge, wanted
from agentmem.limits import Limits
from agentmem.marks import Marker
from agentmem.merge.registry import MergeRegistry
from agentmem.model import display_key
from agentmem.request import Request

__all__ = ["Committer"]

_MAX_REQUESTS: Final = 128
_TRIES: Final = 10  # of a batch that the database gives up
_MAX_BYTES: Final = 16 * 1024 * 1024

_log = logging.getLogger("agentmem")


class _Phase(Enum):
    """How far a batch has come."""

    NEW = "nothing was begun"
    OPEN = "a session was begun, and can be rolled back"
    COMMITTING = "COMMIT was sent"
    SETTLED = "every request has its verdict"


# An Enum looks for its member each time.
_NEW, _OPEN, _COMMITTING, _SETTLED = _Phase


class _Ticket:
    """A request in the queue."""

    __slots__ = ("alone", "gate", "queued", "request", "settled", "withdrawn")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.gate: threading.Lock | None = None  # held while its thread can but wait
        self.queued = False
        self.settled = False
        self.alone = False  # a batch with it in it has failed
        self.withdrawn = False  # its thread was struck and waits for no verdict

    def close(self) -> threading.Lock:
        """The gate, which its thread cannot pass before it is woken. Under the queue's lock."""
        gate = self.gate
        if gate is None:
            gate = threading.Lock()
            gate.acquire()
            self.gate = gate
        return gate

    def wake(self) -> None:
        """Lets the thread look again. Called under the queue's lock."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()


class _Batch:
    """What one leader commits together."""

    __slots__ = ("filled", "phase", "revision", "session", "tickets")

    def __init__(self) -> None:
        self.tickets: list[_Ticket] = []
        self.filled = False
        self.phase = _NEW
        self.session: WriteSession | None = None
        self.revision = 0

    def replays(self, request: Request) -> bool:
        """Whether the request was answered from a commit that was there before the batch."""
        known = request.receipt.known if request.receipt is not None else None
        return known is not None and known.revision <= self.revision

    def attempt_of(self, request: Request) -> bytes:
        """The attempt that the request's fate hangs on: another's, if it replays that one."""
        receipt = request.receipt
        if receipt is None or receipt.known is None:
            return request.attempt
        others = (ticket.request for ticket in self.tickets)
        made = (other for other in others if other.receipt and not other.receipt.known)
        same = (other.attempt for other in made if other.receipt.revision == receipt.revision)  # type: ignore[union-attr]  # made: it has one
        return next(same, request.attempt)


class Committer:
    """The queue of one store in one process. Safe for any number of threads."""

    def __init__(
        self,
        engine: Engine,
        registry: MergeRegistry,
        limits: Limits,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._limits = limits
        self._mutex = threading.Lock()  # protects _waiting, _leader and the tickets' states
        self._waiting: deque[_Ticket] = deque()
        self._leader: _Ticket | None = None
        self._batch: _Batch | None = None  # the leader's alone
        self._marker = Marker()  # the leader's alone

    def submit(self, request: Request) -> None:
        """Has the request judged and, if it stands, committed durably.

        Returns when it has a verdict: ``receipt``, ``stale``, ``merges`` or ``texts`` is set.

        Raises:
            AgentMemError: the request's own error; nothing was written for it, unless it is
                `IndeterminateCommitError`.
        """
        ticket = _Ticket(request)
        try:
            interruption = self._drive(ticket, struck=False)
        except BaseException:
            # Struck between two turns of the loop, where nothing could catch it.
            self._drive(ticket, struck=True)
            raise
        if interruption is not None:
            try:
                raise interruption
            finally:
                # Else it would hold this frame, and the frame it, until the collector comes.
                del interruption
        if request.error is not None:
            raise request.error

    def _drive(self, ticket: _Ticket, *, struck: bool) -> BaseException | None:
        """Goes on until the ticket is settled and leads no more; returns what struck meanwhile."""
        interruption: BaseException | None = None
        # The leader must not leave before it has handed over, whatever strikes it.
        while not ticket.settled or self._leader is ticket:
            try:
                if struck:
                    _forget_locals(interruption)
                    self._recover(ticket)
                    struck = False
                else:
                    self._step(ticket)
            except BaseException as error:  # noqa: BLE001  # raised by submit, once all is settled
                interruption, struck = interruption or error, True
        return interruption

    # The queue.

    def _step(self, ticket: _Ticket) -> None:
        with self._mutex:
            if not ticket.queued:
                self._waiting.append(ticket)
                ticket.queued = True  # last: what is noted as queued can be found
            if self._leader is None:
                self._leader = ticket
            leads = self._leader is ticket
            gate = None if leads else ticket.close()
        if gate is None:
            self._lead(ticket)
        else:
            gate.acquire()

    def _lead(self, ticket: _Ticket) -> None:
        while not ticket.settled or (self._batch is not None and self._batch.tickets):
            if self._batch is None:
                self._batch = _Batch()
            self._fill(self._batch)
            self._settle(self._batch)
            self._batch = None
        if self._batch is not None:
            self._abandon(self._batch)
            self._batch = None
        with self._mutex:
            self._drop_settled()
            following = self._waiting[0] if self._waiting else None
            if following is not None:
                following.wake()  # first: whoever is leader must have been woken
            self._leader = following

    def _fill(self, batch: _Batch) -> None:
        """Takes what waits. A batch that was filled before an interruption stays as it is."""
        if batch.filled:
            return
        waiting, tickets = self._waiting, batch.tickets
        with self._mutex:
            for ticket in tickets:  # taken, but perhaps not yet out of the queue
                if ticket in waiting:
                    waiting.remove(ticket)
            self._drop_settled()
            size = 0
            while waiting and len(tickets) < _MAX_REQUESTS:
                ticket = waiting[0]
                if tickets or len(waiting) > 1:
                    size += ticket.request.size
                if tickets and (size > _MAX_BYTES or ticket.alone or tickets[0].alone):
                    break
                tickets.append(ticket)
                waiting.popleft()
            batch.filled = True

    def _recover(self, ticket: _Ticket) -> None:
        """After an asynchronous exception: takes the ticket out, if it was not yet committed."""
        batch = self._batch if self._leader is ticket else None
        if batch is not None:
            self._roll_back_or_finish(batch)
        with self._mutex:
            waits = ticket in self._waiting
            taken = batch is not None and ticket in batch.tickets
            if not ticket.withdrawn:
                if ticket.settled or (ticket.queued and not waits and not taken):
                    return  # it has its verdict, or another leader has it and will give one
                # First of all: from here on this can be struck and begun again.
                ticket.withdrawn = True
            ticket.settled = True
            if waits:
                self._waiting.remove(ticket)
            if batch is not None and taken:
                batch.tickets.remove(ticket)

    def _drop_settled(self) -> None:
        """Takes those out of the queue that were withdrawn. Called under the queue's lock."""
        while self._waiting and self._waiting[0].settled:
            self._waiting.popleft()

    def _roll_back_or_finish(self, batch: _Batch) -> None:
        """Brings a batch that was struck in the middle to NEW or SETTLED."""
        session = batch.session
        if session is None or batch.phase in (_NEW, _SETTLED):
            return
        if batch.phase is _COMMITTING:
            traces = {each.request.trace for each in batch.tickets} - {None}
            try:
                took_effect = any(session.was_committed(*each) for each in traces if each)
            except Exception as error:  # noqa: BLE001  # reported to every caller of the batch
                self._finish(batch, error, unknown=True)
                return
            if took_effect:
                self._finish(batch)
                return
        self._abandon(batch)

    # One batch.

    def _settle(self, batch: _Batch) -> None:
        """Commits a batch and gives every request in it its verdict.

        If it fails before COMMIT, its requests go back to the head of the queue, each to be
        tried alone, once: what is wrong with one of them touches no other.
        """
        if batch.phase is _SETTLED:
            self._close(batch)
            return
        if not batch.tickets:
            return
        try:
            self._commit_again(batch)
        except CommitUnknownError as error:
            self._finish(batch, error, unknown=True)
        except Exception as error:
            if batch.phase is _COMMITTING and not isinstance(error, AgentMemError):
                # No answer to COMMIT, but an asynchronous exception that hid it.
                self._roll_back_or_finish(batch)
                raise
            self._abandon(batch)
            if len(batch.tickets) == 1 or isinstance(error, StoreBusyError):
                self._finish(batch, error)
            else:
                self._requeue_alone(batch)
                if not isinstance(error, AgentMemError):
                    # No error of a request: most likely an asynchronous exception, which is for
                    # the leader's own caller.
                    raise
        else:
            self._finish(batch)

    def _requeue_alone(self, batch: _Batch) -> None:
        _log.warning("a batch of %d requests failed; each is tried alone", len(batch.tickets))
        with self._mutex:
            batch.filled = False  # so that an interruption leaves no ticket in both places
            for ticket in reversed(batch.tickets):
                ticket.alone = True
                if ticket not in self._waiting:
                    self._waiting.appendleft(ticket)
            batch.tickets = []

    def _commit_again(self, batch: _Batch) -> None:
        """Commits, as often as the database gives the transaction up: nothing was written then."""
        for _try in range(_TRIES):
            try:
                self._commit(batch)
            except TryAgainError as error:
                self._abandon(batch)
                given_up = error
            else:
                return
        raise StoreBusyError(
            f"the database gave the transaction up {_TRIES} times ({given_up}); run it again"
        ) from given_up

    def _commit(self, batch: _Batch) -> None:
        requests = [ticket.request for ticket in batch.tickets]
        wants = wanted(requests)
        session = batch.session = (
            self._engine.session() if wants.lasts else self._engine.unsynced_session()
        )
        batch.phase = _OPEN
        start = session.enter(
            self._limits.lock_timeout_ms,
            wants.places,
            wants.operations,
            spaces=wants.spaces,
            looks=wants.looks,
        )
        batch.revision = start.position.revision
        judge = Judge(session, start, self._registry, self._limits, self._marker)
        for request in requests:
            request.reset()
            try:
                judge.decide(request)
            except AgentMemError as error:
                request.receipt = None
                request.error = error
        if judge.rows:
            session.append(judge.rows)
            batch.phase = _COMMITTING
            session.commit()
            self._marker.keep()
        else:
            session.confirm()
            session.rollback()

    def _abandon(self, batch: _Batch) -> None:
        session = batch.session
        if session is not None:
            session.rollback()
            session.release()
            batch.session = None
        batch.phase = _NEW

    def _finish(
        self, batch: _Batch, failure: Exception | None = None, *, unknown: bool = False
    ) -> None:
        """Settles a batch.

        Args:
            failure: why it was not committed.
            unknown: or why nobody knows whether it was.
        """
        if failure is not None:
            alone = len(batch.tickets) == 1
            for ticket in batch.tickets:
                request = ticket.request
                if (
                    request.error or request.stale or request.merges or request.texts
                ) or batch.replays(request):
                    continue
                if unknown:
                    request.error = _indeterminate(batch, request, failure)
                else:
                    request.error = failure if alone else copy.copy(failure)
        batch.phase = _SETTLED
        self._close(batch)

    def _close(self, batch: _Batch) -> None:
        """Gives back the lock, then wakes everybody."""
        if batch.session is not None:
            batch.session.release()
            batch.session = None
        with self._mutex:
            for ticket in batch.tickets:
                ticket.settled = True
                ticket.wake()


def _forget_locals(error: BaseException | None) -> None:
    """Empties the frames that an exception came through; it still says where it struck.

    The thread keeps it until its ticket is settled, and may need another connection for that:
    the one that it had must not live on in a frame.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _indeterminate(
    batch: _Batch, request: Request, cause: BaseException
) -> IndeterminateCommitError:
    names = ", ".join(
        repr(display_key(request.scope.relative(namespace), key))
        for namespace, key in list(request.writes)[:3]
    )
    revision = request.receipt.revision if request.receipt is not None else None
    error = IndeterminateCommitError(
        f"the storage or the connection failed while {names or 'a transaction'} was committed: "
        "it may or may not have been written; run it again with the same op_id, or ask "
        "store.outcome(error)",
        op_id=request.op_id,
        attempt=batch.attempt_of(request),
        revision=revision or 0,
    )
    error.__cause__ = cause
    return error
