"""Compaction beside writers and readers: no wrong answer, only `CompactedError`.

Every commit of a writer sets two keys to the same number, one more than before. So whatever a
view shows of one of them, by whatever means, it must show of the other, as often as it is asked,
or say that its revision was compacted; and in the end no number may be missing.

Run it by ``python -m agentmem.testing.compactions STORE [COMMITS] [SEED]``, on a store that is not
there yet.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, Final

import agentmem
from agentmem.testing.crew import Crew

__all__ = ["compaction_race", "read", "write"]

_BACK: Final = 40  # revisions that a reader looks back
_EVERY: Final = 20  # commits of a writer between two compactions
_DIMENSION: Final = 4
_NAMESPACE: Final = "pair"
_KEYS: Final = ("left", "right")

Report = Callable[[Any], None]
Begin = Callable[[], object]


def _opened(target: str) -> agentmem.Store:
    return agentmem.open(target, embedder=None, durability="relaxed", blind_writes="allow")


def write(report: Report, begin: Begin, target: str, commits: int, seed: int) -> None:
    """Counts up both keys; compacts from time to time, and says how often it was told no."""
    rng = random.Random(seed)  # noqa: S311  # for a test
    with _opened(target) as store:
        begin()

        def step(tx: agentmem.Transaction) -> None:
            number = tx.get("left", namespace=_NAMESPACE).value["n"] + 1  # type: ignore[union-attr]  # it is there
            tx.list(_NAMESPACE)
            for key in _KEYS:
                value = {"n": number, "word": f"harvest{number}"}
                tx.put(key, value, namespace=_NAMESPACE, vector=[1.0, number, 0.0, 0.0])

        compacted = 0
        for number in range(commits):
            while True:
                try:
                    store.transact(step, attempts=1_000, op_id=f"{seed}-{number}")
                except agentmem.CompactedError:
                    compacted += 1
                else:
                    break
            if number % _EVERY == 0:
                store.admin.compact(keep_versions=rng.choice((1, 1, 2, 5)))
        report(("written", commits, compacted))


def read(report: Report, begin: Begin, target: str, upto: int, seed: int) -> None:
    """Looks at older and newer revisions by all means that there are, until all is written."""
    rng = random.Random(seed)  # noqa: S311  # for a test
    with _opened(target) as store:
        begin()
        looked = compacted = 0
        wrong: list[str] = []
        while store.revision < upto:
            at = max(1, store.revision - rng.randrange(_BACK))
            try:
                seen = _seen(store.snapshot(at=at), rng)
            except agentmem.CompactedError:
                compacted += 1
                continue
            looked += 1
            if len(set(seen)) > 1:
                wrong.append(f"at revision {at}: {seen} (seed {seed})")
        report(("read", looked, compacted, wrong))


def _seen(snap: agentmem.Snapshot, rng: random.Random) -> list[Any]:
    """What each way of reading says the number is; all must agree."""

    def got() -> list[Any]:
        return [snap.get(key, namespace=_NAMESPACE).value["n"] for key in _KEYS]  # type: ignore[union-attr]

    def listed() -> list[Any]:
        found = [entry.value["n"] for entry in snap.list(_NAMESPACE)]
        return found if len(found) == len(_KEYS) else [f"{len(found)} listed"]

    def many() -> list[Any]:
        return [
            entry.value["n"] for entry in snap.get_many(list(_KEYS), namespace=_NAMESPACE).values()
        ]

    def near() -> list[Any]:
        hits = snap.search([1.0, 0.0, 0.0, 0.0], namespace=_NAMESPACE, k=5)
        found = [hit.entry.value["n"] for hit in hits]
        return found if len(found) == len(_KEYS) else [f"{len(found)} near"]

    def by_word() -> list[Any]:
        number = snap.get("left", namespace=_NAMESPACE).value["n"]  # type: ignore[union-attr]
        found = [hit.entry.value["n"] for hit in snap.search(f"harvest{number}", mode="text")]
        return found if len(found) == len(_KEYS) else [f"{len(found)} by word"]

    ways = [got, listed, many, near, by_word]
    rng.shuffle(ways)
    return [number for way in ways for number in way()]


def compaction_race(
    target: str, *, commits: int = 200, writers: int = 2, readers: int = 2, seed: int = 0
) -> tuple[list[str], dict[str, int]]:
    """Runs it on a new store; returns what was wrong, and how much was looked at and refused."""
    with _opened(target) as store:
        with store.transaction() as tx:
            for key in _KEYS:
                value = {"n": 1, "word": "harvest1"}
                tx.put(key, value, namespace=_NAMESPACE, vector=[1.0, 1.0, 0.0, 0.0])
        last = store.revision + commits * writers
        told: dict[str, int] = {"looked": 0, "compacted": 0}
        wrong: list[str] = []

        def heard(_worker: int, said: Any) -> None:
            if said[0] == "read":
                told["looked"] += said[1]
                wrong.extend(said[3])
            told["compacted"] += said[2]

        Crew(_work, [
            *((write, target, commits, seed + number) for number in range(writers)),
            *((read, target, last, seed + 100 + number) for number in range(readers)),
        ]).run(heard)  # fmt: skip
        found = [store.get(key, namespace=_NAMESPACE).value["n"] for key in _KEYS]  # type: ignore[union-attr]
        if found != [1 + commits * writers] * 2:
            wrong.append(f"{found} in the end, not {1 + commits * writers}")
        wrong += store.admin.verify().problems
        told["floor"] = store.admin.stats()["floor"]
    return wrong, told


def _work(report: Report, begin: Begin, role: Callable[..., None], *arguments: Any) -> None:
    role(report, begin, *arguments)


def main() -> None:
    """See the module."""
    target = sys.argv[1]
    commits = int(sys.argv[2]) if len(sys.argv) > 2 else 2_000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    wrong, told = compaction_race(target, commits=commits, seed=seed)
    sys.stdout.write(f"{told}\n" + "".join(f"{each}\n" for each in wrong[:20]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
