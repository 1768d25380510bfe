"""The feed: commits in order as they come, and consumers whose place in it outlives them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final

from agentmem.coordination.events import Event, Reader, Receiver
from agentmem.coordination.feed_steps import Cursor, Forget, Move, Skip, Start, lease_name, replaced
from agentmem.coordination.lease_steps import FEEDS, Break
from agentmem.coordination.leases import Lease, checked_name, checked_wait
from agentmem.coordination.waking import Waking
from agentmem.course import Course, Pause, drive
from agentmem.engines.rows import (
    Look,
)
from agentmem.errors import (
    AgentMemError,
    ClosedError,
    FutureRevisionError,
    InvalidValueError,
    LeaseError,
)
from agentmem.model import MISSING, to_datetime
from agentmem.namespaces import decode
from agentmem.scope import Scope
from agentmem.values import check_label_text, check_number
from agentmem.writes import ttl_microseconds

if TYPE_CHECKING:
    from agentmem.core import Core

__all__ = [
    "HOLD_S",
    "ConsumerState",
    "Feed",
    "ack_step",
    "break_consumer",
    "consumers_of",
    "forget_consumer",
    "watch",
]

HOLD_S: Final = 30.0
_LOOK_S: Final = 1.0  # between looks whether the consumer is still held
_SKIPPED_EVERY: Final = 256  # revisions that were not for the consumer, before its cursor moves
_log = logging.getLogger("agentmem")


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """How far a durable consumer has come.

    Attributes:
        name: as `Store.watch` was given it.
        scope: the namespace of the view that it belongs to; None: a view made from a mapping.
        revision: all up to this one is acknowledged.
        behind: how many commits the store has after that, whether they are for it or not.
        moved_at: when its cursor moved last.
        token: of who reads as it; None: nobody does.
        agent: who that is; None: nobody, or it was not told.
    """

    name: str
    scope: tuple[str, ...] | None
    revision: int
    behind: int
    moved_at: datetime
    token: int | None
    agent: str | None


ConsumerState.__module__ = "agentmem"


class Feed:
    """The commits of a view in order, as they come; made by `Store.watch`.

    ::

        with store.watch("team", consumer="planner") as feed:
            for event in feed:
                with store.transaction() as tx:
                    tx.put("seen", event.revision)
                    tx.ack(event)

    An iterator: no commit is left out, none comes twice or too early. It ends after `stop`, or when
    the feed or the store is closed. For one thread at a time, but `stop` and `ack` are for any.
    After an error it can be asked again, and goes on where it was.
    """

    __slots__ = (
        "_core", "_events", "_given", "_lease", "_lock", "_reader", "_receiver", "_skipped",
        "_stopped", "_timeout_s",
    )  # fmt: skip
    __module__ = "agentmem"

    def __init__(
        self,
        core: Core,
        reader: Reader,
        receiver: Receiver | None,
        lease: Lease | None,
        timeout_s: float | None,
    ) -> None:
        self._core = core
        self._reader = reader
        self._receiver = receiver
        self._lease = lease
        self._timeout_s = timeout_s
        self._events: deque[Event] = deque()  # read, and not yet given
        self._given = self._skipped = reader.cursor.revision
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # of all of the above but the lease

    def __repr__(self) -> str:
        name = "" if self._receiver is None else f"consumer={self._receiver.consumer!r}, "
        return f"Feed({name}revision={self._given})"

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Event:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    def next(self, timeout_s: object = MISSING) -> Event | None:
        """The next event; waits for it.

        Args:
            timeout_s: for so long at most; 0: only what is there, None: without end. Not given:
                as `Store.watch` was given it.

        Returns: None: none came in time, or the feed was stopped.

        Raises:
            CompactedError: what comes next was compacted.
            HistoryReplacedError: the store has another history now.
            FencedError: another reads as this consumer now, or it was forgotten.
        """
        coming = self.coming(timeout_s)
        if self._stopped.is_set():
            return None
        with self._lock:
            return self.take() if drive(coming) else None

    @property
    def is_ready(self) -> bool:
        """Whether the next event was read already, and can be taken."""
        lost = self._lease is not None and self._lease.lost is not None
        return bool(self._events) and not lost and not self._stopped.is_set()

    def take(self) -> Event:
        """The event that is there when `is_ready` or `coming` has said so."""
        event = self._events.popleft()
        self._given = event.revision
        return event

    def coming(self, timeout_s: object = MISSING) -> Course[bool]:
        """Whether there is a next event, as `next` waits for it; for one at a time."""
        wait_s = self._timeout_s if timeout_s is MISSING else _checked_timeout(timeout_s)
        return self._coming(float("inf") if wait_s is None else time.monotonic() + wait_s)

    def _coming(self, deadline: float) -> Course[bool]:
        try:
            return (yield from self._await(deadline))
        except ClosedError:
            # The store was closed, by another thread perhaps, which ends all that goes on.
            self._stopped.set()
            return False

    def _await(self, deadline: float) -> Course[bool]:
        engine = self._core.engine
        while not self._stopped.is_set():
            if self._lease is not None and self._lease.lost is not None:
                raise self._lease.lost
            if self._events:
                return True
            # Made anew, before the log is read: the thread may be another, and nothing may fall
            # between.
            waking = Waking(engine, self._stopped.is_set)
            self._events += self._reader.page()
            if self._events:
                continue
            if self._reader.cursor.revision - self._skipped >= _SKIPPED_EVERY:
                self._skip()
            now = time.monotonic()
            if now >= deadline:
                return False
            yield Pause(waking, min(deadline, now + _LOOK_S))
        return False

    def _skip(self) -> None:
        """Moves the cursor over what was not for the consumer, if all else is acknowledged.

        Else one who sleeps on a quiet namespace would be overtaken by compaction.
        """
        at = self._reader.cursor
        self._skipped = at.revision
        if (receiver := self._receiver) is not None:
            named = (receiver.view, receiver.consumer, receiver.token)
            self._core.coordinate(Skip(*named, at, self._given))

    def ack(self, event: Event) -> None:
        """Acknowledges an event, and all before it: they are not given to the consumer again.

        Durable when it returns. What was done for the event before may be done again after a
        crash; `Transaction.ack` moves the cursor together with it. May be called again.

        Raises:
            InvalidValueError: the event is of a feed without a consumer, or of another store.
            FencedError: another reads as the consumer now, or it was forgotten.
            HistoryReplacedError: the store has another history now.
        """
        self._core.coordinate(ack_step(event, self._core, effects=False))

    def stop(self) -> None:
        """Ends the iteration, of whatever thread. What is acknowledged stays so."""
        self._stopped.set()

    def close(self) -> None:
        """Ends the iteration, and lets another read as the consumer. May be called again."""
        self.stop()
        if self._lease is None:
            return
        with self._lock:
            lease, self._lease = self._lease, None
            if lease is None:
                return
            try:
                with suppress(LeaseError):  # nothing of it is ours any more
                    self._skip_rest()
            finally:
                lease.release()

    def _skip_rest(self) -> None:
        if not self._events and self._reader.cursor.revision > max(self._given, self._skipped):
            self._skip()

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except ClosedError:
            return
        except AgentMemError:
            if kind is None:
                raise
            # The block's own exception is on its way, and the hold runs out by itself.
            _log.warning("a feed could not be closed", exc_info=True)


def _checked_timeout(timeout_s: object) -> float | None:
    if timeout_s is None:
        return None
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)):
        raise TypeError(f"timeout_s is a number of seconds, not {type(timeout_s).__name__}")
    if not timeout_s >= 0:
        raise InvalidValueError(f"timeout_s is {timeout_s}; it is at least 0")
    return float(timeout_s)


def watch(
    core: Core,
    scope: Scope,
    namespace: object,
    since: int | None,
    consumer: str | None,
    *,
    timeout_s: float | None,
    wait_s: float,
    hold_s: float,
    agent: str | None,
) -> Course[Feed]:
    """See `Store.watch`."""
    core.check_open()
    labels = scope.labels(namespace)
    scope.readable(labels)
    timeout_s = _checked_timeout(timeout_s)
    cursor = _place(core, since)
    if consumer is None:
        reader = Reader(core, scope, labels, cursor, None)
        reader.check()
        return Feed(core, reader, None, None, timeout_s)
    name = checked_name(consumer, "a consumer", scope)
    scope.check_any("a consumer")
    lease = _lease(core, scope, name, wait_s, hold_s, agent)
    yield from lease.acquiring()
    try:
        start = Start(scope.name, name, lease.token, cursor)
        core.coordinate(start)
        receiver = Receiver(core.engine.store_id, scope.name, name, lease.token)
        reader = Reader(core, scope, labels, start.cursor, receiver)
        reader.check()
    except BaseException:
        lease.release()
        raise
    return Feed(core, reader, receiver, lease, timeout_s)


def _place(core: Core, since: int | None) -> Cursor:
    """A place in the log, by its revision; None is its end."""
    end = core.engine.position()
    if since is None:
        return Cursor(end.revision, end.hash)
    check_number(since, "since")
    if since > end.revision:
        raise FutureRevisionError(
            f"revision {since} lies in the future; the store is at {end.revision}",
            current=end.revision,
        )
    position = core.engine.position_at(since)
    if position is None:
        raise replaced(since)
    return Cursor(position.revision, position.hash)


def _lease(
    core: Core, scope: Scope, name: str, wait_s: float, hold_s: float, agent: str | None
) -> Lease:
    ttl_us = ttl_microseconds(hold_s)
    if ttl_us is None:
        raise TypeError("hold_s is a number of seconds")
    checked = check_label_text(agent, "agent", scope.limits)
    return Lease(
        core,
        FEEDS,
        lease_name(scope.name, name),
        ttl_us=ttl_us,
        wait_s=checked_wait(wait_s),
        auto_renew=True,
        agent=scope.agent if checked is None else checked,
    )


def ack_step(event: Event, core: Core, *, effects: bool) -> Move:
    """What acknowledges an event.

    Args:
        effects: what was done for it is in the same commit.
    """
    if not isinstance(event, Event):
        raise TypeError(f"an Event is acknowledged, not {type(event).__name__}")
    receiver = event.receiver
    if receiver is None:
        raise InvalidValueError(
            "the event is of a feed without a consumer, which has nothing to acknowledge; name one "
            'with store.watch(consumer="...")'
        )
    if receiver.store_id != core.engine.store_id:
        raise InvalidValueError("the event is of another store")
    least = event.revision if effects else None
    cursor = Cursor(event.revision, event.hash)
    return Move(receiver.view, receiver.consumer, receiver.token, cursor, least)


def consumers_of(core: Core, scope: Scope) -> list[ConsumerState]:
    """See `Store.consumers`."""
    core.check_open()
    engine = core.engine
    rows = engine.look(Look("cursors", (None if scope.is_root else scope.name,)))
    moment, revision = engine.moment(), engine.position().revision
    held = {
        name: (token, agent)
        for _scope, name, token, agent, _granted, epoch, until, _waiting in engine.look(
            Look("leases", (FEEDS,))
        )
        if not moment.has_passed(epoch, until)
    }
    return [
        ConsumerState(
            name,
            None if view.endswith("}") else decode(view),
            at,
            max(0, revision - at),
            to_datetime(moved_at),
            *held.get(lease_name(view, name), (None, None)),
        )
        for view, name, at, moved_at in rows
    ]


def break_consumer(core: Core, scope: Scope, name: str) -> int | None:
    """See `Store.break_consumer`."""
    scope.check_any("break_consumer")
    step = Break(FEEDS, lease_name(scope.name, checked_name(name, "a consumer", scope)))
    core.coordinate(step)
    return step.token


def forget_consumer(core: Core, scope: Scope, name: str) -> bool:
    """See `Store.forget_consumer`."""
    scope.check_any("forget_consumer")
    step = Forget(scope.name, checked_name(name, "a consumer", scope))
    core.coordinate(step)
    return step.done
