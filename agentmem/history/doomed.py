"""What a purge erases, as a part of the key space."""

from __future__ import annotations

from dataclasses import dataclass

from agentmem.engines.rows import (
    Place,
)

__all__ = ["Doomed"]


@dataclass(frozen=True, slots=True)
class Doomed:
    """What is purged: a key, or (without one) a namespace and all below it; encoded."""

    namespace: str
    key: str | None

    def holds(self, place: Place) -> bool:
        """Whether a place is part of it."""
        if self.key is not None:
            return place == (self.namespace, self.key)
        return place[0].startswith(self.namespace)

    def overlaps(self, namespace: str) -> bool:
        """Whether it shares keys with a namespace and all below it."""
        return self.namespace.startswith(namespace) or (
            self.key is None and namespace.startswith(self.namespace)
        )
