"""Searching on PostgreSQL: what its full-text search and its tables bring with them.

What every engine does alike is in tests/contract/test_search.py.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentmem
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.postgres import migrate
from agentmem.engines.postgres.searching import cut
from agentmem.engines.rows import (
    NewCommit,
    Range,
    TextHit,
    vector_id,
)
from agentmem.namespaces import encode
from agentmem.search.words import query_words
from agentmem_migrations import migrations_for
from tests import strategies
from tests.postgres.places import raw, run, target
from tests.postgres_server import Server, server_url, store_url

RELAXED: Final[dict[str, Any]] = {
    "durability": "relaxed", "blind_writes": "allow", "embedder": None,
}  # fmt: skip
ALL: Final = Range("")


@pytest.fixture
def name(new_store: Callable[[], str]) -> str:
    return new_store()


@pytest.fixture
def store(name: str) -> Iterator[agentmem.Store]:
    with agentmem.open(store_url(name), **RELAXED) as store:
        yield store
        assert store.admin.verify().problems == []


def engine_of(store: agentmem.Store) -> Engine:
    return store._core.engine


def hits(store: agentmem.Store, *words: str, within: Range = ALL, limit: int = 100) -> list[str]:
    return [hit.key for hit in text_hits(store, *words, within=within, limit=limit)]


def text_hits(
    store: agentmem.Store, *words: str, within: Range = ALL, limit: int = 100
) -> list[TextHit]:
    return engine_of(store).text_hits(words, within, store.revision, limit)


def rows(name: str, sql: str) -> list[tuple[Any, ...]]:
    with raw(server_url(), name) as connection:
        return connection.execute(sql).fetchall()  # type: ignore[call-overload]  # a test's own text


def indexed_texts(name: str) -> int:
    """The number of rows in the text index, which must be the number that is kept of it."""
    counted, kept = rows(name, "SELECT (SELECT COUNT(*) FROM texts), texts FROM store")[0]
    assert counted == kept
    return int(counted)


# Texts that a tsvector cannot hold, or complains of.


def words_of_length(size: int) -> str:
    """Different words, as many as go into so many bytes."""
    found = " ".join(f"{number:x}q" for number in range(size // 4))
    assert len(found) >= size
    return found[:size]


LONG: Final = {
    "4 MiB of different words": "first " + words_of_length(4 * 1024 * 1024 - 100),
    "a word of 1 MiB": "first " + "x" * 1024 * 1024,
    "words of 3,000 characters": "first " + "y" * 3_000 + " " + "z" * 3_000,
    "a word of 1 MiB of Chinese": "first " + "語" * (1024 * 1024 // 3),
    "a host name without end": "first " + "a.b" * 100_000,
    "a path without end": "first http://a.b" + "/c" * 100_000,
    "hyphens without end": "first " + "a-" * 100_000,
    "numbers without end": "first " + "1.5e-" * 100_000,
    "marks without end": "first " + "e" + "\u0301" * 300_000,
    "tags without end": "first " + "<a " * 100_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_no_text_is_too_long_to_be_committed_and_its_beginning_is_found(
    store: agentmem.Store, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store.put("long", text)
    with store.transaction() as tx:
        tx["other"] = text
        tx["third"] = 3
    assert store["long"] == store["other"] == text
    assert hits(store, "first") == ["long", "other"]
    assert engine_of(store).text_scores(["first"], [text])[0] > 0
    # What the server notices of such words is nobody's business.
    assert capfd.readouterr() == ("", "")


# Of each of these the parser makes several words; the first grows most.
SHAPES: Final = ("{}.{}/{}-{}", "{}-{}", "{}.{}/{}", "{}-{}-{}", "{}@{}.{}", "{}")


@pytest.mark.parametrize("letters", ["abcdefghijklmnopqrstuvwxyz", "éàüöäçñøåæþðßêîôûâëï"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_left_of_a_long_text_always_fits_into_a_tsvector(
    store: agentmem.Store, shape: str, letters: str
) -> None:
    rng = random.Random(shape)
    parts = ["".join(rng.choices(letters, k=rng.choice((2, 2, 3)))) for _each in range(4 * 60_000)]
    found = {shape.format(*parts[at : at + 4]) for at in range(0, len(parts), 4)}
    text = " ".join(sorted(found))
    # How much of its megabyte a tsvector has used, without four bytes for each word.
    size = "SELECT pg_column_size(v) - 4 * length(v) FROM to_tsvector('english', %s) v"
    with raw(server_url(), "public") as connection:
        used = connection.execute(size, (cut(text),)).fetchone()
        assert used is not None
        assert used[0] < 0.8 * 1024 * 1024
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too long for tsvector"):
            connection.execute(size, (words_of_length(2 * 1024 * 1024),))
    store.put("k", text)


@pytest.mark.parametrize("character", ["a", "é", "語", "\U0001f9e0"])
def test_a_text_is_cut_between_characters(character: str) -> None:
    found = cut("x" + character * 300_000)
    assert 256 * 1024 - 4 < len(found.encode()) <= 256 * 1024
    assert set(found) <= {"x", character, " "}


# Words.


def test_nothing_in_a_word_is_an_operator(store: agentmem.Store) -> None:
    store.put("a", "budget of the trip")
    for word in ("budget & !trip", "!budget", "budget:*", "bud:*", "x <-> y", "'", "\\", "(", "|"):
        assert set(hits(store, word)) <= {"a"}
    assert hits(store, "budg:*") == hits(store, "!nothing") == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(strategies.texts(), min_size=1, max_size=4), strategies.labels())
def test_no_word_and_no_namespace_breaks_a_statement(
    store: agentmem.Store, words: list[str], label: str
) -> None:
    text = " ".join(words)
    store.put("k", {"text": text}, namespace=(label, "below"))
    engine = engine_of(store)
    scores = engine.text_scores(words, [text, "nothing"])
    assert all(score >= 0 for score in scores)
    for within in (ALL, Range(encode((label,))), Range(encode((label, "below")))):
        found = text_hits(store, *words, within=within)
        assert [hit.key for hit in found if hit.namespace == encode((label, "below"))] == (
            ["k"] if scores[0] else []
        )
        assert text_hits(store, *query_words(text) or ["x"], within=within) is not None


def test_a_namespace_that_begins_with_the_last_character_is_below_the_root(
    store: agentmem.Store,
) -> None:
    store.put("k", "budget", namespace=("\U0010ffff" * 256,), vector=[1.0, 0.0])
    assert hits(store, "budget") == ["k"]
    assert hits(store, "budget", within=Range(encode(("\U0010ffff" * 256,)))) == ["k"]
    engine, end = engine_of(store), engine_of(store).position()
    assert len(engine.vector_rows(1, ALL, 0, end, 10)) == 1
    assert engine.count_vectors(1, ALL, 10) == 1
    assert len(store.search([1.0, 0.0])) == 1


def test_a_phrase_is_not_found_by_its_parts(store: agentmem.Store) -> None:
    store.put("row", "日本 trip")
    store.put("apart", "本日 trip")
    for words in (["日 本"], ["日 本", "trip"]):
        found = {hit.key: hit.score for hit in text_hits(store, *words)}
        scores = engine_of(store).text_scores(words, ["日本 trip", "本日 trip"])
        assert [found.get("row", 0.0), found.get("apart", 0.0)] == scores
        assert scores[0] > scores[1]


def test_words_that_are_none_are_dropped(store: agentmem.Store) -> None:
    store.put("a", "budget 🎉")
    assert hits(store, "🎉") == hits(store, "x" * 5_000) == []
    assert hits(store, "🎉", "budget", "x" * 5_000) == ["a"]
    assert engine_of(store).text_scores(["🎉"], ["budget 🎉", ""]) == [0.0, 0.0]
    assert engine_of(store).text_scores(["budget"], []) == []


def test_a_rare_word_counts_for_more_than_a_frequent_one(store: agentmem.Store) -> None:
    with store.transaction() as tx:
        for number in range(20):
            tx[f"k{number}"] = "trip to the sea"
        tx["rare"] = "lisbon to the sea"
    assert hits(store, "trip", "lisbon")[0] == "rare"
    assert hits(store, "lisbon") == ["rare"]


def test_equal_scores_are_in_order_of_bytes(store: agentmem.Store) -> None:
    names = ["Z", "a", "é", "\uffff", "\U0001f9e0", "a/b", "A", "B"]
    with store.transaction() as tx:
        for namespace, key in itertools.product((None, ("b",), ("B",), ("é",)), names):
            tx.put(key, "the same words", namespace=namespace)
    found = [(hit.namespace, hit.key) for hit in text_hits(store, "same")]
    assert len(found) == 32
    assert found == sorted(found)
    for limit in (1, 5, 31):
        some = text_hits(store, "same", limit=limit)
        assert [(hit.namespace, hit.key) for hit in some] == found[:limit]


VOCABULARY: Final = (
    "budget", "budgets", "lisbon", "trip", "the", "a", "日本", "日", "本", "e-mail", "12.5",
    "naïve", "a.b/c", "\u0301", "🎉",
)  # fmt: skip
sentences = st.lists(st.sampled_from(VOCABULARY), max_size=8).map(" ".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(sentences, min_size=1, max_size=8), sentences)
def test_a_text_scores_outside_of_the_index_what_it_scores_inside(
    store: agentmem.Store, texts: list[str], query: str
) -> None:
    words = query_words(query) or ["budget"]
    with store.transaction() as tx:
        for number, text in enumerate(texts):
            tx[f"k{number}"] = text
    found = {hit.key: hit.score for hit in text_hits(store, *words)}
    scores = engine_of(store).text_scores(words, texts)
    assert [found.get(f"k{number}", 0.0) for number in range(len(texts))] == scores
    ordered = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    assert list(found.items()) == ordered
    store.clear()
    assert text_hits(store, *words) == []


# What is in the index.


def test_the_index_holds_what_is_current_and_nothing_else(store: agentmem.Store, name: str) -> None:
    store.put("k", "one")
    store.put("k", "two")
    store.put("hidden", "three", text=False)
    store.put("number", 5)
    store.put("gone", "four")
    assert indexed_texts(name) == 2
    store.delete("gone")
    with store.transaction() as tx:
        for number in range(5):
            tx["k"] = f"version {number}"
            tx[f"new{number}"] = "new"
    assert indexed_texts(name) == 6
    assert engine_of(store).text_ids() == sorted(
        hit.entry_id for hit in text_hits(store, "version", "new")
    )
    store.put("hidden", "three")
    store.put("k", 1)
    store.clear()
    assert indexed_texts(name) == 0


def test_a_view_of_the_past_finds_no_later_entry(store: agentmem.Store) -> None:
    for number in range(4):
        store.put(f"k{number}", "budget")
    engine = engine_of(store)
    found = [len(engine.text_hits(["budget"], ALL, revision, 10)) for revision in range(6)]
    assert found == [0, 1, 2, 3, 4, 4]


def test_a_commit_that_fails_leaves_nothing_behind(server: Server) -> None:
    """Its last statement fails, after the texts and the vectors."""
    url = target(server.url, "search_left")
    with agentmem.open(url, **RELAXED) as store:
        store.put("k", "one", vector=[1.0, 2.0])
        before = everything(server.url, "search_left")
        run(server.url, *REFUSE_LATE)
        with pytest.raises(agentmem.StorageError, match="no more vectors"):
            store.put("k", "two", vector=[3.0, 4.0])
        tx = store.transaction()
        tx.put("k", "two", vector=[3.0, 4.0])
        tx.put("new", "three", namespace="other", vector=[1.0])
        with pytest.raises(agentmem.StorageError, match="no more vectors"):
            tx.commit()
        assert everything(server.url, "search_left") == before
        run(server.url, "DROP TRIGGER refuse ON search_left.vectors")
        store.put("k", "two", vector=[3.0, 4.0])
        assert hits(store, "two") == ["k"]
        assert store.admin.verify().problems == []
    run(server.url, "DROP SCHEMA search_left CASCADE")


REFUSE_LATE: Final = (
    """CREATE FUNCTION search_left.refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE 'no more vectors'; END$$""",
    """CREATE TRIGGER refuse BEFORE INSERT ON search_left.vectors
        FOR EACH STATEMENT EXECUTE FUNCTION search_left.refuse()""",
)


def everything(url: str, name: str) -> list[list[tuple[Any, ...]]]:
    """All that a commit writes."""
    tables = ("commits", "entries", "heads", "texts", "vectors", "vector_sets", "vector_spaces")
    with raw(url, name) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # type: ignore[call-overload]  # noqa: S608  # of this list
            for table in (*tables, "store")
        ]


# Vectors.


EDGES: Final = (
    0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 0.1, 1 / 3, 1e-7,
    16777217,
)  # fmt: skip


@pytest.mark.parametrize("dimension", [1, 11, 2_048, 16_000])
def test_a_vector_comes_back_bit_by_bit(store: agentmem.Store, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    vector = np.frombuffer(rng.bytes(4 * dimension), dtype="<f4").copy()
    vector[~np.isfinite(vector)] = 0.1
    vector[: len(EDGES)] = EDGES[:dimension]
    store.put("one", "text", vector=vector.tolist())
    with store.transaction() as tx:
        tx.put("two", "text", vector=vector.tolist())
        tx.put("three", "text", vector=(-vector).tolist())
    engine = engine_of(store)
    stored = engine.vectors(1, [1, 2, 3, 4])
    wanted = {entry.key: entry.id for entry in engine.scan(ALL, 2, 10)}
    assert stored[wanted["one"]] == stored[wanted["two"]] == vector.tobytes()
    assert stored[wanted["three"]] == (-vector).tobytes()
    assert {row.vector for row in engine.vector_rows(1, ALL, 0, engine.position(), 10)} == set(
        stored.values()
    )
    assert {row.vector for row in engine.stored_vectors(0, 10)} == set(stored.values())


def test_a_vector_that_is_there_stays(store: agentmem.Store) -> None:
    store.put("k", "text", vector=[1.0, 2.0])
    engine = engine_of(store)
    stored = engine.stored_vectors(0, 10)
    session = engine.session()
    session.enter(1_000, (), (), spaces=True)
    session.append(NewCommit(vectors=[stored[0]._replace(vector=struct.pack("<2f", 3, 4))]))
    session.commit()
    session.release()
    assert engine.stored_vectors(0, 10) == stored
    assert stored[0].id == vector_id(1, 1)


def test_what_a_session_reads_is_what_the_engine_reads(store: agentmem.Store) -> None:
    store.put("a", "budget", vector=[1.0, 2.0])
    store.put("b", "trip", namespace="team", vector=[1.0, 2.0, 3.0])
    engine = engine_of(store)
    session = engine.session()
    start = session.enter(1_000, [("", "a")], (), spaces=True)
    try:
        assert start.spaces == session.spaces() == engine.spaces()
        assert start.spaces.of == {"": 1, encode(("team",)): 2}
        assert session.vectors(1, [1, 2]) == engine.vectors(1, [1, 2]) != {}
        for texts in (["budget trip", ""], []):
            assert session.text_scores(["trip"], texts) == engine.text_scores(["trip"], texts)
        assert session.embedded_since(0, ALL, 1) == engine.embedded_since(0, ALL, 1) == []
    finally:
        session.rollback()
        session.release()


# Stores without an index.


@pytest.fixture
def old(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of an agentmem that could not search, with a few entries."""
    oldest = migrations_for("postgres")[:1]
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "migrations_for", lambda _engine: oldest)
        migrate.migrate(migrate_target(name), "relaxed", 1_000)
    with agentmem.open(store_url(f"{name}_new"), **RELAXED) as store:
        store.put("k", {"title": "old budget"}, namespace="team")
        store.put("k", {"title": "budget"}, namespace="team")
        store.put("text", 1, text="lisbon")
        store.put("hidden", "budget", text=False)
        store.put("number", 5)
        store.put("long", LONG["4 MiB of different words"])
        store.put("gone", "budget")
        store.delete("gone")
        with store.transaction() as tx:
            for number in range(1_200):
                tx[f"many{number}"] = f"thousand number{number}"
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(f"TRUNCATE {name}.store")
        for table in ("commits", "entries", "heads", "operation_results"):
            columns = ", ".join(columns_of(connection, name, table))
            connection.execute(  # of this list
                f"INSERT INTO {name}.{table} SELECT {columns} FROM {name}_new.{table}"  # noqa: S608  # as above
            )
        connection.execute(OLD_STORE.format(name=name))  # type: ignore[call-overload]  # a test's own text
        connection.execute(f"DROP SCHEMA {name}_new CASCADE")
    return name


