"""Copies a whole store into another, of any engine, commit by commit, with its hashes.

The log goes first, a page of commits a transaction: commits, entries, results of operations, what
was read. Then what lies beside the log: conflicts, tags, merge strategies, moved expiries, the
floor. Each transaction checks under the target's lock that the target still ends where the copy
left it, so that a copy can be killed anywhere and run again::

    source   1 ── 2 ── 3 ── 4 ── 5 ── 6
    target   1 ── 2 ── 3                   the hash of 3 is the same: go on with 4
    target   1 ── 2'── 3'                  it is not: refused, nothing is written
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agentmem.chain import commit_hash, fields_of
from agentmem.engines.base import Engine
from agentmem.engines.rows import (
    Change,
    CommitRow,
    ConflictRow,
    EntryRow,
    NewCommit,
    NewEntry,
    Position,
    PurgeRow,
    Range,
    ReadRow,
    Spaces,
    StrategyRow,
    TagRow,
    VectorRow,
)
from agentmem.errors import (
    AgentMemError,
    CorruptionError,
    HistoryReplacedError,
    InvalidValueError,
)
from agentmem.history.copy_target import CopyTarget, end_of
from agentmem.history.verify import verify
from agentmem.marks import block_of, names_of
from agentmem.tail import new_vector

__all__ = ["CopyReport", "Progress", "Source", "copy_store"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done (``copying``, ``verifying``), how far it is, and of how much."""

