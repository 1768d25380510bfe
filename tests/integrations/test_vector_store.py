"""Documents in a store: LangChain's suite, versions, views of the past, filters, two writers."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests

import agentmem
from langchain_agentmem import AgentMemVectorStore
from tests.integrations.counted import Counted

_SIZE: Final = 6
_TIMEOUT_S: Final = 60


class TestPublishedSuite(VectorStoreIntegrationTests):
    """As it is published."""

    @pytest.fixture
    def vectorstore(self, store: agentmem.Store) -> VectorStore:  # type: ignore[override]  # a fixture takes fixtures
        return AgentMemVectorStore(store, self.get_embeddings())


@pytest.fixture
def opened() -> Iterator[agentmem.Store]:
    """In memory, for what does not depend on where it is kept."""
    with agentmem.open(":memory:", embedder=None) as made:
        yield made
        assert made.admin.verify().problems == []


def _ids(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


def test_the_first_argument_may_be_a_target(tmp_path: Path) -> None:
    target = str(tmp_path / "team.db")
    with AgentMemVectorStore(target, Counted()) as documents:
        documents.add_texts(["one"], ids=["1"])
        documents.at().close()  # what is pinned has opened nothing
        assert len(documents.get_by_ids(["1"])) == 1
    with agentmem.open(target, embedder=None) as other:
        entry = other.get("1", namespace="documents")
        assert entry is not None
        assert entry.value == {"page_content": "one", "metadata": {}}
    with pytest.raises(agentmem.ClosedError):
        documents.get_by_ids(["1"])


def test_a_store_that_was_open_stays_open(opened: agentmem.Store) -> None:
    with AgentMemVectorStore(opened, Counted()) as documents:
        documents.add_texts(["one"])
    assert opened.count("documents") == 1


# Versions.


def test_overwriting_and_deleting_make_versions_that_stay_visible(store: agentmem.Store) -> None:
    documents = AgentMemVectorStore(store, Counted(), with_versions=True)
    documents.add_texts(["old"], [{"n": 1}], ids=["a"])
    first = store.revision
    store.audit.tag("first", at=first)
    documents.add_texts(["new"], [{"n": 2}], ids=["a"])
    second = store.snapshot()
    documents.delete(["a"])

    assert documents.similarity_search("old") == []
    expected = {"n": 1, "agentmem_version": 1, "agentmem_revision": first}
    for as_of in (first, "first"):
        assert documents.similarity_search("new", as_of=as_of) == [
            Document(id="a", page_content="old", metadata=expected)
        ]
    assert documents.get_by_ids(["a"], as_of=second)[0].metadata["agentmem_version"] == 2
    assert documents.at("first").similarity_search("x")[0].page_content == "old"
    assert documents.at(first).revision == first
    assert [entry.deleted for entry in store.history("a", namespace="documents")] == [
        True, False, False,
    ]  # fmt: skip


def test_a_pinned_view_shows_what_was_there_and_cannot_be_written(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, Counted())
    documents.add_texts(["one", "two"], ids=["1", "2"])
    pinned = documents.at()
    documents.add_texts(["three"], ids=["3"])
    documents.delete(["1"])
    assert sorted(_ids(pinned.similarity_search("one"))) == ["1", "2"]  # type: ignore[type-var]  # they have ids
    assert _ids(pinned.similarity_search("one", as_of=opened.revision))[0] != "1"
    for write in (lambda: pinned.add_texts(["four"]), lambda: pinned.delete(["2"])):
        with pytest.raises(agentmem.AccessDeniedError, match="as of revision"):
            write()
    assert opened.count("documents") == 2


def test_versions_that_were_shown_are_not_stored(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, Counted(), with_versions=True)
    documents.add_texts(["one"], [{"n": 1}], ids=["1"])
    documents.add_documents(documents.get_by_ids(["1"]))
    entry = opened.get("1", namespace="documents")
    assert entry is not None
    assert entry.version == 2
    assert entry.value["metadata"] == {"n": 1}


@pytest.mark.parametrize("rounds", [25])
def test_every_revision_is_found_again_as_it_was(
    opened: agentmem.Store, seed: int, rounds: int
) -> None:
    rng = random.Random(seed)
    documents = AgentMemVectorStore(opened, Counted())
    seen: dict[int, list[tuple[Document, float]]] = {}
    for number in range(rounds):
        if rng.random() < 0.3:
            documents.delete([str(rng.randrange(8))])
        else:
            ids = [str(rng.randrange(8)) for _each in range(rng.randint(1, 3))]
            documents.add_texts([f"{number} {id}" for id in ids], ids=ids)
        seen[opened.revision] = documents.similarity_search_with_score("query", k=5)
    for revision, found in seen.items():
        assert documents.similarity_search_with_score("query", k=5, as_of=revision) == found
        again = documents.at(revision).similarity_search("query", k=5)
        assert again == [document for document, _distance in found]


# The same answers as LangChain's own.


def test_searches_answer_as_those_of_langchain_in_memory(store: agentmem.Store, seed: int) -> None:
    rng = random.Random(seed)
    ours, theirs = AgentMemVectorStore(store, Counted()), InMemoryVectorStore(Counted())
    for _round in range(12):
        if rng.random() < 0.3:
            ids = rng.sample([str(each) for each in range(30)], 3)
            ours.delete(ids)
            theirs.delete(ids)
        else:
            added = [
                Document(
                    id=str(rng.randrange(30)),
                    page_content=f"text {rng.random()}",
                    metadata={"source": rng.choice("abc"), "page": rng.randrange(5)},
                )
                for _each in range(rng.randint(1, 6))
            ]
            assert ours.add_documents(added) == theirs.add_documents(added)
        source, page = rng.choice("abc"), rng.randrange(5)
        filters: list[tuple[Any, Any]] = [
            (None, None),
            ({"source": source}, lambda each, s=source: each.metadata["source"] == s),
            (
                {"$or": [{"source": source}, {"page": {"$gt": page}}]},
                lambda each, s=source, p=page: (
                    each.metadata["source"] == s or each.metadata["page"] > p
                ),
            ),
        ]
        for where, function in filters:
            query = f"query {rng.random()}"
            found = ours.similarity_search_with_score(query, k=7, filter=where)
            expected = theirs.similarity_search_with_score(query, k=7, filter=function)
            assert [each for each, _distance in found] == [each for each, _cosine in expected]
            assert [1 - distance for _each, distance in found] == pytest.approx(
                [cosine for _each, cosine in expected], abs=1e-6
            )
        assert ours.max_marginal_relevance_search("q", k=3) == (
            theirs.max_marginal_relevance_search("q", k=3)
        )


def test_scores_are_distances_and_relevance_lies_between_0_and_1(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, Counted())
    documents.add_texts([f"text {number}" for number in range(20)])
    found = documents.similarity_search_with_score("text 3", k=20)
    distances = [distance for _document, distance in found]
    assert found[0][0].page_content == "text 3"
    assert distances == sorted(distances)
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances[-1] > 1
    relevance = documents.similarity_search_with_relevance_scores("text 3", k=20)
    assert relevance[0][1] == pytest.approx(1)
    assert all(0 <= score <= 1 for _document, score in relevance)
    retriever = documents.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.99}
    )
    assert [each.page_content for each in retriever.invoke("text 3")] == ["text 3"]


def test_words_and_both_are_searched_if_asked_for(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, Counted())
    documents.add_texts(["a tram in Lisbon", "the hotel", "a tram"], ids=["1", "2", "3"])
    assert _ids(documents.similarity_search("Lisbon trams", mode="text")) == ["1", "3"]
    scored = documents.similarity_search_with_score("Lisbon trams", mode="text")
    assert scored[0][1] == 0
    assert 0 < scored[1][1] < 1
    assert _ids(documents.similarity_search("Lisbon", k=1, mode="hybrid")) == ["1"]
    assert documents.similarity_search("Lisbon trams", k=1, mode="text", offset=1)[0].id == "3"


def test_with_a_half_life_what_is_older_counts_less(tmp_path: Path) -> None:
    moments = iter(range(1_800_000_000, 1_900_000_000, 3_600))
    with agentmem.open(tmp_path / "a.db", embedder=None, clock=lambda: next(moments)) as store:
        documents = AgentMemVectorStore(store, Counted())
        documents.add_texts(["the tram"], ids=["old"])
        for number in range(50):
            store.put("time", number, overwrite=True)
        documents.add_texts(["the tram"], ids=["young"])
        assert _ids(documents.similarity_search("the tram")) == ["old", "young"]
        aged = documents.similarity_search_with_score("the tram", half_life_s=3_600.0)
        assert [document.id for document, _distance in aged] == ["young", "old"]
        assert aged[0][1] < aged[1][1] <= 1
        always = AgentMemVectorStore(store, Counted(), half_life_s=3_600.0)
        assert _ids(always.similarity_search("the tram")) == ["young", "old"]


def test_without_an_embedding_documents_are_found_by_their_words(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened)
    documents.add_texts(["a tram in Lisbon", "the hotel"], [{"source": "tram"}, {}])
    assert [each.page_content for each in documents.similarity_search("trams")] == [
        "a tram in Lisbon"
    ]
    assert documents.embeddings is None
    with pytest.raises(agentmem.EmbedderError, match="embedding"):
        documents.max_marginal_relevance_search("tram")
    with pytest.raises(agentmem.EmbedderError):
        documents.similarity_search("tram", mode="vector")


def test_the_words_of_metadata_are_not_searched(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened)
    documents.add_texts(["the hotel"], [{"source": "tram"}])
    assert documents.similarity_search("tram") == []


# Embedding.


def test_each_text_is_embedded_once_and_before_the_lock(opened: agentmem.Store) -> None:
    class Writes(Counted):
        """Writes to the store while it embeds: that would wait for ever for a lock of the call."""

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            thread = threading.Thread(target=lambda: opened.put("beside", 1))
            thread.start()
            thread.join(_TIMEOUT_S)
            assert not thread.is_alive()
            return super().embed_documents(texts)

    embedding = Writes()
    documents = AgentMemVectorStore(opened, embedding)
    ids = documents.add_texts(["one", "two", "one", "three"], ids=["a", "b", "c", "a"])
    assert ids == ["a", "b", "c", "a"]
    assert sorted(embedding.texts) == ["one", "three", "two"]
    assert [each.page_content for each in documents.get_by_ids(["a", "c"])] == ["three", "one"]


def test_an_empty_document_has_a_vector_too(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, Counted())
    documents.add_texts(["", "one"], [{"n": 1}, {}], ids=["1", "2"])
    assert _ids(documents.similarity_search("", k=1)) == ["1"]
    assert len(documents.similarity_search("one", k=9)) == 2


def test_an_embedding_that_fails_writes_nothing(opened: agentmem.Store) -> None:
    class Broken(Counted):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionError("no model")

    with pytest.raises(agentmem.EmbedderError, match="no model"):
        AgentMemVectorStore(opened, Broken()).add_texts(["one"])
    assert opened.revision == 0


def test_vectors_of_two_embeddings_do_not_meet(store: agentmem.Store) -> None:
    """Both have the same number of dimensions, so that nothing else could tell."""
    AgentMemVectorStore(store, Counted(identity="first")).add_texts(["one"])
    other = AgentMemVectorStore(store, Counted(identity="second"))
    for call in (
        lambda: other.add_texts(["two"]),
        lambda: other.similarity_search("two"),
        lambda: AgentMemVectorStore(store, Counted(7, "first")).add_texts(["two"]),
    ):
        with pytest.raises(agentmem.EmbedderError):
            call()
    assert store.count("documents") == 1
    elsewhere = AgentMemVectorStore(store, Counted(identity="second"), namespace="other")
    elsewhere.add_texts(["two"])
    assert [each.page_content for each in elsewhere.similarity_search("two")] == ["two"]


def test_the_embedding_of_the_store_is_used_if_none_is_given(tmp_path: Path) -> None:
    embedding = Counted()
    with agentmem.open(tmp_path / "a.db", embedder=embedding) as store:
        documents = AgentMemVectorStore(store)
        documents.add_texts(["one", "two"], ids=["1", "2"])
        assert _ids(documents.similarity_search("two", k=1)) == ["2"]
        assert embedding.texts == ["one", "two"]


# Commits.


def test_one_call_is_one_commit_that_names_its_run(store: agentmem.Store) -> None:
    documents = AgentMemVectorStore(store, Counted(), agent="indexer")
    config: RunnableConfig = {"configurable": {"thread_id": "thread-9"}}
    add = RunnableLambda(documents.add_texts)
    add.invoke(["one", "two", "three"], config)
    (commit,) = store.log()
    assert (commit.agent, commit.note) == ("indexer", "add documents")
    assert commit.metadata == {"thread_id": "thread-9"}
    assert len(commit.changes) == 3


def test_an_operation_id_applies_once(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, Counted())
    first = documents.add_texts(["one", "two"], op_id="load-1")
    assert documents.add_texts(["one", "two"], op_id="load-1") == first
    assert opened.count("documents") == 2
    with pytest.raises(agentmem.InvalidValueError, match="op_id"):
        documents.add_texts(["one", "two"], op_id="load-2", batch_size=1)


def test_batches_are_commits_of_their_own(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, Counted())
    assert documents.add_texts([str(each) for each in range(7)], batch_size=3) == [
        entry.key for entry in opened.list("documents")
    ]
    assert opened.revision == 3
    opened.put("below", "another's", namespace="documents/other")
    assert documents.delete() is True
    assert [entry.key for entry in opened.list("documents")] == ["below"]


def test_made_from_texts_or_documents(tmp_path: Path) -> None:
    with AgentMemVectorStore.from_documents(
        [Document(id="1", page_content="one", metadata={"n": 1}), Document(page_content="two")],
        Counted(),
        store=str(tmp_path / "team.db"),
        namespace=("team", "docs"),
    ) as documents:
        assert documents.get_by_ids(["1"])[0].metadata == {"n": 1}
        assert documents.store.count("team/docs") == 2
    with pytest.raises(agentmem.EmbedderError):
        AgentMemVectorStore.from_texts(["two"], Counted(9), store=str(tmp_path / "team.db"),
                                       namespace=("team", "docs"))  # fmt: skip
    agentmem.open(tmp_path / "team.db", embedder=None).close()


def test_awaited_calls_answer_the_same_and_keep_the_run(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, Counted())

    async def node(text: str) -> list[Document]:
        await documents.aadd_texts([text], [{"n": 1}], ids=["1"])
        return await documents.asimilarity_search(text, k=1, filter={"n": 1})

    async def run() -> list[Document]:
        config: RunnableConfig = {"configurable": {"thread_id": "thread-9"}}
        return await RunnableLambda(node).ainvoke("one", config)

    assert asyncio.run(run()) == [Document(id="1", page_content="one", metadata={"n": 1})]
    assert opened.log()[0].metadata == {"thread_id": "thread-9"}


_WRITER: Final = """
import sys
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_agentmem import AgentMemVectorStore

target, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
with AgentMemVectorStore(target, DeterministicFakeEmbedding(size=6), agent=name) as documents:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(rounds):
        texts = [f"{name} {number} {id}" for id in "abc"]
        documents.add_texts(texts, [{"by": name}] * 3, ids=list("abc"))
"""


def test_two_processes_that_overwrite_the_same_ids_mix_nothing(tmp_path: Path) -> None:
    target, rounds = str(tmp_path / "team.db"), 20
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, target, name, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("ann", "bob")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        assert writer.wait(_TIMEOUT_S) == 0
        for pipe in (writer.stdin, writer.stdout):
            assert pipe is not None
            pipe.close()

    with AgentMemVectorStore(target, DeterministicFakeEmbedding(size=_SIZE)) as documents:
        store = documents.store
        for id in "abc":
            history = store.history(id, namespace="documents")
            assert [entry.version for entry in history] == list(range(2 * rounds, 0, -1))
        for revision in range(1, store.revision + 1):
            found = documents.get_by_ids(["a", "b", "c"], as_of=revision)
            assert len({each.page_content[:-2] for each in found}) == 1, "one call is seen as one"
            nearest = documents.similarity_search(found[0].page_content, k=1, as_of=revision)
            assert nearest == [found[0]]
        assert store.admin.verify().problems == []
