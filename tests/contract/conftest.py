"""Fixtures of the contract suite: one suite, every engine.

A test takes ``store`` (one open store), ``make_store`` (more of them, on one target or several)
and ``clock`` (their time, which stands still until the test moves it). It knows no engine: what
an engine lacks is a named capability, which a test asks for by ``@pytest.mark.requires(name)``.
To add an engine, add a `Backend` to `BACKENDS`.

Every store that a test leaves open is verified at its end: whatever the test did, the log must
be whole and what is derived from it must agree.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
from tests import postgres_server

CAPABILITIES: Final = {
    "files": "the store is a file, with a mode, a place and bytes that can be looked at",
    "raw": "the store's tables can be changed behind agentmem's back",
}


@dataclass(frozen=True)
class Backend:
    """An engine as the suite sees it.

    Attributes:
        name: of the engine.
        target: what to open for a name, in a folder of the test's own.
        remove: called at the end of a test with the targets that it used.
        lacks: capabilities that it does not have, each with the reason.
    """

    name: str
    target: Callable[[Path, str], str]
    remove: Callable[[set[str]], None] = lambda _targets: None
    lacks: dict[str, str] = field(default_factory=dict)


def _sqlite_target(folder: Path, name: str) -> str:
    return str(folder / f"{name}.db")


def _postgres_target(folder: Path, name: str) -> str:
    # One folder a test; its path tells the stores of one test from those of another.
    digest = hashlib.blake2b(f"{folder}/{name}".encode(), digest_size=8).hexdigest()
    return postgres_server.store_url(f"test_{digest}")


def _drop(targets: set[str]) -> None:
    postgres_server.drop([target.rsplit("store=", 1)[1] for target in targets])


BACKENDS: Final = {
    each.name: each
    for each in (
        Backend("sqlite", _sqlite_target),
        Backend(
            "postgres",
            _postgres_target,
            _drop,
            lacks={
                "files": "its files are the server's",
                "raw": "tests/postgres changes its tables",
            },
        ),
    )
}


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", "requires(capability): needs an engine that has it")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """The engine under test; skips, with the reason, what it is not capable of."""
    found = BACKENDS[request.param]
    for marker in request.node.iter_markers("requires"):
        for capability in marker.args:
            assert capability in CAPABILITIES, f"no capability is called {capability!r}"
            if capability in found.lacks:
                pytest.skip(f"{found.name} lacks {capability!r}: {found.lacks[capability]}")
    return found


class ManualClock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Moves on (or back), and returns the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    """The time of every store of the test."""
    return ManualClock()


class StoreMaker:
    """Opens stores of the engine under test; the same name is the same store."""

    def __init__(self, backend: Backend, folder: Path, clock: ManualClock) -> None:
        self.backend = backend
        self._folder = folder
        self._clock = clock
        self._opened: list[tuple[agentmem.Store, bool]] = []
        self._targets: set[str] = set()

    def target(self, name: str = "team") -> str:
        """What `agentmem.open` takes for a name."""
        target = self.backend.target(self._folder, name)
        self._targets.add(target)
        return target

    def __call__(
        self, name: str = "team", *, intact: bool = True, **options: Any
    ) -> agentmem.Store:
        """Opens a store, a second time on the same target if it is open already.

        Args:
            name: which store.
            intact: False if the test damages it, so that it is not verified at the end.
            options: of `agentmem.open`; relaxed durability unless it says otherwise.
        """
        options = {"durability": "relaxed", "clock": self._clock, "embedder": None} | options
        store = agentmem.open(self.target(name), **options)
        self._opened.append((store, intact))
        return store

    def finish(self) -> None:
        """Verifies what is still open, and closes it."""
        try:
            for store, intact in self._opened:
                if intact:
                    with contextlib.suppress(agentmem.ClosedError):
                        assert store.admin.verify().problems == []
        finally:
            for store, _intact in self._opened:
                store.close()
            self.backend.remove(self._targets)


@pytest.fixture
def make_store(backend: Backend, tmp_path: Path, clock: ManualClock) -> Iterator[StoreMaker]:
    """Opens stores that are verified and closed at the end of the test."""
    maker = StoreMaker(backend, tmp_path, clock)
    yield maker
    maker.finish()


@pytest.fixture
def store(make_store: StoreMaker) -> agentmem.Store:
    """One open, empty store."""
    return make_store()


@pytest.fixture
async def astore(make_store: StoreMaker, clock: ManualClock) -> AsyncIterator[agentmem.AsyncStore]:
    """One open, empty store for tasks, with two workers; verified like the others."""
    async with agentmem.aopen(
        make_store.target(), max_workers=2, durability="relaxed", clock=clock, embedder=None
    ) as store:
        make_store()  # the second connection, which is verified at the end
        yield store
