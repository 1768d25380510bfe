"""The run: each race in each of its ways, and what of it is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agentmem.demo import rewriting, turns
from agentmem.demo.crew import Crew
from agentmem.demo.protected import Protected
from agentmem.demo.races import AGENTMEM, RACES, UNPROTECTED, Race, Way
from agentmem.demo.scenario import Scenario
from agentmem.demo.stage import Row, Stage, Watcher
from agentmem.demo.unprotected import Unprotected

__all__ = ["Demo", "Result"]

_RUNS: Final[dict[str, Callable[[Stage, Race, Way], Row]]] = {
    "counter": rewriting.counter,
    "stale": rewriting.stale,
    "retry": rewriting.retry,
    "claim": rewriting.claim,
    "lease": turns.stopped,
    "queue": turns.queue,
    "feed": turns.follow,
    "once": turns.paid,
    "crash": rewriting.crash,
}


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
        self._result = Result(scenario, store, unprotected)

    def run(self) -> Result:
        """Runs all races.

        Raises:
            ChildFailedError: a process failed.
        """
        Unprotected.create(self._paths[UNPROTECTED])
        Protected.create(self._paths[AGENTMEM], self._scenario.seed)
        with Crew() as crew:
            agents = [crew.take(name) for name in self._scenario.agents]
            stage = Stage(self._scenario, self._paths, self._watcher, crew, agents)
            for race in RACES:
                for way in race.ways:
                    self._result.rows.append(_RUNS[race.name](stage, race, way))
        self._verify()
        return self._result

    def _verify(self) -> None:
        memory = Protected(self._paths[AGENTMEM])
        try:
            report = memory.store.admin.verify()
        finally:
            memory.close()
        self._result.commits, self._result.entries = report.commits, report.entries
        self._result.problems = report.problems
