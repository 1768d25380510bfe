"""The first reading of an exported history: is all of it right, and what lies beside the log?

Nothing is written to a store before the whole file was read once. What is checked of each line is
what `agentmem.history.verify` checks of a store.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from agentmem.chain import DIGEST_BYTES, commit_hash, digest_of, fields_of
from agentmem.engines.rows import (
    OPERATION_CODES,
    CommitRow,
    ConflictRow,
    EntryRow,
    NewEntry,
    Position,
    PurgeRow,
    ReadRow,
    Spaces,
    StrategyRow,
    TagRow,
    VectorRow,
)
from agentmem.exchange import lines
from agentmem.exchange.lines import LineError, Vector
from agentmem.exchange.reading import Lines

__all__ = ["Block", "Survey", "blocks", "surveyed"]

_DELETE: Final = OPERATION_CODES["delete"]
_FLOAT_BYTES: Final = 4
_LOG: Final = ("commit", "entry", "read", "vector")


@dataclass(slots=True)
class Block:
    """A commit, with all lines that belong to it."""

    commit: CommitRow
    entries: list[NewEntry] = field(default_factory=list)
    reads: list[ReadRow] = field(default_factory=list)
    vectors: list[Vector] = field(default_factory=list)

    def add(self, kind: str, found: dict[str, Any]) -> None:
        """Adds what a line holds.

        Raises:
            LineError: it does not belong here.
        """
        commit = self.commit
        if kind == "entry":
            at = found.get("id")
            place = at - commit.first_entry_id if type(at) is int else -1
            if not 0 <= place < commit.changes:
                raise LineError(f"id is none of the entries of revision {commit.revision}")
            digest = commit.digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]
            entry = lines.ENTRY.row(found, digest)
            self._check_entry(entry)
            self.entries.append(entry)
        elif kind == "read":
            read = lines.READ.row(found)
            if read.revision != commit.revision:
                raise LineError(f"revision is not {commit.revision}")
            self.reads.append(read)
        else:
            vector = lines.VECTOR.row(found)
            if vector.entry_id not in {entry.id for entry in self.entries}:
                raise LineError(f"entry_id is none of the entries of revision {commit.revision}")
            self.vectors.append(vector)

    def _check_entry(self, entry: NewEntry) -> None:
        if entry.revision != self.commit.revision:
            raise LineError(f"revision is not {self.commit.revision}")
        if self.entries and entry.id <= self.entries[-1].id:
            raise LineError("id does not follow that of the entry before it")
        if not entry.key:
            raise LineError("key is empty")
        # A purge takes the salt with the value, and the digest tells nothing any more.
        if entry.salt is None:
            if entry.value is not None or entry.text is not None or entry.operation == _DELETE:
                raise LineError("salt is missing")
        elif digest_of(entry) != entry.digest:
            raise LineError("the digest does not fit: the entry was changed")


class _Passed(NamedTuple):
    """How far the log was followed."""

    revision: int
    hash: bytes
    committed_at: int
    next_entry_id: int


@dataclass(slots=True)
class Survey:
    """What a history holds beside its log, and where the log stands.

    Attributes:
        at: the commit with the revision that was asked for; None: there is none.
        expiries: ids and expiries of the entries that expire.
        late: vectors of entries up to that revision that came after it.
    """

    end: Position
    at: Position | None
    spaces: Spaces = field(default_factory=lambda: Spaces({}, {}))
    strategies: list[StrategyRow] = field(default_factory=list)
    tags: list[TagRow] = field(default_factory=list)
    conflicts: list[ConflictRow] = field(default_factory=list)
    pending: list[EntryRow] = field(default_factory=list)
    expiry_ids: array[int] = field(default_factory=lambda: array("q"))
    expiry_times: array[int] = field(default_factory=lambda: array("q"))
    late: dict[int, list[VectorRow]] = field(default_factory=dict)
    purges: list[PurgeRow] = field(default_factory=list)
    floor: int = 0


def blocks(found: Lines) -> Iterator[Block]:
    """The commits of a file that was surveyed, each with what belongs to it, in order."""
    block: Block | None = None
    for number, line in found:
        kind = line.get("type")
        if kind not in _LOG:
            continue
        try:
            if kind == "commit":
                if block is not None:
                    yield block
                block = Block(lines.COMMIT.row(line))
            elif block is not None:
                block.add(str(kind), line)
        except LineError as error:
            raise found.wrong(number, str(error)) from error
    if block is not None:
        yield block


def surveyed(found: Lines, at: int) -> Survey:
    """Reads a history to its end, and checks it.

    Args:
        at: a revision that the caller wants to know the commit of.

    Raises:
        InvalidValueError: a line is not what it should be; says which, and why.
        CorruptionError: the file was cut off, or lines are missing or were changed.
    """
    survey = _Surveyor(found, at)
    number = 1
    try:
        for number, line in found:  # noqa: B007  # the last one is named in errors
            survey.line(line)
        return survey.done()
    except LineError as error:
        raise found.wrong(number, str(error)) from error


class _Surveyor:
    def __init__(self, found: Lines, at: int) -> None:
        self._lines = found
        self._wanted = at
        end = Position(
            found.revision,
            found.whole_number("committed_at"),
            found.hash,
            found.whole_number("last_entry_id"),
            found.whole_number("committed_at"),
        )
        self._survey = Survey(end, Position(0, 0, b"", 0, 0) if at == 0 else None)
        self._block: Block | None = None
        self._passed = _Passed(0, b"", 0, 1)
        self._versions: dict[tuple[str, str], int] = {}
        self._operations: set[tuple[str, str]] = set()
        self._sizes: dict[int, set[int]] = {}  # of the vectors of each set
        self._incomplete = 0  # the latest commit that lacks entries

    def line(self, found: dict[str, Any]) -> None:
        """Looks at the next line.

        Raises:
            LineError: it is not what it should be.
        """
        kind = found.get("type")
        if kind in _LOG:
            if self._passed.revision == self._survey.end.revision and self._block is None:
                raise LineError(f"a {kind} stands after the end of the log")
            if kind == "commit":
                self._finish()
                self._begin(lines.COMMIT.row(found))
            elif self._block is None:
                raise LineError(f"a {kind} stands before any commit")
            else:
                self._block.add(str(kind), found)
            return
        self._finish()
        if self._passed.revision != self._survey.end.revision:
            raise LineError(f"revision {self._passed.revision + 1} is missing before it")
        self._beside(str(kind), found)

    def _begin(self, commit: CommitRow) -> None:
        passed = self._passed
        if commit.revision != passed.revision + 1 or commit.revision > self._survey.end.revision:
            raise LineError(f"revision {commit.revision} follows revision {passed.revision}")
        if commit.committed_at < passed.committed_at:
            raise LineError("committed_at lies before that of the revision before")
        if commit.first_entry_id != passed.next_entry_id or commit.changes < 0:
            raise LineError("first_entry_id does not follow the entries before")
        if len(commit.digests) != commit.changes * DIGEST_BYTES:
            raise LineError("digests are not those of so many changes")
        if commit_hash(passed.hash, fields_of(commit), commit.digests) != commit.hash:
            raise LineError("the hash does not fit: history was changed")
        if commit.op_id is not None:
            operation = (commit.scope, commit.op_id)
            if operation in self._operations:
                raise LineError("op_id was used by an earlier commit")
            self._operations.add(operation)
        self._block = Block(commit)

    def _finish(self) -> None:
        """Takes the commit in that was read, now that all of it is known."""
        block, self._block = self._block, None
        if block is None:
            return
        commit, survey = block.commit, self._survey
        if len(block.entries) < commit.changes:
            self._incomplete = commit.revision
        for entry in block.entries:
            place = (entry.namespace, entry.key)
            before = self._versions.get(place, 0)
            if entry.version <= before:
                raise LineError(f"before it, version {entry.version} follows version {before}")
            if entry.version != before + 1:
                self._incomplete = max(self._incomplete, entry.revision)
            self._versions[place] = entry.version
            if entry.expires_at is not None:
                survey.expiry_ids.append(entry.id)
                survey.expiry_times.append(entry.expires_at)
        for vector in block.vectors:
            self._sizes.setdefault(vector.set_id, set()).add(len(vector.vector))
            if vector.late is not None and commit.revision <= self._wanted < vector.late:
                row = VectorRow(
                    vector.entry_id, "", commit.revision, vector.late, None, vector.vector
                )
                survey.late.setdefault(vector.set_id, []).append(row)
        last = commit.first_entry_id + commit.changes - 1
        self._passed = _Passed(commit.revision, commit.hash, commit.committed_at, last + 1)
        if commit.revision == self._wanted:
            survey.at = Position(
                commit.revision, commit.committed_at, commit.hash, last, commit.committed_at
            )

    def _beside(self, kind: str, found: dict[str, Any]) -> None:
        survey = self._survey
        if kind == "vector_set":
            vector_set = lines.VECTOR_SET.row(found)
            survey.spaces.sets[vector_set.id] = vector_set
        elif kind == "vector_space":
            space = lines.SPACE.row(found)
            if space.set_id not in survey.spaces.sets:
                raise LineError("set_id is that of no set")
            survey.spaces.of[space.namespace] = space.set_id
        elif kind == "pending_vector":
            id = lines.PENDING.row(found).entry_id
            survey.pending.append(
                EntryRow(id, "", "", 0, 0, 0, None, None, None, None, 0, None, None, None, 0)
            )
        elif kind == "conflict":
            conflict = lines.CONFLICT.row(found)
            if conflict.id is None or (survey.conflicts and conflict.id <= _last_id(survey)):
                raise LineError("id does not follow that of the conflict before it")
            survey.conflicts.append(conflict)
        elif kind == "strategy":
            pattern, spec = lines.STRATEGY.row(found)
            survey.strategies.append(StrategyRow(pattern, spec, len(survey.strategies) + 1))
        elif kind == "tag":
            tag = lines.TAG.row(found)
            if not 0 <= tag.revision <= survey.end.revision:
                raise LineError("revision is none of the log")
            survey.tags.append(tag)
        elif kind == "purge":
            survey.purges.append(lines.PURGE.row(found, len(survey.purges) + 1))
        elif kind == "floor":
            survey.floor = lines.FLOOR.row(found).revision
        else:
            raise LineError(
                f"the type {kind!r} is not known here; a newer agentmem may have written"
            )

    def done(self) -> Survey:
        """What was found, once all lines were read.

        Raises:
            LineError: they do not fit each other.
        """
        self._finish()
        survey, end = self._survey, self._survey.end
        found = self._passed
        last = Position(
            found.revision, found.committed_at, found.hash, found.next_entry_id - 1, end.now
        )
        if last != end:
            raise LineError("the log does not end where the first line says")
        if self._incomplete > survey.floor:
            raise LineError(f"entries of revision {self._incomplete} are missing")
        for id, lengths in self._sizes.items():
            vector_set = survey.spaces.sets.get(id)
            if vector_set is None or lengths != {vector_set.dimension * _FLOAT_BYTES}:
                raise LineError(f"vectors of set {id} are not those of its dimension")
        return survey


def _last_id(survey: Survey) -> int:
    return survey.conflicts[-1].id or 0
