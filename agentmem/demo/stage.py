"""What every race of the demo is run on: the processes, the two memories, and who watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from agentmem.demo.crew import Child, Crew
from agentmem.demo.protected import Protected
from agentmem.demo.races import AGENTMEM, Race, Way
from agentmem.demo.scenario import Scenario
from agentmem.demo.unprotected import Unprotected

__all__ = ["Memory", "Row", "Stage", "Watcher", "wrong"]


class Watcher(Protocol):
    """Who is told how far the run is."""

    def begin(self, words: str, steps: int) -> None:
        """One race in one way begins; it has so many steps."""

    def step(self) -> None:
        """A step of it is done."""


class Memory(Protocol):
    """What became of the work in a memory; the same questions to both sides."""

    def number(self, key: str) -> int:
        """The number under a key."""

    def sections(self, key: str) -> list[str]:
        """The names of the sections of the plan under a key."""

    def calls(self) -> list[int]:
        """The call of each booking that was made."""

    def done(self, key: str) -> list[str]:
        """Each piece of work that was done and noted under a key."""

    def drafts(self) -> list[int]:
        """The number of the draft that each part is of."""

    def close(self) -> None:
        """Closes it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One race in one way.

    Attributes:
        race, way: what was run.
        expected: how many there should be of what is counted.
        found: how many there are.
        lost: how many are missing, or there once too often.
        noticed: how often the race was noticed, and settled.
    """

    race: Race
    way: Way
    expected: int
    found: int
    lost: int
    noticed: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of all races.

    Attributes:
        scenario: what is run.
        paths: of the memory of each side.
        watcher: who is told how far it is.
        crew: all processes.
        agents: those of them that are the agents of the scenario.
    """

    scenario: Scenario
    paths: Mapping[str, str]
    watcher: Watcher
    crew: Crew
    agents: list[Child]

    @contextmanager
    def memory(self, way: Way) -> Iterator[Memory]:
        """The memory of a side, opened anew: as a stranger would find it."""
        path = self.paths[way.side]
        memory: Memory = Protected(path) if way.side == AGENTMEM else Unprotected(path)
        try:
            yield memory
        finally:
            memory.close()

    def task(
        self, way: Way, agent: str, *, does: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """A task for a process.

        Args:
            agent: who does it.
            does: the function that it runs, if not the way's own.
        """
        name, path = does or way.name, self.paths[way.side]
        return {"side": way.side, "way": name, "path": path, "agent": agent, **fields}

    def begin(self, race: Race, way: Way, steps: int) -> None:
        """A race in one way begins; it has so many steps."""
        self.watcher.begin(f"{race.title}, {way.side}: {way.means}", steps)

    def together(self, way: Way, **fields: Any) -> int:
        """Has all agents do a task at once. Returns how often they noticed the race."""
        return self.at_once({child: self.task(way, child.name, **fields) for child in self.agents})

    def at_once(self, tasks: Mapping[Child, Mapping[str, Any]]) -> int:
        """Has each do its task, all at once. Returns how often they noticed the race."""
        answers = self.crew.together(tasks, self.watcher.step)
        return sum(int(answer["noticed"]) for answer in answers.values())

    def kill_in_the_middle(self, tasks: Mapping[Child, Mapping[str, Any]]) -> None:
        """Has children do tasks, and kills them when all say that they are in the middle."""
        for child, task in tasks.items():
            child.send(task)
        for child in tasks:
            child.first()
        for child in tasks:
            self.crew.bury(child)
            self.watcher.step()


def wrong(found: Sequence[object], expected: Iterable[object]) -> int:
    """How many of those that should be there once are missing, or there again."""
    counts = Counter(found)
    return sum(abs(counts[each] - 1) for each in expected)
