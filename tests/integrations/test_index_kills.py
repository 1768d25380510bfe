"""Wherever ``index()`` is killed, records and documents are not apart, and the next run ends it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_agentmem import AgentMemVectorStore
from langchain_agentmem.document_records import DocumentRecords
from tests.integrations.index_kills import survey

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform == "win32", reason="there is neither fork nor SIGKILL"),
]

Points = Callable[[int, list[int]], Sequence[int]]


def _between_commits(_count: int, begins: list[int]) -> list[int]:
    return begins


@pytest.mark.parametrize("cleanup", ["incremental", "full"])
def test_a_run_that_is_killed_between_any_two_commits_leaves_nothing_apart(
    tmp_path: Path, cleanup: str
) -> None:
    report = survey(tmp_path, cleanup, _between_commits)
    assert report.problems == []
    assert report.kills >= 7


@pytest.mark.parametrize("cleanup", ["incremental", "full", "scoped_full"])
def test_a_run_that_is_killed_anywhere_leaves_nothing_apart(
    tmp_path: Path, cleanup: str, seed: int
) -> None:
    rng = random.Random(seed)
    report = survey(tmp_path, cleanup, lambda count, _begins: rng.sample(range(1, count), 5))
    assert report.problems == []
    assert report.kills == 5


def _deletes_the_document_alone(store: AgentMemVectorStore, ids: list[str]) -> None:
    with store.store.transaction() as tx:
        for id in ids:
            tx.delete(id, namespace=store.namespace, overwrite=True)


def _knows_no_source(records: DocumentRecords, tx: Any, _key: Any, metadatas: Any) -> None:
    _ADOPT(records, tx, None, metadatas)


_ADOPT = DocumentRecords.adopt


@pytest.mark.mutant
@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (AgentMemVectorStore, "_delete", _deletes_the_document_alone),
        (DocumentRecords, "adopt", _knows_no_source),
    ],
    ids=["delete", "adopt"],
)
def test_the_check_notices_what_is_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, mutant: Any
) -> None:
    monkeypatch.setattr(owner, name, mutant)
    assert survey(tmp_path, "incremental", _between_commits).problems
