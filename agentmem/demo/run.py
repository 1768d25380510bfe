"""The run: each race in each of its ways, and what of it is lost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from agentmem.demo.crew import Child, Crew
from agentmem.demo.protected import Protected
from agentmem.demo.races import AGENTMEM, RACES, UNPROTECTED, Race, Way
from agentmem.demo.scenario import CALLS, TASKS, Kill, Scenario
from agentmem.demo.unprotected import Unprotected

__all__ = ["Demo", "Memory", "Result", "Row", "Watcher"]

_MS: Final = 1_000.0


class Watcher(Protocol):
    """Who is told how far the run is."""

    def begin(self, words: str, steps: int) -> None:
        """One race in one way begins; it has so many steps."""

    def step(self) -> None:
        """A step of it is done."""


class Memory(Protocol):
    """What became of the work in a memory; the same questions to both sides."""

    def number(self, key: str) -> int:
        """The counter under a key."""

    def sections(self, key: str) -> list[str]:
        """The names of the sections of the plan under a key."""

    def calls(self) -> list[int]:
        """The call of each booking that was made."""

    def work(self) -> list[str]:
        """The task of each piece of work that was done."""

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


@dataclass(slots=True)
class Result:
    """What the demo found.

    Attributes:
        scenario: what was run.
        store, unprotected: what it left behind: a file or URL, and a file.
        rows: in order of the races.
        commits, entries: how many `Admin.verify` has checked.
        problems: what it found wrong.
    """

    scenario: Scenario
    store: str
    unprotected: str
    rows: list[Row] = field(default_factory=list)
    commits: int = 0
    entries: int = 0
    problems: list[str] = field(default_factory=list)

    def lost(self, side: str) -> int:
        """How much a side has lost in all races."""
        return sum(row.lost for row in self.rows if row.way.side == side)

    @property
    def ok(self) -> bool:
        """Whether agentmem lost nothing, and its log is whole."""
        return self.lost(AGENTMEM) == 0 and not self.problems


class Demo:
    """Runs the races on a new store and a new file.

    Args:
        scenario: what to run.
        store: the path or URL of the store to be made; nothing may be there.
        unprotected: the path of the other side's file.
        watcher: who is told how far it is.
    """

    def __init__(self, scenario: Scenario, store: str, unprotected: str, watcher: Watcher) -> None:
        self._scenario = scenario
        # A worker may be in another folder; a URL means the same everywhere.
        whole = store if "://" in store else os.path.abspath(store)
        self._paths = {AGENTMEM: whole, UNPROTECTED: os.path.abspath(unprotected)}
        self._watcher = watcher
        self._crew = Crew()
        self._agents: list[Child] = []
        self._result = Result(scenario, store, unprotected)

    def run(self) -> Result:
        """Runs all races.

        Raises:
            ChildFailedError: a process failed.
        """
        Unprotected.create(self._paths[UNPROTECTED])
        Protected.create(self._paths[AGENTMEM], self._scenario.seed)
        with self._crew as crew:
            self._agents = [crew.take(name) for name in self._scenario.agents]
            for race in RACES:
                for way in race.ways:
                    self._result.rows.append(self._run(race, way))
        self._verify()
        return self._result

    def _run(self, race: Race, way: Way) -> Row:
        runs: dict[str, Callable[[Race, Way], Row]] = {
            "counter": self._counter,
            "stale": self._stale,
            "retry": self._retry,
            "claim": self._claim,
            "crash": self._crash,
        }
        return runs[race.name](race, way)

    def _verify(self) -> None:
        memory = Protected(self._paths[AGENTMEM])
        try:
            report = memory.store.admin.verify()
        finally:
            memory.close()
        self._result.commits, self._result.entries = report.commits, report.entries
        self._result.problems = report.problems

    @contextmanager
    def _memory(self, way: Way) -> Iterator[Memory]:
        """The memory of a side, opened anew: as a stranger would find it."""
        path = self._paths[way.side]
        memory: Memory = Protected(path) if way.side == AGENTMEM else Unprotected(path)
        try:
            yield memory
        finally:
            memory.close()

    def _task(self, way: Way, agent: str, **fields: Any) -> dict[str, Any]:
        path = self._paths[way.side]
        return {"side": way.side, "way": way.name, "path": path, "agent": agent, **fields}

    def _begin(self, race: Race, way: Way, steps: int) -> None:
        self._watcher.begin(f"{race.title}, {way.side}: {way.means}", steps)

    # Races of all agents at once.

    def _together(self, way: Way, **fields: Any) -> int:
        tasks = {child: self._task(way, child.name, **fields) for child in self._agents}
        answers = self._crew.together(tasks, self._watcher.step)
        return sum(int(answer["noticed"]) for answer in answers.values())

    def _counter(self, race: Race, way: Way) -> Row:
        expected = len(self._agents) * self._scenario.writes
        self._begin(race, way, expected)
        noticed = self._together(way, writes=self._scenario.writes)
        with self._memory(way) as memory:
            found = memory.number(way.key)
        return Row(race, way, expected, found, abs(expected - found), noticed)

    def _stale(self, race: Race, way: Way) -> Row:
        expected = len(self._agents)
        self._begin(race, way, expected)
        noticed = self._together(way)
        with self._memory(way) as memory:
            kept = set(memory.sections(way.key)) & set(self._scenario.agents)
        return Row(race, way, expected, len(kept), expected - len(kept), noticed)

    def _claim(self, race: Race, way: Way) -> Row:
        self._begin(race, way, len(self._agents) * len(TASKS))
        noticed = self._together(way, tasks=TASKS)
        with self._memory(way) as memory:
            work = memory.work()
        return Row(race, way, len(TASKS), len(work), _wrong(work, TASKS), noticed)

    # An agent and a tool that dies.

    def _retry(self, race: Race, way: Way) -> Row:
        """This process is the agent; the tool is a process that it calls."""
        self._begin(race, way, len(CALLS))
        lost_answers = set(self._scenario.lost_answers)
        tools = [self._crew.take("booking tool") for _ in range(len(lost_answers) + 1)]
        noticed = 0
        for call in CALLS:
            task = self._task(way, "booker", call=call)
            if call in lost_answers:
                tool = tools.pop()
                tool.send({**task, "answer_is_lost": True})
                tool.rest()
                self._crew.bury(tool)
                # No answer: it was done, or it was not. All that an agent can do is call again.
            answers = self._crew.together({tools[0]: task}, self._watcher.step)
            noticed += sum(int(answer["noticed"]) for answer in answers.values())
            self._watcher.step()
        for tool in tools:
            self._crew.give_back(tool)
        with self._memory(way) as memory:
            calls = memory.calls()
        return Row(race, way, len(CALLS), len(calls), _wrong(calls, CALLS), noticed)

    # A writer that is killed.

    def _crash(self, race: Race, way: Way) -> Row:
        kills = self._scenario.kills
        self._begin(race, way, len(kills))
        while self._agents:  # it is the last race: they may all be killed
            self._crew.give_back(self._agents.pop())
        writers = [self._crew.take("writer") for _ in kills]
        lost = 0
        for writer, kill in zip(writers, kills, strict=True):
            acknowledged = self._kill(writer, way, kill)
            with self._memory(way) as memory:
                drafts = memory.drafts()
            lost += len(set(drafts)) > 1 or max(drafts) < acknowledged
            self._watcher.step()
        return Row(race, way, len(kills), len(kills) - lost, lost, 0)

    def _kill(self, writer: Child, way: Way, kill: Kill) -> int:
        """Has a writer write drafts, and kills it. Returns the last draft it acknowledged."""
        with self._memory(way) as memory:
            first = max(memory.drafts()) + 1
        writer.send(self._task(way, writer.name, first=first, in_middle=kill.in_middle))
        heard = writer.first()
        if not kill.in_middle:
            heard += writer.during(kill.after_ms / _MS)
        writer.kill()
        heard += writer.rest()
        self._crew.bury(writer)
        return max((said["draft"] for said in heard if "draft" in said), default=0)


def _wrong(found: Sequence[object], expected: Iterable[object]) -> int:
    """How many of those that should be there once are missing, or there again."""
    counts = Counter(found)
    return sum(abs(counts[each] - 1) for each in expected)
