"""What is kept of a transaction's reading, and what of it can be turned off."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import pytest

import agentmem
from agentmem import Store, merge
from agentmem.provenance import (
    BASE,
    CONTEXT,
    LOOK,
    MERGE,
    READ,
    RESTORED,
    SCAN,
    UNDONE,
    UNKEPT,
    found_by_scan,
    scan_text,
)
from agentmem_migrations import migrations_for
from tests.contract.conftest import StoreMaker


def kept(store: Store, revision: int | None = None) -> list[tuple[Any, ...]]:
    """(kind, namespace, key, version) of what the commit had read."""
    engine = store._core.engine
    revision = store.revision if revision is None else revision
    return [
        (row.kind, row.namespace.rstrip("\x01"), row.key, row.version)
        for row in engine.reads_by([revision])
    ]


def test_each_key_that_a_transaction_has_read_is_kept_with_its_version(store: Store) -> None:
    store.put("a", 1)
    store.put("a", 2, overwrite=True)
    with store.transaction() as tx:
        tx.get("a")
        tx.get("missing", namespace="n")
        tx.put("b", 1)
    assert kept(store) == [(READ, "", "a", 2), (READ, "n", "missing", 0)]


def test_an_unchecked_read_is_kept_too(store: Store) -> None:
    store.put("a", 1)
    with store.transaction() as tx:
        tx.get("a", track=False)
        tx.list(track=False)
        tx.get("missing", track=False)
        tx.put("b", 1)
    assert kept(store) == [(CONTEXT, "", "a", 1), (LOOK, "", "", 1)]


def test_what_was_seen_elsewhere_is_kept_as_an_unchecked_read_and_never_checked(
    store: Store,
) -> None:
    store.put("a", 1, namespace="n")
    with store.transaction() as tx:
        for _time in range(2):
            tx.cite("a", 1, namespace="n")
        tx.put("b", 1)
        store.put("a", 2, namespace="n", overwrite=True)
        tx.cite("a", 2, namespace="n")  # seen in another view, and later than this one's revision
    assert kept(store) == [(CONTEXT, "n", "a", 1), (CONTEXT, "n", "a", 2)]
    edges = store.audit.lineage("b").edges
    assert sorted((edge.source.key, edge.source.version) for edge in edges) == [("a", 1), ("a", 2)]


def test_a_citation_of_what_is_replaced_is_kept_once(store: Store) -> None:
    store.put_many({"a": 1, "b": [1]})
    with store.transaction() as tx:
        for key in ("a", "b"):
            tx.cite(key, 1)
        tx.put("a", 2, expected_version=1)
        tx.append("b", 2)
    assert kept(store) == [(CONTEXT, "", "b", 1), (BASE, "", "a", 1)]


def test_a_citation_is_of_the_view_that_makes_it(store: Store) -> None:
    store.put("a", 1, namespace="team")
    team = store.scoped("team", access={"a": "read", "b": "write"})
    with team.transaction() as tx:
        tx.cite("a", 1)
        with pytest.raises(agentmem.AccessDeniedError):
            tx.cite("c", 1)
        tx.put("b", 1)
    assert kept(store) == [(CONTEXT, "team", "a", 1)]


@pytest.mark.parametrize(
    ("version", "error"),
    [
        (0, agentmem.InvalidValueError),
        (-1, agentmem.InvalidValueError),
        (2**63, agentmem.InvalidValueError),
        (True, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_version_is_not_cited(
    store: Store, version: Any, error: type[Exception]
) -> None:
    with store.transaction() as tx:
        with pytest.raises(error):
            tx.cite("a", version)
        tx.put("b", 1)
    assert kept(store) == []


def test_an_ended_transaction_cites_nothing(store: Store) -> None:
    tx = store.transaction()
    tx.rollback()
    with pytest.raises(agentmem.ClosedError):
        tx.cite("a", 1)


def test_what_was_cited_before_it_was_there_is_no_source(store: Store) -> None:
    with store.transaction() as tx:
        tx.cite("a", 1)  # by mistake: there is none yet
        tx.put("early", 1)
    store.put("a", 1)
    with store.transaction() as tx:
        tx.cite("a", 1)
        tx.put("late", 1)
    derived = store.audit.lineage("a", direction="down")
    assert {node.key for node in derived.nodes} == {"a", "late"}
    undone = store.audit.revert_derived("a", 1)
    assert [each.key for each in undone.keys] == ["a", "late"]
    (edge,) = store.audit.lineage("early").edges
    assert edge.source.state == "compacted"  # what is not in the log is taken so


def test_a_scan_and_a_search_are_one_row_each_with_what_they_found(store: Store) -> None:
    for key in ("a", "b", "c"):
        store.put(key, f"word {key}", namespace="n")
    with store.transaction() as tx:
        tx.list("n", key_prefix="b")
        tx.search("word", namespace="n", mode="text", k=2)
        tx.put("d", 1)
    rows = store._core.engine.reads_by([store.revision])
    assert [(row.kind, row.version, row.base_revision) for row in rows] == [
        (SCAN, 1, 3),
        (SCAN, 2, 3),
    ]
    asked, found = found_by_scan(rows[0].scan or "")
    assert asked == {"key_prefix": "b"}
    assert [row.key for row in store._core.engine.entries_found(found)] == ["b"]
    asked, found = found_by_scan(rows[1].scan or "")
    assert asked["k"] == 2
    assert len(found) == 2


def test_a_version_that_a_single_call_names_counts_as_read(store: Store) -> None:
    entry = store.put("a", 1)
    assert kept(store) == []
    store.put("a", 2, expected_version=entry.version)
    assert kept(store) == [(BASE, "", "a", 1)]
    store.update("a", lambda value: value + 1)
    assert kept(store) == [(BASE, "", "a", 2)]
    store.increment("a")
    assert kept(store) == []
    store.put("a", 2, overwrite=True)
    assert kept(store) == []


def test_a_write_in_a_transaction_that_read_nothing_names_no_base(store: Store) -> None:
    store.put("a", 1)
    with store.transaction() as tx:
        tx.put("a", 2)
    assert kept(store) == []


def test_the_base_of_a_merge_is_kept(store: Store) -> None:
    store.set_merge("a", merge.union)
    store.put("a", [1])
    tx = store.transaction()
    tx.put("a", [1, 2])
    store.put("a", [1, 3], expected_version=1)
    tx.commit()
    assert kept(store) == [(MERGE, "", "a", 1)]


def test_what_a_repair_has_judged_is_kept_beside_what_was_seen_first(store: Store) -> None:
    store.put("a", 1)
    tx = store.transaction()
    tx.get("a")
    tx.put("b", 1)
    store.put("a", 2, overwrite=True)
    tx.rebase(tx.stale())
    tx.commit()
    assert kept(store) == [(READ, "", "a", 2), (CONTEXT, "", "a", 1), (CONTEXT, "", "a", 2)]


def test_undoing_names_what_it_puts_back_and_what_it_takes_out(store: Store) -> None:
    store.put("a", 1)
    store.put("a", 2, overwrite=True)
    store.audit.revert_commit(2)
    assert kept(store) == [(RESTORED, "", "a", 1), (UNDONE, "", "a", 2)]
    store.audit.revert("a", 2)
    assert kept(store) == [(RESTORED, "", "a", 2)]


def test_without_provenance_only_that_something_was_read_is_kept(make_store: StoreMaker) -> None:
    store = make_store(provenance=False)
    store.put("a", 1)
    with store.transaction() as tx:
        tx.get("a")
        tx.list()
        tx.put("b", 1)
    assert kept(store) == [(UNKEPT, "", "", 0)]
    with store.transaction() as tx:
        tx.put("c", 1)
    assert kept(store) == []
    assert store._core.engine.unkept(0) == 1
    assert store._core.engine.unkept(2) == 0


@pytest.mark.parametrize(
    "ids", [[], [3], [1, 2, 900], list(range(5, 500)), [7, 2**40, *range(9, 99)]]
)
def test_the_ids_of_a_scan_come_back_as_they_were(ids: list[int]) -> None:
    text = scan_text('{"limit":3}', ids)
    asked, found = found_by_scan(text)
    assert asked == {"limit": 3}
    assert list(found) == sorted(ids)
    assert len(text) < 60 + 5 * len(ids)


def test_provenance_is_an_option_of_open() -> None:
    with agentmem.open(":memory:", provenance=False) as store:
        store.put("a", 1)
        store.update("a", lambda value: value + 1)
        assert kept(store) == [(UNKEPT, "", "", 0)]


OLD_ROWS: Final = """
INSERT INTO commits (revision, committed_at, scope, base_revision, attempt, first_entry_id, changes,
    digests, hash)
VALUES (4, 0, '', 3, x'00', 1, 0, x'', x''), (5, 0, '', 2, x'01', 1, 0, x'', x'');
INSERT INTO reads (revision, namespace, key, version, scan)
VALUES (4, '', 'a', 1, NULL), (4, '', 'b', 0, NULL), (5, 'n', '', 2, '{"limit":2}')
"""


def test_what_was_kept_before_is_still_there_after_the_migration() -> None:
    connection = sqlite3.connect(":memory:")
    found = {each.name: each.sql for each in migrations_for("sqlite")}
    connection.executescript(found["0001_create_log"])
    connection.executescript(OLD_ROWS)
    connection.executescript(found["0004_index_reads"])
    rows = connection.execute("SELECT * FROM reads ORDER BY revision, position").fetchall()
    assert rows == [
        (4, 0, READ, "", "a", 1, None, None),
        (4, 1, READ, "", "b", 0, None, None),
        (5, 0, SCAN, "n", "", 2, 2, '{"limit":2}'),
    ]
