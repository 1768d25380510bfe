"""What a poisoned entry has spoilt: what was derived from it, and what holds of it since.

A transaction that had read a spoilt entry has *derived* all that it wrote: that is to be undone.
An atomic operation or a merge by somebody who had not read it only *carries* what was there:
whoever read that has read the poison, but what the operation itself added is innocent and stays::

    notes   1 put [a]
            2 append bad       poison
            3 append c         carries: [a, bad, c]
    plan    1 put              its transaction had read notes 3: derived
    notes   4 put [x]          its writer had not read: nothing of the poison is left from here on

So each entry *contains* some derived entries, none if it is clean. In order of commits:

* a put or delete contains itself if it is derived, else nothing;
* an atomic operation or a merge contains what the version contains that it builds on, and itself
  if it is derived; what it takes out as an undo (`agentmem.provenance.UNDONE`) is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    EntryRow,
    Place,
    ReadRow,
)
from agentmem.history.derivation import Ref, Walk, ref_of
from agentmem.provenance import UNDONE, found_by_scan

__all__ = ["Spoilt", "spoilt_by"]

_BATCH: Final = 500
_CLEAN: Final[frozenset[Ref]] = frozenset()


class Spoilt:
    """What one poisoned entry has spoilt.

    Attributes:
        derived: the poison, and all that was written by transactions that had read what is spoilt.
        contains: of each spoilt entry, the derived ones in it.
        rows: of every entry met.
    """

    def __init__(self, root: EntryRow, walk: Walk, undone: dict[int, set[Ref]]) -> None:
        self.rows = walk.rows
        self.derived: dict[Ref, EntryRow] = {}
        self.contains: dict[Ref, frozenset[Ref]] = {}
        self._root = ref_of(root)
        # Sources are older, and so are looked at before what was derived from them.
        for ref in sorted(walk.rows, key=lambda ref: walk.rows[ref].id):
            self._add(ref, walk, undone)

    def _add(self, ref: Ref, walk: Walk, undone: dict[int, set[Ref]]) -> None:
        row = walk.rows[ref]
        held = walk.held.get(ref, ())
        derived = (
            ref == self._root
            or any(each.source in self.contains for each in walk.readings.get(row.revision, ()))
            or any(each.why == "restored" and each.source in self.contains for each in held)
        )
        inside = _CLEAN
        for each in held:
            if each.why != "restored":
                inside |= self.contains.get(each.source, _CLEAN)
        inside -= undone.get(row.revision, _CLEAN)
        if derived:
            self.derived[ref] = row
            inside |= {ref}
        if inside:
            self.contains[ref] = inside

    @property
    def carrying(self) -> list[EntryRow]:
        """Spoilt entries that are not derived, in order of commits."""
        found = [self.rows[ref] for ref in self.contains if ref not in self.derived]
        return sorted(found, key=lambda row: row.id)

    def by_place(self) -> dict[Place, list[EntryRow]]:
        """The derived entries of each key, oldest first, keys in order."""
        found: dict[Place, list[EntryRow]] = {}
        for row in sorted(self.derived.values(), key=lambda row: (row.namespace, row.key, row.id)):
            found.setdefault((row.namespace, row.key), []).append(row)
        return found

    def met_by(self, reads: Iterable[ReadRow]) -> list[tuple[Place, int]]:
        """The spoilt entries, as (place, version), that commits with these reads had read."""
        ids = {self.rows[ref].id: ref for ref in self.contains}
        gone = {ref[:2]: ref for ref in self.contains if self.rows[ref].deleted}
        met: dict[Ref, None] = {}
        for read in reads:
            if read.scan is not None:
                _asked, found = found_by_scan(read.scan)
                met |= {ids[id]: None for id in found if id in ids}
            elif read.kind != UNDONE:
                place = (read.namespace, read.key)
                ref = (*place, read.version)
                if not read.version and place in gone:
                    met[gone[place]] = None  # perhaps found absent because of it: look again
                elif ref in self.contains:
                    met[ref] = None
        return [((namespace, key), version) for namespace, key, version in met]


def spoilt_by(engine: Engine, root: EntryRow, limit: int) -> tuple[Spoilt, bool]:
    """What an entry has spoilt, and whether that is all of it: False if there is more than the
    limit."""
    walk = Walk(engine, limit)
    walk.down(root, None)
    merged = sorted({row.revision for row in walk.rows.values() if row.merged is not None})
    undone: dict[int, set[Ref]] = {}
    for start in range(0, len(merged), _BATCH):
        for read in engine.reads_by(merged[start : start + _BATCH]):
            if read.kind == UNDONE:
                ref = (read.namespace, read.key, read.version)
                undone.setdefault(read.revision, set()).add(ref)
    return Spoilt(root, walk, undone), walk.complete
