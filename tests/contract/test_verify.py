"""What verify notices: the log is the truth, and nobody changes it behind agentmem's back."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import agentmem
from agentmem import Store
from agentmem.engines.sqlite.driver import driver
from agentmem.history.verify import Report
from agentmem.testing.raw_rows import SqliteRows
from agentmem.testing.verifications import (
    UNPROVABLE,
    false_alarms,
    random_history,
    unnoticed,
    unnoticed_removals,
)
from tests.contract.conftest import StoreMaker
from tests.embedders import WordsEmbedder

pytestmark = pytest.mark.requires("raw")


@pytest.fixture
def damaged(make_store: StoreMaker) -> Callable[..., Report]:
    """Runs statements behind agentmem's back, and verifies what is left."""
    with make_store() as store:
        store.set_merge("m", "counter")
        store.put("k", "one", namespace="n", agent="ann", op_id="op-1", note="first")
        store.put("k", "two", namespace="n", op_id="op-2", metadata={"a": 1}, overwrite=True)
        store.put_many({"a": 1, "b": 2, "m": 3})
        store.delete("a")
        store.put("m", 5, expected_version=1)
        store.put("m", 7, expected_version=1)
        store.put("t", "text", text="other", ttl_s=60)

    def damage(*statements: str) -> Report:
        # The store is closed: this is the only connection of the process, so no lock is lost.
        connection = driver.connect(make_store.target(), isolation_level=None)
        for statement in statements:
            changed = (
                connection.execute(*statement)
                if isinstance(statement, tuple)
                else (connection.execute(statement))
            )
            assert changed.rowcount != 0, f"nothing was damaged by {statement}"
        connection.close()
        again = make_store(intact=False)
        return again.admin.verify()

    return damage


def test_what_was_not_damaged_verifies(damaged: Callable[..., Report]) -> None:
    report = damaged()
    assert report.problems == []
    assert report.ok
    assert (report.revision, report.commits, report.entries) == (7, 7, 9)


DAMAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "a changed value": (
        ("UPDATE entries SET value = '\"0ne\"' WHERE version = 1 AND key = 'k'",),
        "'n/k' at revision 1: the digest does not fit",
    ),
    "a value that means the same": (
        ("UPDATE entries SET value = '3.0' WHERE value = '3'",),
        "'m' at revision 3: the digest does not fit",
    ),
    "a changed text": (
        ("UPDATE entries SET text = '' WHERE key = 't'",),
        "'t' at revision 7: the digest does not fit",
    ),
    "a changed ttl": (
        ("UPDATE entries SET ttl_us = NULL WHERE key = 't'",),
        "'t' at revision 7: the digest does not fit",
    ),
    "a changed base": (
        ("UPDATE entries SET base_version = 2 WHERE key = 'm' AND version = 3",),
        "'m' at revision 6: the digest does not fit",
    ),
    "a merge that is denied": (
        ("UPDATE entries SET merged = NULL WHERE merged IS NOT NULL",),
        "'m' at revision 6: the digest does not fit",
    ),
    "a changed salt": (
        ("UPDATE entries SET salt = zeroblob(16) WHERE key = 'k' AND version = 2",),
        "'n/k' at revision 2: the digest does not fit",
    ),
    "a changed digest of an entry": (
        ("UPDATE entries SET digest = zeroblob(32) WHERE key = 'k' AND version = 2",),
        "'n/k' at revision 2: the digest does not fit",
    ),
    "a changed digest of a commit": (
        ("UPDATE commits SET digests = zeroblob(32) WHERE revision = 2",),
        "revision 2: the hash does not fit",
    ),
    "a swapped op_id": (
        (
            "UPDATE commits SET op_id = 'x' WHERE revision = 1",
            "UPDATE commits SET op_id = 'op-1' WHERE revision = 2",
            "UPDATE commits SET op_id = 'op-2' WHERE revision = 1",
        ),
        "revision 1: the hash does not fit",
    ),
    "another agent": (
        ("UPDATE commits SET agent = 'bob' WHERE revision = 1",),
        "revision 1: the hash does not fit",
    ),
    "another note": (
        ("UPDATE commits SET note = NULL WHERE revision = 1",),
        "revision 1: the hash does not fit",
    ),
    "other metadata": (
        ("UPDATE commits SET metadata = '{}' WHERE revision = 2",),
        "revision 2: the hash does not fit",
    ),
    "another time": (
        ("UPDATE commits SET committed_at = committed_at - 1 WHERE revision = 1",),
        "revision 1: the hash does not fit",
    ),
    "a removed commit": (
        (
            "DELETE FROM entries WHERE revision = 2",
            "DELETE FROM commits WHERE revision = 2",
        ),
        "revision 2 is missing",
    ),
    "the first commit removed": (
        (
            "DELETE FROM entries WHERE revision = 1",
            "DELETE FROM commits WHERE revision = 1",
        ),
        "revision 1 is missing",
    ),
    "a removed entry": (
        ("DELETE FROM entries WHERE key = 'b'",),
        "revision 3: 3 entries were written, 2 are there",
    ),
    "an entry that was slipped in": (
        (
            """INSERT INTO entries
            SELECT 99, namespace, 'new', revision, version, operation, base_version, merged,
                value, text, ttl_us, expires_at, created_at, salt, digest
            FROM entries WHERE key = 'b'""",
        ),
        "heads do not point to the newest entry",
    ),
    "a floor above the log": (
        ("UPDATE store SET floor = 99",),
        "the floor is revision 99, and the log ends at 7",
    ),
    "an entry of no commit": (
        ("UPDATE entries SET id = 500 WHERE key = 'a' AND version = 1",),
        "1 entries belong to no commit",
    ),
    "two values exchanged": (
        (
            "UPDATE entries SET key = 'x' WHERE key = 'b'",
            "UPDATE entries SET key = 'b' WHERE key = 'a' AND version = 1",
        ),
        "'x' at revision 3: the digest does not fit",
    ),
    "a wrong head": (
        ("UPDATE heads SET entry_id = 1, version = 1, revision = 1 WHERE key = 'k'",),
        "heads do not point to the newest entry",
    ),
    "a head that counts too high": (
        ("UPDATE heads SET version = 9 WHERE key = 'b'",),
        "1 heads do not point to the newest entry",
    ),
    "a lost head": (
        ("DELETE FROM heads WHERE key = 't'",),
        "heads do not point to the newest entry",
    ),
    "a hash taken from elsewhere": (
        ("UPDATE commits SET hash = (SELECT hash FROM commits LIMIT 1) WHERE revision = 3",),
        "revision 4: the hash does not fit",
    ),
    "an attempt of another": (
        ("UPDATE commits SET attempt = zeroblob(16) WHERE revision = 5",),
        "revision 5: the hash does not fit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_verify_notices(
    damaged: Callable[..., Report], damage: tuple[tuple[Any, ...], str]
) -> None:
    statements, problem = damage
    report = damaged(*statements)
    assert not report.ok
    assert any(problem in each for each in report.problems), report.problems


