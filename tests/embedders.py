"""Embedders whose vectors tests can foretell."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIMENSION", "FailingEmbedder", "WordsEmbedder", "cosine"]

DIMENSION: Final = 12


class WordsEmbedder:
    """Sums a direction for each word: texts that share words are near each other.

    Attributes:
        identity: its name.
        texts: what it was asked to embed, in order.
    """

    def __init__(self, identity: str = "words", dimension: int = DIMENSION) -> None:
        self.identity = identity
        self.dimension = dimension
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        return np.array([self.vector(text) for text in texts], dtype=np.float32)

    def vector(self, text: str) -> NDArray[np.float64]:
        """The vector of one text; never zeros."""
        total = np.full(self.dimension, 0.01)
        for word in text.lower().split():
            # From the word alone, in every process the same.
            made = np.random.default_rng(zlib.crc32(word.encode()))
            total += made.normal(size=self.dimension)
        return total


class FailingEmbedder(WordsEmbedder):
    """Raises while it is told to."""

    failing = True

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.failing:
            raise ConnectionError("the model is away")
        return super().__call__(texts)


def cosine(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The cosine of the angle between two vectors."""
    a, b = np.asarray(one, np.float32), np.asarray(other, np.float32)
    wide, other_wide = a.astype(float), b.astype(float)
    return float(wide @ other_wide / np.linalg.norm(wide) / np.linalg.norm(other_wide))
