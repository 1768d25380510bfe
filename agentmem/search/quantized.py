"""Vectors with eight bits a number: how near they are, give or take, for a quarter of the memory.

Looking at every vector takes as long as reading them from memory, so a first look reads less. Of
a row x of length one, c = round(x / s) is kept, whole numbers with a step s of its own, its
largest number / 127. What that loses is e = |x - s c| (scalar quantization). Of a query q of
length one, d, t and f are the same. By Cauchy and Schwarz::

    |q·x - s t (c·d)|  =  |q·(x - s c) + (q - t d)·s c|  <=  e + f (1 + e)

and c·d is a sum of whole numbers. Who cannot be among the nearest even if all of
that were in its favour is not looked at again; of those that remain the float32 numbers are.
So what is found is the same as without.

NumPy has no fast product of such numbers, `simsimd` (the extra ``fast``) has one: 170 µs for
10,000 rows of 384 numbers on one core, where a product of float32 numbers takes 530, or 270
on two.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentmem.search.vectors import Floats, Vector

    Codes = NDArray[np.int8]

__all__ = ["dots", "is_usable", "quantize"]

_LARGEST: Final = 127
_ROUNDING: Final = 1e-5  # of what is computed here itself, in float32
_TRIED: Final = (96, 70)  # rows and numbers of the trial

_log = logging.getLogger("agentmem")


@cache
def is_usable() -> bool:
    """Whether there is a fast product of eight-bit numbers, and one that is right."""
    # Not by `find_spec`, which fails while another thread is importing it.
    try:
        import simsimd  # noqa: F401  # only whether it is there
    except ImportError:
        return False
    # Kernels differ by processor; one that is wrong would lose entries and say nothing.
    rng = np.random.default_rng(0)
    rows = rng.integers(-_LARGEST, _LARGEST + 1, size=_TRIED, dtype=np.int8)
    rows[0], rows[1] = _LARGEST, -_LARGEST
    expected = rows.astype(np.int64) @ rows[0].astype(np.int64)
    if not np.array_equal(dots(rows, rows[0]), expected):
        _log.warning("simsimd computes wrong products on this processor, and is not used")
        return False
    return True


def dots(rows: Codes, query: Codes) -> Vector:
    """The product of each row with a query, whole numbers (to 24 bits), shape (n,)."""
    import simsimd

    # One thread: several would wait for each other on a machine that is busy, for milliseconds,
    # and for ever in a forked child, where those of the parent do not live on.
    found: Any = simsimd.cdist(query[None], rows, metric="dot", threads=1, out_dtype="float32")
    products: Vector = np.asarray(found)[0]
    return products


def quantize(rows: Floats) -> tuple[Codes, Vector, float]:
    """Rows of length one (or of zeros) in eight bits a number.

    Returns: the numbers, shape (n, dim), the step of each row, shape (n,), and the most that any
    of them loses.
    """
    steps = np.abs(rows).max(axis=1, initial=0) / np.float32(_LARGEST)
    safe = np.where(steps > 0, steps, np.float32(1))[:, None]
    codes = np.rint(rows / safe).astype(np.int8)
    lost = rows - codes * safe
    return codes, steps, float(np.sqrt(np.einsum("ij,ij->i", lost, lost).max(initial=0)))


def quantize_one(query: Vector) -> tuple[Codes, float, float]:
    """As `quantize`, of one vector: its numbers, shape (dim,), its step, and what it loses."""
    step = float(max(query.max(), -query.min())) / _LARGEST
    numbers = np.rint(query / np.float32(step or 1.0))
    lost = query - numbers * np.float32(step)
    return numbers.astype(np.int8), step, float(np.sqrt(np.dot(lost, lost)))


def error(loss: float, query_loss: float) -> float:
    """How far off a similarity can be, of a row and a query that lose so much."""
    return loss + query_loss * (1 + loss) + _ROUNDING
