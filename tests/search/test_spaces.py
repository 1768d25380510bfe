"""Which vectors the namespaces have, read while others make new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import agentmem
from agentmem.engines.sqlite import driver, vectors
from agentmem.engines.sqlite.engine import SqliteEngine


class Disturbed:
    """A connection on which another store commits after each statement."""

    def __init__(self, connection: driver.Connection, other: agentmem.Store) -> None:
        self._connection = connection
        self._other = other
        self._made = 0

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        rows = self._connection.execute(sql, parameters)
        self._made += 1
        namespace = f"made-{self._made}"
        self._other.put("k", 1, namespace=namespace, vector=[1.0] * (10 + self._made))
        return rows


def test_every_set_that_a_namespace_names_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with (
        agentmem.open(path, embedder=None) as store,
        agentmem.open(path, embedder=None) as other,
    ):
        other.put("k", 1, namespace="first", vector=[1.0, 2.0])
        engine = store._core.engine
        assert isinstance(engine, SqliteEngine)
        found = vectors.spaces(Disturbed(engine._connections.get(), other))
    assert len(found.of) == 1
    assert set(found.of.values()) <= set(found.sets)
