"""Races for what is written: a counter, a document, a booking, a task, the parts of a draft."""

from __future__ import annotations

from typing import Final

from agentmem.demo.crew import Child
from agentmem.demo.races import Race, Way
from agentmem.demo.scenario import CALLS, TASKS, Kill
from agentmem.demo.stage import Row, Stage, wrong

__all__ = ["claim", "counter", "crash", "retry", "stale"]

_MS: Final = 1_000.0


# Races of all agents at once.


def counter(stage: Stage, race: Race, way: Way) -> Row:
    """All agents add to one number."""
    writes = stage.scenario.writes
    expected = len(stage.agents) * writes
    stage.begin(race, way, expected)
    noticed = stage.together(way, writes=writes)
    with stage.memory(way) as memory:
        found = memory.number(way.key)
    return Row(race, way, expected, found, abs(expected - found), noticed)


def stale(stage: Stage, race: Race, way: Way) -> Row:
    """All agents put their sections into the plan that they have read."""
    expected = len(stage.agents)
    stage.begin(race, way, expected)
    noticed = stage.together(way)
    with stage.memory(way) as memory:
        kept = set(memory.sections(way.key)) & set(stage.scenario.agents)
    return Row(race, way, expected, len(kept), expected - len(kept), noticed)


def claim(stage: Stage, race: Race, way: Way) -> Row:
    """All agents take the same tasks."""
    stage.begin(race, way, len(stage.agents) * len(TASKS))
    noticed = stage.together(way, tasks=TASKS)
    with stage.memory(way) as memory:
        work = memory.done(way.key)
    return Row(race, way, len(TASKS), len(work), wrong(work, TASKS), noticed)


# An agent and a tool that dies.


def retry(stage: Stage, race: Race, way: Way) -> Row:
    """This process is the agent; the tool is a process that it calls."""
    stage.begin(race, way, len(CALLS))
    lost_answers = set(stage.scenario.lost_answers)
    tools = [stage.crew.take("booking tool") for _ in range(len(lost_answers) + 1)]
    noticed = 0
    for call in CALLS:
        task = stage.task(way, "booker", call=call)
        if call in lost_answers:
            tool = tools.pop()
            tool.send({**task, "answer_is_lost": True})
            tool.rest()
            stage.crew.bury(tool)
            # No answer: it was done, or it was not. All that an agent can do is call again.
        noticed += stage.at_once({tools[0]: task})
        stage.watcher.step()
    for tool in tools:
        stage.crew.give_back(tool)
    with stage.memory(way) as memory:
        calls = memory.calls()
    return Row(race, way, len(CALLS), len(calls), wrong(calls, CALLS), noticed)


# A writer that is killed.


def crash(stage: Stage, race: Race, way: Way) -> Row:
    """Writers of drafts are killed. It is the last race: the agents may all be killed, too."""
    kills = stage.scenario.kills
    stage.begin(race, way, len(kills))
    while stage.agents:
        stage.crew.give_back(stage.agents.pop())
    writers = [stage.crew.take("writer") for _ in kills]
    lost = 0
    for writer, kill in zip(writers, kills, strict=True):
        acknowledged = _kill(stage, writer, way, kill)
        with stage.memory(way) as memory:
            drafts = memory.drafts()
        lost += len(set(drafts)) > 1 or max(drafts) < acknowledged
        stage.watcher.step()
    return Row(race, way, len(kills), len(kills) - lost, lost, 0)


def _kill(stage: Stage, writer: Child, way: Way, kill: Kill) -> int:
    """Has a writer write drafts, and kills it. Returns the last draft it acknowledged."""
    with stage.memory(way) as memory:
        first = max(memory.drafts()) + 1
    writer.send(stage.task(way, writer.name, first=first, in_middle=kill.in_middle))
    heard = writer.first()
    if not kill.in_middle:
        heard += writer.during(kill.after_ms / _MS)
    writer.kill()
    heard += writer.rest()
    stage.crew.bury(writer)
    return max((said["draft"] for said in heard if "draft" in said), default=0)
