"""The end of the log, as a batch extends it: rows, revisions, digests and hashes."""

from __future__ import annotations

import os
from typing import Any, Final

from agentmem.chain import commit_hash, entry_digest
from agentmem.engines.rows import (
    EntryRow,
    NewCommit,
    NewEntry,
    NewVector,
    Place,
    Position,
    vector_id,
)
from agentmem.marks import Marker
from agentmem.provenance import has_read, rows_of
from agentmem.request import UNKNOWN, Request
from agentmem.search.vectors import checksum
from agentmem.search.words import found_by

__all__ = ["Outcome", "Tail", "index_texts", "new_vector"]

_RANDOM_BYTES: Final = 16  # of an attempt, and of each salt


class Outcome:
    """What a write turned out to be.

    Attributes:
        operation: a code of `agentmem.engines.rows.OPERATIONS`.
        value: JSON text; None: a tombstone.
        text: as stored.
        base: the version that the writer started from, None if blind.
        merged: the strategy or hook that merged it, or None.
        ttl_us: time to live.
        expires_at: if given, in place of one that follows from `ttl_us`.
        words: what search sees of it; `UNKNOWN` until somebody has looked.
        vector: (set id, vector as stored); None: it has none, or not yet.
        pending: it has yet to be embedded.
    """

    __slots__ = (
        "base",
        "expires_at",
        "merged",
        "operation",
        "pending",
        "text",
        "ttl_us",
        "value",
        "vector",
        "words",
    )

    def __init__(
        self,
        operation: int,
        value: str | None,
        text: str | None,
        base: int | None,
        merged: str | None = None,
        ttl_us: int | None = None,
        expires_at: int | None = None,
    ) -> None:
        self.operation = operation
        self.value = value
        self.text = text
        self.base = base
        self.merged = merged
        self.ttl_us = ttl_us
        self.expires_at = expires_at
        self.words: str | None = UNKNOWN
        self.vector: tuple[int, bytes] | None = None
        self.pending = False

    def look(self) -> str | None:
        """What search sees of it."""
        if self.words == UNKNOWN:
            self.words = found_by(self.value, self.text)
        return self.words


def new_vector(set_id: int, entry_id: int, late: int | None, vector: bytes) -> NewVector:
    """The row of a vector."""
    id = vector_id(set_id, entry_id)
    return NewVector(id, late, vector, checksum(id, vector))


def index_texts(rows: NewCommit, heads: dict[Place, EntryRow | None]) -> None:
    """What search has to know of entries that come from another log.

    Args:
        heads: the newest entry of each place before them.
    """
    rows.texts, rows.gone = {}, []
    now: dict[Place, tuple[int, str] | None] = {
        place: _found(row) for place, row in heads.items() if row is not None
    }
    for entry in rows.entries:
        place = (entry.namespace, entry.key)
        before = now.get(place)
        if before is not None and rows.texts.pop(before[0], None) is None:
            rows.gone.append(before)
        now[place] = _found(entry)
        words = now[place]
        if words is not None:
            rows.texts[entry.id] = words[1]


def _found(row: EntryRow | NewEntry) -> tuple[int, str] | None:
    words = found_by(row.value, row.text)
    return (row.id, words) if words is not None else None


