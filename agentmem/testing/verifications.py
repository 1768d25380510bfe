"""Whether `verify` notices what was changed, and nothing else.

`random_history` fills a store with all that it can do: merges, conflicts, deletes, expiries,
vectors, operation ids, purges and compactions. On such a store `verify` must find nothing, and
after any single change to a row that it covers it must find something.

Run it by ``python -m agentmem.testing.verifications FOLDER [HISTORIES] [CHANGES] [SEED]``.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import agentmem

__all__ = ["COVERED", "Rows", "false_alarms", "random_history", "unnoticed"]

_KEYS: Final = ("a", "b", "c", "notes", "parked")
_NAMESPACES: Final = (None, "team", "team/alice")
_MANY: Final = 1_000_000

# ruff: noqa: S311  # for tests

COVERED: Final[dict[str, tuple[str, ...]]] = {
    "commits": (
        "revision", "committed_at", "scope", "op_id", "agent", "note", "metadata",
        "base_revision", "attempt", "first_entry_id", "changes", "accepted", "digests", "hash",
    ),
    "entries": (
        "id", "namespace", "key", "revision", "version", "operation", "base_version", "merged",
        "value", "text", "ttl_us", "created_at", "salt", "digest",
    ),
    "heads": ("namespace", "key", "entry_id", "version", "revision"),
    "vectors": ("id", "vector", "checksum"),
    "operation_results": ("revision", "fingerprint", "result", "checksum"),
    "reads": (
        "revision", "position", "kind", "namespace", "key", "version", "base_revision", "scan",
    ),
    "conflicts": (
        "namespace", "key", "status", "kind", "strategy", "base_version", "theirs_version",
        "ours", "agent", "op_id", "revision", "detected_at", "note",
    ),
    "tags": ("scope", "name", "revision", "created_at", "agent", "note"),
    "merge_strategies": ("pattern", "spec"),
    "purges": ("namespace", "key", "revision", "purged_at", "agent", "note"),
    "vector_sets": ("id", "embedder", "dimension"),
    "vector_spaces": ("namespace", "set_id"),
}  # fmt: skip
"""The columns in which every change is noticed, by table."""


def random_history(
    store: agentmem.Store, rng: random.Random, steps: int, *, gone: bool = True
) -> None:
    """Does whatever can be done to a store, so many times.

    Args:
        gone: purge and compact, too.
    """
    store.set_merge("notes", "union")
    store.set_merge("parked", "escalate")
    for number in range(steps):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", agentmem.BlindWriteWarning)
            _step(store, rng, number, gone=gone)


def _step(store: agentmem.Store, rng: random.Random, number: int, *, gone: bool) -> None:
    key, namespace = rng.choice(_KEYS), rng.choice(_NAMESPACES)
    agent = rng.choice((None, "ann", "bob"))

    def put() -> None:
        value: Any = rng.choice(([f"x{number}"], [number, "harvest"], ["", f"y{number}"]))
        vector = [1.0, number, 0.5] if rng.random() < 0.3 else None
        ttl_s = rng.choice((None, None, 0.000_001, 1_000.0))
        store.put(key, value, namespace=namespace, agent=agent, vector=vector, ttl_s=ttl_s)

    def merge() -> None:
        before = store.get("notes", namespace=None)
        base = before.version if before is not None else 0
        store.put("notes", [number], overwrite=True)
        try:
            store.put("notes", [number, "mine"], expected_version=base or 0, agent=agent)
        except agentmem.ConflictError:
            return

    def transact() -> None:
        def work(tx: agentmem.Transaction) -> Any:
            tx.list("team")
            tx.get(key, namespace=namespace)
            tx.put("counted", number, overwrite=True)
            return {"number": number}

        store.transact(work, op_id=f"op-{number}" if rng.random() < 0.5 else None, note="counted")

    def delete() -> None:
        store.delete(key, namespace=namespace)

    def compact() -> None:
        if rng.random() < 0.3:
            store.audit.tag(f"t{number % 3}")
        if rng.random() < 0.3 and store.audit.tags():
            store.audit.untag(store.audit.tags()[0].name)
        store.admin.compact(keep_versions=rng.randrange(1, 4), vacuum=rng.random() < 0.1)

    def purge() -> None:
        try:
            store.admin.purge(key, namespace=namespace, agent=agent)
        except agentmem.KeyMissingError:
            return

    ways: list[tuple[Callable[[], None], int]] = [
        (put, 12), (merge, 4), (transact, 4), (delete, 3),
    ]  # fmt: skip
    if gone:
        ways += [(compact, 1), (purge, 1)]
    (way,) = rng.choices([each for each, _ in ways], [weight for _, weight in ways])
    way()


def false_alarms(
    target_of: Callable[[int], str], histories: int, *, steps: int = 40, seed: int = 0
) -> list[str]:
    """What `verify` complains of in histories in which nothing was changed."""
    found = []
    for number in range(histories):
        rng = random.Random(f"{seed}-{number}")
        with agentmem.open(target_of(number), embedder=None, durability="relaxed") as store:
            random_history(store, rng, steps)
            problems = store.admin.verify().problems
            found += [f"history {number} (seed {seed}): {each}" for each in problems]
    return found


class Rows(Protocol):
    """A store's tables, behind agentmem's back."""

    def select(self, table: str) -> list[dict[str, Any]]:
        """All rows."""

    def update(self, table: str, before: dict[str, Any], column: str, value: Any) -> bool:
        """Changes a column of the row; False if the database does not allow it."""


@dataclass
class SqliteRows:
    """The tables of a file, by a connection of the store's own SQLite library."""

    connection: Any

    def select(self, table: str) -> list[dict[str, Any]]:
        """See `Rows`."""
        cursor = self.connection.execute(f"SELECT * FROM {table}")  # noqa: S608  # of this module
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def update(self, table: str, before: dict[str, Any], column: str, value: Any) -> bool:
        """See `Rows`."""
        where = " AND ".join(f"{name} IS ?" for name in before)
        sql = f"UPDATE {table} SET {column} = ? WHERE {where}"  # noqa: S608  # names of this module
        try:
            return bool(self.connection.execute(sql, (value, *before.values())).rowcount == 1)
        except Exception:  # noqa: BLE001  # a constraint of whatever library it is
            return False


