"""The index by Chroma: published whole, never in the way, and right while it lags or is broken."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentmem
from agentmem.search.generations import BrokenGenerationError, Generations
from agentmem.search.indexer import published_of
from agentmem.search.vectors import directions
from agentmem.testing.indexes import (
    DIMENSION,
    damage,
    damaged_indexes,
    fill,
    killed_builders,
    wrong_answers,
)
from agentmem.testing.indexes import indexed_store as opened
from agentmem.testing.indexes import vector_of as vector
from tests.byte_search import found_in
from tests.search.index_workers import kill_builder

COUNT = 300


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "team.db"


@pytest.fixture
def store(path: Path) -> Iterator[agentmem.Store]:
    with opened(str(path)) as store:
        fill(store, range(COUNT))
        yield store
    with opened(str(path)) as store:
        assert store.admin.verify().problems == []


def assert_right(view: Any, seed: int, rounds: int = 5) -> None:
    """All or nearly all of the ten nearest, and true scores."""
    snap = view.snapshot() if isinstance(view, agentmem.Store) else view
    assert wrong_answers(snap, seed, rounds) == []


def index_of(store: agentmem.Store) -> Any:
    """The published index, as the store's database knows it."""
    return store._core.engine.generation(1)


def folder_of(path: Path) -> Path:
    return Path(f"{path}-index") / "1"


def test_an_index_answers_for_the_present_the_past_and_what_came_later(
    store: agentmem.Store, seed: int
) -> None:
    before = store.snapshot()
    assert store.admin.stats()["index"] == "exact"
    fill(store, range(COUNT, COUNT + 50))
    store.admin.index()
    at_index = store.snapshot()
    assert index_of(store).revision == store.revision
    assert index_of(store).live == COUNT + 50
    assert_right(store, seed)
    assert_right(before, seed)
    fill(store, range(100, 130))
    for number in range(40):
        store.delete(f"k{number:05}", overwrite=True)
    fill(store, range(COUNT + 50, COUNT + 80))
    assert index_of(store).revision < store.revision
    for view in (store, store.snapshot(), at_index, before):
        assert_right(view, seed)
    with store.transaction() as tx:
        tx.put("mine", {"n": 9_999}, vector=vector(9_999))
        assert tx.search(vector(9_999), k=1, track=False)[0].entry.key == "mine"
        assert_right(tx, seed)
    stats = store.admin.stats()
    assert stats["index"] == "chroma"
    assert stats["index_watermark"] == index_of(store).revision
    assert stats["index_lag"] == 30 + 40 + 30 + 1


