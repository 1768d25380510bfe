"""A disk that is full, and has room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentmem
from agentmem.testing.crew import Crew
from tests.crash.workers import VALUE, check_halves, fill, fill_limited_files

KIB = 1024
pytestmark = pytest.mark.stress


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not possible here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: a connection that was closed lets go of its files when it is collected.
        unmount = ["umount", "--lazy", str(folder)]
        subprocess.run(unmount, check=True)


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_full_disk_is_a_typed_error_and_the_store_goes_on_when_space_returns(
    small_disk: Path, durability: str
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(600 * KIB))
    path = small_disk / "full.db"
    with agentmem.open(path, durability=durability) as store:
        snap = store.snapshot()
        count, error = fill(store)
        assert isinstance(error, agentmem.DiskFullError)
        assert count > 5
        # Nothing was written, all before is there, and everybody can read.
        keys = [f"k{number:04}" for number in range(count)]
        assert [entry.key for entry in store.list()] == keys
        assert snap.count() == 0
        assert store.revision == count
        for _again in range(3):
            with pytest.raises(agentmem.DiskFullError):
                store.put(f"k{count:04}", VALUE, op_id=f"op-{count}")
        assert store.log(op_id=f"op-{count}") == []

        ballast.unlink()
        entry = store.put(f"k{count:04}", VALUE, op_id=f"op-{count}")
        assert (entry.version, entry.revision) == (1, count + 1)
        assert store.put(f"k{count:04}", VALUE, op_id=f"op-{count}") == entry
        assert store.increment("after").value == 1
        assert len(store.log(op_id=f"op-{count}")) == 1
    with agentmem.open(path) as store:
        assert store.count() == count + 2
        assert store.admin.verify().problems == []


def test_threads_on_a_full_disk_each_get_their_error_and_none_is_half_written(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(600 * KIB))
    with agentmem.open(small_disk / "threads.db", durability="relaxed") as store:
        check_halves(store, VALUE, 30, ballast.unlink)


def test_files_that_may_not_grow_are_a_typed_error_and_a_retry_applies_once(
    tmp_path: Path,
) -> None:
    """RLIMIT_FSIZE, which needs no rights: the write fails with EFBIG, which is no full disk."""
    path, said = tmp_path / "limited.db", list[dict[str, Any]]()
    agentmem.open(path).close()
    Crew(fill_limited_files, [(str(path), 512 * KIB)]).run(lambda _worker, each: said.append(each))
    (told,) = said
    error, count = told["error"], told["count"]
    assert isinstance(error, (agentmem.StorageError, agentmem.IndeterminateCommitError))
    assert told["readable"] == count
    assert (told["version"], told["after"]) == (1, 1)
    with agentmem.open(path) as store:
        if isinstance(error, agentmem.IndeterminateCommitError):
            assert error.op_id == f"op-{count}"
            rows = store._core.engine.commits(0, None, 1_000, newest_first=False)
            written = error.attempt in [row.attempt for row in rows]
            assert written == (told["outcome"] is not None)
        assert store.count() == count + 2
        assert len(store.log(op_id=f"op-{count}")) == 1
        assert store.admin.verify().problems == []


def test_a_backup_that_the_disk_has_no_room_for_leaves_nothing_behind(
    small_disk: Path, tmp_path: Path
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(1_500 * KIB))
    with agentmem.open(tmp_path / "store.db", durability="relaxed") as store:
        store.put_many({f"k{number}": VALUE for number in range(60)})
        with pytest.raises(agentmem.DiskFullError, match=r"backup\.db; nothing is there"):
            store.admin.backup(small_disk / "backup.db")
        assert os.listdir(small_disk) == ["ballast"]
        ballast.unlink()
        assert store.admin.backup(small_disk / "backup.db").revision == 1
