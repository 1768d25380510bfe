"""The same operations give the same answers as LangGraph's own stores.

Where they differ among themselves, or from us on purpose, this page says so and why:

- ``created_at`` stays that of the first put, as in PostgreSQL; SQLite and memory set it anew.
- Without a query the newest come first, as in SQLite and PostgreSQL (SQLite cannot tell writes
  of one second apart); memory has the order of first puts. Compared here without order.
- Texts of an item that was put anew are gone; the others keep vectors of fields that the new
  value does not have. Compared here with a store that is filled with the final values.
- Items without a vector are not found by a query, as in SQLite and PostgreSQL; memory fills up
  with them, without a score.
- A name with dots in a filter is a field of that name, as in PostgreSQL and memory; where there
  is none, it is a path, as in SQLite.
- ``$ne`` needs the field to be there, as in SQLite and PostgreSQL; a missing field equals None,
  as in SQLite and memory.
- Order compares numbers with numbers and strings with strings, else it is false. SQLite takes a
  string for 0, PostgreSQL compares 10 and 9 as texts, memory raises. Booleans are no numbers, as
  in PostgreSQL.
- Namespaces are listed in order of their labels, as by memory; the others compare the labels
  joined with dots, in which ``a-b`` comes before ``a.b``.
- A namespace whose last item is gone is not listed; memory lists it.
- Expired items are never shown; SQLite and PostgreSQL show them until they are swept.
- A put into the root, or with a value that is no JSON, is refused.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from langgraph.store.postgres import PostgresStore
from langgraph.store.sqlite import SqliteStore
from psycopg import sql
from psycopg.rows import dict_row

from langgraph_agentmem import AgentMemStore
from tests.embedders import DIMENSION, WordsEmbedder
from tests.postgres_server import new_name, server_url

_LABELS: Final = ("a", "b", "a-b", "é", "*x")
_KEYS: Final = ("k", "k2", "%", "a.b", "'; --")
_WORDS: Final = ("red", "green", "blue", "sun", "moon")

namespaces = st.lists(st.sampled_from(_LABELS), min_size=1, max_size=3).map(tuple)
prefixes = st.lists(st.sampled_from(_LABELS), max_size=2).map(tuple)
scalars = st.one_of(st.integers(-3, 3), st.sampled_from(["", "x", "1"]), st.sampled_from([1.5]))
values = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(-3, 3),
        "s": st.sampled_from(["", "x", "y", "10", "9"]),
        "list": st.lists(scalars, max_size=2),
        "meta": st.fixed_dictionaries({}, optional={"n": st.integers(0, 2)}),
        "lc": st.just(1),
    },
)
# Numbers with numbers and strings with strings: elsewhere they differ, as the page says.
conditions = st.one_of(
    st.builds(lambda n: {"n": n}, st.integers(-3, 3)),
    st.builds(lambda s: {"s": s}, st.sampled_from(["", "x", "10"])),
    st.builds(
        lambda op, n: {"n": {op: n}},
        st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte"]),
        st.integers(-3, 3),
    ),
    st.builds(lambda s: {"s": {"$eq": s}}, st.sampled_from(["x", "y"])),
    st.builds(lambda: {"n": {"$gt": -2, "$lte": 2}}),
)
filters = st.one_of(
    st.none(), conditions, st.builds(lambda one, two: {**one, **two}, conditions, conditions)
)
paths = st.lists(st.sampled_from([*_LABELS[:3], "*"]), min_size=1, max_size=3).map(tuple)
matching = st.lists(
    st.tuples(st.sampled_from(["prefix", "suffix"]), paths).map(lambda each: MatchCondition(*each)),
    max_size=2,
).map(tuple)


def built(kind: Any, *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Operations of those fields; the others as they are by default."""
    return st.tuples(*fields).map(lambda given: kind(*given))


