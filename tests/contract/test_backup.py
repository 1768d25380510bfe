"""Backups of every engine: whole, at one revision, while others write, or not there at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
from agentmem.engines.sqlite import backup as sqlite_backup
from agentmem.engines.sqlite import connection, session
from agentmem.engines.sqlite.driver import driver
from agentmem.exchange import placing
from agentmem.exchange.backup import Backup
from agentmem.history import copy as copying
from agentmem.testing.crew import Crew
from tests.contract.conftest import ManualClock, StoreMaker
from tests.contract.test_copy import engine_of, everything, fill

_EVERYTHING: Final = 1_000_000
_MOST_WRITES: Final = 100_000


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_backup, "_PAGES", 3)
    monkeypatch.setattr(copying, "_PAGE_COMMITS", 4)


def opened(path: Path, **options: Any) -> agentmem.Store:
    return agentmem.open(path, embedder=None, durability="relaxed", **options)


def left_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_backup_holds_everything(
    store: agentmem.Store, clock: ManualClock, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    fill(store, clock)
    position = engine_of(store).position()

    made = store.admin.backup(folder / "team.db")

    assert left_in(folder) == ["team.db"]
    assert os.stat(made.path).st_mode & 0o7777 == 0o600
    assert (made.path, made.store_id) == (str(folder / "team.db"), engine_of(store).store_id)
    assert (made.revision, made.hash) == (position.revision, position.hash)
    assert made.commits == position.revision
    assert made.size_bytes == os.stat(made.path).st_size
    with opened(folder / "team.db", clock=clock) as copy:
        assert everything(copy) == everything(store)
        assert copy.admin.verify().problems == []
        assert copy.put("works on", 1).revision == position.revision + 1


def test_an_empty_store_has_a_backup(store: agentmem.Store, tmp_path: Path) -> None:
    made = store.admin.backup(tmp_path / "empty.db")
    assert (made.revision, made.hash, made.entries) == (0, b"", 0)
    with opened(tmp_path / "empty.db") as copy:
        assert copy.revision == 0


# While others write.


def write_pairs(
    report: Callable[[int], None], begin: Callable[[], object], target: str, worker: int, end: str
) -> None:
    """Keeps two keys equal, each pair changed by one transaction, until there is a file `end`."""
    with agentmem.open(target, durability="relaxed", embedder=None, agent=f"w{worker}") as store:
        begin()
        for number in range(_MOST_WRITES):
            if os.path.exists(end):
                break

            def work(tx: agentmem.Transaction, number: int = number) -> None:
                tx.put("left", number, namespace=f"w{worker}")
                tx.put("right", number, namespace=f"w{worker}")
                tx.increment("all")

            store.transact(work)
            report(number)


@pytest.mark.stress
def test_backups_under_load_are_the_store_at_one_revision(
    store: agentmem.Store, make_store: StoreMaker, tmp_path: Path
) -> None:
    made: list[Backup] = []
    end = tmp_path / "end"
    seen: set[int] = set()

    def heard(worker: int, _number: int) -> None:
        seen.add(worker)
        if len(seen) == len(workers) and len(made) < 3:
            seen.clear()
            made.append(store.admin.backup(tmp_path / f"{len(made)}.db"))
            if len(made) == 3:
                end.touch()

    workers = [(make_store.target(), worker, str(end)) for worker in range(3)]
    Crew(write_pairs, workers).run(heard)

    revisions = [each.revision for each in made]
    assert revisions == sorted(revisions)
    assert made[-1].revision < store.revision
    log = engine_of(store).chain(0, _EVERYTHING)
    for each in made:
        with opened(Path(each.path)) as copy:
            assert copy.admin.verify().problems == []
            assert engine_of(copy).chain(0, _EVERYTHING) == log[: each.revision]
            assert copy.revision == each.revision
            assert log[each.revision - 1][0].hash == each.hash
            for worker in range(3):
                pair = copy.list(f"w{worker}")
                assert len({entry.value for entry in pair}) <= 1
            assert copy["all"] == each.revision


def test_writers_do_not_wait_for_a_backup_and_are_not_in_it(
    store: agentmem.Store, make_store: StoreMaker, tmp_path: Path
) -> None:
    other = make_store()
    for number in range(40):
        store.put(f"k{number}", "x" * 300)
    store.audit.tag("before")
    told: list[str] = []

    def write(what: str, done: int, total: int) -> None:
        # In the middle of the copy, from another connection; it returns, so it did not wait.
        told.append(what)
        assert done <= total
        if what == "copying":
            other.put(f"k{len(told) % 40}", "y" * 600, overwrite=True)
            other.audit.tag("meanwhile")

    made = store.admin.backup(tmp_path / "b.db", progress=write)

    assert told.count("copying") > 5
    assert store.revision == 40 + told.count("copying")
    assert made.revision == 40
    with opened(tmp_path / "b.db") as copy:
        assert {entry.value for entry in copy.list()} == {"x" * 300}
        assert [tag.name for tag in copy.audit.tags()] == ["before"]


def test_a_checkpoint_under_the_lock_waits_for_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a SQLite whose checkpoints only the holder of the lock may do."""
    monkeypatch.setattr(session, "HAS_WAL_RESET_BUG", True)
    monkeypatch.setattr(session, "_CHECKPOINT_BYTES", 1)
    hour = 3_600_000  # whoever waits so long never ends
    monkeypatch.setattr(connection, "_BUSY_TIMEOUT_MS", hour)
    monkeypatch.setattr(session, "BUSY_TIMEOUT", f"PRAGMA busy_timeout={hour}")
    with opened(tmp_path / "a.db") as store, opened(tmp_path / "a.db") as other:
        for number in range(20):
            store.put(f"k{number}", "x" * 2_000)
        store.admin.backup(
            tmp_path / "b.db", progress=lambda *_told: other.put("k", 1, overwrite=True)
        )
        own = engine_of(other)._connections.get()  # type: ignore[attr-defined]  # of a file
        assert own.execute("PRAGMA busy_timeout").fetchone()[0] == hour


