"""Searches against a look at every entry, over random histories.

A second store on the same file stands for another process: nothing but the file is between the
two. What a search must find is computed from `list` alone, which knows no index.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import agentmem
from agentmem.testing.indexes import damage
from tests.embedders import WordsEmbedder, cosine
from tests.search.index_workers import kill_builder

WORDS = ("budget", "lisbon", "flight", "hotel", "museum", "river")
# Times as many examples as a run of all tests has time for.
EXAMPLES = int(os.environ.get("AGENTMEM_TEST_EXAMPLES", "1"))
NAMESPACES = (None, "team", "team/a", "other")
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
keys = st.sampled_from(["k1", "k2", "k3", "k4"])
namespaces = st.sampled_from(NAMESPACES)


def near(view: Any, query: str, namespace: str | None) -> list[tuple[tuple[str, ...], str, float]]:
    """What a vector search must find: everything, nearest first."""
    embedder = WordsEmbedder()
    towards = embedder.vector(query)
    found = []
    for entry in view.list(namespace, track=False):
        if entry.text is not None:
            similar = cosine(embedder.vector(entry.text), towards)
            found.append((entry.namespace, entry.key, similar))
    return sorted(found, key=lambda each: (-round(each[2], 6), each[0], each[1]))


def check(
    view: Any, query: str, namespace: str | None, pending: set[Any], *, exact: bool = True
) -> None:
    """Holds all modes of a search against the entries that the view lists.

    Args:
        exact: False where an index may miss one of the nearest; then only an answer that must
            hold everything is held against everything.
    """
    embedded = [each for each in near(view, query, namespace) if (each[0], each[1]) not in pending]
    hits = view.search(query, mode="vector", namespace=namespace, k=50, track=False)
    found = [(hit.entry.namespace, hit.entry.key, hit.score) for hit in hits]
    found.sort(key=lambda each: (-round(each[2], 6), each[0], each[1]))
    assert [each[:2] for each in found] == [each[:2] for each in embedded]
    assert [each[2] for each in found] == pytest.approx([each[2] for each in embedded], abs=1e-5)
    first = view.search(query, mode="vector", namespace=namespace, k=2, track=False)
    if exact:
        assert first == hits[:2]
    else:
        scores = {(hit.entry.namespace, hit.entry.key): hit.score for hit in hits}
        assert len(first) == len(hits[:2])
        for hit in first:
            assert hit.score == scores[hit.entry.namespace, hit.entry.key]

    holding = {
        (entry.namespace, entry.key)
        for entry in view.list(namespace, track=False)
        if set((entry.text or "").split()) & set(query.split())
    }
    words = view.search(query, mode="text", namespace=namespace, k=50, track=False)
    assert {(hit.entry.namespace, hit.entry.key) for hit in words} == holding
    both = view.search(query, namespace=namespace, k=50, track=False)
    positive = {(hit.entry.namespace, hit.entry.key) for hit in hits if hit.score > 0}
    assert {(hit.entry.namespace, hit.entry.key) for hit in both} == holding | positive
    listed = {(e.namespace, e.key): e for e in view.list(namespace, track=False)}
    for hit in itertools.chain(hits, words, both):
        assert hit.entry == listed[hit.entry.namespace, hit.entry.key]


class SearchMachine(RuleBasedStateMachine):
    """Two stores on one file, and what both must find."""

    index = "exact"

    @property
    def exact(self) -> bool:
        """Whether the nearest few are found for certain."""
        return self.index == "exact"

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agentmem-test-"))
        self.stores = [self._opened(), self._opened()]
        # Which versions had no vector, until which revision.
        self.deferred: dict[tuple[tuple[str, ...], str, int], int | None] = {}

    def _opened(self) -> agentmem.Store:
        return agentmem.open(
            self.folder / "team.db", embedder=WordsEmbedder(), durability="relaxed",
            index=self.index,
        )  # fmt: skip

    def pending(self, view: Any) -> set[Any]:
        """The entries that a view sees without a vector."""
        found = set()
        for entry in view.list(track=False):
            until = self.deferred.get((entry.namespace, entry.key, entry.version), 0)
            if until is None or view.revision < until:
                found.add((entry.namespace, entry.key))
        return found

    @rule(which=st.booleans(), key=keys, namespace=namespaces, text=texts)
    def put(self, which: bool, key: str, namespace: str | None, text: str) -> None:
        self.stores[which].put(key, text, namespace=namespace)

    @rule(which=st.booleans(), key=keys, namespace=namespaces, text=texts)
    def put_deferred(self, which: bool, key: str, namespace: str | None, text: str) -> None:
        entry = self.stores[which].put(key, text, namespace=namespace, embed="deferred")
        self.deferred[entry.namespace, key, entry.version or 0] = None

    @rule(which=st.booleans(), key=keys, namespace=namespaces)
    def delete(self, which: bool, key: str, namespace: str | None) -> None:
        self.stores[which].delete(key, namespace=namespace)

    @rule(which=st.booleans(), key=keys, namespace=namespaces, text=texts)
    def merge(self, which: bool, key: str, namespace: str | None, text: str) -> None:
        store = self.stores[which]
        inside = f"{namespace or 'root'}/lists"
        store.append(key, text, namespace=inside)

    @rule(which=st.booleans(), items=st.dictionaries(keys, texts, min_size=1), text=texts)
    def transact(self, which: bool, items: dict[str, str], text: str) -> None:
        with self.stores[which].transaction() as tx:
            for key, value in items.items():
                tx.put(key, value, namespace="team")
            check(tx, text, None, self.pending(tx), exact=self.exact)

    @rule(which=st.booleans(), text=texts)
    def roll_back(self, which: bool, text: str) -> None:
        tx = self.stores[which].transaction()
        tx.put("k1", text)
        tx.delete("k2")
        check(tx, text, None, self.pending(tx) - {((), "k1")}, exact=self.exact)
        tx.rollback()

    @rule(which=st.booleans())
    def embed(self, which: bool) -> None:
        store = self.stores[which]
        before = store.revision
        store.admin.index()
        for version, until in self.deferred.items():
            if until is None:
                self.deferred[version] = max(store.revision, before)

    @rule(which=st.booleans())
    def reopen(self, which: bool) -> None:
        self.stores[which].close()
        self.stores[which] = self._opened()

    @rule(which=st.booleans(), query=texts, namespace=namespaces, back=st.integers(0, 30))
    def search_the_past(self, which: bool, query: str, namespace: str | None, back: int) -> None:
        store = self.stores[which]
        snap = store.snapshot(at=max(0, store.revision - back))
        check(snap, query, namespace, self.pending(snap), exact=self.exact)

    @rule(which=st.booleans(), query=texts, namespace=namespaces)
    def search(self, which: bool, query: str, namespace: str | None) -> None:
        snap = self.stores[which].snapshot()
        check(snap, query, namespace, self.pending(snap), exact=self.exact)
        if self.exact:
            hits = self.stores[which].search(query, namespace=namespace)
            assert hits == snap.search(query, namespace=namespace)

    @invariant()
    def both_find_the_same(self) -> None:
        one, other = (store.search("budget river", k=50) for store in self.stores)
        assert one == other

    def teardown(self) -> None:
        for store in getattr(self, "stores", ()):
            assert store.admin.verify().problems == []
            store.close()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


class IndexMachine(SearchMachine):
    """The same, with an index by Chroma that is damaged now and then."""

    index = "chroma"

    @rule(seed=st.integers(0, 2**32), how=st.sampled_from(["flip", "cut", "delete"]))
    def damage(self, seed: int, how: str) -> None:
        # Whatever it is: of a generation, or of what one of the stores has open.
        damage(self.folder / "team.db-index", random.Random(seed), how)

    @rule(seed=st.integers(0, 2**32))
    def damage_what_is_open(self, seed: int) -> None:
        damage(self.folder / "team.db-index", random.Random(seed), "flip", in_place=True)

    @rule(step=st.integers(1, 30))
    def kill_the_indexer(self, step: int) -> None:
        kill_builder(self.folder / "team.db", step)


TestSearch = SearchMachine.TestCase
TestSearch.settings = settings(
    max_examples=60 * EXAMPLES, stateful_step_count=30, suppress_health_check=list(HealthCheck)
)
TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(
    max_examples=6 * EXAMPLES, stateful_step_count=20, suppress_health_check=list(HealthCheck)
)
