"""``index`` and ``aindex`` with records that are written in the commits of the documents."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, RecordManager, aindex, index
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

import agentmem
from langchain_agentmem import AgentMemRecordManager, AgentMemVectorStore
from langchain_agentmem.document_records import DocumentRecords
from tests.integrations.index_kills import apart

Cleanup = Literal["incremental", "full", "scoped_full"]

_EMBEDDING: Final = DeterministicFakeEmbedding(size=6)
_NAMESPACE: Final = ("team", "docs")
_START: Final = 1_800_000_000.0


class Clock:
    """Stands still, or is set."""

    def __init__(self) -> None:
        self.now = _START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def opened() -> Iterator[agentmem.Store]:
    """In memory, for what does not depend on where it is kept."""
    with agentmem.open(":memory:", embedder=None) as made:
        yield made
        assert made.admin.verify().problems == []


def _pair(
    store: agentmem.Store, **options: Any
) -> tuple[AgentMemVectorStore, AgentMemRecordManager]:
    documents = AgentMemVectorStore(store, _EMBEDDING, namespace=_NAMESPACE)
    return documents, AgentMemRecordManager(documents, **options)


def _index(
    documents: Sequence[Document],
    records: RecordManager,
    store: VectorStore,
    cleanup: Cleanup | None = "full",
    **options: Any,
) -> dict[str, int]:
    return dict(
        index(
            documents, records, store, cleanup=cleanup, source_id_key="source",
            key_encoder="blake2b", **options,
        )
    )  # fmt: skip


def _documents(*names: str) -> list[Document]:
    return [Document(page_content=name, metadata={"source": name[0]}) for name in names]


def _contents(store: agentmem.Store) -> list[str]:
    return sorted(entry.value["page_content"] for entry in store.list(_NAMESPACE))


# index.


def test_index_does_what_it_does_with_langchains_own(store: agentmem.Store, seed: int) -> None:
    """Random corpora, modes and batches: the same counts, and the same documents, every time."""
    rng = random.Random(seed)
    ours = _pair(store)
    others = InMemoryVectorStore(_EMBEDDING), InMemoryRecordManager("records")
    names = [source + letter for source in "abc" for letter in "pqrst"]
    for _round in range(10):
        documents = _documents(*rng.choices(names, k=rng.randint(0, 12)))
        cleanup: Any = rng.choice(["incremental", "full", "scoped_full", None])
        options = {"batch_size": rng.choice([2, 5, 100]), "force_update": rng.random() < 0.2}
        expected = _index(documents, others[1], others[0], cleanup, **options)
        assert _index(documents, ours[1], ours[0], cleanup, **options) == expected
        assert _contents(store) == sorted(each["text"] for each in others[0].store.values())
        assert sorted(ours[1].list_keys()) == sorted(others[1].list_keys())
        assert apart(store, store.revision) == []


def test_at_no_revision_are_records_and_documents_apart(opened: agentmem.Store) -> None:
    documents, records = _pair(opened)
    _index(_documents("ap", "aq", "bp"), records, documents)
    _index(_documents("ap", "bp", "cp"), records, documents, "incremental")
    documents.add_documents(_documents("dp"), ids=["by hand"])
    documents.delete(["by hand"])
    _index([], records, documents)
    assert opened.count(_NAMESPACE) == 0
    for revision in range(1, opened.revision + 1):
        assert apart(opened, revision) == []


def test_another_store_object_keeps_the_records_too(target: str) -> None:
    """As another process would, which has no record manager."""
    if target == ":memory:":
        pytest.skip("each opening of a store in memory is a store of its own")
    with agentmem.open(target, embedder=None) as store:
        _documents_of, records = _pair(store)
        records.create_schema()
        with AgentMemVectorStore(target, _EMBEDDING, namespace=_NAMESPACE) as other:
            (id,) = other.add_documents(_documents("ap"))
            assert records.list_keys(group_ids=["a"]) == [id]
            assert records.exists([id, "absent"]) == [True, False]
            other.delete([id])
        assert records.list_keys() == []
        assert apart(store, store.revision) == []


def test_documents_that_were_there_before_get_their_records(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, _EMBEDDING, namespace=_NAMESPACE)
    ids = documents.add_documents(_documents(*(f"{n % 7}{n}" for n in range(1_203))))
    records = AgentMemRecordManager(opened, "team/docs")
    assert records.list_keys() == sorted(ids)
    assert sorted(records.list_keys(group_ids=["3"])) == sorted(ids[3::7])
    assert apart(opened, opened.revision) == []
    revision = opened.revision
    AgentMemRecordManager(opened, _NAMESPACE).create_schema()
    assert opened.revision == revision


def test_making_records_goes_on_where_it_was_broken_off(
    opened: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = AgentMemVectorStore(opened, _EMBEDDING, namespace=_NAMESPACE)
    documents.add_documents(_documents(*(f"a{n}" for n in range(1_203))))

    def breaks(_records: object, _tx: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AgentMemRecordManager, "_complete", breaks)
        with pytest.raises(KeyboardInterrupt):
            AgentMemRecordManager(documents).create_schema()
    documents.add_documents(_documents("b"))
    assert len(AgentMemRecordManager(documents).list_keys()) == 1_204
    assert apart(opened, opened.revision) == []


@pytest.mark.parametrize("call", ["add", "delete"])
def test_who_writes_while_records_are_begun_keeps_them(
    opened: agentmem.Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """
    ::

        a vector store                    a record manager
        looks: no records are kept
                                          begins to keep records
        commits: conflict, looks again
    """
    documents, records = _pair(opened)
    documents.add_documents(_documents("ap"), ids=["1"])
    look = DocumentRecords.schema
    begun = []

    def looks(found: DocumentRecords, view: Any) -> Any:
        schema = look(found, view)
        if not begun:
            begun.append(True)
            records.create_schema()
        return schema

    monkeypatch.setattr(DocumentRecords, "schema", looks)
    if call == "add":
        documents.add_documents(_documents("aq"), ids=["2"])
    else:
        documents.delete(["1"])
    assert apart(opened, opened.revision) == []
    assert records.list_keys() == (["1", "2"] if call == "add" else [])


def test_what_is_indexed_already_is_not_embedded_again(opened: agentmem.Store) -> None:
    documents, records = _pair(opened)
    first = _index(_documents("ap", "aq"), records, documents)
    assert first["num_added"] == 2
    again = _index(_documents("ap", "aq"), *reversed(_pair(opened)))  # type: ignore[arg-type]  # records, then documents
    assert again == {"num_added": 0, "num_deleted": 0, "num_skipped": 2, "num_updated": 0}
    assert [entry.version for entry in opened.list(_NAMESPACE)] == [1, 1]


async def test_aindex_does_the_same(store: agentmem.Store) -> None:
    documents, records = _pair(store)
    for names, added, deleted in ((["ap", "aq", "bp"], 3, 0), (["ap", "bq"], 1, 2)):
        found = await aindex(
            _documents(*names), records, documents, cleanup="full", source_id_key="source",
            key_encoder="blake2b",
        )  # fmt: skip
        assert (found["num_added"], found["num_deleted"]) == (added, deleted)
    assert _contents(store) == ["ap", "bq"]
    await records.acreate_schema()
    keys = await records.alist_keys(group_ids=["a"])
    assert await records.aexists([*keys, "absent"]) == [True, False]
    await records.aupdate(keys, time_at_least=await records.aget_time())
    await records.adelete_keys(keys)
    assert _contents(store) == ["bq"]


def test_a_run_is_named_in_the_commits_that_it_makes(opened: agentmem.Store) -> None:
    documents, records = _pair(opened, agent="indexer")
    config: RunnableConfig = {"configurable": {"thread_id": "thread-9"}}
    RunnableLambda(lambda names: _index(_documents(*names), records, documents)).invoke(
        ["ap"], config
    )
    commits = opened.log()
    assert {commit.metadata["thread_id"] for commit in commits if commit.metadata} == {"thread-9"}
    assert [commit.note for commit in commits] == [
        "index: update records", "add documents", "index: begin", "index: begin to keep records",
    ]  # fmt: skip


# Time.


@pytest.mark.parametrize("step_s", [0.0, -3_600.0], ids=["stands", "is set back"])
def test_cleanup_does_not_depend_on_a_clock_that_goes(tmp_path: Path, step_s: float) -> None:
    clock = Clock()
    with agentmem.open(tmp_path / "team.db", embedder=None, clock=clock) as store:
        documents, records = _pair(store)
        times = [records.get_time()]
        for names in (["ap", "aq"], ["aq", "bp"], ["bp"], ["ap"]):
            clock.now += step_s
            _index(_documents(*names), records, documents)
            assert _contents(store) == sorted(names)
            times.append(records.get_time())
        assert times == sorted(set(times))


def test_times_are_those_of_the_store(tmp_path: Path) -> None:
    with agentmem.open(tmp_path / "team.db", embedder=None, clock=Clock()) as store:
        assert _pair(store)[1].get_time() == pytest.approx(_START, abs=1e-3)


def test_a_time_in_the_future_is_refused(opened: agentmem.Store) -> None:
    documents, records = _pair(opened)
    ids = documents.add_documents(_documents("ap"))
    with pytest.raises(ValueError, match="future"):
        records.update(ids, time_at_least=records.get_time() + 3_600)
    records.update(ids, time_at_least=records.get_time())


# The calls of a record manager.


def test_keys_are_listed_by_time_and_group(opened: agentmem.Store) -> None:
    documents, records = _pair(opened)
    ids = documents.add_documents(_documents("ap", "bp", "cp"), ids=["1", "2", "3"])
    begun = records.get_time()
    records.update(ids[:2], group_ids=["x", None], time_at_least=begun)
    later = records.get_time()
    records.update(["2"], time_at_least=later)
    assert records.list_keys() == ["1", "2", "3"]
    assert records.list_keys(limit=2) == ["1", "2"]
    assert records.list_keys(before=begun) == ["3"]
    assert records.list_keys(after=begun) == ["2"]
    assert records.list_keys(before=later) == ["1", "3"]
    assert records.list_keys(group_ids=["x"]) == ["1"]
    assert records.list_keys(group_ids=["c", "x"], before=begun) == ["3"]
    assert records.list_keys(group_ids=["b"]) == []
    assert records.list_keys(group_ids=[]) == []
    assert records.list_keys(group_ids=["x" * 5_000, ""]) == []


def test_a_document_that_was_not_updated_yet_counts_from_its_commit(opened: agentmem.Store) -> None:
    documents, records = _pair(opened)
    begun = records.get_time()
    ids = documents.add_documents(_documents("ap"))
    later = records.get_time()
    assert records.list_keys(after=begun, before=later) == ids
    assert records.list_keys(before=begun) == records.list_keys(after=later) == []


def test_an_update_never_moves_a_record_back_and_keeps_groups(opened: agentmem.Store) -> None:
    documents, records = _pair(opened)
    ids = documents.add_documents(_documents("ap"))
    early, late = records.get_time(), records.get_time()
    records.update(ids, time_at_least=late)
    revision = opened.revision
    records.update(ids, time_at_least=early)
    assert opened.revision == revision, "there was nothing to change"
    assert records.list_keys(before=late) == []
    assert records.list_keys(group_ids=["a"]) == ids
    with pytest.raises(ValueError, match="group_ids"):
        records.update(ids, group_ids=["x", "y"])


def test_the_source_of_a_document_is_known_before_it_is_updated(opened: agentmem.Store) -> None:
    documents, records = _pair(opened, source_id_key="file")
    records.create_schema()
    ids = documents.add_texts(["1", "2", "3"], [{"file": "x"}, {"source": "x"}, {"file": 7}])
    assert records.list_keys(group_ids=["x"]) == ids[:1]
    documents.add_texts(["1"], [{"file": "y"}], ids=ids[:1])
    assert records.list_keys(group_ids=["y"]) == ids[:1]
    assert records.list_keys(group_ids=["x"]) == []
    assert apart(opened, opened.revision) == []


def test_an_update_of_what_is_gone_is_a_conflict_and_changes_nothing(
    opened: agentmem.Store,
) -> None:
    documents, records = _pair(opened)
    ids = documents.add_documents(_documents("ap", "aq"))
    assert records.exists(ids) == [True, True]
    documents.delete(ids[:1])
    begun, revision = records.get_time(), opened.revision
    with pytest.raises(agentmem.ConflictError, match="run index"):
        records.update(ids, time_at_least=begun)
    assert opened.revision == revision
    assert records.list_keys() == ids[1:]


def test_records_of_another_namespace_are_noticed_at_once(opened: agentmem.Store) -> None:
    documents = AgentMemVectorStore(opened, _EMBEDDING, namespace=_NAMESPACE)
    records = AgentMemRecordManager(opened, "elsewhere")
    with pytest.raises(agentmem.ConflictError, match="namespace"):
        _index(_documents("ap"), records, documents)


def test_deleting_records_deletes_their_documents(opened: agentmem.Store) -> None:
    documents, records = _pair(opened)
    ids = documents.add_documents(_documents("ap", "aq"))
    records.delete_keys([*ids[:1], "absent"])
    assert _contents(opened) == ["aq"]
    assert records.list_keys() == ids[1:]


def test_what_another_has_indexed_again_meanwhile_is_not_deleted(opened: agentmem.Store) -> None:
    """
    ::

        this run                     another
        list_keys: x is old
        vector_store.delete x
                                     exists x? no: add x, update x
        delete_keys x
    """
    documents, records = _pair(opened)
    documents.add_documents(_documents("ap", "aq"), ids=["x", "y"])
    listed = records.list_keys(before=records.get_time())
    assert listed == ["x", "y"]
    documents.delete(listed)
    documents.add_documents(_documents("ap"), ids=["x"])
    records.delete_keys(listed)
    assert _contents(opened) == ["ap"]
    assert records.list_keys() == ["x"]


def test_what_was_deleted_by_other_means_is_indexed_again(opened: agentmem.Store) -> None:
    documents, records = _pair(opened)
    _index(_documents("ap", "aq"), records, documents)
    victim = opened.list(_NAMESPACE)[0]
    opened.delete(victim.key, namespace=_NAMESPACE, overwrite=True)
    assert records.exists([victim.key]) == [False]
    assert _index(_documents("ap", "aq"), records, documents)["num_added"] == 1
    assert _contents(opened) == ["ap", "aq"]
    assert apart(opened, opened.revision) == []


def test_two_runs_at_once_keep_what_both_want(opened: agentmem.Store) -> None:
    """In threads, over the same and over different sources."""

    async def both() -> None:
        runs = []
        for names in (["ap", "aq", "bp"], ["ap", "cp", "cq"]):
            documents, records = _pair(opened)
            runs.append(
                aindex(
                    _documents(*names), records, documents, batch_size=1, cleanup="scoped_full",
                    source_id_key=lambda document: document.page_content, key_encoder="blake2b",
                )
            )  # fmt: skip
        await asyncio.gather(*runs)

    for _round in range(3):
        asyncio.run(both())
        assert _contents(opened) == ["ap", "aq", "bp", "cp", "cq"]
    assert apart(opened, opened.revision) == []
