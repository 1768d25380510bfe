"""One open store, used with several embedders."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import agentmem
from agentmem.search.kept import vectors_of
from tests.embedders import WordsEmbedder


@pytest.fixture
def store() -> Iterator[agentmem.Store]:
    """Without an embedder."""
    with agentmem.open(":memory:", embedder=None) as opened:
        yield opened
        assert opened.admin.verify().problems == []


def test_each_has_its_own_and_all_have_the_same_entries(store: agentmem.Store) -> None:
    first, second = WordsEmbedder("first"), WordsEmbedder("second", dimension=5)
    one, two = store.with_embedder(first), store.with_embedder(second)
    one.put("a", "the tram", namespace="one")
    two.put("b", "the tram", namespace="two")
    store.put("c", "the tram", namespace="three")
    assert [entry.key for entry in two.list()] == ["a", "c", "b"]
    assert [hit.entry.key for hit in one.search("tram", namespace="one", mode="vector")] == ["a"]
    assert [hit.entry.key for hit in two.search("tram", namespace="two", mode="vector")] == ["b"]
    assert first.texts == second.texts
    with pytest.raises(agentmem.EmbedderError, match="second"):
        two.put("d", "the tram", namespace="one")
    with pytest.raises(agentmem.EmbedderError, match="reindex"):
        two.search("tram", namespace="one", mode="vector")
    with pytest.raises(agentmem.EmbedderError, match="needs an embedder"):
        store.search("tram", mode="vector")


def test_hooks_and_their_end_are_shared(store: agentmem.Store) -> None:
    other = store.with_embedder(WordsEmbedder())

    @store.merge_hook("notes/**")
    def keep_both(conflict: agentmem.Conflict) -> list[int]:
        return sorted({*conflict.theirs, *conflict.ours})

    entry = other.put("n", [1], namespace="notes")
    other.put("n", [1, 2], namespace="notes", expected_version=entry.version)
    merged = other.put("n", [1, 3], namespace="notes", expected_version=entry.version)
    assert merged.value == [1, 2, 3]
    scoped = store.scoped("notes", access="read").with_embedder(WordsEmbedder())
    with pytest.raises(agentmem.AccessDeniedError):
        scoped.put("x", "y")
    assert scoped["n"] == [1, 2, 3]
    with agentmem.open(":memory:", embedder=None) as third:
        seen = third.with_embedder(WordsEmbedder())
    with pytest.raises(agentmem.ClosedError):
        seen.get("n")


def test_vectors_that_were_made_before_are_not_made_again(store: agentmem.Store) -> None:
    embedder = WordsEmbedder()
    other = store.with_embedder(embedder)
    with other.transaction() as tx:
        tx.knows({"the tram": np.ones(embedder.dimension, dtype="<f4").tobytes()})
        tx.put("a", "the tram")
        tx.put("b", "the hotel")
    assert embedder.texts == ["the hotel"]
    (first, second, absent) = vectors_of(
        other.snapshot(),
        [other.get("a"), other.get("b"), _without_text(other)],  # type: ignore[list-item]  # they are there
    )
    assert first is not None
    assert first.tolist() == [1.0] * embedder.dimension
    assert second is not None
    assert second.tolist() == pytest.approx(embedder.vector("the hotel"), abs=1e-6)
    assert absent is None


def _without_text(store: agentmem.Store) -> agentmem.Entry[object]:
    return store.put("n", 1)


def test_vectors_are_those_of_the_version_that_the_view_shows(store: agentmem.Store) -> None:
    other = store.with_embedder(lambda texts: [[len(text), 1.0] for text in texts])
    before = other.put("a", "one")
    then = other.snapshot()
    now = other.put("a", "three", overwrite=True)
    for view, entry, length in ((then, before, 3), (other.snapshot(), now, 5)):
        (vector,) = vectors_of(view, [entry])
        assert vector is not None
        assert vector.tolist() == [length, 1.0]