keys = st.sampled_from(_KEYS)
puts = built(PutOp, namespaces, keys, st.one_of(st.none(), values, values))
gets = built(GetOp, namespaces, keys)
searches = built(SearchOp, prefixes, filters, st.just(1_000))
listings = built(
    ListNamespacesOp, matching, st.one_of(st.none(), st.integers(1, 3)), st.just(1_000)
)
batches = st.lists(
    st.lists(st.one_of(puts, puts, gets, searches, listings), min_size=1, max_size=6),
    min_size=1,
    max_size=8,
)


def plain(result: Any) -> Any:
    """A result without times, and without the order that they make."""
    if isinstance(result, Item):
        return (result.namespace, result.key, result.value)
    if isinstance(result, list) and result and isinstance(result[0], Item):
        return sorted((plain(each) for each in result), key=repr)
    if isinstance(result, list):
        return sorted(result)
    return result


@contextmanager
def ours(**options: Any) -> Iterator[AgentMemStore]:
    with AgentMemStore.from_conn_string(":memory:", durability="relaxed", **options) as store:
        yield store


@settings(max_examples=40)
@given(batches)
def test_batches_are_answered_as_by_the_memory_and_the_sqlite_store(
    batches: list[list[Op]],
) -> None:
    memory = InMemoryStore()
    with ours() as store, SqliteStore.from_conn_string(":memory:") as sqlite:
        sqlite.setup()
        for ops in batches:
            found = [plain(each) for each in store.batch(ops)]
            assert found == [plain(each) for each in sqlite.batch(ops)]
            # Memory raises where an order meets a missing field, and lists namespaces whose
            # last item is gone; SQLite does neither.
            shared = [
                number
                for number, op in enumerate(ops)
                if not isinstance(op, ListNamespacesOp)
                and not (isinstance(op, SearchOp) and op.filter)
            ]
            answers = memory.batch([ops[number] for number in shared])
            assert [found[number] for number in shared] == [plain(each) for each in answers]


@settings(max_examples=25)
@given(st.lists(puts, max_size=12), filters, st.integers(1, 4))
def test_pages_of_a_search_are_the_search(
    ops: list[PutOp], filter: dict[str, Any] | None, size: int
) -> None:
    with ours() as store:
        for op in ops:
            store.batch([op])
        whole = store.search((), filter=filter, limit=1_000)
        paged: list[SearchItem] = []
        while page := store.search((), filter=filter, limit=size, offset=len(paged)):
            paged += page
        assert paged == whole
        times = [item.updated_at for item in whole]
        assert times == sorted(times, reverse=True)


texts = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=4).map(" ".join)
documents = st.fixed_dictionaries(
    {"n": st.integers(0, 2)},
    optional={"title": texts, "body": texts.map("body {}".format),
              "parts": st.lists(texts.map("part {}".format), max_size=3, unique=True)},
)  # fmt: skip
indexes = st.sampled_from([None, False, ["title"], ["parts[*]", "body"], ["body", "parts[-1]"]])
embedded = built(PutOp, namespaces, keys, documents, indexes)
deletions = built(PutOp, namespaces, keys, st.none())


@pytest.mark.parametrize("fields", [["title", "body"], ["parts[*]", "title"], ["$"]])
@settings(max_examples=20)
@given(
    st.lists(st.one_of(embedded, embedded, deletions), max_size=10),
    texts,
    prefixes,
    st.one_of(st.none(), st.integers(0, 2).map(lambda n: {"n": n})),
    st.integers(0, 2),
    st.integers(1, 4),
)
def test_the_nearest_field_of_an_item_counts_as_in_the_memory_store(
    fields: list[str],
    ops: list[PutOp],
    query: str,
    prefix: tuple[str, ...],
    filter: dict[str, Any] | None,
    offset: int,
    limit: int,
) -> None:
    embedder = WordsEmbedder()
    index: Any = {"dims": DIMENSION, "embed": lambda texts: embedder(texts).tolist()}
    index["fields"] = fields
    final: dict[Any, PutOp] = {(op.namespace, op.key): op for op in ops}
    memory = InMemoryStore(index=index)
    for op in final.values():
        memory.batch([op])
    ranked = [
        item
        for item in memory.search(prefix, query=query, filter=filter, limit=1_000)
        if item.score is not None
    ]
    with ours(index=index) as store:
        for op in ops:
            store.batch([op])
        found = store.search(prefix, query=query, filter=filter, limit=limit, offset=offset)
        whole = store.search(prefix, query=query, filter=filter, limit=1_000)
    scores = {(item.namespace, item.key): item.score for item in ranked}
    assert {(item.namespace, item.key) for item in whole} == set(scores)
    for item in whole:
        assert item.score == pytest.approx(scores[item.namespace, item.key], abs=1e-5)
    # Ties may stand in any order, so the scores of the page tell.
    expected = [item.score for item in ranked][offset : offset + limit]
    assert [item.score for item in found] == pytest.approx(expected, abs=1e-5)
    assert found == whole[offset : offset + limit]


