"""What tools say: values, who and when, differences, conflicts; in few words a model can act on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from agentmem import Difference, Entry

__all__ = [
    "by_whom", "changed_lines", "conflict_parts", "shortened", "value_text", "version_words",
]  # fmt: skip

_MAX_SIDE: Final = 160  # characters of one side of a difference


def value_text(value: Any) -> str:
    """A value as the model sees it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(text: str, width: int) -> str:
    """A text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def by_whom(entry: Entry[Any]) -> str:
    """Who wrote it, and when."""
    who = f"by {entry.agent}" if entry.agent else "by somebody"
    return who if entry.committed_at is None else f"{who} at {_second(entry.committed_at)}"


def _second(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def version_words(version: int) -> str:
    """A version; 0 is that the key is absent."""
    return f"version {version}" if version else "absent"


def changed_lines(changes: Sequence[Difference]) -> list[str]:
    """One line for each path at which two values differ."""
    return [f"  {change.path}: {_change(change)}" for change in changes]


def _change(change: Difference) -> str:
    if change.kind == "added":
        return f"added {_side(change.after)}"
    if change.kind == "removed":
        return f"removed {_side(change.before)}"
    return f"{_side(change.before)} -> {_side(change.after)}"


def _side(value: Any) -> str:
    return shortened(json.dumps(value, ensure_ascii=False), _MAX_SIDE)


def conflict_parts(
    path: str,
    tool: str,
    base: int,
    theirs: Entry[Any] | None,
    changes: Sequence[Difference] | None,
) -> tuple[str, list[str], str]:
    """What happened; what is different now, line by line; and what to do.

    Args:
        tool: that was called.
        base: the version that the call started from, 0 for none.
        theirs: what is there now; None: nothing.
        changes: from the base to what is there; None: the base is not there to compare with.
    """
    if theirs is None:
        happened = f"NOT DONE: {path} is gone; you started from version {base}."
        if tool == "memory_delete":
            return happened, [], "Nothing is left to delete."
        return happened, [], f"If it should be there again, call {tool} with version=0."
    now = f"NOT DONE: {path} is at version {theirs.version}, {by_whom(theirs)}"
    if base == 0:
        return f"{now}; your call names no version of it.", [], _advice(tool, theirs)
    if changes is None:
        happened = f"{now}; version {base}, which you started from, is not kept."
        return happened, [], _advice(tool, theirs)
    happened = f"{now}; you started from version {base}. Changed since:"
    return happened, changed_lines(changes) or ["  nothing"], _advice(tool, theirs)


def _advice(tool: str, theirs: Entry[Any]) -> str:
    version = theirs.version
    if tool == "memory_delete":
        return f"If it should still go, call memory_delete with version={version}."
    if tool == "memory_patch":
        return f"If your patch is still right, call memory_patch with version={version}."
    who = theirs.agent or "others"
    return (
        f"Decide what to keep of both, then call memory_write with version={version} and a value "
        f"that has the changes by {who} and yours."
    )
