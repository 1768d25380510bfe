"""Differences between two values, path by path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from agentmem.model import MISSING, short
from agentmem.values import canonical

__all__ = ["Difference", "differences", "path_of"]

# What else a name may hold is quoted, so that no two places have one path.
_PLAIN: Final = re.compile(r"[^\s.\[\]\"'$]+")


@dataclass(frozen=True, slots=True, repr=False)
class Difference:
    """One path at which two values differ.

    Attributes:
        path: as ``$.plan.days[3]``; ``$`` is the whole value, and a name that is no plain one
            stands as ``$["a.b"]``.
        kind: ``added``, ``removed`` or ``changed``.
        before: the old value; None if added.
        after: the new value; None if removed.
    """

    path: str
    kind: str
    before: Any
    after: Any

    __module__ = "agentmem"

    def __repr__(self) -> str:
        return (
            f"Difference({self.path!r}, {self.kind}, {short(self.before)} -> {short(self.after)})"
        )


def differences(before: Any, after: Any) -> list[Difference]:
    """What changed from one JSON value to another.

    Objects are compared name by name, lists position by position. Either side may be
    ``MISSING``: the key was absent.
    """
    return list(_walk(before, after, "$"))


def path_of(outer: str, step: str | int) -> str:
    """The path of what stands under a name or at a position of what has another path."""
    if isinstance(step, str) and _PLAIN.fullmatch(step):
        return f"{outer}.{step}"
    return f"{outer}[{json.dumps(step, ensure_ascii=False)}]"


def _walk(before: Any, after: Any, path: str) -> Iterator[Difference]:
    if before is MISSING and after is MISSING:
        return
    if before is MISSING:
        yield Difference(path, "added", None, after)
    elif after is MISSING:
        yield Difference(path, "removed", before, None)
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            inner = path_of(path, name)
            yield from _walk(before.get(name, MISSING), after.get(name, MISSING), inner)
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            old = before[index] if index < len(before) else MISSING
            new = after[index] if index < len(after) else MISSING
            yield from _walk(old, new, path_of(path, index))
    elif canonical(before) != canonical(after):
        yield Difference(path, "changed", before, after)
