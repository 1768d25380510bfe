"""The memory as it is often written: JSON documents in SQLite; read, change, write back.

Every statement is right and durable by itself, and SQLite does what it promises. What is missing
is what agentmem adds: nobody notices that the document has changed since it was read.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from agentmem.demo.channel import Channel
from agentmem.demo.scenario import DRAFT_PARTS, JOBS, draft, section, start

__all__ = ["WAYS", "Unprotected"]

_TIMEOUT_S: Final = 60.0
_MAX_DRAFTS: Final = 10_000
_TABLES: Final = (
    "CREATE TABLE memory (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE bookings (call INTEGER NOT NULL)",
    "CREATE TABLE done (kind TEXT NOT NULL, what TEXT NOT NULL, agent TEXT NOT NULL)",
    "CREATE TABLE notes (name TEXT NOT NULL, made_at INTEGER NOT NULL)",
)
_INSERT: Final = "INSERT INTO memory (key, value) VALUES (?, ?)"
_SELECT: Final = "SELECT value FROM memory WHERE key = ?"
_UPSERT: Final = f"{_INSERT} ON CONFLICT (key) DO UPDATE SET value = excluded.value"
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
        memory.write("jobs", JOBS)
        memory.close()

    def read(self, key: str) -> Any:
        """The value of a key; None if there is no such key."""
        row = self._connection.execute(_SELECT, (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def write(self, key: str, value: object) -> None:
        """Sets a key."""
        self._connection.execute(_UPSERT, (key, json.dumps(value)))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One SQL transaction, in which nobody else writes: what it reads stays as it is."""
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    # What was done; rows are only ever added here, so that the count itself loses nothing.

    def book(self, call: int) -> None:
        """Takes a seat and notes the booking, in one transaction."""
        with self.alone():
            self.write("seats", self.read("seats") - 1)
            self._connection.execute("INSERT INTO bookings (call) VALUES (?)", (call,))

    def add_done(self, kind: str, what: str, agent: str) -> None:
        """Notes that an agent has done something."""
        self._connection.execute(
            "INSERT INTO done (kind, what, agent) VALUES (?, ?, ?)", (kind, what, agent)
        )

    def add_note(self, name: str, made_at: int) -> None:
        """Adds a note of an agent, and when it was made."""
        self._connection.execute("INSERT INTO notes (name, made_at) VALUES (?, ?)", (name, made_at))

    def notes_after(self, made_at: int) -> list[tuple[str, int]]:
        """The notes that were made later, oldest first."""
        query = "SELECT name, made_at FROM notes WHERE made_at > ? ORDER BY made_at"
        return list(self._connection.execute(query, (made_at,)))

    # What became of it, see `agentmem.demo.stage.Memory`.

    def number(self, key: str) -> int:
        return int(self.read(key))

    def sections(self, key: str) -> list[str]:
        return list(self.read(key)["sections"])

    def calls(self) -> list[int]:
        return [row[0] for row in self._connection.execute("SELECT call FROM bookings")]

    def done(self, key: str) -> list[str]:
        query = "SELECT what FROM done WHERE kind = ?"
        return [row[0] for row in self._connection.execute(query, (key,))]

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
            memory.add_done("work_done", name, task["agent"])
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
