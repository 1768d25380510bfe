"""What a vector store is given, documents and filters, stays data; what is no such is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document

import agentmem
from langchain_agentmem import AgentMemVectorStore
from tests.integrations.counted import Counted


@pytest.fixture
def opened() -> Iterator[agentmem.Store]:
    """In memory, for what does not depend on where it is kept."""
    with agentmem.open(":memory:", embedder=None) as made:
        yield made
        assert made.admin.verify().problems == []


def _ids(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


def test_what_is_stored_stays_data(store: agentmem.Store) -> None:
    hostile = {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "llms", "openai", "OpenAI"],
        "kwargs": {"openai_api_key": {"lc": 1, "type": "secret", "id": ["PATH"]}},
    }
    documents = AgentMemVectorStore(store, Counted())
    documents.add_texts(["one"], [hostile], ids=["1"])
    for found in (documents.get_by_ids(["1"])[0], documents.similarity_search("one")[0]):
        assert found.metadata == hostile
        assert type(found.metadata["kwargs"]["openai_api_key"]) is dict
    assert _ids(documents.similarity_search("one", filter={"lc": 1, "type": "constructor"})) == [
        "1"
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        {"$where": "1"},
        {"source": {"$regex": ".*"}},
        {"source": {"$gt": 1, "x": 2}},
        {"$and": {"source": "a"}},
        {"": 1},
        {"a..b": 1},
        {1: 1},
        "1=1",
        [("source", "a")],
        lambda document: True,
    ],
    # Of a function str() is its address: another in every process.
    ids=lambda value: "function" if callable(value) else str(value),
)
def test_a_filter_that_is_none_is_refused(opened: agentmem.Store, hostile: Any) -> None:
    documents = AgentMemVectorStore(opened, Counted())
    documents.add_texts(["one"], [{"source": "a"}])
    with pytest.raises(agentmem.InvalidValueError):
        documents.similarity_search("one", filter=hostile)


def test_a_function_as_filter_is_told_what_to_give_instead(opened: agentmem.Store) -> None:
    with pytest.raises(agentmem.InvalidValueError, match="not a function"):
        AgentMemVectorStore(opened, Counted()).similarity_search("one", filter=lambda each: True)


@pytest.mark.parametrize(
    "hostile",
    [
        {"source' OR '1'='1": "a"},
        {'source")) OR 1=1 --': "a"},
        {"source": "a' OR '1'='1"},
        {"page_content": "one"},
        {"metadata": {"source": "a"}},
        {"__class__": "dict"},
    ],
    ids=str,
)
def test_a_filter_reaches_no_further_than_metadata(store: agentmem.Store, hostile: Any) -> None:
    documents = AgentMemVectorStore(store, Counted())
    documents.add_texts(["one"], [{"source": "a"}])
    assert documents.similarity_search("one", filter=hostile) == []
    assert len(documents.similarity_search("one", filter={"$not": hostile})) == 1


def test_filters_find_by_all_operators(store: agentmem.Store) -> None:
    documents = AgentMemVectorStore(store, Counted())
    documents.add_texts(
        ["1", "2", "3"],
        [
            {"source": "a", "at": {"page": 1}, "a.b": 1},
            {"source": "b", "at": {"page": 2}, "$ref": 1},
            {"source": "c"},
        ],
        ids=["1", "2", "3"],
    )
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"source": "a"}, {"1"}),
        ({"source": {"$in": ["a", "c"]}}, {"1", "3"}),
        ({"at.page": {"$gte": 1, "$lt": 2}}, {"1"}),
        ({"at": {"$exists": False}}, {"3"}),
        ({"$and": [{"source": {"$ne": "a"}}, {"$not": {"source": "b"}}]}, {"3"}),
        ({r"a\.b": 1}, {"1"}),
        ({r"\$ref": 1}, {"2"}),
        ({"at": {"page": 2}}, {"2"}),
        ({}, {"1", "2", "3"}),
    ]
    for where, expected in cases:
        found = documents.similarity_search("1", k=9, filter=where)
        assert set(_ids(found)) == expected, where


@pytest.mark.parametrize(
    ("texts", "options", "error"),
    [
        (["one"], {"metadatas": [{"at": object()}]}, agentmem.InvalidValueError),
        (["one"], {"metadatas": [{"n": float("nan")}]}, agentmem.InvalidValueError),
        (["one", "two"], {"metadatas": [{}]}, ValueError),
        (["one", "two"], {"ids": ["1"]}, ValueError),
        (["one"], {"ids": ["x" * 2_000]}, agentmem.LimitExceededError),
        (["one"], {"ids": ["nul\0"]}, agentmem.InvalidValueError),
        ([1], {}, TypeError),
        (["one"], {"expected_version": 1}, TypeError),
        (["one"], {"batch_size": 0}, agentmem.InvalidValueError),
    ],
)
def test_what_cannot_be_stored_is_refused_as_a_whole(
    opened: agentmem.Store, texts: Any, options: Any, error: type[Exception]
) -> None:
    documents = AgentMemVectorStore(opened, Counted())
    with pytest.raises(error):
        documents.add_texts(texts, **options)
    assert opened.count() == 0


def test_unknown_options_of_a_search_are_refused(opened: agentmem.Store) -> None:
    with pytest.raises(TypeError, match="where_document"):
        AgentMemVectorStore(opened, Counted()).similarity_search("one", where_document={})
    with pytest.raises(agentmem.InvalidValueError, match="namespace"):
        AgentMemVectorStore(opened, Counted(), namespace=())


def test_what_is_no_document_is_found_by_its_text(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened)
    opened.put("plan", {"note": "a tram"}, namespace="documents")
    assert documents.similarity_search("tram") == [Document(id="plan", page_content="a tram")]
