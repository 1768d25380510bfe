"""Writes that put an older entry back: its value, and all that goes with it.

What search sees stays what it was: the text as it was given, or hidden; and the vector, as long as
its namespace still has vectors of that make. An expiry that lies ahead is kept to the microsecond.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentmem import writes
from agentmem.core import Core
from agentmem.engines.rows import (
    EntryRow,
    Place,
)
from agentmem.errors import InvalidValueError
from agentmem.operations import PUT
from agentmem.request import Write
from agentmem.scope import Scope
from agentmem.search.spaces import set_of, top_label

__all__ = ["add_vectors", "check_whole", "is_as", "put_back"]


def put_back(row: EntryRow | None, base: int, now: int, *, merge: bool) -> Write:
    """The write that makes a key what it was in an entry; None: absent.

    Args:
        base: the version that it may replace, 0: the key must be absent.
        now: an expiry that is not after it is counted anew: as long as the entry once lived.
    """
    if row is None or row.deleted:
        return writes.deletion(base, merge=merge)
    write = Write(PUT, row.value, row.text, None, base, merge)
    if row.expires_at is not None:
        if row.expires_at > now:
            write.expires_at = row.expires_at
            write.ttl_us = row.expires_at - now
        else:
            write.ttl_us = max(1, row.expires_at - row.committed_at)
    return write


def is_as(row: EntryRow | None, other: EntryRow | None) -> bool:
    """Whether two states of a key are the same to whoever reads it; None: absent."""
    if row is None or other is None:
        return row is other
    return (row.value, row.text, row.expires_at) == (other.value, other.text, other.expires_at)


def check_whole(row: EntryRow, scope: Scope) -> None:
    """Raises `InvalidValueError` if the value of an entry was erased."""
    if row.purged:
        name = "/".join((*scope.relative(row.namespace), row.key))
        raise InvalidValueError(f"version {row.version} of {name!r} was purged: its value is gone")


def add_vectors(core: Core, found: Mapping[Place, Write], rows: Mapping[Place, EntryRow]) -> None:
    """Gives the writes the vectors of the entries that they put back, where those are comparable.

    The others are embedded from their words, as those of any write are.
    """
    ids: dict[str, list[Place]] = {}
    for place, write in found.items():
        row = rows.get(place)
        if write.value is not None and row is not None and row.text != "":
            ids.setdefault(top_label(place[0]), []).append(place)
    if not ids:
        return
    spaces = core.searcher.spaces()
    for label, places in ids.items():
        found_set = set_of(spaces, label)
        if found_set is None:
            continue
        vectors = core.engine.vectors(found_set.id, [rows[place].id for place in places])
        for place in places:
            found[place].vector = vectors.get(rows[place].id)
