"""Searching: what is found, in which order, at which revision, by whom."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

import agentmem
from agentmem.errors import EmbedderError, InvalidValueError, LimitExceededError
from tests.contract.conftest import Backend, ManualClock, StoreMaker
from tests.embedders import DIMENSION, FailingEmbedder, WordsEmbedder, cosine

WORDS = [
    "budget", "lisbon", "flight", "hotel", "museum", "seats", "train", "dinner", "garden", "river",
    "market", "bridge",
]  # fmt: skip


@pytest.fixture
def embedder() -> WordsEmbedder:
    return WordsEmbedder()


@pytest.fixture
def store(make_store: StoreMaker, embedder: WordsEmbedder) -> agentmem.Store:
    return make_store(embedder=embedder)


def keys(hits: list[agentmem.Hit]) -> list[str]:
    return [hit.entry.key for hit in hits]


def nearest(
    view: Any, embedder: WordsEmbedder, query: str, *, namespace: object = None
) -> list[tuple[str, float]]:
    """Key and cosine of every entry that a view sees, nearest first: every one is looked at."""
    towards = embedder.vector(query)
    found = [
        (entry, cosine(embedder.vector(entry.text), towards))
        for entry in view.list(namespace, track=False)
        if entry.text is not None
    ]
    ordered = sorted(found, key=lambda each: (-each[1], each[0].namespace, each[0].key))
    return [(entry.key, similar) for entry, similar in ordered]


def assert_nearest(
    view: Any, embedder: WordsEmbedder, query: str, *, k: int = 10, namespace: object = None
) -> None:
    hits = view.search(query, mode="vector", k=k, namespace=namespace)
    expected = nearest(view, embedder, query, namespace=namespace)[:k]
    assert keys(hits) == [key for key, _similar in expected]
    assert [hit.score for hit in hits] == pytest.approx([each for _key, each in expected], abs=1e-6)
    assert [hit.vector_rank for hit in hits] == list(range(1, len(hits) + 1))
    assert [hit.distance for hit in hits] == pytest.approx([1 - hit.score for hit in hits])


def fill(store: agentmem.Store, seed: int, count: int = 40) -> Iterator[int]:
    """Writes, rewrites and deletes; yields each revision."""
    rng = random.Random(seed)
    for step in range(count):
        key = f"k{rng.randrange(count // 2)}"
        if rng.random() < 0.2:
            store.delete(key, overwrite=True)
        else:
            text = " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))
            namespace = rng.choice(["", "team", "team/a", "other"]) or None
            store.put(f"{key}-{step % 3}", text, namespace=namespace, overwrite=True)
        yield store.revision


# Words.


def test_words_are_found_by_their_stems(store: agentmem.Store) -> None:
    store.put("a", "two flights to Lisbon")
    store.put("b", "a quiet garden")
    assert keys(store.search("flight", mode="text")) == ["a"]
    assert keys(store.search("GARDENS?", mode="text")) == ["b"]
    assert store.search("nowhere", mode="text") == []


def test_what_search_sees_is_the_text_or_the_strings_of_the_value(store: agentmem.Store) -> None:
    store.put("value", {"title": "budget", "tags": ["lisbon"], "days": 3})
    store.put("text", {"title": "budget"}, text="museum")
    store.put("hidden", "budget", text=False)
    store.put("number", 5)
    assert keys(store.search("budget", mode="text")) == ["value"]
    assert keys(store.search("lisbon", mode="text")) == ["value"]
    assert keys(store.search("museum", mode="text")) == ["text"]


def test_what_is_hidden_stays_hidden_when_it_is_changed(
    store: agentmem.Store, embedder: WordsEmbedder
) -> None:
    store.put("hidden", "secret", text=False)
    store.update("hidden", lambda value: value + " budget")
    store.put("list", ["secret"], text=False)
    store.append("list", "budget")
    assert embedder.texts == []
    for mode in ("text", "vector", "hybrid"):
        assert store.search("secret budget", mode=mode) == []
    assert store.admin.verify().problems == []


def test_question_words_count_only_if_nothing_else_is_there(store: agentmem.Store) -> None:
    store.put("a", "what is it about")
    store.put("b", "the budget")
    assert keys(store.search("what is the budget?", mode="text")) == ["b"]
    assert keys(store.search("what about?", mode="text")) == ["a"]


@pytest.mark.parametrize(
    "query",
    [
        '"', "'", '""', "*", "a AND", "NEAR(a b)", "a OR OR b", "-", "^", "(", ")", ":", "text:a",
        "{", "}", "budget*", "bud\"get", "a' OR '1'='1", "; DROP TABLE entries", "\\", "%", "_",
        "🎉", "日本語", "हिन्दी", "\ud7ff", "\u0301", "&", "!", "|", "<->", "a:*", "", "   ", "\n\t",
        "x" * 5_000, " ".join(f"w{i}" for i in range(10_000)), "\u200b", "\x01",
    ],
)  # fmt: skip
def test_no_query_is_an_error(make_store: StoreMaker, query: str) -> None:
    store = make_store(embedder=None)
    store.put("a", "budget of the trip")
    hits = store.search(query)
    assert set(keys(hits)) <= {"a"}


def test_half_a_character_in_a_query_reaches_no_embedder(
    store: agentmem.Store, embedder: WordsEmbedder
) -> None:
    store.put("a", "budget")
    assert keys(store.search("budget \udcff")) == ["a"]
    assert embedder.texts[-1].isprintable()
    assert keys(store.search("\ud800", mode="vector")) == ["a"]


@pytest.mark.parametrize(
    "text", ['say "hello" OR bye', "日本語の本", "🎉 party", "it's 100%", "a-b_c"]
)
def test_text_of_any_characters_is_found_by_its_own_words(
    make_store: StoreMaker, text: str
) -> None:
    store = make_store(embedder=None)
    store.put("a", text)
    store.put("b", "nothing like it")
    assert keys(store.search(text, mode="text")) == ["a"]


def test_scripts_without_spaces_are_found_within_their_runs(make_store: StoreMaker) -> None:
    store = make_store(embedder=None)
    store.put("a", "明日は東京へ行きます")
    store.put("b", "京都の東")
    assert keys(store.search("東京", mode="text")) == ["a"]


def test_a_hot_key_changes_no_other_rank(make_store: StoreMaker, backend: Backend) -> None:
    store = make_store(embedder=None)
    times = 1_000 if backend.name == "sqlite" else 60
    for index in range(30):
        store.put(f"k{index:02}", " ".join(WORDS[index % 5 : index % 5 + 1 + index % 4]))
    store.put("hot", "budget lisbon flight")
    before = [(hit.entry.key, hit.score) for hit in store.search("budget lisbon seats", k=40)]
    for index in range(times):
        store.put("hot", f"budget lisbon flight {index}")
    store.put("hot", "budget lisbon flight")
    after = [(hit.entry.key, hit.score) for hit in store.search("budget lisbon seats", k=40)]
    assert after == before


# Vectors.


def test_the_nearest_are_found_in_order(
    store: agentmem.Store, embedder: WordsEmbedder, seed: int
) -> None:
    for _revision in fill(store, seed):
        pass
    for query in ("budget lisbon", "museum", "unheard of"):
        assert_nearest(store, embedder, query)
        assert_nearest(store, embedder, query, namespace="team")
        assert_nearest(store, embedder, query, k=1)


def test_every_snapshot_finds_what_was_there(
    store: agentmem.Store, embedder: WordsEmbedder, seed: int
) -> None:
    store.put("first", "budget")
    revisions = [store.revision, *fill(store, seed)]
    for revision in sorted({*revisions[::5], revisions[-1]}):
        assert_nearest(store.snapshot(at=revision), embedder, "budget lisbon")
        assert_nearest(store.snapshot(at=revision), embedder, "hotel", namespace="team", k=3)


def test_words_find_in_a_snapshot_what_was_there(store: agentmem.Store, seed: int) -> None:
    revisions = [0, *fill(store, seed, 60)]
    for revision in revisions[::6]:
        snap = store.snapshot(at=revision)
        for word in WORDS[:4]:
            expected = {entry.key for entry in snap.list() if word in entry.value.split()}
            hits = snap.search(word, mode="text", k=100)
            assert set(keys(hits)) == expected
            assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)


def test_another_process_finds_the_same(
    make_store: StoreMaker, store: agentmem.Store, embedder: WordsEmbedder, seed: int
) -> None:
    other = make_store(embedder=WordsEmbedder())
    for revision in fill(store, seed, 30):
        if revision % 4 == 0:
            assert_nearest(other, embedder, "budget lisbon")
            mine, theirs = (each.search("budget lisbon train") for each in (store, other))
            assert [(hit.entry.key, hit.score) for hit in mine] == [
                (hit.entry.key, hit.score) for hit in theirs
            ]


def test_equal_vectors_come_in_order_of_namespace_and_key(store: agentmem.Store) -> None:
    for namespace in ("b", "a", None):
        for key in ("z", "y", "x"):
            store.put(key, "the same words", namespace=namespace)
    hits = store.search("same words", mode="vector")
    places = [(hit.entry.namespace, hit.entry.key) for hit in hits]
    assert places == sorted(places)
    assert len({hit.score for hit in hits}) == 1


def test_a_vector_of_the_callers_own_needs_no_embedder(make_store: StoreMaker) -> None:
    store = make_store(embedder=None)
    store.put("east", {"n": 1}, vector=[1, 0, 0])
    store.put("north", {"n": 2}, vector=np.array([0, 1, 0], dtype=np.float32))
    store.put("both", {"n": 3}, vector=(0.5, 0.5, 0))
    assert keys(store.search([1, 0.1, 0], k=2)) == ["east", "both"]
    assert store.search([0, 0, 1], k=1)[0].distance == pytest.approx(1.0)
    again = make_store(embedder=None)
    assert keys(again.search([0, 1, 0], k=1)) == ["north"]


def test_a_query_without_direction_is_no_nearer_to_any(make_store: StoreMaker) -> None:
    store = make_store(embedder=None)
    store.put("a", 1, vector=[1, 0])
    store.put("zero", 2, vector=[0, 0])
    assert [hit.score for hit in store.search([0, 0])] == [0.0, 0.0]


# Hybrid.


def test_hybrid_ranks_by_words_and_meaning_together(
    store: agentmem.Store, embedder: WordsEmbedder, seed: int
) -> None:
    for _revision in fill(store, seed):
        pass
    query = "budget lisbon dinner"

    def by_place(mode: str) -> dict[Any, agentmem.Hit]:
        hits = store.search(query, mode=mode, k=1_000)
        return {(hit.entry.namespace, hit.entry.key): hit for hit in hits}

    words, near = by_place("text"), by_place("vector")
    best = max(hit.score for hit in words.values())
    expected = {
        place: 0.7 * (words[place].score / best if place in words else 0) + 0.3 * max(0, hit.score)
        for place, hit in near.items()
    }
    ordered = sorted(expected, key=lambda place: (-round(expected[place], 9), place))[:8]
    hits = {(hit.entry.namespace, hit.entry.key): hit for hit in store.search(query, k=8)}
    assert list(hits) == ordered
    for place, hit in hits.items():
        assert hit.score == pytest.approx(expected[place])
        rank = words[place].text_rank if place in words else None
        assert hit.text_rank == (rank if (rank or 9) <= 8 else None)
        rank = near[place].vector_rank
        assert hit.vector_rank == (rank if (rank or 9) <= 8 else None)


def test_ranks_are_those_among_all_that_pass_the_filter(store: agentmem.Store, seed: int) -> None:
    rng = random.Random(seed)
    with store.transaction() as tx:
        for number in range(80):
            text = " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))
            tx.put(f"k{number}", {"text": text, "n": number % 5})
    for _round in range(100):
        query, where = " ".join(rng.sample(WORDS, 2)), {"n": rng.randrange(5)}
        everything = store.search(query, where=where, k=1_000)
        for hit, full in zip(store.search(query, where=where, k=2), everything, strict=False):
            assert hit.entry == full.entry
            ranks = [
                rank if (rank or 9) <= 2 else None for rank in (full.text_rank, full.vector_rank)
            ]
            assert [hit.text_rank, hit.vector_rank] == ranks


def test_without_an_embedder_hybrid_is_words(make_store: StoreMaker) -> None:
    store = make_store(embedder=None)
    store.put("a", "budget budget lisbon")
    store.put("b", "budget")
    store.put("c", "river")
    assert keys(store.search("budget lisbon")) == keys(store.search("budget lisbon", mode="text"))
    assert store.search("budget lisbon")[0].score == 1.0


# Pages, filters, age.


def test_pages_follow_each_other(store: agentmem.Store, seed: int) -> None:
    for _revision in fill(store, seed):
        pass
    for mode in ("hybrid", "text", "vector"):
        whole = store.search("budget lisbon", k=12, mode=mode)
        pages = [
            hit
            for offset in range(0, 12, 4)
            for hit in store.search("budget lisbon", k=4, offset=offset, mode=mode)
        ]
        assert [hit.entry for hit in pages] == [hit.entry for hit in whole]


@pytest.mark.parametrize("mode", ["hybrid", "text", "vector"])
def test_a_selective_filter_is_complete(store: agentmem.Store, mode: str) -> None:
    store.put_many(
        {f"k{i:03}": {"text": "budget " * (1 + i % 3), "open": i % 67 == 0} for i in range(200)}
    )
    hits = store.search("budget", mode=mode, where={"open": True}, k=5)
    assert sorted(keys(hits)) == ["k000", "k067", "k134"]


def test_a_namespace_covers_those_below_it_and_no_other(store: agentmem.Store) -> None:
    for namespace in (None, "team", "team/a", "teammates", "x"):
        store.put("k", "budget", namespace=namespace)
    for mode in ("text", "vector", "hybrid"):
        found = store.search("budget", namespace="team", mode=mode)
        assert [hit.entry.namespace for hit in found] == [("team",), ("team", "a")]


def test_a_score_halves_with_each_half_life(
    store: agentmem.Store, clock: ManualClock, embedder: WordsEmbedder
) -> None:
    store.put("old", "budget of lisbon")
    clock.advance(200)
    store.put("new", "budget of lisbon and more words beside")
    plain = {hit.entry.key: hit.score for hit in store.search("budget lisbon")}
    assert keys(store.search("budget lisbon")) == ["old", "new"]
    hits = store.search("budget lisbon", half_life_s=100)
    assert keys(hits) == ["new", "old"]
    assert hits[0].score == pytest.approx(plain["new"])
    assert hits[1].score == pytest.approx(plain["old"] / 4)


def test_what_has_expired_is_not_found(store: agentmem.Store, clock: ManualClock) -> None:
    store.put("short", "budget", ttl_s=10)
    store.put("long", "budget", ttl_s=1_000)
    snap = store.snapshot()
    clock.advance(20)
    for mode in ("text", "vector", "hybrid"):
        assert keys(store.search("budget", mode=mode)) == ["long"]
        assert sorted(keys(snap.search("budget", mode=mode))) == ["long", "short"]


# Transactions.


def test_a_transaction_finds_what_it_has_written(store: agentmem.Store) -> None:
    store.put("kept", "budget of lisbon")
    store.put("changed", "budget")
    store.put("gone", "budget")
    with store.transaction() as tx:
        tx.put("changed", "river")
        tx.delete("gone")
        tx.put("new", "the budget")
        for mode in ("text", "vector", "hybrid"):
            found = set(keys(tx.search("budget", mode=mode, track=False, k=2)))
            assert found == {"kept", "new"}
        assert keys(tx.search("river", mode="text")) == ["changed"]
        assert tx.search("river", mode="text")[0].entry.pending
        assert set(keys(store.search("budget", mode="text"))) == {"kept", "changed", "gone"}
    assert set(keys(store.search("budget", mode="text"))) == {"kept", "new"}


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
def test_nothing_of_a_rolled_back_transaction_is_found(store: agentmem.Store, mode: str) -> None:
    store.put("a", "river")
    tx = store.transaction()
    tx.put("b", "budget")
    tx.search("budget", mode=mode)
    tx.rollback()
    assert "b" not in keys(store.search("budget", mode=mode))


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
def test_only_what_could_enter_the_answer_aborts(store: agentmem.Store, mode: str) -> None:
    for index in range(5):
        store.put(f"best{index}", "budget lisbon")
    tx = store.transaction()
    assert len(tx.search("budget lisbon", k=5, mode=mode)) == 5
    tx.put("answer", 42)
    for index in range(100):
        store.put(f"other{index}", "river and garden")
    tx.commit()

    tx = store.transaction()
    tx.search("budget lisbon", k=5, mode=mode)
    tx.put("answer", 43)
    store.put("abc", "budget lisbon")  # as good as those found, and before them
    with pytest.raises(agentmem.ConflictError, match="abc"):
        tx.commit()
    tx.rollback()


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
def test_a_change_to_what_was_found_aborts(store: agentmem.Store, mode: str) -> None:
    store.put("a", "budget")
    store.put("b", "lisbon")
    for change in (
        lambda: store.put("a", "budget lisbon", overwrite=True),
        lambda: store.delete("a", overwrite=True),
    ):
        tx = store.transaction()
        assert "a" in keys(tx.search("budget", mode=mode))
        tx.put("answer", 42)
        change()
        with pytest.raises(agentmem.ConflictError):
            tx.commit()
        tx.rollback()


class EvenEmbedder:
    """Words and meaning count the same; whatever is asked means the same."""

    identity = "even"
    text_weight = 0.5

    def __call__(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _text in texts]


def test_what_words_are_measured_by_need_not_be_among_what_was_found(
    make_store: StoreMaker,
) -> None:
    store = make_store(embedder=EvenEmbedder())
    for index in range(20):
        store.put(f"other{index}", "garden bridge market dinner", vector=[-1, 0])
    store.put("all", "lisbon museum hotel train", vector=[0, 1])
    store.put("half", "lisbon museum garden market", vector=[0.7, 0.714])
    store.put("near", "lisbon garden market dinner", vector=[-1, 0])
    tx = store.transaction()
    assert keys(tx.search("lisbon museum hotel train", k=1)) == ["half"]
    tx.put("answer", 1)
    # Against the words of "half" it is no match, against those of "all" both hold few.
    store.put("near", "lisbon garden market dinner", vector=[1, 0], overwrite=True)
    assert keys(store.search("lisbon museum hotel train", k=1)) == ["near"]
    with pytest.raises(agentmem.ConflictError, match="near"):
        tx.commit()
    tx.rollback()


def test_an_answer_that_is_not_full_can_be_entered_by_anything_found(store: agentmem.Store) -> None:
    store.put("a", "budget")
    tx = store.transaction()
    tx.search("budget", mode="text", k=5)
    tx.put("answer", 42)
    store.put("z", "the budget and very many other words " * 5)
    with pytest.raises(agentmem.ConflictError):
        tx.commit()
    tx.rollback()


def test_an_unchecked_search_aborts_nothing(store: agentmem.Store) -> None:
    tx = store.transaction()
    tx.search("budget", track=False)
    tx.put("answer", 42)
    store.put("z", "budget")
    tx.commit()


def test_snapshot_isolation_checks_no_search(store: agentmem.Store) -> None:
    tx = store.transaction(isolation="snapshot")
    tx.search("budget")
    tx.put("answer", 42)
    store.put("z", "budget")
    tx.commit()


def test_a_search_that_was_accepted_can_be_rebased(store: agentmem.Store) -> None:
    store.put("a", "budget")
    tx = store.transaction()
    tx.search("budget", mode="text", k=5)
    tx.put("answer", 42)
    store.put("z", "budget")
    items = tx.stale()
    assert [item.key for item in items] == ["z"]
    tx.rebase(items)
    tx.commit()


# Adding what is not there yet.


def test_of_similar_values_one_is_stored(store: agentmem.Store) -> None:
    first = store.add("budget of lisbon", similar=0.95)
    assert store.add("budget of lisbon", similar=0.95) == first
    assert store.add("river garden", similar=0.95).key != first.key
    with store.transaction() as tx:
        assert tx.add("budget of lisbon", similar=0.95) == first.key
        mine = tx.add("bridge museum", similar=0.95)
        assert tx.add("bridge museum", similar=0.95) == mine
    assert store.count() == 3


def test_similar_is_decided_at_the_commit(store: agentmem.Store) -> None:
    tx = store.transaction()
    tx.add("budget of lisbon", similar=0.95)
    store.add("budget of lisbon", similar=0.95)
    with pytest.raises(agentmem.ConflictError):
        tx.commit()
    tx.rollback()
    tx = store.transaction()
    tx.add("river garden", similar=0.95)
    store.add("budget of the hotel", similar=0.95)  # something else
    tx.commit()


def test_a_repeated_add_returns_the_first_answer(store: agentmem.Store) -> None:
    first = store.add("budget of lisbon", similar=0.9, op_id="one")
    store.delete(first.key, overwrite=True)
    assert store.add("budget of lisbon", similar=0.9, op_id="one").key == first.key
    assert store.count() == 0


# Embedders.


def test_texts_are_embedded_in_one_batch_and_before_the_commit(make_store: StoreMaker) -> None:
    calls: list[int] = []
    other = make_store(embedder=None)

    class Counting(WordsEmbedder):
        def __call__(self, texts: Any) -> Any:
            calls.append(len(texts))
            other.put("meanwhile", len(calls))  # nobody holds the lock
            return super().__call__(texts)

    store = make_store(embedder=Counting())
    with store.transaction() as tx:
        for word in WORDS:
            tx.put(word, f"{word} and more")
        tx.put("again", f"{WORDS[0]} and more")
    assert calls == [len(WORDS)]


def test_a_failing_embedder_fails_the_call_and_nothing_is_written(make_store: StoreMaker) -> None:
    embedder = FailingEmbedder()
    store = make_store(embedder=embedder)
    with pytest.raises(EmbedderError, match="the model is away") as raised:
        store.put("a", "budget")
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert store.revision == 0
    store.put("n", 5)  # has no text
    store.put("a", "budget", embed="deferred")
    assert keys(store.search("budget", mode="text")) == ["a"]
    embedder.failing = False
    assert store.search("budget", mode="vector") == []
    snap = store.snapshot()
    assert store.admin.index() == 1
    assert keys(store.search("budget", mode="vector")) == ["a"]
    assert snap.search("budget", mode="vector") == []
    assert keys(snap.search("budget")) == ["a"]
    assert store["a"] == "budget"
    assert store.get("a").version == 1  # type: ignore[union-attr]  # it is there


def test_a_late_vector_is_none_before_it_came(make_store: StoreMaker) -> None:
    store = make_store(embedder=WordsEmbedder())
    store.put("other", "river")
    store.put("late", "budget", embed="deferred")
    before = store.snapshot()
    store.admin.index()
    after = store.snapshot()
    store.put("late", "museum", overwrite=True)
    for reader in (store, make_store(embedder=WordsEmbedder())):
        old = reader.snapshot(at=before.revision)
        assert keys(old.search("budget", mode="vector")) == ["other"]
        hit = old.search("budget", k=1)[0]
        assert (hit.entry.key, hit.distance, hit.vector_rank) == ("late", None, None)
        hit = reader.snapshot(at=after.revision).search("budget", k=1)[0]
        assert (hit.entry.key, hit.distance) == ("late", pytest.approx(0, abs=1e-6))


def test_a_late_vector_can_enter_an_answer(make_store: StoreMaker) -> None:
    store = make_store(embedder=WordsEmbedder())
    store.put("a", "river")
    store.put("late", "budget", embed="deferred")
    tx = store.transaction()
    assert "late" not in keys(tx.search("budget", mode="vector"))
    tx.put("answer", 1)
    store.admin.index()
    with pytest.raises(agentmem.ConflictError, match="late"):
        tx.commit()
    tx.rollback()


def test_the_first_vector_may_be_a_late_one(make_store: StoreMaker) -> None:
    store = make_store(embedder=WordsEmbedder())
    store.put("late", "budget", embed="deferred")
    tx = store.transaction()
    assert tx.search("budget", mode="vector") == []
    tx.put("answer", 1)
    store.admin.index()
    with pytest.raises(agentmem.ConflictError, match="late"):
        tx.commit()
    tx.rollback()


def test_the_first_vector_can_enter_where_only_words_count(make_store: StoreMaker) -> None:
    embedder = EvenEmbedder()
    embedder.text_weight = 1.0
    store = make_store(embedder=embedder)
    tx = store.transaction()
    assert tx.search("budget") == []
    tx.put("answer", 1)
    store.put("near", "river")
    assert keys(store.search("budget")) == ["near"]
    with pytest.raises(agentmem.ConflictError, match="near"):
        tx.commit()
    tx.rollback()


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_what_is_written_after_a_reindex_can_enter_an_answer(
    make_store: StoreMaker, mode: str
) -> None:
    store = make_store(embedder=WordsEmbedder("one"))
    store.put("a", "river")
    tx = store.transaction()
    assert keys(tx.search("river", mode=mode, k=3)) == ["a"]
    tx.put("answer", 1)
    store.admin.reindex(WordsEmbedder("two", 7))
    store.put("b", "rivers of a garden")
    with pytest.raises(agentmem.ConflictError, match="'b'"):
        tx.commit()
    tx.rollback()


def test_merged_and_atomic_results_are_embedded_too(
    store: agentmem.Store, embedder: WordsEmbedder
) -> None:
    store.set_merge("list", "union")
    store.put("list", ["budget"])
    version = store.get("list").version  # type: ignore[union-attr]  # it is there
    store.put("list", ["budget", "river"], expected_version=version)
    store.put("list", ["budget", "museum"], expected_version=version)
    store.append("log", "garden")
    store.append("log", "bridge")
    towards = {"list": "budget\nriver\nmuseum", "log": "garden\nbridge"}
    for key, text in towards.items():
        hit = store.search(text.replace("\n", " "), mode="vector", k=1)[0]
        assert (hit.entry.key, hit.distance) == (key, pytest.approx(0, abs=1e-6))


def test_a_namespace_has_the_vectors_of_one_embedder(make_store: StoreMaker) -> None:
    one = make_store(embedder=WordsEmbedder("one"))
    one.put("a", "budget", namespace="team")
    other = make_store(embedder=WordsEmbedder("other", 7))
    for call in (
        lambda: other.put("b", "river", namespace="team/x"),
        lambda: other.search("river", namespace="team"),
        lambda: other.search("river"),
    ):
        with pytest.raises(EmbedderError, match="reindex"):
            call()
    assert other.revision == 1
    other.put("b", "river", namespace="crew")
    assert keys(other.search("river", namespace="crew")) == ["b"]
    other.put("n", 5, namespace="team")  # has no text
    assert keys(other.search("budget", namespace="team", mode="text")) == ["a"]


def test_reindex_gives_every_version_new_vectors(make_store: StoreMaker, seed: int) -> None:
    store = make_store(embedder=WordsEmbedder("one"))
    for _revision in fill(store, seed, 30):
        pass
    store.put("deferred", "budget lisbon", embed="deferred")
    middle = store.snapshot(at=15)
    other = WordsEmbedder("other", 7)
    seen: list[tuple[str, int, int]] = []
    store.admin.reindex(other, progress=lambda *step: seen.append(step))
    assert seen
    assert_nearest(store, other, "budget lisbon")
    assert_nearest(middle, other, "budget lisbon")
    store.put("more", "budget lisbon")
    assert_nearest(store, other, "budget lisbon")
    assert store.admin.reindex(other) == 0
    with pytest.raises(EmbedderError, match="reindex"):
        make_store(embedder=WordsEmbedder("one")).search("budget")


def test_an_interrupted_reindex_goes_on(make_store: StoreMaker, seed: int) -> None:
    first = WordsEmbedder("one")
    store = make_store(embedder=first)
    store.put_many({f"k{index}": f"{WORDS[index % 12]} {index}" for index in range(600)})

    class Breaking(WordsEmbedder):
        left = 300

        def __call__(self, texts: Any) -> Any:
            if self.left < len(texts):
                raise ConnectionError("gone")
            self.left -= len(texts)
            return super().__call__(texts)

    other = Breaking("other")
    with pytest.raises(EmbedderError, match="gone"):
        store.admin.reindex(other)
    assert_nearest(store, first, "budget 5")
    other.left = 10_000
    assert 0 < store.admin.reindex(other) < 600
    assert_nearest(store, other, "budget 5")


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"mode": "fuzzy"}, InvalidValueError),
        ({"k": 0}, InvalidValueError),
        ({"k": 1.5}, InvalidValueError),
        ({"k": 1_001}, LimitExceededError),
        ({"offset": -1}, InvalidValueError),
        ({"half_life_s": 0}, InvalidValueError),
        ({"half_life_s": float("nan")}, InvalidValueError),
        ({"half_life_s": "1"}, TypeError),
        ({"where": {"$bad": 1}}, InvalidValueError),
    ],
)
def test_wrong_arguments_of_a_search(
    store: agentmem.Store, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        store.search("budget", **arguments)


@pytest.mark.parametrize(
    "vector",
    [[1, 2], [float("nan")] * DIMENSION, [float("inf")] * DIMENSION, [1e300] * DIMENSION, [], "abc",
     [["a"]], [[1.0] * DIMENSION], [None], b"abc", 5, [True] * DIMENSION],
)  # fmt: skip
def test_wrong_vectors_are_refused_and_nothing_is_written(
    store: agentmem.Store, vector: Any
) -> None:
    store.put("a", "budget")
    for call in (lambda: store.put("b", "river", vector=vector), lambda: store.search(vector)):
        if isinstance(vector, str) and call.__code__.co_names[-1:] == ("search",):
            continue  # a str is a query
        with pytest.raises((EmbedderError, TypeError)):
            call()
    assert store.revision == 1


@pytest.mark.parametrize(
    "made", [[], [[1.0]], "text", None, [[1.0, float("nan")]] * 2, [[1.0], [1.0, 2.0]], 5]
)
def test_what_an_embedder_returns_is_checked(make_store: StoreMaker, made: Any) -> None:
    store = make_store(embedder=lambda texts: made)
    with pytest.raises(EmbedderError):
        store.put_many({"a": "budget", "b": "river"})
    assert store.revision == 0


def test_a_scoped_view_finds_only_what_it_may_see(store: agentmem.Store) -> None:
    store.put("k", "budget", namespace="agents/alice")
    store.put("k", "budget", namespace="agents/bob")
    store.put("plan", "budget", namespace="team")
    alice = store.scoped("agents/alice")
    hits = alice.search("budget")
    assert [(hit.entry.namespace, hit.entry.key) for hit in hits] == [((), "k")]
    spanning = store.scoped(access={"agents/alice/**": "write", "team/**": "read"})
    for mode in ("text", "vector", "hybrid"):
        found = {hit.entry.namespace for hit in spanning.search("budget", mode=mode)}
        assert found == {("agents", "alice"), ("team",)}
    with pytest.raises(agentmem.AccessDeniedError):
        spanning.search("budget", namespace="agents/bob")


@pytest.mark.parametrize("by", ["itself", "another"])
def test_what_a_search_has_read_before_is_read_again_once_it_can_be_seen_no_more(
    make_store: StoreMaker, clock: ManualClock, by: str
) -> None:
    """What changes without a revision: an expiry, an erased value, the floor."""
    store = make_store()
    other = make_store() if by == "another" else store
    for key in "abc":
        store.put(key, key, vector=[1, 0], ttl_s=60)

    def found(view: agentmem.Store | agentmem.Snapshot) -> str:
        return "".join(hit.entry.value for hit in view.search([1, 0]))

    snap = store.snapshot()
    assert found(store) == found(store) == found(snap) == "abc"
    other.touch("a", 1)
    clock.advance(2)
    assert found(store) == "bc"
    assert found(snap) == "abc"
    other.admin.purge("b")
    assert found(store) == "c"
    assert found(snap) == "ac"
    other.put("c", "d", vector=[1, 0], overwrite=True)
    assert found(store) == "d"
    assert found(snap) == "ac"
    other.admin.compact(keep_versions=1)
    assert found(store) == "d"
    for _ in range(2):
        with pytest.raises(agentmem.CompactedError):
            found(snap)


def test_a_search_in_a_thread_sees_what_others_have_committed_since(
    make_store: StoreMaker, clock: ManualClock
) -> None:
    store = make_store()
    store.put("k", 1, vector=[1, 0], ttl_s=60)
    with ThreadPoolExecutor(1) as thread:
        for number in range(2, 6):
            assert [hit.entry.value for hit in store.search([1, 0])] == [number - 1]
            thread.submit(store.put, "k", number, vector=[1, 0], overwrite=True).result()
            assert thread.submit(store.search, [1, 0]).result()[0].entry.value == number
        assert store.search([1, 0])[0].entry.expires_at is None
        thread.submit(store.touch, "k", 1).result()
        assert store.search([1, 0])[0].entry.expires_at == clock() + timedelta(seconds=1)