def columns_of(connection: psycopg.Connection[Any], schema: str, table: str) -> list[str]:
    """The columns that a table had then."""
    rows = connection.execute(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        (schema, table),
    ).fetchall()
    return [row[0] for row in rows]


OLD_STORE: Final = """INSERT INTO {name}.store SELECT id, store_id, created_at, floor, fence,
    revision, committed_at, hash, last_entry_id FROM {name}_new.store"""


def migrate_target(name: str) -> Any:
    from agentmem.engines.postgres.target import parse_target

    return parse_target(store_url(name))


def test_a_store_without_an_index_gets_one_of_what_is_current(old: str) -> None:
    look = migrate.look(migrate_target(old), 1_000)
    assert look is not None
    assert look.missing[0] == "0002_add_search"
    with agentmem.open(store_url(old), **RELAXED) as store:
        assert hits(store, "budget") == ["k"]
        assert hits(store, "lisbon") == ["text"]
        assert hits(store, "first") == ["long"]
        assert len(hits(store, "thousand", limit=2_000)) == 1_200
        assert hits(store, "number7") == ["many7"]
        assert [hit.namespace for hit in text_hits(store, "budget")] == [encode(("team",))]
        assert indexed_texts(old) == 1_203
        assert store.admin.verify().problems == []
        store.put("k", "museum", namespace="team")
        assert hits(store, "budget") == []
        assert hits(store, "museum") == ["k"]


