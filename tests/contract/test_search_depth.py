"""Lists of candidates that are read only as deep as they must be, held against whole ones."""

from __future__ import annotations

import gc
import itertools
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import agentmem
from agentmem.search.planner import Plan
from tests.contract.conftest import ManualClock, StoreMaker

WORDS = [f"{first}{last}" for first in ("ba", "ke", "li", "mo", "su") for last in "bdgklmnr"]
WEIGHT = 0.7  # of words, for an embedder that does not say
MODES = ("text", "vector", "hybrid")


class Anywhere:
    """Vectors that have nothing to do with the words, so that the two lists differ."""

    identity = "tests/anywhere"

    def __call__(self, texts: list[str]) -> Any:
        seeds = (zlib.crc32(text.encode()) for text in texts)
        return np.array([np.random.default_rng(seed).normal(size=6) for seed in seeds], np.float32)


def text_of(rng: random.Random) -> str:
    """Some words are frequent, most are rare."""
    return " ".join(WORDS[min(int(rng.expovariate(0.12)), 39)] for _ in range(rng.randint(2, 9)))


def expected(view: Any, query: str, namespace: str | None) -> list[tuple[Any, float]]:
    """What a hybrid search must find: everything that has anything to do with it."""
    lists: dict[str, dict[Any, float]] = {}
    for mode in ("text", "vector"):
        hits = view.search(query, mode=mode, k=1_000, namespace=namespace, track=False)
        lists[mode] = {(hit.entry.namespace, hit.entry.key): hit.score for hit in hits}
    words, near = lists["text"], lists["vector"]
    best = max(words.values(), default=1.0)
    scores = {
        place: WEIGHT * (words.get(place, 0.0) / best) + (1 - WEIGHT) * max(0.0, near[place])
        for place in near
    }
    useful = [place for place in near if place in words or near[place] > 0]
    found = [(place, scores[place]) for place in useful]
    return sorted(found, key=lambda each: (-each[1], each[0]))


def check(view: Any, rng: random.Random) -> None:
    for namespace in (None, "team"):
        query = text_of(rng)
        whole = expected(view, query, namespace)
        everything = {
            mode: view.search(query, mode=mode, k=1_000, namespace=namespace, track=False)
            for mode in MODES
        }
        hits = everything["hybrid"]
        assert [((hit.entry.namespace, hit.entry.key), hit.score) for hit in hits] == whole
        for mode, (k, offset) in itertools.product(MODES, ((1, 0), (4, 0), (12, 5))):
            some = view.search(
                query, mode=mode, k=k, offset=offset, namespace=namespace, track=False
            )
            wanted = everything[mode][offset : offset + k]
            assert [(hit.entry, hit.score) for hit in some] == [
                (hit.entry, hit.score) for hit in wanted
            ]


@pytest.fixture
def store(make_store: StoreMaker, seed: int) -> Iterator[agentmem.Store]:
    """300 texts in two namespaces."""
    store = make_store(embedder=Anywhere(), blind_writes="allow")
    rng = random.Random(seed)
    for start in range(0, 300, 60):
        with store.transaction() as tx:
            for number in range(start, start + 60):
                label = "team" if number % 3 else "other"
                tx.put(f"k{number}", text_of(rng), namespace=label)
    yield store
    store.close()


def test_a_few_are_the_first_of_all_at_every_revision(
    store: agentmem.Store, make_store: StoreMaker, seed: int
) -> None:
    rng = random.Random(seed)
    late = make_store(embedder=Anywhere())  # has nothing in memory of what was before
    views = [store.snapshot()]
    for _round in range(4):
        with store.transaction() as tx:
            for number in rng.sample(range(300), 30):
                label = "team" if number % 3 else "other"
                if rng.random() < 0.3:
                    tx.delete(f"k{number}", namespace=label)
                else:
                    tx.put(f"k{number}", text_of(rng), namespace=label)
        views.append(store.snapshot())
        for view in (store, *views):
            check(view, rng)
    for view in views:
        check(late.snapshot(at=view.revision), rng)


