"""Indexes by pgvector: kept by every commit, near enough, and never in the way of one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

import agentmem
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.postgres import indexing
from agentmem.engines.rows import (
    Change,
    NewCommit,
    Range,
    VectorSet,
    vector_id,
)
from agentmem.namespaces import encode
from tests.postgres.places import raw, run, target
from tests.postgres_server import Server

RELAXED: Final[dict[str, Any]] = {
    "durability": "relaxed", "blind_writes": "allow", "embedder": None,
}  # fmt: skip
ALL: Final = Range("")
STORE: Final = "near"
DIMENSION: Final = 16


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """A database of the test's own, without the extension."""
    run(server.url, "DROP DATABASE IF EXISTS nearest WITH (FORCE)", "CREATE DATABASE nearest")
    url = server.url.replace("/postgres?", "/nearest?")
    with psycopg.connect(url) as connection:
        sql = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
        if connection.execute(sql).fetchone() is None:
            pytest.skip("this PostgreSQL has no pgvector")
    yield url
    run(server.url, "DROP DATABASE nearest WITH (FORCE)")


@pytest.fixture
def store(database: str) -> Iterator[agentmem.Store]:
    with agentmem.open(target(database, STORE), **RELAXED) as store:
        yield store
        assert store.admin.verify().problems == []


def engine_of(store: agentmem.Store) -> Engine:
    return store._core.engine


