"""LangGraph checkpoints, beside LangGraph's own saver on SQLite as it comes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.peers import agentmem_saver, langgraph_saver
from benchmarks.report import Benchmark, Figure, Goal, Line
from benchmarks.timing import Bench, interleave, require, verify

__all__ = ["BENCHMARKS"]

_MESSAGES: Final = 20
_ROUNDS: Final = 400
_DURABLE: Final = 2  # PRAGMA synchronous: each commit is on disk when it returns


def _checkpoint(number: int) -> dict[str, Any]:
    """A checkpoint of a conversation, of about two kilobytes."""
    version = f"{number:032}.0123456789abcdef"
    return {
        "v": 4,
        "id": str(uuid.UUID(int=(0x1F0 << 116) + (number << 64))),
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": {
            "messages": [f"message {each} of a conversation" for each in range(_MESSAGES)],
            "turn": number,
        },
        "channel_versions": {"messages": version, "turn": version},
        "versions_seen": {"agent": {"messages": version}},
        "updated_channels": None,
    }


class _Thread:
    """One thread of one saver: each checkpoint is the child of the one before."""

    def __init__(self, saver: Any) -> None:
        self._saver = saver
        self._config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    def put(self, number: int) -> None:
        """Writes the next checkpoint."""
        metadata = {"source": "loop", "step": number, "parents": {}}
        self._config = self._saver.put(self._config, _checkpoint(number), metadata, {})

    def put_writes(self, number: int) -> None:
        """Writes what a task of the newest checkpoint wants to write."""
        writes = [("messages", ["one more"]), ("turn", number)]
        self._saver.put_writes(self._config, writes, f"task-{number}", "~__pregel_pull, agent")

    def newest(self) -> Any:
        """The newest checkpoint."""
        return self._saver.get_tuple({"configurable": {"thread_id": "t"}})

    def holds(self, count: int) -> None:
        """Raises if the thread has not so many checkpoints, in one line, with their values."""
        found = list(self._saver.list({"configurable": {"thread_id": "t"}}))
        require(len(found) == count, f"{len(found)} checkpoints, not {count}")
        for each, number in zip(found, reversed(range(count)), strict=True):
            require(each.checkpoint == _checkpoint(number), f"checkpoint {number} is another one")


def _checkpoints(bench: Bench) -> Mapping[str, Figure]:
    with (
        agentmem_saver(bench.path("store.db")) as saver,
        langgraph_saver(bench.path("peer.db")) as theirs,
    ):
        synchronous = theirs.conn.execute("PRAGMA synchronous").fetchone()[0]
        require(synchronous == _DURABLE, f"SqliteSaver has synchronous={synchronous}")
        mine, other = _Thread(saver), _Thread(theirs)
        puts = interleave(bench, _ROUNDS, {"langgraph": other.put, "put": mine.put})
        rounds = len(puts["put"].seconds)
        newest = {"langgraph": lambda _n: other.newest(), "get": lambda _n: mine.newest()}
        reads = interleave(bench, _ROUNDS, newest)
        tasks = {"langgraph": other.put_writes, "put": mine.put_writes}
        writes = interleave(bench, _ROUNDS, tasks)
        for thread in (mine, other):
            thread.holds(rounds)
        verify(saver.store, rounds + len(writes["put"].seconds))
    return {
        "checkpoint-put": Figure.speed(puts["put"], puts["langgraph"]),
        "checkpoint-writes": Figure.speed(writes["put"], writes["langgraph"]),
        "checkpoint-get": Figure.speed(reads["get"], reads["langgraph"]),
    }


BENCHMARKS: Final = (
    Benchmark(
        "checkpoints",
        (
            Line(
                "checkpoint-put", "AgentMemSaver.put, full", "SqliteSaver.put as it comes",
                Goal(">=", 0.8),
            ),
            Line(
                "checkpoint-writes", "AgentMemSaver.put_writes, full", "SqliteSaver.put_writes",
                None,
            ),
            Line("checkpoint-get", "AgentMemSaver.get_tuple", "SqliteSaver.get_tuple", None),
        ),
        _checkpoints,
    ),
)  # fmt: skip
