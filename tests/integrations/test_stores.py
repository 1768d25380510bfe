"""The published suites of key-value stores, and what they do not ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.stores import BaseStore
from langchain_tests.integration_tests.base_store import BaseStoreAsyncTests, BaseStoreSyncTests

import agentmem
from langchain_agentmem import AgentMemByteStore, AgentMemKVStore
from langchain_agentmem import stores as stores_module
from tests.integrations.message_strategies import CONSTRUCTORS
from tests.strategies import json_values, keys

VALUES: tuple[Any, Any, Any] = ({"a": [1, None]}, "text", 0.5)


class TestBytes(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, store: agentmem.Store) -> BaseStore[str, bytes]:
        return AgentMemByteStore(store)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"\x00\xff", b"", b"three"


class TestBytesAsync(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, store: agentmem.Store) -> BaseStore[str, bytes]:
        return AgentMemByteStore(store)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"\x00\xff", b"", b"three"


class TestJson(BaseStoreSyncTests[Any]):
    @pytest.fixture
    def kv_store(self, store: agentmem.Store) -> BaseStore[str, Any]:
        return AgentMemKVStore(store)

    @pytest.fixture
    def three_values(self) -> tuple[Any, Any, Any]:
        return VALUES


class TestJsonAsync(BaseStoreAsyncTests[Any]):
    @pytest.fixture
    async def kv_store(self, store: agentmem.Store) -> BaseStore[str, Any]:
        return AgentMemKVStore(store)

    @pytest.fixture
    def three_values(self) -> tuple[Any, Any, Any]:
        return VALUES


@pytest.fixture(scope="module")
def local() -> Iterator[agentmem.Store]:
    """One store for all examples."""
    with agentmem.open(":memory:", durability="relaxed", embedder=None) as store:
        yield store


@given(pairs=st.dictionaries(keys(), st.binary(max_size=40), max_size=4))
def test_bytes_come_back_as_they_were(local: agentmem.Store, pairs: dict[str, bytes]) -> None:
    bytes_store = AgentMemByteStore(local)
    bytes_store.mset(list(pairs.items()))
    assert AgentMemByteStore(local).mget(list(pairs)) == list(pairs.values())


@given(pairs=st.dictionaries(keys(), json_values(), max_size=4))
def test_json_comes_back_as_it_was(local: agentmem.Store, pairs: dict[str, Any]) -> None:
    json_store = AgentMemKVStore(local)
    json_store.mset(list(pairs.items()))
    assert AgentMemKVStore(local).mget(list(pairs)) == list(pairs.values())


def test_a_constructor_stays_what_it_is(store: agentmem.Store) -> None:
    json_store = AgentMemKVStore(store)
    json_store.mset([(str(number), value) for number, value in enumerate(CONSTRUCTORS)])
    assert json_store.mget([str(number) for number in range(len(CONSTRUCTORS))]) == [*CONSTRUCTORS]


def test_setting_and_deleting_are_one_commit_each(store: agentmem.Store) -> None:
    json_store = AgentMemKVStore(store, agent="ann")
    json_store.mset([("a", 1), ("b", 2), ("a", 3)])
    assert [entry.value for entry in store.list("kv")] == [3, 2]
    json_store.mdelete(["a", "nobody", "a"])
    assert json_store.mget(["a", "b", "b"]) == [None, 2, 2]
    assert [commit.agent for commit in store.log()] == ["ann", "ann"]
    json_store.mset([])
    json_store.mdelete(["nobody"])
    assert store.revision == 2


def test_setting_replaces_what_another_agent_wrote(store: agentmem.Store) -> None:
    AgentMemKVStore(store, agent="ann").mset([("a", 1)])
    AgentMemKVStore(store, agent="bob").mset([("a", 2)])
    AgentMemKVStore(store, agent="ann").mdelete(["a"])
    assert [entry.value for entry in store.history("a", namespace="kv")] == [None, 2, 1]


def test_what_is_refused_is_named_and_nothing_is_written(local: agentmem.Store) -> None:
    before = local.revision
    json_store, bytes_store = AgentMemKVStore(local), AgentMemByteStore(local)
    with pytest.raises(agentmem.InvalidValueError, match=r"key 'kv/b' at \$\.x") as caught:
        json_store.mset([("a", 1), ("b", {"x": {1, 2}})])
    assert caught.value.path == "$.x"
    with pytest.raises(
        agentmem.InvalidValueError, match="key 'bytes/b': a value is bytes, not str"
    ):
        bytes_store.mset([("a", b""), ("b", "text")])  # type: ignore[list-item]  # what is tested
    with pytest.raises(
        agentmem.LimitExceededError, match=r"key 'bytes/b'.*at most 4194304"
    ) as large:
        bytes_store.mset([("a", b""), ("b", b"x" * 3_200_000)])
    assert large.value.limit == 4_194_304
    with pytest.raises(agentmem.InvalidValueError):
        json_store.mset([("a", 1), ("", 2)])
    assert local.revision == before


def test_what_is_no_base64_is_refused(local: agentmem.Store) -> None:
    for value in ("a", "!!!!", "\u00e9", 7, {"lc": 1}, None):
        local.put("odd", value, namespace="bytes", overwrite=True)
        with pytest.raises(agentmem.InvalidValueError, match="key 'bytes/odd'"):
            AgentMemByteStore(local).mget(["odd"])


def test_keys_of_other_namespaces_are_not_listed(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_module, "_PAGE", 2)
    outer, inner = AgentMemKVStore(store), AgentMemKVStore(store, namespace=("kv", "a"))
    names = ["a%", "a_", "a*", "aa", "b", "b/c", "z"]
    outer.mset([(name, name) for name in names])
    inner.mset([(name, name) for name in names[:3]])
    assert list(outer.yield_keys()) == sorted(names)
    assert list(inner.yield_keys()) == sorted(names[:3])
    assert list(outer.yield_keys(prefix="a")) == ["a%", "a*", "a_", "aa"]
    assert list(outer.yield_keys(prefix="a%")) == ["a%"]
    keys_then = outer.yield_keys()
    first = next(keys_then)
    outer.mdelete(names)
    assert [first, *keys_then] == sorted(names)


def test_values_are_found_by_search_only_if_that_is_wanted(store: agentmem.Store) -> None:
    AgentMemKVStore(store).mset([("a", "pasta")])
    AgentMemByteStore(store).mset([("a", b"pasta")])
    AgentMemKVStore(store, namespace="open", searchable=True).mset([("b", {"x": "pasta"})])
    assert [hit.entry.key for hit in store.search("pasta", mode="text")] == ["b"]
    assert [entry.text for entry in store.list("bytes")] == [None]


def test_what_was_set_expires() -> None:
    now = [1_000_000.0]
    with agentmem.open(":memory:", embedder=None, clock=lambda: now[0]) as store:
        json_store = AgentMemKVStore(store, ttl_s=10)
        json_store.mset([("a", 1)])
        now[0] += 9
        assert json_store.mget(["a"]) == [1]
        now[0] += 1
        assert json_store.mget(["a"]) == [None]
        assert list(json_store.yield_keys()) == []


def test_embeddings_are_kept_in_it(tmp_path: Path) -> None:
    asked: list[str] = []

    class Counted(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            asked.extend(texts)
            return super().embed_documents(texts)

    found = []
    for _time in range(2):
        with AgentMemByteStore(tmp_path / "cache.db") as bytes_store:
            cached = CacheBackedEmbeddings.from_bytes_store(
                Counted(size=4), bytes_store, namespace="fake", key_encoder="sha256"
            )
            found.append(cached.embed_documents(["a", "b"]))
    assert asked == ["a", "b"]
    assert found[0] == found[1] == DeterministicFakeEmbedding(size=4).embed_documents(["a", "b"])
