"""Consumers of the feed that are killed and resumed while others commit and compact.

Nothing may be missing or out of order. Half of the consumers acknowledge in the transaction of
their effects, and to them nothing may happen twice; the others after they have said what they saw.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import agentmem
from agentmem.testing.crew import Crew, Step

__all__ = ["FeedWork", "check_effects", "check_seen", "follow"]

_PARTS: Final = ("a", "b", "c")
_EFFECTS: Final = "effects"
_MOST_AT_ONCE: Final = 20  # events of a transaction, or of an acknowledgement
_TOLD_EVERY: Final = 20  # commits
_COMPACTED_EVERY: Final = 500  # commits
_END: Final = "end"

Report = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class FeedWork:
    """How much, and how it is disturbed.

    Attributes:
        commits: of the one who writes.
        consumers: processes that follow it.
        kills: how often one of these is killed (SIGKILL) at a random moment.
        seed: of all choices.
        apart: seed a bug: effects are acknowledged after the next ones, in a commit of their own.
    """

    commits: int
    consumers: int = 8
    kills: int = 20
    seed: int = 1
    apart: bool = False

    def watched(self, consumer: int) -> str:
        """The namespace that a consumer, from 1 on, watches."""
        return ("work", *(f"work/{part}" for part in _PARTS))[consumer // 2 % 4]

    def is_exact(self, consumer: int) -> bool:
        """Whether it acknowledges together with its effects."""
        return consumer % 2 == 1


def follow(target: str, work: FeedWork, step: Step = lambda _done: None) -> list[str]:
    """Writes, and has it followed.

    Returns: what is wrong, in words.
    """
    choice = random.Random(work.seed)  # noqa: S311  # chooses moments and victims
    every = max(1, work.commits // (work.kills + 1))
    namespaces = ("work", *(f"work/{part}" for part in _PARTS))
    written: dict[str, list[int]] = {namespace: [] for namespace in namespaces}
    seen: dict[int, list[list[int]]] = {number: [[]] for number in range(1, work.consumers + 1)}
    killed = 0
    with _opened(target) as store:
        # They are known before the first commit.
        for number in seen:
            store.watch(work.watched(number), 0, f"c{number}").close()

        def revived(worker: int) -> tuple[Any, ...]:
            store.break_consumer(f"c{worker}")
            seen[worker].append([])
            return (target, work, worker)

        crew = Crew(
            _work, [(target, work, number) for number in range(work.consumers + 1)], revived=revived
        )

        def heard(worker: int, report: list[Any]) -> None:
            nonlocal killed
            if worker:
                seen[worker][-1] += report
                return
            for revision, parts in report:
                for namespace in {"work", *parts}:
                    written[namespace].append(revision)
            step(len(report))
            if killed < work.kills and len(written["work"]) >= (killed + 1) * every:
                killed += 1
                crew.kill(choice.randint(1, work.consumers))

        crew.run(heard)
        problems = store.admin.verify().problems
    for number, runs in seen.items():
        expected = written[work.watched(number)]
        if work.is_exact(number):
            problems += check_effects(target, number, expected)
        problems += check_seen(number, runs, expected, exact=work.is_exact(number))
    return problems


def _opened(target: str) -> agentmem.Store:
    return agentmem.open(target, embedder=None, durability="relaxed")


def _work(
    report: Report, begin: Callable[[], object], target: str, work: FeedWork, number: int
) -> None:
    with _opened(target) as store:
        begin()
        if number:
            _consume(report, store, work, number)
        else:
            _write(report, store, work)


def _write(report: Report, store: agentmem.Store, work: FeedWork) -> None:
    choice = random.Random(work.seed)  # noqa: S311  # chooses namespaces
    told = []
    for number in range(work.commits):
        last = number == work.commits - 1
        parts = _PARTS if last else choice.sample(_PARTS, choice.randint(0, 2))
        namespaces = [f"work/{part}" for part in parts] or ["work"]
        with store.transaction() as tx:
            for namespace in namespaces:
                tx.put(_END if last else f"k{number % 7}", number, namespace=namespace)
            commit = tx.commit()
        told.append((commit.revision, namespaces))
        if last or number % _TOLD_EVERY == 0:
            report(told)
            told = []
        if number % _COMPACTED_EVERY == _COMPACTED_EVERY - 1:
            store.admin.compact(keep_revision=min(each.revision for each in store.consumers()))


def _consume(report: Report, store: agentmem.Store, work: FeedWork, number: int) -> None:
    choice = random.Random(work.seed + number)  # noqa: S311  # chooses how many at once
    with store.watch(work.watched(number), consumer=f"c{number}") as feed:
        ended, before = False, None
        while not ended:
            event: agentmem.Event | None = next(feed)
            events = []
            most = choice.randint(1, _MOST_AT_ONCE)
            while event is not None:
                events.append(event)
                ended = any(change.key == _END for change in event.changes)
                event = None if ended or len(events) == most else feed.next(timeout_s=0)
            revisions = [each.revision for each in events]
            if work.is_exact(number):
                _effect(store, number, events, apart=work.apart)
                report(revisions)
                if work.apart and before is not None:
                    feed.ack(before)
                before = events[-1]
            else:
                report(revisions)
                feed.ack(events[-1])


def _effect(
    store: agentmem.Store, number: int, events: Sequence[agentmem.Event], *, apart: bool
) -> None:
    with store.transaction() as tx:
        before = tx.get(f"c{number}", namespace=_EFFECTS)
        digest = "" if before is None else before.value
        for event in events:
            digest = _after(digest, event.revision)
            if not apart:
                tx.ack(event)
        tx.put(f"c{number}", digest, namespace=_EFFECTS)


def _after(digest: str, revision: int) -> str:
    return blake2b(f"{digest} {revision}".encode(), digest_size=16).hexdigest()


def check_effects(target: str, consumer: int, expected: Sequence[int]) -> list[str]:
    """What is wrong with the effects of a consumer that acknowledges with them."""
    digest = ""
    for revision in expected:
        digest = _after(digest, revision)
    with _opened(target) as store:
        found = store.get(f"c{consumer}", namespace=_EFFECTS)
    if found is None or found.value != digest:
        return [f"consumer {consumer}: its effects are not those of each event once, in order"]
    return []


def check_seen(
    consumer: int, runs: Sequence[Sequence[int]], expected: Sequence[int], *, exact: bool
) -> list[str]:
    """What is wrong with what a consumer was given.

    Args:
        runs: the revisions that each process said that was the consumer.
        expected: all that it was to be given.
        exact: it says so after it acknowledged, so that what it said last may be lost; and
            what was said once is never given again. Else the other way round.
    """
    problems = []
    upto = 0  # how many of the expected were given so far
    for number, run in enumerate(runs):
        if not run:
            continue
        first = max(0, bisect_right(expected, run[0]) - 1)
        if first > upto and not exact:
            problems.append(f"consumer {consumer}: revision {expected[upto]} is missing")
        if first < upto and exact:
            problems.append(f"consumer {consumer}: revision {run[0]} was given twice")
        if list(run) != list(expected[first : first + len(run)]):
            problems.append(f"consumer {consumer}, run {number}: out of order, or others")
        upto = max(upto, first + len(run))
    if upto != len(expected) and not exact:
        problems.append(f"consumer {consumer}: {len(expected) - upto} events are missing")
    return problems
