"""Commits in one round trip: a guess that is wrong in any way writes nothing and loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import agentmem
from agentmem.engines.postgres.ahead import Ahead, End
from agentmem.engines.postgres.engine import PostgresEngine
from agentmem.engines.postgres.session import PostgresSession
from tests.postgres_server import server_url, store_url

Open = Callable[..., agentmem.Store]


class Trips:
    """Counts what is guessed: right, and wrong or of no use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.right = self.wrong = 0
        hit, missed = Ahead.hit, Ahead.missed

        def count_hit(ahead: Ahead, now: int) -> None:
            self.right += 1
            hit(ahead, now)

        def count_missed(ahead: Ahead) -> None:
            self.wrong += 1
            missed(ahead)

        monkeypatch.setattr(Ahead, "hit", count_hit)
        monkeypatch.setattr(Ahead, "missed", count_missed)

    def take(self) -> tuple[int, int]:
        found = (self.right, self.wrong)
        self.right = self.wrong = 0
        return found


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Trips:
    return Trips(monkeypatch)


@pytest.fixture
def schema(new_store: Callable[[], str]) -> str:
    return new_store()


@pytest.fixture
def open_store(schema: str) -> Iterator[Open]:
    stores: list[agentmem.Store] = []

    def make(**arguments: Any) -> agentmem.Store:
        stores.append(agentmem.open(store_url(schema), embedder=None, **arguments))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Open) -> agentmem.Store:
    return warm(open_store())


@pytest.fixture
def other(open_store: Open) -> agentmem.Store:
    return open_store()


def warm(store: agentmem.Store) -> agentmem.Store:
    """Lets the store find out where its log ends."""
    store.put("warm", 0)
    return store


def whole(store: agentmem.Store) -> None:
    assert store.admin.verify().problems == []


def statement(schema: str, text: str) -> None:
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{schema}"')
        connection.execute(text)


def test_who_commits_alone_always_guesses_right(store: agentmem.Store, trips: Trips) -> None:
    store.put("a", {"text": "some words"})
    store.put("a", {"text": "other words"})
    store.increment("n")
    store.increment("n", 2)
    store.update("n", lambda number: number + 1)
    store.put("b", 1, op_id="once", metadata={"run": 7})
    store.delete("b")
    store.put("t", 1, ttl_s=60)
    with store.transaction(agent="me") as tx:
        tx["n"] += 1
    assert trips.take() == (9, 0)
    assert store["n"] == 5
    assert [hit.entry.key for hit in store.search("words", mode="text")] == ["a"]
    assert store.search("some", mode="text") == []
    whole(store)


def test_an_operation_id_keeps_its_first_result(store: agentmem.Store, trips: Trips) -> None:
    first = store.put("a", 1, op_id="once")
    assert trips.take() == (1, 0)
    again = store.put("a", 1, op_id="once")
    assert (again.version, again.revision) == (first.version, first.revision)
    assert trips.take() == (0, 1)
    with pytest.raises(agentmem.OperationMismatchError):
        store.put("a", 2, op_id="once")
    whole(store)


def test_an_operation_id_that_another_process_has_used(
    store: agentmem.Store, other: agentmem.Store
) -> None:
    # Whatever store believes of the log's end: the operation is known, and applies once.
    first = other.put("a", 1, op_id="once")
    assert store.put("a", 1, op_id="once").revision == first.revision
    assert store.revision == first.revision


def test_another_commit_in_between_is_seen(
    store: agentmem.Store, other: agentmem.Store, trips: Trips
) -> None:
    store.increment("n")
    other.increment("n", 10)
    trips.take()
    assert store.increment("n").value == 12
    assert trips.take()[1] == 1
    whole(store)


def test_another_commit_to_another_key_is_seen(
    store: agentmem.Store, other: agentmem.Store, trips: Trips
) -> None:
    other.put("elsewhere", 1)
    trips.take()
    assert store.put("a", 1).revision == 3
    assert trips.take()[1] == 1
    whole(store)


def test_a_version_that_is_known_no_longer_is_the_newest(
    store: agentmem.Store, other: agentmem.Store, trips: Trips
) -> None:
    store.put("n", 1)
    other.put("n", 10, overwrite=True)
    assert store.revision == 3  # now the end is known, and of the key an older version
    trips.take()
    assert store.increment("n").value == 11
    assert trips.take() == (0, 1)
    whole(store)


def test_a_new_key_that_another_process_has_made_conflicts(
    store: agentmem.Store, other: agentmem.Store
) -> None:
    other.put("a", "theirs")
    assert store.revision == 2  # now the end is known, and the key is not
    with pytest.raises(agentmem.ConflictError):
        store.put("a", "ours", expected_version=0)
    assert store["a"] == "theirs"
    whole(store)