class Tail:
    """Extends the log by one commit after another, in memory.

    Attributes:
        revision: of the last commit.
        now: the commit time of every commit of the batch: never before that of the last one.
        rows: what is to be written.
    """

    __slots__ = ("_entry_id", "_hash", "_marker", "now", "revision", "rows")

    def __init__(self, position: Position, marker: Marker) -> None:
        self.revision, _committed_at, self._hash, self._entry_id, self.now = position
        self.rows = NewCommit()
        self._marker = marker

    def append(
        self,
        request: Request,
        writes: list[tuple[Place, Outcome]],
        heads: dict[Place, EntryRow | None],
    ) -> list[EntryRow]:
        """Adds a request's commit; returns its entries.

        Args:
            writes: in order of their places.
            heads: the newest entry of each place.
        """
        self.revision += 1
        first_entry_id = self._entry_id + 1
        random = os.urandom(_RANDOM_BYTES * (len(writes) + 1))
        request.attempt = random[:_RANDOM_BYTES]
        rows: list[EntryRow] = []
        digests = []
        namespaces: dict[str, None] = {}  # in order of places
        # A plain put has read nothing, and is the most frequent commit of all.
        based = has_read(request)
        end = _RANDOM_BYTES
        for place, outcome in writes:
            start, end = end, end + _RANDOM_BYTES
            row, digest = self._entry(request, place, outcome, heads[place], random[start:end])
            rows.append(row)
            digests.append(digest)
            namespaces[place[0]] = None
            if outcome.base:
                based = True
        count = 0
        if based:
            read = rows_of(
                request,
                self.revision,
                [(place, outcome.base, outcome.merged) for place, outcome in writes],
            )
            self.rows.reads += read
            count = len(read)
        self._commit(request, (first_entry_id, len(rows), request.accepted), digests, count)
        self.rows.marks += self._marker.marks(
            self.revision, request.scope.name, request.agent, request.metadata, namespaces
        )
        return rows

    def _entry(
        self,
        request: Request,
        place: Place,
        outcome: Outcome,
        head: EntryRow | None,
        salt: bytes,
    ) -> tuple[EntryRow, bytes]:
        now, revision = self.now, self.revision
        entry_id = self._entry_id = self._entry_id + 1
        version, created_at = 1, now
        if head is not None:
            version = head.version + 1
            if head.visible_at(now):
                created_at = head.created_at
        expires_at = outcome.expires_at
        if expires_at is None and outcome.ttl_us is not None:
            expires_at = now + outcome.ttl_us
        namespace, key = place
        operation, base, merged = outcome.operation, outcome.base, outcome.merged
        value, text, ttl_us = outcome.value, outcome.text, outcome.ttl_us
        identity = (namespace, key, revision, version, operation, base, merged, ttl_us, created_at)
        digest = entry_digest(salt, identity, value, text)
        self.rows.entries.append(
            NewEntry(
                entry_id, namespace, key, revision, version, operation, base, merged, value, text,
                ttl_us, expires_at, created_at, salt, digest,
            )
        )  # fmt: skip
        self._index(entry_id, outcome, head)
        row = EntryRow(
            entry_id, namespace, key, version, revision, operation, base, merged, value, text,
            created_at, expires_at, request.agent, request.op_id, now,
        )  # fmt: skip
        return row, digest

    def _index(self, entry_id: int, outcome: Outcome, head: EntryRow | None) -> None:
        """What search has to know of a new entry."""
        rows = self.rows
        if head is not None:
            before = found_by(head.value, head.text)
            # An entry of this batch is not in the index yet.
            if before is not None and rows.texts.pop(head.id, None) is None:
                rows.gone.append((head.id, before))
        words = outcome.look()
        if words is not None:
            rows.texts[entry_id] = words
        if outcome.vector is not None:
            self.add_vector(outcome.vector[0], entry_id, None, outcome.vector[1])
        elif outcome.pending:
            rows.pending.append(entry_id)

    def add_vector(self, set_id: int, entry_id: int, late: int | None, vector: bytes) -> None:
        """Adds the vector of an entry, with it or, at revision ``late``, after it."""
        self.rows.vectors.append(new_vector(set_id, entry_id, late, vector))

    def _commit(
        self,
        request: Request,
        after: tuple[int, int, str | None],
        digests: list[bytes],
        reads: int,
    ) -> None:
        """Adds the commit.

        Args:
            after: its columns from ``first_entry_id`` to ``accepted``.
            reads: the rows of what it has read.
        """
        revision, joined = self.revision, b"".join(digests)
        has_result = request.fingerprint is not None or request.result is not None
        beside = reads * 2 + has_result or None
        before = (
            revision, self.now, request.scope.name, request.op_id, request.agent, request.note,
            request.metadata, request.base_revision,
        )  # fmt: skip
        fields: tuple[Any, ...] = (*before, request.attempt.hex(), *after)
        if beside is not None:
            fields = (*fields, beside)
        self._hash = commit_hash(self._hash, fields, joined)
        rows = self.rows
        rows.commits.append((*before, request.attempt, *after, joined, self._hash, beside))
        if has_result:
            rows.results.append((revision, request.fingerprint, request.result))
