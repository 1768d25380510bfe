"""Copies between stores of every pair of engines: whole, resumable, and never over a history."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
from agentmem.engines.base import Engine
from agentmem.engines.rows import (
    NewCommit,
)
from agentmem.engines.session import CommitUnknownError, TryAgainError, WriteSession
from agentmem.engines.sqlite.driver import driver
from agentmem.history import copy as copying
from agentmem.history.copy import CopyReport, copy_store
from tests.contract.conftest import BACKENDS, ManualClock, StoreMaker

_HOSTILE: Final = (
    "", "NULL", "null", "it's", '"quoted"', "back\\slash", "{a,b}", "a,b", "$1", "%s", "{s}",
    "line\nend\ttab", "\u202e reversed", "zoë 🙂", "\x01\x02\x7f", "x" * 5_000,
)  # fmt: skip
_TABLES: Final = (
    "commits", "conflicts", "entries", "heads", "merge_strategies", "operation_results", "reads",
    "tags",
)  # fmt: skip
_EVERYTHING: Final = 1_000_000


class Pair:
    """A source and a target, each on an engine of its own."""

    def __init__(self, makers: tuple[StoreMaker, StoreMaker]) -> None:
        self._makers = makers

    def source(self, name: str = "from", **options: Any) -> agentmem.Store:
        return self._makers[0](name, **options)

    def target(self, name: str = "to", **options: Any) -> agentmem.Store:
        return self._makers[1](name, **options)

    def names(self) -> tuple[str, str]:
        """What `agentmem.open` takes for both."""
        return self._makers[0].target("from"), self._makers[1].target("to")


@pytest.fixture(
    params=[(first, second) for first in BACKENDS for second in BACKENDS],
    ids=lambda pair: f"{pair[0]}-to-{pair[1]}",
)
def pair(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Pair]:
    makers = []
    for name, side in zip(request.param, ("a", "b"), strict=True):
        (tmp_path / side).mkdir()
        makers.append(StoreMaker(BACKENDS[name], tmp_path / side, clock))
    yield Pair((makers[0], makers[1]))
    for maker in makers:
        maker.finish()


def engine_of(store: agentmem.Store) -> Engine:
    return store._core.engine


def copy(source: agentmem.Store, target: agentmem.Store, **options: Any) -> CopyReport:
    return copy_store(engine_of(source), engine_of(target), **options)


def everything(store: agentmem.Store) -> dict[str, Any]:
    """All rows of a store, but for its own id."""
    engine = engine_of(store)
    position = engine.position()
    return {
        "end": (position.revision, position.committed_at, position.hash, position.last_entry_id),
        "log": engine.chain(0, _EVERYTHING),
        "reads": sorted(engine.reads_of(0, _EVERYTHING), key=repr),
        "conflicts": engine.conflicts(None, 0, _EVERYTHING),
        "tags": engine.all_tags(),
        "strategies": [(row.pattern, row.spec) for row in engine.strategies()],
        "floor": engine.floor(),
        "present": [(e.namespace, e.key, e.version, e.value, e.expires_at) for e in store.list()],
    }


def fill(store: agentmem.Store, clock: ManualClock) -> None:
    """Something of all that a store can hold."""
    for number, text in enumerate(_HOSTILE):
        clock.advance(1)
        store.put(
            f"k{text[:100]}", {"v": text, "n": [number, -(2**63), 1.5, None, True]},
            namespace=("hostile", text[:100] or "empty"), agent=text[:100] or None,
            note=text[:100] or None, op_id=f"op {text[:50]}", metadata={"m": text},
            text=(False, None, text or None)[number % 3], overwrite=True,
        )  # fmt: skip
    store.transact(lambda tx: [tx.get("absent") is None, *(e.key for e in tx.list())], op_id="read")

    def read_and_write(tx: agentmem.Transaction) -> dict[str, int]:
        found = tx.list("hostile", where={"n": {"$exists": True}})
        tx.put("found", len(found))
        tx.increment("edits", namespace="stats")
        return {"found": len(found)}

    store.transact(read_and_write, op_id="scan")
    store.scoped("hostile", agent="inner").put("inner", 1, op_id="scan")
    store.scoped("hostile").audit.tag("inside", note="it's")
    store.delete("found")
    store.put("found", "again", ttl_s=60)
    store.touch("found", ttl_s=600)
    store.set_merge("notes/*", "union")
    store.set_merge("rules/*", "escalate")
    store.set_merge("maximum/**", "maximum")
    base = store.put("n", ["a"], namespace="notes", agent="ann").version
    store.put("n", ["a", "b"], namespace="notes", agent="bob", expected_version=base)
    store.put("n", ["a", "c"], namespace="notes", agent="ann", expected_version=base)
    for key in ("one", "two"):
        store.put(key, "x", namespace="rules", agent="ann")
        store.put(key, "y", namespace="rules", agent="bob", expected_version=1)
        store.put(key, "z", namespace="rules", agent="ann", expected_version=1)
    store.audit.resolve(store.audit.conflicts("open")[0].id, "ours", note="decided")
    with pytest.raises(agentmem.ConflictError):
        store.put("k", 1, namespace="hostile", expected_version=7)
    store.audit.tag("start", at=1, agent="eva")
    store.audit.tag("now")


def test_everything_is_copied(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill(source, clock)

    report = copy(source, target)

    assert everything(target) == everything(source)
    position = engine_of(source).position()
    assert (report.began_at, report.revision, report.hash) == (0, position.revision, position.hash)
    assert (report.commits, report.source_revision) == (position.revision, position.revision)
    assert target.admin.verify().problems == []


def test_the_copy_works_on_as_the_source_would(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill(source, clock)
    copy(source, target)

    assert target.transact(lambda tx: 1 // 0, op_id="scan") == {"found": len(_HOSTILE)}
    last = max(each.id for each in source.audit.conflicts())
    with pytest.raises(agentmem.ConflictError):
        target.put("n", 1, expected_version=9)
    assert max(each.id for each in target.audit.conflicts()) > last
    version = target.get("n", namespace="notes").version
    merged = target.put("n", ["a", "d"], namespace="notes", expected_version=version - 1)
    assert merged.version == version + 1
    assert set(merged.value) >= {"a", "d"}
    assert target.get(f"k{_HOSTILE[0]}", namespace=("hostile", "empty"), default=None) is not None
    assert target.snapshot("start").count() == 1
    assert target.admin.verify().problems == []


def test_there_and_back_every_table_is_the_same(
    tmp_path: Path, clock: ManualClock, pair: Pair
) -> None:
    first = agentmem.open(tmp_path / "first.db", durability="relaxed", clock=clock)
    second = agentmem.open(tmp_path / "second.db", durability="relaxed", clock=clock)
    between = pair.target()
    with first, second:
        fill(first, clock)
        copy(first, between)
        copy(between, second)
    sides = []
    for name in ("first.db", "second.db"):
        connection = driver.connect(tmp_path / name)
        rows = {}
        for table in _TABLES:
            found = connection.execute(f"SELECT * FROM {table}")  # noqa: S608  # our own names
            rows[table] = sorted(found.fetchall(), key=repr)
        sides.append(rows)
        connection.close()
    assert all(sides[0].values())
    assert sides[0] == sides[1]


def test_an_empty_store_is_copied(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.set_merge("notes/*", "union")
    assert copy(source, target).revision == 0
    assert copy(source, target).revision == 0
    assert target.merges() == source.merges()


# Again and again.


def test_a_second_copy_brings_what_has_changed_since(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill(source, clock)
    source.put("kept", 1, ttl_s=100)
    source.put("for ever", 1, ttl_s=100)
    source.put("ends", 1)
    copy(source, target)

    source.touch("kept", ttl_s=5_000)
    source.touch("for ever", ttl_s=None)
    source.touch("ends", ttl_s=50)
    source.audit.resolve(source.audit.conflicts("open")[0].id, "theirs", note="so be it")
    source.audit.untag("start")
    source.audit.tag("now")
    source.set_merge("notes/*", "append")
    source.set_merge("maximum/**", None)
    source.put("new", 1)

    assert everything(target) != everything(source)
    report = copy(source, target)
    assert report.revision - report.began_at == 2  # to resolve is an operation, too
    assert everything(target) == everything(source)


def test_more_moved_expiries_and_conflicts_than_fit_on_a_page(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_PAGE_ROWS", 3)
    source, target = pair.source(), pair.target()
    source.put_many({f"k{number:02}": number for number in range(20)})
    copy(source, target)
    for number in range(20):
        if number % 4:
            source.touch(f"k{number:02}", ttl_s=100 + number)
        with pytest.raises(agentmem.ConflictError):
            source.put(f"k{number:02}", 1, expected_version=5)
    copy(source, target)
    assert everything(target) == everything(source)
    for number in range(20):
        source.touch(f"k{number:02}", ttl_s=None if number % 3 else 7)
    copy(source, target)
    assert everything(target) == everything(source)


def test_a_large_page_is_written_in_small_ones(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_PAGE_BYTES", 1_000)
    source, target = pair.source(), pair.target()
    for number in range(10):
        source.put("k", "x" * (100 + 300 * (number % 4)), overwrite=True)
    seen: list[tuple[str, int, int]] = []
    copy(source, target, progress=lambda *told: seen.append(told))
    assert everything(target) == everything(source)
    pages = [done for what, done, _total in seen if what == "copying"]
    assert pages == sorted(set(pages))
    assert 3 < len(pages) <= 10
    assert seen[-1] == ("verifying", 10, 10)


def test_what_is_written_to_the_source_meanwhile_is_for_the_next_run(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_PAGE_COMMITS", 2)
    source, target = pair.source(), pair.target()
    other = pair.source()
    source.set_merge("rules/*", "escalate")
    for number in range(5):
        source.put("k", number, overwrite=True)

    def write(what: str, done: int, total: int) -> None:
        if what == "copying":
            other.put("meanwhile", done, overwrite=True)
            other.audit.tag(f"at-{done}")
            other.put("r", done, namespace="rules", agent="a", expected_version=0)

    report = copy(source, target, progress=write)
    assert report.revision == 5
    assert report.source_revision > 5
    assert [each.name for each in target.audit.tags()] == []
    assert target.audit.conflicts("open") == []
    copy(source, target)
    assert everything(target) == everything(source)


# Refused.


def _refused(source: agentmem.Store, target: agentmem.Store, why: str) -> None:
    before = everything(target)
    with pytest.raises(agentmem.HistoryReplacedError, match=why) as caught:
        copy(source, target)
    assert "nothing was written" in str(caught.value)
    assert everything(target) == before


def test_a_target_with_another_history_is_refused(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.put_many({"a": 1})
    source.put_many({"b": 1})
    target.put_many({"a": 1})
    _refused(source, target, "revision 1 is not the source's")


def test_a_target_that_is_ahead_is_refused(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.put("a", 1)
    copy(source, target)
    target.put("b", 1)
    _refused(source, target, "revision 2, and the source at 1")


@pytest.mark.parametrize("what", ["tag", "strategy"])
def test_an_empty_log_with_something_beside_it_is_refused(pair: Pair, what: str) -> None:
    source, target = pair.source(), pair.target()
    source.put("a", 1)
    if what == "tag":
        target.audit.tag("mine")
    else:
        target.set_merge("mine/*", "union")
    _refused(source, target, "tags or merge strategies")


def test_conflicts_of_the_target_alone_are_refused(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.put("a", 1)
    with pytest.raises(agentmem.ConflictError):
        target.put("a", 2, expected_version=3)
    _refused(source, target, "conflicts on record")
    with pytest.raises(agentmem.ConflictError):
        source.put("a", 2, expected_version=4)
    _refused(source, target, "conflicts on record")


def test_a_store_is_not_copied_to_itself(pair: Pair) -> None:
    source = pair.source()
    with pytest.raises(agentmem.InvalidValueError, match="same store"):
        copy(source, pair.source())


@pytest.mark.parametrize("when", ["copying", "verifying"])
def test_a_writer_on_the_target_is_noticed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(copying, "_PAGE_COMMITS", 2)
    source, target = pair.source(), pair.target()
    other = pair.target()
    for number in range(6):
        source.put("k", number, overwrite=True)
    intruded = False

    def intrude(what: str, done: int, total: int) -> None:
        nonlocal intruded
        if what == when and not intruded:
            intruded = True
            other.put("mine", 1)

    with pytest.raises(agentmem.HistoryReplacedError, match="another wrote to"):
        copy(source, target, progress=intrude)
    assert target["mine"] == 1
    assert target.revision == (3 if when == "copying" else 7)


def test_changed_history_is_not_copied(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "source.db"
    with agentmem.open(path, durability="relaxed") as source:
        for number in range(3):
            source.put("k", number, overwrite=True)
    forger = driver.connect(path)
    forger.execute("UPDATE commits SET agent = 'mallory' WHERE revision = 2")
    forger.commit()
    forger.close()
    target = pair.target()
    with agentmem.open(path) as source, pytest.raises(agentmem.CorruptionError, match="revision 2"):
        copy(source, target)
    assert target.revision == 0


def test_a_changed_value_is_found_at_the_end(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "source.db"
    with agentmem.open(path, durability="relaxed") as source:
        source.put("k", "the truth")
    forger = driver.connect(path)
    forger.execute("""UPDATE entries SET value = '"a lie"'""")
    forger.commit()
    forger.close()
    target = pair.target(intact=False)
    with agentmem.open(path) as source, pytest.raises(agentmem.CorruptionError, match="digest"):
        copy(source, target)


# Killed.

_KILLED: Final = """
import os, signal, sys
from agentmem.engines import open_engine
from agentmem.history import copy

