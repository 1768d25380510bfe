"""What of a transaction's reading is kept with its commit, and how.

A key that was read is one row; so is a scan or a search, which holds the ids of the entries that
it found. What an entry holds of older ones without anybody having read them stands in the log
itself: an atomic operation builds on its base, a merge on the version that it met.

=========  ===================================================================================
code       the commit
=========  ===================================================================================
UNKEPT     had read something, while the store was open with ``provenance=False``
READ       had read the key, and would not have been committed had the key changed
CONTEXT    had read the key unchecked (``track=False``), or had judged it in a repair
BASE       named the version as the one that it replaces, so its writer had seen it
MERGE      was merged, and this is the base of the merge
SCAN       had scanned or searched, and would not have been committed had that changed
LOOK       had scanned or searched unchecked
RESTORED   put this older version back
UNDONE     took what this version had written out again
=========  ===================================================================================
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from agentmem.engines.rows import (
    Place,
    ReadRow,
)
from agentmem.values import canonical, load

if TYPE_CHECKING:
    from agentmem.request import Request

__all__ = [
    "BASE",
    "CONTEXT",
    "LOOK",
    "MERGE",
    "READ",
    "RESTORED",
    "SCAN",
    "UNDONE",
    "UNKEPT",
    "found_by_scan",
    "has_read",
    "rows_of",
    "scan_text",
]

UNKEPT: Final = 0
READ: Final = 1
CONTEXT: Final = 2
BASE: Final = 3
MERGE: Final = 4
SCAN: Final = 5
RESTORED: Final = 6
UNDONE: Final = 7
LOOK: Final = 8

_FOUND: Final = "found"
_PLAIN: Final = 32  # so many ids are kept as they are, more are packed
_SEVEN_BITS: Final = 0x7F
_MORE: Final = 0x80


def has_read(request: Request) -> bool:
    """Whether a commit may have something to keep, besides the bases of its entries."""
    return bool(
        request.reads
        or request.scans
        or request.unchecked
        or request.cited
        or request.undoes
        or not request.provenance
    )


def rows_of(
    request: Request, revision: int, written: Iterable[tuple[Place, int | None, str | None]]
) -> list[ReadRow]:
    """What a commit keeps of what its request had read.

    Args:
        written: (place, base, what merged it) of its entries.
    """
    cited = request.cited
    if request.undoes:
        # What it has looked at are the keys that it puts back: it builds on none of them.
        return _key_rows(revision, cited)
    if not request.provenance:
        named = any(write.base > 0 for write in request.writes.values())
        if request.reads or request.scans or request.unchecked or cited or named:
            return [ReadRow(revision, 0, UNKEPT, "", "", 0, None, None)]
        return []
    read = [(READ, place, version) for place, version in request.reads.items()]
    if cited:
        cited = [each for each in cited if not _is_base(request, each)]
    rows = _key_rows(revision, [*read, *cited, *_bases(request, written)])
    scans = [(SCAN, scan) for scan in request.scans]
    for kind, scan in (*scans, *((LOOK, scan) for scan in request.unchecked)):
        rows.append(
            ReadRow(
                revision, len(rows), kind, scan.within.namespace, "", len(scan.found),
                request.base_revision, scan.kept(),
            )
        )  # fmt: skip
    return rows


def _key_rows(revision: int, found: Iterable[tuple[int, Place, int]]) -> list[ReadRow]:
    return [
        ReadRow(revision, position, kind, namespace, key, version, None, None)
        for position, (kind, (namespace, key), version) in enumerate(found)
    ]


def _is_base(request: Request, cited: tuple[int, Place, int]) -> bool:
    """Whether what is cited is what a write replaces, which is kept by itself."""
    kind, place, version = cited
    write = request.writes.get(place)
    return kind == CONTEXT and write is not None and write.base == version


def _bases(
    request: Request, written: Iterable[tuple[Place, int | None, str | None]]
) -> Iterator[tuple[int, Place, int]]:
    for place, base, merged in written:
        if not base or request.reads.get(place) == base:
            continue
        if request.writes[place].base == base:
            yield BASE, place, base
        elif merged is not None:
            yield MERGE, place, base


def scan_text(asked: str, found: Iterable[int]) -> str:
    """What is kept of a scan: what it asked for (a JSON object), and the ids that it found."""
    ids = sorted(found)
    kept = ids if len(ids) <= _PLAIN else _packed(ids)
    return canonical({**load(asked), _FOUND: kept}).decode()


def found_by_scan(scan: str) -> tuple[dict[str, Any], Sequence[int]]:
    """What a scan asked for, and the ids of the entries that it found, ascending."""
    asked = load(scan)
    kept = asked.pop(_FOUND, [])
    return asked, kept if isinstance(kept, list) else _unpacked(kept)


def _packed(ids: Sequence[int]) -> str:
    """Ascending ids, each as its distance from the one before: seven bits a byte, lowest first."""
    packed = bytearray()
    last = 0
    for id in ids:
        distance, last = id - last, id
        while distance > _SEVEN_BITS:
            packed.append(distance & _SEVEN_BITS | _MORE)
            distance >>= 7
        packed.append(distance)
    return base64.b64encode(zlib.compress(bytes(packed))).decode()


def _unpacked(text: str) -> list[int]:
    ids: list[int] = []
    id = distance = shift = 0
    for byte in zlib.decompress(base64.b64decode(text)):
        distance |= (byte & _SEVEN_BITS) << shift
        shift += 7
        if not byte & _MORE:
            id += distance
            ids.append(id)
            distance = shift = 0
    return ids
