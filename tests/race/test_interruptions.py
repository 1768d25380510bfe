"""Asynchronous exceptions in the thread that commits for others.

The batch that is struck, in every test here::

    holder              struck                first, second        late
    commits, held
                        waits                 wait
    goes on
                        leads; takes three
                        enters the session                         waits
        -- an exception somewhere from here --
                        commits {struck, first, second}
                        hands over
                                                                   leads, commits
"""

from __future__ import annotations

import gc
import itertools
import logging
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import agentmem
from agentmem.testing.held import Call, Held
from agentmem.testing.interrupted import interrupt_process
from agentmem.testing.strikes import Interruption, Strike, storm
from tests.contract.conftest import Backend

# Those of both engines; an exception inside of a C call, as psycopg makes them, comes after it.
COMMIT_PATH = {
    "ahead.py", "commit.py", "connection.py", "lock.py", "pool.py", "session.py", "wire.py",
}  # fmt: skip
# They turn values into bytes and back, hundreds of times a batch, and hold nothing.
PURE = {"_text", "_element", "_rows", "_bytes", "_truth", "_columns", "_by_place", "<listcomp>"}
MOST_PLACES = 2_000
MOST_MISSES = 20
# There are hundreds, and on PostgreSQL thousands, many of which cost a connection.
STRIDE = {"sqlite": 1, "postgres": 4}
TRANSACT_STRIDE = {"sqlite": 2, "postgres": 13}
# An exception that strikes in a callback of the interpreter's own, as of a weak reference, is
# printed and dropped there: no code of agentmem sees it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

HANG_S = 20.0
LOCK_TIMEOUT_MS = 5_000
# An exception struck at the handover keeps its connection in its frames until it is dropped; what
# runs on its way out, as leaving the lane, needs another.
POOL_SIZE = 2


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> Iterator[None]:
    """Garbage is looked for after each strike: only in what these tests make, not in all before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class TimeLimitError(Exception):
    """An asynchronous exception that is no BaseException only: `signal.alarm` with TimeoutError."""


def small_pool(target: str) -> str:
    """The target, on PostgreSQL with a pool of few connections."""
    return f"{target}&pool_size={POOL_SIZE}" if "://" in target else target


def forget_frames(error: BaseException | None) -> None:
    """Drops what an exception keeps: the frames it came through, and what was in their hands."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def assert_no_connection_lost(store: agentmem.Store, where: str) -> None:
    """All connections of a pool can be had at once."""
    engine: Any = store._core.engine
    if engine.name != "postgres":
        return  # a connection is a thread's there, and ends with it
    gc.collect()  # a frame may be in a circle
    pool = engine._pool
    with ExitStack() as stack:
        for number in range(POOL_SIZE):
            try:
                stack.callback(pool.give_back, pool.take())
            except agentmem.AgentMemError as error:
                raise AssertionError(f"{where} the pool has {number} connections left") from error


class Scene:
    """A store, another opened on the same target as another process would, and a struck batch."""

    def __init__(self, target: str) -> None:
        limits = agentmem.Limits(lock_timeout_ms=LOCK_TIMEOUT_MS)
        self.store = agentmem.open(small_pool(target), durability="relaxed", limits=limits)
        # Of its own descriptors, so that a lock left held keeps it out, as another process.
        self.other = agentmem.open(target, durability="relaxed", limits=limits)
        self.held = Held(self.store)
        self.numbers = itertools.count()
        for store in (self.store, self.other):
            engine: Any = store._core.engine
            if engine.name == "postgres":
                # A statement is prepared when a connection has its first: each strike that ends a
                # connection would move the places of the next.
                engine._pool.prepares = False

    def close(self) -> None:
        self.store.close()
        self.other.close()

    def play(self, strike: Strike, *, followers: int = 2, late: bool = True) -> None:
        """One struck batch; asserts all that must hold, whatever was struck."""
        key = f"counter-{next(self.numbers)}"
        held, calls = self.held, {}

        def call(name: str, around: Strike | None = None) -> Call[agentmem.Entry[int]]:
            op_id = f"{key}:{name}" if name == "struck" else None
            return held.call(lambda: self.store.increment(key, op_id=op_id), around)

        def send_late(_session: object) -> None:
            calls["late"] = call("late")

        with held.back(key):
            if late:
                held.on_session.append(send_late)
            calls["struck"] = call("struck", strike)
            calls |= {f"follower {number}": call("follower") for number in range(followers)}
        hanging = held.join(HANG_S)
        held.on_session.clear()
        assert not hanging, f"{len(hanging)} calls hang after a strike at {strike.struck}"
        self._check(key, calls, strike)

    def _check(self, key: str, calls: dict[str, Call[agentmem.Entry[int]]], strike: Strike) -> None:
        where = f"after a strike at {strike.struck}"
        struck = calls["struck"]
        errors = {name: call.error for name, call in calls.items() if call is not struck}
        assert not any(errors.values()), f"{where} another call got it: {errors}"
        forget_frames(struck.error)
        assert_no_connection_lost(self.store, where)
        total = len(calls) + 1  # with the one that was held
        before = self.other.get(key)
        assert before is not None
        # Struck and not committed, or struck and committed all the same: both are honest.
        assert total - before.value in ({0} if struck.error is None else {0, 1}), where
        retried = self.other.increment(key, op_id=f"{key}:struck")
        assert retried.version <= total
        after = self.other.get(key)
        assert after is not None
        assert after.value == after.version == total, f"{where}: {after.value}, not {total}"