def test_a_few_are_the_first_of_all_with_own_writes(store: agentmem.Store, seed: int) -> None:
    rng = random.Random(seed)
    with store.transaction() as tx:
        for number in range(0, 40, 2):
            tx.put(f"k{number}", text_of(rng), namespace="team")
            tx.delete(f"k{number + 1}", namespace="team")
        store.put("k50", text_of(rng), namespace="team")
        for _round in range(4):
            check(tx, rng)
        tx.rollback()


def test_what_was_all_rewritten_is_read_as_deep_as_it_must_be(
    make_store: StoreMaker, seed: int
) -> None:
    rng = random.Random(seed)
    store = make_store(embedder=Anywhere(), blind_writes="allow")
    keys = [f"k{number}" for number in range(150)]
    store.put_many({key: text_of(rng) for key in keys})
    old = store.snapshot()
    store.put_many(dict.fromkeys(keys, "nothing"))
    for _round in range(60):
        query = text_of(rng)
        hits = old.search(query, k=2)
        found = [((hit.entry.namespace, hit.entry.key), hit.score) for hit in hits]
        assert found == expected(old, query, None)[:2]


def test_what_has_expired_is_no_end_of_a_list(make_store: StoreMaker, clock: ManualClock) -> None:
    store = make_store(embedder=None, blind_writes="allow")
    for number in range(40):
        ttl_s = 10 if number < 12 else None
        store.put(f"k{number:02}", number, vector=[1, number / 10], ttl_s=ttl_s)
    clock.advance(60)
    old = store.snapshot()
    for number in range(0, 40, 2):
        store.put(f"k{number:02}", number, vector=[-1, 0])
    for k in (1, 3, 20, 28, 40):
        found = [hit.entry.value for hit in old.search([1, 0], k=k)]
        assert found == list(range(12, 40))[:k]


def test_a_search_leaves_nothing_behind_that_only_the_collector_finds(
    store: agentmem.Store, seed: int
) -> None:
    """It would hold an index open that a purge has to delete."""
    rng = random.Random(seed)
    old = store.snapshot()
    store.put("k1", "nothing", namespace="team")
    gc.collect()
    gc.disable()
    try:
        for mode, namespace in itertools.product(MODES, (None, "team")):
            for view in (store, old):
                view.search(text_of(rng), mode=mode, namespace=namespace, where={"n": 1})
        assert [each for each in gc.get_objects() if isinstance(each, Plan)] == []
    finally:
        gc.enable()


def test_no_text_of_the_index_is_taken_apart_again(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    asked: list[int] = []
    engine = store._core.engine
    hits = engine.text_hits

    def counted(words: Any, within: Any, revision: int, limit: int, also: Any = ()) -> Any:
        asked.append(len(also))
        return hits(words, within, revision, limit, also)

    def refused(*_arguments: Any) -> Any:
        raise AssertionError("a text was taken apart")

    monkeypatch.setattr(engine, "text_hits", counted)
    monkeypatch.setattr(engine, "text_scores", refused)
    old = store.snapshot()
    for _round in range(3):
        store.put("k1", text_of(rng), namespace="team")
        store.search(text_of(rng), k=5)
    assert len(asked) <= 6
    assert all(asked)
    aside: list[int] = []
    added = _noted(engine, aside)
    monkeypatch.setattr(engine, "texts_aside", added)
    for _round in range(3):
        old.search(text_of(rng), k=5)
        store.put("k2", text_of(rng), namespace="team")
    # k1 and k2, as they were then, once each.
    assert sum(aside) == 2


def _noted(engine: Any, aside: list[int]) -> Callable[[], Any]:
    make = engine.texts_aside

    def made() -> Any:
        texts = make()

        class Noted:
            def add(self, new: Any) -> None:
                aside.append(len(new))
                texts.add(new)

            def best(self, *arguments: Any) -> Any:
                return texts.best(*arguments)

        return Noted()

    return made
