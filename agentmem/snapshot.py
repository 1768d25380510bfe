"""Snapshots: read views pinned at one revision, free to hold."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agentmem.core import Core
from agentmem.engines.base import check_floor
from agentmem.errors import (
    FutureRevisionError,
    HistoryReplacedError,
    InvalidValueError,
    RevisionError,
)
from agentmem.model import to_datetime, to_microseconds
from agentmem.scope import Scope
from agentmem.views import PinnedView

__all__ = ["Snapshot", "instant_of", "on_replica", "resolve_at"]


class Snapshot(PinnedView):
    """The store as it was at one revision and one instant.

    A snapshot is two numbers: it holds no lock and no open database transaction, costs nothing
    to keep, and sees the same in every process. What it shows never changes; once the revision
    is compacted, reads fail with `CompactedError`.

    ::

        snap = store.snapshot()  # now
        snap = store.snapshot(at=42)  # as of revision 42
        snap = store.snapshot(at="release")  # as of a tag
        snap = store.snapshot(at=moment)  # as of an aware datetime
    """

    __slots__ = ()
    __module__ = "agentmem"

    @property
    def instant(self) -> datetime:
        """What decides which entries have expired."""
        return to_datetime(self._instant)

    def __repr__(self) -> str:
        return f"Snapshot(revision={self.revision})"

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_exception: Any) -> None:
        return None


def resolve_at(core: Core, scope: Scope, at: object) -> tuple[int, int]:
    """The revision and instant of an ``at`` argument.

    Raises:
        FutureRevisionError: it lies in the future.
        CompactedError: it can no longer be read.
        RevisionError: there is no such tag.
    """
    core.check_open()
    position = core.engine.position()
    if at is None:
        return position.revision, position.now
    if isinstance(at, bool):
        raise TypeError("at is a revision, a tag, an aware datetime or None")
    if isinstance(at, int):
        revision = at
    elif isinstance(at, str):
        revision = _tagged(core, scope, at)
    elif isinstance(at, datetime):
        return _at_time(core, at)
    else:
        raise TypeError("at is a revision, a tag, an aware datetime or None")
    if revision < 0:
        raise RevisionError(f"revision {revision} is negative; 0 is the empty store")
    if revision > position.revision:
        raise FutureRevisionError(
            f"revision {revision} is not there yet; the latest is {position.revision}",
            current=position.revision,
        )
    found = core.engine.position_at(revision)
    _check_readable(core, revision)
    return revision, found.committed_at if found is not None else 0


def on_replica(core: Core, scope: Scope, at: object) -> Snapshot:
    """A snapshot whose reads go to the replica, if that has what it is of.

    What `at` means is asked of the store's own server. Without it, it is the newest revision that
    both have: a replica that the server waits for can be ahead of what others see there.

    Raises:
        InvalidValueError: the store was opened without a replica.
        FutureRevisionError: the replica is not there yet.
        HistoryReplacedError: it repeats another history.
    """
    core.check_open()
    if core.replica is None:
        raise InvalidValueError(
            "this store was opened without a replica; agentmem.open(..., replica='postgresql://"
            "...') names one"
        )
    revision, instant = resolve_at(core, scope, at)
    if at is None:
        revision = min(revision, core.replica.revision())
    commit = core.engine.position_at(revision)
    if commit is None:
        raise HistoryReplacedError(f"revision {revision} is gone; was the server replaced?")
    if not isinstance(at, datetime):
        # No later: of the touches after its last commit the replica may not know all.
        instant = commit.committed_at
    pinned = core.replica.pinned(core.engine.store_id, commit, instant)
    return Snapshot(core.on(pinned), scope, revision, instant)


def _tagged(core: Core, scope: Scope, name: str) -> int:
    for tag in core.engine.tags(scope.name):
        if tag.name == name:
            return tag.revision
    raise RevisionError(f"there is no tag {name!r}; store.audit.tags() lists them")


def instant_of(moment: datetime) -> int:
    """An aware datetime in microseconds.

    Raises:
        InvalidValueError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise InvalidValueError(
            f"{moment!r} has no time zone; give an aware datetime, for example "
            "datetime(2026, 1, 31, tzinfo=UTC)"
        )
    return to_microseconds(moment)


def _at_time(core: Core, moment: datetime) -> tuple[int, int]:
    instant = instant_of(moment)
    position = core.engine.position()
    if instant > position.now:
        raise FutureRevisionError(
            f"{moment.isoformat()} lies in the future", current=position.revision
        )
    revision = core.engine.revision_at(instant)
    _check_readable(core, revision)
    return revision, instant


def _check_readable(core: Core, revision: int) -> None:
    check_floor(revision, core.engine.floor())
