"""A first look with eight bits a number: how far off it is, and that nothing is lost by it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import agentmem
from agentmem.search import exact, live, quantized
from agentmem.search.vectors import direction, directions, similarities

pytestmark = pytest.mark.skipif(not quantized.is_usable(), reason="without the extra fast")

Floats = NDArray[np.float32]
KINDS = ("normal", "sparse", "one", "equal", "outliers", "tiny", "zero")


def rows_of(kind: str, count: int, dimension: int, seed: int) -> Floats:
    """Vectors that are hard to keep in eight bits, each kind in another way."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, dimension))
    if kind == "sparse":
        found *= rng.random(size=found.shape) < 0.05
    elif kind == "one":
        found[:] = 0
        found[np.arange(count), rng.integers(dimension, size=count)] = 1
    elif kind == "equal":
        found[:] = rng.choice([-1, 1], size=found.shape)
    elif kind == "outliers":
        found[:, rng.integers(dimension)] *= 1_000
    elif kind == "tiny":
        found *= 1e-38
    elif kind == "zero":
        found[:] = 0
    return found.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(KINDS),
    st.sampled_from([1, 2, 3, 31, 64, 384, 1_536]),
    st.integers(0, 2**32 - 1),
)
@example("outliers", "outliers", 1_536, 0)
def test_no_similarity_is_further_off_than_it_says(
    kind: str, asked: str, dimension: int, seed: int
) -> None:
    rows = directions(rows_of(kind, 20, dimension, seed))
    query = direction(rows_of(asked, 1, dimension, seed + 1)[0])
    codes, steps, loss = quantized.quantize(rows)
    numbers, step, lost = quantized.quantize_one(query)
    about = quantized.dots(codes, numbers) * steps * step
    off = np.abs(about - rows.astype(np.float64) @ query.astype(np.float64)).max()
    assert off <= quantized.error(loss, lost)
    # One that said too much would let everything through.
    assert quantized.error(loss, lost) <= 0.6 * dimension**0.5 / 127 * 2 + 1e-4