# Commits read at once; they are written in smaller pages if they are large.
_PAGE_COMMITS: Final = 256
_PAGE_BYTES: Final = 8 * 1024 * 1024
_PAGE_ROWS: Final = 500  # beside the log
_MAX_PENDING: Final = 100_000
_LOCK_TIMEOUT_MS: Final = 5_000
_FIELDS: Final = CommitRow._fields.index("beside") + 1  # those of the table ``commits``
_HASH: Final = CommitRow._fields.index("hash")


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What `copy_store` did.

    Attributes:
        source, target: where the stores are, for people, without secrets.
        began_at: the target's revision before.
        revision, hash: where both logs agree now, verified on the target.
        source_revision: the source's latest by the end; if it is larger, others have written
            meanwhile, and another run copies the rest.
        commits, entries: how many the target holds, all verified.
    """

    source: str
    target: str
    began_at: int
    revision: int
    hash: bytes
    source_revision: int
    commits: int
    entries: int


class Source(Protocol):
    """What is copied: an engine, or a file with the same rows; see `Engine` for what each gives."""

    @property
    def store_id(self) -> str: ...
    def describe(self) -> dict[str, Any]: ...
    def position(self) -> Position: ...
    def position_at(self, revision: int) -> Position | None: ...
    def floor(self) -> int: ...
    def chain(self, after: int, limit: int) -> list[tuple[CommitRow, list[NewEntry]]]: ...
    def reads_of(self, after: int, upto: int) -> list[ReadRow]: ...
    def expiries(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]: ...
    def conflicts(self, status: str | None, after: int, limit: int) -> list[ConflictRow]: ...
    def strategies(self) -> list[StrategyRow]: ...
    def all_tags(self) -> list[TagRow]: ...
    def purges(self) -> list[PurgeRow]: ...
    def spaces(self) -> Spaces: ...
    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]: ...
    def vector_revisions(self, set_id: int, entries: Sequence[int]) -> dict[int, int]: ...
    def vector_changes(
        self, set_id: int, within: Range, after: Position, upto: Position
    ) -> list[VectorRow]: ...
    def pending_vectors(self, after: int, limit: int) -> list[EntryRow]: ...


def copy_store(
    source: Source,
    target: Engine,
    progress: Progress | None = None,
    *,
    lock_timeout_ms: int = _LOCK_TIMEOUT_MS,
) -> CopyReport:
    """Brings the target to the source's revision as of now, and verifies it.

    Writers of the source need not stop. Tags and merge strategies of the target become those of
    the source. A copy that was killed goes on where it was when it is run again.

    Args:
        progress: told how far it is.
        lock_timeout_ms: the longest to wait for the target's lock, for each page.

    Raises:
        InvalidValueError: both are the same store.
        HistoryReplacedError: the target has a history of its own (nothing was written), or
            another wrote to it meanwhile (the pages before are there).
        CorruptionError: the source's log is damaged, or what was copied is.
        StoreBusyError: the target's lock was not to be had in time.
        StorageError: a storage failed; what was copied stays, and another run goes on.
    """
    if source.store_id == target.store_id:
        raise InvalidValueError("both are the same store, or one is a copy of the other's file")
    copy = _Copy(source, target, progress, lock_timeout_ms)
    copy.check()
    copy.log()
    copy.beside()
    return copy.report()


class _Copy:
    """One run.

    Attributes:
        end: where the source ended when it began; the copy goes so far.
    """

    def __init__(
        self, source: Source, target: Engine, progress: Progress | None, lock_timeout_ms: int
    ) -> None:
        self._source = source
        self._names = source.describe()["location"], target.describe()["location"]
        self._progress = progress
        self.began = target.position()
        self.end = source.position()
        self._spaces = source.spaces()
        self._purges = source.purges()
        self._target = CopyTarget(target, self._names[1], end_of(self.began), lock_timeout_ms)

    # Whether it can be done.

    def check(self) -> None:
        """Raises unless all that the target holds is the source's."""
        began = self.began
        there = self._source.position_at(began.revision)
        if there is None or began.revision > self.end.revision:
            raise self._another(
                f"it is at revision {began.revision}, and the source at {self.end.revision}"
            )
        if there.hash != began.hash:
            raise self._another(f"its revision {began.revision} is not the source's")
        for ours, theirs in self._conflicts_of_both():
            if ours is None or (theirs is not None and not _same_conflict(ours, theirs)):
                raise self._another("it has conflicts on record that the source does not have")
        if began.revision == 0:
            self._check_settings()

    def _check_settings(self) -> None:
        """An empty log does not make a store empty: somebody may have begun to use it."""
        known = {(row.pattern, row.spec) for row in self._source.strategies()}
        found = {(row.pattern, row.spec) for row in self._target.engine.strategies()}
        if found - known or set(self._target.engine.all_tags()) - set(self._source.all_tags()):
            raise self._another("it has tags or merge strategies that the source does not have")

    def _another(self, why: str) -> AgentMemError:
        return HistoryReplacedError(
            f"{self._names[1]} has a history of its own: {why}; nothing was written: copy to a "
            "new store"
        )

    # The log.

    def log(self) -> None:
        """Copies commits up to the end, page by page."""
        while self._target.at[0] < self.end.revision:
            for page in self._pages():
                self._target.write(page, (page.commits[-1][0], page.commits[-1][_HASH]))
                self._tell("copying", self._target.at[0], self.end.revision)

    def _pages(self) -> Iterator[NewCommit]:
        """The next commits of the source, in pages that can be sent at once."""
        found = self._source.chain(self._target.at[0], _PAGE_COMMITS)
        found = [(commit, entries) for commit, entries in found if commit.revision <= self.end[0]]
        self._check_links([commit for commit, _entries in found])
        reads: dict[int, list[ReadRow]] = {}
        for read in self._source.reads_of(self._target.at[0], found[-1][0].revision):
            reads.setdefault(read[0], []).append(read)
        page, size = NewCommit(), 0
        for commit, entries in found:
            more = _size(commit, entries)
            if page.commits and size + more > _PAGE_BYTES:
                yield page
                page, size = NewCommit(), 0
            size += more
            page.commits.append(commit[:_FIELDS])
            page.entries += entries
            namespaces = dict.fromkeys(entry.namespace for entry in entries)
            names = names_of(commit.scope, commit.agent, commit.metadata, namespaces)
            page.marks += [(name, block_of(commit.revision)) for name in sorted(names)]
            page.reads += reads.get(commit.revision, ())
            self._add_vectors(page, entries)
            if _has_result(commit):
                page.results.append((commit.revision, commit.fingerprint, commit.result))
        yield page

    def _add_vectors(self, page: NewCommit, entries: list[NewEntry]) -> None:
        ids = [entry.id for entry in entries if entry.value is not None]
        for set_id in self._spaces.sets:
            stored = self._source.vectors(set_id, ids) if ids else {}
            late = self._source.vector_revisions(set_id, list(stored)) if stored else {}
            for entry_id, vector in stored.items():
                # One that comes after the end belongs to a commit that another run will copy.
                if late.get(entry_id, 0) <= self.end.revision:
                    page.vectors.append(new_vector(set_id, entry_id, late.get(entry_id), vector))

    def _check_links(self, commits: list[CommitRow]) -> None:
        """Raises unless the commits follow the target's last one, and one another."""
        revision, previous = self._target.at
        for commit in commits:
            fits = commit_hash(previous, fields_of(commit), commit.digests) == commit.hash
            if commit.revision != revision + 1 or not fits:
                break
            revision, previous = commit.revision, commit.hash
        else:
            if commits:
                return
        raise CorruptionError(
            f"revision {revision + 1} of {self._names[0]} is missing, or its hash does not fit; "
            f"it was not copied: agentmem verify tells more"
        )

    # Beside the log.

    def beside(self) -> None:
        """Brings what lies beside the log up to date, as far as it is of the copied commits."""
        self._copy_expiries()
        self._copy_conflicts()
        self._copy_spaces()
        changes = [*self._strategy_changes(), *self._tag_changes(), *self._purge_changes()]
        if self._source.floor() > self._target.engine.floor():
            changes.append(Change("raise_floor", {"floor": self._source.floor()}))
        if changes:
            self._target.write(NewCommit(changes=changes))

    def _copy_expiries(self) -> None:
        """Those that `touch` has moved since the entry was copied."""
        upto = self.end.last_entry_id
        after = 0
        while after < upto:
            ours = self._source.expiries(after, upto, _PAGE_ROWS)
            # The target's of the same entries; if it has more than a page, the page ends there.
            last = ours[-1][0] if len(ours) == _PAGE_ROWS else upto
            theirs = self._target.engine.expiries(after, last, _PAGE_ROWS)
            if len(theirs) == _PAGE_ROWS:
                last = min(last, theirs[-1][0])
            wanted = {id: expires_at for id, expires_at in ours if id <= last}
            found = {id: expires_at for id, expires_at in theirs if id <= last}
            touches = [
                (wanted.get(id), id)
                for id in sorted({*wanted, *found})
                if wanted.get(id) != found.get(id)
            ]
            if touches:
                self._target.write(NewCommit(touches=touches))
            after = last

    def _copy_conflicts(self) -> None:
        changes: list[Change] = []
        for ours, theirs in self._conflicts_of_both():
            # One that a later commit ended belongs to that commit, which another run will copy.
            if (
                ours is None
                or (theirs and _ended_as(ours, theirs))
                or (ours.revision or 0) > self.end.revision
            ):
                continue
            changes.append(Change("copy_conflict", ours._asdict()))
            if len(changes) == _PAGE_ROWS:
                self._target.write(NewCommit(changes=changes))
                changes = []
        if changes:
            self._target.write(NewCommit(changes=changes))

    def _copy_spaces(self) -> None:
        """Which vectors the namespaces have, and those that came after their entries."""
        there, rows = self._target.engine.spaces(), NewCommit()
        rows.sets = [each for id, each in self._spaces.sets.items() if id not in there.sets]
        for label, set_id in self._spaces.of.items():
            if label not in there.of:
                rows.spaces.append((label, set_id))
            elif there.of[label] != set_id:
                values = {"namespace": label, "set_id": set_id}
                rows.changes.append(Change("move_space", values))
        if rows.changes:
            rows.changes.append(Change("count_spaces"))
        for set_id in self._spaces.sets:
            changes = self._source.vector_changes(set_id, Range(""), self.began, self.end)
            rows.vectors += [
                new_vector(set_id, row.entry_id, row.since, row.vector)
                for row in changes
                if row.vector is not None and row.since > row.revision
            ]
        pending = self._source.pending_vectors(0, _MAX_PENDING)
        wanted = {row.id for row in pending if row.id <= self.end.last_entry_id}
        found = {row.id for row in self._target.engine.pending_vectors(0, _MAX_PENDING)}
        rows.pending, rows.settled = sorted(wanted - found), sorted(found - wanted)
        if any((rows.sets, rows.spaces, rows.changes, rows.vectors, rows.pending, rows.settled)):
            self._target.write(rows)

    def _conflicts_of_both(self) -> Iterator[tuple[ConflictRow | None, ConflictRow | None]]:
        """The source's and the target's record of each id that either has, by id."""
        ours, theirs = _conflicts_of(self._source), _conflicts_of(self._target.engine)
        left, right = next(ours, None), next(theirs, None)
        while left is not None or right is not None:
            first = min(row.id or 0 for row in (left, right) if row is not None)
            in_left = left is not None and left.id == first
            in_right = right is not None and right.id == first
            yield left if in_left else None, right if in_right else None
            left = next(ours, None) if in_left else left
            right = next(theirs, None) if in_right else right

    def _strategy_changes(self) -> list[Change]:
        wanted = [(row.pattern, row.spec) for row in self._source.strategies()]
        found = [(row.pattern, row.spec) for row in self._target.engine.strategies()]
        if wanted == found:
            return []
        # Written anew: their order counts, and each goes behind those that are there.
        gone = [Change("unset_strategy", {"pattern": pattern}) for pattern, _spec in found]
        return gone + [
            Change("set_strategy", {"pattern": pattern, "spec": spec}) for pattern, spec in wanted
        ]

    def _tag_changes(self) -> list[Change]:
        wanted = {
            (row.scope, row.name): row
            for row in self._source.all_tags()
            if row.revision <= self.end.revision
        }
        found = {(row.scope, row.name): row for row in self._target.engine.all_tags()}
        gone = found.keys() - wanted.keys()
        return [
            Change("unset_tag", {"scope": scope, "name": name}) for scope, name in sorted(gone)
        ] + [
            Change("set_tag", row._asdict())
            for place, row in wanted.items()
            if found.get(place) != row
        ]

    def _purge_changes(self) -> Iterator[Change]:
        """Records of purges; what was copied before one has yet to be purged here, as well."""
        there = {_purge(row) for row in self._target.engine.purges()}
        for row in self._source.purges():
            if _purge(row) not in there:
                values = row._asdict()
                del values["id"], values["finished"]
                yield Change("begin_purge", values)
                if row.finished and self.began.revision == 0 and row in self._purges:
                    values = {"namespace": row.namespace, "key": row.key}
                    yield Change("finish_purge", values)

    # The end.

    def report(self) -> CopyReport:
        """Verifies the target, and compares the ends."""
        report = verify(
            self._target.engine, lambda done, total: self._tell("verifying", done, max(total, done))
        )
        position = self._target.engine.position()
        if end_of(position) != self._target.at:
            raise self._target.moved(position.revision)
        there = self._source.position_at(self.end.revision)
        if not report.ok or there is None or end_of(there) != self._target.at:
            problem = report.problems[0] if report.problems else "the ends of the logs differ"
            raise CorruptionError(
                f"the copy {self._names[1]} is not what it should be: {problem}; run agentmem "
                "verify on both stores, and copy to a new store"
            )
        return CopyReport(
            *self._names,
            self.began.revision,
            *self._target.at,
            self._source.position().revision,
            report.commits,
            report.entries,
        )

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)


