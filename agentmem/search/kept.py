"""Vectors that are in the log, for whoever has found their entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentmem.model import Entry
from agentmem.namespaces import encode
from agentmem.search.spaces import set_of, top_label
from agentmem.search.vectors import unpack

if TYPE_CHECKING:
    from agentmem.search.vectors import Vector
    from agentmem.views import PinnedView

__all__ = ["vectors_of"]


def vectors_of(view: PinnedView, entries: Sequence[Entry[Any]]) -> list[Vector | None]:
    """The vectors of entries that the view has shown, as they were given.

    Args:
        view: the one that has shown them: another could show other versions.

    Returns: one for each entry, shape (dim,), float32; None for one that has none.
    """
    core, scope = view._core, view._scope
    places = [scope.place(entry.namespace, entry.key) for entry in entries]
    ids = {(row.namespace, row.key): row.id for row in core.engine.points(places, view.revision)}
    spaces = core.searcher.spaces()
    found: dict[int, bytes] = {}
    for label in {top_label(encode(scope.labels(entry.namespace))) for entry in entries}:
        chosen = set_of(spaces, label)
        if chosen is not None:
            wanted = [id for place, id in ids.items() if top_label(place[0]) == label]
            found |= core.engine.vectors(chosen.id, wanted)
    stored = [found.get(ids.get(place, -1)) for place in places]
    return [unpack(each) if each is not None else None for each in stored]
