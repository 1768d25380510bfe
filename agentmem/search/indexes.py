"""The published indexes as one process uses them: opened, followed, dropped when damaged.

Searches are never wrong for want of an index: where there is none, or a broken one, every vector
is looked at. Who notices that an index is missing or far behind builds it in a thread, unless
another process is at it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    Change,
    GenerationRow,
    NewCommit,
    Range,
    VectorSet,
)
from agentmem.errors import AgentMemError, MissingExtraError, StoreBusyError
from agentmem.limits import Limits

if TYPE_CHECKING:
    from agentmem.search.beside import Progress
    from agentmem.search.generations import Generation
    from agentmem.search.live import LiveVectors

__all__ = ["LOOK_S", "Indexes"]

LOOK_S: Final = 0.5
"""After so long it is looked again whether the log was replaced."""

_LAG: Final = 2_000  # entries; an index that is further behind is brought up to date
_SAME_FOR: Final = 1_000  # revisions for which it is believed how many vectors there are

_log = logging.getLogger("agentmem")


class _Open:
    """A generation that is open, and what came after it."""

    def __init__(self, row: GenerationRow, generation: Generation, live: LiveVectors) -> None:
        self.row = row
        self.generation = generation
        self.live = live
        self.looked_at = time.monotonic()  # when the log was that which it follows


class Indexes:
    """The indexes of one store. Safe for use from many threads."""

    def __init__(self, engine: Engine, limits: Limits, index: str) -> None:
        self._engine = engine
        self._limits = limits
        self._index = index
        self._lock = threading.Lock()  # protects what follows
        self._opened: dict[int, _Open] = {}
        self._large: dict[tuple[int, str], tuple[int, bool]] = {}
        self._builder: threading.Thread | None = None
        self._closed = False
        self._pid = os.getpid()

    def get(
        self, vector_set: VectorSet, within: Range, revision: int
    ) -> tuple[Generation, LiveVectors] | None:
        """The index for a search at a revision, followed so far; None: look at everything."""
        if self._index == "exact" or self._engine.index_folder(vector_set.id) is None:
            return None
        if not self._is_large(vector_set, within, revision):
            return None
        row = self._engine.generation(vector_set.id)
        if row is None:
            self._forget(vector_set.id)  # what was withdrawn is to be deleted
            self._build_aside()
            return None
        opened = self._open(vector_set, row)
        if opened is None:
            self._build_aside()
            return None
        if opened.live.at.revision < revision:
            try:
                has_come = opened.live.advance(self._engine.position())
            except BaseException:
                self._forget(vector_set.id)  # struck in the middle, it may hold what is not so
                raise
            if not has_come:
                self._forget(vector_set.id)
                return None
        if opened.live.at.last_entry_id - row.last_entry_id > _LAG:
            self._build_aside()
        return opened.generation, opened.live

    def has_its_own(self, vector_set: VectorSet, within: Range, revision: int) -> bool:
        """Whether the database may have an index of its own that pays for this search."""
        if self._index == "exact" or self._engine.index_folder(vector_set.id) is not None:
            return False
        return self._is_large(vector_set, within, revision)

    def _is_large(self, vector_set: VectorSet, within: Range, revision: int) -> bool:
        from agentmem.search.indexer import is_large

        in_folders = self._engine.index_folder(vector_set.id) is not None
        if in_folders and self._index == "chroma" and not within.namespace:
            return True
        key = (vector_set.id, within.namespace)
        known = self._large.get(key)
        if known is None or abs(revision - known[0]) > _SAME_FOR:
            large = is_large(self._engine, vector_set, within)
            known = self._large[key] = (revision, large)
        return known[1]

    def _open(self, vector_set: VectorSet, row: GenerationRow) -> _Open | None:
        from agentmem.search.generations import BrokenGenerationError, Generations
        from agentmem.search.indexer import position_of, published_of
        from agentmem.search.live import LiveVectors

        with self._lock:
            known = self._opened.get(vector_set.id)
            if known is not None and known.row == row and not known.generation.broken:
                now = time.monotonic()
                if now < known.looked_at + LOOK_S:
                    return known
                if known.live.fits(self._engine.position()):
                    known.looked_at = now
                    return known
                known = None
        since = position_of(row)
        live = LiveVectors(self._engine, vector_set, Range(""), since=since)
        if not live.fits(self._engine.position()):
            return None  # the log was replaced, or compacted
        folder = self._engine.index_folder(vector_set.id) or ""
        try:
            generation = Generations(folder, vector_set.dimension).open(published_of(row))
        except MissingExtraError:
            return None  # built by a process that has Chroma
        except BrokenGenerationError as error:
            _log.warning("an index is damaged, and is built again: %s", error)
            self._withdraw(row)
            return None
        opened = _Open(row, generation, live)
        with self._lock:
            before = self._opened.get(vector_set.id)
            if before is not None and before.row == row and not before.generation.broken:
                generation.close()
                return before
            # Searches that still use the one before keep it open as long as they need it.
            self._opened[vector_set.id] = opened
        return opened

    def _forget(self, set_id: int) -> None:
        """Lets go of an index that is open, once the last search in it ends."""
        with self._lock:
            self._opened.pop(set_id, None)

    def erase(self, limits: Limits) -> bool:
        """Withdraws the published indexes of all sets, and deletes them with all copies.

        Returns: whether there were any.

        Raises:
            StoreBusyError: another process has one open.
        """
        from agentmem.search.beside import write_beside
        from agentmem.search.generations import Generations

        found = False
        for vector_set in self._engine.spaces().sets.values():
            folder = self._engine.index_folder(vector_set.id)
            if folder is None or not os.path.isdir(folder):
                continue
            found = True  # perhaps withdrawn by a purge that was refused below
            generations = Generations(folder, vector_set.dimension)
            with generations.builder(wait=True):  # whoever builds has read what was erased
                row = self._engine.generation(vector_set.id)
                if row is not None:
                    change = Change("unpublish", {"set_id": row.set_id, "name": row.name})
                    rows = NewCommit(changes=[change])
                    write_beside(self._engine, limits, lambda _spaces, rows=rows: rows)  # type: ignore[misc]  # bound by its default
                self._forget(vector_set.id)
                generations.sweep(())
                if users := generations.users():
                    raise StoreBusyError(
                        f"the values are erased, but process {users[0]} has the index in {folder} "
                        "open, with vectors of theirs in it: it lets go at its next search, or "
                        "when it ends; then run it again"
                    )
        return found

    def _withdraw(self, row: GenerationRow) -> None:
        from agentmem.search.beside import write_beside

        change = Change("unpublish", {"set_id": row.set_id, "name": row.name})
        try:
            write_beside(self._engine, self._limits, lambda _spaces: NewCommit(changes=[change]))
        except AgentMemError as error:
            # It is only tidier: whoever builds looks at the files as well.
            _log.warning("the damaged index stays announced for now: %s", error)

    # Building.

    def build(self, progress: Progress | None = None) -> int:
        """Brings the indexes up to date, now; returns how many were published."""
        from agentmem.search.indexer import build_indexes

        return build_indexes(self._engine, self._limits, self._index, progress)

    def _build_aside(self) -> None:
        """Begins to build in a thread, unless one is at it."""
        from agentmem.search import chroma

        if not chroma.is_installed():
            return
        with self._lock:
            running = self._builder is not None and self._builder.is_alive()
            if running or self._closed or self._pid != os.getpid():
                return
            self._builder = threading.Thread(target=self._run, name="agentmem-indexer", daemon=True)
            self._builder.start()

    def _run(self) -> None:
        from agentmem.search.generations import BrokenGenerationError
        from agentmem.search.indexer import build_indexes

        try:
            build_indexes(
                self._engine,
                self._limits,
                self._index,
                lag=_LAG,
                wait=False,
                stopped=lambda: self._closed,
            )
        except (AgentMemError, BrokenGenerationError, OSError) as error:
            if not self._closed:
                _log.warning("the index could not be built: %s", error)

    def describe(self, vector_set: VectorSet) -> dict[str, Any]:
        """For people: which index a set has, its watermark, and how far it is behind."""
        row = self._engine.generation(vector_set.id)
        if row is None:
            return {"index": "exact", "watermark": None, "lag": 0}
        position = self._engine.position()
        return {
            "index": "chroma",
            "watermark": row.revision,
            "lag": position.last_entry_id - row.last_entry_id,
        }

    def close(self) -> None:
        """Closes what is open, and waits for the thread. May be called again."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, {}
            builder = self._builder
        if self._pid != os.getpid():
            return
        if builder is not None and builder is not threading.current_thread():
            builder.join()
        for each in opened.values():
            each.generation.close()
