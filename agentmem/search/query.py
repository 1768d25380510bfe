"""What a search asks for, checked; and what it finds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from agentmem.errors import InvalidValueError, LimitExceededError
from agentmem.filters import Filter
from agentmem.limits import Limits
from agentmem.namespaces import Labels
from agentmem.search.vectors import pack
from agentmem.search.words import query_words

__all__ = ["MODES", "SearchQuery"]

MODES: Final = ("hybrid", "vector", "text")
_MAX_OFFSET: Final = 100_000


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class SearchQuery:
    """The arguments of ``search``.

    Attributes:
        text: what was asked in words; None: a vector was given.
        words: those of the text that are looked for; empty in mode ``vector``.
        vector: the vector that was given, as stored.
        labels: the namespace, absolute; with all below it.
        k, offset: how many, after how many.
        mode: one of `MODES`.
        filter: what the values must match.
        half_life_us: after so long an entry counts half; None: age does not matter.
        track: whether a transaction notes what it has seen.
        at_least: only what is at least so similar; None: all.
    """

    text: str | None
    words: tuple[str, ...]
    vector: bytes | None
    labels: Labels
    k: int
    offset: int
    mode: str
    filter: Filter | None
    half_life_us: float | None
    track: bool
    at_least: float | None = None

    @property
    def depth(self) -> int:
        """How far down the ranking the answer reaches."""
        return self.offset + self.k

    @classmethod
    def parse(
        cls,
        labels: Labels,
        query: object,
        k: object,
        offset: object,
        mode: object,
        where: object,
        half_life_s: object,
        limits: Limits,
        *,
        track: bool,
    ) -> SearchQuery:
        """Checks the arguments of `View.search`.

        Raises:
            InvalidValueError, TypeError: an argument is not allowed.
            EmbedderError: the vector is none.
            LimitExceededError: `k` or `offset` is too large.
        """
        if mode not in MODES:
            raise InvalidValueError(f"mode is 'hybrid', 'vector' or 'text', not {mode!r}")
        if type(k) is not int or k < 1:
            raise InvalidValueError(f"k is a number from 1 on, not {k!r}")
        if type(offset) is not int or offset < 0:
            raise InvalidValueError(f"offset is a number from 0 on, not {offset!r}")
        for name, number, limit in (("k", k, limits.max_k), ("offset", offset, _MAX_OFFSET)):
            if number > limit:
                raise LimitExceededError(
                    f"{name} is {number}; at most {limit} are allowed", limit=limit, actual=number
                )
        half_life_us = _half_life(half_life_s)
        if isinstance(query, str):
            if mode == "vector":
                words: tuple[str, ...] = ()
            else:
                words = tuple(query_words(query))
            text, vector = query, None
        else:
            if mode == "text":
                raise InvalidValueError('mode="text" looks for words; give a str, not a vector')
            text, words, vector = None, (), _vector(query)
            mode = "vector"
        return cls(
            text, words, vector, labels, k, offset, str(mode), Filter.parse(where), half_life_us,
            track,
        )  # fmt: skip

    def asked(self) -> dict[str, Any]:
        """For the record of what a transaction has read."""
        found: dict[str, Any] = {
            "search": self.text if self.text is not None else "(vector)",
            "mode": self.mode,
            "k": self.k,
            "offset": self.offset or None,
            "where": self.filter.source if self.filter is not None else None,
        }
        return {name: value for name, value in found.items() if value is not None}


def _vector(query: object) -> bytes:
    if query is None or isinstance(query, (bytes, bool, int, float, dict)):
        raise TypeError(f"a query is a str or a vector, not {type(query).__name__}")
    return pack(query, "the query's vector")


def _half_life(half_life_s: object) -> float | None:
    if half_life_s is None:
        return None
    if isinstance(half_life_s, bool) or not isinstance(half_life_s, (int, float)):
        raise TypeError(f"half_life_s is a number of seconds, not {type(half_life_s).__name__}")
    if not (half_life_s > 0 and math.isfinite(half_life_s)):
        raise InvalidValueError(f"half_life_s is {half_life_s}; it must be positive")
    return float(half_life_s) * 1_000_000
