"""Namespaces, keys and patterns: checked at the call, encoded once.

A namespace is a tuple of labels. It is stored as text: each label, escaped, and ended by
``\\x01``. The encoding

* is injective: no label can forge another namespace, whatever characters it holds;
* keeps order: texts compare by code point as the tuples do, in SQLite, in PostgreSQL under
  ``COLLATE "C"`` and in Python;
* is prefix-scannable: a namespace and all below it are one range.

::

    ()                 ''
    ("team",)          'team\\x01'                 range of it and below:
    ("team", "alice")  'team\\x01alice\\x01'        'team\\x01' <= text < 'team\\x02'
    ("team\\x01",)      'team\\x02\\x02\\x01'         outside of it: \\x01 is escaped
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from agentmem.errors import InvalidValueError, LimitExceededError
from agentmem.limits import Limits

__all__ = ["Labels", "Pattern", "check_key", "decode", "encode", "parse_namespace", "range_end"]

Labels = tuple[str, ...]

_END: Final = "\x01"
_ESCAPE: Final = "\x02"
_LITERAL: Final = "\x00"  # before a part whose "*" is a star; NUL stands in no label or pattern
_SPECIAL: Final = re.compile("[\x01\x02]")
_CACHED_NAMESPACES: Final = 4_096


def parse_namespace(namespace: object, limits: Limits) -> Labels:
    """A namespace argument as labels.

    Args:
        namespace: None or ``""`` for the root, ``"team/alice"``, or a tuple (or list) of labels.

    Raises:
        TypeError: it is none of these.
        InvalidValueError: a label is empty, or holds NUL or a lone surrogate.
        LimitExceededError: too many labels, or one is too long.
    """
    if namespace is None:
        return ()
    if isinstance(namespace, str):
        labels = tuple(namespace.split("/")) if namespace else ()
    elif isinstance(namespace, (tuple, list)):
        labels = tuple(namespace)
    else:
        raise TypeError(
            f"a namespace is a tuple of labels or a string like 'team/alice', "
            f"not {type(namespace).__name__}"
        )
    return _checked(labels, limits)


def _checked(labels: Labels, limits: Limits) -> Labels:
    if len(labels) > limits.max_namespace_depth:
        raise LimitExceededError(
            f"namespace of {len(labels)} labels; at most {limits.max_namespace_depth} are allowed",
            limit=limits.max_namespace_depth,
            actual=len(labels),
        )
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"a label of a namespace is a str, not {type(label).__name__}")
        _check_text(label, "label", limits)
    return labels


def check_key(key: object, limits: Limits) -> str:
    """A key argument, checked.

    Raises:
        TypeError: it is no str; a tuple is told where the namespace goes.
        InvalidValueError: it is empty, or holds NUL or a lone surrogate.
        LimitExceededError: it is too long.
    """
    if (
        type(key) is str
        and key.isascii()
        and "\x00" not in key
        and 0 < len(key) <= limits.max_key_bytes
    ):
        return key
    if isinstance(key, tuple):
        raise TypeError(
            "a key is a str; give the namespace as namespace=(...), not inside the key, "
            "so that a key never means two things"
        )
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    _check_text(key, "key", limits)
    return str(key)


def _check_text(text: str, what: str, limits: Limits) -> None:
    if not text:
        raise InvalidValueError(f"a {what} must not be empty")
    if "\x00" in text:
        raise InvalidValueError(f"{what} {text!r} holds NUL, which is not allowed")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidValueError(
            f"{what} {text!r} holds a lone surrogate, which is not Unicode text"
        ) from None
    if size > limits.max_key_bytes:
        raise LimitExceededError(
            f"{what} of {size} bytes; at most {limits.max_key_bytes} are allowed",
            limit=limits.max_key_bytes,
            actual=size,
        )


@lru_cache(_CACHED_NAMESPACES)
def encode(labels: Labels) -> str:
    """Labels as the text that is stored. See the module for what it guarantees."""
    return "".join(
        (_SPECIAL.sub(_escaped, label) if _SPECIAL.search(label) else label) + _END
        for label in labels
    )


def _escaped(match: re.Match[str]) -> str:
    return _ESCAPE + chr(ord(match.group()) + 1)


def _unescaped(match: re.Match[str]) -> str:
    return chr(ord(match.group()[1]) - 1)


@lru_cache(_CACHED_NAMESPACES)
def decode(text: str) -> Labels:
    """The labels of an encoded namespace."""
    if not text:
        return ()
    labels = text[:-1].split(_END)
    if _ESCAPE in text:
        labels = [re.sub("\x02[\x02\x03]", _unescaped, label) for label in labels]
    return tuple(labels)


def range_end(encoded: str) -> str | None:
    """The end of the range of a namespace and all below it.

    Guarantees: ``encoded <= x < range_end(encoded)`` holds exactly for the encoded namespace
    itself and for those below it. None for the root: its range has no end.
    """
    return encoded[:-1] + _ESCAPE if encoded else None


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which keys a merge hook, a stored strategy or an access rule is for.

    ``*`` stands for any characters within one label or the key, ``**`` (as a whole part) for
    zero or more labels; as the last part ``**`` stands for every key in that namespace and
    below. ``"notes/**"`` is every key in ``notes`` and below, not the root key ``notes/x``.

    Attributes:
        parts: labels and, last, the key.
        text: as it was written.
    """

    parts: tuple[str, ...]
    text: str

    @classmethod
    def parse(cls, pattern: object, limits: Limits, prefix: Labels = ()) -> Pattern:
        """A pattern argument, checked; ``prefix`` is put before it literally."""
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern is a string like 'notes/**', not {type(pattern).__name__}")
        if not pattern:
            raise InvalidValueError("a pattern must not be empty; '**' is every key")
        parts = tuple(pattern.split("/"))
        for part in parts:
            _check_text(part, "pattern part", limits)
            if "**" in part and part != "**":
                raise InvalidValueError(
                    f"pattern {pattern!r}: '**' stands alone between slashes, not inside {part!r}"
                )
        if len(parts) > limits.max_namespace_depth + 1:
            raise LimitExceededError(
                f"pattern of {len(parts)} parts; "
                f"at most {limits.max_namespace_depth + 1} are allowed",
                limit=limits.max_namespace_depth + 1,
                actual=len(parts),
            )
        literal = tuple(_LITERAL + label if "*" in label else label for label in prefix)
        return cls(literal + parts, pattern)

    @property
    def specificity(self) -> tuple[int, int]:
        """Larger is more specific: more literal parts, then fewer ``**``."""
        literal = sum("*" not in part or part.startswith(_LITERAL) for part in self.parts)
        return literal, -sum(part == "**" for part in self.parts)

    def matches(self, labels: Labels, key: str) -> bool:
        """Whether the key is one of the pattern's."""
        *before, last = self.parts
        used = _used(before, labels)
        if last == "**":
            return bool(used)
        return len(labels) in used and _part_matches(last, key)

    def covers(self, labels: Labels) -> bool:
        """Whether every possible key in the namespace and below is one of the pattern's."""
        *before, last = self.parts
        return last == "**" and bool(_used(before, labels))

    def reaches(self, labels: Labels) -> bool:
        """Whether some key in the namespace or below can be one of the pattern's."""
        *before, _last = self.parts
        return self.covers(labels) or any(
            len(labels) in _used(before[:length], labels) for length in range(len(before) + 1)
        )


def _used(parts: list[str], labels: Labels) -> set[int]:
    """How many labels, from the first on, the parts can stand for: every possible number."""
    reached = {0}
    for part in parts:
        if part == "**":
            reached = set(range(min(reached), len(labels) + 1))
        else:
            reached = {
                at + 1 for at in reached if at < len(labels) and _part_matches(part, labels[at])
            }
        if not reached:
            break
    return reached


def _part_matches(part: str, name: str) -> bool:
    if part.startswith(_LITERAL):
        return part[1:] == name
    if "*" not in part:
        return part == name
    return _expression(part).fullmatch(name) is not None


@lru_cache(_CACHED_NAMESPACES)
def _expression(part: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in part.split("*")), re.DOTALL)
