"""Spaces: which vectors a top-level namespace has, and whose a new one may be.

The first vector that is written below a label (or by a key of the root) decides what made the
vectors there, and how many dimensions they have. Vectors of another make cannot be compared with
them, so they are refused until `reindex` has made the space another's.
"""

from __future__ import annotations

from agentmem.engines.rows import (
    Place,
    Spaces,
    VectorSet,
)
from agentmem.errors import EmbedderError
from agentmem.namespaces import decode
from agentmem.request import Request
from agentmem.search.embedders import GIVEN, Embedder
from agentmem.tail import Outcome

__all__ = ["gives_way", "set_of", "top_label", "wanted_vector", "wrong_embedder"]

_TERMINATOR = "\x01"


def top_label(namespace: str) -> str:
    """The first label of an encoded namespace, encoded; empty for the root."""
    return namespace[: namespace.index(_TERMINATOR) + 1] if namespace else ""


def set_of(spaces: Spaces, label: str) -> VectorSet | None:
    """The set of a top-level namespace; None if it has no vectors yet."""
    set_id = spaces.of.get(label)
    return spaces.sets[set_id] if set_id is not None else None


def gives_way(embedder: Embedder, found: VectorSet | None) -> bool:
    """Whether an embedder that nobody asked for leaves a space to what has made its vectors."""
    return embedder.automatic and found is not None and found.embedder != embedder.identity


def wrong_embedder(label: str, found: VectorSet, embedder: Embedder) -> EmbedderError:
    """What a caller gets whose embedder is not that of the space."""
    made = f"embedder {found.embedder!r}" if found.embedder != GIVEN else "vectors of its writers"
    return EmbedderError(
        f"{_name(label)} has {made}, {found.dimension} dimensions, and this store was opened with "
        f"{embedder.identity!r}: open it with the same embedder, or run store.admin.reindex() "
        "(agentmem reindex) to embed everything anew"
    )


def wanted_vector(
    request: Request,
    place: Place,
    final: Outcome,
    spaces: Spaces,
    claims: dict[str, tuple[str, int]],
) -> bytes | str | None:
    """The vector of an outcome; the text that has yet to be embedded; None if it has none.

    Args:
        claims: embedder and dimension of the spaces that the request claims; added to.

    Raises:
        EmbedderError: it does not belong where it would be written.
    """
    if final.value is None:
        return None
    write = request.writes.get(place)
    label = top_label(place[0])
    found = set_of(spaces, label)
    embedder = request.embedder
    if write is not None and write.vector is not None and final.value == write.value:
        maker = embedder.identity if embedder is not None and not embedder.automatic else GIVEN
        _check(label, found, claims, maker, write.vector)
        return write.vector
    words = final.look()
    if words is None or embedder is None or gives_way(embedder, found):
        return None
    if found is not None and found.embedder != embedder.identity:
        raise wrong_embedder(label, found, embedder)
    if write is not None and write.deferred:
        final.pending = True
        return None
    vector = request.vectors.get(words)
    if vector is None:
        return words
    if label in claims and claims[label][0] != embedder.identity:
        return None  # the request itself has made the space another's
    _check(label, found, claims, embedder.identity, vector)
    return vector


def _check(
    label: str,
    found: VectorSet | None,
    claims: dict[str, tuple[str, int]],
    maker: str,
    vector: bytes,
) -> None:
    dimension = len(vector) // 4
    known = found.dimension if found is not None else None
    if known is None:
        known = claims.setdefault(label, (maker, dimension))[1]
    if known != dimension:
        raise EmbedderError(
            f"a vector for {_name(label)} has {dimension} dimensions, and those there have "
            f"{known}; nothing was written"
        )


def _name(label: str) -> str:
    return f"namespace {decode(label)[0]!r}" if label else "the root namespace"
