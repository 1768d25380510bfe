"""One writer, one key a call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import agentmem
from benchmarks.peers import langgraph_store
from benchmarks.raw import SMALL, Raw
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, interleave, require, verify

__all__ = ["BENCHMARKS"]

_WORDS: Final = (
    "the budget of the trip was raised again after nora had asked both hotels for a better price"
)
_TEXT: Final = " ".join((_WORDS.split() * 3)[:50])
_RELAXED_ROUNDS: Final = 3_000
_FULL_ROUNDS: Final = 600


def _against_raw(bench: Bench, durability: str, value: object, count: int) -> Figure:
    text = json.dumps(value)
    with (
        agentmem.open(bench.path("store.db"), embedder=None, durability=durability) as store,
        Raw(bench.path("raw.db"), durability) as raw,
    ):
        samples = interleave(
            bench,
            count,
            {
                "raw": lambda number: raw.insert(f"k{number}", text),
                "put": lambda number: store.put(f"k{number}", value),
            },
        )
        rounds = len(samples["put"].seconds)
        raw.holds(rounds)
        verify(store, rounds)
        require(store.count() == rounds, f"{store.count()} keys, not {rounds}")
        require(store[f"k{rounds - 1}"] == value, "the last value is another one")
    return Figure.cost(samples["put"], samples["raw"])


def _put_relaxed(bench: Bench) -> Mapping[str, Figure]:
    return {"put-relaxed": _against_raw(bench, "relaxed", SMALL, _RELAXED_ROUNDS)}


def _put_full(bench: Bench) -> Mapping[str, Figure]:
    return {"put-full": _against_raw(bench, "full", SMALL, _FULL_ROUNDS)}


def _put_text(bench: Bench) -> Mapping[str, Figure]:
    return {"put-text": _against_raw(bench, "relaxed", _TEXT, _RELAXED_ROUNDS)}


def _put_langgraph(bench: Bench) -> Mapping[str, Figure]:
    value = {"n": SMALL}
    with ExitStack() as stack:
        store = stack.enter_context(agentmem.open(bench.path("store.db"), embedder=None))
        peer = stack.enter_context(langgraph_store(bench.path("langgraph.db")))
        samples = interleave(
            bench,
            200,
            {
                "langgraph": lambda number: peer.put(("notes",), f"k{number}", value),
                "put": lambda number: store.put(f"k{number}", value, namespace="notes"),
            },
        )
        rounds = len(samples["put"].seconds)
        verify(store, rounds)
        for number in range(rounds):
            ours, theirs = (
                store.get(f"k{number}", namespace="notes"),
                peer.get(("notes",), f"k{number}"),
            )
            require(ours is not None and ours.value == value, f"k{number} is not in agentmem")
            require(theirs is not None and theirs.value == value, f"k{number} is not in LangGraph")
    return {"put-langgraph": Figure.speed(samples["put"], samples["langgraph"])}


BENCHMARKS: Final = (
    Benchmark(
        "put-relaxed",
        (Line("put-relaxed", "put, relaxed", "raw sqlite3 insert", Goal("<=", 5, 4)),),
        _put_relaxed,
    ),
    Benchmark(
        "put-full",
        (Line("put-full", "put, full", "raw sqlite3 insert", Goal("<=", 1.6)),),
        _put_full,
    ),
    Benchmark(
        "put-text",
        (Line("put-text", "put of 50 words, relaxed", "raw sqlite3 insert", Goal("<=", 9)),),
        _put_text,
    ),
    Benchmark(
        "put-langgraph",
        (
            Line(
                "put-langgraph",
                "put, full",
                "LangGraph SqliteStore.put as it comes",
                Goal(">=", 3),
            ),
        ),
        _put_langgraph,
    ),
)
