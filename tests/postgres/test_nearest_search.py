"""Searches by way of an index of pgvector: the same answers as by looking at every vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import agentmem
from agentmem.engines.postgres.engine import PostgresEngine
from agentmem.search import indexer
from agentmem.testing.indexes import DIMENSION, vector_of
from tests.postgres_server import store_url
from tests.search.test_indexes import assert_right, fill

COUNT = 300


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers came from the index; it is used for more than 50 vectors."""
    found: list[int] = []
    nearest = PostgresEngine.nearest

    def counted(*arguments: Any) -> Any:
        answer = nearest(*arguments)
        found.append(answer is not None)
        return answer

    monkeypatch.setattr(PostgresEngine, "nearest", counted)
    monkeypatch.setattr(indexer, "_SMALL", 50)
    return found


def test_an_index_answers_for_the_present_and_the_past(
    new_store: Callable[[], str], asked: list[int], seed: int
) -> None:
    options: dict[str, Any] = {"embedder": None, "durability": "relaxed"}
    with agentmem.open(store_url(new_store()), **options) as store:
        fill(store, range(COUNT))
        assert_right(store, seed)
        assert not any(asked)
        before = store.snapshot()
        store.admin.index()
        asked.clear()
        assert_right(store, seed)
        assert asked
        assert all(asked)
        fill(store, range(100, 130))
        for number in range(40):
            store.delete(f"k{number:05}", overwrite=True)
        fill(store, range(COUNT, COUNT + 30))
        for view in (store, store.snapshot(), before):
            assert_right(view, seed)
        assert all(asked)
        with store.transaction() as tx:
            tx.put("mine", {"n": 9_999}, vector=vector_of(9_999))
            assert tx.search(vector_of(9_999), k=1, track=False)[0].entry.key == "mine"
            assert_right(tx, seed)
        query = np.ones(DIMENSION, dtype=np.float32)
        rare = store.search(query, where={"n": 7}, k=3)
        assert rare == []
        assert [hit.entry.key for hit in store.search(query, where={"n": 77})] == ["k00077"]
        assert store.admin.verify().problems == []


def test_vectors_without_a_direction_are_nearer_than_those_that_point_elsewhere(
    new_store: Callable[[], str], asked: list[int]
) -> None:
    with agentmem.open(store_url(new_store()), embedder=None) as store:
        with store.transaction() as tx:
            for number in range(100):
                tx.put(f"away{number:02}", number, vector=[-1.0, number / 100])
            tx.put("nowhere", 0, vector=[0, 0])
        store.admin.index()
        assert [hit.entry.key for hit in store.search([1.0, 0], k=2)] == ["nowhere", "away99"]
        assert any(asked)


def test_index_exact_looks_at_every_vector(
    new_store: Callable[[], str], asked: list[int], seed: int
) -> None:
    with agentmem.open(store_url(new_store()), embedder=None, index="exact") as store:
        fill(store, range(100))
        store.admin.index()
        assert_right(store, seed)
    assert asked == []