def vectors(count: int, seed: int = 1, dimension: int = DIMENSION) -> NDArray[np.float32]:
    """Vectors in clusters, as those of texts are."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(7).normal(size=(20, dimension))
    near = centers[rng.integers(0, 20, count)] + 0.4 * rng.normal(size=(count, dimension))
    return near.astype(np.float32)


def fill(store: agentmem.Store, made: NDArray[np.float32], first: int = 0) -> None:
    with store.transaction() as tx:
        for number, vector in enumerate(made, first):
            tx.put(f"k{number}", number, namespace=("team", f"a{number % 10}"), vector=vector)


def set_of(store: agentmem.Store, id: int = 1) -> VectorSet:
    return engine_of(store).spaces().sets[id]


def nearest(
    store: agentmem.Store, query: NDArray[np.float32], k: int = 10, within: Range = ALL
) -> list[tuple[int, float]] | None:
    return engine_of(store).nearest(set_of(store), query.tobytes(), within, k)


def exact(
    store: agentmem.Store, query: NDArray[np.float32], k: int = 10, within: Range = ALL
) -> list[tuple[int, float]]:
    """What is nearest; every current vector is looked at."""
    engine = engine_of(store)
    rows = engine.vector_rows(1, within, 0, engine.position(), 1_000_000)
    found = []
    for row in rows:
        if row.until is None and row.vector is not None:
            vector = np.frombuffer(row.vector, dtype="<f4").astype(float)
            wide = query.astype(float)
            cosine = wide @ vector / np.linalg.norm(wide) / np.linalg.norm(vector)
            found.append((row.entry_id, float(cosine)))
    return sorted(found, key=lambda each: (-each[1], each[0]))[:k]


def assert_kept(store: agentmem.Store) -> None:
    """The index holds what is current, and finds it."""
    assert engine_of(store).inspect()["integrity"] == []
    query = vectors(1, seed=99)[0]
    found, wanted = nearest(store, query, 1_000), exact(store, query, 1_000)
    assert found is not None
    assert dict(found) == pytest.approx(dict(wanted), abs=1e-5)
    assert [cosine for _id, cosine in found] == sorted(dict(found).values(), reverse=True)


def test_there_is_no_index_until_one_is_asked_for(store: agentmem.Store, database: str) -> None:
    made = vectors(50)
    fill(store, made)
    assert nearest(store, made[0]) is None
    with raw(database, "public") as connection:
        assert (
            connection.execute("SELECT * FROM pg_extension WHERE extname = 'vector'").fetchall()
            == []
        )
    assert engine_of(store).build_nearest(set_of(store)) is True
    assert_kept(store)
    found = nearest(store, made[3])
    assert found is not None
    assert found[0] == pytest.approx(
        (engine_of(store).point((encode(("team", "a3")), "k3"), None).row.id, 1.0)
    )  # type: ignore[union-attr]  # it is there
    assert engine_of(store).build_nearest(set_of(store)) is True
    assert_kept(store)


def test_nineteen_of_twenty_are_found(store: agentmem.Store) -> None:
    made = vectors(3_000, dimension=32)
    for first in range(0, 3_000, 1_000):
        fill(store, made[first : first + 1_000], first)
    assert engine_of(store).build_nearest(set_of(store))
    hit = 0
    for query in vectors(50, seed=2, dimension=32):
        for within in (ALL, Range(encode(("team", "a3")))):
            found = nearest(store, query, 10, within)
            assert found is not None
            hit += len(dict(found).keys() & dict(exact(store, query, 10, within)).keys())
    assert hit / 1_000 >= 0.95


def test_every_commit_keeps_it(store: agentmem.Store) -> None:
    fill(store, vectors(30))
    engine_of(store).build_nearest(set_of(store))
    rng = random.Random(1)
    made = iter(vectors(2_000, seed=3))

    def write(into: Any, number: int) -> None:
        key, place = f"k{number}", {"namespace": ("team", f"a{number % 10}")}
        if rng.random() < 0.2:
            into.delete(key, **place, overwrite=True)
        elif rng.random() < 0.2:
            into.put(key, "without a vector", **place, overwrite=True)
        else:
            into.put(key, number, **place, vector=next(made), overwrite=True)

    for step in range(60):
        if step % 3:
            write(store, rng.randrange(40))
        else:
            with store.transaction() as tx:
                for number in rng.sample(range(40), 5):
                    write(tx, number)
        if step % 20 == 0:
            assert_kept(store)
    assert_kept(store)


def test_many_versions_of_a_key_in_one_batch_leave_the_last(store: agentmem.Store) -> None:
    fill(store, vectors(5))
    engine_of(store).build_nearest(set_of(store))
    made = vectors(40, seed=4)

    def work(number: int) -> None:
        for vector in made[number * 10 : number * 10 + 10]:
            store.put("hot", 1, namespace=("team", "a1"), vector=vector, overwrite=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_kept(store)


def test_a_vector_that_comes_late_is_found_if_its_entry_is_current(store: agentmem.Store) -> None:
    fill(store, vectors(5))
    store.put("late", "text", namespace="team")
    store.put("old", "text", namespace="team")
    store.put("old", "newer", namespace="team")
    engine = engine_of(store)
    engine.build_nearest(set_of(store))
    current = {row.key: row.id for row in engine.scan(ALL, store.revision, 100)}
    from agentmem.tail import new_vector

    session = engine.session()
    session.enter(1_000, (), (), spaces=True)
    late = [
        new_vector(1, id, store.revision, vector.tobytes())
        for id, vector in zip((current["late"], current["old"] - 1), vectors(2, 5), strict=True)
    ]
    session.append(NewCommit(vectors=late))
    session.commit()
    session.release()
    assert_kept(store)
    found = nearest(store, vectors(2, 5)[0])
    assert found is not None
    assert found[0][0] == current["late"]


def test_it_is_built_while_others_write(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes fall between the copying, the indexing, and the taking of the lock."""
    fill(store, vectors(300))
    made = iter(vectors(200, seed=6))

    def write(number: int) -> None:
        place: dict[str, Any] = {"namespace": ("team", f"a{number % 10}"), "overwrite": True}
        store.put(f"k{number}", 0, vector=next(made), **place)
        store.put(f"k{number}", 1, vector=next(made), **place)
        store.put(f"k{number + 1_000}", 1, vector=next(made), **place)
        store.delete(f"k{number + 1}", namespace=("team", f"a{(number + 1) % 10}"))
        store.put(
            f"k{number + 2}", "none", namespace=("team", f"a{(number + 2) % 10}"), overwrite=True
        )

    building = indexing._Building
    for at, name in enumerate(("prepare", "_copy", "fill", "index", "_follow")):
        original = getattr(building, name)

        def after(self: Any, *values: Any, at: int = at, original: Any = original) -> Any:
            found = original(self, *values)
            if at not in done:
                done.add(at)
                write(at * 20)
            return found

        monkeypatch.setattr(building, name, after)
    done: set[int] = set()
    monkeypatch.setattr(indexing, "_PAGE", 50)
    assert engine_of(store).build_nearest(set_of(store))
    assert done == {0, 1, 2, 3, 4}
    assert_kept(store)


def test_building_needs_no_connection_of_the_pool(database: str) -> None:
    """They may all wait for the lock that it holds."""
    with agentmem.open(target(database, STORE, pool_size=1), **RELAXED) as store:
        fill(store, vectors(20))
        with engine_of(store)._pool.wire():  # type: ignore[attr-defined]  # of this engine
            assert engine_of(store).build_nearest(VectorSet(1, "", DIMENSION))
        assert_kept(store)


