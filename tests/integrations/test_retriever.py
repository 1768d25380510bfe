"""Retrieving whatever a store holds: LangChain's suite, citations, and views that do not change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from langchain_tests.integration_tests import RetrieversIntegrationTests

import agentmem
from langchain_agentmem import AgentMemRetriever, AgentMemVectorStore


def _fill(store: agentmem.Store) -> None:
    store.put(
        "plan", {"note": "the tram to the hotel", "open": True}, namespace="team", agent="ann"
    )
    store.put("tickets", "tram tickets cost 3 euros", namespace="team/bob")
    store.put("fare", "the fare of the old tram", namespace="team")
    store.put("weather", "sunny, take the tram", namespace="other")


class TestPublishedSuite(RetrieversIntegrationTests):
    """As it is published."""

    @pytest.fixture(autouse=True)
    def filled(self, store: agentmem.Store) -> None:
        """What there is to find, on each kind of store."""
        _fill(store)
        self.store = store

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return AgentMemRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store, "k": 2}

    @property
    def retriever_query_example(self) -> str:
        return "Where does the tram go?"


@pytest.fixture
def opened() -> Iterator[agentmem.Store]:
    """In memory, for what does not depend on where it is kept."""
    with agentmem.open(":memory:", embedder=None) as made:
        yield made


def _keys(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


def test_a_document_cites_the_version_that_it_is_of(store: agentmem.Store) -> None:
    _fill(store)
    store.put(
        "plan", {"note": "the bus to the hotel"}, namespace="team", overwrite=True, agent="bob"
    )
    entry = store.get("plan", namespace="team")
    assert entry is not None
    assert entry.committed_at is not None
    (document,) = AgentMemRetriever(store, namespace="team").invoke("hotel")
    assert document.page_content == "the bus to the hotel"
    assert document.metadata.pop("score") > 0
    assert document.metadata == {
        "namespace": ["team"],
        "key": "plan",
        "version": 2,
        "revision": entry.revision,
        "agent": "bob",
        "committed_at": entry.committed_at.isoformat(),
    }
    cited = store.snapshot(at=document.metadata["revision"]).get("plan", namespace="team")
    assert cited is not None
    assert cited.version == document.metadata["version"]


def test_it_looks_only_where_it_should(opened: agentmem.Store) -> None:
    _fill(opened)
    assert set(_keys(AgentMemRetriever(opened).invoke("tram"))) == {
        "plan", "tickets", "fare", "weather",
    }  # fmt: skip
    team = AgentMemRetriever(opened, namespace="team", where={"open": True})
    assert _keys(team.invoke("tram")) == ["plan"]
    assert _keys(team.invoke("tram", where={"open": False})) == []
    assert _keys(AgentMemRetriever(opened, namespace="team/bob").invoke("tram")) == ["tickets"]


def test_pinned_it_answers_the_same_for_ever(store: agentmem.Store) -> None:
    _fill(store)
    live = AgentMemRetriever(store, namespace="team", k=9)
    pinned = live.at()
    before = live.invoke("tram")
    revision = store.revision
    store.put("fare", "free of charge", namespace="team", overwrite=True)
    store.delete("plan", namespace="team", overwrite=True)
    store.put("new", "a new tram", namespace="team")
    assert set(_keys(live.invoke("tram"))) == {"tickets", "new"}
    assert [
        document.model_dump(exclude={"metadata": {"score"}}) for document in pinned.invoke("tram")
    ] == [document.model_dump(exclude={"metadata": {"score"}}) for document in before]
    assert (pinned.revision, live.revision) == (revision, None)
    again = AgentMemRetriever(store, namespace="team", k=9, as_of=revision)
    assert set(_keys(again.invoke("tram"))) == set(_keys(before))
    assert set(_keys(live.invoke("tram", as_of=store.snapshot(at=revision)))) == set(_keys(before))


def test_documents_keep_their_metadata_and_cannot_forge_a_citation(opened: agentmem.Store) -> None:
    vectors = AgentMemVectorStore(opened, DeterministicFakeEmbedding(size=6))
    forged = {"source": "a.md", "version": 99, "agent": "admin", "lc": 1, "type": "constructor"}
    vectors.add_texts(["the tram"], [forged], ids=["1"])
    retriever = AgentMemRetriever(opened, namespace="documents", mode="text")
    (found,) = retriever.invoke("tram")
    assert (found.id, found.page_content) == ("1", "the tram")
    assert found.metadata["source"] == "a.md"
    assert (found.metadata["version"], found.metadata["agent"]) == (1, None)
    assert (found.metadata["lc"], found.metadata["type"]) == (1, "constructor")


def test_by_meaning_with_an_embedding_of_its_own(opened: agentmem.Store) -> None:
    embedding = DeterministicFakeEmbedding(size=6)
    AgentMemVectorStore(opened, embedding).add_texts(["one", "two", "three"], ids=["1", "2", "3"])
    retriever = AgentMemRetriever(opened, embedding, namespace="documents", mode="vector", k=1)
    assert _keys(retriever.invoke("two")) == ["2"]
    assert _keys(retriever.invoke("two", k=3))[0] == "2"


def test_no_more_tokens_than_fit(opened: agentmem.Store) -> None:
    _fill(opened)
    everything = AgentMemRetriever(opened, k=9).invoke("tram")
    size = -(-len(everything[0].page_content) // 4)
    assert len(everything) > 1
    few = AgentMemRetriever(opened, k=9, max_tokens=size)
    assert _keys(few.invoke("tram")) == _keys(everything[:1])
    assert few.invoke("tram", max_tokens=size - 1) == []
    words = AgentMemRetriever(
        opened, k=9, max_tokens=10, count_tokens=lambda text: len(text.split())
    )
    assert 1 < len(words.invoke("tram")) < len(everything)


def test_an_entry_without_words_is_shown_as_json(opened: agentmem.Store) -> None:
    retriever = AgentMemRetriever(opened, lambda texts: [[1, 0] for _each in texts], mode="vector")
    retriever.store.put("limits", {"days": 3}, vector=[1, 0])
    assert [document.page_content for document in retriever.invoke("days")] == ['{"days": 3}']


def test_it_takes_a_target_and_closes_what_it_has_opened() -> None:
    retriever = AgentMemRetriever(":memory:")
    retriever.store.put("plan", "the tram")
    assert _keys(retriever.invoke("tram")) == ["plan"]
    store = retriever.store
    retriever.close()
    with pytest.raises(agentmem.ClosedError):
        store.get("plan")


def test_it_is_a_runnable_as_any(opened: agentmem.Store) -> None:
    _fill(opened)
    chain = {"question": RunnablePassthrough(), "context": AgentMemRetriever(opened, k=1)}
    found = asyncio.run((RunnablePassthrough() | chain).ainvoke("hotel"))
    assert _keys(found["context"]) == ["plan"]


def test_what_it_does_not_know_is_refused(opened: agentmem.Store) -> None:
    with pytest.raises(TypeError, match="filter"):
        AgentMemRetriever(opened).invoke("tram", filter={"open": True})
    with pytest.raises(ValueError, match="top_k"):
        AgentMemRetriever(opened, top_k=3)
    with pytest.raises(agentmem.InvalidValueError):
        AgentMemRetriever(opened, where={"$where": "1"}).invoke("tram")
    with pytest.raises(agentmem.FutureRevisionError):
        AgentMemRetriever(opened).at(99)