source, target, deadly, when = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
copy._PAGE_COMMITS = 4
copy._PAGE_ROWS = 2
first = open_engine(source, "relaxed", None, 5_000)
second = open_engine(target, "relaxed", None, 5_000)
session, commits = second.session, 0

def dying_session():
    made = session()
    commit = made.commit
    def dying():
        global commits
        commits += 1
        if commits == deadly and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        commit()
        if commits == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
    made.commit = dying
    return made

second.session = dying_session
copy.copy_store(first, second)
first.close()
second.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_copy_that_is_killed_goes_on_where_it_was(
    pair: Pair, clock: ManualClock, when: str
) -> None:
    source, target = pair.source(), pair.target()
    fill(source, clock)
    killed = 0
    # Each run dies one commit later than the one before, until one has nothing left to die in.
    for deadly in range(1, 20):
        command = [sys.executable, "-c", _KILLED, *pair.names(), str(deadly), when]
        status = subprocess.run(command, check=False, timeout=120).returncode
        assert target.admin.verify().problems == []
        reached = engine_of(target).position()
        there = engine_of(source).position_at(reached.revision)
        assert there is not None
        assert reached.hash == there.hash
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
    assert killed >= 4
    assert status == 0
    assert everything(target) == everything(source)


# The storage fails.


