"""The strategy ``text``: a three-way merge of text, line by line.

Source of the method: diff3 (Khanna, Kunal, Pierce, "A Formal Investigation of Diff3", 2007), as
the library `merge3` implements it. A line ends with ``\\n`` and owns it, so a last line without
one differs from the same line with one, ``\\r\\n`` stays as it is, and no two lines can be
glued together. Changes that touch the same or adjacent lines cannot be merged.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from agentmem.errors import MissingExtraError
from agentmem.merge.lines import LineMatcher
from agentmem.merge.strategy import Unmergeable, kind_of, three_way
from agentmem.model import MISSING

__all__ = ["text"]

_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")


def _merge(base: Any, theirs: Any, ours: Any) -> str:
    for side, value in (("theirs", theirs), ("ours", ours)):
        if not isinstance(value, str):
            raise Unmergeable(f"{side} is {kind_of(value)}, not a string")
    if base is MISSING:
        raise Unmergeable("both sides created it, with different texts")
    if not isinstance(base, str):
        raise Unmergeable(f"base is {kind_of(base)}, not a string")
    return _merge_lines(_LINE.findall(base), _LINE.findall(theirs), _LINE.findall(ours))


def _merge_lines(base: list[str], theirs: list[str], ours: list[str]) -> str:
    try:
        from merge3 import Merge3
    except ImportError as error:
        raise MissingExtraError(
            "merging text needs the package merge3: pip install 'agentmem-store[text]'",
            extra="text",
        ) from error
    merged: list[str] = []
    # merge3 names the whole constructor of difflib's matcher; it uses these three arguments.
    matcher = cast(Any, LineMatcher)
    for region in Merge3(base, theirs, ours, sequence_matcher=matcher).merge_groups():
        if region[0] == "conflict":
            line = len(merged) + 1
            raise Unmergeable(f"both sides changed the same or adjacent lines, at line {line}")
        merged.extend(region[1])
    return "".join(merged)


text: Final = three_way("text", _merge, agrees=True)
"""Texts whose lines are changed by different writers."""
