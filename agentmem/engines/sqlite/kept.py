"""What a connection has read for searches, kept for as long as nothing in the database changes.

Searches find the same entries again and again, and what is found has to be read: after a product
of matrices has emptied the processor's caches that takes longer than all else (66 µs for ten).
Entries never change, but what can be seen of them does: `touch` moves an expiry, a purge erases a
value, and neither takes a revision. So nothing is judged by its revision here: SQLite says whether
anybody has committed anything (``PRAGMA data_version``, and for this connection's own changes their
number), and then all is read anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from agentmem.engines.base import check_floor
from agentmem.engines.rows import EntryRow
from agentmem.engines.sqlite import reads, vectors
from agentmem.engines.sqlite.driver import driver

__all__ = ["Kept"]

_VERSION: Final = "PRAGMA data_version"
_MAX_BYTES: Final = 4 * 1024 * 1024  # of all that a thread keeps, about; then it begins anew
_ROW_BYTES: Final = 512  # of an entry, beside its value and text
_MAX_CHARACTERS: Final = 4_096  # of the value and text of an entry that is kept


class Kept:
    """Of one connection, and so of one thread."""

    __slots__ = ("__weakref__", "_floor", "_rows", "_size", "_state", "_vectors", "connection")

    def __init__(self, connection: driver.Connection) -> None:
        self.connection = connection
        self._state: tuple[int, int] | None = None
        self._rows: dict[int, EntryRow] = {}
        self._vectors: dict[tuple[int, int], bytes] = {}
        self._floor: int | None = None
        self._size = 0

    def entries(self, ids: Sequence[int], revision: int) -> list[EntryRow]:
        """See `Engine.entries`."""
        state = self._current()
        if state is None:
            return reads.entries(self.connection, ids, revision)
        rows, floor = self._rows, self._floor
        missing = [id for id in ids if id not in rows]
        if not missing and floor is not None:
            check_floor(revision, floor)
            return [rows[id] for id in ids]
        found = self.connection.execute(reads.ENTRIES_OF, (json.dumps(missing),)).fetchall()
        if not found or not self._is_still(state):
            # Somebody has committed since: what is kept may be older than what was just read.
            return reads.entries(self.connection, ids, revision)
        self._floor = floor = found[0][0]
        read = {row[1]: EntryRow._make(row[1:]) for row in found}
        for id, row in read.items():
            size = len(row.value or "") + len(row.text or "")
            if size <= _MAX_CHARACTERS and self._size < _MAX_BYTES:
                rows[id] = row
                self._size += size + _ROW_BYTES
        check_floor(revision, floor)
        return [each for id in ids if (each := read.get(id) or rows.get(id)) is not None]

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        """See `Engine.vectors`."""
        state = self._current()
        if state is None:
            return vectors.of_entries(self.connection, set_id, entries)
        kept = self._vectors
        missing = [id for id in entries if (set_id, id) not in kept]
        if not missing:
            return {id: kept[set_id, id] for id in entries}
        read = vectors.of_entries(self.connection, set_id, missing)
        if not self._is_still(state):
            return vectors.of_entries(self.connection, set_id, entries)
        found = {
            id: vector
            for id in entries
            if (vector := read.get(id) or kept.get((set_id, id))) is not None
        }
        for id, vector in read.items():
            if self._size < _MAX_BYTES:
                kept[set_id, id] = vector
                self._size += len(vector)
        return found

    def forget(self) -> None:
        """Keeps nothing of what was read; from any thread."""
        self._rows, self._vectors, self._size = {}, {}, 0
        self._floor = self._state = None

    def _current(self) -> tuple[int, int] | None:
        """The state of the database; what was read in another is not kept any longer.

        None: it changes by this connection's transaction, which may be rolled back.
        """
        if self.connection.in_transaction:
            return None
        state = self._now()
        if state != self._state or self._size >= _MAX_BYTES:
            self.forget()
            self._state = state
        return state

    def _is_still(self, state: tuple[int, int]) -> bool:
        if self._now() == state:
            return True
        self.forget()
        return False

    def _now(self) -> tuple[int, int]:
        version = self.connection.execute(_VERSION).fetchone()[0]
        return version, self.connection.total_changes
