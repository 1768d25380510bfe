"""The difference between then and now: what a view of the past sees of the keys written since."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentmem.engines.base import Engine
from agentmem.engines.rows import EntryRow, Place, Range
from agentmem.search.live import Rows
from agentmem.search.vectors import directions, unpack_many
from agentmem.search.words import found_by

if TYPE_CHECKING:
    from agentmem.engines.base import TextsAside

__all__ = ["Past", "PastText"]


class PastText(NamedTuple):
    """An entry of the past that holds a word; they sort best first."""

    negative: float  # its score
    place: Place
    entry_id: int


class Past:
    """The entries that a view of revision R sees of the keys that were written since.

    Safe for use from many threads. What it has found of a key stays as it is; keys are added.
    """

    def __init__(self, engine: Engine, within: Range, revision: int) -> None:
        self._engine = engine
        self._within = within
        self.revision = revision
        self._lock = threading.Lock()  # protects what follows
        self._upto = revision
        self._rows: dict[Place, EntryRow | None] = {}
        self._places: dict[int, Place] = {}  # of the entries that there are
        self._texts: TextsAside | None = None
        self._taken: set[int] = set()  # entries whose texts it holds
        self._vectors: dict[int, tuple[int, Rows]] = {}

    def follow(self) -> None:
        """Takes in what was written since it last did."""
        end = self._engine.position().revision
        with self._lock:
            if end <= self._upto:
                return
            changed = self._engine.changed_since(self._upto, self._within, (0, 0))
            rows: dict[Place, EntryRow | None] = {
                place: None for place in changed if place not in self._rows
            }
            for row in self._engine.points(list(rows), self.revision):
                if not row.deleted:
                    rows[row.namespace, row.key] = row
            # In this order: an asynchronous exception can strike between any two lines.
            self._places.update((row.id, place) for place, row in rows.items() if row)
            self._rows.update(rows)
            self._upto = end

    def holding(
        self, words: Sequence[str], limit: int, also: Collection[int]
    ) -> tuple[list[PastText], bool]:
        """The entries that hold a word, with what they would score today, best first.

        Args:
            limit, also: as `TextsAside.best`.

        Returns: them, and whether others hold a word, too.
        """
        with self._lock:
            texts = self._texts
            if texts is None:
                texts = self._texts = self._engine.texts_aside()
            new = [row for row in self._rows.values() if row and row.id not in self._taken]
            known = {row.id: found_by(row.value, row.text) for row in new}
            try:
                self._taken.update(known)
                texts.add({id: text for id, text in known.items() if text is not None})
            except BaseException:
                self._texts, self._taken = None, set()  # what it holds is not known
                raise
            scores, more = texts.best(words, limit, also)
            found = sorted(PastText(-score, self._places[id], id) for id, score in scores.items())
            return found, more

    def vectors(self, set_id: int, dimension: int) -> Rows:
        """The vectors of those that had one by then."""
        with self._lock:
            known = self._vectors.get(set_id)
            if known is not None and known[0] == len(self._places):
                return known[1]
            ids = sorted(self._places)
            stored = self._engine.vectors(set_id, ids)
            for entry_id, late in self._engine.vector_revisions(set_id, ids).items():
                if late > self.revision:
                    stored.pop(entry_id, None)
            matrix = directions(unpack_many(list(stored.values()), dimension))
            slots = {id: slot for slot, id in enumerate(stored)}
            rows = Rows(np.array(list(stored), dtype=np.int64), [matrix], slots)
            self._vectors[set_id] = (len(self._places), rows)
            return rows
