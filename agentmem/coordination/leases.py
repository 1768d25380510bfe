"""Leases: one holder at a time, for a time, with a token that tells it from all others."""

from __future__ import annotations

import json
import logging
import time
import weakref
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from agentmem.coordination.heartbeat import Heartbeat
from agentmem.coordination.lease_steps import (
    FEEDS,
    KEYS,
    STAY_S,
    Acquire,
    Break,
    Guard,
    Leave,
    Release,
    Renew,
    Standing,
    display_lease,
)
from agentmem.coordination.waking import LOOK_S, Waking
from agentmem.course import Course, Pause, drive
from agentmem.engines.rows import (
    Look,
    Place,
)
from agentmem.errors import AgentMemError, InvalidValueError, LeaseError
from agentmem.model import to_datetime
from agentmem.namespaces import decode
from agentmem.scope import Scope
from agentmem.values import check_label_text

if TYPE_CHECKING:
    from agentmem.core import Core
    from agentmem.transaction import Transaction

__all__ = [
    "Lease",
    "LeaseState",
    "break_key_lease",
    "break_lease",
    "checked_name",
    "checked_wait",
    "key_lease",
    "lease_of",
    "leases_of",
]

_BEATS: Final = 3  # of an automatic renewal within the lease's time
_MAX_WAIT_S: Final = 365 * 24 * 3_600.0
_log = logging.getLogger("agentmem")


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A lease that was granted, and not yet released or broken.

    Attributes:
        name: as `Store.lease` was given it.
        scope: the namespace of the view that it belongs to; None: a view made from a mapping.
        key: it is the lease of the key of that name, taken by ``transact(lock=...)``.
        token: of the grant.
        agent: who holds it, None if that was not told.
        granted_at: when it was granted.
        expires_in_s: seconds until it expires; 0: it has, and no other was granted since.
        waiting: how many wait for it.
    """

    name: str
    scope: tuple[str, ...] | None
    key: bool
    token: int
    agent: str | None
    granted_at: datetime
    expires_in_s: float
    waiting: int


LeaseState.__module__ = "agentmem"


class Lease:
    """The right to do something alone for a while; made by `Store.lease`.

    ::

        with store.lease("plan", ttl_s=30, wait_s=5) as lease:
            with store.transaction() as tx:
                tx.guard(lease)
                tx["plan"] = ...

    Whoever holds a lease can be stopped, and hold it no longer when it goes on. So what must not
    happen late is guarded: a commit with ``tx.guard(lease)`` fails if the lease was granted to
    another meanwhile. Each grant has a larger token than all before it.
    """

    __slots__ = (
        "__weakref__", "_agent", "_auto_renew", "_core", "_heartbeat", "_name", "_scope", "_token",
        "_ttl_us", "_wait_s",
    )  # fmt: skip
    __module__ = "agentmem"

    def __init__(
        self,
        core: Core,
        scope: str,
        name: str,
        *,
        ttl_us: int,
        wait_s: float,
        auto_renew: bool,
        agent: str | None,
    ) -> None:
        self._core = core
        self._scope = scope
        self._name = name
        self._ttl_us = ttl_us
        self._wait_s = wait_s
        self._auto_renew = auto_renew
        self._agent = agent
        self._token: int | None = None
        self._heartbeat: Heartbeat | None = None

    def __repr__(self) -> str:
        held = "not held" if self._token is None else f"token={self._token}"
        return f"Lease({self.name!r}, {held})"

    @property
    def name(self) -> str:
        """What it is called."""
        return display_lease(self._scope, self._name)

    @property
    def token(self) -> int:
        """The fencing token of the grant.

        Raises:
            LeaseError: it was not acquired, or was released.
        """
        if self._token is None:
            raise LeaseError(
                f"the lease {self.name!r} is not held; hold it with: with store.lease(...) as lease"
            )
        return self._token

    @property
    def held(self) -> bool:
        """Whether it was acquired, and not released; it may have been lost meanwhile."""
        return self._token is not None

    @property
    def lost(self) -> AgentMemError | None:
        """Why the automatic renewal has ended by itself; None while it goes on, or without."""
        return None if self._heartbeat is None else self._heartbeat.failure

    def acquire(self) -> Lease:
        """Waits for the lease, in the order in which all ask for it.

        Returns: itself.

        Raises:
            LeaseError: it was not to be had in time, or it is held by this object already.
        """
        drive(self.acquiring())
        return self

    def acquiring(self) -> Course[None]:
        """As `acquire`."""
        if self._token is not None:
            raise LeaseError(f"the lease {self.name!r} is held already, token {self._token}")
        self._token = yield from _Waiter(self._core, self._acquisition(), self._wait_s).waiting()
        if self._auto_renew:
            self._keep()

    def _acquisition(self) -> Acquire:
        return Acquire(self._scope, self._name, self._agent, self._ttl_us, waits=self._wait_s > 0)

    def _keep(self) -> None:
        core, scope, name, ttl_us = self._core, self._scope, self._name, self._ttl_us
        token = self.token

        def beat() -> None:
            core.coordinate(Renew(scope, name, token, ttl_us))

        every_s = ttl_us / 1_000_000 / _BEATS
        self._heartbeat = Heartbeat(beat, every_s, f"the lease {self.name!r}")
        # A lease that nobody can refer to any more is not to be kept for ever.
        weakref.finalize(self, self._heartbeat.stop)

    def renew(self) -> None:
        """Lets it run for its whole time again, from now on.

        Raises:
            LeaseExpiredError: it had expired, though nobody has it yet.
            FencedError: it was granted to another since, or released, or broken.
        """
        self._core.coordinate(Renew(self._scope, self._name, self.token, self._ttl_us))

    def release(self) -> bool:
        """Gives it back. May be called again.

        Returns: whether it was still held until now.
        """
        if self._heartbeat is not None:
            self._heartbeat.stop()
        token, self._token = self._token, None
        if token is None:
            return False
        step = Release(self._scope, self._name, token)
        self._core.coordinate(step)
        return step.done

    def guard(self, tx: Transaction) -> None:
        """Makes a transaction's commit fail if it is held no longer; see `Transaction.guard`."""
        step = Guard(self._scope, self._name, self.token)
        tx.add_step(self._core, ("guard", self._scope, f"{step.token} {self._name}"), step)

    def __enter__(self) -> Lease:
        return self.acquire() if self._token is None else self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if not self.release():
                _log.warning("the lease %r was lost before it was released", self.name)
        except AgentMemError:
            if kind is None:
                raise
            # The block's own exception is on its way, and the lease runs out by itself.
            _log.warning("the lease %r could not be released", self.name, exc_info=True)