class _Failing:
    """A write session whose commit fails, or has failed with its outcome unknown."""

    def __init__(self, session: WriteSession, failure: Exception, *, done: bool) -> None:
        self._session = session
        self._failure = failure
        self._done = done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def append(self, rows: NewCommit) -> None:
        self._session.append(rows)

    def commit(self) -> None:
        if self._done:
            self._session.commit()
        raise self._failure


@pytest.mark.parametrize("done", [True, False], ids=["committed", "not committed"])
def test_a_page_whose_outcome_is_unknown_is_written_once(
    pair: Pair, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    monkeypatch.setattr(copying, "_PAGE_COMMITS", 5)
    source, target = pair.source(), pair.target()
    fill(source, clock)
    engine: Any = engine_of(target)
    real: Callable[[], WriteSession] = engine.session
    made = 0

    def session() -> Any:
        nonlocal made
        made += 1
        failure = CommitUnknownError("cut")
        return _Failing(real(), failure, done=done) if made % 2 else real()

    monkeypatch.setattr(engine, "session", session)
    copy(source, target)
    monkeypatch.undo()
    assert everything(target) == everything(source)


def test_a_target_that_keeps_failing_is_given_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair.source(), pair.target()
    source.put("k", 1)
    engine: Any = engine_of(target)
    real = engine.session
    monkeypatch.setattr(
        engine, "session", lambda: _Failing(real(), TryAgainError("no"), done=False)
    )
    with pytest.raises(agentmem.StorageError, match="run the copy again"):
        copy(source, target)
    monkeypatch.undo()
    assert target.revision == 0
    copy(source, target)
    assert target["k"] == 1


def test_purged_and_compacted_history_is_copied(pair: Pair, clock: ManualClock) -> None:
    source, target = pair.source(), pair.target()
    fill(source, clock)
    source.put("gone", "secret", namespace="private")
    source.admin.purge(namespace="private", agent="officer")
    source.put("gone", "again", namespace="private")
    for number in range(5):
        source.put("n", number, overwrite=True)
    source.audit.untag("start")
    source.admin.compact(keep_versions=1)
    copy(source, target)
    assert everything(target) == everything(source)
    assert target.admin.verify().problems == []
    assert target._core.engine.floor() > 0
    source.put("n", 9, overwrite=True)
    source.admin.compact(keep_versions=1)
    copy(source, target)
    assert target.admin.verify().problems == []
    with pytest.raises(agentmem.CompactedError):
        target.snapshot(at=2)
    source.put("n", 10, overwrite=True)
    source.admin.purge("gone", namespace="private", agent="officer")
    copy(source, target)  # where the erased value still is
    assert target.history("gone", namespace="private")[1].value == "again"
    assert target.admin.stats()["open_purges"] == 1
    target.admin.purge("gone", namespace="private")
    assert target.admin.stats()["open_purges"] == 0
    copy(source, target)
    assert target.history("gone", namespace="private")[1].purged is not None
    fresh = pair.target("fresh")
    copy(source, fresh)
    (_new, stub) = fresh.history("gone", namespace="private", limit=2)
    assert stub.purged is not None
    assert stub.purged.agent == "officer"


def test_a_purge_meanwhile_is_not_finished_in_the_copy(pair: Pair) -> None:
    source, target = pair.source(), pair.target()
    source.put("p", "secret")
    told: list[str] = []

    def progress(what: str, _done: int, _of: int) -> None:
        if not told:
            source.admin.purge("p")
        told.append(what)

    copy(source, target, progress=progress)
    assert target["p"] == "secret"
    assert target.admin.stats()["open_purges"] == 1
    assert target.admin.verify().ok
