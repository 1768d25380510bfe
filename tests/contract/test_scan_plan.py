"""On SQLite, a page of a scan is read from where it starts, and nothing is sorted for it."""

from __future__ import annotations

from pathlib import Path

import agentmem
from agentmem.engines.sqlite.driver import driver
from agentmem.engines.sqlite.reads import SCAN

_NAMES = (
    "revision", "start_namespace", "start_key", "end", "after_namespace", "after_key",
    "upto_namespace", "upto_key", "key_start", "key_end", "limit",
)  # fmt: skip


def test_a_page_costs_what_it_holds_however_many_keys_there_are(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    agentmem.open(path, embedder=None).close()
    connection = driver.connect(path)
    try:
        rows = connection.execute("EXPLAIN QUERY PLAN " + SCAN, dict.fromkeys(_NAMES, "1"))
        plan = [row[-1] for row in rows.fetchall()]
    finally:
        connection.close()
    assert not any("TEMP B-TREE" in step for step in plan), plan
    assert "SEARCH h USING PRIMARY KEY ((namespace,key)>(?,?) AND namespace<?)" in plan, plan