def test_a_search_leaves_nothing_in_the_session(database: str) -> None:
    with agentmem.open(target(database, STORE, pool_size=1), **RELAXED) as store:
        fill(store, vectors(20))
        engine_of(store).build_nearest(set_of(store))
        assert nearest(store, vectors(1)[0], 400) is not None
        with engine_of(store)._pool.wire() as wire:  # type: ignore[attr-defined]  # of this engine
            sql = "SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')"
            assert wire.connection.execute(sql).fetchone() == ("40", "off")


# Where it cannot be.


def test_vectors_of_too_many_dimensions_get_none(store: agentmem.Store) -> None:
    store.put("a", 1, vector=np.ones(2_001, dtype=np.float32))
    assert engine_of(store).build_nearest(set_of(store)) is False
    assert nearest(store, np.ones(2_001, dtype=np.float32)) is None
    store.put("b", 1, namespace="team", vector=np.ones(2_000, dtype=np.float32))
    assert engine_of(store).build_nearest(set_of(store, 2)) is True


def test_vectors_without_a_direction_and_very_long_ones_are_no_trouble(
    store: agentmem.Store,
) -> None:
    fill(store, vectors(5))
    store.put("zero", 1, namespace="team", vector=np.zeros(DIMENSION))
    engine_of(store).build_nearest(set_of(store))
    long = np.full(DIMENSION, 3e38, dtype=np.float32)
    short = np.full(DIMENSION, 1e-42, dtype=np.float32)
    store.put("long", 1, namespace="team", vector=long.tolist())
    store.put("short", 1, namespace="team", vector=short)
    store.put("none", 1, namespace="team", vector=np.zeros(DIMENSION))
    ids = {row.key: row.id for row in engine_of(store).scan(ALL, store.revision, 100)}
    found = nearest(store, long)
    assert found is not None
    assert dict(found[:2]) == pytest.approx({ids["long"]: 1.0, ids["short"]: 1.0}, abs=1e-6)
    assert ids["zero"] not in dict(found)
    assert nearest(store, np.zeros(DIMENSION, dtype=np.float32)) == []


@pytest.fixture
def maker(server: Server, database: str) -> Iterator[Callable[..., str]]:
    """A role that owns its schema and no more, and what else it is given."""
    run(server.url, "CREATE ROLE maker LOGIN", "CREATE ROLE member LOGIN")
    run(database, f"CREATE SCHEMA {STORE} AUTHORIZATION maker")

    def url(*rights: str, role: str = "maker") -> str:
        run(database, *rights)
        return target(database.replace("//postgres:@", f"//{role}@"), STORE)

    yield url
    run(database, "DROP OWNED BY maker CASCADE", "DROP OWNED BY member CASCADE")
    run(server.url, "DROP OWNED BY maker", "DROP ROLE maker", "DROP ROLE member")


def test_a_role_that_may_not_make_the_extension_does_without(maker: Callable[..., str]) -> None:
    with agentmem.open(maker(), **RELAXED) as store:
        fill(store, vectors(20))
        assert engine_of(store).build_nearest(set_of(store)) is False
        assert nearest(store, vectors(1)[0]) is None
        maker('CREATE SCHEMA "ext\'""{s}"', 'CREATE EXTENSION vector SCHEMA "ext\'""{s}"')
        maker('GRANT USAGE ON SCHEMA "ext\'""{s}" TO maker')
        assert engine_of(store).build_nearest(set_of(store)) is True
        assert_kept(store)
        store.put("k1", 1, namespace=("team", "a1"), vector=vectors(1)[0])
        assert_kept(store)


def test_who_may_use_the_vectors_may_use_their_index(maker: Callable[..., str]) -> None:
    extension = "CREATE EXTENSION vector"
    with agentmem.open(maker(extension), **RELAXED) as store:
        fill(store, vectors(20))
        maker(
            f"GRANT USAGE ON SCHEMA {STORE} TO PUBLIC",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {STORE} TO PUBLIC",
            f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {STORE} TO member",
        )
        with agentmem.open(maker(role="member"), **RELAXED) as other:
            # It owns nothing there.
            with pytest.raises(agentmem.StorageError, match="lists the rights"):
                engine_of(other).build_nearest(set_of(other))
            engine_of(store).build_nearest(set_of(store))
            other.put("k1", 1, namespace=("team", "a1"), vector=vectors(1)[0])
            other.delete("k2", namespace=("team", "a2"))
            assert_kept(other)
            maker(f"REVOKE ALL ON {STORE}.nearest_1 FROM member, PUBLIC")
            assert nearest(other, vectors(1)[0]) is None
            assert len(other.search(vectors(1)[0])) == 10
            maker(f"GRANT ALL ON {STORE}.nearest_1 TO member")
        assert_kept(store)


