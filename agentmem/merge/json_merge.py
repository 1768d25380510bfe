"""The strategy ``json``: a three-way merge of JSON, path by path.

::

    base    {"days": 3, "city": "Rome", "budget": {"food": 10}}
    theirs  {"days": 4, "city": "Rome", "budget": {"food": 10, "art": 5}}
    ours    {"days": 3,                 "budget": {"food": 12}}
    result  {"days": 4,                 "budget": {"food": 12, "art": 5}}

Objects are merged member by member; an object that both sides created counts as ``{}`` at base.
All else, lists too, is a leaf: it may be changed by one side only, or by both to the same.
"""

from __future__ import annotations

from typing import Any, Final

from agentmem.merge.strategy import Unmergeable, kind_of, same, settle, three_way
from agentmem.model import DELETE, MISSING

__all__ = ["json"]


def _merge(base: Any, theirs: Any, ours: Any) -> Any:
    """What both sides have changed: one value out of two.

    Raises:
        Unmergeable: both changed one leaf; its path is counted from here.
    """
    if same(theirs, ours):
        return theirs
    before = {} if base is MISSING else base
    if not all(isinstance(value, dict) for value in (before, theirs, ours)):
        raise Unmergeable(
            f"both sides changed it, theirs to {kind_of(theirs)}, ours to {kind_of(ours)}"
        )
    merged = {}
    for name in theirs | ours:
        value = _member(name, before, theirs, ours)
        if value is not DELETE:
            merged[name] = value
    return merged


def _member(name: str, base: dict[str, Any], theirs: dict[str, Any], ours: dict[str, Any]) -> Any:
    """The merged member, DELETE if it is gone."""
    three = base.get(name, MISSING), theirs.get(name, DELETE), ours.get(name, DELETE)
    try:
        value = settle(*three)
        return _merge(*three) if value is MISSING else value
    except Unmergeable as error:
        raise error.under(name) from None


json: Final = three_way("json", _merge, agrees=True)
"""Objects whose members are changed by different writers."""
