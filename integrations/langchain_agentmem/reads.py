"""Which versions of which keys an agent knows, as it is kept in the state of its graph.

For each key two versions. That which was *read*: its whole value stands in a tool's result, so in
the conversation, and a write that names no version is made from it; None if there is none. And that
which was *told*: the newest whose value or difference was put before the model at any time; of it
the model is not told again.

An absent key is known by the version of its deletion, negative; 0 if it was never there. So the
absolute values only grow, and what parallel tool calls bring is merged by the larger of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["READS", "Known", "Reads", "known_in", "merge_reads", "newer", "visible"]

READS: Final = "agentmem_reads"

Known = list[int | None]
"""What was read, and what was told."""

Reads = dict[str, dict[str, Known]]
"""By the id of the store, and the path from its root."""


def visible(version: int | None) -> int:
    """The version that a write of the key names: 0 for an absent key."""
    return max(version or 0, 0)


def newer(one: int | None, other: int | None) -> int | None:
    """The later of two versions of a key."""
    return max(one, other, key=lambda version: -1 if version is None else abs(version))


def merge_reads(before: Reads | None, after: Reads | None) -> Reads:
    """What is known after both, in whatever order they come."""
    merged: Reads = {store: dict(known) for store, known in (before or {}).items()}
    for store, known in (after or {}).items():
        mine = merged.setdefault(store, {})
        for path, (read, told) in known.items():
            own_read, own_told = mine.get(path, (None, None))
            mine[path] = [newer(own_read, read), newer(own_told, told)]
    return merged


def known_in(state: object, store_id: str) -> Mapping[str, Known]:
    """What the state of a graph says of a store; empty if it keeps nothing of it."""
    held = state.get(READS) if isinstance(state, Mapping) else getattr(state, READS, None)
    reads: Reads = held or {}
    return reads.get(store_id, {})
