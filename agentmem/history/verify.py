"""Whether the log is whole, and whether what is derived from it agrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agentmem.chain import DIGEST_BYTES, commit_hash, digest_of
from agentmem.engines.base import VECTOR_SET_SHIFT, CommitRow, Engine, NewEntry
from agentmem.marks import block_of, names_of, revisions_of
from agentmem.model import display_key
from agentmem.namespaces import decode
from agentmem.search.vectors import checksum
from agentmem.search.words import found_by

__all__ = ["Report", "verify"]

_PAGE: Final = 1_000
_MAX_PROBLEMS: Final = 100


@dataclass(slots=True)
class Report:
    """What `Admin.verify` found.

    Attributes:
        revision: up to which the log was read.
        commits: how many commits were checked.
        entries: how many entries were checked.
        problems: what is wrong, in words; at most 100.
    """

    revision: int = 0
    commits: int = 0
    entries: int = 0
    problems: list[str] = field(default_factory=list)

    __module__ = "agentmem"

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def add(self, problem: str) -> None:
        """Notes a problem; after the first hundred they are only more of the same."""
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)


def verify(engine: Engine, progress: Callable[[int, int], None] | None = None) -> Report:
    """Reads the whole log: the chain, its contiguity, versions, operation ids, heads.

    Args:
        progress: called with (revisions read, latest revision) from time to time.
    """
    report = Report()
    latest = engine.position().revision
    state = _State()
    after = 0
    while True:
        page = engine.chain(after, _PAGE)
        state.floor = engine.floor()  # afterwards: what it lacks was superseded by then
        for commit, entries in page:
            try:
                _check_commit(commit, entries, state, report)
            except Exception as error:  # noqa: BLE001  # whatever damage there is, it is reported
                kind = type(error).__name__
                report.add(f"revision {commit.revision}: a column holds what it cannot ({kind})")
        _check_marks(engine, page, report)
        if page:
            after = page[-1][0].revision
            if progress is not None:
                progress(after, max(latest, after))
        if len(page) < _PAGE:
            break
    report.revision = after
    _check_search(engine, state, report)
    findings = engine.inspect()
    for problem in findings["integrity"]:
        report.add(f"database: {problem}")
    if findings["wrong_heads"]:
        report.add(f"{findings['wrong_heads']} heads do not point to the newest entry of their key")
    return report


@dataclass(slots=True)
class _State:
    hash: bytes = b""
    revision: int = 0
    committed_at: int = 0
    next_entry_id: int = 1
    floor: int = 0
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    operations: set[tuple[str, str]] = field(default_factory=set)
    found: dict[tuple[str, str], int] = field(default_factory=dict)  # by words: the entry


def _check_commit(
    commit: CommitRow, entries: list[NewEntry], state: _State, report: Report
) -> None:
    revision = commit.revision
    if revision != state.revision + 1:
        report.add(f"revision {state.revision + 1} is missing: the next is {revision}")
    if commit.committed_at < state.committed_at:
        report.add(f"revision {revision} was committed before revision {state.revision}")
    if commit.first_entry_id != state.next_entry_id:
        report.add(f"revision {revision} does not begin where the one before it ends")
    fields = (*commit[:8], commit.attempt.hex(), *commit[9:12])
    if commit_hash(state.hash, fields, commit.digests) != commit.hash:
        report.add(f"revision {revision}: the hash does not fit; history was changed")
    if commit.op_id is not None:
        operation = (commit.scope, commit.op_id)
        if operation in state.operations:
            report.add(f"revision {revision}: op_id {commit.op_id!r} was applied twice")
        state.operations.add(operation)
    _check_entries(commit, entries, state, report)
    state.hash = commit.hash
    state.revision = revision
    state.committed_at = commit.committed_at
    state.next_entry_id = commit.first_entry_id + commit.changes
    report.commits += 1


def _check_marks(
    engine: Engine, page: list[tuple[CommitRow, list[NewEntry]]], report: Report
) -> None:
    """Whether the log is found by the names that its commits have."""
    wanted: dict[tuple[str, int], None] = {}
    marked_after = engine.marked_after()
    for commit, entries in page:
        if commit.revision > marked_after:
            namespaces = dict.fromkeys(entry.namespace for entry in entries)
            try:
                names = names_of(commit.scope, commit.agent, commit.metadata, namespaces)
            except (ValueError, AttributeError):
                continue  # damaged, which was reported
            wanted |= dict.fromkeys((name, block_of(commit.revision)) for name in names)
    missing = Counter(block for _name, block in engine.unmarked(list(wanted)))
    for block, count in sorted(missing.items()):
        after, last = revisions_of(block)
        report.add(
            f"revisions {after + 1} to {last} lack {count} marks: store.log may not find them"
        )


def _check_search(engine: Engine, state: _State, report: Report) -> None:
    """Whether what search goes by is what the log says."""
    end = engine.position()
    if end.revision != report.revision:
        return  # others have written meanwhile; what they wrote was not read
    lost = set(state.found.values()) ^ set(engine.text_ids())
    if lost and engine.position().revision == end.revision:
        report.add(f"the text index differs from the log in {len(lost)} entries; run reindex")
    after = 0
    last = end.last_entry_id
    while page := engine.stored_vectors(after, _PAGE):
        for id, _late, vector, noted in page:
            entry_id = id % (1 << VECTOR_SET_SHIFT)
            if checksum(id, vector) != noted:
                report.add(f"the vector of entry {entry_id} was changed")
            elif not 1 <= entry_id <= last and engine.position().revision == end.revision:
                report.add(f"a vector belongs to entry {entry_id}, which there is not")
        after = page[-1].id


def _check_entries(
    commit: CommitRow, entries: list[NewEntry], state: _State, report: Report
) -> None:
    above = commit.revision > state.floor
    if len(entries) != commit.changes and above:
        report.add(
            f"revision {commit.revision}: {commit.changes} entries were written, "
            f"{len(entries)} are there"
        )
    for entry in entries:
        name = display_key(decode(entry.namespace), entry.key)
        where = f"{name!r} at revision {commit.revision}"
        index = entry.id - commit.first_entry_id
        noted = commit.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        purged = entry.salt is None and entry.operation != 2
        if entry.digest != noted or not (purged or digest_of(entry) == noted):
            report.add(f"{where}: the digest does not fit; the entry was changed")
        place = (entry.namespace, entry.key)
        before = state.versions.get(place, 0)
        if entry.version != before + 1 and (above or entry.version <= before):
            report.add(f"{where}: version {entry.version} follows version {before}")
        if entry.revision != commit.revision:
            report.add(f"{where}: the entry says revision {entry.revision}")
        if purged and not (entry.value is entry.text is None):
            report.add(f"{where}: it was purged, and still holds something")
        if (entry.value is None) != (purged or entry.operation == 2):
            report.add(f"{where}: the value is lost")
        state.versions[place] = entry.version
        if found_by(entry.value, entry.text) is not None:
            state.found[place] = entry.id
        else:
            state.found.pop(place, None)
        report.entries += 1
