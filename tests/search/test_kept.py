"""What a connection keeps of what it has read for searches."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentmem


def test_what_a_transaction_reads_of_its_own_changes_is_not_kept(tmp_path: Path) -> None:
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        store.put("k", "before", vector=[1, 0])
        engine = store._core.engine
        connection = engine._connections.get()  # type: ignore[attr-defined]  # of SQLite
        connection.execute("BEGIN")
        connection.execute("UPDATE entries SET value = 'null'")
        connection.execute("UPDATE vectors SET vector = x'00'")
        reading = engine.reading()
        assert reading.entries([1], 1, now=False)[0].value == "null"
        assert reading.vectors(1, [1]) == {1: b"\0"}
        connection.execute("ROLLBACK")
        reading = engine.reading()
        assert reading.entries([1], 1, now=False)[0].value == '"before"'
        assert len(reading.vectors(1, [1])[1]) == 8


def test_no_more_is_kept_than_so_many_and_so_long_ones(tmp_path: Path) -> None:
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        for page in range(10):
            store.put_many({f"k{page}-{number:04}": number for number in range(1_000)})
        store.put("long", "x" * 5_000)
        engine = store._core.engine
        for start in (*range(1, 10_001, 1_000), 1):
            ids = list(range(start, start + 1_000))
            assert [row.id for row in engine.reading().entries(ids, 11, now=False)] == ids
        found = engine.reading().entries([10_001, 1, 99_999], 11, now=False)
        assert [row.value for row in found] == [f'"{"x" * 5_000}"', "0"]
        kept = engine._kept.of  # type: ignore[attr-defined]  # of SQLite
        assert 1_000 <= len(kept.rows) <= 9_000
        assert kept._size < 5 * 1024 * 1024
        assert 9_500 in kept.rows  # it began anew where it was full
        assert 10_001 not in kept.rows


def test_what_is_kept_is_not_given_to_a_view_below_the_floor(tmp_path: Path) -> None:
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        for number in range(3):
            store.put("k", number, overwrite=True)
        store.admin.compact(keep_versions=1)
        engine = store._core.engine
        for _ in range(2):
            assert [row.id for row in engine.reading().entries([3], 3, now=False)] == [3]
            with pytest.raises(agentmem.CompactedError):
                engine.reading().entries([3], 2, now=False)


def test_a_purge_leaves_nothing_of_it_in_memory(tmp_path: Path) -> None:
    with agentmem.open(tmp_path / "a.db", embedder=None, durability="relaxed") as store:
        store.put("k", "secret", vector=[1, 0])
        store.put("other", "kept", vector=[0, 1])
        store.search([1, 0])
        kept = store._core.engine._kept.of  # type: ignore[attr-defined]  # of SQLite
        assert kept.rows
        store.admin.purge("k")
        assert not kept.rows