def test_an_index_of_the_whole_store_gives_nothing_of_other_namespaces(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a namespace must hold for an index to pay; else it would have to hold 20,000.
    monkeypatch.setattr("agentmem.search.indexer.is_large", lambda *_set: True)
    with opened(str(path)) as store:
        for label in ("team", "team/a", "teams", "other"):
            with store.transaction() as tx:
                for number in range(60):
                    key = f"{label} {number}"
                    tx.put(key, "budget", namespace=label, vector=vector(number))
        old = store.snapshot()
        store.admin.index()
        with store.transaction() as tx:
            for number in range(20):
                tx.put(f"other {number}", "new", namespace="other", vector=vector(number))
        views = (store, store.snapshot(), old, store.transaction())
        for label, count in (("team", 120), ("other", 60), ("team/a", 60)):
            labels = tuple(label.split("/"))
            for view in views:
                for k in (10, 1_000):
                    hits = view.search(vector(5), namespace=label, k=k)
                    assert len(hits) == min(k, count)
                    assert {hit.entry.namespace[: len(labels)] for hit in hits} == {labels}
            inside = store.scoped(label)
            assert inside.search(vector(5), k=1_000) != []
            for hit in inside.search(vector(5), k=1_000):
                assert inside.get(hit.entry.key, namespace=hit.entry.namespace) == hit.entry


def test_the_next_generation_is_made_from_the_last(store: agentmem.Store, seed: int) -> None:
    store.admin.index()
    first = index_of(store)
    fill(store, range(10))
    store.delete("k00020", overwrite=True)
    fill(store, range(COUNT, COUNT + 10))
    store.admin.index()
    second = index_of(store)
    assert second.name != first.name
    assert (second.live, second.dead) == (COUNT + 9, 11)
    assert_right(store, seed)
    for _round in range(2):  # until a fifth is dead
        fill(store, range(60))
        store.admin.index()
    assert index_of(store).dead < 60
    assert_right(store, seed)
    last = index_of(store)
    store.admin.index()
    assert index_of(store) == last


def test_old_generations_and_views_give_their_disk_back(store: agentmem.Store, path: Path) -> None:
    for number in range(2):
        fill(store, [number])
        store.admin.index()
        store.search(vector(1))
    names = [each.name for each in folder_of(path).iterdir()]
    assert [name for name in names if name.startswith("g-")] == [index_of(store).name]
    store.close()
    names = [each.name for each in folder_of(path).iterdir()]
    with opened(str(path)) as other:
        assert sorted(names) == [index_of(other).name, "lock"]


def test_who_searches_in_an_old_generation_goes_on(path: Path, store: agentmem.Store) -> None:
    generations = Generations(str(path.parent / "own"), DIMENSION)
    rows = np.array([vector(number) for number in range(50)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first = generations.build(None, [], [(np.arange(50), rows)])
    reader = generations.open(first)
    second = generations.build(first, [7], [])
    assert generations.sweep([second.name]) > 0
    assert reader.nearest(rows[7], 1)[0] == [7]
    assert generations.open(second).nearest(rows[7], 1)[0] != [7]
    with pytest.raises(BrokenGenerationError):
        generations.open(first)


def test_a_building_that_is_stopped_leaves_nothing(store: agentmem.Store, path: Path) -> None:
    def stop(_what: str, done: int, _of: int) -> None:
        if done:
            raise KeyboardInterrupt

    opened_before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else set()
    with pytest.raises(KeyboardInterrupt):
        store.admin.index(progress=stop)
    assert index_of(store) is None
    if opened_before:
        assert set(os.listdir("/proc/self/fd")) - opened_before <= {"gone"}
    store.admin.index()
    assert [each.name for each in folder_of(path).iterdir() if each.name.startswith("g-")] == [
        index_of(store).name
    ]


def test_what_does_not_answer_is_not_published(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentmem.search import generations as module

    fill_honestly = module._fill

    def forgetful(folder: str, gone: Any, added: Any, dimension: int) -> int:
        batches = list(added)
        short = [(ids[1:], rows[1:]) for ids, rows in batches]
        return fill_honestly(folder, gone, short, dimension) + lie

    rows = np.array([vector(number) for number in range(50)])
    generations = Generations(str(path) + "-own", DIMENSION)
    monkeypatch.setattr(module, "_fill", forgetful)
    lie = 1
    with pytest.raises(BrokenGenerationError, match="49 rows, not 50"):
        generations.build(None, [], [(np.arange(50), rows)])
    lie = 0
    with pytest.raises(BrokenGenerationError, match="row 0 is not found"):
        generations.build(None, [], [(np.arange(50), rows)])


def test_no_damaged_generation_is_opened(store: agentmem.Store, path: Path, seed: int) -> None:
    rng = random.Random(seed)
    store.admin.index()
    published = published_of(index_of(store))
    generations = Generations(str(folder_of(path)), DIMENSION)
    folder = folder_of(path) / published.name
    whole = path.parent / "whole"
    shutil.copytree(folder, whole)
    for _trial in range(50):
        victim = damage(folder, rng, rng.choice(["flip", "cut", "delete"]))
        assert victim is not None
        kept = whole / victim.relative_to(folder)
        if victim.exists() and victim.read_bytes() == kept.read_bytes():
            continue  # cut at its end, or flipped back
        with pytest.raises(BrokenGenerationError):
            generations.open(published)
        shutil.copyfile(kept, victim)
    generations.open(published).close()


def test_what_is_damaged_while_it_is_open_is_let_go(
    store: agentmem.Store, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.admin.index()
    assert_right(store, 1)
    views = [each for each in folder_of(path).iterdir() if each.is_dir() and "view-" in each.name]
    for file in (file for view in views for file in view.rglob("*") if file.is_file()):
        with file.open("r+b") as damaged:  # in place: also for who has it open
            damaged.write(b"\xff" * file.stat().st_size)
    assert_right(store, 1)
    assert "does not answer" in caplog.text
    assert_right(store, 2)
    store.admin.index()
    assert store.admin.stats()["index"] == "chroma"
    assert_right(store, 3)


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_damaged_index_is_noticed_and_built_again(path: Path, seed: int) -> None:
    assert damaged_indexes(str(path), times=3, entries=COUNT, seed=seed) == []


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_builders_leave_nothing_that_is_opened(
    store: agentmem.Store, path: Path, seed: int
) -> None:
    killed = 0
    for trial in range(5):
        fill(store, [trial])
        killed += kill_builder(path, 1 + 4 * trial)
        with opened(str(path)) as reader:
            assert_right(reader, seed, rounds=1)
    assert killed >= 3
    fill(store, [1])
    store.admin.index()
    names = sorted(each.name for each in folder_of(path).iterdir())
    assert [each for each in names if not each.startswith("view-")] == [
        index_of(store).name, "lock",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_many_search_while_one_writes_and_builders_are_killed(path: Path, seed: int) -> None:
    assert killed_builders(str(path), kills=2, searchers=2, entries=COUNT, seed=seed) == []


def test_a_store_of_few_vectors_needs_no_index(path: Path) -> None:
    with agentmem.open(path, embedder=None) as store:
        fill(store, range(20))
        store.admin.index()
        store.search(vector(1))
        assert index_of(store) is None
    assert not folder_of(path).exists()


def test_a_purge_leaves_no_byte_of_a_vector_in_any_index_folder(path: Path) -> None:
    gone = vector(7)
    stored = np.asarray([gone], dtype="<f4")
    part, direction = stored.tobytes()[:24], directions(stored).tobytes()[:24]
    with opened(str(path)) as store, opened(str(path)) as other:
        fill(store, range(COUNT))
        store.admin.index()
        old = store.snapshot()
        assert [each.entry.key for each in other.search(gone, k=1)] == ["k00007"]
        assert found_in(path.parent, [direction]) != []
        with pytest.raises(agentmem.StoreBusyError, match=f"process {os.getpid()} has the index"):
            store.admin.purge("k00007")
        assert [each.entry.key for each in other.search(gone, k=1)] != ["k00007"]
        store.admin.purge("k00007")
        assert found_in(path.parent, [part, direction]) == []
        assert index_of(store) is not None  # it was made again
        for view in (store, old, other):
            assert "k00007" not in [each.entry.key for each in view.search(gone, k=20)]
        assert_right(store, 5)
        store.admin.backup(path.parent / "backup.db")
        assert found_in(path.parent, [part, direction]) == []
