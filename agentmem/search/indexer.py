"""Keeps the index of a large store near the present: builds generations and publishes them.

One process builds at a time. A generation is made from the last one and what has changed since,
or from nothing, if there is none, if it is damaged, if the log was replaced, or if too much of it
is dead. It is published by a row in the database, which also says which revision it holds; what
came later, searches take from the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    Change,
    GenerationRow,
    NewCommit,
    Position,
    Range,
    VectorRow,
    VectorSet,
)
from agentmem.limits import Limits
from agentmem.search import chroma, quantized
from agentmem.search.beside import Progress, tell, write_beside
from agentmem.search.generations import BrokenGenerationError, Generations, Published
from agentmem.search.vectors import directions, unpack_many

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentmem.search.vectors import Floats

__all__ = ["build_indexes", "is_large", "position_of", "published_of", "wants_index"]

_SMALL: Final = 20_000
_SMALL_QUANTIZED: Final = 50_000

_PAGE: Final = 5_000
_MAX_DEAD: Final = 5  # one row in so many: then it is built from nothing
_ROOT: Final = Range("")

_log = logging.getLogger("agentmem")


class _Stopped(Exception):  # noqa: N818  # no error: somebody asked for it
    """The store is being closed."""


def published_of(row: GenerationRow) -> Published:
    """What a row says of a generation."""
    return Published(row.name, row.manifest, row.live, row.dead)


def position_of(row: GenerationRow) -> Position:
    """The commit that a generation holds."""
    return Position(row.revision, 0, row.hash, row.last_entry_id, 0)


def is_large(engine: Engine, vector_set: VectorSet, within: Range = _ROOT) -> bool:
    """Whether an index pays for the vectors of a set; else they are looked at one by one."""
    small = _SMALL
    if quantized.is_usable() and engine.index_folder(vector_set.id) is not None:
        # Below this a look at them all takes no longer than a search by Chroma.
        small = _SMALL_QUANTIZED
    return engine.count_vectors(vector_set.id, within, small + 1) > small


def wants_index(engine: Engine, vector_set: VectorSet, index: str) -> bool:
    """Whether a set is to have an index: by name, or because it is large."""
    if index == "exact" or engine.index_folder(vector_set.id) is None:
        return False
    if index == "chroma":
        return True
    return chroma.is_installed() and is_large(engine, vector_set)


def build_indexes(
    engine: Engine,
    limits: Limits,
    index: str,
    progress: Progress | None = None,
    *,
    lag: int = 0,
    wait: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Brings the indexes of all sets up to date; returns how many were published.

    Args:
        lag: only those that are further behind than so many entries.
        wait: for another process or thread that is building.
        stopped: asked between batches whether to give up.

    Raises:
        MissingExtraError: an index is asked for by name, and Chroma is not installed.
        BrokenGenerationError: what was built does not answer, twice.
    """
    spaces = engine.spaces()
    done = 0
    for set_id in sorted(set(spaces.of.values())):
        vector_set = spaces.sets[set_id]
        if engine.index_folder(set_id) is None:
            # By the database itself, which keeps it from then on.
            large = index != "exact" and is_large(engine, vector_set)
            done += large and engine.build_nearest(vector_set)
        elif wants_index(engine, vector_set, index):
            done += _build(engine, limits, vector_set, progress, lag, wait, stopped)
    return done


def _build(
    engine: Engine,
    limits: Limits,
    vector_set: VectorSet,
    progress: Progress | None,
    lag: int,
    wait: bool,
    stopped: Callable[[], bool],
) -> bool:
    folder = engine.index_folder(vector_set.id)
    assert folder is not None, "wants_index has asked"
    generations = Generations(folder, vector_set.dimension)
    with generations.builder(wait=wait) as alone:
        if not alone:
            return False
        row = engine.generation(vector_set.id)
        position = engine.position()
        if row is not None and not _fits(engine, row):
            row = None
        if row is not None and position.last_entry_id - row.last_entry_id <= lag:
            late = engine.embedded_since(row.revision, _ROOT, vector_set.id)
            if row.revision == position.revision or (lag and len(late) <= lag):
                generations.sweep([row.name])
                return False
        try:
            published = _made(engine, generations, vector_set, row, position, progress, stopped)
        except _Stopped:
            return False
        _publish(engine, limits, vector_set.id, published, position)
        generations.sweep([published.name])
        return True


def _fits(engine: Engine, row: GenerationRow) -> bool:
    """Whether the next generation can be made from this one."""
    known = engine.position_at(row.revision)
    return (
        known is not None
        and known.hash == row.hash
        and engine.floor() <= row.revision
        and row.dead * _MAX_DEAD <= row.live
    )


def _made(
    engine: Engine,
    generations: Generations,
    vector_set: VectorSet,
    row: GenerationRow | None,
    position: Position,
    progress: Progress | None,
    stopped: Callable[[], bool],
) -> Published:
    def told(done: int) -> None:
        if stopped():
            raise _Stopped
        tell(progress, "indexing", done, total)

    total = 0
    if row is not None:
        changes = engine.vector_changes(vector_set.id, _ROOT, position_of(row), position)
        new = [
            each
            for each in changes
            if each.vector is not None
            and each.since <= position.revision
            and (each.until is None or each.until > position.revision)
        ]
        last = row.last_entry_id
        gone = [each.previous for each in changes if each.previous and each.previous <= last]
        total = len(new)
        pages = (new[start : start + _PAGE] for start in range(0, len(new), _PAGE))
        batches = (_batch(page, vector_set.dimension) for page in pages)
        try:
            return generations.build(published_of(row), gone, batches, progress=told)
        except BrokenGenerationError as error:
            _log.warning("index %s is built from nothing: %s", row.name, error)
    total = engine.count_vectors(vector_set.id, _ROOT, 2**62)
    return generations.build(None, (), _everything(engine, vector_set, position), progress=told)


def _everything(
    engine: Engine, vector_set: VectorSet, position: Position
) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    after = 0
    while page := engine.vector_rows(vector_set.id, _ROOT, after, position, _PAGE):
        after = page[-1].entry_id
        rows = [each for each in page if each.vector is not None]
        if rows:
            yield _batch(rows, vector_set.dimension)


def _batch(rows: list[VectorRow], dimension: int) -> tuple[NDArray[np.int64], Floats]:
    ids = np.array([row.entry_id for row in rows], dtype=np.int64)
    stored = [row.vector for row in rows if row.vector is not None]
    return ids, directions(unpack_many(stored, dimension))


def _publish(
    engine: Engine, limits: Limits, set_id: int, published: Published, position: Position
) -> None:
    row = GenerationRow(
        set_id, published.name, published.manifest, position.revision, position.hash,
        position.last_entry_id, published.live, published.dead, position.now,
    )  # fmt: skip
    change = Change("publish", row._asdict())
    write_beside(engine, limits, lambda _spaces: NewCommit(changes=[change]))
