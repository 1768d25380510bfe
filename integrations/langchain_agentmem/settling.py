"""Conflicts that a person settles: what they are asked, and what becomes of their answer.

A tool call that waits for a person is run again from its beginning when the answer comes, and
perhaps in another process, days later, when the key has moved on. So each question is kept in the
store, as the two versions that it shows, under an operation id of the call: the second run asks
the same question, and an answer counts for the versions that the person saw. If the key is at
another version by then, that is another conflict, and another question.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentmem import AgentMemError, ConflictError, Entry, InvalidValueError, Transaction
from agentmem.history.diff import differences
from agentmem.model import MISSING
from agentmem.values import dump
from langchain_agentmem.desk import Answer, Desk
from langchain_agentmem.invocation import Invocation
from langchain_agentmem.paths import Place, path_of, place_of
from langchain_agentmem.reads import visible
from langchain_agentmem.wording import by_whom, changed_lines, value_text
from langchain_agentmem.writing_tools import patched, refusal

__all__ = ["ANSWERS", "MAX_QUESTIONS", "Settling"]

MAX_QUESTIONS: Final = 16
"""So often a person is asked about one call, as the key moves; then the model is told."""

ANSWERS: Final = (
    "'theirs' keeps what is there, 'ours' writes what the agent wants, {'value': ...} writes that"
)


@dataclass(frozen=True, slots=True)
class _Question:
    """The two versions that a person is asked about; 0 is an absent key."""

    base: int
    theirs: int


class Settling:
    """One call of a tool that writes, whose conflicts a person settles.

    Args:
        desk: of the tool.
        call: the call; it has an op_id.
        arguments: of the call.
    """

    def __init__(self, desk: Desk, call: Invocation, arguments: Mapping[str, Any]) -> None:
        self._desk = desk
        self._call = call
        self._arguments = arguments
        self._place: Place = place_of(str(arguments["key"]))

    def run(self) -> Generator[dict[str, Any] | None, Any, Answer | None]:
        """Asks until there is no conflict.

        Yields: None to have the call itself run, whose answer's facts are sent back; or a
            question, whose answer is sent back.

        Returns: what the person decided; None: the call's own answer stands.
        """
        answer: Answer | None = None
        question, reply = _Question(0, 0), None
        for number in range(MAX_QUESTIONS + 1):
            # What was asked next before must be asked next again, whatever would happen now.
            following = self._kept(number + 1)
            if following is None:
                if number == 0:
                    facts = yield None
                else:
                    answer = self._apply(number, question, reply)
                    facts = answer.facts
                if facts.get("conflict") is None or number == MAX_QUESTIONS:
                    break
                following = self._keep(number + 1, facts["conflict"])
            question = following
            reply = yield self._asked(question)
            while (problem := self._problem(reply)) is not None:
                reply = yield {**self._asked(question), "problem": problem}
        return answer

    # Questions.

    def _kept(self, number: int) -> _Question | None:
        kept = self._desk.result(self._call.after(f"question-{number}"), {})
        return None if kept is None else _Question(**kept)

    def _keep(self, number: int, conflict: Mapping[str, Any]) -> _Question:
        versions = {"base": conflict["base_version"], "theirs": conflict["theirs_version"]}
        kept = self._desk.keep(self._call.after(f"question-{number}"), {}, versions)
        return _Question(**kept)

    def _asked(self, question: _Question) -> dict[str, Any]:
        """What the person sees: JSON, the same each time."""
        base = self._entry(question.base)
        theirs = self._entry(question.theirs)
        before = MISSING if base is None else base.value
        now = MISSING if theirs is None else theirs.value
        return {
            "kind": "memory_conflict",
            "tool": self._call.tool,
            "agent": self._desk.who(self._call),
            "key": path_of(self._place),
            "base": _side(question.base, base),
            "theirs": _side(question.theirs, theirs),
            "ours": self._ours(question),
            "changed": [line.strip() for line in changed_lines(differences(before, now))],
            "answers": ANSWERS,
        }

    def _entry(self, version: int) -> Entry[Any] | None:
        """A version of the key; None if it was absent, or is not kept any more."""
        if not version:
            return None
        labels, key = self._place
        try:
            entry = self._desk.view.audit.version(key, version, namespace=labels)
        except AgentMemError:
            return None
        return None if entry.deleted or entry.purged is not None else entry

    def _ours(self, question: _Question) -> dict[str, Any]:
        """What the agent wants: ``{"value": ...}`` or ``{"delete": True}``."""
        if self._call.tool == "memory_delete":
            return {"delete": True}
        if self._call.tool == "memory_patch":
            # The base if it is kept, else what is there: a patch is meant for either.
            base = question.base if self._entry(question.base) is not None else question.theirs
            return {"value": patched(self._desk, self._place, base, self._arguments["patch"])}
        return {"value": self._arguments["value"]}

    # Answers.

    def _problem(self, reply: object) -> str | None:
        """What is wrong with an answer."""
        if isinstance(reply, Mapping) and set(reply) == {"value"}:
            try:
                dump(reply["value"], self._desk.limits)
            except InvalidValueError as error:
                return str(error)
            return None
        return None if reply in ("theirs", "ours") else f"{reply!r} is no answer"

    def _apply(self, number: int, question: _Question, reply: Any) -> Answer:
        """Does what a person said, to the version that they saw."""
        path = path_of(self._place)
        if reply == "theirs":
            return self._keep_theirs(path, question)
        wanted = self._ours(question) if reply == "ours" else {"value": reply["value"]}
        call = self._call.after(f"answer-{number}")
        try:
            commit = self._desk.commit(call, lambda tx: self._put(tx, question, wanted), wanted)
        except ConflictError as error:
            return refusal(self._desk, call, self._place, question.theirs, error.conflicts[0])
        version = commit.changes[0].version if commit.changes else 0
        facts = {"key": path, "version": version, "revision": commit.revision, "settled": True}
        if "delete" in wanted:
            text = f"A person settled the conflict about {path}: it is deleted, as you asked."
            return Answer(text, facts=facts, reads={path: [-version, -version]})
        how = "your value" if reply == "ours" else "another value than yours"
        text = (
            f"A person settled the conflict about {path}: {how} is written, as version {version}."
        )
        return self._with_value(text, path, version, wanted["value"], facts)

    def _put(self, tx: Transaction, question: _Question, wanted: Mapping[str, Any]) -> None:
        labels, key = self._place
        base = visible(question.theirs)
        if "delete" in wanted:
            tx.delete(key, namespace=labels, expected_version=base, merge=False)
        else:
            value = wanted["value"]
            tx.put(key, value, namespace=labels, expected_version=base, merge=False)

    def _keep_theirs(self, path: str, question: _Question) -> Answer:
        facts = {"key": path, "version": question.theirs, "settled": True}
        theirs = self._entry(question.theirs)
        if theirs is None:
            text = (
                f"NOT DONE: a person decided that {path} stays as it is, absent. Go on from that."
            )
            known = self._desk.absent_as_of(self._place)
            return Answer(text, refused=True, facts=facts, reads={path: [known, known]})
        text = (
            f"NOT DONE: a person decided that {path} stays at version {theirs.version}, "
            f"{by_whom(theirs)}. Go on from that."
        )
        answer = self._with_value(text, path, question.theirs, theirs.value, facts)
        answer.refused = True
        return answer

    def _with_value(
        self, text: str, path: str, version: int, value: Any, facts: dict[str, Any]
    ) -> Answer:
        full = f"{text} It is:\n{value_text(value)}"
        if self._desk.budget.fits(full):
            return Answer(full, facts=facts, reads={path: [version, version]})
        return Answer(text, facts=facts, reads={path: [None, version]})


def _side(version: int, entry: Entry[Any] | None) -> dict[str, Any]:
    if entry is None:
        return {"version": version}
    at = entry.committed_at.isoformat() if entry.committed_at is not None else None
    return {"version": version, "value": entry.value, "agent": entry.agent, "at": at}
