"""Whether the log is whole, and whether what is derived from it agrees."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agentmem.chain import DIGEST_BYTES, commit_hash, digest_of, entry_digest, fields_of
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    VECTOR_SET_SHIFT,
    CommitRow,
    NewEntry,
    PurgeRow,
)
from agentmem.history.doomed import Doomed
from agentmem.marks import block_of, names_of, revisions_of
from agentmem.model import display_key
from agentmem.namespaces import decode
from agentmem.search.vectors import checksum
from agentmem.search.words import found_by

__all__ = ["Report", "verify"]

_PAGE: Final = 1_000
_PAGE_ENTRIES: Final = 10_000
_DELETE: Final = 2
# The beginning of a string that is a value, and not empty. After the end of one, which a colon may
# stand before as well, there is one of these signs.
_STRING: Final = re.compile(r'[:\[]"[^":,}\]]')
_MAX_PROBLEMS: Final = 100


@dataclass(slots=True)
class Report:
    """What `Admin.verify` found.

    Attributes:
        revision: up to which the log was read.
        hash: of that revision, in hexadecimal. Kept elsewhere with the revision, and given to a
            later verification, it proves that history was not replaced by another.
        commits: how many commits were checked.
        entries: how many entries were checked.
        problems: what is wrong, in words; at most 100.
    """

    revision: int = 0
    hash: str = ""
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


def verify(
    engine: Engine,
    progress: Callable[[int, int], None] | None = None,
    expected: tuple[int, str] | None = None,
) -> Report:
    """Reads the whole log: the chain, its contiguity, versions, operation ids, heads.

    Args:
        progress: called with (revisions read, latest revision) from time to time.
        expected: (revision, hash) as a `Report` had them before: the log must still hold it.
    """
    report = Report()
    latest = engine.position().revision
    state = _State()
    after, size = 0, 1
    while True:
        page = engine.chain(after, size)
        # Afterwards: what it lacks was superseded by then, or purged.
        state.floor = engine.floor()
        state.purges = engine.purges()
        for commit, entries in page:
            try:
                _check_commit(commit, entries, state, report)
            except Exception as error:  # noqa: BLE001  # whatever damage there is, it is reported
                kind = type(error).__name__
                report.add(f"revision {commit.revision}: a column holds what it cannot ({kind})")
        _check_marks(engine, page, report)
        _check_beside(engine, page, report)
        if page:
            after = page[-1][0].revision
            if progress is not None:
                progress(after, max(latest, after))
        if len(page) < size:
            break
        size = _page_after(page)
    report.revision, report.hash = after, state.hash.hex() if isinstance(state.hash, bytes) else ""
    if expected is not None:
        _check_expected(engine, expected, report)
    # Asked in this order: others may have committed, and compacted, since the last page was read.
    floor, end = engine.floor(), engine.position().revision
    if floor > end:
        report.add(f"the floor is revision {floor}, and the log ends at {end}")
    _check_search(engine, state, report)
    findings = engine.inspect()
    for problem in findings["integrity"]:
        report.add(f"database: {problem}")
    if findings["wrong_heads"]:
        report.add(f"{findings['wrong_heads']} heads do not point to the newest entry of their key")
    return report


def _page_after(page: list[tuple[CommitRow, list[NewEntry]]]) -> int:
    """How many commits to read at once, if the next are as large as these."""
    entries = sum(len(found) for _commit, found in page)
    wanted = min(_PAGE, len(page) * max(2, _PAGE_ENTRIES // max(1, entries)))
    return max(1, wanted if entries < _PAGE_ENTRIES else len(page) * _PAGE_ENTRIES // entries)


def _check_expected(engine: Engine, expected: tuple[int, str], report: Report) -> None:
    revision, known = expected
    found = engine.position_at(revision)
    if found is None:
        report.add(
            f"revision {revision} was there, and the log ends at {report.revision}: history was "
            "replaced by an older one"
        )
    elif found.hash.hex() != known:
        report.add(f"revision {revision} is not the one that was there: history was replaced")


@dataclass(slots=True)
class _State:
    hash: bytes = b""
    revision: int = 0
    committed_at: int = 0
    next_entry_id: int = 1
    floor: int = 0
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    operations: set[tuple[str, str]] = field(default_factory=set)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)  # that words find; else 0
    purges: list[PurgeRow] = field(default_factory=list)

    def is_doomed(self, entry: NewEntry) -> bool:
        """Whether a purge on record has taken an entry."""
        place = (entry.namespace, entry.key)
        return any(
            Doomed(purge.namespace, purge.key).holds(place) and entry.revision <= purge.revision
            for purge in self.purges
        )


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
    if commit_hash(state.hash, fields_of(commit), commit.digests) != commit.hash:
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


def _check_beside(
    engine: Engine, page: list[tuple[CommitRow, list[NewEntry]]], report: Report
) -> None:
    """Whether each commit has all rows beside it that it was written with."""
    counted = [commit for commit, _entries in page if commit.beside is not None]
    if not counted:
        return
    found = engine.beside(counted[0].revision - 1, counted[-1].revision)
    for commit in counted:
        there = found.get(commit.revision, 0)
        if there != commit.beside and not _were_dropped(engine, commit, there):
            report.add(
                f"revision {commit.revision}: of what it had read, or of its result, rows are "
                "missing, or were added"
            )


def _were_dropped(engine: Engine, commit: CommitRow, there: int) -> bool:
    """Whether a compaction has dropped what a commit had read, with the last of its entries."""
    if not isinstance(commit.beside, int) or there != commit.beside % 2 or commit.changes == 0:
        return False
    # Read anew: the compaction may have come after the page was read, and drops both at once.
    now = engine.chain(commit.revision - 1, 1)
    return bool(now) and not now[0][1] and engine.floor() >= commit.revision


def _check_search(engine: Engine, state: _State, report: Report) -> None:
    """Whether what search goes by is what the log says."""
    end = engine.position()
    if end.revision != report.revision:
        return  # others have written meanwhile; what they wrote was not read
    lost = (set(state.newest.values()) - {0}) ^ set(engine.text_ids())
    if lost and engine.position().revision == end.revision:
        report.add(f"the text index differs from the log in {len(lost)} entries; run reindex")
    after = 0
    last = end.last_entry_id
    while page := engine.stored_vectors(after, _PAGE):
        for id, late, vector, noted in page:
            entry_id = id % (1 << VECTOR_SET_SHIFT)
            if checksum(id, vector) != noted or not (late is None or 0 < late <= end.revision):
                report.add(f"the vector of entry {entry_id} was changed")
            elif not 1 <= entry_id <= last and engine.position().revision == end.revision:
                report.add(f"a vector belongs to entry {entry_id}, which there is not")
        after = page[-1].id


def _check_entries(
    commit: CommitRow, entries: list[NewEntry], state: _State, report: Report
) -> None:
    """The hot loop of it all: nothing is made that is not looked at."""
    revision, first, digests = commit.revision, commit.first_entry_id, commit.digests
    above = revision > state.floor
    if len(entries) != commit.changes and above:
        report.add(
            f"revision {revision}: {commit.changes} entries were written, {len(entries)} are there"
        )
    versions, newest = state.versions, state.newest
    for entry in entries:
        (
            id, namespace, key, written, version, operation, base, merged, value, text,
            ttl_us, _expires_at, created_at, salt, digest,
        ) = entry  # fmt: skip
        place = (namespace, key)
        before = versions.get(place, 0)
        at = (id - first) * DIGEST_BYTES
        identity = (namespace, key, written, version, operation, base, merged, ttl_us, created_at)
        if (
            digest == digests[at : at + DIGEST_BYTES]
            and salt is not None
            and entry_digest(salt, identity, value, text) == digest
            and (version == before + 1 or (version > before and not above))
            and written == revision
            and (merged is None or (base is not None and base <= before))
            and (value is None) == (operation == _DELETE)
        ):
            pass
        else:
            _explain(entry, commit, state, report)
        versions[place] = version
        newest[place] = id if _is_found(value, text) else 0
    report.entries += len(entries)


def _explain(entry: NewEntry, commit: CommitRow, state: _State, report: Report) -> None:
    """What is wrong with an entry, if anything is: one that was purged is not."""
    name = display_key(decode(entry.namespace), entry.key)
    where = f"{name!r} at revision {commit.revision}"
    index = entry.id - commit.first_entry_id
    noted = commit.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
    purged = entry.salt is None and entry.operation != _DELETE
    if entry.digest != noted or not (purged or digest_of(entry) == noted):
        report.add(f"{where}: the digest does not fit; the entry was changed")
    before = state.versions.get((entry.namespace, entry.key), 0)
    below = commit.revision <= state.floor and entry.version > before
    if entry.version != before + 1 and not below:
        report.add(f"{where}: version {entry.version} follows version {before}")
    if entry.revision != commit.revision:
        report.add(f"{where}: the entry says revision {entry.revision}")
    parent = entry.base_version
    if entry.merged is not None and not below and (parent is None or parent > before):
        report.add(f"{where}: it was merged from version {parent}, which is not in the log")
    if purged and not (entry.value is entry.text is None):
        report.add(f"{where}: it was purged, and still holds something")
    if purged and not state.is_doomed(entry):
        report.add(f"{where}: its value is gone, and no purge is on record that took it")
    if (entry.value is None) != (purged or entry.operation == _DELETE):
        report.add(f"{where}: the value is lost")


def _is_found(value: str | None, text: str | None) -> bool:
    """Whether words find an entry, as `found_by` has it, for the most part without parsing."""
    if text is not None or value is None or '"' not in value:
        return bool(text) and value is not None
    return value[0] == '"' or _STRING.search(value) is not None or found_by(value, None) is not None