def test_an_index_is_not_made_while_somebody_commits(old: str) -> None:
    limits = agentmem.Limits(lock_timeout_ms=200)
    with raw(server_url(), old) as holder, holder.transaction():
        holder.execute("SELECT 1 FROM store WHERE id = 1 FOR UPDATE")
        with pytest.raises(agentmem.StoreBusyError):
            agentmem.open(store_url(old), limits=limits, **RELAXED)
    assert rows(old, "SELECT to_regclass('texts')::text") == [(None,)]
    agentmem.open(store_url(old), limits=limits, **RELAXED).close()
    assert indexed_texts(old) == 1_203


# Rights.


@pytest.fixture
def shared(server: Server) -> Iterator[Callable[..., str]]:
    """A store of the superuser's, and what opens it as a role with the given rights."""
    with agentmem.open(target(server.url, "search_shared"), **RELAXED) as store:
        store.put("k", "budget", vector=[1.0, 2.0])
    run(server.url, "CREATE ROLE member LOGIN")

    def url(*rights: str) -> str:
        on = "ON ALL TABLES IN SCHEMA search_shared TO member"
        run(server.url, "GRANT USAGE ON SCHEMA search_shared TO member")
        run(server.url, f"GRANT {', '.join(rights)} {on}")
        return target(server.url.replace("//postgres:@", "//member@"), "search_shared")

    yield url
    run(server.url, "DROP OWNED BY member CASCADE", "DROP ROLE member")
    run(server.url, "DROP SCHEMA search_shared CASCADE")