class _Waiter:
    """One wait for a lease."""

    def __init__(self, core: Core, step: Acquire, wait_s: float) -> None:
        self._core = core
        self._step = step
        self._wait_s = wait_s

    def waiting(self) -> Course[int]:
        """Returns the token."""
        step = self._step
        deadline = time.monotonic() + self._wait_s
        waking = Waking(self._core.engine) if step.waits else None
        try:
            while True:
                stays_until = time.monotonic() + STAY_S / 2
                self._core.coordinate(step)
                if step.token is not None:
                    return step.token
                if waking is None:
                    raise self._not_had()
                if not (yield from self._await_turn(waking, stays_until, deadline)):
                    raise self._not_had()
        except BaseException:
            self._leave()
            raise

    def _await_turn(self, waking: Waking, stays_until: float, deadline: float) -> Course[bool]:
        """Waits until it may be its turn, or it must say again that it waits; False: too late."""
        engine = self._core.engine
        look = self._step.looks()[0]
        while (now := time.monotonic()) < deadline:
            if now >= stays_until:
                return True
            yield Pause(waking, min(deadline, stays_until, now + self._quiet_s()))
            self._step.standing = Standing(engine.look(look), engine.moment())
            if self._step.standing.is_turn_of(self._step.ticket):
                return True
        return False

    def _quiet_s(self) -> float:
        """For how long it cannot become its turn by time alone; not long if that can be moved."""
        standing = self._step.standing
        if standing is None or standing.grant is None or standing.is_free:
            return LOOK_S
        left_us = standing.grant.until - self._core.engine.moment().at
        return min(LOOK_S, max(0.0, left_us / 1_000_000))

    def _leave(self) -> None:
        ticket = self._step.ticket
        if ticket is None:
            return
        try:
            self._core.coordinate(Leave(self._step.scope, self._step.name, ticket))
        except AgentMemError:
            # The line goes past it by itself, a little later.
            _log.info("a place in the line for %r could not be given up", self._step.name)

    def _not_had(self) -> LeaseError:
        standing = self._step.standing
        assert standing is not None, "it was judged"
        name = display_lease(self._step.scope, self._step.name)
        waited = f"after {self._wait_s:g} s " if self._wait_s else ""
        if standing.grant is None or standing.is_free:
            who = "others wait for it"
        else:
            by = "" if standing.grant.agent is None else f" by {standing.grant.agent!r}"
            who = f"it is held{by} (token {standing.grant.number})"
        return LeaseError(
            f"the lease {name!r} was not to be had {waited}because {who}; wait longer "
            "(wait_s=...), or do something else"
        )


