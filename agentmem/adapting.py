"""For adapters to other frameworks: what they may ask of a store beyond its public calls.

Packages of this distribution reach into a store here, so that what they rest on is seen in one
place; a test holds them to it, and names those that do not. It may change from version to version.
"""

from __future__ import annotations

from agentmem.engines.rows import EntryRow, Place
from agentmem.search.embedders import Embedder
from agentmem.store import Store

__all__ = ["embedder_of", "is_same_view", "is_whole", "row_now"]


def embedder_of(store: Store) -> Embedder | None:
    """What turns the texts of a store into vectors; None: nothing does."""
    return store._core.searcher.embedder


def is_whole(store: Store) -> bool:
    """Whether it is a whole store, without restriction, and not a scoped view."""
    return store._scope.is_root


def is_same_view(one: Store, other: Store) -> bool:
    """Whether two are views of one opening, of the same part, with the same rights."""
    ours, theirs = one._scope, other._scope
    same_part = (ours.prefix, ours.access, ours.rules) == (
        theirs.prefix, theirs.access, theirs.rules
    )  # fmt: skip
    return one._core is other._core and same_part


def row_now(store: Store, place: Place) -> EntryRow | None:
    """The row of a key that is there now, by its encoded namespace; None if it is absent.

    What `Store.get` does without the records in between, for who builds other ones. A view's
    access is not looked at: ask `is_whole` first.
    """
    core = store._core
    core.check_open()
    row = core.engine.point(place, None).row
    return row if row is not None and core.sees(row) else None
