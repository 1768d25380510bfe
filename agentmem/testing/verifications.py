"""Whether `verify` notices what was changed, and nothing else.

`random_history` fills a store with all that it can do: merges, conflicts, deletes, expiries,
vectors, operation ids, tasks, purges and compactions. On such a store `verify` must find nothing;
after any single change to a row that it covers, or the removal of a row, it must find something.

Run it by ``python -m agentmem.testing.verifications PLACE [HISTORIES] [CHANGES] [SEED]``, where the
place is a folder, or ``server``: a PostgreSQL server of its own.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any, Final

import agentmem
from agentmem.testing.raw_rows import PostgresRows, Rows, SqliteRows

__all__ = [
    "COVERED",
    "UNPROVABLE",
    "false_alarms",
    "random_history",
    "unnoticed",
    "unnoticed_removals",
]

_KEYS: Final = ("a", "b", "c", "notes", "parked")
_NAMESPACES: Final = (None, "team", "team/alice")
_MANY: Final = 1_000_000

# ruff: noqa: S311  # for tests

COVERED: Final[dict[str, tuple[str, ...]]] = {
    "commits": (
        "revision", "committed_at", "scope", "op_id", "agent", "note", "metadata",
        "base_revision", "attempt", "first_entry_id", "changes", "accepted", "digests", "hash",
        "beside",
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
        "checksum",
    ),
    "conflicts": (
        "id", "namespace", "key", "status", "kind", "strategy", "base_version", "theirs_version",
        "ours", "agent", "op_id", "revision", "detected_at", "note", "checksum",
    ),
    "tags": ("scope", "name", "revision", "created_at", "agent", "note", "checksum"),
    "merge_strategies": ("position", "pattern", "spec", "checksum"),
    "purges": (
        "id", "namespace", "key", "revision", "purged_at", "agent", "note", "finished", "checksum",
    ),
    "vector_sets": ("id", "embedder", "dimension", "checksum"),
    "vector_spaces": ("namespace", "set_id", "checksum"),
    "tallies": ("name", "row_count", "seal"),
}  # fmt: skip
"""The columns in which every change is noticed, by table."""

UNPROVABLE: Final[dict[str, str]] = {
    "agentmem_checksums": "the next open finds a migration that is missing here, and refuses",
    "batch_marks": "settles the COMMIT of a batch that is under way; nothing of what is there",
    "generations": "an index that is not known is built anew",
    "lane": "keeps rivals apart, and guards nothing",
    "lease_waiters": "who waits joins the line again",
    "leases": "a lost grant is a released one: whoever held it is fenced off, and told",
    "search_text": "the same rows as search_text_docsize",
    "search_text_config": "FTS5's own: its version, and how long its pages are",
    "search_text_idx": "FTS5's own: where to begin to read in search_text_data",
    "_sqlite_migrations": "sqlite-utils' own ledger, beside agentmem_checksums",
}
"""The tables whose loss of a row `verify` does not notice, each with the reason."""


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
            _Step(store, rng, number).run(gone=gone)


class _Step:
    """One of the things that can be done to a store, with a key and an agent taken by chance."""

    def __init__(self, store: agentmem.Store, rng: random.Random, number: int) -> None:
        self._store = store
        self._rng = rng
        self._number = number
        self._key, self._namespace = rng.choice(_KEYS), rng.choice(_NAMESPACES)
        self._agent = rng.choice((None, "ann", "bob"))

    def run(self, *, gone: bool) -> None:
        """Does one of them; those that are frequent in life more often."""
        ways: list[tuple[Callable[[], None], int]] = [
            (self._put, 12), (self._merge, 4), (self._transact, 4), (self._delete, 3),
            (self._park, 1), (self._resolve, 1), (self._coordinate, 2),
        ]  # fmt: skip
        if gone:
            ways += [(self._compact, 1), (self._purge, 1)]
        (way,) = self._rng.choices([each for each, _ in ways], [weight for _, weight in ways])
        way()

    def _put(self) -> None:
        rng, number = self._rng, self._number
        value: Any = rng.choice(([f"x{number}"], [number, "harvest"], ["", f"y{number}"]))
        vector = [1.0, number, 0.5] if rng.random() < 0.3 else None
        ttl_s = rng.choice((None, None, 0.000_001, 1_000.0))
        self._store.put(
            self._key, value, namespace=self._namespace, agent=self._agent, vector=vector,
            ttl_s=ttl_s,
        )  # fmt: skip

    def _merge(self) -> None:
        before = self._store.get("notes", namespace=None)
        base = before.version if before is not None else 0
        self._store.put("notes", [self._number], overwrite=True)
        value = [self._number, "mine"]
        with suppress(agentmem.ConflictError):
            self._store.put("notes", value, expected_version=base or 0, agent=self._agent)

    def _transact(self) -> None:
        def work(tx: agentmem.Transaction) -> Any:
            tx.list("team")
            tx.get(self._key, namespace=self._namespace)
            tx.put("counted", self._number, overwrite=True)
            return {"number": self._number}

        op_id = f"op-{self._number}" if self._rng.random() < 0.5 else None
        self._store.transact(work, op_id=op_id, note="counted")

    def _delete(self) -> None:
        self._store.delete(self._key, namespace=self._namespace)

    def _compact(self) -> None:
        store, rng = self._store, self._rng
        if rng.random() < 0.3:
            store.audit.tag(f"t{self._number % 3}")
        if rng.random() < 0.3 and store.audit.tags():
            store.audit.untag(store.audit.tags()[0].name)
        kept = timedelta(0) if rng.random() < 0.3 else None
        store.admin.compact(
            keep_versions=rng.randrange(1, 4), keep_results=kept, vacuum=rng.random() < 0.1
        )

    def _purge(self) -> None:
        with suppress(agentmem.KeyMissingError):
            self._store.admin.purge(self._key, namespace=self._namespace, agent=self._agent)

    def _park(self) -> None:
        self._store.put("parked", self._number, overwrite=True)
        self._store.put("parked", [self._number], expected_version=0, agent=self._agent)

    def _resolve(self) -> None:
        opened = self._store.audit.conflicts(status="open")
        take = self._rng.choice(("theirs", "ours"))
        if opened:
            with suppress(agentmem.ConflictError):  # the key has moved on since
                self._store.audit.resolve(self._rng.choice(opened).id, take, note="so")

    def _coordinate(self) -> None:
        number, queue = self._number, self._store.queue("tasks")
        queue.put({"number": number}, op_id=f"task-{number}")
        if (task := queue.claim("ann")) is not None and self._rng.random() < 0.5:
            task.ack()
        ttl_s = self._rng.choice((None, 0.000_001))
        self._store.once(f"once-{number % 3}", lambda: number, ttl_s=ttl_s)


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
        is_stub = table == "entries" and before["salt"] is None  # of a purged version
        if old is None or is_stub:
            continue
        new = _changed(old, rng)
        if not rows.update(table, before, column, new):
            continue
        done += 1
        if not problems():
            yield f"{table}.{column}: {old!r} became {new!r}"
        assert rows.update(table, before | {column: new}, column, old), "it was changed so"


def unnoticed_removals(
    rows: Rows, problems: Callable[[], list[str]], rng: random.Random
) -> Iterator[str]:
    """The tables of which a row can be removed without that `verify` notices it.

    A row of each table is removed and put back; of one without rows it is said, too.

    Args:
        problems: runs `verify`.
    """
    for table in rows.tables():
        found = rows.select(table)
        if table in UNPROVABLE:
            continue
        if not found:
            yield f"{table} has no row that could be removed"
            continue
        row = rng.choice(found)
        assert rows.remove(table, row), f"a row of {table} could not be removed"
        if not problems():
            yield f"{table}: {row}"
        rows.insert(table, row)


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
    place, *numbers = sys.argv[1:]
    histories, changes, seed = (*map(int, numbers), *(200, 200, 0)[len(numbers) :])
    with ExitStack() as stack:
        target_of, rows_of = _of_server(stack) if place == "server" else _of_folder(place)
        alarms = false_alarms(target_of, histories, seed=seed)
        target = target_of(histories)
        with agentmem.open(target, embedder=None, durability="relaxed") as store:
            random_history(store, random.Random(seed), 80)
            rows = rows_of(histories)
            missed = list(
                unnoticed(rows, lambda: store.admin.verify().problems, changes, random.Random(seed))
            )
    sys.stdout.write(
        f"{len(alarms)} false alarms in {histories} histories; {len(missed)} of {changes} changes "
        "not noticed\n" + "".join(f"{each}\n" for each in [*alarms, *missed][:20])
    )
    sys.exit(bool(alarms or missed))


_Places = tuple[Callable[[int], str], Callable[[int], Rows]]


def _of_folder(folder: str) -> _Places:
    from agentmem.engines.sqlite.driver import driver

    def path(number: int) -> str:
        return os.path.join(folder, f"{number}.db")

    return path, lambda number: SqliteRows(driver.connect(path(number), isolation_level=None))


def _of_server(stack: ExitStack) -> _Places:
    import psycopg

    from agentmem.testing.servers import Server

    server = stack.enter_context(Server())

    def rows_of(number: int) -> Rows:
        connection = stack.enter_context(psycopg.connect(server.url, autocommit=True))
        connection.execute(f"SET search_path TO history_{number}")
        return PostgresRows(connection)

    return lambda number: server.store(f"history_{number}"), rows_of


if __name__ == "__main__":
    main()
