"""Judging what a transaction has searched: all at once, and as if each key were looked at alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import agentmem
from agentmem.engines.rows import EntryRow, Place, Range
from agentmem.repair import EngineWorld
from agentmem.request import Scan
from agentmem.search import scan as scan_module
from agentmem.search.planner import Ranked, combined, decayed
from agentmem.search.scan import SearchScan
from agentmem.search.vectors import directions, similarities, unpack_many
from agentmem.search.words import found_by
from agentmem.staleness import World
from agentmem.testing.held import Held
from tests.contract.conftest import ManualClock, StoreMaker
from tests.embedders import DIMENSION, WordsEmbedder

WORDS = ["budget", "lisbon", "flights", "hotel", "museum", "seats", "river", "日本", "naïve"]
MODES = ("text", "vector", "hybrid")
ROUNDS = 16


class HalfWords(WordsEmbedder):
    """In hybrid ranking words and meaning count the same."""

    text_weight = 0.5


@pytest.fixture
def filled(make_store: StoreMaker) -> agentmem.Store:
    store = make_store(embedder=WordsEmbedder())
    store.put_many({f"best{index}": "budget lisbon" for index in range(5)})
    return store


# As if each were looked at alone.


def text_of(row: EntryRow) -> str:
    return found_by(row.value, row.text) or ""


class Given(WordsEmbedder):
    """Whatever is asked means the same, and counts as much as its words."""

    text_weight = 0.5

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[1, 0] for _text in texts], dtype=np.float32)


class Alone:
    """What a world says of one text; asked for one at a time, and for each but once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._known: dict[tuple[tuple[str, ...], str], float] = {}

    def words(self, words: tuple[str, ...], text: str) -> float:
        if words and (words, text) not in self._known:
            self._known[words, text] = self.world.text_scores(words, [text])[0]
        return self._known.get((words, text), 0.0)


def best_of(scan: SearchScan, heads: Mapping[Place, EntryRow | None], alone: Alone) -> float:
    """The best words of all that could be found anew."""
    assert scan.seen is not None
    texts = [
        text_of(row)
        for place, row in heads.items()
        if row is not None
        and place not in scan.found
        and Scan.versions_of(scan, {place: row}, alone.world)[place]
    ]
    return max((alone.words(scan.seen.query.words, text) for text in texts), default=0.0)


def judged_alone(scan: SearchScan, row: EntryRow | None, alone: Alone, most: float) -> int:
    """The version with which a row would be found: by definition, with reads for it alone."""
    world = alone.world
    if row is None or Scan.versions_of(scan, {("", ""): row}, world) == {("", ""): 0}:
        return 0
    place = (row.namespace, row.key)
    return row.version if place in scan.found or could_enter(scan, row, place, alone, most) else 0


def could_enter(scan: SearchScan, row: EntryRow, place: Place, alone: Alone, others: float) -> bool:
    seen, world = scan.seen, alone.world
    assert seen is not None
    query, ranked, best = seen.query, seen.answer.ranked, seen.answer.best
    if seen.lacks_vectors:
        return True
    similar = None
    if seen.vector_set is not None and seen.direction is not None:
        if seen.vector_set.id not in world.spaces().of.values():
            return True
        stored = world.vectors(seen.vector_set.id, [row.id]).get(row.id)
        if stored is not None:
            rows = directions(unpack_many([stored], seen.vector_set.dimension))
            similar = float(similarities(rows, seen.direction)[0])

    words = alone.words(query.words, text_of(row))
    if query.mode == "vector" and similar is None:
        return False
    if query.mode != "vector" and not words and not (similar or 0) > 0:
        return False
    if query.at_least is not None and (similar is None or similar < query.at_least):
        return False
    if len(ranked) < query.depth:
        return True
    scores = [alone.words(query.words, own_text(each)) for each in ranked]
    beside = alone.words(query.words, own_text(best)) if best is not None else 0.0

    def sorts(each: Ranked, words: float, most: float) -> tuple[float, Place]:
        score = combined(query, seen.weight, words, each.similar, most)
        return -decayed(query, score, each.row, world.now), each.place

    new = Ranked(place, row, None, words, similar)
    inside = max(others, *scores)
    return any(
        sorts(new, words, most) < max(map(lambda e, w: sorts(e, w, most), ranked, scores))
        for most in (inside, max(inside, beside))
    )


