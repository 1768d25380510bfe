"""What is asked of the cursors of durable consumers, under the store's lock.

A cursor says up to which revision a consumer has acknowledged all that it was given. Only who holds
the consumer's lease moves it, and only forward::

    cursor        A (token 7)                       B (token 9)
    ---------     -----------------------------     ---------------------------------
    4             is given 5, and is stopped
    4                                               takes over, is given 5
    5                                               commits its effects with an ack of 5
    5             goes on, commits its effects
                  with an ack of 5: FencedError
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentmem.coordination.lease_steps import FEEDS, Standing
from agentmem.coordination.steps import Desk, SmallChange, Subject, fenced
from agentmem.engines.rows import (
    Answer,
    Change,
    Look,
)
from agentmem.errors import FencedError, HistoryReplacedError

__all__ = ["Cursor", "Forget", "Move", "Skip", "Start", "lease_name", "replaced"]


class Cursor(NamedTuple):
    """A commit that all is acknowledged up to; (0, b"") before the first."""

    revision: int
    hash: bytes


def lease_name(view: str, consumer: str) -> str:
    """The name of the lease that who reads as a consumer holds."""
    return json.dumps([view, consumer], ensure_ascii=False)


def replaced(revision: int) -> HistoryReplacedError:
    """The error of who has come from another history."""
    return HistoryReplacedError(
        f"revision {revision} is not the one that was read: the store has another history now, of "
        "a backup perhaps; begin anew where the two agree"
    )


@dataclass(slots=True, eq=False)
class _CursorStep(SmallChange):
    """What is done to a cursor.

    Attributes:
        view: the scope that the consumer belongs to.
        consumer: its name.
    """

    view: str
    consumer: str

    @property
    def subject(self) -> Subject:
        # That of the lease's own steps: whatever they do in the same batch is seen.
        return "lease", FEEDS, lease_name(self.view, self.consumer)

    def looks(self) -> Sequence[Look]:
        return (
            Look("lease", (FEEDS, lease_name(self.view, self.consumer))),
            Look("cursor", (self.view, self.consumer)),
        )

    @property
    def _named(self) -> dict[str, Any]:
        return {"scope": self.view, "name": self.consumer}

    def _set(self, cursor: Cursor, desk: Desk) -> list[Change]:
        return [Change("set_cursor", self._named | cursor._asdict() | {"moved_at": desk.now})]


@dataclass(slots=True, eq=False)
class Forget(_CursorStep):
    """Forgets a consumer; ``done`` says whether there was one. Who reads as it is fenced off."""

    done: bool = False

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        self.done = bool(answers[1])
        ended = {"scope": FEEDS, "name": lease_name(self.view, self.consumer)}
        return [Change("forget_cursor", self._named), Change("end_lease", ended)]


@dataclass(slots=True, eq=False)
class _HeldStep(_CursorStep):
    """What only who holds the consumer may do."""

    token: int

    def _held(self, answers: Sequence[Answer], desk: Desk) -> Cursor | None:
        """Where the cursor stands; None: there is none."""
        grant = Standing(answers[0], desk.moment).grant
        if grant is None or grant.number != self.token:
            current = 0 if grant is None else grant.number
            raise fenced(f"the consumer {self.consumer!r}", self.token, current, "released")
        return Cursor._make(answers[1][0]) if answers[1] else None

    def _moving(self, answers: Sequence[Answer], desk: Desk) -> Cursor:
        cursor = self._held(answers, desk)
        if cursor is None:
            raise fenced(f"the consumer {self.consumer!r}", self.token, 0, "forgotten")
        return cursor


@dataclass(slots=True, eq=False)
class Start(_HeldStep):
    """Makes the cursor of a new consumer.

    Attributes:
        cursor: where it begins; once it is judged, where it stands.
    """

    cursor: Cursor

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        found = self._held(answers, desk)
        if found is not None:
            self.cursor = found
            return []
        return self._set(self.cursor, desk)


@dataclass(slots=True, eq=False)
class Move(_HeldStep):
    """Acknowledges all up to an event.

    Attributes:
        cursor: of the event.
        least: with effects in the same commit: the first event that these are of, which must not
            have been acknowledged; None: acknowledging again does nothing.
    """

    cursor: Cursor
    least: int | None

    def looks(self) -> Sequence[Look]:
        return (*_HeldStep.looks(self), Look("hash_at", (self.cursor.revision,)))

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        found = self._moving(answers, desk)
        if answers[2] != [(self.cursor.hash,)]:
            raise replaced(self.cursor.revision)
        if self.least is not None and found.revision >= self.least:
            raise FencedError(
                f"the consumer {self.consumer!r} has acknowledged all up to revision "
                f"{found.revision} before, {self.least} included; nothing was written",
                token=self.token,
                current_token=self.token,
            )
        return [] if found.revision >= self.cursor.revision else self._set(self.cursor, desk)


@dataclass(slots=True, eq=False)
class Skip(_HeldStep):
    """Moves a cursor over commits that were not for the consumer.

    Attributes:
        cursor: where to.
        given: the last event that it was given; nothing is done unless that is acknowledged.
    """

    cursor: Cursor
    given: int

    def judge(self, answers: Sequence[Answer], desk: Desk) -> list[Change]:
        found = self._moving(answers, desk)
        if not self.given <= found.revision < self.cursor.revision:
            return []
        return self._set(self.cursor, desk)