def test_verify_notices_that_a_key_is_made_older_than_it_is(damaged: Callable[..., Report]) -> None:
    assert not damaged("UPDATE entries SET created_at = 5 WHERE key = 'k'").ok


@pytest.mark.parametrize(
    "column",
    ["entries.value", "entries.salt", "commits.digests", "commits.hash", "commits.metadata"],
)
def test_verify_reports_whatever_it_finds_and_does_not_raise(
    damaged: Callable[..., Report], column: str
) -> None:
    table, name = column.split(".")
    for garbage in ("x'ff'", "'text'", "5"):
        statement = f"UPDATE {table} SET {name} = {garbage} WHERE revision = 2"  # noqa: S608  # of this test
        assert not damaged(statement).ok


def test_many_problems_are_cut_at_a_hundred(make_store: StoreMaker) -> None:
    with make_store() as store:
        for _ in range(150):
            store.increment("n")
    connection = driver.connect(make_store.target(), isolation_level=None)
    connection.execute("UPDATE entries SET value = '0'")
    connection.close()
    report = make_store(intact=False).admin.verify()
    assert len(report.problems) == 100


def test_history_that_was_cut_off_is_noticed_by_its_heads(damaged: Callable[..., Report]) -> None:
    report = damaged(
        "DELETE FROM entries WHERE revision = 7",
        "DELETE FROM commits WHERE revision = 7",
    )
    assert any("heads" in problem for problem in report.problems)


def test_verify_finds_nothing_wrong_beside_other_writers(make_store: StoreMaker) -> None:
    rng = random.Random(4)  # with which SQLite's own check calls it corrupt
    stores = [make_store(embedder=None), make_store(embedder=None)]
    for _step in range(60):
        with rng.choice(stores).transaction() as tx:
            for _write in range(rng.randint(1, 3)):
                key, words = f"k{rng.randrange(30)}", ["abc", "def", "ghi", "jkl", "mno"]
                tx.put(key, " ".join(rng.choices(words, k=5)), overwrite=True)
        if rng.random() < 0.1:
            assert rng.choice(stores).admin.verify().problems == []