def own_text(each: Ranked) -> str:
    if each.entry is not None:
        return each.entry.text or ""
    return text_of(each.row) if each.row is not None else ""


def now(store: agentmem.Store) -> EngineWorld:
    position = store._core.engine.position()
    return EngineWorld(store._core.engine, position.revision, position.now)


# Random histories.


def phrase(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 5)))


def value_of(rng: random.Random) -> Any:
    return rng.choice([phrase(rng), {"kind": "note", "said": phrase(rng)}, rng.randint(0, 9)])


def change(store: agentmem.Store, rng: random.Random, clock: ManualClock) -> None:
    """Writes, deletes, hides, and lets expire; with a vector, with one that comes late, or none."""
    key, namespace = f"k{rng.randrange(30)}", rng.choice([None, "team", "team/a"])
    clock.advance(rng.choice([0, 1, 60]))
    kind = rng.randrange(8)
    if kind == 0:
        store.delete(key, namespace=namespace, overwrite=True)
        return
    options: dict[str, Any] = {
        1: {"embed": "deferred"},
        2: {"text": False},
        3: {"ttl_s": 90},
        4: {"vector": np.random.default_rng(rng.randrange(1000)).normal(size=12)},
    }.get(kind, {})
    store.put(key, value_of(rng), namespace=namespace, overwrite=True, **options)


def search(tx: agentmem.Transaction, rng: random.Random) -> None:
    """One search; its words, or a vector, or that of something to add."""
    if rng.random() < 0.2:
        tx.add(phrase(rng), similar=rng.choice([0.2, 0.6, 0.9]))
        return
    tx.search(
        rng.choice([phrase(rng), "the", "?"]),
        mode=rng.choice([*MODES, "hybrid"]),
        k=rng.choice([1, 2, 3, 10]),
        offset=rng.choice([0, 0, 2]),
        namespace=rng.choice([None, None, "team"]),
        where=rng.choice([None, None, {"kind": "note"}]),
        half_life_s=rng.choice([None, 30]),
    )


