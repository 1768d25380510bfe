"""What a call costs on PostgreSQL: both sides on one server, as durable as it makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import agentmem
from benchmarks.peers import fill_langgraph, langgraph_postgres_store
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.server import RawServer, postgres_server
from benchmarks.timing import Bench, Crowd, interleave, require, verify

__all__ = ["BENCHMARKS"]

_KEYS: Final = 1_000
_PUTS: Final = 600
_GETS: Final = 2_000
_BATCH: Final = 100  # keys of a put_many
_ALONE: Final = 32  # puts in a sample of one thread
_THREADS: Final = 16
_EACH: Final = 4  # puts of each thread in a sample
_POOL: Final = 10  # connections, as many as agentmem opens at most


def _document(number: int) -> dict[str, Any]:
    return {"n": number, "status": "open"}


def _key(number: int) -> str:
    return f"k{number * 37 % _KEYS}"


def _value(entry: agentmem.Entry[Any] | None) -> Any:
    """What a caller wants: an entry parses its value when it is first asked for."""
    return entry.value if entry is not None else None


def _put(bench: Bench) -> Mapping[str, Figure]:
    text = json.dumps(SMALL)
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(agentmem.open(server.new_store(), embedder=None))
        raw = stack.enter_context(RawServer(server))
        bare = stack.enter_context(RawServer(server, autocommit=True))
        samples = interleave(
            bench,
            _PUTS,
            {
                "raw": lambda number: raw.insert(f"k{number}", text),
                "put": lambda number: store.put(f"k{number}", SMALL),
                "bare": lambda number: bare.insert(f"k{number}", text),
            },
        )
        rounds = len(samples["put"].seconds)
        raw.holds(rounds)
        bare.holds(rounds)
        verify(store, rounds)
        require(store.count() == rounds, f"{store.count()} keys, not {rounds}")
        require(store[f"k{rounds - 1}"] == SMALL, "the last value is another one")
    return {
        "pg-put": Figure.speed(samples["put"], samples["raw"]),
        "pg-put-autocommit": Figure.speed(samples["put"], samples["bare"]),
    }


def _put_many(bench: Bench) -> Mapping[str, Figure]:
    text = json.dumps(SMALL)
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(agentmem.open(server.new_store(), embedder=None))
        raw = stack.enter_context(RawServer(server))

        def keys(number: int) -> list[str]:
            return [f"k{number}-{each}" for each in range(_BATCH)]

        samples = interleave(
            bench,
            100,
            {
                "raw": lambda number: raw.insert_many([(key, text) for key in keys(number)]),
                "put": lambda number: store.put_many(dict.fromkeys(keys(number), SMALL)),
            },
        )
        rounds = len(samples["put"].seconds)
        raw.holds(rounds * _BATCH)
        verify(store, rounds)
        require(store.count() == rounds * _BATCH, f"{store.count()} keys")
    return {"pg-put-many": Figure.speed(samples["put"], samples["raw"], _BATCH, _BATCH)}


def _threads(bench: Bench) -> Mapping[str, Figure]:
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(agentmem.open(server.new_store(), embedder=None))

        def putter(prefix: str) -> Callable[[int], object]:
            return lambda number: store.put(f"{prefix}-{number}", SMALL)

        alone = putter("alone")
        crowd = stack.enter_context(Crowd(_THREADS, putter("crowd")))
        sides: dict[str, Callable[[int], object]] = {
            "alone": lambda _round: [alone(0) for _ in range(_ALONE)],
            "crowd": crowd.turn(_EACH),
        }
        samples = interleave(bench, 40, sides)
        rounds = len(samples["alone"].seconds)
        versions = {"alone-0": rounds * _ALONE}
        versions |= {f"crowd-{number}": rounds * _EACH for number in range(_THREADS)}
        for key, version in versions.items():
            entry = store.get(key)
            found = entry.version if entry else 0
            require(found == version, f"{key} is at version {found}, not {version}")
        verify(store, sum(versions.values()))
    work = _THREADS * _EACH
    return {"pg-threads": Figure.speed(samples["crowd"], samples["alone"], work, _ALONE)}


def _put_langgraph(bench: Bench) -> Mapping[str, Figure]:
    value = {"n": SMALL}
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(agentmem.open(server.new_store(), embedder=None))
        peer = stack.enter_context(langgraph_postgres_store(server))
        samples = interleave(
            bench,
            _PUTS,
            {
                "langgraph": lambda number: peer.put(("notes",), f"k{number}", value),
                "put": lambda number: store.put(f"k{number}", value, namespace="notes"),
            },
        )
        rounds = len(samples["put"].seconds)
        verify(store, rounds)
        _same(store, peer, {f"k{number}": value for number in range(rounds)})
    return {"pg-langgraph-put": Figure.speed(samples["put"], samples["langgraph"])}


def _threads_langgraph(bench: Bench) -> Mapping[str, Figure]:
    value = {"n": SMALL}
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(agentmem.open(server.new_store(), embedder=None))
        plain = stack.enter_context(langgraph_postgres_store(server))
        pooled = stack.enter_context(langgraph_postgres_store(server, pool=_POOL))
        counts = {name: [0] * _THREADS for name in ("put", "plain", "pooled")}

        def crowd(name: str, put: Callable[[str], object]) -> Callable[[int], object]:
            def step(number: int) -> None:
                counts[name][number] += 1
                put(f"{number}-{counts[name][number]}")

            return stack.enter_context(Crowd(_THREADS, step)).turn(_EACH)

        sides = {
            "plain": crowd("plain", lambda key: plain.put(("notes",), key, value)),
            "put": crowd("put", lambda key: store.put(key, value, namespace="notes")),
            "pooled": crowd("pooled", lambda key: pooled.put(("notes",), key, value)),
        }
        samples = interleave(bench, 40, sides)
        keys = [
            f"{n}-{each}" for n, last in enumerate(counts["put"]) for each in range(1, last + 1)
        ]
        verify(store, len(keys))
        for peer in (plain, pooled):
            _same(store, peer, dict.fromkeys(keys, value))
    work = _THREADS * _EACH
    return {
        "pg-langgraph-threads": Figure.speed(samples["put"], samples["plain"], work, work),
        "pg-langgraph-threads-pool": Figure.speed(samples["put"], samples["pooled"], work, work),
    }


def _same(store: agentmem.Store, peer: Any, items: Mapping[str, Any]) -> None:
    for key, value in items.items():
        require(_value(store.get(key, namespace="notes")) == value, f"{key} is another one")
        theirs = peer.get(("notes",), key)
        require(theirs is not None and theirs.value == value, f"{key} in LangGraph is another one")


def _get_langgraph(bench: Bench) -> Mapping[str, Figure]:
    items = {f"k{number}": _document(number) for number in range(_KEYS)}
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(agentmem.open(server.new_store(), embedder=None))
        peer = stack.enter_context(langgraph_postgres_store(server))
        store.put_many(items, namespace="notes")
        fill_langgraph(peer, "notes", items)
        samples = interleave(
            bench,
            _GETS,
            {
                "langgraph": lambda number: peer.get(("notes",), _key(number)).value,
                "get": lambda number: _value(store.get(_key(number), namespace="notes")),
            },
        )
        verify(store, 1)
        _same(store, peer, items)
    return {"pg-langgraph-get": Figure.speed(samples["get"], samples["langgraph"])}


def _get(bench: Bench) -> Mapping[str, Figure]:
    items = {f"k{number}": _document(number) for number in range(_KEYS)}
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(bench))
        store = stack.enter_context(agentmem.open(server.new_store(), embedder=None))
        raw = stack.enter_context(RawServer(server, autocommit=True))
        store.put_many(items)
        raw.insert_many([(key, json.dumps(value)) for key, value in items.items()])
        raw.connection.execute("CREATE UNIQUE INDEX by_key ON t (key)")
        sql = "SELECT value FROM t WHERE key = %s"

        def select(number: int) -> Any:
            return json.loads(raw.connection.execute(sql, (_key(number),)).fetchone()[0])

        samples = interleave(
            bench,
            _GETS,
            {"raw": select, "get": lambda number: _value(store.get(_key(number)))},
        )
        verify(store, 1)
        for number in range(_KEYS):
            require(store[_key(number)] == select(number), f"{_key(number)} is another one")
    return {"pg-get": Figure.speed(samples["get"], samples["raw"])}


BENCHMARKS: Final = (
    Benchmark(
        "pg-put",
        (
            Line(
                "pg-put",
                "put, PostgreSQL",
                "psycopg INSERT, then commit()",
                Goal(">=", 0.4),
            ),
            Line("pg-put-autocommit", "put, PostgreSQL", "psycopg INSERT, autocommit"),
        ),
        _put,
    ),
    Benchmark(
        "pg-put-many",
        (Line("pg-put-many", "put_many of 100, PostgreSQL", "psycopg executemany of 100"),),
        _put_many,
    ),
    Benchmark(
        "pg-threads",
        (
            Line(
                "pg-threads",
                "put by 16 threads, PostgreSQL",
                "put by one thread",
                Goal(">=", 2),
            ),
        ),
        _threads,
    ),
    Benchmark(
        "pg-langgraph-put",
        (
            Line(
                "pg-langgraph-put",
                "put, PostgreSQL",
                "LangGraph PostgresStore.put as it comes",
                Goal(">=", 1),
            ),
        ),
        _put_langgraph,
    ),
    Benchmark(
        "pg-langgraph-threads",
        (
            Line(
                "pg-langgraph-threads",
                "put by 16 threads, PostgreSQL",
                "LangGraph PostgresStore.put as it comes",
            ),
            Line(
                "pg-langgraph-threads-pool",
                "put by 16 threads, PostgreSQL",
                "LangGraph PostgresStore.put, a pool of 10",
            ),
        ),
        _threads_langgraph,
    ),
    Benchmark(
        "pg-get",
        (Line("pg-get", "get, PostgreSQL", "psycopg SELECT, json.loads"),),
        _get,
    ),
    Benchmark(
        "pg-langgraph-get",
        (
            Line(
                "pg-langgraph-get",
                "get, PostgreSQL",
                "LangGraph PostgresStore.get as it comes",
                Goal(">=", 1.2),
            ),
        ),
        _get_langgraph,
    ),
)
