"""What the agents work on, and what chance decides: the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "CALLS", "DEATHS", "DRAFT_PARTS", "JOBS", "MAX_AGENTS", "MAX_WRITES", "MIN_AGENTS",
    "QUESTIONS", "SEATS", "STOPS", "TASKS", "TURN_S", "Kill", "Scenario", "draft", "section",
    "start",
]  # fmt: skip

MIN_AGENTS: Final = 2
MAX_AGENTS: Final = 32
MAX_WRITES: Final = 10_000
CALLS: Final = range(1, 7)
SEATS: Final = 12
TASKS: Final = ("book-hotel", "check-visa", "compare-trains", "find-guide", "rent-bikes")
JOBS: Final = tuple(f"source-{number}" for number in range(1, 13))
QUESTIONS: Final = ("best month", "fado tonight", "trains to Porto", "weather on Friday")
STOPS: Final = 3
DEATHS: Final = 2  # of workers with a job in hand, and of the follower with a note in hand
TURN_S: Final = 0.1  # how long a turn lasts whose holder is going to be stopped
DRAFT_PARTS: Final = ("budget", "notes", "route", "seats")

_ROLES: Final = (
    ("planner", "three days, the castle first"),
    ("researcher", "the tram museum is closed on Mondays"),
    ("accountant", "240 a day, trains included"),
    ("booker", "hotel by the river, two nights held"),
    ("critic", "day two is too full; drop the market"),
    ("writer", "an opening paragraph about the light"),
    ("translator", "six phrases for the restaurant"),
    ("guide", "the hill at sunset, by tram 28"),
)
_LOST_ANSWERS: Final = 3
_KILLS: Final = 6
_MIDDLE_EVERY: Final = 3
_LATEST_KILL_MS: Final = 8.0


@dataclass(frozen=True, slots=True)
class Kill:
    """When a writer is killed.

    Attributes:
        in_middle: when it says that it has written half of the keys, and waits.
        after_ms: else so long after it has acknowledged its first draft, at whatever it does.
    """

    in_middle: bool
    after_ms: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run of the demo.

    Attributes:
        seed: of all that chance decides here; the operating system decides the rest.
        agents: names, one process each.
        writes: additions of each agent to each counter.
        lost_answers: the calls of the tool whose first answer is lost.
        kills: one for each time that a writer is killed.
    """

    seed: int
    agents: tuple[str, ...]
    writes: int
    lost_answers: tuple[int, ...]
    kills: tuple[Kill, ...]

    @classmethod
    def of(cls, seed: int, agents: int, writes: int) -> Scenario:
        """The scenario of a seed."""
        chance = random.Random(seed)  # noqa: S311  # chooses moments, guards nothing
        kills = (
            Kill(index % _MIDDLE_EVERY == 0, round(chance.uniform(0, _LATEST_KILL_MS), 3))
            for index in range(_KILLS)
        )
        return cls(
            seed,
            tuple(_name(index) for index in range(agents)),
            writes,
            tuple(sorted(chance.sample(CALLS, _LOST_ANSWERS))),
            tuple(kills),
        )

    @property
    def numbers(self) -> dict[str, int]:
        """How many of what there are, for the titles of the races."""
        return {
            "agents": len(self.agents),
            "writes": self.writes,
            "calls": len(CALLS),
            "answers": len(self.lost_answers),
            "tasks": len(TASKS),
            "stops": STOPS,
            "jobs": len(JOBS),
            "deaths": DEATHS,
            "questions": len(QUESTIONS),
            "kills": len(self.kills),
            "parts": len(DRAFT_PARTS),
        }


def _name(index: int) -> str:
    role = _ROLES[index % len(_ROLES)][0]
    return role if index < len(_ROLES) else f"{role}-{index // len(_ROLES) + 1}"


def start() -> dict[tuple[str, str], Any]:
    """What is in a memory before the races: (namespace, key) to value."""
    plan = {"trip": "Lisbon", "days": 3, "sections": {}}
    values: dict[tuple[str, str], Any] = {
        ("", "counter"): 0,
        ("", "counter_in_turns"): 0,
        ("", "release"): 0,
        ("", "plan"): plan,
        ("", "itinerary"): plan,
        ("", "seats"): SEATS,
    }
    for name in TASKS:
        values["tasks", name] = {"title": name.replace("-", " "), "status": "open"}
    for part in DRAFT_PARTS:
        values["drafts", part] = draft(part, 0)
    return values


def section(agent: str) -> str:
    """What an agent adds to the plan."""
    role = agent.rsplit("-", 1)[0]
    return dict(_ROLES)[role]


def draft(part: str, number: int) -> dict[str, Any]:
    """One part of a draft of the trip; all parts of a draft carry the same number."""
    return {"draft": number, "text": f"{part} of draft {number}"}
