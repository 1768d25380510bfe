"""Reads of the present, of a snapshot, and of a whole store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import agentmem
from benchmarks.peers import fill_langgraph, langgraph_store
from benchmarks.raw import Raw
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, interleave, require

__all__ = ["BENCHMARKS"]

_KEYS: Final = 1_000
_VERSIONS: Final = (1, 10, 100, 1_000)
_LISTED: Final = 10_000


def _document(number: int) -> dict[str, Any]:
    return {"n": number, "status": "open"}


def _get(bench: Bench) -> Mapping[str, Figure]:
    """Against raw SQLite first: that needs nothing installed."""
    with (
        agentmem.open(bench.path("store.db"), embedder=None, durability="relaxed") as store,
        Raw(bench.path("raw.db"), "relaxed") as raw,
    ):
        store.put_many({f"k{number}": _document(number) for number in range(_KEYS)})
        raw.connection.execute("CREATE UNIQUE INDEX by_key ON t (key)")
        for number in range(_KEYS):
            raw.insert(f"k{number}", json.dumps(_document(number)))

        def select(number: int) -> Any:
            sql = "SELECT value FROM t WHERE key = ?"
            return json.loads(raw.connection.execute(sql, (_key(number),)).fetchone()[0])

        samples = interleave(
            bench, 5_000, {"raw": select, "get": lambda number: _value(store.get(_key(number)))}
        )
        for number in range(_KEYS):
            require(store[_key(number)] == select(number), f"{_key(number)} is another one")
    return {"get-raw": Figure.cost(samples["get"], samples["raw"])}


def _value(entry: agentmem.Entry[Any] | None) -> Any:
    """What a caller wants: an entry parses its value when it is first asked for."""
    return entry.value if entry is not None else None


def _key(number: int) -> str:
    return f"k{number * 37 % _KEYS}"


def _get_langgraph(bench: Bench) -> Mapping[str, Figure]:
    items = {f"k{number}": _document(number) for number in range(_KEYS)}
    with ExitStack() as stack:
        store = stack.enter_context(agentmem.open(bench.path("store.db"), embedder=None))
        plain = stack.enter_context(langgraph_store(bench.path("plain.db")))
        tuned = stack.enter_context(langgraph_store(bench.path("tuned.db"), tuned=True))
        store.put_many(items, namespace="notes")
        fill_langgraph(plain, "notes", items)
        fill_langgraph(tuned, "notes", items)
        samples = interleave(
            bench,
            5_000,
            {
                "plain": lambda number: plain.get(("notes",), _key(number)),
                "tuned": lambda number: tuned.get(("notes",), _key(number)),
                "get": lambda number: _value(store.get(_key(number), namespace="notes")),
            },
        )
        for key, value in items.items():
            entry = store.get(key, namespace="notes")
            require(entry is not None and entry.value == value, f"{key} is another one")
            for peer in (plain, tuned):
                require(peer.get(("notes",), key).value == value, f"{key} in LangGraph is another")
    return {
        "get-langgraph": Figure.speed(samples["get"], samples["plain"]),
        "get-langgraph-wal": Figure.speed(samples["get"], samples["tuned"]),
    }


def _versions(bench: Bench) -> Mapping[str, Figure]:
    """The snapshot is taken when half of the versions are there: it reads the past."""
    with agentmem.open(bench.path("store.db"), embedder=None, durability="relaxed") as store:
        halves = {versions: (versions + 1) // 2 for versions in _VERSIONS}
        for versions, half in halves.items():
            for number in range(half):
                store.put(f"v{versions}", number)
        snapshot = store.snapshot()
        for versions, half in halves.items():
            for number in range(half, versions):
                store.put(f"v{versions}", number)

        def reader(versions: int) -> Callable[[int], object]:
            key = f"v{versions}"
            return lambda number: _value(snapshot.get(key))

        samples = interleave(bench, 3_000, {str(size): reader(size) for size in _VERSIONS})
        for versions, half in halves.items():
            entry = snapshot.get(f"v{versions}")
            found = (entry.version, entry.value) if entry else None
            require(found == (half, half - 1), f"the snapshot shows {found}, not {half}")
            numbers = [entry.version for entry in store.history(f"v{versions}")]
            require(numbers == list(range(versions, 0, -1)), "the versions have a gap")
    one = samples["1"]
    return {f"snapshot-{size}": Figure.cost(samples[str(size)], one) for size in _VERSIONS[1:]}


def _list(bench: Bench) -> Mapping[str, Figure]:
    with (
        agentmem.open(bench.path("store.db"), embedder=None, durability="relaxed") as store,
        Raw(bench.path("raw.db"), "relaxed") as raw,
    ):
        rows = [(f"k{number:05}", _document(number)) for number in range(_LISTED)]
        store.put_many(rows)
        raw.connection.executemany(
            "INSERT INTO t (key, value) VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in rows],
        )

        def select(number: int) -> list[tuple[str, Any]]:
            cursor = raw.connection.execute("SELECT key, value FROM t ORDER BY key")
            return [(key, json.loads(value)) for key, value in cursor]

        samples = interleave(
            bench,
            25,
            {
                "raw": select,
                "list": lambda number: [(entry.key, entry.value) for entry in store.list()],
            },
        )
        require(select(0) == rows, "the raw table holds other rows")
        require([(entry.key, entry.value) for entry in store.list()] == rows, "other entries")
    return {"list": Figure.cost(samples["list"], samples["raw"])}


BENCHMARKS: Final = (
    Benchmark("get", (Line("get-raw", "get", "raw sqlite3 SELECT, json.loads"),), _get),
    Benchmark(
        "get-langgraph",
        (
            Line("get-langgraph", "get", "LangGraph SqliteStore.get as it comes", Goal(">=", 1.5)),
            Line("get-langgraph-wal", "get", "LangGraph SqliteStore.get, tuned: WAL"),
        ),
        _get_langgraph,
    ),
    Benchmark(
        "snapshot",
        (
            Line("snapshot-10", "snapshot get, 10 versions", "1 version"),
            Line("snapshot-100", "snapshot get, 100 versions", "1 version"),
            Line("snapshot-1000", "snapshot get, 1,000 versions", "1 version", Goal("<=", 1.5)),
        ),
        _versions,
    ),
    Benchmark(
        "list",
        (Line("list", "list of 10,000 entries", "raw sqlite3 SELECT, json.loads"),),
        _list,
    ),
)
