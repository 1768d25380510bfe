"""Fixtures of the integrations: in memory, on a file, on PostgreSQL; stores end verified.

A test takes ``target`` (what `agentmem.open` takes) or ``store`` (one that is open), both once for
each kind of store. Published suites are subclassed as they are, and take the same fixtures.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import agentmem
from tests import postgres_server

KINDS: Final = ("memory", "file", "postgres")


def pytest_configure(config: pytest.Config) -> None:
    """Makes known the marks of `langchain_tests`, which are errors otherwise."""
    for name in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{name}: of langchain_tests; not used here")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Where the store of the test is kept."""
    return str(request.param)


@pytest.fixture
def target(kind: str, tmp_path: Path) -> Iterator[str]:
    """What `agentmem.open` takes; for ``memory``, each opening is a store of its own."""
    if kind == "memory":
        yield ":memory:"
    elif kind == "file":
        yield str(tmp_path / "team.db")
    else:
        name = f"test_{hashlib.blake2b(str(tmp_path).encode(), digest_size=8).hexdigest()}"
        yield postgres_server.store_url(name)
        postgres_server.drop([name])


@pytest.fixture
def store(target: str) -> Iterator[agentmem.Store]:
    """One open, empty store without an embedder."""
    opened = agentmem.open(target, durability="relaxed", embedder=None)
    try:
        yield opened
        with contextlib.suppress(agentmem.ClosedError):
            assert opened.admin.verify().problems == []
    finally:
        opened.close()