def lease_of(
    core: Core,
    scope: Scope,
    name: str,
    *,
    ttl_us: int | None,
    wait_s: float,
    auto_renew: bool,
    agent: str | None,
) -> Lease:
    """See `Store.lease`."""
    scope.check_any("a lease")
    if ttl_us is None:
        raise TypeError("ttl_s is a number of seconds: a lease runs out")
    checked = check_label_text(agent, "agent", scope.limits)
    return Lease(
        core,
        scope.name,
        checked_name(name, "a lease", scope),
        ttl_us=ttl_us,
        wait_s=checked_wait(wait_s),
        auto_renew=auto_renew,
        agent=scope.agent if checked is None else checked,
    )


def key_lease(core: Core, place: Place, *, ttl_us: int, wait_s: float, agent: str | None) -> Lease:
    """The lease of a key, the same for every view that can write it; kept while it is held."""
    name = _key_name(place)
    return Lease(core, KEYS, name, ttl_us=ttl_us, wait_s=wait_s, auto_renew=True, agent=agent)


def _key_name(place: Place) -> str:
    return json.dumps([*decode(place[0]), place[1]], ensure_ascii=False)


def leases_of(core: Core, scope: Scope) -> list[LeaseState]:
    """See `Store.leases`."""
    core.check_open()
    moment = core.engine.moment()
    rows = core.engine.look(Look("leases", (None if scope.is_root else scope.name,)))
    return [_state(row, moment.epoch, moment.at) for row in rows if row[0] != FEEDS]


def _state(row: tuple[Any, ...], epoch: str, at: int) -> LeaseState:
    scope, name, token, agent, granted_at, of_epoch, expires_at, waiting = row
    left_s = max(0.0, (expires_at - at) / 1_000_000) if of_epoch == epoch else 0.0
    mapped = scope.endswith("}")
    labels = None if mapped else () if scope == KEYS else decode(scope)
    moment = to_datetime(granted_at)
    shown = display_lease(scope, name)
    return LeaseState(shown, labels, scope == KEYS, token, agent, moment, left_s, waiting)


def break_lease(core: Core, scope: Scope, name: str) -> int | None:
    """See `Store.break_lease`."""
    scope.check_all("break_lease")
    return _broken(core, Break(scope.name, checked_name(name, "a lease", scope)))


def break_key_lease(core: Core, scope: Scope, place: Place) -> int | None:
    """See `Store.break_lease`."""
    scope.check(place, "write")
    return _broken(core, Break(KEYS, _key_name(place)))


def _broken(core: Core, step: Break) -> int | None:
    core.coordinate(step)
    return step.token


def checked_name(name: object, what: str, scope: Scope) -> str:
    """The name of a lease, a queue, an id."""
    checked = check_label_text(name, f"the name of {what}", scope.limits)
    if checked is None:
        raise TypeError(f"the name of {what} is a str, not None")
    return checked


def checked_wait(wait_s: object) -> float:
    """For how long to wait, in seconds.

    Raises:
        InvalidValueError: negative, or longer than a year.
    """
    if isinstance(wait_s, bool) or not isinstance(wait_s, (int, float)):
        raise TypeError(f"wait_s is a number of seconds, not {type(wait_s).__name__}")
    if not 0 <= wait_s <= _MAX_WAIT_S:
        raise InvalidValueError(f"wait_s is {wait_s}; it is at least 0 and at most a year")
    return float(wait_s)
