"""AgentMemStore and LangGraph's SqliteStore, called alike, as a graph calls them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

from benchmarks.peers import fill_langgraph, langgraph_store
from benchmarks.raw import SMALL
from benchmarks.report import Benchmark, Figure, Goal, Line, MissingPeerError
from benchmarks.timing import Bench, Crowd, interleave, require, verify

__all__ = ["BENCHMARKS"]

_NAMESPACE: Final = ("notes",)
_VALUE: Final = {"n": SMALL}
_ITEMS: Final = 1_000
_THREADS: Final = 8
_EACH: Final = 8  # puts of each thread in a sample


def _ours(path: str) -> Any:
    try:
        module = importlib.import_module("langgraph_agentmem.store")
    except ImportError:
        raise MissingPeerError("pip install 'agentmem-store[langgraph]'") from None
    return module.AgentMemStore.from_conn_string(path)


def _same(ours: Any, theirs: Any, keys: list[str]) -> None:
    """Requires that both have the value at each key."""
    for key in keys:
        for name, store in (("AgentMemStore", ours), ("SqliteStore", theirs)):
            item = store.get(_NAMESPACE, key)
            require(item is not None and item.value == _VALUE, f"{key} is not in {name}")


def _putter(store: Any) -> Callable[[int], None]:
    return lambda number: store.put(_NAMESPACE, f"k{number}", _VALUE)


def _put(bench: Bench) -> Mapping[str, Figure]:
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(bench.path("ours.db")))
        theirs = stack.enter_context(langgraph_store(bench.path("theirs.db")))
        tuned = stack.enter_context(langgraph_store(bench.path("tuned.db"), tuned=True))
        samples = interleave(
            bench, 200, {"ours": _putter(ours), "theirs": _putter(theirs), "tuned": _putter(tuned)}
        )
        rounds = len(samples["ours"].seconds)
        verify(ours.agentmem, rounds)
        for peer in (theirs, tuned):
            _same(ours, peer, [f"k{number}" for number in range(rounds)])
    return {
        "lg-put": Figure.speed(samples["ours"], samples["theirs"]),
        "lg-put-wal": Figure.speed(samples["ours"], samples["tuned"]),
    }


def _put_by_threads(bench: Bench) -> Mapping[str, Figure]:
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(bench.path("ours.db")))
        theirs = stack.enter_context(langgraph_store(bench.path("theirs.db"), tuned=True))
        counts = {id(store): [0] * _THREADS for store in (ours, theirs)}

        def putter(store: Any) -> Callable[[int], None]:
            def put(number: int) -> None:
                counts[id(store)][number] += 1
                store.put(_NAMESPACE, f"{number}-{counts[id(store)][number]}", _VALUE)

            return put

        sides = {
            name: stack.enter_context(Crowd(_THREADS, putter(store))).turn(_EACH)
            for name, store in (("theirs", theirs), ("ours", ours))
        }
        samples = interleave(bench, 25, sides)
        work = _THREADS * _EACH
        verify(ours.agentmem, len(samples["ours"].seconds) * work)
        _same(
            ours,
            theirs,
            [
                f"{number}-{index}"
                for number, count in enumerate(counts[id(ours)])
                for index in range(1, count + 1)
            ],
        )
    return {"lg-threads": Figure.speed(samples["ours"], samples["theirs"], work, work)}


def _get(bench: Bench) -> Mapping[str, Figure]:
    items = {f"k{number}": _VALUE for number in range(_ITEMS)}
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(bench.path("ours.db")))
        theirs = stack.enter_context(langgraph_store(bench.path("theirs.db")))
        tuned = stack.enter_context(langgraph_store(bench.path("tuned.db"), tuned=True))
        for store in (ours, theirs, tuned):
            fill_langgraph(store, _NAMESPACE[0], items)

        def getter(store: Any) -> Callable[[int], None]:
            def get(number: int) -> None:
                key = f"k{number * 7 % _ITEMS}"
                item = store.get(_NAMESPACE, key)
                require(item is not None and item.value == _VALUE, f"{key} is another")

            return get

        samples = interleave(
            bench, 3_000, {"ours": getter(ours), "theirs": getter(theirs), "tuned": getter(tuned)}
        )
    return {
        "lg-get": Figure.speed(samples["ours"], samples["theirs"]),
        "lg-get-wal": Figure.speed(samples["ours"], samples["tuned"]),
    }


BENCHMARKS: Final = (
    Benchmark(
        "lg-put",
        (
            Line("lg-put", "AgentMemStore.put, full", "SqliteStore.put as it comes", Goal(">=", 3)),
            Line("lg-put-wal", "AgentMemStore.put, full", "SqliteStore.put, tuned: WAL, FULL"),
        ),
        _put,
    ),
    Benchmark(
        "lg-threads",
        (
            Line(
                "lg-threads",
                "AgentMemStore.put by 8 threads, full",
                "SqliteStore.put, tuned: WAL, FULL",
                Goal(">=", 2),
            ),
        ),
        _put_by_threads,
    ),
    Benchmark(
        "lg-get",
        (
            Line("lg-get", "AgentMemStore.get", "SqliteStore.get as it comes", Goal(">=", 1.2)),
            Line("lg-get-wal", "AgentMemStore.get", "SqliteStore.get, tuned: WAL"),
        ),
        _get,
    ),
)
