"""A server whose disk is full, and has room again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentmem
from tests.crash.workers import check_halves
from tests.postgres.places import run, target
from tests.postgres_server import Server

MIB = 1024 * 1024
# Not compressible, so that each needs its room.
VALUE = os.urandom(24_000).hex()
MANY = 10_000
pytestmark = pytest.mark.stress


class SmallDisk:
    """A database whose files are on a small disk, filled up by a file that can be removed."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.url = server.url.replace("/postgres?", "/crammed?")
        self._ballast = folder / "ballast"
        left = shutil.disk_usage(folder).free
        self._ballast.write_bytes(bytes(left - 2 * MIB))

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def small_disk(server: Server) -> Iterator[SmallDisk]:
    folder = Path(tempfile.mkdtemp(prefix="agentmem-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        folder.rmdir()
        pytest.skip(f"mounting a small disk is not possible here: {done.stderr.strip()}")
    try:
        place = folder / "space"
        place.mkdir()
        folder.chmod(0o755)
        if server.system_user is not None:
            shutil.chown(place, server.system_user)
        run(
            server.url,
            f"CREATE TABLESPACE small LOCATION '{place}'",
            "CREATE DATABASE crammed TABLESPACE small",
        )
        yield SmallDisk(server, folder)
        run(server.url, "DROP DATABASE crammed WITH (FORCE)", "DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607  # mount was there
        folder.rmdir()


def fill(store: agentmem.Store) -> int:
    """Writes until it fails; returns how many writes did not."""
    for number in range(MANY):
        try:
            store.put(f"k{number:04}", VALUE, op_id=f"op-{number}")
        except agentmem.DiskFullError:
            return number
    raise AssertionError("the disk is not small")


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_full_disk_is_a_typed_error_and_the_store_goes_on_when_there_is_room(
    small_disk: SmallDisk, durability: str
) -> None:
    url = target(small_disk.url)
    with agentmem.open(url, durability=durability) as store:
        snap = store.snapshot()
        count = fill(store)
        assert count > 5
        with pytest.raises(agentmem.DiskFullError, match="nothing was written: free space"):
            store.put(f"k{count:04}", VALUE, op_id=f"op-{count}")
        assert store.log(op_id=f"op-{count}") == []
        assert (store.revision, store.count(), snap.count()) == (count, count, 0)
        assert store[f"k{count - 1:04}"] == VALUE

        small_disk.make_room()
        entry = store.put(f"k{count:04}", VALUE, op_id=f"op-{count}")
        assert (entry.version, entry.revision) == (1, count + 1)
        assert store.put(f"k{count:04}", VALUE, op_id=f"op-{count}") == entry
    with agentmem.open(url) as store:
        assert store.count() == count + 1
        assert store.admin.verify().problems == []


def test_threads_on_a_full_disk_each_get_their_error_and_none_is_half_written(
    small_disk: SmallDisk,
) -> None:
    with agentmem.open(target(small_disk.url), durability="relaxed") as store:
        check_halves(store, VALUE, 25, small_disk.make_room)


def test_a_store_is_not_half_made_on_a_full_disk(small_disk: SmallDisk) -> None:
    with agentmem.open(target(small_disk.url)) as store:
        fill(store)

    def open_more() -> None:
        for number in range(MANY):  # the catalog has some room left in its pages
            agentmem.open(target(small_disk.url, f"more-{number}")).close()

    with pytest.raises(agentmem.DiskFullError, match="is as it was before"):
        open_more()
    small_disk.make_room()
    with agentmem.open(target(small_disk.url, "late")) as late:
        assert late.increment("n").version == 1
        assert late.admin.verify().problems == []
