"""What can be given as an embedder: callables, LangChain's, Chroma's, the static model."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentmem
from agentmem.errors import InvalidValueError
from agentmem.search import embedders
from agentmem.search.embedders import resolve
from tests.embedders import WordsEmbedder


class LangChainLike:
    """As LangChain's `Embeddings`: other vectors for questions than for documents."""

    model = "small-3"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[len(text), 1.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, len(text)]


def test_langchain_embeddings_are_asked_for_documents_and_for_queries() -> None:
    found = resolve(LangChainLike())
    assert found is not None
    assert found.identity == f"{__name__}.LangChainLike/small-3"
    assert np.frombuffer(found.embed(["four"])[0], "<f4").tolist() == [4, 1]
    assert np.frombuffer(found.embed_query("four"), "<f4").tolist() == [1, 4]


def test_real_langchain_embeddings_work() -> None:
    fake = pytest.importorskip("langchain_core.embeddings.fake")
    with agentmem.open(":memory:", embedder=fake.DeterministicFakeEmbedding(size=32)) as store:
        store.put("a", "budget")
        store.put("b", "river")
        hit = store.search("budget", mode="vector", k=1)[0]
        assert (hit.entry.key, hit.distance) == ("a", pytest.approx(0, abs=1e-6))


def test_chroma_embedding_functions_work() -> None:
    chromadb = pytest.importorskip("chromadb")

    class Lengths(chromadb.EmbeddingFunction):  # type: ignore[misc,name-defined]  # it is a class
        def __init__(self) -> None:
            pass

        def __call__(self, input: list[str]) -> Any:
            return [np.array([len(text), 1.0], dtype=np.float32) for text in input]

    with agentmem.open(":memory:", embedder=Lengths()) as store:
        store.put("short", "ab")
        store.put("long", "a very much longer text")
        assert store.search("cd", mode="vector", k=1)[0].entry.key == "short"


def test_an_object_says_how_much_words_count() -> None:
    found = resolve(WordsEmbedder())
    assert found is not None
    assert found.text_weight == 0.7

    class Heavy(WordsEmbedder):
        text_weight = 0.2

    heavy = resolve(Heavy())
    assert heavy is not None
    assert heavy.text_weight == 0.2
    Heavy.text_weight = 1.5
    with pytest.raises(InvalidValueError, match="text_weight"):
        resolve(Heavy())


@pytest.mark.parametrize(("given", "error"), [("gpt", InvalidValueError), (5, TypeError)])
def test_what_is_no_embedder_is_refused(given: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        agentmem.open(":memory:", embedder=given)


def test_without_the_extra_auto_is_words_alone_and_local_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedders.importlib.util, "find_spec", lambda _name: None)
    assert resolve("auto") is None
    with pytest.raises(agentmem.MissingExtraError, match=r"agentmem-store\[local\]") as raised:
        resolve("local")
    assert raised.value.extra == "local"


def test_the_static_model_finds_by_meaning_and_leaves_logging_alone() -> None:
    handlers = list(logging.getLogger().handlers)
    with agentmem.open(":memory:", embedder="local") as store:
        store.put("money", "The budget of the trip is 900 euros")
        store.put("way", "We fly to Lisbon in May")
        store.put("odd", "🎉🎉🎉")
        hits = store.search("What can we spend?", mode="vector")
        assert hits[0].entry.key == "money"
        assert len(hits) == 3
    assert logging.getLogger().handlers == handlers


def test_auto_gives_way_to_vectors_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "team.db"
    with agentmem.open(path, embedder=None) as store:
        store.put("a", "budget", vector=[1, 0, 0], namespace="mine")
    with agentmem.open(path) as store:
        store.put("b", "the budget", namespace="mine")
        store.put("c", "the budget", namespace="other")
        assert [hit.entry.key for hit in store.search([1, 0, 0], namespace="mine")] == ["a"]
        found = store.search("budget", namespace="mine")
        assert {hit.entry.key for hit in found} == {"a", "b"}
        assert [hit.entry.key for hit in store.search("budget", mode="vector", namespace="other")]


def test_opening_a_store_loads_no_model(tmp_path: Path) -> None:
    agentmem.open(tmp_path / "team.db").close()  # sqlite-utils, which makes it, loads NumPy
    code = (
        "import sys, agentmem\n"
        f"store = agentmem.open({str(tmp_path / 'team.db')!r})\n"
        "store.put('n', 5); store.get('n'); store.list()\n"
        "print(sorted({'wordllama', 'chromadb', 'numpy'} & set(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert out.stdout == "[]\n"
