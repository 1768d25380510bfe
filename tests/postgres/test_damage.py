"""What verify notices when rows are changed behind agentmem's back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import agentmem
from agentmem.history.verify import Report
from agentmem.testing.raw_rows import PostgresRows
from agentmem.testing.verifications import random_history, unnoticed, unnoticed_removals
from tests.damages import DAMAGES as SHARED
from tests.damages import everything, found_by, rows_changed, seven_commits
from tests.embedders import WordsEmbedder
from tests.postgres.places import raw
from tests.postgres_server import server_url, store_url

Damage = Callable[..., Report]


@pytest.fixture
def name(new_store: Callable[[], str]) -> str:
    """A store with seven commits."""
    name = new_store()
    with agentmem.open(store_url(name), durability="relaxed") as store:
        seven_commits(store)
    return name


@pytest.fixture
def damaged(name: str) -> Damage:
    """Runs statements behind agentmem's back, and verifies what is left."""

    def damage(*statements: str) -> Report:
        with raw(server_url(), name) as connection:
            for statement in statements:
                changed = connection.execute(statement)  # type: ignore[call-overload]  # a test's own text
                assert changed.rowcount != 0, f"nothing was damaged by {statement}"
        with agentmem.open(store_url(name), durability="relaxed") as store:
            return store.admin.verify()

    return damage


def translated(statement: Any) -> str:
    """A statement of the shared list in PostgreSQL's words."""
    for size in (16, 32):
        statement = statement.replace(f"zeroblob({size})", f"'\\x{'00' * size}'::bytea")
    return str(statement)


DAMAGES: dict[str, tuple[tuple[str, ...], str]] = {
    name: (tuple(map(translated, statements)), problem)
    for name, (statements, problem) in SHARED.items()
} | {
    "a store row that is behind": (
        ("UPDATE store SET revision = 6",),
        "heads do not point to the newest entry",
    ),
    "a store row with another hash": (
        (translated("UPDATE store SET hash = zeroblob(32)"),),
        "heads do not point to the newest entry",
    ),
    "a store row with another time": (
        ("UPDATE store SET committed_at = committed_at + 1",),
        "heads do not point to the newest entry",
    ),
    "a store row that gives the next entries wrong ids": (
        ("UPDATE store SET last_entry_id = last_entry_id + 1",),
        "heads do not point to the newest entry",
    ),
}


def test_what_was_not_damaged_verifies(damaged: Damage) -> None:
    report = damaged()
    assert report.problems == []
    assert (report.revision, report.commits, report.entries) == (7, 7, 9)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_verify_notices(damaged: Damage, damage: tuple[tuple[str, ...], str]) -> None:
    statements, problem = damage
    report = damaged(*statements)
    assert not report.ok
    assert any(problem in each for each in report.problems), report.problems


@pytest.mark.parametrize(
    "garbage",
    [
        "UPDATE entries SET value = 'no JSON' WHERE revision = 2",
        "UPDATE entries SET value = '' WHERE revision = 2",
        "UPDATE entries SET salt = '' WHERE revision = 2",
        "UPDATE entries SET salt = '\\xff' WHERE revision = 2",
        "UPDATE commits SET digests = '' WHERE revision = 2",
        "UPDATE commits SET digests = '\\xff' WHERE revision = 2",
        "UPDATE commits SET hash = '' WHERE revision = 2",
        "UPDATE commits SET metadata = 'no JSON' WHERE revision = 2",
        "UPDATE commits SET first_entry_id = -9223372036854775808 WHERE revision = 2",
        "UPDATE commits SET changes = -1 WHERE revision = 2",
        "UPDATE entries SET namespace = 'no label' WHERE revision = 2",
    ],
)
def test_verify_reports_whatever_it_finds_and_does_not_raise(damaged: Damage, garbage: str) -> None:
    assert not damaged(garbage).ok


def test_a_store_that_lost_its_row_is_refused_at_open(name: str) -> None:
    with raw(server_url(), name) as connection:
        connection.execute("DELETE FROM store")
    with pytest.raises(agentmem.CorruptionError, match="its row in the table store is missing"):
        agentmem.open(store_url(name))


def test_a_store_that_loses_its_row_in_the_middle_is_refused_as_damaged(name: str) -> None:
    with agentmem.open(store_url(name), durability="relaxed") as store:
        with raw(server_url(), name) as connection:
            connection.execute("DELETE FROM store")
        calls: list[Callable[[], object]] = [
            lambda: store.revision,
            lambda: store.get("k"),
            store.list,
            store.snapshot,
            lambda: store.increment("n"),
            lambda: store.get_many(["k"]),
        ]
        for call in calls:
            with pytest.raises(
                agentmem.CorruptionError, match="its row in the table store is missing"
            ):
                call()


def test_a_commit_upon_a_damaged_store_row_is_refused_and_leaves_nothing(name: str) -> None:
    with agentmem.open(store_url(name), durability="relaxed") as store:
        with raw(server_url(), name) as connection:
            connection.execute("UPDATE store SET revision = 5, last_entry_id = 7")
        with pytest.raises(agentmem.StorageError):
            store.increment("n")
        assert store.get("n") is None
        with raw(server_url(), name) as connection:
            connection.execute(
                "UPDATE store SET revision = 7, last_entry_id = (SELECT max(id) FROM entries)"
            )
        assert store.increment("n").version == 1
        assert store.admin.verify().problems == []


def test_every_single_change_is_noticed(new_store: Callable[[], str], seed: int) -> None:
    name = new_store()
    with (
        agentmem.open(store_url(name), embedder=None, durability="relaxed") as store,
        raw(server_url(), name) as connection,
    ):
        random_history(store, random.Random(seed), 40)
        rng = random.Random(seed)
        rows = PostgresRows(connection)
        missed = unnoticed(rows, lambda: store.admin.verify().problems, 40, rng)
        assert list(missed) == []
        assert store.admin.verify().problems == []


def test_a_row_that_is_removed_is_noticed_whatever_its_table(
    new_store: Callable[[], str], seed: int
) -> None:
    name = new_store()
    with (
        agentmem.open(
            store_url(name), embedder=WordsEmbedder(dimension=3), durability="relaxed"
        ) as store,
        raw(server_url(), name) as connection,
    ):
        everything(store, seed)
        rows = PostgresRows(connection)
        assert store.admin.verify().problems == []
        missed = unnoticed_removals(rows, lambda: found_by(store), random.Random(seed))
        assert list(missed) == []
        assert store.admin.verify().problems == []


def test_a_row_that_agentmem_has_changed_is_watched_from_then_on(
    new_store: Callable[[], str],
) -> None:
    name = new_store()
    with (
        agentmem.open(store_url(name), embedder=None, durability="relaxed") as store,
        raw(server_url(), name) as connection,
    ):
        rows_changed(store)
        assert store.admin.verify().problems == []
        for statement in (
            "UPDATE conflicts SET note = 'refused'",
            "UPDATE operation_results SET result = '1'",
            "UPDATE purges SET finished = 0",
            "UPDATE merge_strategies SET checksum = NULL",
        ):
            connection.execute(statement)
            assert not store.admin.verify().ok, statement