def _purge(row: PurgeRow) -> tuple[object, ...]:
    """What stays of a purge that is run again."""
    return row.namespace, row.key, row.purged_at, row.agent, row.note


def _conflicts_of(engine: Source) -> Iterator[ConflictRow]:
    after = 0
    while rows := engine.conflicts(None, after, _PAGE_ROWS):
        yield from rows
        after = rows[-1].id or 0


def _has_result(commit: CommitRow) -> bool:
    """Whether it has a row of ``operation_results``, in which all may have been erased since."""
    if commit.beside is None:
        return commit.fingerprint is not None or commit.result is not None
    return bool(commit.beside % 2)


def _same_conflict(ours: ConflictRow, theirs: ConflictRow) -> bool:
    """Whether they are one record; how it ended can have changed since it was copied."""
    same = ours._replace(status=theirs.status, revision=theirs.revision, note=theirs.note)
    if ours.ours is None and ours.status != "open":
        same = same._replace(ours=theirs.ours)  # which a compaction has dropped since
    return same == theirs


def _ended_as(ours: ConflictRow, theirs: ConflictRow) -> bool:
    return ours[:3] == theirs[:3] and (ours.status, ours.revision, ours.note) == (
        theirs.status,
        theirs.revision,
        theirs.note,
    )


def _size(commit: CommitRow, entries: list[NewEntry]) -> int:
    """About how many bytes are sent; a character counts as one."""
    texts = (text for entry in entries for text in (entry.value, entry.text) if text is not None)
    return len(commit.digests) + len(commit.result or "") + sum(map(len, texts))