@pytest.fixture
def only_glances(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Refuses a look at all float32 numbers; notes how many rows every glance was at."""
    looked: list[int] = []
    glance = live.Rows.glance

    def noted(rows: live.Rows, query: Any) -> Any:
        looked.append(len(rows))
        return glance(rows, query)

    def refused(_rows: live.Rows, _query: Any) -> Any:
        raise AssertionError("all rows were looked at")

    monkeypatch.setattr(live.Rows, "glance", noted)
    monkeypatch.setattr(live.Rows, "near", refused)
    return looked


def nearest(vectors: dict[str, Floats], query: Floats, k: int) -> list[tuple[str, float]]:
    """What a search must find, in order."""
    found = similarities(directions(np.stack(list(vectors.values()))), direction(query)).tolist()
    return sorted(zip(vectors, found, strict=True), key=lambda each: (-each[1], each[0]))[:k]


def test_what_is_found_at_a_glance_is_what_is_there_at_every_revision(
    tmp_path: Path, only_glances: list[int]
) -> None:
    rng = np.random.default_rng(5)
    count = 3_000
    centres = rng.normal(size=(30, 96))
    made = (centres[rng.integers(30, size=count)] + rng.normal(size=(count, 96))).astype(np.float32)
    made[100:120] = made[100]  # equally near, so the keys decide
    queries = [made[100], made[7], *rng.normal(size=(6, 96)).astype(np.float32)]
    vectors: dict[str, Floats] = {}
    states: list[tuple[agentmem.Snapshot, dict[str, Floats]]] = []

    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:

        def named(key: str) -> str:
            return f"{'a' if int(key[1:]) % 3 else 'b'}/{key}"

        def check(view: Any, there: dict[str, Floats], namespace: str | None = None) -> None:
            for query in queries:
                for k, offset in ((1, 0), (10, 0), (5, 4)):
                    hits = view.search(query, k=k, offset=offset, namespace=namespace)
                    found = [(named(hit.entry.key), hit.score) for hit in hits]
                    assert found == nearest(there, query, k + offset)[offset:]

        for start in range(0, count, 500):
            with store.transaction() as tx:
                for number in range(start, start + 500):
                    key = f"k{number:04}"
                    tx.put(key, number, vector=made[number], namespace="a" if number % 3 else "b")
                    vectors[named(key)] = made[number]
            states.append((store.snapshot(), dict(vectors)))
            if start >= 1_000:
                check(store, vectors)
        # Rows are replaced and dropped, and blocks come to those that are there.
        with store.transaction() as tx:
            for number in range(0, count, 40):
                key, namespace = f"k{number:04}", "a" if number % 3 else "b"
                if number % 80:
                    tx.delete(key, namespace=namespace)
                    del vectors[named(key)]
                else:
                    vectors[named(key)] = -made[number]
                    tx.put(key, 0, vector=-made[number], namespace=namespace)
        check(store, vectors)
        for snap, there in states[2:]:
            check(snap, there)
        inside = {name: each for name, each in vectors.items() if name.startswith("a/")}
        check(store, inside, namespace="a")
    assert len(set(only_glances)) >= 5
    assert min(only_glances) >= 1_024


def test_where_all_are_about_as_near_all_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    made = (np.ones(32) + rng.normal(size=(1_200, 32)) * 1e-3).astype(np.float32)
    vectors = {f"k{number:04}": each for number, each in enumerate(made)}
    looked: list[int] = []
    near = live.Rows.near
    monkeypatch.setattr(
        live.Rows, "near", lambda rows, query: looked.append(len(rows)) or near(rows, query)
    )
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        with store.transaction() as tx:
            for key, vector in vectors.items():
                tx.put(key, 0, vector=vector)
        for query in made[:5]:
            hits = store.search(query, k=10)
            assert [(hit.entry.key, hit.score) for hit in hits] == nearest(vectors, query, 10)
    assert looked == [1_200] * 5


def test_many_that_remain_are_sorted_out_by_32_bits(
    tmp_path: Path, only_glances: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_FEW", 0)
    rng = np.random.default_rng(7)
    made = rng.normal(size=(1_500, 64)).astype(np.float32)
    made[10:14] = made[10]
    vectors = {f"k{number:04}": each for number, each in enumerate(made)}
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        with store.transaction() as tx:
            for key, vector in vectors.items():
                tx.put(key, 0, vector=vector)
        for query in (made[10], made[0], rng.normal(size=64).astype(np.float32)):
            for k in (2, 4, 10, 60):
                hits = store.search(query, k=k)
                assert [(hit.entry.key, hit.score) for hit in hits] == nearest(vectors, query, k)
    assert len(only_glances) == 12


def test_those_between_which_eight_bits_cannot_tell_are_looked_at_again(
    tmp_path: Path, only_glances: list[int]
) -> None:
    # In three dimensions the nearest of so many lie closer to each other than what is lost.
    rng = np.random.default_rng(9)
    made = rng.normal(size=(4_000, 3)).astype(np.float32)
    vectors = {f"k{number:04}": each for number, each in enumerate(made)}
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        with store.transaction() as tx:
            for key, vector in vectors.items():
                tx.put(key, 0, vector=vector)
        for query in rng.normal(size=(40, 3)).astype(np.float32):
            hits = store.search(query, k=5)
            assert [(hit.entry.key, hit.score) for hit in hits] == nearest(vectors, query, 5)
    assert len(only_glances) == 40


def test_rows_that_were_replaced_are_dropped_with_their_eight_bits(
    tmp_path: Path, only_glances: list[int]
) -> None:
    rng = np.random.default_rng(10)
    made = rng.normal(size=(6_000, 24)).astype(np.float32)
    vectors: dict[str, Floats] = {}
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        for start in range(0, 6_000, 1_500):
            with store.transaction() as tx:
                for number in range(start, start + 1_500):
                    key = f"k{number % 2_000:04}"
                    vectors[key] = made[number]
                    tx.put(key, 0, vector=made[number])
            for query in made[:10]:
                hits = store.search(query, k=3)
                assert [(hit.entry.key, hit.score) for hit in hits] == nearest(vectors, query, 3)
        held = store._core.searcher.finder().nbytes
    assert held < 4_500 * 24 * 5  # of 6,000 that there were
    assert only_glances


def test_a_product_that_is_wrong_on_this_processor_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import simsimd

    right = simsimd.cdist

    def wrong(query: Any, rows: Any, **how: Any) -> Any:
        found = np.array(right(query, rows, **how))
        found[0, -1] += 1
        return found

    quantized.is_usable.cache_clear()
    try:
        monkeypatch.setattr(simsimd, "cdist", wrong)
        with caplog.at_level(logging.WARNING, "agentmem"):
            assert not quantized.is_usable()
        assert "simsimd computes wrong products" in caplog.text
    finally:
        quantized.is_usable.cache_clear()


def test_it_is_found_while_another_thread_is_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import simsimd

    # As it is between the run of its code and the end of its import.
    monkeypatch.setattr(simsimd, "__spec__", None)
    quantized.is_usable.cache_clear()
    try:
        assert quantized.is_usable()
    finally:
        quantized.is_usable.cache_clear()


def test_without_simsimd_the_float32_numbers_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    made = rng.normal(size=(1_100, 16)).astype(np.float32)
    vectors = {f"k{number:04}": each for number, each in enumerate(made)}
    monkeypatch.setattr(quantized, "is_usable", lambda: False)
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        with store.transaction() as tx:
            for key, vector in vectors.items():
                tx.put(key, 0, vector=vector)
        found = store.search(made[3], k=10)
        assert [(hit.entry.key, hit.score) for hit in found] == nearest(vectors, made[3], 10)
        with_floats = store._core.searcher.finder().nbytes
    monkeypatch.undo()
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        assert store.search(made[3], k=10) == found
        assert store._core.searcher.finder().nbytes - with_floats == 1_100 * 16