@pytest.mark.parametrize("small", [False, True], ids=["at-once", "in-parts"])
def test_judged_at_once_is_judged_one_by_one(
    make_store: StoreMaker,
    clock: ManualClock,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    small: bool,
) -> None:
    if small:  # each read holds but a few
        monkeypatch.setattr(scan_module, "_NUMBERS", 40)
        monkeypatch.setattr(scan_module, "_CHARACTERS", 50)
    rng = random.Random(seed + small)
    store = make_store(embedder=HalfWords())
    outcomes: Counter[str] = Counter()
    for round in range(ROUNDS // 4 if small else ROUNDS):
        for _ in range(8):
            change(store, rng, clock)
        tx = store.transaction()
        tx.put("own", phrase(rng), namespace="team")
        search(tx, rng)
        search(tx, rng)
        for _ in range(rng.randint(1, 20)):
            change(store, rng, clock)
        if round % 4 == 3:
            store.admin.index()
        world = now(store)
        alone = Alone(world)
        heads = world.heads([(row.namespace, row.key) for row in all_rows(store)])
        for scan in tx._scans:
            assert isinstance(scan, SearchScan)
            most = best_of(scan, heads, alone)
            expected = {place: judged_alone(scan, row, alone, most) for place, row in heads.items()}
            assert scan.versions_of(heads, world) == expected, f"seed {seed}, round {round}"
            for place, version in expected.items():
                outcomes["found" if place in scan.found else "enters" if version else "no"] += 1
        tx.rollback()
    assert min(outcomes[each] for each in ("found", "enters", "no")) > 5, outcomes


def all_rows(store: agentmem.Store) -> list[EntryRow]:
    return store._core.engine.scan(Range(""), store.revision, 1000)


def test_one_that_holds_the_words_best_lets_in_another_that_is_near(
    make_store: StoreMaker,
) -> None:
    query = "budget lisbon museum"
    best, nearest = "museum lisbon budget", "budget of no use"
    near = {query: [1.0, 0.0], "budget found": [0.9, 0.436], nearest: [1.0, 0.0]}

    def vectors(texts: Sequence[str]) -> list[list[float]]:
        return [near.get(text, [-1.0, 0.0]) for text in texts]

    vectors.identity = "tests/near"  # type: ignore[attr-defined]  # what names an embedder
    vectors.text_weight = 0.5  # type: ignore[attr-defined]  # as above
    store = make_store(embedder=vectors)
    if store._core.engine.name != "sqlite":
        pytest.skip("the texts are chosen for bm25")
    store.put_many({f"other{number}": f"nothing of {number}" for number in range(30)})
    store.put("found", "budget found")

    def searched() -> agentmem.Transaction:
        tx = store.transaction()
        assert [hit.entry.key for hit in tx.search(query, k=1)] == ["found"]
        tx.put("seen", 1)
        return tx

    # Alone neither enters: one is far, and the other holds one word among too many.
    for text in (best, nearest):
        tx = searched()
        store.put("new", text)
        tx.commit()
        store.delete("new", overwrite=True)
        store.delete("seen", overwrite=True)
    tx = searched()
    store.put("new", best)
    store.put("newer", nearest)
    assert store.search(query, k=1)[0].entry.key == "newer"
    with pytest.raises(agentmem.ConflictError):
        tx.commit()


def test_what_words_are_measured_by_may_be_gone(make_store: StoreMaker) -> None:
    store = make_store(embedder=Given(dimension=2))
    for index in range(20):
        store.put(f"other{index}", "garden bridge market dinner", vector=[-1, 0])
    store.put("all", "lisbon museum hotel train", vector=[-1, 0])
    store.put("near", "garden bridge lisbon market dinner", vector=[0.98, 0.199])
    tx = store.transaction()
    assert [hit.entry.key for hit in tx.search("lisbon museum hotel train", k=1)] == ["near"]
    tx.put("answer", 1, text=False)
    # Against the words of "all" it is no match, but its own are the best once "all" is gone.
    store.put("new", "lisbon museum hotel train garden", vector=[0.2, 0.98])
    other = store.transaction()
    assert [hit.entry.key for hit in other.search("lisbon museum hotel train", k=1)] == ["near"]
    other.rollback()
    store.delete("all", overwrite=True)
    found = store.search("lisbon museum hotel train", k=1)
    assert [hit.entry.key for hit in found] == ["new"]
    with pytest.raises(agentmem.ConflictError, match="new"):
        tx.commit()
    tx.rollback()


@pytest.mark.parametrize(
    ("text", "vector"),
    [
        ("lisbon museum hotel train", [-1, 0]),  # nothing holds the words better: 1, and no more
        (
            "museum hotel market",
            [0.3, 0.954],
        ),  # by its own words alone: nearly in
    ],
)
def test_a_rank_by_words_is_that_beside_the_best(
    make_store: StoreMaker, text: str, vector: list[float]
) -> None:
    store = make_store(embedder=Given(dimension=2))
    for index in range(20):
        store.put(f"other{index}", "garden bridge market dinner", vector=[-1, 0])
    store.put("near", "lisbon garden bridge", vector=[0.9, 0.436])
    store.put("all", "lisbon museum hotel train", vector=[-1, 0])
    tx = store.transaction()
    assert [hit.entry.key for hit in tx.search("lisbon museum hotel train", k=1)] == ["near"]
    tx.put("answer", 1, text=False)
    store.put("new", text, vector=vector)
    store.delete("all", overwrite=True)
    found = store.search("lisbon museum hotel train", k=1)
    assert [hit.entry.key for hit in found] == ["near"]
    tx.commit()


def test_what_another_search_finds_anew_makes_the_first_one_stale(
    make_store: StoreMaker, clock: ManualClock, seed: int
) -> None:
    rng = random.Random(seed)
    store = make_store(embedder=WordsEmbedder())
    entered = kept = 0
    for _round in range(3 * ROUNDS):
        for _ in range(8):
            change(store, rng, clock)
        asked = {"query": phrase(rng), "mode": rng.choice(MODES), "k": rng.choice([1, 3, 6])}
        tx = store.transaction()
        before = {hit.entry.key: hit.entry.version for hit in tx.search(**asked)}
        since = tx.revision
        for _ in range(rng.randint(1, 6)):
            change(store, rng, clock)
        found = [hit.entry for hit in store.search(**asked)]
        new = [each for each in found if (each.revision or 0) > since]
        if new:
            assert tx.stale(), f"seed {seed}: {asked} finds {new}, and found {before}"
            entered += 1
        elif not tx.stale():
            kept += 1
        tx.rollback()
    assert min(entered, kept) > 3, (entered, kept)


def test_what_the_same_batch_has_written_before_is_judged_by_its_vector(
    filled: agentmem.Store,
) -> None:
    transactions = [filled.transaction() for _ in range(2)]
    for number, tx in enumerate(transactions):
        tx.search("budget lisbon", mode="vector", k=3)
        tx.put(f"answer{number}", number, text=False)
    held = Held(filled)
    with held.back():
        held.call(lambda: filled.put("far", "river seats"))
        first = held.call(transactions[0].commit)
        held.call(lambda: filled.put("abc", "budget lisbon"))
        second = held.call(transactions[1].commit)
    assert held.join() == []
    assert held.sessions == 2  # the held commit, and one batch
    assert first.error is None
    assert isinstance(second.error, agentmem.ConflictError)
    assert [conflict.key for conflict in second.error.conflicts] == ["abc"]
    transactions[1].rollback()


def test_what_is_just_so_similar_is_similar(store: agentmem.Store) -> None:
    store.put("other", "bridge", vector=[0.0, 1.0])
    tx = store.transaction()
    tx.add("river", vector=[1.0, 0.0], similar=1.0)
    store.put("same", "garden", vector=[2.0, 0.0])  # the same direction
    with pytest.raises(agentmem.ConflictError, match="same"):
        tx.commit()
    tx.rollback()


def test_each_search_is_judged_by_what_changed_where_it_looked(store: agentmem.Store) -> None:
    def searched() -> agentmem.Transaction:
        tx = store.transaction()
        for namespace in ("team", "other"):
            tx.search("budget", mode="text", namespace=namespace)
            tx.search("budget", mode="text", namespace=f"{namespace}/a")
        tx.put("answer", store.revision, text=False)
        return tx

    tx = searched()
    store.put("elsewhere", "budget")
    tx.commit()
    for namespace in ("team", "other/a"):
        tx = searched()
        store.put("new", "budget", namespace=namespace, overwrite=True)
        with pytest.raises(agentmem.ConflictError) as caught:
            tx.commit()
        assert [each.key for each in caught.value.conflicts] == ["new"]
        tx.rollback()


def test_of_what_was_embedded_late_only_the_newest_entries_count(make_store: StoreMaker) -> None:
    store = make_store(embedder=WordsEmbedder())
    engine = store._core.engine
    for key in ("late", "replaced"):
        store.put(key, "budget", embed="deferred")
    store.put("replaced", "river", embed="deferred", overwrite=True)
    assert [row.version for row in engine.pending_vectors(0, 10)] == [1, 2]
    store.admin.index()
    assert sorted(engine.embedded_since(0, Range(""), 1)) == [("", "late"), ("", "replaced")]
    store.put("replaced", "garden", overwrite=True)
    assert engine.embedded_since(0, Range(""), 1) == [("", "late")]


# How often the store is asked, above all while others wait for its lock.


class Counted:
    """A write session, or an engine, that counts what it is asked."""

    def __init__(self, inner: Any, counts: Counter[str]) -> None:
        self._inner = inner
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def ask(*values: Any, **options: Any) -> Any:
            self._counts[name] += 1
            return found(*values, **options)

        return ask


def asked_at_commit(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]
) -> Counter[str]:
    """What the write sessions were asked while that was done."""
    engine, counts = store._core.engine, Counter[str]()
    for name in ("session", "unsynced_session"):
        made = getattr(engine, name)
        monkeypatch.setattr(engine, name, lambda made=made: Counted(made(), counts))
    do()
    monkeypatch.undo()
    return counts


