"""The races, as data: what happens, and the ways in which it is tried."""

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
        means: what keeps the race from losing anything, or does not.
        noticed: how often it did so, in words; names ``{noticed}``, or is empty.
    """

    side: str
    name: str
    key: str
    means: str
    noticed: str = ""

    def how(self, noticed: int) -> str:
        """What it did about the race, for the table."""
        return ", ".join(
            part for part in (self.means, self.noticed.format(noticed=noticed)) if part
        )


@dataclass(frozen=True, slots=True)
class Race:
    """A way to lose something when agents share a memory.

    Attributes:
        name: how the JSON output names it.
        title: what it is called.
        story: what happens, in words; may name the numbers of `Scenario.numbers`.
        lost: what is counted as lost.
        ways: first unprotected, then on agentmem.
    """

    name: str
    title: str
    story: str
    lost: str
    ways: tuple[Way, ...]


RACES: Final = (
    Race(
        "counter",
        "a shared counter",
        "{agents} agents add 1 to one number, {writes} times each.",
        "additions to a counter",
        (
            Way(UNPROTECTED, "counter", "counter", "read, add, write"),
            Way(AGENTMEM, "counter_by_version", "counter", "update", "{noticed} conflicts"),
            Way(AGENTMEM, "counter_by_lease", "counter_in_turns", "lease", "{noticed} conflicts"),
            Way(AGENTMEM, "counter_by_increment", "counter_incremented", "increment"),
        ),
    ),
    Race(
        "stale",
        "a stale document",
        "{agents} agents read one plan and think; then each writes the plan back, with its own "
        "section in it.",
        "sections of a plan",
        (
            Way(UNPROTECTED, "document", "plan", "read, think, write"),
            Way(AGENTMEM, "document_by_version", "plan", "expected_version", "{noticed} repairs"),
            Way(AGENTMEM, "document_merged", "itinerary", "merge strategy", "{noticed} merges"),
        ),
    ),
    Race(
        "retry",
        "a retried tool call",
        "{calls} bookings; {answers} times the tool commits and dies before it answers, so the "
        "agent calls it again.",
        "bookings made twice",
        (
            Way(UNPROTECTED, "book", "bookings", "one SQL transaction a call"),
            Way(AGENTMEM, "book", "bookings", "op_id", "{noticed} repeats known"),
        ),
    ),
    Race(
        "claim",
        "one task, many takers",
        "{tasks} tasks; each time {agents} agents see that the task is open, and take it.",
        "tasks done again",
        (
            Way(UNPROTECTED, "claim", "work_done", "check, then claim"),
            Way(AGENTMEM, "claim", "work_done", "transaction", "{noticed} too late"),
        ),
    ),
    Race(
        "lease",
        "a stopped holder",
        "{stops} times the agent that holds the lock is stopped (SIGSTOP) until its turn is over; "
        "another deploys, then it goes on and deploys, too.",
        "late deploys let through",
        (
            Way(UNPROTECTED, "deploy", "release", "a lock with an end"),
            Way(AGENTMEM, "deploy", "release", "lease", "{noticed} fenced off"),
        ),
    ),
    Race(
        "queue",
        "a queue and its workers",
        "{jobs} jobs; {deaths} workers are killed (SIGKILL) with one in hand, and {agents} do what "
        "is left.",
        "jobs never done",
        (
            Way(UNPROTECTED, "queue", "jobs_done", "take the first of a list"),
            Way(AGENTMEM, "queue", "jobs_done", "queue", "{noticed} claimed again"),
        ),
    ),
    Race(
        "feed",
        "a follower of changes",
        "{agents} agents write notes, some committed late; a follower answers each, and is killed "
        "{deaths} times with one in hand.",
        "notes never answered",
        (
            Way(UNPROTECTED, "follow", "answers", "poll what is newer"),
            Way(AGENTMEM, "follow", "answers", "watch, ack in the commit"),
        ),
    ),
    Race(
        "once",
        "a paid tool",
        "{agents} agents ask it the same {questions} questions at once.",
        "calls paid again",
        (
            Way(UNPROTECTED, "ask", "tool_calls", "check the cache, then call"),
            Way(AGENTMEM, "ask", "tool_calls", "cached_tool", "{noticed} shared"),
        ),
    ),
    Race(
        "crash",
        "a crash in the middle",
        "SIGKILL, {kills} times, to an agent that writes {parts} keys that belong together.",
        "drafts left half-written",
        (
            Way(UNPROTECTED, "drafts", "drafts", "one write after another"),
            Way(AGENTMEM, "drafts", "drafts", "transaction"),
        ),
    ),
)
