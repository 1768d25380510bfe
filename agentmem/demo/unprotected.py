"""The memory as it is often written: JSON documents in SQLite; read, change, write back.

Every statement is right and durable by itself, and SQLite does what it promises. What is missing
is what agentmem adds: nobody notices that the document has changed since it was read.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from agentmem.demo.channel import Channel
from agentmem.demo.scenario import DRAFT_PARTS, draft, section, start

__all__ = ["WAYS", "Unprotected"]

_TIMEOUT_S: Final = 60.0
_MAX_DRAFTS: Final = 10_000
_TABLES: Final = (
    "CREATE TABLE memory (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE bookings (call INTEGER NOT NULL)",
    "CREATE TABLE work (task TEXT NOT NULL, agent TEXT NOT NULL)",
)
_INSERT: Final = "INSERT INTO memory (key, value) VALUES (?, ?)"
_SELECT: Final = "SELECT value FROM memory WHERE key = ?"
_UPDATE: Final = "UPDATE memory SET value = ? WHERE key = ?"
_PRIVATE: Final = 0o600


class Unprotected:
    """One connection to the memory. Each statement is a transaction of its own."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=_TIMEOUT_S, isolation_level=None)

    @classmethod
    def create(cls, path: str) -> None:
        """Makes the file and fills it with what is known before the races."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))
        memory = cls(path)
        memory._connection.execute("PRAGMA journal_mode=WAL")
        for statement in _TABLES:
            memory._connection.execute(statement)
        for (namespace, key), value in start().items():
            name = f"{namespace}/{key}" if namespace else key
            memory._connection.execute(_INSERT, (name, json.dumps(value)))
        memory.close()

    def read(self, key: str) -> Any:
        """The value of a key."""
        return json.loads(self._connection.execute(_SELECT, (key,)).fetchone()[0])

    def write(self, key: str, value: object) -> None:
        """Sets a key."""
        self._connection.execute(_UPDATE, (json.dumps(value), key))

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    # What was done; rows are only ever added here, so that the count itself loses nothing.

    def book(self, call: int) -> None:
        """Takes a seat and notes the booking, in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        self.write("seats", self.read("seats") - 1)
        self._connection.execute("INSERT INTO bookings (call) VALUES (?)", (call,))
        self._connection.execute("COMMIT")

    def add_work(self, task: str, agent: str) -> None:
        """Notes that an agent has done a task."""
        self._connection.execute("INSERT INTO work (task, agent) VALUES (?, ?)", (task, agent))

    # What became of it, see `agentmem.demo.run.Memory`.

    def number(self, key: str) -> int:
        return int(self.read(key))

    def sections(self, key: str) -> list[str]:
        return list(self.read(key)["sections"])

    def calls(self) -> list[int]:
        return [row[0] for row in self._connection.execute("SELECT call FROM bookings")]

    def work(self) -> list[str]:
        return [row[0] for row in self._connection.execute("SELECT task FROM work")]

    def drafts(self) -> list[int]:
        return [self.read(f"drafts/{part}")["draft"] for part in DRAFT_PARTS]


# What the processes run: (channel, memory, task) -> how often the race was noticed.


def _counter(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    channel.meet()
    for _ in range(task["writes"]):
        number = memory.read("counter")
        memory.write("counter", number + 1)
        channel.step()
    return 0


def _document(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    plan = memory.read("plan")
    channel.meet()
    plan["sections"][task["agent"]] = section(task["agent"])
    memory.write("plan", plan)
    channel.step()
    return 0


def _book(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    memory.book(task["call"])
    return 0


def _claim(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    for name in task["tasks"]:
        job = memory.read(f"tasks/{name}")
        channel.meet()
        if job["status"] == "open":
            memory.write(f"tasks/{name}", {**job, "status": "taken", "by": task["agent"]})
            memory.add_work(name, task["agent"])
        channel.step()
    return 0


def _drafts(channel: Channel, memory: Unprotected, task: dict[str, Any]) -> int:
    for number in range(task["first"], task["first"] + _MAX_DRAFTS):
        for index, part in enumerate(DRAFT_PARTS):
            if task["in_middle"] and index == len(DRAFT_PARTS) // 2:
                channel.halt_in_the_middle()
            memory.write(f"drafts/{part}", draft(part, number))
        channel.tell("acknowledged", draft=number)
    return 0


WAYS: Final[dict[str, Callable[[Channel, Unprotected, dict[str, Any]], int]]] = {
    "counter": _counter,
    "document": _document,
    "book": _book,
    "claim": _claim,
    "drafts": _drafts,
}
