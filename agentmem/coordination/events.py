"""Events: the commits of the log one after another, as a view sees them.

Reading waits for nothing and holds nothing: `agentmem.coordination.feed` waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from agentmem.coordination.feed_steps import Cursor, replaced
from agentmem.engines.base import (
    check_floor,
)
from agentmem.engines.rows import (
    CommitRow,
    EntryRow,
    Narrowing,
)
from agentmem.history.log import shown
from agentmem.history.narrowing import Wanted, view_needs
from agentmem.model import Change, Commit, Entry
from agentmem.namespaces import Labels, encode, range_end
from agentmem.records import commit_of
from agentmem.scope import Scope

if TYPE_CHECKING:
    from agentmem.core import Core

__all__ = ["Event", "Reader", "Receiver"]

_PAGE: Final = 200  # commits that are read at once
_MAX_ENTRIES: Final = 2_000  # of a page; a larger commit comes alone


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whom an event was given to: a durable consumer, by who holds it.

    Attributes:
        store_id: of the store.
        view: the scope that the consumer belongs to.
        consumer: its name.
        token: of who holds it.
    """

    store_id: str
    view: str
    consumer: str
    token: int


@dataclass(frozen=True, slots=True, repr=False)
class Event:
    """A commit, as a feed gives it.

    Attributes:
        revision: of the commit.
        commit: it, with those of its changes that the feed is of.
        entries: the versions that it wrote, in the order of the changes; a deleted key has a
            tombstone (``deleted``), and what was purged since says so (``purged``).
        hash: of the commit; with the revision it tells a place in one history.
        receiver: the consumer that acknowledges it; None: of a feed without one.
    """

    revision: int
    commit: Commit
    entries: tuple[Entry[Any], ...]
    hash: bytes
    receiver: Receiver | None = field(default=None, compare=False)

    @property
    def changes(self) -> tuple[Change, ...]:
        """The changes of the commit that the feed is of."""
        return self.commit.changes

    def __repr__(self) -> str:
        agent = "" if self.commit.agent is None else f", agent={self.commit.agent!r}"
        return f"Event(revision={self.revision}, changes={len(self.changes)}{agent})"


Event.__module__ = "agentmem"


class Reader:
    """Reads on from a place in the log.

    Attributes:
        cursor: all commits up to there were read.
    """

    def __init__(
        self, core: Core, scope: Scope, labels: Labels, cursor: Cursor, receiver: Receiver | None
    ) -> None:
        self.cursor = cursor
        self._core = core
        self._scope = scope
        self._receiver = receiver
        self._everything = not labels and not scope.rules
        self._start = encode(labels)
        self._end = range_end(self._start)
        self._needs = [] if self._everything else view_needs(scope, labels, own=False)
        self._narrowing = Narrowing(within=self._start if labels else None)

    def page(self) -> list[Event]:
        """The next events, in order; none if the log has no more for it now.

        Raises:
            CompactedError: what comes next is not all there any more.
            HistoryReplacedError: what was read is not in the log.
        """
        engine = self._core.engine
        end = engine.position()
        if end.revision <= self.cursor.revision:
            if Cursor(end.revision, end.hash) != self.cursor:
                raise replaced(self.cursor.revision)
            return []
        wanted = Wanted(engine, self._needs, self._narrowing, newest_first=False)
        for page in wanted.pages(self.cursor.revision, end.revision, _PAGE):
            for rows in _of_bearable_size(page):
                entries = engine.commit_entries(rows)
                self.check()
                events = self._events(rows, entries)
                self.cursor = Cursor(rows[-1].revision, rows[-1].hash)
                if events:
                    return events
        self.check()
        self.cursor = Cursor(end.revision, end.hash)
        return []

    def check(self) -> None:
        """Looks whether all that was read after the cursor is whole, and goes on from it.

        Asked after reading: the floor only rises, so what it lies below now was there then.
        """
        engine = self._core.engine
        check_floor(self.cursor.revision, engine.floor())
        position = engine.position_at(self.cursor.revision)
        if position is None or position.hash != self.cursor.hash:
            raise replaced(self.cursor.revision)

    def _events(self, rows: list[CommitRow], entries: list[EntryRow]) -> list[Event]:
        by_revision = {
            revision: list(found) for revision, found in groupby(entries, lambda e: e.revision)
        }
        events = (self._event(row, by_revision.get(row.revision, [])) for row in rows)
        return [event for event in events if event is not None]

    def _event(self, row: CommitRow, entries: list[EntryRow]) -> Event | None:
        visible = [entry for entry in entries if self._sees(entry)]
        if not visible and not self._everything:
            return None
        return Event(
            row.revision,
            commit_of(row, visible, self._scope),
            tuple(shown(self._core, self._scope, visible)),
            row.hash,
            self._receiver,
        )

    def _sees(self, entry: EntryRow) -> bool:
        within = entry.namespace >= self._start
        within = within and (self._end is None or entry.namespace < self._end)
        return within and self._scope.sees((entry.namespace, entry.key))


def _of_bearable_size(rows: list[CommitRow]) -> Iterator[list[CommitRow]]:
    """The commits in parts that do not have too many entries, or are one commit."""
    part: list[CommitRow] = []
    total = 0
    for row in rows:
        total += row.changes
        if total > _MAX_ENTRIES and part:
            yield part
            part, total = [], row.changes
        part.append(row)
    if part:
        yield part