@pytest.fixture
def peer_on_postgres() -> Iterator[str]:
    """A schema of its own on the shared server, for LangGraph's PostgreSQL store."""
    schema = f"langgraph_{new_name()}"
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS vector"))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        yield schema
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def test_the_postgresql_store_answers_alike(peer_on_postgres: str, seed: int) -> None:
    chance = random.Random(seed)
    embedder = WordsEmbedder()
    index: Any = {"dims": DIMENSION, "embed": lambda texts: embedder(texts).tolist()}
    index["fields"] = ["title", "parts[*]"]
    shown: list[Op] = [
        SearchOp((), None, 1_000),
        SearchOp(("a",), {"n": 1}, 1_000),
        SearchOp((), {"n": {"$ne": 1}}, 1_000),
        SearchOp((), {"title": {"$gte": "m"}}, 1_000),
        SearchOp((), {"n": {"$eq": 2}, "title": {"$ne": "x"}}, 1_000),
        SearchOp((), {"parts": ["part red"]}, 1_000),
        SearchOp((), {"flag": True}, 1_000),
        ListNamespacesOp((MatchCondition("prefix", ("*", "b")),), None, 1_000),
        ListNamespacesOp((MatchCondition("suffix", ("a",)),), 1, 1_000),
    ]
    with (
        ours(index=index) as store,
        psycopg.connect(
            server_url(), autocommit=True, prepare_threshold=0, row_factory=dict_row
        ) as connection,
    ):
        connection.execute(
            sql.SQL("SET search_path TO {}, public").format(sql.Identifier(peer_on_postgres))
        )
        peer = PostgresStore(connection, index=index)
        peer.setup()
        for _round in range(12):
            ops: list[Op] = []
            for _op in range(3):
                namespace = tuple(chance.choices("ab", k=chance.randint(1, 2)))
                key = chance.choice(_KEYS)
                title = " ".join(chance.choices(_WORDS, k=2))
                value = {"n": chance.randint(0, 2), "title": title, "flag": chance.random() < 0.5}
                if chance.random() < 0.5:
                    value["parts"] = [f"part {word}" for word in chance.sample(_WORDS, 2)]
                    value["parts"] = value["parts"][: chance.randint(1, 2)]
                ops.append(PutOp(namespace, key, value if chance.random() < 0.8 else None))
                ops.append(GetOp(namespace, key))
            for batch in (ops, shown):
                answers = [plain(each) for each in store.batch(batch)]
                assert answers == [plain(each) for each in peer.batch(batch)]
            for query in _WORDS[:2]:
                found = {
                    (item.namespace, item.key): item
                    for item in store.search((), query=query, limit=100)
                }
                theirs = {
                    (item.namespace, item.key): item
                    for item in peer.search((), query=query, limit=100)
                }
                assert set(found) == set(theirs)
                for place, item in found.items():
                    if item.created_at == item.updated_at:
                        score = theirs[place].score
                    else:  # theirs may have kept a part that the item has lost
                        score = min(item.score or 0, theirs[place].score or 0)
                    assert item.score == pytest.approx(score, abs=1e-4)
