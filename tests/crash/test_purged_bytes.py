"""After a purge no erased byte is in any file of the store, wherever it was killed before."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentmem
from agentmem import BlindWriteWarning
from agentmem.engines.sqlite.driver import driver
from tests.byte_search import found_in
from tests.crash.purger import NAMESPACE

SECRET = "zebraquartz7731"  # noqa: S105  # it opens nothing
SEARCHED = "wolframite4420"  # by a search in a transaction, and in a filter
STEMS = ("obsidianfeather", "cryptotelemetr")  # as the text index would have them
VECTOR = np.arange(48, dtype="<f4") / 7 + 3.25

pytestmark = pytest.mark.filterwarnings(f"ignore::{BlindWriteWarning.__module__}.BlindWriteWarning")


def words() -> list[bytes]:
    """All that must be gone: parts of values, of words, of vectors."""
    secrets = [SECRET, SECRET[3:12], SEARCHED, *STEMS]
    return [*(word.encode() for word in secrets), VECTOR.tobytes()[40:72]]


def filled(path: Path) -> dict[str, Any]:
    """A store with what is to be purged in every table; returns what must not change."""
    with agentmem.open(path, embedder=None, durability="relaxed") as store:
        store.set_merge("private/merged", "escalate")
        for number in range(120):
            store.put(f"k{number}", {"n": number, "text": f"public words {number}"})
            store.put(
                f"p{number % 30}",
                {"who": SECRET + str(number), "text": " ".join(STEMS) + f" {SECRET} {number}"},
                namespace=NAMESPACE,
                op_id=f"put-{number}",
                overwrite=True,
            )
        store.put("large", [SECRET * 400], namespace=NAMESPACE)
        store.delete("large", namespace=NAMESPACE)
        store.put("vector", SECRET, namespace=NAMESPACE, vector=VECTOR)
        store.put("text", 1, namespace=NAMESPACE, text=SECRET)
        store.put("merged", "base", namespace=NAMESPACE)
        store.put("merged", SECRET + "theirs", namespace=NAMESPACE, expected_version=1)
        store.put("merged", SECRET + "ours", namespace=NAMESPACE, expected_version=1)

        def read(tx: agentmem.Transaction) -> Any:
            tx.list(NAMESPACE, where={"who": SEARCHED})
            tx.search(SEARCHED, namespace=NAMESPACE)
            tx.put("copied", 1, overwrite=True)
            return tx.get("p1", namespace=NAMESPACE).value  # type: ignore[union-attr]  # it is there

        store.transact(read, op_id="read")
        store.transact(
            lambda tx: tx.get("p2", namespace=NAMESPACE, track=False).value,  # type: ignore[union-attr]
            op_id="untracked",
        )
        with store.transaction() as tx:
            for entry in store.list(NAMESPACE):
                tx.put(entry.key, {"again": SECRET}, namespace=NAMESPACE, overwrite=True)
        return kept(store)


def kept(store: agentmem.Store) -> dict[str, Any]:
    """The whole history of all that is not purged."""
    keys = [entry.key for entry in store.list() if not entry.namespace]
    return {
        key: [(e.version, e.revision, e.value, e.deleted) for e in store.history(key)]
        for key in keys
    }


def assert_erased(folder: Path, path: Path, before: dict[str, Any]) -> None:
    assert found_in(folder, words()) == []
    with agentmem.open(path, embedder=None, durability="relaxed") as store:
        assert store.admin.verify().problems == []
        assert kept(store) == before
        assert store.list(NAMESPACE) == []
        history = store.history("p1", namespace=NAMESPACE)
        assert [entry.version for entry in history] == [6, 5, 4, 3, 2, 1]
        assert history[0].deleted
        assert all(
            each.purged is not None and each.purged.agent == "officer" for each in history[1:]
        )
        store.admin.backup(folder / "backup.db")
    assert found_in(folder, words()) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder / "team.db"


def purge(path: Path, when: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.purger", str(path), when], check=False, timeout=120
    ).returncode


def test_the_search_finds_what_is_there(path: Path) -> None:
    filled(path)
    found = {word for _path, word in found_in(path.parent, words())}
    assert found == set(words())


def test_after_a_purge_no_erased_byte_is_in_any_file(path: Path) -> None:
    before = filled(path)
    assert purge(path, "never") == 0
    assert_erased(path.parent, path, before)


@pytest.mark.parametrize("when", ["1", "2", "3", "4", "5", "6", "vacuum:1", "vacuum:12"])
def test_a_purge_that_was_killed_comes_to_the_same_end_when_it_is_run_again(
    path: Path, when: str
) -> None:
    before = filled(path)
    assert purge(path, when) == -signal.SIGKILL
    with agentmem.open(path, embedder=None, durability="relaxed") as store:
        assert store.admin.verify().problems == []
        assert kept(store) == before
    assert purge(path, "never") == 0
    assert_erased(path.parent, path, before)


def test_a_reader_of_an_older_state_blocks_it_and_is_told(path: Path) -> None:
    before = filled(path)
    # Of the same SQLite library as the store's, so that neither drops the other's locks.
    reader = driver.connect(str(path), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM entries").fetchall()
    limits = agentmem.Limits(lock_timeout_ms=100)
    with agentmem.open(path, embedder=None, durability="relaxed", limits=limits) as store:
        store._core.engine._connections.get().execute("PRAGMA busy_timeout=50")  # type: ignore[attr-defined]  # of this engine
        with pytest.raises(agentmem.StoreBusyError, match="reads an older state"):
            store.admin.purge(namespace=NAMESPACE, agent="officer")
        # The tables are done with it; only the files are not.
        assert store.list(NAMESPACE) == []
        entry = store.history("p1", namespace=NAMESPACE)[1]
        assert entry.purged is not None
        assert not entry.purged.finished
        assert found_in(path.parent, words()) != []
        reader.execute("ROLLBACK")
        reader.close()
        store.admin.purge(namespace=NAMESPACE, agent="another")
        assert found_in(path.parent, words()) == []  # while it is open, with its log
        entry = store.history("p1", namespace=NAMESPACE)[1]
        assert entry.purged is not None
        assert entry.purged.finished
    assert_erased(path.parent, path, before)
