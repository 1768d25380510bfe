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
from agentmem.engines.rows import Range
from agentmem.engines.sqlite import reads, vectors
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
    plan = _plan(tmp_path, statement)
    assert not any("TEMP B-TREE" in step for step in plan), plan
    assert f"SEARCH h USING PRIMARY KEY {start}" in plan, plan


_BY_ID = "USING INTEGER PRIMARY KEY (rowid"
_BY_KEY = "SEARCH h USING PRIMARY KEY (namespace=? AND key=?)"
_BY_EXPIRY = "SEARCH entries USING INDEX entries_expiry (expires_at>? AND expires_at<?)"
_BY_LATE = "vectors_late (late>?"


@pytest.mark.parametrize(
    ("statement", "steps"),
    [
        (reads.CHANGED_SINCE, [f"SEARCH entries {_BY_ID}>?", _BY_EXPIRY]),
        (
            reads.CHANGED_LONG_SINCE,
            ["COVERING INDEX sqlite_autoindex_entries_1 (namespace>? AND namespace<?)", _BY_EXPIRY],
        ),
        (vectors._EMBEDDED_SINCE, [_BY_LATE, f"SEARCH e {_BY_ID}=?", _BY_KEY]),
        (
            vectors._CHANGES,
            [f"SEARCH e {_BY_ID}>? AND rowid<?", _BY_KEY, _BY_LATE, f"SEARCH e {_BY_ID}=?"],
        ),
        (vectors._PENDING, ["SEARCH p USING", f"SEARCH e {_BY_ID}=?", _BY_KEY]),
        (vectors._UNEMBEDDED, [f"SEARCH e {_BY_ID}>?"]),
    ],
    ids=["changed", "changed-long-since", "embedded", "changes", "pending", "unembedded"],
)
def test_what_has_changed_costs_what_it_is_however_much_else_there_is(
    tmp_path: Path, statement: str, steps: list[str]
) -> None:
    plan = _plan(tmp_path, statement)
    for step in steps:
        assert any(step in each for each in plan), f"no {step}: {plan}"
    ranges = [each for each in plan if "namespace>?" in each and "COVERING" not in each]
    whole = [each for each in plan if re.match("SCAN [ehpv]|.*AUTOMATIC", each)]
    assert ranges == whole == []


@pytest.mark.parametrize(
    ("many", "unused"), [(-1, "CHANGED_SINCE"), (10_000, "CHANGED_LONG_SINCE")]
)
def test_what_has_changed_is_the_same_by_ids_and_by_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, unused: str
) -> None:
    monkeypatch.setattr(reads, "_MANY", many)
    monkeypatch.setattr(reads, unused, "no statement")
    with agentmem.open(tmp_path / "store.db", embedder=None) as store:
        for index in range(5):
            store.put(f"k{index}", index, namespace="team")
            store.put(f"k{index}", index, namespace="other")
        store.put("later", 1, namespace="team/a", ttl_s=60)
        engine = store._core.engine
        places = {(row.namespace, row.key): row for row in engine.scan(Range(""), 11, 100)}
        expired = max(row.expires_at or 0 for row in places.values())
        team = next(namespace for namespace, key in places if key == "k0" and "team" in namespace)
        for revision in (0, 4, 9, 11):
            inside = [each for each in places.items() if each[0][0].startswith(team)]
            since = {place for place, row in inside if row.revision > revision}
            late = {place for place, row in inside if row.expires_at}
            found = engine.changed_since(revision, Range(team), (0, 1))
            assert sorted(found) == sorted(since)
            found = engine.changed_since(revision, Range(team), (expired - 1, expired))
            assert sorted(found) == sorted(since | late)


def _plan(folder: Path, statement: str) -> list[str]:
    path = folder / "store.db"
    agentmem.open(path, embedder=None).close()
    connection = driver.connect(path)
    try:
        named = dict.fromkeys(re.findall(r":(\w+)", statement), "1")
        values = named or ("1",) * statement.count("?")
        rows = connection.execute("EXPLAIN QUERY PLAN " + statement, values)
        return [row[-1] for row in rows.fetchall()]
    finally:
        connection.close()


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
            limits += re.findall(r"LIMIT\s+([:?]\w*(?:\s*\+ \d)?)", text)
    assert len(limits) > 20
    assert [each for each in limits if "+" not in each] == []
