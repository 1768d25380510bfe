"""Fixtures of the race tests: the same races, every engine.

A test takes ``target``, which names a store that is not there yet, or ``make_target`` for more of
them. What is about files, their locks or SQLite's own steps takes ``tmp_path`` and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import BACKENDS, Backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """The engine under test."""
    return BACKENDS[request.param]


@pytest.fixture
def make_target(backend: Backend, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Names stores of the engine under test; they are removed at the end of the test."""
    used: set[str] = set()

    def make(name: str) -> str:
        target = backend.target(tmp_path, name)
        used.add(target)
        return target

    yield make
    backend.remove(used)


@pytest.fixture
def target(make_target: Callable[[str], str]) -> str:
    """A new store."""
    return make_target("store")
