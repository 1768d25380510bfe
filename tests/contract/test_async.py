"""The async API does what the plain one does, and never blocks the event loop."""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

import agentmem
from agentmem.aio.workers import Workers
from tests.contract.async_calls import CALLS
from tests.contract.conftest import ManualClock, StoreMaker
from tests.contract.test_async_names import PAIRS, vars_of

PACKAGE: Final = str(Path(agentmem.__file__).parent)
WAIT_S: Final = 60


@pytest.mark.parametrize("name", CALLS)
async def test_calls_do_what_the_plain_ones_do(
    astore: agentmem.AsyncStore, tmp_path: Path, name: str
) -> None:
    await CALLS[name](astore, tmp_path)


# Nothing blocks the event loop.

# What blocks a thread, and what of agentmem touches the storage.
BLOCKING: Final = {"sleep", "execute", "executemany", "flock", "lockf", "pread", "pwrite", "fsync"}
DRIVERS: Final = ("pysqlite3.dbapi2", "_sqlite3", "sqlite3", "fcntl", "psycopg.pq")
STORAGE: Final = ("engines/", "judge.py", "commit.py", "tail.py", "search/searcher.py")
IN_MEMORY: Final = {
    "describe": "what `repr` shows was there when the store was opened",
    "check": "whether the store was closed, or its process forked",
    "deleted": "of a row that was read",
}


class Watcher:
    """What runs in the thread of the event loop, besides the async API itself."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            name = getattr(argument, "__name__", "")
            of = getattr(argument, "__module__", None) or type(argument.__self__).__module__
            if name in BLOCKING or of in DRIVERS:
                self.seen.add(f"{of}.{name}")
        elif event == "call":
            path, name = frame.f_code.co_filename, frame.f_code.co_name
            inside = path.removeprefix(PACKAGE + "/")
            waits = path == threading.__file__ and name in ("wait", "join") and not _starts(frame)
            if waits or (inside.startswith(STORAGE) and name not in IN_MEMORY):
                self.seen.add(f"{inside}:{name}")


def _starts(frame: FrameType) -> bool:
    """Whether it waits for a thread to begin, which is no longer than any other call."""
    outer: FrameType | None = frame
    while outer is not None and outer.f_code.co_filename == threading.__file__:
        if outer.f_code.co_name == "start":
            return True
        outer = outer.f_back
    return False


@contextmanager
def watched() -> Iterator[Watcher]:
    watcher = Watcher()
    sys.setprofile(watcher)
    try:
        yield watcher
    finally:
        sys.setprofile(None)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the calls of async classes that were made."""
    found: set[str] = set()

    def recorded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found.add(name)
            return function(*args, **kwargs)

        return call

    for _plain, face in PAIRS:
        for name, value in vars_of(face).items():
            which = f"{face.__name__}.{name}"
            if inspect.isfunction(value) and not name.startswith("__"):
                monkeypatch.setattr(face, name, recorded(value, which))
            elif isinstance(value, property):
                monkeypatch.setattr(face, name, property(recorded(value.fget, which)))  # type: ignore[arg-type]  # it has a getter
    return found


def _all() -> set[str]:
    return {
        f"{face.__name__}.{name}"
        for _plain, face in PAIRS
        for name, value in vars_of(face).items()
        if (inspect.isfunction(value) or isinstance(value, property)) and not name.startswith("_")
    }


async def _call_all(make_store: StoreMaker, folder: Path, clock: ManualClock) -> Watcher:
    with watched() as watcher:
        for name, call in CALLS.items():
            (folder / name).mkdir()
            async with agentmem.aopen(
                make_store.target(name), durability="relaxed", clock=clock, embedder=None
            ) as store:
                await call(store, folder / name)
                repr(store)
    return watcher


async def test_every_call_is_made_and_none_blocks_the_event_loop(
    make_store: StoreMaker, tmp_path: Path, clock: ManualClock, called: set[str]
) -> None:
    watcher = await _call_all(make_store, tmp_path, clock)
    assert watcher.seen == set()
    assert _all() - called == set()


@pytest.mark.mutant
async def test_a_call_that_blocks_the_event_loop_is_noticed(
    make_store: StoreMaker,
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run(_workers: Workers, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    monkeypatch.setattr(Workers, "run", run)
    with watched() as watcher:
        async with agentmem.aopen(make_store.target(), clock=clock, embedder=None) as store:
            await store.put("k", 1)
    assert any(each.startswith("commit.py") for each in watcher.seen)
    assert any("engines/" in each for each in watcher.seen)


# Where functions run.


async def test_async_functions_run_on_the_loop_and_plain_ones_in_a_worker(
    astore: agentmem.AsyncStore,
) -> None:
    caller = contextvars.ContextVar("caller", default="nobody")
    caller.set("ann")
    seen: list[tuple[str, type, str]] = []

    def note(tx: object) -> None:
        where = "loop" if threading.current_thread() is threading.main_thread() else "worker"
        seen.append((where, type(tx), caller.get()))

    async def on_loop(tx: agentmem.AsyncTransaction) -> None:
        note(tx)

    await astore.transact(on_loop)
    await astore.transact(note)
    await astore.transact(functools.partial(on_loop))
    assert seen == [
        ("loop", agentmem.AsyncTransaction, "ann"),
        ("worker", agentmem.Transaction, "ann"),
        ("loop", agentmem.AsyncTransaction, "ann"),
    ]


async def test_a_plain_function_that_returns_a_coroutine_is_refused(
    astore: agentmem.AsyncStore,
) -> None:
    async def book(tx: agentmem.AsyncTransaction, value: int) -> None:
        await tx.put("k", value)

    with pytest.raises(TypeError, match="make it an async def function"):
        await astore.transact(lambda tx: book(tx, 1))
    assert await astore.count() == 0


def test_a_plain_store_refuses_async_functions(store: agentmem.Store) -> None:
    async def later(*_arguments: object) -> None: ...

    class Later:
        async def __call__(self, *_arguments: object) -> None: ...

    for function in (later, functools.partial(later, 1), Later()):
        calls: list[Callable[[], object]] = [
            functools.partial(store.transact, function),
            functools.partial(store.update, "k", function, default=1),
            functools.partial(store.once, "id", function),
            functools.partial(store.merge_hook("**"), function),
        ]
        for call in calls:
            with pytest.raises(TypeError, match="aopen"):
                call()
    assert store.revision == 0


async def test_item_access_says_what_to_await(astore: agentmem.AsyncStore) -> None:
    with pytest.raises(TypeError, match=r"await view.value\(key\)"):
        astore["k"]
    with pytest.raises(TypeError, match=r"await view.has\(key\)"):
        "k" in astore  # noqa: B015  # it is the call that is tested
    async with astore.transaction() as tx:
        with pytest.raises(TypeError, match=r"await tx.put\(key, value\)"):
            tx["k"] = 1
    with pytest.raises(TypeError, match="not iterable"):
        list(astore)
    with pytest.raises(agentmem.KeyMissingError):
        await astore.value("k")


async def test_a_blind_write_warns_where_it_was_awaited(astore: agentmem.AsyncStore) -> None:
    await astore.put("k", 1, agent="ann")
    with pytest.warns(agentmem.BlindWriteWarning) as warned:
        await astore.put("k", 2, agent="bob")
    assert warned[0].filename == __file__