# Not there at all.

_KILLED: Final = """
import os, signal, sys
import agentmem
from agentmem.engines.sqlite import backup
from agentmem.history import copy

backup._PAGES, copy._PAGE_COMMITS = 6, 4
target, path, deadly = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = 0

def die(what, done, total):
    global calls
    calls += 1
    if calls == deadly:
        os.kill(os.getpid(), signal.SIGKILL)

with agentmem.open(target, embedder=None) as store:
    store.admin.backup(path, progress=die)
"""


@pytest.mark.slow
def test_a_backup_that_is_killed_is_not_there(
    make_store: StoreMaker, clock: ManualClock, tmp_path: Path
) -> None:
    store = make_store()
    fill(store, clock)
    folder = tmp_path / "backups"
    folder.mkdir()
    path = folder / "team.db"
    killed = 0
    for deadly in (1, 2, 4, 6, 8, 11, 100):
        command = [sys.executable, "-c", _KILLED, make_store.target(), str(path), str(deadly)]
        status = subprocess.run(command, check=False, timeout=120).returncode
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        names = left_in(folder)
        # Of one attempt, whatever others left: each removes what it finds abandoned.
        assert len({name.split(".partial")[0] for name in names}) == 1
        assert all(name.startswith(".agentmem-") for name in names)
    assert killed >= 4
    assert left_in(folder) == ["team.db"]
    with opened(path, clock=clock) as copy:
        assert everything(copy) == everything(store)


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("stage", ["copying", "verifying"])
def test_a_backup_that_is_interrupted_leaves_nothing(
    store: agentmem.Store, tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    store.put_many({f"k{number}": "x" * 500 for number in range(30)})

    def stop(what: str, _done: int, _total: int) -> None:
        if what == stage:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        store.admin.backup(folder / "b.db", progress=stop)
    assert left_in(folder) == []
    store.put("after", 1)
    assert store.admin.backup(folder / "b.db").revision == 2


def test_one_that_is_being_written_is_left_alone(store: agentmem.Store, tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with placing.placed(path, overwrite=False) as partial:
        Path(partial).write_bytes(b"half")
        Path(partial + "-journal").write_bytes(b"half")
        with suppress(_StoppedError), placing.placed(path, overwrite=False) as second:
            assert second != partial
            raise _StoppedError
        assert Path(partial).read_bytes() == b"half"
    assert path.read_bytes() == b"half"
    assert not Path(partial + "-journal").exists()


def test_who_comes_second_is_refused(store: agentmem.Store, tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with (
        pytest.raises(agentmem.StorageError, match="is there already"),
        placing.placed(path, overwrite=False),
    ):
        path.write_bytes(b"first")
    assert path.read_bytes() == b"first"
    assert [name for name in left_in(tmp_path) if "partial" in name] == []


def test_who_comes_in_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.db"

    def write() -> None:
        with placing.placed(path, overwrite=False):
            monkeypatch.setattr(placing, "_check_free", lambda *_: None)  # it looked a moment ago
            path.write_bytes(b"first")

    with pytest.raises(agentmem.StorageError, match="exists"):
        write()
    assert path.read_bytes() == b"first"


def test_what_is_there_is_refused_unless_told(store: agentmem.Store, tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    path.write_bytes(b"mine")
    with pytest.raises(agentmem.StorageError, match="is there already"):
        store.admin.backup(path)
    assert path.read_bytes() == b"mine"
    store.put("k", 1)
    assert store.admin.backup(path, overwrite=True).revision == 1
    with opened(path) as copy:
        copy.put("k", 2, overwrite=True)
        with pytest.raises(agentmem.StorageError, match="in use"):
            store.admin.backup(path, overwrite=True)
        assert copy["k"] == 2
    with pytest.raises(agentmem.StorageError, match="does not exist"):
        store.admin.backup(tmp_path / "nowhere" / "b.db")
    with pytest.raises(agentmem.StorageError, match="is a folder"):
        store.admin.backup(tmp_path)


def test_a_link_to_nowhere_is_refused(store: agentmem.Store, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")
    made = store.admin.backup(tmp_path / "link.db")
    assert made.path == str(tmp_path / "elsewhere.db")
    with pytest.raises(agentmem.StorageError, match="is there already"):
        store.admin.backup(tmp_path / "link.db")


@pytest.mark.requires("files")
def test_the_store_itself_is_refused(make_store: StoreMaker) -> None:
    store = make_store()
    store.put("k", 1)
    with pytest.raises(agentmem.StorageError, match="the store itself"):
        store.admin.backup(make_store.target(), overwrite=True)
    assert store["k"] == 1


@pytest.mark.requires("raw")
def test_a_damaged_store_has_no_backup(make_store: StoreMaker, tmp_path: Path) -> None:
    store = make_store(intact=False)
    store.put("k", "the truth")
    forger = driver.connect(make_store.target())
    forger.execute("""UPDATE entries SET value = '"a lie"'""")
    forger.commit()
    forger.close()
    with pytest.raises(agentmem.CorruptionError, match="no backup was made"):
        store.admin.backup(tmp_path / "b.db")
    assert not (tmp_path / "b.db").exists()


@pytest.mark.requires("raw")
def test_indexes_beside_the_store_are_not_in_its_backup(
    make_store: StoreMaker, tmp_path: Path
) -> None:
    store = make_store()
    store.put("k", 1)
    row = "INSERT INTO generations VALUES (1, 'folder', 'digest', 1, x'00', 1, 1, 0, 0)"
    raw = driver.connect(make_store.target(), isolation_level=None)
    raw.execute(row)
    store.admin.backup(tmp_path / "b.db")
    with opened(tmp_path / "b.db") as copy:
        assert engine_of(copy).generation(1) is None
    assert engine_of(store).generation(1) is not None
    raw.close()
