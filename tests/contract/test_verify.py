"""What verify notices: the log is the truth, and nobody changes it behind agentmem's back."""

from __future__ import annotations

import random
from collections.abc import Callable
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
from tests.damages import DAMAGES, everything, found_by, rows_changed, seven_commits
from tests.embedders import WordsEmbedder

pytestmark = pytest.mark.requires("raw")


@pytest.fixture
def damaged(make_store: StoreMaker) -> Callable[..., Report]:
    """Runs statements behind agentmem's back, and verifies what is left."""
    with make_store() as store:
        seven_commits(store)

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


def test_a_row_that_agentmem_has_changed_is_watched_from_then_on(
    make_store: StoreMaker,
) -> None:
    store = make_store(intact=False)
    rows_changed(store)
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