def write_others(store: agentmem.Store, count: int) -> None:
    """So many keys that share a word with what is looked for, and are no match for it."""
    store.put_many(
        {f"other{index}": f"budget river seats museum {index}" for index in range(count)}
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_commit_asks_as_often_however_many_keys_have_changed(
    filled: agentmem.Store, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    asked = []
    for count in (3, 60):
        tx = filled.transaction()
        tx.search("budget lisbon", k=3, mode=mode)
        tx.search("lisbon budget", k=4, mode=mode)
        tx.put("answer", count, text=False)
        write_others(filled, count)
        asked.append(asked_at_commit(filled, monkeypatch, tx.commit))
    few, many = asked
    assert few == many
    by_words, by_vectors = 2 * (mode != "vector"), 2 * (mode != "text")
    assert (many["text_scores"], many["vectors"]) == (by_words, by_vectors)
    assert (many["changed_since"], many["embedded_since"]) == (1, by_vectors // 2)
    assert many["heads"] == 1


def test_what_is_judged_without_the_lock_is_asked_for_at_once_too(
    filled: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    for count in (3, 60):
        tx = filled.transaction()
        assert "best0" in {hit.entry.key for hit in tx.search("budget lisbon", k=5)}
        for index in range(count):
            tx.get(f"other{index}")
        assert tx.get("absent") is None
        tx.put("answer", count)
        filled.put("best0", f"budget lisbon {count}", overwrite=True)
        write_others(filled, count)
        counts: Counter[str] = Counter()
        monkeypatch.setattr(tx._core, "engine", Counted(tx._core.engine, counts))
        stale = tx.stale()
        monkeypatch.undo()
        assert {item.key for item in stale} >= {"best0", "other0", f"other{count - 1}"}
        tx.rollback()
        asked.append(counts - Counter({"entry_version": counts["entry_version"]}))
    few, many = asked
    assert few == many
    assert (many["text_scores"], many["vectors"]) == (1, 1)


def test_what_is_no_match_by_nearness_is_not_taken_apart(
    filled: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tx = filled.transaction()
    tx.search("budget lisbon", k=3, mode="vector")
    tx.add("budget lisbon", similar=0.99)
    tx.put("answer", 1, text=False)
    write_others(filled, 20)
    assert asked_at_commit(filled, monkeypatch, tx.commit)["text_scores"] == 0


def test_what_is_large_is_asked_for_in_parts(
    filled: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tx = filled.transaction()
    tx.search("budget lisbon", k=3, mode="vector")
    tx.search("budget lisbon", k=3, mode="text")
    tx.put("answer", 1, text=False)
    filled.put_many({f"other{index}": "budget " + "river " * 100 for index in range(7)})
    filled.put("large", "budget " + "river " * 300)
    with monkeypatch.context() as patch:
        patch.setattr(scan_module, "_NUMBERS", 3 * DIMENSION)  # three vectors
        patch.setattr(
            scan_module, "_CHARACTERS", 1300
        )  # two texts; the others and what was found go alone
        asked = asked_at_commit(filled, patch, tx.commit)
    assert (asked["vectors"], asked["text_scores"]) == (3, 6)
