"""Searches that an exception strikes in the middle: the next one finds what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentmem
from agentmem.engines.sqlite import text
from agentmem.engines.sqlite.engine import SqliteEngine
from agentmem.search import live, past
from agentmem.search.live import LiveVectors
from tests.embedders import WordsEmbedder

# What is called while something new is taken in, and the call of these that fails.
PLACES: list[tuple[Any, str, int]] = [
    (LiveVectors, "_put", 2),
    (LiveVectors, "_end", 2),
    (LiveVectors, "_reserve", 1),
    (SqliteEngine, "points", 1),
    (SqliteEngine, "vector_revisions", 1),
    (past, "found_by", 2),
    (text, "length", 2),
    (past, "directions", 1),
]


def found(view: Any) -> list[Any]:
    return [
        [(hit.entry.key, hit.entry.version, hit.score) for hit in view.search(query, mode=mode)]
        for query in ("budget lisbon", "hotel")
        for mode in ("text", "vector", "hybrid")
    ]


@pytest.mark.parametrize(("where", "name", "call"), PLACES, ids=[each[1] for each in PLACES])
def test_after_an_interruption_the_same_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, call: int
) -> None:
    options: dict[str, Any] = {"embedder": WordsEmbedder(), "durability": "relaxed"}
    with agentmem.open(tmp_path / "a.db", **options) as store:
        store.put_many({f"k{number}": f"budget {number} lisbon" for number in range(20)})
        for number in range(10):
            store.put(f"k{number}", f"hotel {number}", overwrite=True)
        old = store.snapshot(at=1)
        found(store), found(old)
        store.put_many({f"k{number}": f"hotel budget {number}" for number in range(5, 15)})
        calls = 0
        inner: Callable[..., Any] = getattr(where, name)

        def struck(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise KeyboardInterrupt
            return inner(*arguments)

        monkeypatch.setattr(where, name, struck)
        strikes = 0
        for view in (store, old) * 2:
            try:
                found(view)
            except KeyboardInterrupt:
                strikes += 1
        assert strikes == 1
        monkeypatch.undo()
        with agentmem.open(tmp_path / "a.db", **options) as other:
            assert found(store) == found(other)
            assert found(old) == found(other.snapshot(at=1))


def test_vectors_that_were_struck_while_they_grew_are_loaded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Struck(tuple[str, ...]):
        """The arrays of each row; who goes through them is struck after the second."""

        def __iter__(self) -> Iterator[str]:
            yield from self[:2]
            raise KeyboardInterrupt

    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        store.put("a", 1, vector=[1, 0])
        store.search([1, 0])
        store.put("b", 2, vector=[0.5, 1])
        monkeypatch.setattr(live, "_COLUMNS", Struck(live._COLUMNS))
        with pytest.raises(KeyboardInterrupt):
            store.search([1, 0])
        monkeypatch.undo()
        assert [hit.entry.key for hit in store.search([1, 0])] == ["a", "b"]
