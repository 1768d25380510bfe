"""Vectors: as they come from an embedder or a caller, as they are stored, and how near two are.

Stored are little-endian float32 numbers, as they were given. Compared are their directions: the
similarity is the cosine of the angle between two vectors, the distance one minus that. A vector
of zeros has no direction, and its similarity to any other is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import sqrt
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentmem.errors import EmbedderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Vector = NDArray[np.float32]

K = TypeVar("K")

__all__ = [
    "MAX_DIMENSION",
    "checksum",
    "compared",
    "direction",
    "directions",
    "pack",
    "similarities",
    "unpack",
    "unpack_many",
]

MAX_DIMENSION: Final = 16_000  # of pgvector's type
_CHECKSUM_BYTES: Final = 8


def pack(vector: object, what: str, dimension: int | None = None) -> bytes:
    """A vector as it is stored.

    Args:
        vector: numbers: a list, a tuple, or an array of one dimension.
        what: whose it is, for messages.
        dimension: how many numbers it must have; None: any.

    Raises:
        EmbedderError: it is no list of finite numbers, or has another dimension.
    """
    import numpy as np

    if isinstance(vector, (str, bytes, dict)):
        raise EmbedderError(f"{what} is {type(vector).__name__}, not a list of numbers")
    try:
        array = np.asarray(vector)
        plain = (
            array.dtype == np.float32
            and array.ndim == 1
            and array.size == (dimension or min(max(array.size, 1), MAX_DIMENSION))
        )
        # Most come like this; and a sum of squares is finite if all of the numbers are.
        if plain and np.isfinite(np.dot(array, array)):
            return array.astype("<f4", copy=False).tobytes()
        if array.dtype.kind not in "fiu":
            raise TypeError(f"its numbers are {array.dtype}")
        with np.errstate(over="ignore"):
            numbers = array.astype("<f4")
    except (TypeError, ValueError) as error:
        raise EmbedderError(f"{what} is not a list of numbers: {error}") from error
    if numbers.ndim != 1 or not 1 <= numbers.size <= MAX_DIMENSION:
        raise EmbedderError(
            f"{what} has the shape {numbers.shape}; a vector is one list of 1 to {MAX_DIMENSION} "
            "numbers"
        )
    if dimension is not None and numbers.size != dimension:
        raise EmbedderError(
            f"{what} has {numbers.size} dimensions, and those beside it have {dimension}"
        )
    if not np.isfinite(numbers).all():
        raise EmbedderError(f"{what} holds NaN or infinity")
    return numbers.tobytes()


def unpack(stored: bytes) -> Vector:
    """A stored vector; it cannot be written to."""
    import numpy as np

    return np.frombuffer(stored, dtype="<f4")


def unpack_many(stored: list[bytes], dimension: int) -> Floats:
    """Stored vectors as the rows of a matrix, shape (n, dimension)."""
    import numpy as np

    return np.frombuffer(b"".join(stored), dtype="<f4").reshape(len(stored), dimension)


def directions(rows: Floats) -> Floats:
    """Vectors of length one with the directions of the rows; rows of zeros stay zeros."""
    import numpy as np

    wide = rows.astype(np.float64)
    lengths = np.sqrt(np.multiply(wide, wide).sum(axis=1, keepdims=True))
    lengths[lengths == 0] = 1
    wide /= lengths
    found: Floats = wide.astype(np.float32)
    return found


def direction(vector: Any) -> Vector:
    """As `directions`, of one vector."""
    import numpy as np

    wide = np.asarray(vector, dtype=np.float64)
    # As `sum` does, without what stands around it.
    length = sqrt(np.add.reduce(np.multiply(wide, wide)))
    found: Vector = (wide / length if length else wide).astype(np.float32)
    return found


def similarities(rows: Floats, query: Vector) -> NDArray[np.float64]:
    """The cosines of directions, shape (n,), exact to about 1e-7.

    Each depends on its row and the query alone, not on the rows beside it, as it would in a
    product of matrices: so equal vectors are equally near, and ties stay ties.
    """
    import numpy as np

    # The functions themselves: what stands around them in `sum` and `clip` takes longer than they.
    found: NDArray[np.float64] = np.add.reduce(np.multiply(rows, query, dtype=np.float64), axis=1)
    # Lengths are one but for the rounding, which must bring nothing nearer than near.
    return np.minimum(np.maximum(found, -1.0, out=found), 1.0, out=found)


def compared(stored: Mapping[K, bytes], query: Vector) -> dict[K, float]:
    """How near stored vectors, of its dimension, are to a direction."""
    if not stored:
        return {}
    rows = directions(unpack_many(list(stored.values()), len(query)))
    return dict(zip(stored, similarities(rows, query).tolist(), strict=True))


def checksum(id: int, vector: bytes) -> bytes:
    """What tells that a stored row is as it was written."""
    return blake2b(id.to_bytes(8, "big") + vector, digest_size=_CHECKSUM_BYTES).digest()
