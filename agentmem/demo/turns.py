"""Races for whose turn it is: to hold a lock, to do a job, to answer a note, to call a tool."""

from __future__ import annotations

from agentmem.demo.races import Race, Way
from agentmem.demo.scenario import DEATHS, JOBS, QUESTIONS, STOPS
from agentmem.demo.stage import Row, Stage, wrong

__all__ = ["follow", "paid", "queue", "stopped"]


def stopped(stage: Stage, race: Race, way: Way) -> Row:
    """A holder of a lock is stopped; another gets it and deploys; then the first goes on."""
    stage.begin(race, way, 2 * STOPS)
    noticed = lost = 0
    for number in range(1, STOPS + 1):
        old, new = 2 * number - 1, 2 * number
        first, second = (stage.agents[index % len(stage.agents)] for index in (old, new))
        first.send(stage.task(way, first.name, release=old, is_stopped=True))
        first.first()  # it holds the lock
        first.stop()
        noticed += stage.at_once(
            {second: stage.task(way, second.name, release=new, is_stopped=False)}
        )
        stage.watcher.step()
        first.go_on()
        noticed += int(first.first()[-1]["noticed"])
        stage.watcher.step()
        with stage.memory(way) as memory:
            lost += memory.number(way.key) != new
    return Row(race, way, STOPS, STOPS - lost, lost, noticed)


def queue(stage: Stage, race: Race, way: Way) -> Row:
    """Workers are killed with a job in hand, then all agents do what is left."""
    stage.begin(race, way, DEATHS + len(JOBS))
    workers = [stage.crew.take(f"worker-{number}") for number in range(1, DEATHS + 1)]
    # They take their jobs at the same time, so that the second does not get that of the first.
    stage.at_once({each: stage.task(way, each.name, does="ready") for each in workers})
    stage.kill_in_the_middle({each: stage.task(way, each.name, dies=True) for each in workers})
    noticed = stage.together(way, dies=False)
    with stage.memory(way) as memory:
        jobs = memory.done(way.key)
    return Row(race, way, len(JOBS), len(jobs), wrong(jobs, JOBS), noticed)


def follow(stage: Stage, race: Race, way: Way) -> Row:
    """One agent answers the notes of all; half of the first ones are committed late."""
    agents = stage.agents
    stage.begin(race, way, 2 * len(agents) + DEATHS + 2)
    follower = stage.crew.take("follower")
    tasks = {
        agent: stage.task(way, agent.name, does="note", note=f"{agent.name}-1", is_late=index % 2)
        for index, agent in enumerate(agents)
    }
    stage.at_once({**tasks, follower: _following(stage, way, meets=True)})
    stage.at_once(
        {
            agent: stage.task(way, agent.name, does="note", note=f"{agent.name}-2", is_late=None)
            for agent in agents
        }
    )
    for _death in range(DEATHS):
        stage.kill_in_the_middle({follower: _following(stage, way, dies=True)})
        follower = stage.crew.take("follower")
    stage.at_once({follower: _following(stage, way)})
    stage.crew.give_back(follower)
    notes = [f"{agent.name}-{number}" for number in (1, 2) for agent in agents]
    with stage.memory(way) as memory:
        answers = memory.done(way.key)
    return Row(race, way, len(notes), len(answers), wrong(answers, notes), 0)


def _following(
    stage: Stage, way: Way, *, meets: bool = False, dies: bool = False
) -> dict[str, object]:
    return stage.task(way, "follower", meets=meets, dies=dies)


def paid(stage: Stage, race: Race, way: Way) -> Row:
    """All agents ask a paid tool the same questions at once."""
    stage.begin(race, way, len(stage.agents) * len(QUESTIONS))
    noticed = stage.together(way, questions=QUESTIONS)
    with stage.memory(way) as memory:
        calls = memory.done(way.key)
    return Row(race, way, len(QUESTIONS), len(calls), wrong(calls, QUESTIONS), noticed)