def test_a_store_below_a_raised_floor_can_still_be_written(make_store: StoreMaker) -> None:
    with make_store() as store:
        store.put("k", 1)
        store.put("k", 2)
    connection = driver.connect(make_store.target(), isolation_level=None)
    connection.execute("UPDATE store SET floor = 2")
    connection.close()
    again: Store = make_store()
    assert again["k"] == 2
    assert again.put("k", 3, expected_version=2).version == 3
    assert again.increment("n").value == 1
    again.transact(lambda tx: tx.put("k", tx["k"] + 1))
    reads: list[Callable[[], Any]] = [
        lambda: again.snapshot(at=1),
        lambda: again.snapshot(at=0),
        lambda: again.audit.tag("old", at=1),
    ]
    for read in reads:
        with pytest.raises(agentmem.CompactedError) as caught:
            read()
        assert caught.value.floor == 2
    assert again.snapshot(at=2)["k"] == 2


def test_a_view_that_falls_below_the_floor_says_so(make_store: StoreMaker) -> None:
    with make_store() as store:
        store.put("k", 1)
        store.put("k", 2)
    first: Store = make_store()
    old = first.snapshot(at=1)
    tx = first.transaction()
    tx["k"] = 5
    # Of the same SQLite library as the store's, so that neither drops the other's locks.
    connection = driver.connect(make_store.target(), isolation_level=None)
    connection.execute("UPDATE store SET floor = 3")
    connection.close()
    reads: list[Callable[[], Any]] = [
        lambda: old.get("k"),
        old.list,
        lambda: old.list("nothing"),
        old.count,
        old.namespaces,
        lambda: old.namespaces("nothing"),
        lambda: old.get_many(["k"]),
        lambda: tx.get("other"),
    ]
    for read in reads:
        with pytest.raises(agentmem.CompactedError):
            read()
    first.put("other", 1)
    with pytest.raises(agentmem.CompactedError):
        tx.commit()


def test_no_false_alarm_in_random_histories(make_store: StoreMaker, seed: int) -> None:
    names: dict[int, str] = {}

    def target_of(number: int) -> str:
        names[number] = make_store.target(f"history-{number}")
        return names[number]

    assert false_alarms(target_of, 5, steps=40, seed=seed) == []


def test_every_single_change_is_noticed(make_store: StoreMaker, seed: int) -> None:
    store = make_store(intact=False)
    random_history(store, random.Random(seed), 60)
    # Of the same SQLite library as the store's, so that neither drops the other's locks.
    rows = SqliteRows(driver.connect(make_store.target(), isolation_level=None))
    missed = unnoticed(rows, lambda: store.admin.verify().problems, 60, random.Random(seed))
    assert list(missed) == []
    assert store.admin.verify().problems == []


def test_an_older_backup_in_place_of_the_store_is_noticed(make_store: StoreMaker) -> None:
    with make_store() as store:
        store.put("k", 1)
        kept = (store.admin.verify().revision, store.admin.verify().hash)
        assert store.admin.verify(expected=kept).ok
        store.put("k", 2, overwrite=True)
        later = (2, store.admin.verify().hash)
    connection = driver.connect(make_store.target(), isolation_level=None)
    connection.executescript(
        """DELETE FROM entries WHERE revision = 2; DELETE FROM commits WHERE revision = 2;
        UPDATE heads SET entry_id = 1, version = 1, revision = 1;"""
    )
    connection.close()
    older = make_store()
    assert older.admin.verify().ok
    assert older.admin.verify(expected=kept).ok
    (problem,) = older.admin.verify(expected=later).problems
    assert "replaced by an older one" in problem
    older.put("k", "another", overwrite=True)
    (problem,) = older.admin.verify(expected=later).problems
    assert "is not the one that was there" in problem


def test_a_value_that_is_gone_without_a_purge_is_noticed(damaged: Callable[..., Report]) -> None:
    report = damaged(
        "UPDATE entries SET value = NULL, text = NULL, salt = NULL WHERE key = 'b'",
    )
    assert any("no purge is on record" in problem for problem in report.problems)


def test_a_row_that_is_removed_is_noticed_whatever_its_table(
    make_store: StoreMaker, seed: int
) -> None:
    store = make_store(intact=False, embedder=WordsEmbedder(dimension=3))
    everything(store, seed)
    rows = SqliteRows(driver.connect(make_store.target(), isolation_level=None))
    assert store.admin.verify().problems == []
    missed = unnoticed_removals(rows, lambda: found_by(store), random.Random(seed))
    assert list(missed) == []
    assert store.admin.verify().problems == []
    names = set(rows.tables())
    assert {"reads", "conflicts", "vectors", "tasks", "tallies"} <= names - UNPROVABLE.keys()


def everything(store: Store, seed: int) -> None:
    """A store that has rows in every table."""
    random_history(store, random.Random(seed), 40)
    with store.watch(since=0, consumer="reader") as feed:
        feed.ack(next(iter(feed)))
    store.put("later", "budget", embed="deferred")
    store.put("parked", 1, overwrite=True)
    store.put("parked", 2, expected_version=0)
    store.audit.tag("kept")
    store.once("once", lambda: 1)
    store.queue("tasks").put(1, op_id="task")
    store.put("gone", 1)
    store.admin.purge("gone")


