"""AgentMemStore: LangGraph's interface, on every kind of store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    PutOp,
    SearchOp,
)

import agentmem
from langgraph_agentmem import AgentMemStore
from tests.byte_search import found_in
from tests.contract.conftest import ManualClock
from tests.embedders import DIMENSION, WordsEmbedder, cosine

DOCS: Final = ("docs", "team")


def vectors(texts: list[str]) -> list[list[float]]:
    """Vectors by words; the same in every process."""
    return WordsEmbedder()(texts).tolist()  # type: ignore[no-any-return]  # NumPy's is Any


@pytest.fixture
def memory(store: agentmem.Store) -> Iterator[AgentMemStore]:
    """A store for LangGraph over each kind of store."""
    with AgentMemStore(store) as made:
        yield made


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[tuple[AgentMemStore, ManualClock]]:
    """A store whose time stands still, and its clock."""
    clock = ManualClock()
    with AgentMemStore(str(tmp_path / "timed.db"), clock=clock, durability="relaxed") as store:
        yield store, clock


def keys(items: list[Any]) -> list[str]:
    return [item.key for item in items]


def test_an_item_is_put_read_put_again_and_deleted(memory: AgentMemStore) -> None:
    memory.setup()
    assert memory.get(DOCS, "a") is None
    memory.put(DOCS, "a", {"n": 1, "list": [1, {"x": None}]})
    first = memory.get(DOCS, "a")
    assert first is not None
    assert (first.namespace, first.key, first.value) == (
        DOCS,
        "a",
        {"n": 1, "list": [1, {"x": None}]},
    )
    assert first.created_at == first.updated_at
    memory.put(DOCS, "a", {"n": 2})
    second = memory.get(DOCS, "a")
    assert second is not None
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    memory.delete(DOCS, "a")
    memory.delete(DOCS, "a")
    assert memory.get(DOCS, "a") is None


def test_a_batch_reads_the_state_before_it_and_applies_the_last_put_of_a_key(
    memory: AgentMemStore,
) -> None:
    memory.put(DOCS, "a", {"n": 1})
    memory.put(DOCS, "gone", {"n": 0})
    before = memory.agentmem.revision
    found = memory.batch(
        [
            PutOp(DOCS, "a", {"n": 2}),
            GetOp(DOCS, "a"),
            PutOp(DOCS, "a", {"n": 3}),
            SearchOp(("docs",), None, 10),
            PutOp(DOCS, "gone", None),
            ListNamespacesOp(),
            PutOp(("other",), "b", {"n": 4}),
        ]
    )
    assert [type(each).__name__ for each in found] == [
        "NoneType", "Item", "NoneType", "list", "NoneType", "list", "NoneType",
    ]  # fmt: skip
    assert found[1].value == {"n": 1}  # type: ignore[union-attr]  # it is the item
    assert sorted(keys(found[3])) == ["a", "gone"]  # type: ignore[arg-type]  # the items
    assert found[5] == [DOCS]
    assert memory.agentmem.revision == before + 1  # one commit
    assert memory.get(DOCS, "a").value == {"n": 3}  # type: ignore[union-attr]  # it is there
    assert memory.list_namespaces() == [DOCS, ("other",)]


def test_a_batch_with_one_bad_operation_does_nothing(memory: AgentMemStore) -> None:
    good = PutOp(DOCS, "a", {"n": 1})
    for bad, error in (
        (PutOp((), "b", {}), InvalidNamespaceError),
        (PutOp(("langgraph", "x"), "b", {}), InvalidNamespaceError),
        (PutOp(("a.b",), "b", {}), InvalidNamespaceError),
        (PutOp(("a", ""), "b", {}), InvalidNamespaceError),
        (PutOp(("a\x00",), "b", {}), InvalidNamespaceError),
        (PutOp((1,), "b", {}), InvalidNamespaceError),  # type: ignore[arg-type]  # on purpose
        (PutOp(DOCS, "b", [1]), agentmem.InvalidValueError),  # type: ignore[arg-type]  # on purpose
        (PutOp(DOCS, "b", {"x": float("nan")}), agentmem.InvalidValueError),
        (PutOp(DOCS, "b", {"x": object()}), agentmem.InvalidValueError),
        (SearchOp(("docs",), {"n": {"$where": 1}}), ValueError),
        ("nonsense", ValueError),
    ):
        with pytest.raises(error):
            memory.batch([good, bad])  # type: ignore[list-item]  # on purpose
    assert memory.search(()) == []


def test_what_a_batch_reads_is_still_so_when_it_writes(tmp_path: Path) -> None:
    moves = [2, 3]

    def embed(texts: list[str]) -> list[list[float]]:
        # The batch has read by now, and has yet to commit.
        if moves and texts == ["moving"]:
            store.agentmem.put("x", {"n": moves.pop(0)}, namespace=DOCS, overwrite=True, text=False)
        return vectors(texts)

    index: Any = {"dims": DIMENSION, "embed": embed, "fields": ["text"]}
    with AgentMemStore(str(tmp_path / "a.db"), index=index, durability="relaxed") as store:
        store.put(DOCS, "x", {"n": 1})
        read, _put = store.batch([GetOp(DOCS, "x"), PutOp(DOCS, "y", {"text": "moving"})])
        assert read.value == {"n": 3}  # type: ignore[union-attr]  # it is the item
        assert moves == []
        assert store.version_of(DOCS, "y") == 1


def test_reads_see_nothing_but_what_langgraph_has_a_name_for(memory: AgentMemStore) -> None:
    below = memory.agentmem
    below.put("root", {"n": 1})
    below.put("k", {"n": 1}, namespace=("langgraph", "checkpoints"))
    below.put("k", {"n": 1}, namespace=("a.b",))
    below.put("k", {"n": 1}, namespace=("seen",))
    assert memory.get((), "root") is None
    assert memory.get(("langgraph", "checkpoints"), "k") is None
    assert [item.namespace for item in memory.search(())] == [("seen",)]
    assert memory.list_namespaces() == [("seen",)]
    assert memory.get(("seen",), "k") is not None


def test_filters_compare_names_and_six_operators(memory: AgentMemStore) -> None:
    rows: dict[str, dict[str, Any]] = {
        "one": {"n": 1, "s": "10", "meta": {"a": {"b": 1}}, "flag": True},
        "two": {"n": 2.5, "s": "9", "meta": {"a": {"b": 2}}, "none": None},
        "dots": {"meta.a.b": 2, "$or": [1], "s": 9, "x' OR 1=1 --": 1},
    }
    for key, value in rows.items():
        memory.put(DOCS, key, value)

    def found(filter: dict[str, Any]) -> list[str]:
        return sorted(keys(memory.search(("docs",), filter=filter)))

    assert found({"n": 1}) == ["one"]
    assert found({"n": 1.0, "s": "10"}) == ["one"]
    assert found({"n": {"$gt": 1, "$lte": 2.5}}) == ["two"]
    assert found({"s": {"$lt": "2"}}) == ["one"]
    assert found({"s": {"$gte": 9}}) == ["dots"]
    assert found({"n": {"$ne": 1}}) == ["two"]
    assert found({"n": {"$ne": None}}) == ["one", "two"]
    assert found({"none": None}) == ["dots", "one", "two"]
    assert found({"flag": True}) == ["one"]
    assert found({"flag": 1}) == []
    assert found({"meta": {"a": {"b": 1}}}) == ["one"]
    assert found({"meta": {"a": {"b": {"$gte": 1}}}}) == ["one", "two"]
    assert found({"meta.a.b": 2}) == ["dots", "two"]
    assert found({"$or": [1]}) == ["dots"]
    assert found({"..": 1}) == found({"meta..a": 1}) == []
    assert found({"x' OR 1=1 --": 1}) == ["dots"]
    assert found({}) == ["dots", "one", "two"]
    for bad in ({"n": {"$regex": "x"}}, {"n": {"$gt": None}}, {"n": {"$or": []}}, {"": 1}):
        with pytest.raises(ValueError, match=r"operator|compares|key"):
            found(bad)


def test_constructor_keys_in_values_stay_data(memory: AgentMemStore, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    hostile = {
        "lc": 1,
        "type": "constructor",
        "id": ["builtins", "open"],
        "kwargs": {"file": str(trap), "mode": "w"},
        "__class__": "os.system",
        "py/object": "subprocess.Popen",
    }
    memory.put(DOCS, "a", {"nested": [hostile], **hostile})
    item = memory.get(DOCS, "a")
    assert item is not None
    assert item.value == {"nested": [hostile], **hostile}
    assert memory.search(DOCS, filter={"lc": 1})[0].value == item.value
    assert not trap.exists()


def test_namespaces_are_listed_by_condition_depth_and_page(memory: AgentMemStore) -> None:
    for labels in (("a", "x", "1"), ("a", "y", "1"), ("a-b", "x"), ("b", "x", "1", "deep")):
        memory.put(labels, "k", {})
    assert memory.list_namespaces(prefix=("a",)) == [("a", "x", "1"), ("a", "y", "1")]
    assert memory.list_namespaces(prefix=("*", "x")) == [
        ("a", "x", "1"), ("a-b", "x"), ("b", "x", "1", "deep"),
    ]  # fmt: skip
    assert memory.list_namespaces(suffix=("x", "*")) == [("a", "x", "1")]
    assert memory.list_namespaces(max_depth=1) == [("a",), ("a-b",), ("b",)]
    assert memory.list_namespaces(limit=2, offset=1) == [("a", "y", "1"), ("a-b", "x")]
    with pytest.raises(InvalidNamespaceError):
        memory.list_namespaces(prefix=("a.b",))


def test_the_newest_come_first_without_a_query(memory: AgentMemStore) -> None:
    for key in ("a", "b", "c"):
        memory.put(DOCS, key, {"key": key})
    memory.put(DOCS, "a", {"key": "again"})
    found = memory.search(("docs",), query="without an index a query is ignored")
    assert keys(found) == ["a", "c", "b"]
    assert {item.score for item in found} == {None}
    assert keys(memory.search(("docs",), limit=1, offset=1)) == ["c"]
    assert memory.search(("docs",), limit=0) == []


# Expiry.


def test_an_item_lives_on_from_each_read_unless_told_otherwise(
    timed: tuple[AgentMemStore, ManualClock],
) -> None:
    store, clock = timed
    store.put(DOCS, "a", {"n": 1}, ttl=1)
    store.put(DOCS, "b", {"n": 2})
    clock.advance(40)
    assert store.get(DOCS, "a") is not None  # a minute from here
    clock.advance(40)
    assert store.get(DOCS, "a", refresh_ttl=False) is not None
    assert keys(store.search(("docs",), refresh_ttl=False)) == ["b", "a"]
    clock.advance(15)
    assert keys(store.search(("docs",))) == ["b", "a"]  # another minute
    clock.advance(59)
    assert store.batch([GetOp(DOCS, "a"), PutOp(DOCS, "c", {})])[0] is not None
    clock.advance(59)
    assert store.version_of(DOCS, "a") == 1  # reads make no versions
    clock.advance(1)
    assert store.get(DOCS, "a") is None
    assert keys(store.search(("docs",))) == ["c", "b"]


def test_a_put_decides_anew_how_long_an_item_lives(
    timed: tuple[AgentMemStore, ManualClock],
) -> None:
    store, clock = timed
    store.put(DOCS, "a", {"n": 1}, ttl=1)
    store.put(DOCS, "a", {"n": 2})
    clock.advance(3_600)
    assert store.get(DOCS, "a") is not None
    store.put(DOCS, "a", {"n": 3}, ttl=2)
    store.agentmem.put("a", {"n": 4}, namespace=DOCS, overwrite=True, ttl_s=30)
    assert store.get(DOCS, "a") is not None  # whoever wrote it has not said that reads prolong it
    clock.advance(30)
    assert store.get(DOCS, "a") is None


def test_the_configuration_says_how_long_items_live(tmp_path: Path) -> None:
    clock = ManualClock()
    config: Any = {"default_ttl": 2, "refresh_on_read": False}
    with AgentMemStore.from_conn_string(
        str(tmp_path / "a.db"), ttl=config, clock=clock, durability="relaxed"
    ) as store:
        store.put(DOCS, "a", {})
        store.put(DOCS, "b", {}, ttl=None)
        clock.advance(119)
        assert store.get(DOCS, "a") is not None
        clock.advance(1)
        assert keys(store.search(())) == ["b"]


def test_a_sweep_removes_what_has_expired_and_what_is_kept_beside(
    timed: tuple[AgentMemStore, ManualClock],
) -> None:
    store, clock = timed
    store.put(DOCS, "a", {}, ttl=1)
    store.put(DOCS, "b", {}, ttl=5)
    clock.advance(61)
    assert len(store.agentmem.list("langgraph.ttl")) == 2
    assert store.sweep_ttl() == 1
    assert store.sweep_ttl() == 0
    assert [entry.key for entry in store.agentmem.list("langgraph.ttl")] == ["b"]
    assert store.history(DOCS, "a")[0].deleted


def test_the_sweeper_sweeps_until_it_is_stopped(tmp_path: Path) -> None:
    clock = ManualClock()
    store = AgentMemStore(
        str(tmp_path / "a.db"), ttl={"default_ttl": 1}, clock=clock, durability="relaxed"
    )
    store.put(DOCS, "a", {})
    clock.advance(60)
    swept, sweep = threading.Event(), store._sweeper._sweep

    def observed() -> int:
        count = sweep()
        swept.set()
        return count

    store._sweeper._sweep = observed
    future = store.start_ttl_sweeper(1e-6)
    assert swept.wait(60)
    again = store.start_ttl_sweeper(1e-6)
    assert store.agentmem.list("langgraph.ttl") == []
    assert store.stop_ttl_sweeper()
    assert future.result(60) is None
    assert again.cancel()
    assert store.stop_ttl_sweeper(0)
    store.start_ttl_sweeper(60).cancel()
    store.close()
    assert not any("sweeper" in thread.name for thread in threading.enumerate())


def test_without_a_configuration_no_sweeper_is_started(memory: AgentMemStore) -> None:
    assert memory.start_ttl_sweeper().result(0) is None
    assert memory.stop_ttl_sweeper()


# Search by meaning.


@pytest.fixture
def indexed(target: str) -> Iterator[AgentMemStore]:
    """A store that embeds two fields."""
    index: Any = {"dims": DIMENSION, "embed": vectors, "fields": ["title", "parts[*]"]}
    with AgentMemStore.from_conn_string(target, index=index, durability="relaxed") as store:
        yield store
        assert store.agentmem.admin.verify().problems == []


def test_an_item_is_as_near_as_its_nearest_field(indexed: AgentMemStore) -> None:
    indexed.put(DOCS, "a", {"title": "red moon", "parts": ["blue sea", "green tree"]})
    indexed.put(DOCS, "b", {"title": "green hill"})
    indexed.put(DOCS, "none", {"other": "green tree"})
    found = indexed.search(("docs",), query="green tree")
    assert keys(found) == ["a", "b"]
    assert found[0].score == pytest.approx(1)
    assert keys(indexed.search(("docs",), query="green tree", offset=1)) == ["b"]
    assert keys(indexed.search(("docs",), query="green hill", filter={"title": "red moon"})) == [
        "a"
    ]
    indexed.put(DOCS, "a", {"title": "red moon"})
    found = indexed.search(("docs",), query="green tree")
    assert sorted(keys(found)) == ["a", "b"]
    assert all(item.score is not None and item.score < 0.9 for item in found)
    indexed.delete(DOCS, "b")
    assert keys(indexed.search(("docs",), query="green hill")) == ["a"]


def test_a_filter_holds_for_items_that_are_found_by_a_further_field(
    indexed: AgentMemStore,
) -> None:
    indexed.put(DOCS, "a", {"title": "red moon", "parts": ["green tree", "blue sea"]})
    indexed.put(DOCS, "b", {"title": "green hill", "parts": ["old port"]})
    found = indexed.search(("docs",), query="green tree", filter={"title": "green hill"})
    assert keys(found) == ["b"]


def test_an_item_with_many_near_texts_hides_no_other(indexed: AgentMemStore) -> None:
    parts = [f"green tree {number}" for number in range(60)]
    indexed.put(DOCS, "many", {"title": "green tree", "parts": parts})
    indexed.put(DOCS, "one", {"title": "blue sea"})
    indexed.put(DOCS, "two", {"title": "old port", "parts": ["green hill"]})
    words = WordsEmbedder()
    nearest = cosine(words.vector("green hill"), words.vector("green tree"))
    assert nearest > cosine(words.vector("old port"), words.vector("green tree"))
    found = indexed.search(("docs",), query="green tree", limit=3)
    assert {item.key: item.score for item in found}["two"] == pytest.approx(nearest)
    assert found[0].key == "many"
    assert sorted(keys(found)) == ["many", "one", "two"]
    assert keys(indexed.search(("docs",), query="green tree", limit=1, offset=2)) == keys(found[2:])


def test_an_item_says_itself_what_of_it_is_embedded(indexed: AgentMemStore) -> None:
    indexed.put(DOCS, "a", {"title": "red", "note": "green tree"}, index=["note"])
    indexed.put(DOCS, "b", {"title": "green tree"}, index=False)
    found = indexed.search(("docs",), query="green tree")
    assert [(item.key, item.score) for item in found] == [("a", pytest.approx(1))]
    assert sorted(keys(indexed.search(("docs",)))) == ["a", "b"]


def test_texts_of_an_item_that_was_written_past_langgraph_are_not_found(
    indexed: AgentMemStore,
) -> None:
    indexed.put(DOCS, "a", {"title": "red moon", "parts": ["green tree"]})
    indexed.agentmem.put("a", {"title": "blue sea"}, namespace=DOCS, overwrite=True)
    found = indexed.search(("docs",), query="green tree")
    assert found[0].value == {"title": "blue sea"}
    assert found[0].score is not None
    assert found[0].score < 0.9
    assert indexed.sweep_ttl() == 0
    assert indexed.agentmem.list("langgraph.fields") == []


def test_an_async_embedder_works_on_the_loop_and_outside_of_it(tmp_path: Path) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def embed(texts: list[str]) -> list[list[float]]:
        loops.append(asyncio.get_running_loop())
        return vectors(texts)

    async def use(store: AgentMemStore) -> None:
        await store.aput(DOCS, "a", {"text": "green tree"})
        found = await store.asearch(("docs",), query="green tree")
        assert [item.key for item in found] == ["a"]
        assert set(loops) == {asyncio.get_running_loop()}

    index: Any = {"dims": DIMENSION, "embed": embed, "fields": ["text"]}
    with AgentMemStore(str(tmp_path / "a.db"), index=index, durability="relaxed") as store:
        asyncio.run(use(store))
        store.put(DOCS, "b", {"text": "blue"})
        assert keys(store.search((), query="blue")) == ["b", "a"]


class _Model(Embeddings):
    model = "words-1"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return vectors(texts)

    def embed_query(self, text: str) -> list[float]:
        return vectors([text])[0]


def test_an_open_store_brings_its_embedder(tmp_path: Path) -> None:
    with agentmem.open(str(tmp_path / "a.db"), embedder=_Model()) as below:
        index: Any = {"dims": DIMENSION, "fields": ["text"]}
        store = AgentMemStore(below, index=index)
        store.put(DOCS, "a", {"text": "green tree"})
        assert store.search((), query="green tree")[0].score == pytest.approx(1)
        AgentMemStore(below, index={**index, "embed": _Model()})
        for wrong in ({"dims": 3}, {"embed": vectors}):
            with pytest.raises(agentmem.InvalidValueError, match=r"dims|leave embed out"):
                AgentMemStore(below, index={**index, **wrong})
    with (
        agentmem.open(str(tmp_path / "b.db"), embedder=None) as below,
        pytest.raises(agentmem.InvalidValueError, match="without an embedder"),
    ):
        AgentMemStore(below, index={**index, "embed": vectors})


def test_what_an_index_cannot_be_is_refused(tmp_path: Path) -> None:
    target = str(tmp_path / "a.db")
    index: Any = {"dims": DIMENSION, "embed": vectors}
    for wrong in ({"fields": [1]}, {"distance_type": "l2"}, {"embed": None}):
        with pytest.raises(agentmem.InvalidValueError):
            AgentMemStore(target, index={**index, **wrong})
    with pytest.raises(agentmem.InvalidValueError, match="conflicts"):
        AgentMemStore(target, conflicts="maybe")  # type: ignore[arg-type]  # on purpose
    with AgentMemStore(target, index={**index, "dims": 5}) as store:
        with pytest.raises(agentmem.EmbedderError, match=r"12 numbers.*5"):
            store.put(DOCS, "a", {"text": "x"})
        assert store.search(()) == []


# What LangGraph's stores do not have.


def test_history_and_snapshots_show_what_was(memory: AgentMemStore) -> None:
    memory.put(DOCS, "a", {"n": 1})
    then = memory.snapshot()
    revision = memory.agentmem.revision
    memory.put(DOCS, "a", {"n": 2})
    memory.delete(DOCS, "a")
    assert memory.version_of(DOCS, "a") == 0
    assert [entry.value for entry in memory.history(DOCS, "a")] == [None, {"n": 2}, {"n": 1}]
    for view in (then, memory.snapshot(revision)):
        assert view.get(DOCS, "a").value == {"n": 1}  # type: ignore[union-attr]  # it is there
        assert keys(view.search(("docs",))) == ["a"]
        assert view.version_of(DOCS, "a") == 1
        assert [entry.version for entry in view.history(DOCS, "a")] == [1]
        with pytest.raises(agentmem.AccessDeniedError):
            view.put(DOCS, "a", {"n": 3})
        with pytest.raises(agentmem.AccessDeniedError):
            view.delete(DOCS, "a")
    with pytest.raises(agentmem.FutureRevisionError):
        memory.snapshot(99)


def test_an_item_is_erased_with_all_its_texts(tmp_path: Path) -> None:
    secrets = ["zebrafish", "quicksilver", "marigold"]
    index: Any = {"dims": DIMENSION, "embed": vectors, "fields": ["title", "parts[*]"]}
    with AgentMemStore(str(tmp_path / "a.db"), index=index, durability="relaxed") as store:
        store.put(DOCS, "a", {"title": secrets[0], "parts": secrets[1:]}, ttl=5)
        store.put(DOCS, "b", {"title": "harmless", "parts": ["harmless too"]})
        store.delete(DOCS, "a")
        assert {word.decode() for _file, word in found_in(tmp_path, secrets)} == set(secrets)
        store.purge(DOCS, "a", note="asked to")
        assert found_in(tmp_path, secrets) == []
        assert keys(store.search((), query="harmless too")) == ["b"]
        store.purge(DOCS, "b")
        assert store.search(()) == []
        with pytest.raises(agentmem.KeyMissingError):
            store.purge(DOCS, "never")
        assert store.agentmem.admin.verify().problems == []


def test_a_store_that_was_opened_elsewhere_stays_open(tmp_path: Path) -> None:
    with agentmem.open(str(tmp_path / "a.db"), embedder=None) as below:
        with AgentMemStore(below.scoped("team")) as store:
            store.put(("docs",), "a", {"n": 1})
        store.snapshot().close()
        assert below.get("a", namespace="team/docs") is not None
    with AgentMemStore(str(tmp_path / "a.db")) as store:
        assert store.search(("team",))[0].value == {"n": 1}
    with pytest.raises(agentmem.ClosedError):
        store.get(("docs",), "a")


def test_outside_of_a_graph_the_last_write_wins_without_a_warning(tmp_path: Path) -> None:
    target = str(tmp_path / "a.db")
    with AgentMemStore(target, agent="ann") as ann, AgentMemStore(target, agent="bob") as bob:
        ann.put(DOCS, "a", {"n": 1})
        bob.get(DOCS, "a")
        ann.put(DOCS, "a", {"n": 2})
        bob.put(DOCS, "a", {"n": 3})
        assert [(entry.agent, entry.value["n"]) for entry in ann.history(DOCS, "a")] == [
            ("bob", 3), ("ann", 2), ("ann", 1),
        ]  # fmt: skip


def test_the_asynchronous_calls_do_the_same(memory: AgentMemStore) -> None:
    async def use() -> None:
        await asyncio.gather(*(memory.aput(DOCS, f"k{n}", {"n": n}) for n in range(8)))
        item = await memory.aget(DOCS, "k3")
        assert item is not None
        assert item.value == {"n": 3}
        await memory.adelete(DOCS, "k3")
        found = await memory.asearch(("docs",), filter={"n": {"$lt": 5}}, limit=20)
        assert sorted(keys(found)) == ["k0", "k1", "k2", "k4"]
        assert await memory.alist_namespaces(prefix=("docs",)) == [DOCS]

    asyncio.run(use())
