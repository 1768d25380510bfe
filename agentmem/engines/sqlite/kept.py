"""What a connection has read for searches, kept for as long as nothing in the database changes.

Searches find the same entries again and again, and what is found has to be read: after a product
of matrices has emptied the processor's caches that takes longer than all else (80 µs for ten).
Entries never change, but what can be seen of them does: `touch` moves an expiry, a purge erases a
value, and neither takes a revision. So nothing is judged by its revision here: SQLite says whether
anybody has committed anything (``PRAGMA data_version``, and for this connection's own changes their
number), and then all is read anew.

It is asked once, as a reading begins. What was read after SQLite had named a state is of that
state or a later one; if it names the same one again, then of that one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from agentmem.clock import MicrosecondClock
from agentmem.engines.base import check_floor
from agentmem.engines.rows import EntryRow, Position
from agentmem.engines.sqlite import reads, vectors
from agentmem.engines.sqlite.driver import driver
from agentmem.errors import CorruptionError

__all__ = ["Kept", "SqliteReading"]

_VERSION: Final = "PRAGMA data_version"
_PRESENT: Final = """
SELECT c.revision, c.committed_at, c.hash, c.first_entry_id + c.changes - 1, s.spaces, s.floor
FROM store s LEFT JOIN commits c ORDER BY c.revision DESC LIMIT 1
"""
_MAX_BYTES: Final = 4 * 1024 * 1024  # of all that a thread keeps, about; then it begins anew
_ROW_BYTES: Final = 512  # of an entry, beside its value and text
_MAX_CHARACTERS: Final = 4_096  # of the value and text of an entry that is kept

State = tuple[int, int]
T = TypeVar("T")


class Reads(Protocol):
    """How a query reads: with the thread's connection, and errors as agentmem has them."""

    def __call__(self, query: Callable[[driver.Connection], T]) -> T: ...


class Kept:
    """Of one connection, and so of one thread."""

    __slots__ = ("__weakref__", "_present", "_size", "_state", "connection", "rows", "vectors")

    def __init__(self, connection: driver.Connection) -> None:
        self.connection = connection
        self.rows: dict[int, EntryRow] = {}
        self.vectors: dict[tuple[int, int], bytes] = {}
        self._state: State | None = None
        self._present: tuple[Any, ...] | None = None
        self._size = 0

    def begin(self, read: Reads, clock: MicrosecondClock) -> SqliteReading:
        """Looks whether anything has changed, and what there is."""
        connection = self.connection
        if connection.in_transaction:
            # It changes by this connection's own transaction, which may be rolled back.
            return SqliteReading(read, Kept(connection), None, _present(connection), clock)
        state = self._now()
        present = self._present
        if present is None or state != self._state or self._size >= _MAX_BYTES:
            self.forget()
            self._present = present = _present(connection)
            self._state = state
        return SqliteReading(read, self, state, present, clock)

    def is_still(self, state: State | None) -> bool:
        """Whether the database is in a state, outside of any transaction of this connection."""
        return not self.connection.in_transaction and self._now() == state

    def keep_rows(self, read: dict[int, EntryRow]) -> None:
        """Keeps entries, if there is place."""
        rows = self.rows
        for id, row in read.items():
            size = len(row.value or "") + len(row.text or "")
            if size <= _MAX_CHARACTERS and self._size < _MAX_BYTES:
                rows[id] = row
                self._size += size + _ROW_BYTES

    def keep_vectors(self, set_id: int, read: dict[int, bytes]) -> None:
        """Keeps vectors, if there is place."""
        for id, vector in read.items():
            if self._size < _MAX_BYTES:
                self.vectors[set_id, id] = vector
                self._size += len(vector)

    def forget(self) -> None:
        """Keeps nothing of what was read; from any thread."""
        self.rows, self.vectors, self._size = {}, {}, 0
        self._present = self._state = None

    def _now(self) -> State:
        version = self.connection.execute(_VERSION).fetchone()[0]
        return version, self.connection.total_changes


def _present(connection: driver.Connection) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(_PRESENT).fetchone()
    if row is None:
        raise CorruptionError(
            "the store is damaged: its row in the table store is missing; restore a backup"
        )
    return row


class SqliteReading:
    """See `agentmem.engines.base.Reading`."""

    __slots__ = (
        "_floor",
        "_has_read",
        "_kept",
        "_read",
        "_rows",
        "_state",
        "_vectors",
        "position",
        "spaces_count",
    )

    def __init__(
        self,
        read: Reads,
        kept: Kept,
        state: State | None,
        present: tuple[Any, ...],
        clock: MicrosecondClock,
    ) -> None:
        revision, committed_at, last_hash, last_entry_id, self.spaces_count, self._floor = present
        now = clock()
        if revision is None:
            self.position = Position(0, 0, b"", 0, now)
        else:
            now = max(now, committed_at)
            self.position = Position(revision, committed_at, last_hash, last_entry_id, now)
        self._read = read
        self._kept = kept
        self._state = state
        self._rows = kept.rows
        self._vectors = kept.vectors
        self._has_read = False  # vectors, which may be of a later state

    def entries(self, ids: Sequence[int], revision: int, *, now: bool) -> list[EntryRow]:
        rows = self._rows
        missing = [id for id in ids if id not in rows]
        if missing:
            asked = json.dumps(missing)
            read = self._read(lambda c: c.execute(reads.ENTRIES_OF, (asked,)).fetchall())
            if not read:
                self._look()
            else:
                self._floor = read[0][0]
        elif now or self._has_read:
            self._look()
        check_floor(revision, self._floor)
        if not missing:
            return [rows[id] for id in ids]
        found = {row[1]: EntryRow._make(row[1:]) for row in read}
        if self._kept.rows is rows:  # else all was forgotten meanwhile, and what for may be in it
            self._kept.keep_rows(found)
        return [row for id in ids if (row := found.get(id) or rows.get(id)) is not None]

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        kept = self._vectors
        missing = [id for id in entries if (set_id, id) not in kept]
        if not missing:
            return {id: kept[set_id, id] for id in entries}
        self._has_read = True
        read = self._read(lambda c: vectors.of_entries(c, set_id, missing))
        if self._kept.vectors is kept:
            self._kept.keep_vectors(set_id, read)
        return {
            id: vector
            for id in entries
            if (vector := read.get(id) or kept.get((set_id, id))) is not None
        }

    def _look(self) -> None:
        """Looks at the floor as of now."""
        self._floor = self._read(self._floor_now)

    def _floor_now(self, connection: driver.Connection) -> int:
        kept = self._kept
        if connection is kept.connection and kept.is_still(self._state):
            return int(self._floor)
        return int(_present(connection)[5])