def test_a_blind_write_over_a_version_that_was_not_known(
    store: agentmem.Store, other: agentmem.Store, trips: Trips
) -> None:
    other.put("a", "theirs", agent="other")
    assert store.revision == 2
    trips.take()
    with pytest.warns(agentmem.BlindWriteWarning):
        assert store.put("a", "ours", agent="me").version == 2
    assert trips.take() == (0, 1)
    whole(store)


def test_a_conflict_is_judged_by_what_is_so(store: agentmem.Store, other: agentmem.Store) -> None:
    entry = store.put("a", 1)
    other.delete("a")
    other.put("a", 2)
    # By what this process knows, version 1 is the newest; so is version 9 that there never was.
    with pytest.raises(agentmem.ConflictError) as found:
        store.put("a", 3, expected_version=entry.version)
    assert found.value.conflicts[0].theirs == 2
    with pytest.raises(agentmem.ConflictError) as found:
        store.put("warm", 3, expected_version=9)
    assert found.value.conflicts[0].theirs == 0


def test_a_rejection_rests_on_no_guess(
    store: agentmem.Store, other: agentmem.Store, trips: Trips
) -> None:
    other.increment("warm", 4)
    trips.take()
    assert store.put("warm", 5, expected_version=2).version == 3
    assert trips.take() == (0, 1)


def test_deleting_what_another_process_has_just_written(
    store: agentmem.Store, other: agentmem.Store
) -> None:
    other.put("a", 1)
    assert store.revision == 2
    store.delete("a")
    assert "a" not in other
    whole(store)


def test_a_touch_takes_no_revision_and_is_not_missed(
    store: agentmem.Store, other: agentmem.Store, trips: Trips
) -> None:
    store.put("a", [1], ttl_s=60)
    other.touch("a", None)
    trips.take()
    # An append keeps the expiry that it finds.
    assert store.append("a", 2).expires_at is None
    assert trips.take() == (0, 1)


def test_a_touch_in_a_commit_of_another_key_is_not_missed(
    store: agentmem.Store, other: agentmem.Store
) -> None:
    store.put("a", [1], ttl_s=60)
    with other.transaction() as tx:
        tx.touch("a", None)
        tx.put("b", 1)
    assert store.revision == 3
    assert store.append("a", 2).expires_at is None


def test_what_commits_beside_the_log_is_counted(
    store: agentmem.Store, other: agentmem.Store, trips: Trips
) -> None:
    # A merge strategy that another process has just registered decides the next conflict.
    store.put("a", [1])
    other.set_merge("a", "union")
    trips.take()
    store.put("a", [1, 2])
    assert trips.take() == (0, 1)
    store.put("a", [1, 2, 3])
    assert trips.take()[1] == 0


def test_values_that_were_changed_in_place_are_not_gone_by(
    store: agentmem.Store, schema: str
) -> None:
    # As an erasure does it: under another fence, with the same version and the same hash.
    store.put("n", 1)
    statement(schema, "UPDATE entries SET value = '100' WHERE key = 'n'")
    statement(schema, "UPDATE store SET fence = fence + 1")
    assert store.increment("n").value == 101


def test_what_was_read_under_an_older_fence_is_not_gone_by(
    store: agentmem.Store, schema: str, trips: Trips
) -> None:
    store.put("n", 1)
    statement(schema, "UPDATE entries SET value = '100' WHERE key = 'n'")
    statement(schema, "UPDATE store SET fence = fence + 1")
    store.put("other", 1)  # this process knows the new fence from here on
    store.put("other", 2)
    store.put("other", 3)
    trips.take()
    assert store.increment("n").value == 101
    whole_but_one = store.admin.verify().problems
    assert all("n" in str(problem) for problem in whole_but_one)


def test_an_index_that_has_to_be_kept_is_not_overlooked(
    store: agentmem.Store, schema: str, trips: Trips
) -> None:
    # Registered by another process, of which this one has not heard. Its table is not there, so
    # the commit that looks at it withdraws it.
    statement(schema, """UPDATE store SET nearest = '{"1": "public"}'""")
    store.put("a", 1)
    assert trips.take() == (0, 1)
    with psycopg.connect(server_url()) as connection:
        found = connection.execute(f'SELECT nearest FROM "{schema}".store').fetchone()  # noqa: S608  # a name of ours
    assert found == (None,)


@pytest.mark.parametrize("wrong_s", [-10, -0.1, 0.1, 10])
def test_the_commit_time_is_the_servers(
    store: agentmem.Store, trips: Trips, wrong_s: float
) -> None:
    before = store.put("a", 1).committed_at
    ahead = engine_of(store)._ahead
    assert ahead._end is not None
    wrong_us = round(wrong_s * 1_000_000)
    ahead._behind_us += wrong_us
    ahead._end = ahead._end._replace(committed_at=ahead._end.committed_at + wrong_us)
    trips.take()
    after = store.put("a", 1).committed_at
    assert trips.take() == (0, 1)
    assert before <= after
    assert after - before < timedelta(seconds=5)
    whole(store)