def test_an_index_that_an_administrator_builds_is_the_owners(
    maker: Callable[..., str], database: str
) -> None:
    with agentmem.open(maker(), **RELAXED) as store:
        fill(store, vectors(20))
        with agentmem.open(target(database, STORE), **RELAXED) as administrator:
            assert engine_of(administrator).build_nearest(set_of(store)) is True
        store.put("k1", 1, namespace=("team", "a1"), vector=vectors(1)[0])
        assert_kept(store)


@pytest.mark.parametrize(
    "taken",
    [f"REVOKE INSERT ON {STORE}.nearest_1 FROM maker", "REVOKE USAGE ON SCHEMA hidden FROM maker"],
    ids=["the table", "the extension"],
)
def test_an_index_that_a_writer_may_not_use_is_withdrawn_by_it(
    maker: Callable[..., str], caplog: pytest.LogCaptureFixture, taken: str
) -> None:
    url = maker(
        "CREATE SCHEMA hidden", "CREATE EXTENSION vector SCHEMA hidden",
        "GRANT USAGE ON SCHEMA hidden TO maker",
    )  # fmt: skip
    with agentmem.open(url, **RELAXED) as store:
        fill(store, vectors(20))
        assert engine_of(store).build_nearest(set_of(store)) is True
        maker(taken)
        store.put("k1", 1, namespace=("team", "a1"), vector=vectors(1)[0])
        assert "permission denied" in caplog.text
        assert "withdrawn" in caplog.text
        assert nearest(store, vectors(1)[0]) is None
        maker("GRANT USAGE ON SCHEMA hidden TO maker")
        assert engine_of(store).build_nearest(set_of(store)) is True
        assert_kept(store)
        store.put("k2", 1, namespace=("team", "a2"), vector=vectors(1)[0])
        assert_kept(store)


# When something happens to it.


GONE: Final = {
    "the extension": "DROP EXTENSION vector CASCADE",
    "the table": f"DROP TABLE {STORE}.nearest_1",
    "the column": f"ALTER TABLE {STORE}.nearest_1 DROP COLUMN vector",
    "the type": f"ALTER TABLE {STORE}.nearest_1 RENAME COLUMN vector TO v",
}


@pytest.mark.parametrize("sql", GONE.values(), ids=GONE)
def test_an_index_that_is_gone_fails_no_commit_and_no_search(
    store: agentmem.Store, database: str, sql: str
) -> None:
    fill(store, vectors(20))
    engine = engine_of(store)
    engine.build_nearest(set_of(store))
    assert_kept(store)
    run(database, sql)
    assert nearest(store, vectors(1)[0]) is None
    made = vectors(3, seed=8)
    store.put("k1", 1, namespace=("team", "a1"), vector=made[0])
    with store.transaction() as tx:
        tx.put("k2", 1, namespace=("team", "a2"), vector=made[1])
        tx.delete("k3", namespace=("team", "a3"))
    assert nearest(store, vectors(1)[0]) is None
    assert store.admin.verify().problems == []
    assert engine.build_nearest(set_of(store)) is True
    assert_kept(store)
    store.put("k1", 1, namespace=("team", "a1"), vector=made[2])
    assert_kept(store)


def test_an_index_that_was_withdrawn_elsewhere_is_not_asked(
    store: agentmem.Store, database: str
) -> None:
    """Its table is still there, and nobody keeps it."""
    fill(store, vectors(20))
    engine_of(store).build_nearest(set_of(store))
    assert nearest(store, vectors(1)[0]) is not None
    with raw(database, STORE) as connection:
        connection.execute("UPDATE store SET nearest = NULL")
    assert nearest(store, vectors(1)[0]) is None


def test_wrong_rows_are_found_by_verify(store: agentmem.Store, database: str) -> None:
    fill(store, vectors(20))
    engine_of(store).build_nearest(set_of(store))
    wrongs = (
        "DELETE FROM nearest_1 WHERE entry_id = 3",
        "UPDATE nearest_1 SET entry_id = 99 WHERE entry_id = 3",
        "UPDATE nearest_1 SET namespace = 'x' WHERE entry_id = 3",
    )
    for wrong in wrongs:
        with raw(database, STORE) as connection:
            connection.execute("CREATE TABLE kept AS SELECT * FROM nearest_1")
            connection.execute(wrong)
            problems = store.admin.verify().problems
            connection.execute("TRUNCATE nearest_1")
            connection.execute("INSERT INTO nearest_1 SELECT * FROM kept")
            connection.execute("DROP TABLE kept")
        assert len(problems) == 1
        assert "nearest_1" in problems[0]