def found_by(store: Store) -> list[str]:
    """What verify says; that it cannot even be run is to notice something, too."""
    try:
        return store.admin.verify().problems
    except agentmem.AgentMemError as error:
        return [str(error)]


def test_a_row_that_agentmem_has_changed_is_watched_from_then_on(
    make_store: StoreMaker,
) -> None:
    store = make_store(intact=False)
    store.set_merge("parked", "escalate")
    store.put("parked", 1)
    store.put("parked", 2, expected_version=0)
    (opened,) = store.audit.conflicts("open")
    store.audit.resolve(opened.id, "theirs", note="agreed")
    store.transact(lambda tx: tx["parked"], op_id="kept")
    store.admin.compact(keep_results=timedelta(0))
    for _ in range(2):
        store.put("secret", 1, overwrite=True)
        store.admin.purge("secret")
    connection = driver.connect(make_store.target(), isolation_level=None)
    assert store.admin.verify().problems == []
    for table, column, wrong in (
        ("conflicts", "note", "refused"),
        ("conflicts", "id", 7),
        ("operation_results", "result", "1"),
        ("purges", "revision", 1),
        ("purges", "finished", 0),
        ("merge_strategies", "checksum", None),
    ):
        rows = SqliteRows(connection)
        row = rows.select(table)[0]
        assert rows.update(table, row, column, wrong)
        assert not store.admin.verify().ok, (table, column)
        assert rows.update(table, {**row, column: wrong}, column, row[column])
        assert store.admin.verify().problems == [], (table, column)


def test_a_row_that_was_put_back_as_it_once_was_is_noticed(make_store: StoreMaker) -> None:
    store = make_store(intact=False)
    store.put("k", 1)
    store.audit.tag("release")
    connection = driver.connect(make_store.target(), isolation_level=None)
    before = connection.execute("SELECT * FROM tags").fetchone()
    store.put("k", 2, overwrite=True)
    store.audit.tag("release", note="second")
    connection.execute("DELETE FROM tags")
    marks = ", ".join("?" * len(before))
    connection.execute(f"INSERT INTO tags VALUES ({marks})", before)  # noqa: S608  # of question marks
    (problem,) = store.admin.verify().problems
    assert "tags has other rows than were written" in problem


def test_two_conflicts_that_have_changed_places_are_noticed(make_store: StoreMaker) -> None:
    store = make_store(intact=False)
    store.set_merge("m", "counter")
    store.put("m", 1)
    for value in (5, 6):
        store.put("m", value, expected_version=1)
    connection = driver.connect(make_store.target(), isolation_level=None)
    for statement in (
        "UPDATE conflicts SET id = 9 WHERE id = 1",
        "UPDATE conflicts SET id = 1 WHERE id = 2",
        "UPDATE conflicts SET id = 2 WHERE id = 9",
    ):
        connection.execute(statement)
    (problem,) = store.admin.verify().problems
    assert "conflicts has other rows than were written" in problem


def test_reads_that_a_compaction_dropped_are_not_missed(make_store: StoreMaker) -> None:
    store = make_store()
    store.put("source", 1)
    for number in range(3):
        store.transact(lambda tx, number=number: tx.put("made", [tx["source"], number]))
    store.admin.compact(keep_versions=1)
    connection = driver.connect(make_store.target())
    assert connection.execute("SELECT COUNT(DISTINCT revision) FROM reads").fetchone() == (1,)
    assert store.admin.verify().problems == []


def test_a_store_from_before_rows_were_counted_is_counted_when_it_is_opened(
    make_store: StoreMaker,
) -> None:
    with make_store() as store:
        store.put("k", 1)
        store.audit.tag("old")
        store.set_merge("m", "counter")
        store.queue("tasks").put(1)
    connection = driver.connect(make_store.target(), isolation_level=None)
    for statement in (
        "DROP TABLE tallies",
        "ALTER TABLE commits DROP COLUMN beside",
        "UPDATE tags SET checksum = NULL",  # as agentmem once left a row that it had changed
        "DELETE FROM agentmem_checksums WHERE name = '0009_count_rows'",
        "DELETE FROM _sqlite_migrations WHERE name = '0009_count_rows'",
    ):
        connection.execute(statement)
    connection.close()
    again = make_store(intact=False)
    assert again.admin.verify().problems == []
    again.transact(lambda tx: tx.put("k", tx["k"] + 1), op_id="op")
    assert again.admin.verify().problems == []
    connection = driver.connect(make_store.target(), isolation_level=None)
    connection.execute("UPDATE tags SET note = 'another'")
    connection.execute("DELETE FROM tasks")
    assert len(again.admin.verify().problems) == 2
