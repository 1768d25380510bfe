"""``store.admin``: statistics and verification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentmem.core import Core
from agentmem.history.verify import Report, verify
from agentmem.model import to_datetime

__all__ = ["Admin"]


class Admin:
    """Looks after a whole store. Made by `Store.admin`."""

    __module__ = "agentmem"

    def __init__(self, core: Core) -> None:
        self._core = core

    def stats(self) -> dict[str, Any]:
        """Sizes and numbers of a store, as JSON values.

        ``engine``, ``location``, ``durability``, ``store_id``, ``revision``, ``committed_at``
        (ISO 8601, None for an empty store), ``floor``, ``commits``, ``entries``, ``keys`` (deleted
        ones included), ``conflicts``, ``open_conflicts``, ``database_bytes``, ``wal_bytes``.
        """
        self._core.check_open()
        engine = self._core.engine
        position = engine.position()
        committed_at = to_datetime(position.committed_at).isoformat() if position.revision else None
        return {
            **engine.describe(),
            "store_id": engine.store_id,
            "revision": position.revision,
            "committed_at": committed_at,
            **engine.counts(),
        }

    def verify(self, *, progress: Callable[[int, int], None] | None = None) -> Report:
        """Reads the whole log and proves that it is whole and that what is derived agrees.

        Checked: the hash chain, revisions and versions without a gap, digests of all values,
        operation ids applied once, heads, and the database's own integrity.

        Args:
            progress: called with (revisions read, latest revision) from time to time.
        """
        self._core.check_open()
        return verify(self._core.engine, progress)
