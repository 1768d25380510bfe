"""Words: what of a text is indexed, and which words of a query are looked for.

Both engines index words by their stems (SQLite by Porter's, PostgreSQL by its English ones).
Scripts that are written without spaces would make one word of a whole sentence, so each of
their characters stands alone, and a run of them in a query is looked for as a phrase.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from agentmem.limits import Limits
from agentmem.values import load, search_text

__all__ = ["MAX_WORDS", "found_by", "indexed", "query_words"]

_LIMITS: Final = Limits()

MAX_WORDS: Final = 128
"""Words of a query that are looked for; of a longer one, the first."""

_MAX_QUERY: Final = 100_000  # characters that are looked at
# Chinese characters, kana, bopomofo, Thai, Lao, Khmer and Burmese, all of them without spaces.
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Words that say nothing of what is asked for, and those that questions are made of.
_STOP_TEXT: Final = """
a about above after again against ain all also am an and any are aren as at be because been before
being below between both but by can cannot could couldn d did didn do does doesn doing don down
during each ever few for from further had hadn has hasn have haven having he her here hers herself
him himself his how i if in into is isn it its itself just ll m ma may me might mightn more most
much must mustn my myself needn no nor not now o of off on once only or other our ours ourselves
out over own please re s same shall shan she should shouldn so some such t than that the their
theirs them themselves then there these they this those through to too under until up us ve very
was wasn we were weren what when where which while who whom whose why will with won would wouldn y
you your yours yourself yourselves many often tell kind
"""
_STOP: Final = frozenset(_STOP_TEXT.split())


def found_by(value: str | None, text: str | None) -> str | None:
    """What search sees of an entry.

    Args:
        value: as stored: JSON text, None for a tombstone.
        text: as stored: None: it follows from the value, empty: hidden.

    Returns:
        The text; None if it is hidden, or there is none.
    """
    if text is None:
        # Values that hold no string need not be parsed to know it.
        if value is None or '"' not in value:
            return None
        return search_text(None, load(value), _LIMITS)
    return text or None if value is not None else None


def indexed(text: str) -> str:
    """A text as it is given to a full-text index."""
    if text.isascii():
        return text
    return _UNSPACED.sub(r" \g<0> ", unicodedata.normalize("NFC", text))


def query_words(query: str) -> list[str]:
    """The words of a query, each once, without those that say nothing unless nothing is left.

    A word can be a phrase: characters of a script without spaces, separated by spaces. No word
    holds anything that a query language could mistake for an operator.
    """
    text = unicodedata.normalize("NFC", query[:_MAX_QUERY]).lower()
    spaced = "".join(char if _in_word(char) else " " for char in text)
    words = list(dict.fromkeys(filter(None, map(_phrase, spaced.split()))))
    return ([word for word in words if word not in _STOP] or words)[:MAX_WORDS]


def _in_word(char: str) -> bool:
    return char.isalnum() or (char > "\x7f" and unicodedata.category(char)[0] in "LNM")


def _phrase(word: str) -> str:
    if word.isascii():
        return word
    spaced = " ".join(_UNSPACED.sub(r" \g<0> ", word).split())
    # A mark alone is no word.
    return spaced if any(char.isalnum() for char in spaced) else ""
