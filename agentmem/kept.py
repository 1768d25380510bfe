"""What a conflict on record keeps of a merge: the value that was wanted, and how it was merged.

Both are one JSON text in ``conflicts.ours``, so that they are exported, checked and erased
together. Mostly it is the value alone. With details it is wrapped, and so is a value that looks
like a wrapping, so that none can be taken for one::

    ours                   details     kept
    [1]                    none        [1]
    [1]                    "by hand"   {"$merge": {"details": "by hand", "ours": [1]}}
    {"$merge": 1}          none        {"$merge": {"details": null, "ours": {"$merge": 1}}}
    deleted                "by hand"   {"$merge": {"details": "by hand"}}
"""

from __future__ import annotations

from typing import Any, Final

from agentmem.values import canonical, load

__all__ = ["details_in", "kept_text", "ours_in"]

_WRAPPED: Final = '{"$merge":'
_MARK: Final = "$merge"


def kept_text(ours: str | None, details: str | None) -> str | None:
    """The text to keep.

    Args:
        ours: canonical JSON text of the value that the writer wanted; None: a delete.
        details: canonical JSON text; None: there are none.
    """
    if details is None and (ours is None or not ours.startswith(_WRAPPED)):
        return ours
    kept: dict[str, Any] = {"details": load(details) if details is not None else None}
    if ours is not None:
        kept["ours"] = load(ours)
    return canonical({_MARK: kept}).decode()


def ours_in(kept: str | None) -> str | None:
    """The text of the value that was wanted; None for a delete, or if it is not kept."""
    if kept is None or not kept.startswith(_WRAPPED):
        return kept
    inside = load(kept)[_MARK]
    return canonical(inside["ours"]).decode() if "ours" in inside else None


def details_in(kept: str | None) -> Any:
    """How it was merged; None if nothing is kept of that."""
    if kept is None or not kept.startswith(_WRAPPED):
        return None
    return load(kept)[_MARK]["details"]
