"""Texts that stop at a number of tokens, as somebody counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from langchain_core.messages import HumanMessage, MessageLikeRepresentation
from langchain_core.messages.utils import count_tokens_approximately

__all__ = ["LEAST_TOKENS", "Budget", "TokenCounter"]

TokenCounter = Callable[[Iterable[MessageLikeRepresentation]], int]
"""Counts the tokens of messages, as `langchain_core` and its middleware take it."""

LEAST_TOKENS: Final = 100  # below, the words around a result would leave no room for it


class Budget:
    """How many tokens a text may have.

    Args:
        max_tokens: at most so many.
        counter: how they are counted; None is `count_tokens_approximately`: four characters a
            token, and three tokens for the message.
    """

    def __init__(self, max_tokens: int, counter: TokenCounter | None = None) -> None:
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int):
            raise TypeError(f"a number of tokens is an int, not {type(max_tokens).__name__}")
        if max_tokens < LEAST_TOKENS:
            raise ValueError(f"{max_tokens} tokens are too few; give at least {LEAST_TOKENS}")
        self.max_tokens = max_tokens
        self._counter = counter or count_tokens_approximately

    def fits(self, text: str) -> bool:
        """Whether a text is within it."""
        return self._counter([HumanMessage(text)]) <= self.max_tokens

    def most(self, render: Callable[[int], str], upto: int) -> int:
        """The largest number of parts whose text fits; a text of more parts is longer.

        Args:
            render: the text of so many parts.
            upto: how many parts there are.
        """
        if self.fits(render(upto)):
            return upto
        fitting, over = 0, upto
        while over - fitting > 1:
            middle = (fitting + over) // 2
            if self.fits(render(middle)):
                fitting = middle
            else:
                over = middle
        return fitting

    def lines(
        self, lines: Sequence[str], render: Callable[[Sequence[str]], str]
    ) -> tuple[int, str]:
        """As many lines as fit, at least the first, which is cut if there is no room for it.

        Args:
            lines: of which there is at least one.
            render: the text of so many of the first of them.

        Returns: how many are whole, 0 if the first was cut; and the text.
        """
        count = self.most(lambda many: render(lines[:many]), len(lines))
        if count:
            return count, render(lines[:count])
        first = lines[0]
        length = self.most(lambda many: render([f"{first[:many]}…"]), len(first) - 1)
        return 0, render([f"{first[:length]}…"])