def test_the_index_of_dropped_vectors_goes_as_well(store: agentmem.Store, database: str) -> None:
    fill(store, vectors(20))
    store.put("x", 1, namespace="other", vector=[1.0, 2.0])
    engine = engine_of(store)
    assert engine.build_nearest(set_of(store))
    assert engine.build_nearest(set_of(store, 2))
    session = engine.session()
    session.enter(1_000, (), (), spaces=True)
    bounds = {"first": vector_id(1, 0), "past": vector_id(2, 0), "limit": 5}
    session.append(NewCommit(changes=[Change("drop_vectors", bounds)]))
    session.commit()
    session.release()
    assert nearest(store, vectors(1)[0]) is None
    assert engine.nearest(set_of(store, 2), np.ones(2, "<f4").tobytes(), ALL, 5) is not None
    store.put("x", 1, namespace="other", vector=[2.0, 2.0])
    with raw(database, STORE) as connection:
        connection.execute("UPDATE store SET nearest = NULL")
    assert engine.build_nearest(set_of(store, 2))
    with raw(database, STORE) as connection:
        assert connection.execute("SELECT to_regclass('nearest_1')::text").fetchone() == (None,)


def test_a_commit_that_fails_leaves_the_index_as_it_was(
    store: agentmem.Store, database: str
) -> None:
    fill(store, vectors(20))
    engine_of(store).build_nearest(set_of(store))
    refuse = f"ALTER TABLE {STORE}.tags ADD CONSTRAINT refused CHECK (name <> 'refused')"
    run(database, refuse)
    session = engine_of(store).session()
    start = session.enter(1_000, (), ())
    rows = _one_more(store, start.position.revision)
    rows.changes.append(
        Change("set_tag", dict.fromkeys(("created_at", "revision"), 1) | {
            "scope": "", "name": "refused", "agent": None, "note": None})
    )  # fmt: skip
    session.append(rows)
    with pytest.raises(agentmem.StorageError, match="refused"):
        session.commit()
    session.rollback()
    session.release()
    assert_kept(store)


def _one_more(store: agentmem.Store, revision: int) -> NewCommit:
    from agentmem.tail import new_vector

    row = engine_of(store).point((encode(("team", "a1")), "k1"), None).row
    assert row is not None
    return NewCommit(vectors=[new_vector(1, row.id + 1_000, revision, vectors(1)[0].tobytes())])


# Building that does not come to its end.


def test_a_building_that_fails_leaves_nothing(
    store: agentmem.Store, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, vectors(20))

    def fail(*_values: Any) -> None:
        raise KeyboardInterrupt

    for name in ("fill", "index", "announce"):
        with monkeypatch.context() as patch:
            patch.setattr(indexing._Building, name, fail)
            with pytest.raises(KeyboardInterrupt):
                engine_of(store).build_nearest(set_of(store))
        with raw(database, STORE) as connection:
            assert connection.execute("SELECT to_regclass('nearest_1')::text").fetchone() == (None,)
        assert nearest(store, vectors(1)[0]) is None
    assert engine_of(store).build_nearest(set_of(store))


def test_one_at_a_time_builds(store: agentmem.Store, database: str) -> None:
    fill(store, vectors(20))
    with psycopg.connect(database) as other:
        lock = "SELECT pg_advisory_xact_lock(hashtextextended('agentmem nearest ' || %s, 0))"
        other.execute(lock, (STORE,))
        assert engine_of(store).build_nearest(set_of(store)) is False
    assert engine_of(store).build_nearest(set_of(store)) is True


def test_a_lock_that_is_not_to_be_had_says_so(database: str) -> None:
    limits = agentmem.Limits(lock_timeout_ms=200)
    with agentmem.open(target(database, STORE), limits=limits, **RELAXED) as store:
        fill(store, vectors(20))
        with raw(database, STORE) as holder, holder.transaction():
            holder.execute("SELECT 1 FROM store WHERE id = 1 FOR UPDATE")
            with pytest.raises(agentmem.StoreBusyError, match="held the lock") as caught:
                engine_of(store).build_nearest(set_of(store))
        assert caught.value.waited_ms == 200
        assert nearest(store, vectors(1)[0]) is None
        assert engine_of(store).build_nearest(set_of(store)) is True
        assert_kept(store)