def test_a_role_that_may_only_read_searches(shared: Callable[..., str]) -> None:
    with agentmem.open(shared("SELECT"), **RELAXED) as store:
        assert [hit.entry.key for hit in store.search("budgets")] == ["k"]
        assert [hit.entry.key for hit in store.search([1.0, 2.0])] == ["k"]
        assert engine_of(store).text_scores(["budget"], ["budget"]) != [0.0]


def test_a_role_that_may_write_the_tables_writes_texts_and_vectors(
    shared: Callable[..., str],
) -> None:
    rights = ("SELECT", "INSERT", "UPDATE", "DELETE")
    with agentmem.open(shared(*rights), **RELAXED) as store:
        store.put("k", "museum", vector=[2.0, 1.0])
        store.put("new", "museum garden", namespace="team", vector=[2.0, 1.0, 0.0])
        store.delete("k")
        assert hits(store, "museum") == ["new"]
        assert len(store.search([1.0, 2.0, 0.0], namespace="team")) == 1
        assert store.admin.verify().problems == []


# Replicas.


def test_the_engine_of_a_replica_reads_for_searches_as_well(store: agentmem.Store) -> None:
    """Beside the primary's own; that it proves what it reads is in test_replicas.py."""
    from agentmem.engines.postgres.replica import PostgresReplica

    store.put("a", "budget", vector=[1.0, 2.0])
    store.put("a", "trip", vector=[2.0, 1.0])
    url = f"{server_url()}"
    engine = engine_of(store)
    replica = PostgresReplica(
        url, store_url(str(engine.describe()["location"]).split("=")[-1]), 1_000
    )
    try:
        end = engine.position()
        pinned = replica.pinned(engine.store_id, end, 0)
        assert pinned.entries([1, 2], 2) == engine.entries([1, 2], 2) != []
        assert pinned.text_hits(["trip"], ALL, 2, 5) == engine.text_hits(["trip"], ALL, 2, 5)
        assert pinned.vectors(1, [1, 2]) == engine.vectors(1, [1, 2])
        assert pinned.spaces() == engine.spaces()
        assert pinned.nearest(engine.spaces().sets[1], b"", ALL, 5) is None
    finally:
        replica.close()


def test_entries_are_not_read_below_the_floor(store: agentmem.Store, name: str) -> None:
    store.put("a", 1)
    store.put("a", 2)
    rows(name, "UPDATE store SET floor = 2 RETURNING 1")
    with pytest.raises(agentmem.CompactedError):
        engine_of(store).entries([1], 1)
    with pytest.raises(agentmem.CompactedError):
        engine_of(store).entries([], 1)
    assert len(engine_of(store).entries([1, 2, 99], 2)) == 2
    rows(name, "UPDATE store SET floor = 0 RETURNING 1")
