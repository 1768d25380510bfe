"""Opening and closing: what is accepted as a store, and what is left behind."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentmem
from agentmem import (
    ClosedError,
    CorruptionError,
    InvalidValueError,
    Limits,
    MigrationError,
    StorageError,
    Store,
    StoreBusyError,
    UnsafeStorageError,
)
from agentmem.engines.sqlite import files
from agentmem.engines.sqlite.driver import driver
from tests.contract.conftest import StoreMaker

needs_files = pytest.mark.requires("files")
needs_raw = pytest.mark.requires("raw")


def test_a_store_is_made_once_and_found_again(make_store: StoreMaker) -> None:
    with make_store() as store:
        store.put("k", 1)
        store_id = store.admin.stats()["store_id"]
    again = make_store()
    assert again["k"] == 1
    assert again.admin.stats()["store_id"] == store_id


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_both_durabilities_write_and_say_so(make_store: StoreMaker, durability: str) -> None:
    with make_store(durability=durability) as store:
        store.put("k", 1)
        assert store.admin.stats()["durability"] == durability
    assert make_store()["k"] == 1


def test_durability_is_one_of_two(make_store: StoreMaker) -> None:
    with pytest.raises(InvalidValueError, match="'full' or 'relaxed'"):
        make_store(durability="none")


@pytest.mark.parametrize("target", ["", "a\x00b", "mysql://host/db"])
def test_a_target_that_names_no_store_is_refused(target: str) -> None:
    with pytest.raises(InvalidValueError):
        agentmem.open(target)


@pytest.mark.parametrize("target", [None, 5, b"team.db"])
def test_a_target_is_a_path(target: Any) -> None:
    with pytest.raises(TypeError):
        agentmem.open(target)


def test_two_stores_on_one_target_share_everything(make_store: StoreMaker) -> None:
    one, two = make_store(), make_store()
    one.put("k", 1)
    assert two["k"] == 1
    with two.transaction() as tx:
        tx.increment("k")
    assert one["k"] == 2
    one.close()
    assert two.increment("k").value == 3


def test_two_stores_and_their_threads_lose_nothing(make_store: StoreMaker) -> None:
    stores = [make_store(), make_store()]
    start = threading.Barrier(6)

    def work(store: Store) -> None:
        start.wait()
        for _ in range(20):
            store.update("k", lambda value: value + 1, default=0)
            store.increment("n")

    threads = [threading.Thread(target=work, args=(stores[n % 2],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (stores[0]["k"], stores[1]["n"]) == (120, 120)
    assert [entry.version for entry in stores[0].history("k")] == list(range(120, 0, -1))


def test_a_closed_store_refuses_every_call(make_store: StoreMaker) -> None:
    store = make_store()
    store.put("k", 1)
    tx, tag, admin = store.transaction(), store.audit, store.admin
    store.close()
    store.close()
    calls: list[Callable[[], Any]] = [
        lambda: store.get("k"),
        lambda: store["k"],
        lambda: "k" in store,
        lambda: store.get_many(["k"]),
        store.list,
        store.count,
        store.namespaces,
        store.snapshot,
        store.transaction,
        store.log,
        store.merges,
        store.clear,
        lambda: store.revision,
        lambda: store.history("k"),
        lambda: store.put("k", 2),
        lambda: store.delete("k"),
        lambda: store.increment("k"),
        lambda: store.update("k", lambda value: value),
        lambda: store.transact(lambda tx: None),
        lambda: store.set_merge("k", "union"),
        admin.verify,
        admin.stats,
        tag.tags,
        lambda: tag.tag("t"),
        tag.conflicts,
        lambda: tag.diff("k", 0, 1),
        lambda: tx.get("k"),
        tx.commit,
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    assert make_store()["k"] == 1


def test_a_block_closes_the_store(make_store: StoreMaker) -> None:
    with make_store() as store:
        store.put("k", 1)
    with pytest.raises(ClosedError):
        store.get("k")


def test_a_clock_must_tell_an_aware_time(make_store: StoreMaker) -> None:
    from datetime import datetime

    with pytest.raises(TypeError, match="clock"):
        make_store(clock=5)
    with pytest.raises(InvalidValueError, match="time zone"):
        make_store(intact=False, clock=lambda: datetime(2026, 1, 1)).put("k", 1)  # noqa: DTZ001  # the point of the test


def test_a_clock_may_tell_seconds(make_store: StoreMaker) -> None:
    entry = make_store(clock=lambda: 1_769_860_800.25).put("k", 1)
    assert entry.committed_at is not None
    assert entry.committed_at.timestamp() == 1_769_860_800.25


# --- in memory ---


def test_a_store_in_memory_is_private_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = list(Path.cwd().iterdir())
    one, two = agentmem.open(":memory:"), agentmem.open(":memory:")
    one.put("k", 1)
    assert two.get("k") is None
    assert one.admin.verify().ok
    assert repr(one) == "Store(':memory:')"
    one.close()
    two.close()
    assert list(tmp_path.rglob("*")) == []
    assert list(Path.cwd().iterdir()) == before


def test_a_store_in_memory_that_is_dropped_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = agentmem.open(":memory:")
    store.put("k", 1)
    del store
    gc.collect()
    assert list(tmp_path.rglob("*")) == []


# --- files ---


@needs_files
def test_files_can_be_read_by_their_owner_alone(make_store: StoreMaker) -> None:
    # A permissive mask must not matter.
    mask = os.umask(0)
    try:
        store = make_store()
        store.put("k", 1)
    finally:
        os.umask(mask)
    folder = Path(make_store.target()).parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {"team.db", "team.db-wal", "team.db-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


@needs_files
def test_a_link_is_the_same_store(make_store: StoreMaker, tmp_path: Path) -> None:
    store = make_store()
    link = tmp_path / "link.db"
    link.symlink_to(make_store.target())
    with agentmem.open(link) as other:
        other.put("k", 1)
        assert store["k"] == 1
    assert not (tmp_path / "link.db-lock").exists()


@needs_files
@pytest.mark.parametrize("what", ["deleted", "moved", "replaced"])
def test_nothing_is_written_into_a_file_that_nobody_can_open_any_more(
    make_store: StoreMaker, tmp_path: Path, what: str
) -> None:
    store = make_store(intact=False)
    path = Path(make_store.target())
    store.put("k", 1)
    store.admin.backup(tmp_path / "copy.db")
    if what == "deleted":
        path.unlink()
    elif what == "moved":
        path.rename(tmp_path / "away.db")
    else:
        (tmp_path / "copy.db").replace(path)
    for write in (
        lambda: store.put("k", 2),
        lambda: store.transact(lambda tx: tx.put("k", 3)),
        lambda: store.queue("tasks").put(1),
    ):
        with pytest.raises(StorageError, match="was deleted, moved or replaced"):
            write()
    assert store["k"] == 1
    store.close()


@needs_files
def test_a_folder_or_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a folder"):
        agentmem.open(tmp_path)
    with pytest.raises(StorageError, match="does not exist"):
        agentmem.open(tmp_path / "no" / "team.db")
    assert list(tmp_path.iterdir()) == []


@needs_files
def test_an_empty_file_becomes_a_store(make_store: StoreMaker) -> None:
    Path(make_store.target()).touch()
    assert make_store().put("k", 1).version == 1


@needs_files
def test_a_foreign_database_is_refused(make_store: StoreMaker) -> None:
    connection = driver.connect(make_store.target())
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptionError, match="no agentmem store"):
        make_store()


@needs_files
def test_a_foreign_database_is_left_as_it_was(make_store: StoreMaker) -> None:
    path = Path(make_store.target())
    connection = driver.connect(str(path))
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CorruptionError):
        make_store()
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@needs_files
def test_a_text_file_is_refused_and_left_as_it_was(make_store: StoreMaker) -> None:
    path = Path(make_store.target())
    path.write_text("days,seats\n3,4\n" * 500)
    before = path.read_bytes()
    with pytest.raises(CorruptionError):
        make_store()
    assert path.read_bytes() == before


@needs_files
def test_a_damaged_store_is_reported_as_such(make_store: StoreMaker) -> None:
    path = Path(make_store.target())
    with make_store() as store:
        store.put_many({f"k{number:03}": "x" * 500 for number in range(200)})
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = os.urandom(len(content) - 4096 * 3)
    path.write_bytes(content)

    def read_everything() -> None:
        damaged = make_store(intact=False)
        damaged.list()
        assert damaged.admin.verify().ok

    with pytest.raises((CorruptionError, AssertionError)):
        read_everything()


@needs_raw
def test_a_store_of_a_newer_agentmem_is_refused(make_store: StoreMaker) -> None:
    make_store().close()
    connection = driver.connect(make_store.target())
    connection.execute("INSERT INTO agentmem_checksums VALUES ('9999_know_the_future', 'x')")
    connection.commit()
    connection.close()
    with pytest.raises(MigrationError, match=r"newer agentmem \(it has migration 9999_know"):
        make_store()


@needs_raw
def test_a_migration_that_is_not_the_one_applied_is_refused(make_store: StoreMaker) -> None:
    make_store().close()
    connection = driver.connect(make_store.target())
    connection.execute("UPDATE agentmem_checksums SET checksum = 'changed'")
    connection.commit()
    connection.close()
    with pytest.raises(MigrationError, match="is not the one that was applied"):
        make_store()


@needs_files
def test_a_store_that_another_holds_is_busy(make_store: StoreMaker) -> None:
    store = make_store(limits=Limits(lock_timeout_ms=20))
    store.put("k", 1)
    descriptor = os.open(make_store.target() + "-lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(StoreBusyError) as caught:
            store.put("k", 2)
        assert store["k"] == 1
    finally:
        os.close(descriptor)
    assert caught.value.waited_ms >= 20
    assert isinstance(caught.value, agentmem.TransientError)
    assert store.put("k", 2).version == 2


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /mnt/team rw shared:2 - nfs4 server:/export rw
24 22 0:22 / /mnt/my\\040share rw - cifs //server/share rw
25 23 8:2 / /mnt/team/local rw master:1 propagate_from:2 - xfs /dev/sdb1 rw
26 22 0:23 / /ssh rw - fuse.sshfs me@host: rw
27 22 0:24 / /over rw - nfs old:/x rw
28 22 8:3 / /over rw - btrfs /dev/sdc1 rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/team/store.db", "nfs4"),
        ("/mnt/team/deeper/store.db", "nfs4"),
        ("/mnt/my share/store.db", "cifs"),
        ("/ssh/store.db", "fuse.sshfs"),
        ("/home/me/store.db", None),
        ("/mnt/teams/store.db", None),
        ("/mnt/team/local/store.db", None),
        ("/over/store.db", None),
    ],
)
def test_a_network_file_system_is_refused(tmp_path: Path, path: str, kind: str | None) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    if kind is None:
        files.refuse_network(path, mounts=str(mounts))
        return
    with pytest.raises(UnsafeStorageError, match=f"{kind}.*PostgreSQL"):
        files.refuse_network(path, mounts=str(mounts))


def test_where_mounts_cannot_be_told_nothing_is_refused(tmp_path: Path) -> None:
    files.refuse_network("/mnt/team/store.db", mounts=str(tmp_path / "missing"))
