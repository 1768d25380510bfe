"""Embedding after the commit: what was deferred, what was missed, and everything anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    Change,
    EntryRow,
    NewCommit,
    Range,
    Spaces,
    VectorSet,
    vector_id,
)
from agentmem.errors import EmbedderError
from agentmem.request import Request
from agentmem.scope import root_scope
from agentmem.search.beside import Progress, tell, write_beside
from agentmem.search.embedders import Embedder
from agentmem.search.spaces import gives_way, set_of, top_label
from agentmem.search.words import found_by
from agentmem.tail import new_vector

if TYPE_CHECKING:
    from agentmem.core import Core

__all__ = ["embed_pending", "reindex", "top_labels"]

_PAGE: Final = 256
_DROP: Final = 1_000  # vectors that are deleted under one hold of the lock
NOTE: Final = "vectors of entries that were embedded later"


def top_labels(engine: Engine) -> list[str]:
    """The top-level namespaces that hold a key or have vectors, encoded; ``""`` is the root."""
    position = engine.position()
    found = engine.namespaces(Range(""), position.revision, position.now)
    return sorted({top_label(each) for each in found} | set(engine.spaces().of))


def embed_pending(core: Core, progress: Progress | None = None, *, missing: bool = False) -> int:
    """Embeds current entries that have yet to be, each page in a small commit of its own.

    Args:
        missing: also look for entries that nobody has marked: those of writers without an
            embedder.

    Returns: how many entries got a vector.

    Raises:
        EmbedderError: the embedder failed; what was done before stays.
    """
    embedder = core.searcher.embedder
    if embedder is None:
        return 0
    done = 0
    after = 0
    while rows := core.engine.pending_vectors(after, _PAGE):
        after = rows[-1].id
        done += _add(core, embedder, rows)
        tell(progress, "embedding", done, 0)
    if missing:
        for label in top_labels(core.engine):
            found = set_of(core.engine.spaces(), label)
            if found is not None and found.embedder != embedder.identity:
                continue
            done += _embed_missing(core, embedder, label, found, progress, done)
    return done


def _embed_missing(
    core: Core,
    embedder: Embedder,
    label: str,
    found: VectorSet | None,
    progress: Progress | None,
    before: int,
) -> int:
    done = after = 0
    set_id = found.id if found is not None else 0  # no set has the id 0
    while rows := core.engine.unembedded(set_id, label, after, _PAGE, current=True):
        after = rows[-1].id
        done += _add(core, embedder, rows)
        tell(progress, "embedding", before + done, 0)
    return done


def _add(core: Core, embedder: Embedder, rows: list[EntryRow]) -> int:
    """One page."""
    spaces = core.engine.spaces()
    texts: dict[int, str] = {}
    for row in rows:
        found = set_of(spaces, top_label(row.namespace))
        words = found_by(row.value, row.text)
        ours = found is None or found.embedder == embedder.identity
        if words is not None and ours and not gives_way(embedder, found):
            texts[row.id] = words
    request = Request(
        root_scope(core.limits, None), None, None, 0, 0, note=NOTE, pinned=False, record=False
    )
    request.settled = [row.id for row in rows]
    if texts:
        vectors = dict(zip(texts, embedder.embed(list(texts.values())), strict=True))
        request.late = [(row.id, row.namespace, vectors[row.id]) for row in rows if row.id in texts]
    core.run(request)
    return len(texts)


def reindex(core: Core, embedder: Embedder | None, progress: Progress | None = None) -> int:
    """Embeds every version of every entry by one embedder, beside the vectors that are there.

    Until all is done, searches and writers go on with the old vectors; then all namespaces
    change over in one database transaction. Run again after an interruption, it goes on with
    what is left. Entries without a text have no vector afterwards.

    Args:
        embedder: None: that of the store.

    Returns: how many entries were embedded by this run.

    Raises:
        EmbedderError: there is no embedder, or it failed; the old vectors are still in use.
    """
    embedder = embedder if embedder is not None else core.searcher.embedder
    if embedder is None:
        raise EmbedderError(
            "there is no embedder to embed with: agentmem.open(..., embedder=...), or "
            "reindex(embedder=...)"
        )
    engine = core.engine
    target = _target(core, embedder)
    done = 0
    for label in top_labels(engine):
        done += _fill(core, embedder, target, label, progress, done)
    while not _switch(core, target):
        # Others have written meanwhile, by the old embedder.
        for label in top_labels(engine):
            done += _fill(core, embedder, target, label, progress, done)
    core.searcher.embedder = embedder
    _drop_unused(core, progress)
    return done


def _target(core: Core, embedder: Embedder) -> VectorSet:
    """The set of the embedder's vectors; made if it is not there."""
    dimension = len(embedder.embed(["dimension"])[0]) // 4

    def rows(spaces: Spaces) -> NewCommit | None:
        if any(each[1:] == (embedder.identity, dimension) for each in spaces.sets.values()):
            return None
        set_id = max(spaces.sets, default=0) + 1
        return NewCommit(sets=[VectorSet(set_id, embedder.identity, dimension)])

    write_beside(core.engine, core.limits, rows)
    sets = core.engine.spaces().sets.values()
    return next(each for each in sets if each[1:] == (embedder.identity, dimension))