def unnoticed(
    rows: Rows, problems: Callable[[], list[str]], changes: int, rng: random.Random
) -> Iterator[str]:
    """The single changes, of so many, that `verify` does not notice. Each is taken back.

    Args:
        problems: runs `verify`.
    """
    done = 0
    for _attempt in range(_MANY):
        if done == changes:
            return
        table = rng.choice(list(COVERED))
        found = rows.select(table)
        column = rng.choice(COVERED[table])
        if not found:
            continue
        before = rng.choice(found)
        old = before[column]
        # Stubs of purged versions, and rows that agentmem itself has changed since, have none.
        bare = before.get("salt" if table == "entries" else "checksum", b"") is None
        if old is None or bare:
            continue
        new = _changed(old, rng)
        if not rows.update(table, before, column, new):
            continue
        done += 1
        if not problems():
            yield f"{table}.{column}: {old!r} became {new!r}"
        assert rows.update(table, before | {column: new}, column, old), "it was changed so"


def _changed(old: Any, rng: random.Random) -> Any:
    """The same with one bit, or one character, changed."""
    if isinstance(old, int):
        return old ^ (1 << rng.randrange(8))
    if isinstance(old, str):
        if not old:
            return "x"
        at = rng.randrange(len(old))
        return old[:at] + ("~" if old[at] != "~" else "-") + old[at + 1 :]
    at = rng.randrange(len(old))
    return bytes([*old[:at], old[at] ^ (1 << rng.randrange(8)), *old[at + 1 :]])


def main() -> None:
    """See the module."""
    from agentmem.engines.sqlite.driver import driver

    folder, *numbers = sys.argv[1:]
    histories, changes, seed = (*map(int, numbers), *(200, 200, 0)[len(numbers) :])
    alarms = false_alarms(lambda number: os.path.join(folder, f"{number}.db"), histories, seed=seed)
    path = os.path.join(folder, "changed.db")
    with agentmem.open(path, embedder=None, durability="relaxed") as store:
        random_history(store, random.Random(seed), 80)
        rows = SqliteRows(driver.connect(path, isolation_level=None))
        missed = list(
            unnoticed(rows, lambda: store.admin.verify().problems, changes, random.Random(seed))
        )
    sys.stdout.write(
        f"{len(alarms)} false alarms in {histories} histories; {len(missed)} of {changes} changes "
        "not noticed\n" + "".join(f"{each}\n" for each in [*alarms, *missed][:20])
    )
    sys.exit(bool(alarms or missed))


if __name__ == "__main__":
    main()
