"""A store in a file, and the command line on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import agentmem
from tests.cli.program import Program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of an empty store."""
    path = tmp_path / "team.db"
    agentmem.open(path).close()
    return path


@pytest.fixture
def store(path: Path) -> Iterator[agentmem.Store]:
    """The same store as the library sees it."""
    with agentmem.open(path) as store:
        yield store


@pytest.fixture
def program(path: Path) -> Program:
    """The command line on it."""
    return Program(path)
