"""In which part of the help text a command stands."""

from __future__ import annotations

from typing import Final

__all__ = ["OTHER", "order_of", "panel_of"]

OTHER: Final = "Other"
_PANELS: Final = {
    "Memory": (
        "init", "get", "put", "delete", "list", "count", "increment", "append", "search", "watch",
    ),
    "History": (
        "log", "history", "show", "tag", "tags", "untag", "revert", "revert-commit", "undo",
    ),
    "Explain": (
        "diff", "blame", "why", "lineage", "derived", "revert-derived", "races", "conflicts",
        "resolve", "merge",
    ),
    "Coordination": (
        "lease", "leases", "queue", "queues", "tasks", "consumers", "cursors", "once", "outcomes",
    ),
    "Maintenance": (
        "stats", "verify", "index", "reindex", "compact", "purge", "purges", "backup", "export",
        "import", "copy", "migrate", "completions", "demo",
    ),
}  # fmt: skip
_OF: Final = {name: panel for panel, names in _PANELS.items() for name in names}


def panel_of(command: str) -> str:
    """The heading above a command."""
    return _OF.get(command, OTHER)


def order_of(panel: str) -> int:
    """Where a heading stands among the others."""
    return [*_PANELS, OTHER].index(panel)
