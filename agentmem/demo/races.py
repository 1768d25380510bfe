"""The five races, as data: what happens, and the ways in which it is tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["AGENTMEM", "RACES", "UNPROTECTED", "Race", "Way"]

UNPROTECTED: Final = "unprotected"
AGENTMEM: Final = "agentmem"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do what a race asks for.

    Attributes:
        side: `UNPROTECTED` or `AGENTMEM`.
        name: with the side, names the function that the processes run.
        key: the key or namespace that it works on.
        how: what it does about the race, in words; may name ``{met}``, how often it was met.
    """

    side: str
    name: str
    key: str
    how: str


@dataclass(frozen=True, slots=True)
class Race:
    """A way to lose something when agents share a memory.

    Attributes:
        name: how the JSON output names it.
        title: what happens, in words; may name ``{agents}``, ``{writes}``, ``{tasks}``,
            ``{calls}``, ``{answers}``, ``{kills}`` and ``{parts}``.
        lost: what is counted as lost.
        ways: first unprotected, then on agentmem.
    """

    name: str
    title: str
    lost: str
    ways: tuple[Way, ...]


RACES: Final = (
    Race(
        "counter",
        "A shared counter: {agents} agents add 1, {writes} times each.",
        "additions lost",
        (
            Way(UNPROTECTED, "counter", "counter", "read, add, write"),
            Way(
                AGENTMEM,
                "counter_by_version",
                "counter",
                "transact: {met} conflicts, each read again",
            ),
            Way(
                AGENTMEM,
                "counter_by_increment",
                "counter_incremented",
                "increment: reads nothing, never conflicts",
            ),
        ),
    ),
    Race(
        "stale",
        "A stale document: {agents} agents read one plan, then each writes it back with its own "
        "section.",
        "sections lost",
        (
            Way(UNPROTECTED, "document", "plan", "read, think, write"),
            Way(
                AGENTMEM,
                "document_by_version",
                "plan",
                "expected_version: {met} refused, repaired",
            ),
            Way(AGENTMEM, "document_merged", "itinerary", 'merge strategy "json": {met} merged'),
        ),
    ),
    Race(
        "retry",
        "A retried tool call: {calls} bookings; {answers} times the tool dies after the commit, "
        "before it answers, and the agent calls again.",
        "bookings made twice",
        (
            Way(UNPROTECTED, "book", "bookings", "one transaction a call"),
            Way(AGENTMEM, "book", "bookings", "op_id: {met} repeats applied once"),
        ),
    ),
    Race(
        "claim",
        "Many agents, one task: {agents} agents look at a task, see that it is open, and take it; "
        "{tasks} tasks.",
        "times a task was done again",
        (
            Way(UNPROTECTED, "claim", "tasks", "check, then claim"),
            Way(AGENTMEM, "claim", "tasks", "expected_version: {met} came too late, and knew"),
        ),
    ),
    Race(
        "crash",
        "A crash in the middle: SIGKILL, {kills} times, while an agent writes {parts} keys that "
        "belong together.",
        "drafts left half-written",
        (
            Way(UNPROTECTED, "drafts", "drafts", "one write after another"),
            Way(AGENTMEM, "drafts", "drafts", "transaction: all or nothing"),
        ),
    ),
)
