"""Write skew: two commits, each from a version of a key that the other has replaced.

::

    T1, base r7                          T2, base r7
    reads bob (on call)                  reads alice (on call)
    writes alice: off call, r8
                                         writes bob: off call, r9

T2 is found here: what it had read was written between its base and its commit, by a commit that had
read what T2 wrote. Under serializable isolation no commit is like that; under snapshot isolation
nothing tells. Cycles through three commits and more are not looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    CommitRow,
    EntryRow,
    Place,
    ReadRow,
)
from agentmem.errors import AgentMemError
from agentmem.filters import Filter
from agentmem.history.derivation import Ref, ref_of
from agentmem.provenance import READ, SCAN, found_by_scan
from agentmem.values import load

__all__ = ["Skew"]

_PAGE: Final = 500
_MAX_GAP: Final = 10_000  # commits between a base and its commit that are looked at


class Skew:
    """Looks at commits in order of their revisions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def against(
        self, commit: CommitRow, entries: list[EntryRow], reads: list[ReadRow]
    ) -> Iterator[tuple[CommitRow, Ref, Ref]]:
        """The commits that a commit is in write skew with, each once.

        Gives: the other commit, its version that this one had not seen, and this one's version
        that the other had not seen.
        """
        gap = commit.revision - commit.base_revision - 1
        checked = [read for read in reads if read.kind in (READ, SCAN)]
        if not checked or not entries or not 0 < gap <= _MAX_GAP:
            return
        merged = {(row.namespace, row.key) for row in entries if row.merged is not None}
        after, last = commit.base_revision, commit.revision - 1
        while after < last:
            others = self._engine.commits(after, last, _PAGE, newest_first=False)
            if not others:
                return
            written: dict[int, list[EntryRow]] = {}
            for row in self._engine.commit_entries(others):
                written.setdefault(row.revision, []).append(row)
            # Put and deleted again: who had found it absent has perhaps missed nothing.
            again = {
                (row.namespace, row.key) for rows in written.values() for row in rows if row.deleted
            }
            met = {
                other.revision: [
                    row
                    for row in written.get(other.revision, ())
                    if (row.namespace, row.key) not in merged and self._missed(checked, row, again)
                ]
                for other in others
            }
            wanted = [revision for revision, rows in met.items() if rows]
            by_revision: dict[int, list[ReadRow]] = {}
            for read in self._engine.reads_by(wanted) if wanted else ():
                by_revision.setdefault(read.revision, []).append(read)
            for other in others:
                back = [
                    row
                    for row in entries
                    if self._missed(by_revision.get(other.revision, []), row, set())
                ]
                if met[other.revision] and back:
                    yield other, ref_of(met[other.revision][0]), ref_of(back[0])
            after = others[-1].revision

    def _missed(self, reads: list[ReadRow], row: EntryRow, again: set[Place]) -> bool:
        """Whether reads have seen the key, or the gap, that an entry has filled since."""
        place = (row.namespace, row.key)
        before: list[EntryRow] | None = None
        for read in reads:
            if read.kind == READ and (read.namespace, read.key) == place:
                # A key that was absent and is so again was not missed.
                if read.version or not (row.deleted or place in again):
                    return True
            elif read.kind == SCAN and place[0].startswith(read.namespace):
                if before is None:
                    before = self._engine.versions([(*place, row.version - 1, row.revision - 1)])
                if _scan_missed(read, row, before, again):
                    return True
        return False


def _scan_missed(read: ReadRow, row: EntryRow, before: list[EntryRow], again: set[Place]) -> bool:
    asked, found = found_by_scan(read.scan or "{}")
    was_found = any(each.id in found for each in before)
    if was_found:
        # Where only presence counts, another version is nothing new.
        return not asked.get("presence") or row.deleted or not _passes(asked, row)
    place = (row.namespace, row.key)
    if row.deleted or place in again or not _is_plain(asked, place):
        return False
    return _passes(asked, row)


def _is_plain(asked: dict[str, object], place: Place) -> bool:
    """Whether it is certain that a scan would have found a new key; else nothing is claimed."""
    if any(name in asked for name in ("search", "limit", "after", "rules")):
        return False
    return place[1].startswith(str(asked.get("key_prefix", "")))


def _passes(asked: dict[str, object], row: EntryRow) -> bool:
    where = asked.get("where")
    if where is None:
        return True
    try:
        parsed = Filter.parse(where)
    except AgentMemError:
        return False
    return parsed is None or parsed.matches(load(row.value or "null"))
