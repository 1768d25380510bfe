"""What is asked of leases, under the store's lock.

A lease has at most one grant, and a line of those who wait for it. Who waits must say so again
every few seconds, else the line goes past them: a process that was killed or stopped holds nobody
up. ::

    grant                 line                     A renews, stops, comes back
    -----------------     --------------------     ---------------------------------------
    A, token 7            B (ticket 8)
    A, expired            B                        B's turn
    B, token 9            -                        A's commits under token 7: FencedError
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from agentmem.coordination.steps import Desk, SmallChange, Subject, fenced
from agentmem.engines.rows import (
    Answer,
    Change,
    Look,
    Moment,
)
from agentmem.errors import LeaseExpiredError
from agentmem.model import display_key

__all__ = [
    "FEEDS",
    "KEYS",
    "STAY_S",
    "Acquire",
    "Break",
    "Guard",
    "Leave",
    "Release",
    "Renew",
    "Standing",
    "display_lease",
]

KEYS: Final = "keys"
"""The scope of the leases of keys; a view's name is ``""``, or ends a label, or is an object."""

FEEDS: Final = "feeds"
"""The scope of the leases of who reads as a durable consumer; see `agentmem.coordination.feed`."""

STAY_S: Final = 3.0
"""For how long somebody in the line counts as waiting without saying so again."""


def display_lease(scope: str, name: str) -> str:
    """A lease as people call it."""
    if scope == FEEDS:
        return f"consumer {json.loads(name)[1]}"
    if scope != KEYS:
        return name
    *labels, key = json.loads(name)
    return display_key(tuple(labels), key)


class _Row(NamedTuple):
    """The grant, or a place in the line.

    ``number`` is a token or a ticket; ``since`` is for people.
    """

    waits: int
    number: int
    agent: str | None
    since: int
    epoch: str
    until: int

    def has_passed(self, moment: Moment) -> bool:
        return moment.has_passed(self.epoch, self.until)


class Standing:
    """How a lease stands at a moment.

    Attributes:
        grant: the latest, expired or not; None: it was released or broken.
        first: who is next of those who still wait.
        gone: the tickets of those who do not any more.
        live: the tickets of those who do.
    """

    __slots__ = ("first", "gone", "grant", "is_free", "live")

    def __init__(self, answer: Answer, moment: Moment) -> None:
        rows = [_Row._make(row) for row in answer]
        line = [row for row in rows if row.waits]
        self.grant = next((row for row in rows if not row.waits), None)
        self.is_free = self.grant is None or self.grant.has_passed(moment)
        self.gone = [row.number for row in line if row.has_passed(moment)]
        self.live = [row.number for row in line if not row.has_passed(moment)]
        self.first = next((row for row in line if not row.has_passed(moment)), None)

    def is_turn_of(self, ticket: int | None) -> bool:
        """Whether who has the ticket, or has none, is to have the lease now."""
        first = None if self.first is None else self.first.number
        return self.is_free and first in (None, ticket)


@dataclass(slots=True, eq=False)
class _LeaseStep(SmallChange):
    scope: str
    name: str

    @property
    def subject(self) -> Subject:
        return "lease", self.scope, self.name

    def looks(self) -> Sequence[Look]:
        return (Look("lease", (self.scope, self.name)),)

    @property
    def _named(self) -> dict[str, object]:
        return {"scope": self.scope, "name": self.name}


@dataclass(slots=True, eq=False)
class Acquire(_LeaseStep):
    """Has the lease, or a place in the line.

    Attributes:
        waits: whether to wait in line if it cannot be had.
        ticket: of the place in the line; None: it has none.
        token: of the grant; None: it was not to be had.
        standing: how the lease stood.
    """

    agent: str | None
    ttl_us: int
    waits: bool
    ticket: int | None = None
    token: int | None = None
    standing: Standing | None = None

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        standing = self.standing = Standing(answers[0], desk.moment)
        self.token = None
        leaving = list(standing.gone)
        granted = standing.is_turn_of(self.ticket)
        if granted and self.ticket in standing.live:
            leaving.append(self.ticket)
        changes = [Change("leave_line", {"ticket": ticket}) for ticket in leaving]
        if granted:
            return [*changes, self._grant(desk)]
        return [*changes, self._wait(standing, desk)] if self.waits else []

    def _grant(self, desk: Desk) -> Change:
        self.token = desk.number()
        epoch, at = desk.moment
        grant = {"token": self.token, "agent": self.agent, "granted_at": desk.now}
        expiry = {"epoch": epoch, "expires_at": at + self.ttl_us}
        return Change("grant_lease", self._named | grant | expiry)

    def _wait(self, standing: Standing, desk: Desk) -> Change:
        epoch, at = desk.moment
        until = {"epoch": epoch, "until": at + round(STAY_S * 1_000_000)}
        if self.ticket in standing.live:
            return Change("stay_in_line", {"ticket": self.ticket} | until)
        # The first time; or it was stopped for so long that the line went past it.
        self.ticket = desk.number()
        place = {"ticket": self.ticket, "agent": self.agent, "since": desk.now}
        return Change("join_line", self._named | place | until)


@dataclass(slots=True, eq=False)
class Leave(_LeaseStep):
    """Gives up a place in the line."""

    ticket: int

    @property
    def lasts(self) -> bool:
        return False  # a place that is left over is passed over

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        return [Change("leave_line", {"ticket": self.ticket})]


@dataclass(slots=True, eq=False)
class _HolderStep(_LeaseStep):
    """What only the holder of the latest grant may do."""

    token: int

    def _grant_of(self, answer: Answer, desk: Desk) -> _Row:
        grant = Standing(answer, desk.moment).grant
        if grant is None or grant.number != self.token:
            current = 0 if grant is None else grant.number
            what = f"the lease {display_lease(self.scope, self.name)!r}"
            raise fenced(what, self.token, current, "released or broken")
        return grant


@dataclass(slots=True, eq=False)
class Guard(_HolderStep):
    """Refuses the request unless the latest grant is the token's, expired or not."""

    @property
    def writes(self) -> bool:
        return False

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self._grant_of(answers[0], desk)
        return []


@dataclass(slots=True, eq=False)
class Renew(_HolderStep):
    """Lets the grant run on from now."""

    ttl_us: int

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        if self._grant_of(answers[0], desk).has_passed(desk.moment):
            raise LeaseExpiredError(
                f"the lease {display_lease(self.scope, self.name)!r} had expired when it was to be "
                "renewed; acquire it anew"
            )
        epoch, at = desk.moment
        expiry = {"epoch": epoch, "expires_at": at + self.ttl_us}
        return [Change("renew_lease", self._named | expiry)]


@dataclass(slots=True, eq=False)
class Release(_LeaseStep):
    """Ends the grant, if it is still the token's; ``done`` says whether it was."""

    token: int
    done: bool = False

    @property
    def lasts(self) -> bool:
        return False  # a grant that is left over runs out

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        grant = Standing(answers[0], desk.moment).grant
        self.done = grant is not None and grant.number == self.token
        return [Change("end_lease", self._named)] if self.done else []


@dataclass(slots=True, eq=False)
class Break(_LeaseStep):
    """Ends the grant, whoever has it; ``token`` is that of who had it."""

    token: int | None = None

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        grant = Standing(answers[0], desk.moment).grant
        self.token = None if grant is None else grant.number
        return [] if grant is None else [Change("end_lease", self._named)]
