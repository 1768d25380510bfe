"""Vectors in memory, each with the revisions at which it is that of its key.

The rows of a matrix never change once they are there. A new entry adds a row, and marks until
which revision the row of the entry that it replaced is valid::

    entry   key   since   until
      11     a      r4     r9        ->   at r4 to r8, a is entry 11
      12     b      r5     -
      15     a      r9     -         ->   from r9 on, a is entry 15

So one matrix answers for every revision from the one at which it was loaded, its origin, and
searching needs no lock: who searches at R takes the rows with since <= R < until. Rows that were
replaced long ago are dropped when they become too many, which moves the origin.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    Position,
    Range,
    VectorRow,
    VectorSet,
)
from agentmem.search import quantized
from agentmem.search.vectors import directions, similarities, unpack_many

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentmem.search.quantized import Codes
    from agentmem.search.vectors import Floats, Vector

__all__ = ["LiveVectors", "Rows"]

N = TypeVar("N", bound=np.generic)

_PAGE: Final = 4_096  # rows that are loaded at once
_LEAST_BLOCK: Final = 512  # small ones cost a call each, whatever they hold
_GROWTH: Final = 16  # a new block has a sixteenth of the rows that are there
_MAX_BLOCK: Final = 8_192
_MAX_SHOWN: Final = 8  # views of the rows that are kept until something changes
_MAX_DEAD: Final = 8  # rows that were replaced are dropped when they are more than one in eight
_FEW: Final = 1_024  # ... and more than these
_FOR_EVER: Final = 2**63 - 1
_LEAST_QUANTIZED: Final = 1_024  # rows; of fewer the float32 numbers are read as fast
_COLUMNS: Final = ("_ids", "_since", "_until", "_places", "_steps")  # of each row
_INVALID: Final = -4.0  # less than what any row could be


class _Small:
    """The rows of some blocks with eight bits a number; see `quantized`."""

    __slots__ = ("blocks", "loss", "steps")

    def __init__(self, blocks: list[Codes], steps: Vector, loss: float) -> None:
        self.blocks = blocks
        self.steps = steps
        self.loss = loss


class Rows:
    """What of the vectors is valid at one revision; what it shows never changes.

    Attributes:
        ids: the entries, shape (n,).
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        blocks: list[Floats],
        slots: dict[int, int],
        *,
        small: _Small | None = None,
        valid: NDArray[np.bool_] | None = None,
        within: NDArray[np.int64] | None = None,
        late: NDArray[np.bool_] | None = None,
    ) -> None:
        """
        Args:
            blocks: the directions of all, the later ones of those that there are by now included.
            slots: where each entry's is.
            small: the same with eight bits a number.
            valid: which are valid at the revision; None: all.
            within: which of them are those of `ids`; None: all.
            late: which came after the revision.
        """
        self.ids = ids if within is None else ids[within]
        self._blocks = blocks
        self._small = small if len(self.ids) >= _LEAST_QUANTIZED else None
        self._valid = valid
        self._slots = slots
        self._within = within
        self._late = late

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def are_quantized(self) -> bool:
        """Whether there is a first look at them that is faster."""
        return self._small is not None

    def glance(self, query: Vector) -> tuple[Vector, float]:
        """The similarity of each row to a direction, about, and how far off that can be.

        Rows that are not valid are less similar than any other.
        """
        small = self._small
        assert small is not None, "are_quantized was asked"
        blocks, steps = small.blocks, small.steps
        if self._within is not None:
            blocks, steps = [_taken(blocks, self._within)], steps[self._within]
        codes, step, lost = quantized.quantize_one(query)
        found = steps * step
        start = 0
        for block in blocks:
            end = start + len(block)
            found[start:end] *= quantized.dots(block, codes)
            start = end
        if self._valid is not None:
            found[~self._valid] = _INVALID
        return found, quantized.error(small.loss, lost)

    def near(self, query: Vector) -> Vector:
        """The similarity of each row to a direction, as float32 numbers give it.

        Rows that are not valid are less similar than any other.
        """
        if not len(self.ids):
            found = np.empty(0, dtype=np.float32)
        elif self._within is not None:
            found = _taken(self._blocks, self._within) @ query
        elif len(self._blocks) == 1:
            found = self._blocks[0] @ query
        else:
            found = np.empty(len(self.ids), dtype=np.float32)
            start = 0
            for block in self._blocks:
                np.matmul(block, query, out=found[start : start + len(block)])
                start += len(block)
        if self._valid is not None:
            found[~self._valid] = _INVALID
        return found

    def directions(self, positions: NDArray[np.int64]) -> Floats:
        """The directions of some rows."""
        if self._within is not None:
            positions = self._within[positions]
        return _taken(self._blocks, positions)

    def of(self, entries: list[int], query: Vector) -> dict[int, float]:
        """The similarities of these entries, as far as they had a vector by then."""
        there = sum(map(len, self._blocks))  # others may have come since
        known = [entry for entry in entries if self._slots.get(entry, there) < there]
        if self._late is not None:
            known = [entry for entry in known if not self._late[self._slots[entry]]]
        if not known:
            return {}
        taken = _taken(self._blocks, np.array([self._slots[each] for each in known]))
        return dict(zip(known, similarities(taken, query).tolist(), strict=True))


