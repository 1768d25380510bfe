"""What is asked of `once`, under the store's lock.

A record runs, then is done. Who runs it says every few seconds that it lives; who is silent for too
long counts as dead, and nobody knows how far it came. ::

    record            A                          B
    --------------    -----------------------    ----------------------------------------
    runs, token 5     begins
    runs, token 5     is stopped                 asks: A is dead, OutcomeUnknownError
    runs, token 8                                asks again with retry=True, and begins
    done              goes on: FencedError       ends, and records its result
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentmem.coordination.steps import Desk, SmallChange, Subject, fenced
from agentmem.engines.rows import (
    Answer,
    Change,
    Look,
    Moment,
)

__all__ = ["Begin", "End", "Forget", "Record", "Stay"]


class Record(NamedTuple):
    """One row of ``once_records``; ``result`` is JSON text, None while it runs."""

    token: int
    agent: str | None
    started_at: int
    epoch: str
    until: int
    result: str | None
    expires_at: int | None

    def result_at(self, now: int) -> str | None:
        """The result, unless it is not there or is forgotten by then."""
        return self.result if self.expires_at is None or self.expires_at > now else None

    def is_dead(self, moment: Moment) -> bool:
        """Whether it runs, and whoever runs it has been silent for too long."""
        return self.result is None and moment.has_passed(self.epoch, self.until)

    def runs(self, moment: Moment) -> bool:
        """Whether it runs, and whoever runs it lives."""
        return self.result is None and not moment.has_passed(self.epoch, self.until)


@dataclass(slots=True, eq=False)
class _OnceStep(SmallChange):
    scope: str
    id: str

    @property
    def subject(self) -> Subject:
        return "once", self.scope, self.id

    def looks(self) -> Sequence[Look]:
        return (Look("once", (self.scope, self.id)),)

    @property
    def _named(self) -> dict[str, Any]:
        return {"scope": self.scope, "id": self.id}


@dataclass(slots=True, eq=False)
class Begin(_OnceStep):
    """Begins, if nothing is recorded.

    Attributes:
        hold_us: silent for so long, who runs it counts as dead.
        retry: begin, too, if who ran it is dead.
        token: of the run; None: it is not for the asker to run.
        record: what is there, if it is not.
        dead: it was begun, and whoever ran it has been silent for too long.
    """

    agent: str | None
    hold_us: int
    retry: bool
    token: int | None = None
    record: Record | None = None
    dead: bool = False

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        found = Record._make(answers[0][0]) if answers[0] else None
        self.token, self.record = None, found
        self.dead = found is not None and found.is_dead(desk.moment)
        if found is not None:
            if found.runs(desk.moment) or found.result_at(desk.now) is not None:
                return []
            if self.dead and not self.retry:
                return []
        self.token = desk.number()
        epoch, at = desk.moment
        run = {"token": self.token, "agent": self.agent, "started_at": desk.now}
        return [
            Change("begin_once", self._named | run | {"epoch": epoch, "until": at + self.hold_us})
        ]


@dataclass(slots=True, eq=False)
class _RunStep(_OnceStep):
    """What only the latest run may do."""

    token: int

    def _check(self, answer: Answer) -> None:
        found = Record._make(answer[0]) if answer else None
        if found is None or found.token != self.token or found.result is not None:
            current = 0 if found is None else found.token
            raise fenced(f"the run of {self.id!r}", self.token, current, "ended")


@dataclass(slots=True, eq=False)
class Stay(_RunStep):
    """Says that who runs it lives."""

    hold_us: int

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self._check(answers[0])
        epoch, at = desk.moment
        return [Change("stay_once", self._named | {"epoch": epoch, "until": at + self.hold_us})]


@dataclass(slots=True, eq=False)
class End(_RunStep):
    """Records the result: JSON text, for ``ttl_us``, or for ever."""

    result: str
    ttl_us: int | None

    @property
    def size(self) -> int:
        return len(self.result)

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self._check(answers[0])
        expires_at = None if self.ttl_us is None else desk.now + self.ttl_us
        end = {"result": self.result, "expires_at": expires_at}
        return [Change("end_once", self._named | end)]


@dataclass(slots=True, eq=False)
class Forget(_RunStep):
    """Clears the record of a run that failed."""

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self._check(answers[0])
        return [Change("forget_once", self._named)]