@pytest.fixture
def scene(target: str, caplog: pytest.LogCaptureFixture) -> Iterator[Scene]:
    caplog.set_level(logging.CRITICAL, "agentmem")
    scene = Scene(target)
    yield scene
    scene.close()


def stride_of(scene: Scene) -> int:
    engine: Any = scene.store._core.engine
    return STRIDE[engine.name]


def strike_everywhere(
    scene: Scene, error: type[BaseException], *, followers: int, late: bool
) -> int:
    """Strikes once at each place of the commit path, or each fourth; returns how many there are."""
    missed, stride = 0, stride_of(scene)
    for place in range(1, MOST_PLACES, stride):
        strike = Strike({place}, COMMIT_PATH, error, PURE)
        scene.play(strike, followers=followers, late=late)
        # How often a socket is looked at before it answers differs, so one miss is no end.
        missed = 0 if strike.struck else missed + 1
        if missed == MOST_MISSES:
            return place - missed * stride
    raise AssertionError("the commit path never ends")


@pytest.mark.stress
@pytest.mark.parametrize("late", [False, True], ids=["nobody follows", "leadership is handed on"])
@pytest.mark.parametrize("followers", [0, 2], ids=["a batch of one", "a batch of three"])
def test_an_interruption_anywhere_in_the_leader_reaches_its_own_caller_alone(
    scene: Scene, followers: int, late: bool
) -> None:
    places = strike_everywhere(scene, Interruption, followers=followers, late=late)
    assert places > 100, "the places of the commit path are not found"
    assert scene.other.admin.verify().problems == []


@pytest.mark.stress
def test_an_asynchronous_exception_of_any_class_reaches_its_own_caller_alone(scene: Scene) -> None:
    places = strike_everywhere(scene, TimeLimitError, followers=2, late=True)
    assert places > 100
    assert scene.other.admin.verify().problems == []


@pytest.mark.stress
def test_a_second_interruption_during_recovery_does_no_more_harm(scene: Scene, seed: int) -> None:
    choice = random.Random(seed)
    twice = missed = 0
    for first in range(1, MOST_PLACES, stride_of(scene)):
        strike = Strike({first, first + choice.randint(1, 40)}, COMMIT_PATH, spared=PURE)
        scene.play(strike)
        twice += len(strike.struck) == 2
        missed = 0 if strike.struck else missed + 1
        if missed == MOST_MISSES:
            break
    assert twice > 50 // stride_of(scene), "hardly any recovery was struck"
    assert scene.other.admin.verify().problems == []


def interrupted_transact(scene: Scene, key: str, strike: Strike) -> tuple[object, object]:
    """One transact that conflicts at first; what its own thread and another then see."""
    runs: list[None] = []

    def add(tx: agentmem.Transaction) -> int:
        runs.append(None)
        if len(runs) == 1:
            scene.other.increment(key)
        number: int = tx.get(key).value + 1  # type: ignore[union-attr]  # it is there
        tx.put(key, number)
        return number

    def work() -> object:
        try:
            with strike:
                scene.store.transact(add, op_id=f"{key}:transact")
        except Interruption:
            pass
        scene.other.increment(key)
        # A statement left half read would show this thread the past.
        return scene.store.get(key)

    call = Call(work)
    call.start()
    assert call.ended(HANG_S), f"it hangs after a strike at {strike.struck}"
    if call.error is not None:
        raise call.error
    return call.result, scene.other.get(key)


@pytest.mark.stress
def test_an_interruption_anywhere_in_transact_leaves_nothing_held(
    scene: Scene, backend: Backend
) -> None:
    stride = TRANSACT_STRIDE[backend.name]
    files = {"transact.py", "transaction.py", "contention.py", "lane.py", "core.py", "engine.py"}
    files |= {"reads.py", "log.py", "buffered.py", "views.py", "course.py"}
    files |= {"pool.py", "wire.py"}
    missed = 0
    for number in range(MOST_PLACES):
        place = 1 + number * stride
        key = f"transact-{place}"
        scene.store.put(key, 0)
        strike = Strike({place}, files, spared=PURE)
        seen, there = interrupted_transact(scene, key, strike)
        assert_no_connection_lost(scene.store, f"after a strike at {strike.struck}")
        assert seen == there, f"its thread reads the past after a strike at {strike.struck}"
        # A lane that was not let go costs the next one half a second, and is then replaced.
        scene.other.transact(
            lambda tx, key=key: tx.increment(key),  # type: ignore[misc]  # binds the loop's variable
            op_id=f"{key}:transact",
        )
        assert len(scene.other.log(op_id=f"{key}:transact", limit=5)) == 1
        missed = 0 if strike.struck else missed + 1
        if missed == MOST_MISSES:
            break
    assert place > 100, "the places of transact are not found"
    assert scene.other.admin.verify().problems == []


@pytest.mark.stress
def test_a_storm_of_interruptions_leaves_no_deadlock_and_counts_each_call_once(
    target: str, seed: int
) -> None:
    with agentmem.open(small_pool(target), durability="relaxed") as store:
        report = storm(store, threads=8, commits=3_000, seed=seed)
        assert report.problems == []
        assert_no_connection_lost(store, "after the storm")
        assert len(report.interrupted) > 100, "hardly any call was struck"
        assert len(report.acknowledged) > 100, "hardly any call returned"


@pytest.mark.stress
def test_ctrl_c_in_a_main_thread_that_commits_with_others_counts_each_call_once(
    target: str,
) -> None:
    report = interrupt_process(target, signal.SIGINT, threads=4, commits=400)
    assert report.problems == []
    assert len(report.interrupted) > 10, "hardly any call was interrupted"
