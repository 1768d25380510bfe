"""Judging the steps of a batch: beside `agentmem.judge`, under the same lock.

Steps read rows that no revision tells of, so an engine is asked for them when the session begins.
If an earlier request of the batch has changed what a step is about, the engine makes those changes
and is asked again::

    request                          rows of lease "plan"
    -----------------------------    --------------------------------
    A acquires "plan"                read when the session began: free
    B acquires "plan"                read again, after A's change: A's
    C acquires "seats"               read when the session began: free

Each batch that changes something leaves a mark, a row of ``batch_marks``. After a COMMIT whose
answer was lost it tells whether that took effect, as the attempt of a commit row does for commits.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from agentmem.coordination.steps import NUMBER, Subject
from agentmem.engines.rows import (
    Answer,
    Change,
    Look,
    NewCommit,
    Start,
)
from agentmem.engines.session import WriteSession

if TYPE_CHECKING:
    from agentmem.request import Request

__all__ = ["StepJudge"]

_ATTEMPT_BYTES: Final = 16
_MARKS: Final = 1_000  # that are kept, at least
_PRUNED_EVERY: Final = 256  # numbers


class StepJudge:
    """Judges the steps of one batch. Also the `Desk` that they are judged with."""

    def __init__(self, session: WriteSession, start: Start, rows: NewCommit) -> None:
        assert start.moment is not None, "the session was entered with looks"
        assert start.answers is not None, "the session was entered with looks"
        self.moment = start.moment
        self.now = start.position.now
        self._session = session
        self._rows = rows
        self._answers = start.answers
        self._number: int = start.answers[NUMBER][0][0]
        self._first = self._number
        self._changed: set[Subject] = set()
        self._unmade: list[Change] = []  # accepted, and not yet made by the engine
        self._mark: Change | None = None

    def number(self) -> int:
        """See `Desk.number`."""
        self._number += 1
        return self._number

    def judge(self, request: Request) -> list[Change]:
        """The changes of a request's steps, for `accept`.

        Raises:
            AgentMemError: the request is refused.
        """
        changes: list[Change] = []
        for step in request.steps:
            answers = [self._answer(step.subject, look) for look in step.looks()]
            changes += step.judge(answers, self)
        return changes

    def _answer(self, subject: Subject, look: Look) -> Answer:
        if subject not in self._changed and look in self._answers:
            return self._answers[look]
        unmade, self._unmade = self._unmade, []
        # What is made now is not made again with the rest of the batch.
        made = {id(change) for change in unmade}
        self._rows.changes = [each for each in self._rows.changes if id(each) not in made]
        return self._session.look(look, unmade)

    def accept(self, request: Request, changes: list[Change]) -> bytes | None:
        """Does what was judged; returns the batch's mark, if there is something to do."""
        if not changes:
            return None
        self._changed.update(step.subject for step in request.steps)
        self._unmade += changes
        self._rows.changes += changes
        if self._mark is None:
            self._mark = Change("add_batch_mark", {"attempt": os.urandom(_ATTEMPT_BYTES)})
            self._rows.changes.append(self._mark)
            if self._first // _PRUNED_EVERY != self.number() // _PRUNED_EVERY:
                below = {"below": self._first - _MARKS}
                self._rows.changes.append(Change("prune_batch_marks", below))
        self._mark.values["number"] = self._number
        attempt: bytes = self._mark.values["attempt"]
        return attempt
