"""One counter that eight threads increment at once, every increment durable before it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import agentmem
from benchmarks.peers import Counter, etcd_counter, redis_counters, zodb_counters
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, Crowd, Samples, interleave, require, verify

__all__ = ["BENCHMARKS"]

_THREADS: Final = 8
_EACH: Final = 10
_WORK: Final = _THREADS * _EACH
_ROUNDS: Final = 20


def _ours(store: agentmem.Store) -> dict[str, Counter]:
    return {
        "increment": Counter(lambda: store.increment("added"), lambda: int(store["added"])),
        "update": Counter(
            lambda: store.update("updated", lambda number: number + 1, default=0),
            lambda: int(store["updated"]),
        ),
    }


def _race(bench: Bench, peers: Mapping[str, Counter]) -> dict[str, Samples]:
    with ExitStack() as stack:
        store = stack.enter_context(agentmem.open(bench.path("store.db"), embedder=None))
        counters = {**_ours(store), **peers}
        sides = {}
        for name, counter in counters.items():
            crowd = stack.enter_context(Crowd(_THREADS, counter.step))
            sides[name] = crowd.turn(_EACH)
        samples = interleave(bench, _ROUNDS, sides)
        done = len(samples["increment"].seconds) * _WORK
        for name, counter in counters.items():
            require(counter.value() == done, f"{name} counted {counter.value()}, not {done}")
        for key in ("added", "updated"):
            versions = [entry.version for entry in store.history(key)]
            require(versions == list(range(done, 0, -1)), f"the versions of {key} have a gap")
        verify(store, 2 * done)
    return samples


def _speed(samples: Mapping[str, Samples], ours: str, other: str) -> Figure:
    return Figure.speed(samples[ours], samples[other], _WORK, _WORK)


def _alone(bench: Bench) -> Mapping[str, Figure]:
    samples = _race(bench, {})
    return {"counter": _speed(samples, "increment", "update")}


def _zodb(bench: Bench) -> Mapping[str, Figure]:
    with zodb_counters(bench.folder) as (plain, length):
        samples = _race(bench, {"plain": plain, "length": length})
    return {
        "counter-zodb": _speed(samples, "increment", "plain"),
        "counter-zodb-update": _speed(samples, "update", "plain"),
        "counter-zodb-length": _speed(samples, "increment", "length"),
    }


def _redis(bench: Bench) -> Mapping[str, Figure]:
    with redis_counters(bench.folder) as (watched, added):
        samples = _race(bench, {"watched": watched, "incr": added})
    return {
        "counter-redis": _speed(samples, "increment", "watched"),
        "counter-redis-update": _speed(samples, "update", "watched"),
        "counter-redis-incr": _speed(samples, "increment", "incr"),
    }


def _etcd(bench: Bench) -> Mapping[str, Figure]:
    with etcd_counter(bench.folder) as counter:
        samples = _race(bench, {"etcd": counter})
    return {
        "counter-etcd": _speed(samples, "increment", "etcd"),
        "counter-etcd-update": _speed(samples, "update", "etcd"),
    }


def _lines(name: str, other: str, bound: float) -> Sequence[Line]:
    goal = Goal(">=", bound)
    return (
        Line(name, "increment, hot, 8 threads, full", other, goal),
        Line(f"{name}-update", "update, hot, 8 threads, full", other, goal),
    )


def _free(name: str, other: str) -> Line:
    return Line(name, "increment, hot, 8 threads, full", other)


BENCHMARKS: Final = (
    Benchmark("counter", (_free("counter", "update, the same"),), _alone),
    Benchmark(
        "counter-zodb",
        (
            *_lines("counter-zodb", "ZODB FileStorage, retried", 8),
            _free("counter-zodb-length", "ZODB BTrees.Length, merged"),
        ),
        _zodb,
    ),
    Benchmark(
        "counter-redis",
        (
            *_lines("counter-redis", "Redis WATCH, appendfsync always", 5),
            _free("counter-redis-incr", "Redis INCR, appendfsync always"),
        ),
        _redis,
    ),
    Benchmark(
        "counter-etcd",
        _lines("counter-etcd", "etcd range and txn, JSON gateway", 8),
        _etcd,
    ),
)
