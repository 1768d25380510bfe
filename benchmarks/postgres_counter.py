"""One counter on PostgreSQL that eight processes increment at once."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import agentmem
from agentmem.testing.crew import Crew
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.server import Server, connect, postgres_server
from benchmarks.timing import Bench, require, verify

__all__ = ["BENCHMARKS", "count"]

_PROCESSES: Final = 8
_ROUNDS: Final = 5
_WINDOW_S: Final = 2.0
_SHORTEST_WINDOW_S: Final = 0.1
_OURS: Final = {"increment": "added", "update": "updated"}  # side -> key
_THEIRS: Final = ("serializable", "atomic")
_COMPARED: Final = {
    "pg-counter": ("increment", "serializable"),
    "pg-counter-update": ("update", "serializable"),
    "pg-counter-atomic": ("increment", "atomic"),
}
_READ: Final = "SELECT n FROM counters WHERE name = %s"
_WRITE: Final = "UPDATE counters SET n = %s WHERE name = %s"
_ADD: Final = "UPDATE counters SET n = n + 1 WHERE name = %s"


def count(
    report: Callable[[Any], None],
    begin: Callable[[], Any],
    store_url: str,
    url: str,
    schema: str,
    rounds: int,
    window_s: float,
) -> None:
    """A worker: in each round it increments the counter of each side for a while.

    All workers begin each while together. Reports (side, increments, seconds); the first of each
    side is one increment, in which connections are opened and statements prepared.
    """
    with ExitStack() as stack:
        store = stack.enter_context(agentmem.open(store_url, embedder=None))
        raw = stack.enter_context(connect(url, schema, autocommit=False))
        bare = stack.enter_context(connect(url, schema))
        steps: Mapping[str, Callable[[], object]] = {
            "increment": lambda: store.increment("added"),
            "serializable": _serializable(raw),
            "update": lambda: store.update("updated", lambda number: number + 1, default=0),
            "atomic": lambda: bare.execute(_ADD, ("atomic",)),
        }
        for name, step in steps.items():
            step()
            report((name, 1, 0.0))
        for _round in range(rounds):
            for name, step in steps.items():
                begin()
                report((name, *_while(step, window_s)))


def _while(step: Callable[[], object], window_s: float) -> tuple[int, float]:
    clock = time.perf_counter
    begun = now = clock()
    done = 0
    while now < begun + window_s:
        step()
        done += 1
        now = clock()
    return done, now - begun


def _serializable(connection: Any) -> Callable[[], None]:
    """Read, add one, write and commit, again at once when the server gives it up."""
    import psycopg

    # What is read must not change until it is written: the server finds out.
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE

    def increment() -> None:
        while True:
            try:
                number = connection.execute(_READ, ("serializable",)).fetchone()[0]
                connection.execute(_WRITE, (number + 1, "serializable"))
                connection.commit()
            except psycopg.errors.SerializationFailure:
                connection.rollback()
            else:
                return

    return increment


def _counter(bench: Bench) -> Mapping[str, Figure]:
    window_s = max(_SHORTEST_WINDOW_S, _WINDOW_S * min(1.0, bench.scale))
    rounds = max(2, round(_ROUNDS * bench.scale))
    counted: dict[str, int] = defaultdict(int)
    rates: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in range(_PROCESSES)])
    with postgres_server(bench) as server:
        target, schema = server.new_store(), _table(server)
        agentmem.open(target, embedder=None).close()

        def heard(worker: int, found: tuple[str, int, float]) -> None:
            name, done, seconds = found
            counted[name] += done
            if seconds:
                rates[name][worker].append(done / seconds)
                bench.progress(len(rates[name][worker]) / rounds)

        work = (target, server.url, schema, rounds, window_s)
        Crew(count, [work] * _PROCESSES).run(heard)
        _check(server, target, schema, counted)
    rate = {
        name: statistics.median(sum(of_round) for of_round in zip(*workers, strict=True))
        for name, workers in rates.items()
    }
    return {
        line: Figure(rate[ours], rate[other], "/s", rate[ours] / rate[other], "x", rounds)
        for line, (ours, other) in _COMPARED.items()
    }


def _table(server: Server) -> str:
    schema = server.new_schema()
    with connect(server.url) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    with connect(server.url, schema) as connection:
        # Room on the page for new versions of a hot row.
        connection.execute(
            "CREATE TABLE counters (name text PRIMARY KEY, n bigint) WITH (fillfactor = 10)"
        )
        for name in _THEIRS:
            connection.execute("INSERT INTO counters VALUES (%s, 0)", (name,))
    return schema


def _check(server: Server, target: str, schema: str, counted: Mapping[str, int]) -> None:
    found: dict[str, int] = {}
    with connect(server.url, schema) as connection:
        for name in _THEIRS:
            found[name] = connection.execute(_READ, (name,)).fetchone()[0]
    with agentmem.open(target, embedder=None) as store:
        for name, key in _OURS.items():
            found[name] = int(store[key])
            versions = [entry.version for entry in store.history(key)]
            whole = versions == list(range(counted[name], 0, -1))
            require(whole, f"the versions of {key} have a gap")
        verify(store, sum(counted[name] for name in _OURS))
    for name, number in found.items():
        require(number == counted[name], f"{name} counted {number}, not {counted[name]}")


BENCHMARKS: Final = (
    Benchmark(
        "pg-counter",
        (
            Line(
                "pg-counter",
                "increment, hot, 8 processes, PostgreSQL",
                "psycopg, SERIALIZABLE, retried",
                Goal(">=", 4),
            ),
            Line(
                "pg-counter-update",
                "update, hot, 8 processes, PostgreSQL",
                "psycopg, SERIALIZABLE, retried",
                Goal(">=", 4),
            ),
            Line(
                "pg-counter-atomic",
                "increment, hot, 8 processes, PostgreSQL",
                "psycopg, UPDATE n = n + 1, autocommit",
            ),
        ),
        _counter,
    ),
)