def _taken(blocks: list[NDArray[N]], positions: NDArray[np.int64]) -> NDArray[N]:
    if len(blocks) == 1:
        found: NDArray[N] = blocks[0][positions]
        return found
    ends = np.cumsum([len(block) for block in blocks])
    block_of = np.searchsorted(ends, positions, side="right")
    found = np.empty((len(positions), blocks[0].shape[1]), dtype=blocks[0].dtype)
    for number in np.unique(block_of):
        chosen = block_of == number
        found[chosen] = blocks[number][positions[chosen] - (ends[number] - len(blocks[number]))]
    return found


class LiveVectors:
    """The vectors of one set below one namespace. Safe for use from many threads.

    Attributes:
        origin: the revision from which on it answers.
        at: how far it has followed the log.
        within: the namespace.
        ended: entries before its origin that were replaced since, and when.
    """

    def __init__(
        self,
        engine: Engine,
        vector_set: VectorSet,
        within: Range,
        *,
        since: Position | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Loads what is current, or follows the log from a commit on.

        Args:
            since: only what comes after this commit; what it replaces is noted in `ended`.
        """
        self._engine = engine
        self._set = vector_set
        self.within = within
        self._lock = threading.Lock()  # protects all that changes, while it changes
        self._blocks: list[Floats] = []
        self._codes: list[Codes] = []  # as many rows in each
        self._quantizes = quantized.is_usable()
        self._room = 0  # rows for which there is place in the blocks
        self._count = 0
        self._dead = 0
        self._ids = np.empty(0, dtype=np.int64)
        self._since = np.empty(0, dtype=np.int64)
        self._until = np.empty(0, dtype=np.int64)
        self._places = np.empty(0, dtype=np.int32)  # the namespace of each row
        self._steps = np.empty(0, dtype=np.float32)
        self._loss = 0.0  # the largest of all rows
        self._slots: dict[int, int] = {}
        self._namespaces: dict[str, int] = {}
        self._newest = 0  # the largest `since`
        self.ended: dict[int, int] = {}
        self._follows = since is not None
        self._shown: dict[tuple[int, str], Rows] = {}  # by revision and namespace
        self.at = since if since is not None else engine.position()
        self.origin = self.at.revision
        if since is None:
            self._load(progress)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        arrays = [getattr(self, name) for name in _COLUMNS]
        return sum(int(each.nbytes) for each in [*arrays, *self._blocks, *self._codes])

    def fits(self, position: Position) -> bool:
        """Whether the log still holds what was read: it was neither replaced nor compacted."""
        if position.revision < self.at.revision:
            return False
        if position.revision == self.at.revision:
            return position.hash == self.at.hash
        known = self._engine.position_at(self.at.revision)
        return (
            known is not None
            and known.hash == self.at.hash
            and self._engine.floor() <= self.at.revision
        )

    def advance(self, position: Position) -> bool:
        """Follows the log up to a commit; does nothing if it is there already.

        Returns: False if what lies between was compacted meanwhile: then it is of no use.
        """
        if position.revision <= self.at.revision:
            return True
        with self._lock:
            if position.revision <= self.at.revision:
                return True
            changes = self._engine.vector_changes(self._set.id, self.within, self.at, position)
            if self._engine.floor() > self.at.revision:
                return False
            if changes:
                self._shown.clear()  # they would stay right, but keep what is dropped
            self._add([row for row in changes if row.vector is not None])
            for row in changes:
                if row.previous is not None:
                    self._end(row.previous, row.revision)
            if self._dead > max(_FEW, self._count // _MAX_DEAD):
                self._drop_dead(position.revision)
            self.at = position
            return True

    def rows(self, revision: int, namespace: str) -> Rows:
        """What is valid at a revision from `origin` to that of `at`, below a namespace."""
        with self._lock:
            known = self._shown.get((revision, namespace))
            if known is None:
                if len(self._shown) >= _MAX_SHOWN:
                    self._shown.clear()
                known = self._shown[revision, namespace] = self._rows_at(revision, namespace)
            return known

    def _rows_at(self, revision: int, namespace: str) -> Rows:
        count = self._count
        ids, since, until = self._ids[:count], self._since[:count], self._until[:count]
        blocks, codes = list(self._blocks), list(self._codes)
        unused = self._room - count
        if blocks:
            blocks[-1] = blocks[-1][: len(blocks[-1]) - unused]
        small = None
        if codes:
            codes[-1] = codes[-1][: len(codes[-1]) - unused]
            small = _Small(codes, self._steps[:count], self._loss)
        valid = late = None
        if self._newest > revision:
            late = since > revision
        if self._dead or self._newest > revision:
            valid = (since <= revision) & (until > revision)
        within = None
        if namespace != self.within.namespace:
            within = self._below(namespace, count)
            if valid is not None:
                within, valid = within[valid[within]], None
        return Rows(ids, blocks, self._slots, small=small, valid=valid, within=within, late=late)

    def _below(self, namespace: str, count: int) -> NDArray[np.int64]:
        chosen = np.zeros(len(self._namespaces) + 1, dtype=np.bool_)
        for name, number in self._namespaces.items():
            chosen[number] = name.startswith(namespace)
        return np.flatnonzero(chosen[self._places[:count]])

    # Filling.

    def _load(self, progress: Callable[[int], None] | None) -> None:
        upto = self.at
        total = self._engine.count_vectors(self._set.id, self.within, _FOR_EVER)
        self._reserve(total)
        after = 0
        while True:
            page = self._engine.vector_rows(self._set.id, self.within, after, upto, _PAGE)
            self._add([row for row in page if row.vector is not None])
            if progress is not None:
                progress(self._count)
            if len(page) < _PAGE:
                return
            after = page[-1].entry_id

    def _reserve(self, rows: int) -> None:
        """Makes place for more rows."""
        if rows <= 0:
            return
        shape = (rows, self._set.dimension)
        self._blocks = [*self._blocks, np.empty(shape, dtype=np.float32)]
        if self._quantizes:
            self._codes = [*self._codes, np.empty(shape, dtype=np.int8)]
        self._room += rows
        for name in _COLUMNS:
            old = getattr(self, name)
            new = np.zeros(self._room, dtype=old.dtype)
            new[: self._count] = old[: self._count]
            setattr(self, name, new)

    def _add(self, rows: list[VectorRow]) -> None:
        rows = [row for row in rows if row.entry_id not in self._slots]
        if not rows:
            return
        vectors = [row.vector for row in rows if row.vector is not None]
        matrix = directions(unpack_many(vectors, self._set.dimension))
        done = 0
        while done < len(rows):
            if self._count == self._room:
                wanted = min(_MAX_BLOCK, max(_LEAST_BLOCK, self._count // _GROWTH))
                self._reserve(max(wanted, min(_MAX_BLOCK, len(rows) - done)))
            start = self._room - len(self._blocks[-1])
            # Blocks are filled in order, but the first reservation may be filled in many steps.
            at = self._count - start
            take = min(len(rows) - done, self._room - self._count)
            self._blocks[-1][at : at + take] = matrix[done : done + take]
            if self._quantizes:
                codes, steps, loss = quantized.quantize(matrix[done : done + take])
                self._codes[-1][at : at + take] = codes
                self._steps[self._count : self._count + take] = steps
                self._loss = max(self._loss, loss)
            for row in rows[done : done + take]:
                self._put(row)
            done += take

    def _put(self, row: VectorRow) -> None:
        slot = self._count
        self._ids[slot] = row.entry_id
        self._since[slot] = row.since
        self._until[slot] = _FOR_EVER if row.until is None else row.until
        self._places[slot] = self._namespaces.setdefault(row.namespace, len(self._namespaces))
        self._slots[row.entry_id] = slot
        self._newest = max(self._newest, row.since)
        self._dead += row.until is not None
        self._count += 1

    def _end(self, entry_id: int, revision: int) -> None:
        slot = self._slots.get(entry_id)
        if slot is None:
            if self._follows:
                self.ended[entry_id] = revision
        elif self._until[slot] == _FOR_EVER:
            self._until[slot] = revision
            self._dead += 1

    def _drop_dead(self, revision: int) -> None:
        """Drops the older half of the rows that were replaced; who searches keeps what it has."""
        count = self._count
        until = self._until[:count]
        gone = np.sort(until[until < _FOR_EVER])
        origin = int(gone[len(gone) // 2])
        if self._follows or origin > revision:
            return  # what it follows from must stay
        keep = np.flatnonzero(until > origin)
        matrix = _taken(self._blocks, keep)
        codes = [_taken(self._codes, keep)] if self._codes else []
        columns = {name: getattr(self, name)[keep] for name in _COLUMNS}
        self._blocks, self._codes = [matrix], codes
        self._room = self._count = len(keep)
        for name, column in columns.items():
            setattr(self, name, column)
        self._slots = {int(entry): slot for slot, entry in enumerate(self._ids)}
        self._dead = int((self._until < _FOR_EVER).sum())
        self.origin = max(self.origin, origin)