def test_an_injected_clock_is_gone_by(open_store: Open, trips: Trips) -> None:
    now = [1_000_000_000.0]
    store = warm(open_store(clock=lambda: now[0]))
    now[0] += 3_600
    entry = store.put("a", 1)
    assert trips.take() == (1, 0)
    assert entry.committed_at.timestamp() == now[0]
    now[0] -= 7_200
    assert store.put("a", 2).committed_at.timestamp() == now[0] + 7_200
    whole(store)


def test_large_values_are_not_kept_in_memory(store: agentmem.Store, trips: Trips) -> None:
    store.put("a", "x" * 10_000)
    ahead = engine_of(store)._ahead
    assert ahead._heads["", "a"] is None
    trips.take()
    store.put("a", "y")
    assert trips.take() == (0, 0)
    store.put("a", "z")
    assert trips.take() == (1, 0)


def test_a_commit_that_touches_several_keys_asks(store: agentmem.Store, trips: Trips) -> None:
    store.put_many({"a": 1, "b": 2})
    assert trips.take() == (0, 0)
    store.put("a", 2)
    store.put("c", 2)
    assert trips.take() == (1, 0)
    whole(store)


def test_who_guesses_wrong_guesses_less_often() -> None:
    ahead = Ahead(lambda: 0)
    end = End(1, 0, b"hash", 1, 0, 0)

    def sessions_until_a_guess() -> int:
        count = 0
        while True:
            ahead.heard(end, 0, sure=True)
            count += 1
            if ahead.guess([("", "a")], [], None) is not None:
                return count

    counts = []
    for _each in range(9):
        counts.append(sessions_until_a_guess())
        ahead.missed()
    assert counts == [1, 2, 3, 5, 9, 17, 33, 65, 65]
    sessions_until_a_guess()
    ahead.hit(0)
    assert sessions_until_a_guess() == 1


def test_what_was_heard_long_ago_is_not_gone_by() -> None:
    now_ns = [0]
    ahead = Ahead(lambda: now_ns[0])
    ahead.heard(End(1, 0, b"hash", 1, 0, 0), 1_000_000, sure=True)
    now_ns[0] = 4_000_000_000
    found = ahead.guess([("", "a")], [], None)
    assert found is not None
    assert found[0].position.now == 5_000_000
    now_ns[0] = 5_000_000_001
    assert ahead.guess([("", "a")], [], None) is None


def test_what_was_read_late_does_not_replace_what_is_newer() -> None:
    ahead = Ahead(lambda: 0)
    newer, older = End(2, 0, b"two", 2, 0, 0), End(1, 0, b"one", 1, 0, 0)
    ahead.committed(newer, {})
    ahead.heard(older, 0)
    found = ahead.guess([("", "a")], [], None)
    assert found is not None
    assert found[1] == newer
    ahead.heard(older, 0, sure=True)  # the history was replaced
    found = ahead.guess([("", "a")], [], None)
    assert found is not None
    assert found[1] == older


def test_not_more_heads_are_kept_than_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentmem.engines.postgres.ahead._HEADS", 3)
    ahead = Ahead(lambda: 0)
    ahead.committed(End(1, 0, b"one", 1, 0, 0), {("", f"k{number}"): None for number in range(5)})
    assert list(ahead._heads) == [("", "k2"), ("", "k3"), ("", "k4")]


def test_a_lost_connection_leaves_a_commit_open_and_the_operation_id_decides(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch, trips: Trips
) -> None:
    run = PostgresSession._committed

    def lose(session: PostgresSession, wire: Any, batch: Any) -> Any:
        run(session, wire, batch)
        wire.close()  # the answer is lost, and with it the connection
        return run(session, wire, batch)

    store.put("n", 1)
    trips.take()
    monkeypatch.setattr(PostgresSession, "_committed", lose)
    with pytest.raises(agentmem.IndeterminateCommitError) as found:
        store.increment("n", op_id="once")
    monkeypatch.undo()
    assert store.outcome(found.value) is not None
    assert store.increment("n", op_id="once").value == 2
    assert store["n"] == 2
    whole(store)


def test_the_lock_is_waited_for_no_longer_than_allowed(open_store: Open, schema: str) -> None:
    store = warm(open_store(limits=agentmem.Limits(lock_timeout_ms=200)))
    with psycopg.connect(server_url()) as connection:
        connection.execute(f'SELECT 1 FROM "{schema}".store FOR UPDATE')  # noqa: S608  # ours
        with pytest.raises(agentmem.StoreBusyError) as found:
            store.put("a", 1)
        assert found.value.waited_ms == 200
        connection.rollback()
    assert store.put("a", 1).version == 1


def engine_of(store: agentmem.Store) -> PostgresEngine:
    engine = store._core.engine
    assert isinstance(engine, PostgresEngine)
    return engine
