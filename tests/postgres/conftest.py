"""Fixtures of what only PostgreSQL has: a server that a test may stop, change and break."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests import postgres_server
from tests.postgres_server import Server


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker of the contract suite, some of whose lists are used here, too."""
    config.addinivalue_line("markers", "requires(capability): needs an engine that has it")


@pytest.fixture(scope="session")
def _server() -> Server:
    return Server()


@pytest.fixture
def server(_server: Server) -> Iterator[Server]:
    """A server of these tests' own; whatever a test did to it, the next one finds it running."""
    yield _server
    _server.restore()


@pytest.fixture
def new_store() -> Iterator[Callable[[], str]]:
    """Names for stores on the shared server, which are dropped at the end."""
    names: list[str] = []

    def make() -> str:
        names.append(postgres_server.new_name())
        return names[-1]

    yield make
    postgres_server.drop(names)
