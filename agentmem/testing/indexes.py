"""Indexes by Chroma that are damaged, and whose builders are killed while others search.

What a search must find is computed from `list` alone, which knows no index.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import agentmem
from agentmem.testing.crew import SILENCE_S, Crew, Step

__all__ = [
    "DIMENSION",
    "WAYS_TO_DAMAGE",
    "damage",
    "damaged_indexes",
    "fill",
    "indexed_store",
    "killed_builders",
    "vector_of",
    "wrong_answers",
]

DIMENSION: Final = 8
WAYS_TO_DAMAGE: Final = ("flip", "flip in use", "kill", "delete", "cut in use", "cut", "all gone")
_NEAR: Final = 1e-5  # of a score
_K: Final = 10
_MOST_FLIPPED: Final = 8  # bytes
_WRITTEN: Final = 20  # entries that each round of a writer adds
_HISTORY: Final = 200  # revisions that searches look back
_LET_END: Final = 4  # one builder in so many is not killed

Report = Callable[[Any], None]


def vector_of(number: int) -> NDArray[np.float32]:
    """The vector of a number; near those of its neighbours in no way."""
    return np.random.default_rng(number).normal(size=DIMENSION).astype(np.float32)


def indexed_store(target: str | Path) -> agentmem.Store:
    """A store whose searches use an index, however small it is."""
    return agentmem.open(target, embedder=None, index="chroma", durability="relaxed")


def fill(store: agentmem.Store, numbers: Sequence[int]) -> None:
    """Writes the entries of numbers in one transaction."""
    with store.transaction() as tx:
        for number in numbers:
            tx.put(f"k{number:05}", {"n": number}, vector=vector_of(number), overwrite=True)


def wrong_answers(view: Any, seed: int, rounds: int = 3) -> list[str]:
    """Holds searches against a look at every entry: of the ten nearest at most one is missing."""
    problems = []
    rng = np.random.default_rng(seed)
    entries = view.list(track=False)
    rows = np.array([vector_of(entry.value["n"]) for entry in entries])
    place = {entry.key: index for index, entry in enumerate(entries)}
    for _round in range(rounds):
        query = rng.normal(size=DIMENSION).astype(np.float32)
        near = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        best = {entries[index].key for index in np.argsort(-near)[:_K]}
        hits = view.search(query, k=_K, track=False)
        found = [hit.entry.key for hit in hits]
        if len(found) != len(best) or len(best & set(found)) < len(best) - 1:
            problems.append(f"revision {view.revision}: {found} instead of {sorted(best)}")
        for hit in hits:
            index = place.get(hit.entry.key)
            if index is None or hit.entry != entries[index]:
                problems.append(f"revision {view.revision}: {hit.entry!r} is not there")
            elif abs(hit.score - near[index]) > _NEAR:
                problems.append(f"{hit.entry!r} scores {hit.score}, not {near[index]}")
    return problems


# Damage.


def damage(folder: Path, rng: random.Random, how: str, *, in_place: bool = False) -> Path | None:
    """Changes, cuts or deletes one file of a folder; returns which.

    Args:
        how: ``flip`` (some bytes), ``cut`` or ``delete``.
        in_place: also for who has the file open; else a new file takes its place.
    """
    files = sorted(each for each in folder.rglob("*") if each.is_file() and each.suffix != ".lock")
    if not files:
        return None
    victim = rng.choice(files)
    content = bytearray(victim.read_bytes())
    if how == "flip":
        for _byte in range(rng.randint(1, _MOST_FLIPPED) if content else 0):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[rng.randrange(len(content) + 1) :]
    if in_place:
        with victim.open("r+b") as file:
            file.write(content)
            file.truncate()
        return victim
    victim.unlink()
    if how != "delete":
        victim.write_bytes(content)
    return victim


def damaged_indexes(
    target: str, *, times: int, entries: int, seed: int, step: Step = lambda _done: None
) -> list[str]:
    """Damages an index again and again, in every way, and searches before it is built anew.

    All of it happens in one process, which must live to the end.

    Returns: what is wrong, in words.
    """
    problems: list[str] = []

    def heard(_worker: int, report: Any) -> None:
        problems.extend(report)
        step(1)

    with indexed_store(target) as store:
        fill(store, range(entries))
    Crew(_be_damaged, [(target, times, entries, seed)]).run(heard)
    return problems


def _be_damaged(
    report: Report, begin: Callable[[], object], target: str, times: int, entries: int, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  # chooses what is damaged
    begin()
    took_s = 0.0
    number = entries
    for time_of in range(times):
        way = WAYS_TO_DAMAGE[time_of % len(WAYS_TO_DAMAGE)]
        number += _WRITTEN
        with indexed_store(target) as store:
            before = store.revision
            fill(store, range(number - _WRITTEN, number))
            store.delete(f"k{time_of:05}", overwrite=True)
            if way != "kill":
                begun = time.monotonic()
                store.admin.index()
                took_s = time.monotonic() - begun
            problems = _wrong_at(store, before, time_of)
            if way.endswith("in use"):
                damage(_folder(target), rng, way.split()[0], in_place=True)
                problems += _wrong_at(store, before, time_of)
        if way == "kill":
            _build_and_kill(target, rng.uniform(0, took_s + 1))
        elif way == "all gone":
            _delete_all(_folder(target))
        elif not way.endswith("in use"):
            damage(_folder(target), rng, way)
        with indexed_store(target) as store:
            problems += _wrong_at(store, before, time_of)
            store.admin.index()
            problems += _wrong_at(store, before, time_of)
            stats = store.admin.stats()
            if (stats["index"], stats["index_lag"]) != ("chroma", 0):
                problems.append(f"it was not built again: {stats}")
        report([f"{way}: {problem}" for problem in problems])


def _wrong_at(store: agentmem.Store, before: int, seed: int) -> list[str]:
    """What is wrong now, and at an earlier revision."""
    return [
        problem
        for view in (store.snapshot(), store.snapshot(at=before))
        for problem in wrong_answers(view, seed)
    ]


def _folder(target: str) -> Path:
    return Path(f"{target}-index")


def _delete_all(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


# Killed builders.


def killed_builders(
    target: str,
    *,
    kills: int,
    searchers: int,
    entries: int,
    seed: int,
    step: Step = lambda _done: None,
) -> list[str]:
    """Kills builders at random moments while others search and one writes.

    Args:
        kills: how many builders are killed; some others live to publish what they have built.
        searchers: processes that search, in the present and in the past.

    Returns: what is wrong, in words.
    """
    problems: list[str] = []

    def heard(worker: int, report: Any) -> None:
        problems.extend(f"worker {worker}: {problem}" for problem in report)
        if worker == 0:
            step(1)

    with indexed_store(target) as store:
        fill(store, range(entries))
        begun = time.monotonic()
        store.admin.index()
        took_s = time.monotonic() - begun
        first = _published(store)
    roles = [("kill", kills, took_s), *(("search", 0, 0.0) for _each in range(searchers))]
    roles.append(("write", entries, 0.0))
    Crew(_take_part, [(target, *role, seed + number) for number, role in enumerate(roles)]).run(
        heard
    )
    with indexed_store(target) as store:
        published = _published(store)
        if published == first and kills >= _LET_END:
            problems.append("no builder has published anything")
        store.admin.index()
        problems += wrong_answers(store.snapshot(), seed, rounds=20)
        left = _left_over(target, _published(store))
        problems += [f"{name} takes disk and is of no use" for name in left]
        problems += store.admin.verify().problems
    return problems


def _published(store: agentmem.Store) -> str:
    row = store._core.engine.generation(1)
    return row.name if row is not None else ""


def _left_over(target: str, published: str) -> list[str]:
    """What is in the folder beside the generation, the lock and the view of this process."""
    names = [path.name for path in (_folder(target) / "1").iterdir()]
    mine = f"view-{os.getpid()}-"
    return [each for each in names if each not in (published, "lock") and mine not in each]


def _take_part(
    report: Report,
    begin: Callable[[], object],
    target: str,
    role: str,
    number: int,
    took_s: float,
    seed: int,
) -> None:
    over = Path(f"{target}.over")
    begin()
    if role == "kill":
        try:
            _kill_builders(report, target, number, took_s, seed)
        finally:
            over.touch()
    elif role == "search":
        _search_until(report, target, over, seed)
    else:
        _write_until(target, over, number)


def _kill_builders(report: Report, target: str, kills: int, took_s: float, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311  # chooses moments
    killed = tried = 0
    while killed < kills:
        tried += 1
        if tried % _LET_END == 0:
            _build(target).wait(SILENCE_S)
            continue
        # To the end of what it takes alone, and of its start; beside others it takes longer.
        if _build_and_kill(target, rng.uniform(0, 2 * took_s + 1)):
            killed += 1
            report([])


def _build(target: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "agentmem.testing.indexes", target]
    return subprocess.Popen(command)  # noqa: S603  # this Python, on a store of our own


def _build_and_kill(target: str, after_s: float) -> bool:
    """Whether it was still building."""
    builder = _build(target)
    try:
        builder.wait(after_s)
    except subprocess.TimeoutExpired:
        builder.kill()
        builder.wait(SILENCE_S)
        return True
    return False


def _search_until(report: Report, target: str, over: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311  # chooses revisions
    turn = 0
    while not over.exists():
        # Opened again and again: who opens is who finds what builders have left.
        with indexed_store(target) as store:
            for _round in range(5):
                turn += 1
                problems = wrong_answers(store.snapshot(), seed + turn, rounds=1)
                past = store.snapshot(at=max(1, store.revision - rng.randrange(_HISTORY)))
                problems += wrong_answers(past, seed + turn, rounds=1)
                report(problems)


def _write_until(target: str, over: Path, first: int) -> None:
    turn = 0
    with indexed_store(target) as store:
        while not over.exists():
            fill(store, range(first, first + _WRITTEN))
            store.delete(f"k{first:05}", overwrite=True)
            # As many as were there, so that a look at all of them stays quick.
            fill(store, [turn])
            for number in range(_WRITTEN - 1):
                store.delete(f"k{first + 1 + number:05}", overwrite=True)
            turn += 1
            time.sleep(0.01)  # not synchronisation: leaves the machine to the others


def main() -> None:
    """Builds the index of a store: what is killed."""
    with indexed_store(sys.argv[1]) as store:
        store.admin.index()


if __name__ == "__main__":
    main()