def _fill(
    core: Core,
    embedder: Embedder,
    target: VectorSet,
    label: str,
    progress: Progress | None,
    before: int,
) -> int:
    done = after = 0
    total = core.engine.counts()["entries"]
    while rows := core.engine.unembedded(target.id, label, after, _PAGE, current=False):
        after = rows[-1].id
        texts = {row.id: words for row in rows if (words := found_by(row.value, row.text))}
        if not texts:
            continue
        made = zip(texts, embedder.embed(list(texts.values())), strict=True)
        new = [new_vector(target.id, entry_id, None, vector) for entry_id, vector in made]
        write_beside(core.engine, core.limits, lambda _spaces, new=new: NewCommit(vectors=new))  # type: ignore[misc]  # mypy does not infer a lambda with a default
        done += len(new)
        tell(progress, "embedding", before + done, total)
    return done


def _switch(core: Core, target: VectorSet) -> bool:
    """Gives all namespaces the new vectors, unless some entry has none yet."""
    engine = core.engine
    seen: dict[str, int] = {}
    for label in top_labels(engine):
        rows = engine.unembedded(target.id, label, 0, _PAGE, current=False)
        while rows:
            if any(found_by(row.value, row.text) for row in rows):
                return False
            seen[label] = rows[-1].id
            rows = engine.unembedded(target.id, label, seen[label], _PAGE, current=False)
    complete = True

    def changes(spaces: Spaces) -> NewCommit | None:
        nonlocal complete
        # Under the lock: what was written since must be little, and have no text.
        complete = not any(
            found_by(row.value, row.text)
            for label in top_labels(engine)
            for row in engine.unembedded(target.id, label, seen.get(label, 0), _PAGE, current=False)
        )
        if not complete:
            return None
        rows = NewCommit()
        for label in top_labels(engine):
            if label not in spaces.of:
                rows.spaces.append((label, target.id))
            elif spaces.of[label] != target.id:
                values = {"namespace": label, "set_id": target.id}
                rows.changes.append(Change("move_space", values))
        if rows.changes:
            rows.changes.append(Change("count_spaces"))
        return rows if rows.spaces or rows.changes else None

    write_beside(core.engine, core.limits, changes)
    return complete


def _drop_unused(core: Core, progress: Progress | None) -> None:
    """Deletes the vectors of sets that no namespace has any more."""
    spaces = core.engine.spaces()
    for set_id in sorted(set(spaces.sets) - set(spaces.of.values())):
        dropped = 0
        bounds = {"first": vector_id(set_id, 0), "past": vector_id(set_id + 1, 0)}
        while True:
            change = Change("drop_vectors", bounds | {"limit": _DROP})
            rows = NewCommit(changes=[change])
            write_beside(core.engine, core.limits, lambda _spaces, rows=rows: rows)  # type: ignore[misc]  # as above
            dropped += change.count
            tell(progress, "dropping old vectors", dropped, 0)
            if change.count < _DROP:
                break
