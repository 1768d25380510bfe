"""On SQLite, a page is read from where it starts, and nothing is sorted or compiled for it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentmem
from agentmem.engines import sqlite
from agentmem.engines.sqlite.driver import driver
from agentmem.engines.sqlite.reads import SCAN, SCAN_BACK


@pytest.mark.parametrize(
    ("statement", "start"),
    [
        (SCAN, "((namespace,key)>(?,?) AND namespace<?)"),
        (SCAN_BACK, "((namespace,key)>(?,?) AND (namespace,key)<(?,?))"),
    ],
    ids=["forwards", "backwards"],
)
def test_a_page_costs_what_it_holds_however_many_keys_there_are(
    tmp_path: Path, statement: str, start: str
) -> None:
    path = tmp_path / "store.db"
    agentmem.open(path, embedder=None).close()
    connection = driver.connect(path)
    try:
        values = dict.fromkeys(re.findall(r":(\w+)", statement), "1")
        rows = connection.execute("EXPLAIN QUERY PLAN " + statement, values)
        plan = [row[-1] for row in rows.fetchall()]
    finally:
        connection.close()
    assert not any("TEMP B-TREE" in step for step in plan), plan
    assert f"SEARCH h USING PRIMARY KEY {start}" in plan, plan


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)


def test_no_limit_is_a_bare_parameter_for_which_sqlite_compiles_the_statement_anew() -> None:
    limits = []
    for module in pkgutil.iter_modules(sqlite.__path__, sqlite.__name__ + "."):
        for text in _texts(vars(importlib.import_module(module.name))):
            limits += re.findall(r"LIMIT\s+([:?]\w*(?:\s*\+ 0)?)", text)
    assert len(limits) > 20
    assert [each for each in limits if not each.endswith("+ 0")] == []
