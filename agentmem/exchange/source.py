"""An exported history as what a copy reads from, so that there is one way into a store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from agentmem.engines.rows import (
    CommitRow,
    ConflictRow,
    EntryRow,
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
from agentmem.exchange.reading import Lines
from agentmem.exchange.survey import Block, Survey, blocks

__all__ = ["FileSource"]


class FileSource:
    """See `agentmem.history.copy.Source`. Commits are read in order, page by page."""

    def __init__(self, lines: Lines, survey: Survey) -> None:
        self._lines = lines
        self._survey = survey
        self._page: list[Block] = []
        self._blocks: Iterator[Block] = iter(())
        self._next = 0  # the revision of the next block; 0: nothing is being read
        # Not that of the store that it was written from: a copy to that one is not refused for it.
        self.store_id = ""

    def describe(self) -> dict[str, Any]:
        return {"location": self._lines.name}

    def position(self) -> Position:
        return self._survey.end

    def position_at(self, revision: int) -> Position | None:
        """Of the end, and of the revision that the survey was asked for."""
        if revision == self._survey.end.revision:
            return self._survey.end
        at = self._survey.at
        return at if at is not None and at.revision == revision else None

    def floor(self) -> int:
        return self._survey.floor

    def chain(self, after: int, limit: int) -> list[tuple[CommitRow, list[NewEntry]]]:
        if self._next != after + 1:
            self._blocks = islice(blocks(self._lines), after, None)
        self._page = list(islice(self._blocks, limit))
        self._next = after + len(self._page) + 1
        return [(block.commit, block.entries) for block in self._page]

    def reads_of(self, after: int, upto: int) -> list[ReadRow]:
        return [
            read
            for block in self._page
            if after < block.commit.revision <= upto
            for read in block.reads
        ]

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        wanted = set(entries)
        return {
            each.entry_id: each.vector
            for block in self._page
            for each in block.vectors
            if each.set_id == set_id and each.entry_id in wanted
        }

    def vector_revisions(self, set_id: int, entries: Sequence[int]) -> dict[int, int]:
        wanted = set(entries)
        return {
            each.entry_id: each.late
            for block in self._page
            for each in block.vectors
            if each.set_id == set_id and each.entry_id in wanted and each.late is not None
        }

    def vector_changes(
        self, set_id: int, within: Range, after: Position, upto: Position
    ) -> list[VectorRow]:
        """Only those that came late, to entries that an earlier run has copied."""
        return self._survey.late.get(set_id, [])

    def expiries(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        ids, times = self._survey.expiry_ids, self._survey.expiry_times
        first = bisect_right(ids, after)
        past = min(bisect_right(ids, upto), first + limit)
        return list(zip(ids[first:past], times[first:past], strict=True))

    def conflicts(self, status: str | None, after: int, limit: int) -> list[ConflictRow]:
        found = self._survey.conflicts
        first = bisect_right(found, after, key=lambda row: row.id or 0)
        return found[first : first + limit]

    def strategies(self) -> list[StrategyRow]:
        return self._survey.strategies

    def all_tags(self) -> list[TagRow]:
        return self._survey.tags

    def purges(self) -> list[PurgeRow]:
        return self._survey.purges

    def spaces(self) -> Spaces:
        return self._survey.spaces

    def pending_vectors(self, after: int, limit: int) -> list[EntryRow]:
        return [row for row in self._survey.pending if row.id > after][:limit]
