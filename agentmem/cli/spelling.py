"""How names and times are spelled for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from agentmem.model import Change, Commit, display_key

__all__ = ["changes_text", "namespace_text", "second"]


def namespace_text(labels: tuple[str, ...]) -> str | None:
    """A namespace as ``--namespace`` takes it; None is the root."""
    if not labels:
        return None
    plain = "/".join(labels)
    ambiguous = plain.startswith("[") or plain.count("/") != len(labels) - 1
    return json.dumps(labels, ensure_ascii=False) if ambiguous else plain


def second(moment: datetime | None) -> str | None:
    """A time to the second, in UTC."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def changes_text(commit: Commit) -> str | None:
    """What a commit did, in a few words; None if it wrote nothing."""
    return ", ".join(_change_text(change) for change in commit.changes) or None


def _change_text(change: Change) -> str:
    name = display_key(change.namespace, change.key)
    merged = f" (merged: {change.merged})" if change.merged is not None else ""
    return f"{change.operation} {name}@{change.version}{merged}"
