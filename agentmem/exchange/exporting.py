"""A store as lines of JSON: the whole history, or what one revision shows.

The first line says what follows and where it ends, the last one how many lines lie between them,
and their digest, so that a file that was cut off is noticed::

    {"agentmem":"history","format":1,"store_id":…,"revision":3,"hash":…,…}
    {"type":"commit","revision":1,…}
    {"type":"entry","id":1,…}
    …
    {"type":"tag","name":"release",…}
    {"type":"end","lines":57,"hash":…}

One history gives the same lines on every engine, whatever way it came there.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, BinaryIO, Final, cast

import orjson

from agentmem.core import Core
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    CommitRow,
    ConflictRow,
    EntryRow,
    NewEntry,
    Range,
    ReadRow,
)
from agentmem.exchange import lines
from agentmem.exchange.lines import Floor, Pending, Space, State, Strategy, Vector
from agentmem.exchange.placing import placed
from agentmem.history.copy import Progress
from agentmem.search.embedders import GIVEN
from agentmem.search.spaces import set_of, top_label

__all__ = ["DIGEST_BYTES", "ENTRIES", "FORMAT", "HISTORY", "Exported", "export_to"]

FORMAT: Final = 1
HISTORY: Final = "history"
ENTRIES: Final = "entries"
DIGEST_BYTES: Final = 32
_COMPRESSED: Final = ".gz"
_COMPRESSION: Final = 6
_PAGE_COMMITS: Final = 256
_PAGE_ROWS: Final = 500
_MAX_PENDING: Final = 100_000


@dataclass(frozen=True, slots=True)
class Exported:
    """What `Admin.export` wrote.

    Attributes:
        kind: ``history``, or ``entries`` of one revision.
        store_id: of the store.
        revision, hash: the latest that the lines hold.
        commits: how many; 0 of one revision.
        entries: how many.
        lines: how many, the first and the last one included.
    """

    kind: str
    store_id: str
    revision: int
    hash: bytes
    commits: int
    entries: int
    lines: int

    __module__ = "agentmem"


class _Lines:
    """Writes lines, and counts them."""

    def __init__(self, stream: BinaryIO) -> None:
        self.count = 0
        self._stream = stream
        self._digest = blake2b(digest_size=DIGEST_BYTES)

    def begin(self, header: dict[str, Any]) -> None:
        self._stream.write(orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE))

    def add(self, found: Iterable[bytes]) -> None:
        for line in found:
            self._stream.write(line)
            self._digest.update(line)
            self.count += 1

    def end(self) -> int:
        """Closes with the number and digest of the lines; returns the number of all."""
        found = {"type": "end", "lines": self.count, "hash": self._digest.hexdigest()}
        self._stream.write(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE))
        return self.count + 2


# The whole history.


def write_history(engine: Engine, stream: BinaryIO, progress: Progress | None) -> Exported:
    """Writes all that the store holds up to its revision as of now."""
    out, end = _Lines(stream), engine.position()
    spaces = engine.spaces()
    out.begin(
        {
            "agentmem": HISTORY,
            "format": FORMAT,
            "store_id": engine.store_id,
            "revision": end.revision,
            "hash": end.hash.hex(),
            "committed_at": end.committed_at,
            "last_entry_id": end.last_entry_id,
        }
    )
    after = entries = 0
    while after < end.revision:
        found = [
            each for each in engine.chain(after, _PAGE_COMMITS) if each[0].revision <= end.revision
        ]
        out.add(_log_lines(engine, found, list(spaces.sets), end.revision))
        entries += sum(len(rows) for _commit, rows in found)
        after = found[-1][0].revision
        if progress is not None:
            progress("exporting", after, end.revision)
    out.add(map(lines.VECTOR_SET.line, spaces.sets.values()))
    out.add(lines.SPACE.line(Space(label, id)) for label, id in sorted(spaces.of.items()))
    pending = engine.pending_vectors(0, _MAX_PENDING)
    out.add(lines.PENDING.line(Pending(row.id)) for row in pending if row.revision <= end.revision)
    out.add(map(lines.CONFLICT.line, _conflicts(engine, end.revision)))
    out.add(lines.STRATEGY.line(Strategy(row.pattern, row.spec)) for row in engine.strategies())
    tags = sorted(row for row in engine.all_tags() if row.revision <= end.revision)
    out.add(map(lines.TAG.line, tags))
    out.add(lines.PURGE.line(row[1:]) for row in engine.purges())
    if floor := engine.floor():
        out.add([lines.FLOOR.line(Floor(floor))])
    count = out.end()
    return Exported(HISTORY, engine.store_id, end.revision, end.hash, after, entries, count)


def _log_lines(
    engine: Engine, found: list[tuple[CommitRow, list[NewEntry]]], sets: list[int], end: int
) -> Iterator[bytes]:
    first, last = found[0][0].revision, found[-1][0].revision
    reads: dict[int, list[ReadRow]] = {}
    for row in engine.reads_of(first - 1, last):
        reads.setdefault(row.revision, []).append(row)
    vectors = _vectors(engine, [entry for _commit, rows in found for entry in rows], sets, end)
    for commit, rows in found:
        yield lines.COMMIT.line(commit)
        yield from map(lines.ENTRY.line, _without_digests(rows))
        yield from map(lines.READ.line, reads.get(commit.revision, ()))
        for entry in rows:
            yield from map(lines.VECTOR.line, vectors.get(entry.id, ()))


def _without_digests(rows: list[NewEntry]) -> Iterator[tuple[Any, ...]]:
    at = NewEntry._fields.index("digest")
    return (row[:at] + row[at + 1 :] for row in rows)


def _vectors(
    engine: Engine, entries: list[NewEntry], sets: list[int], end: int
) -> dict[int, list[Vector]]:
    found: dict[int, list[Vector]] = {}
    ids = [entry.id for entry in entries if entry.value is not None]
    for set_id in sets if ids else ():
        stored = engine.vectors(set_id, ids)
        late = engine.vector_revisions(set_id, list(stored)) if stored else {}
        for id, vector in stored.items():
            # One that comes after the end belongs to a commit that is not exported.
            if late.get(id, 0) <= end:
                found.setdefault(id, []).append(Vector(set_id, id, late.get(id), vector))
    return found


def _conflicts(engine: Engine, end: int) -> Iterator[ConflictRow]:
    after = 0
    while rows := engine.conflicts(None, after, _PAGE_ROWS):
        yield from (row for row in rows if (row.revision or 0) <= end)
        after = rows[-1].id or 0


# One revision.


def write_entries(
    core: Core, view: tuple[int, int], stream: BinaryIO, progress: Progress | None
) -> Exported:
    """Writes the entries that a view of the whole store sees, in order of (namespace, key).

    Args:
        view: (revision, instant).
    """
    engine, out, (revision, instant) = core.engine, _Lines(stream), view
    there = engine.position_at(revision)
    hash = there.hash if there is not None else b""
    out.begin(
        {
            "agentmem": ENTRIES,
            "format": FORMAT,
            "store_id": engine.store_id,
            "revision": revision,
            "hash": hash.hex(),
        }
    )
    after, entries = None, 0
    while True:
        rows = engine.scan(Range("", after=after), revision, _PAGE_ROWS)
        seen = [row for row in rows if row.visible_at(instant)]
        given = _given_vectors(engine, seen, revision)
        out.add(lines.STATE.line(_state(row, given.get(row.id))) for row in seen)
        entries += len(seen)
        if progress is not None:
            progress("exporting", entries, 0)
        if len(rows) < _PAGE_ROWS:
            break
        after = (rows[-1].namespace, rows[-1].key)
    return Exported(ENTRIES, engine.store_id, revision, hash, 0, entries, out.end())


def _state(row: EntryRow, vector: bytes | None) -> State:
    return State(
        row.namespace, row.key, row.version, row.revision, row.value or "null", row.text,
        row.agent, row.op_id, row.created_at, row.committed_at, row.expires_at, vector,
    )  # fmt: skip


def _given_vectors(engine: Engine, rows: list[EntryRow], revision: int) -> dict[int, bytes]:
    """The vectors that their writers gave; those of an embedder are made again from the texts."""
    found: dict[int, bytes] = {}
    spaces = engine.spaces()
    for vector_set in spaces.sets.values():
        if vector_set.embedder != GIVEN:
            continue
        ids = [row.id for row in rows if set_of(spaces, top_label(row.namespace)) == vector_set]
        stored = engine.vectors(vector_set.id, ids) if ids else {}
        late = engine.vector_revisions(vector_set.id, list(stored)) if stored else {}
        found |= {id: vector for id, vector in stored.items() if late.get(id, 0) <= revision}
    return found


# To a file, or a stream.


def export_to(
    core: Core,
    target: str | os.PathLike[str] | BinaryIO,
    view: tuple[int, int] | None,
    *,
    overwrite: bool,
    progress: Progress | None,
) -> Exported:
    """See `Admin.export`."""

    def write(stream: BinaryIO) -> Exported:
        if view is None:
            return write_history(core.engine, stream, progress)
        return write_entries(core, view, stream, progress)

    if not isinstance(target, (str, os.PathLike)):
        return write(target)
    with placed(target, overwrite=overwrite) as path, open(path, "wb") as file:
        if not os.fspath(target).endswith(_COMPRESSED):
            return write(file)
        # Without a name and a time in it: one history is one file.
        with gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as compressed:
            return write(cast("BinaryIO", compressed))
