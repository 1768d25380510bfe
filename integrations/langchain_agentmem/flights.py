"""Who asks a model for what: one call at a time for one prompt, in all processes.

A lookup that misses takes a claim, a lease of the store; the update that follows gives it back. A
cache is never told that the call between them has failed, so a claim ends, too,

* when the thread or the task that took it has ended: its call has, then;
* when its process gives no sign of life any more;
* after `hold_s`, whatever its call does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from agentmem import AgentMemError, Lease, LeaseError, Store
from agentmem.coordination.heartbeat import Heartbeat

__all__ = ["Flights", "Owner", "current_owner"]

Owner = threading.Thread | asyncio.Task[Any]

_SILENT_S: Final = 6.0  # a process that is silent for so long counts as dead
_BEATS: Final = 3  # within that time
_log = logging.getLogger("agentmem")


def current_owner() -> Owner:
    """The task that asks, or, outside of a coroutine, the thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task if task is not None else threading.current_thread()


def _has_ended(owner: Owner) -> bool:
    return owner.done() if isinstance(owner, asyncio.Task) else not owner.is_alive()


@dataclass(slots=True, eq=False)
class _Claim:
    """One call that is under way.

    Attributes:
        until: a moment of ``time.monotonic`` after which it is kept no longer.
    """

    lease: Lease
    owner: Owner
    until: float
    heartbeat: Heartbeat | None = None


class Flights:
    """The claims of one cache object."""

    def __init__(self, store: Store, hold_s: float, agent: str | None) -> None:
        self._store = store
        self._hold_s = hold_s
        self._silent_s = min(_SILENT_S, hold_s)
        self._agent = agent
        self._claims: dict[str, _Claim] = {}
        self._lock = threading.Lock()  # protects the claims

    def begin(self, name: str, owner: Owner) -> bool:
        """Whether the owner is to ask the model now.

        True if it has the claim by now; if it had it before, because it tries again; and if it has
        another claim: it does not wait then, since others may wait for it.
        """
        with self._lock:
            claim = self._claims.get(name)
            if claim is not None and claim.owner is owner:
                claim.until = time.monotonic() + self._hold_s
                return True
            may_wait = all(each.owner is not owner for each in self._claims.values())
        lease = self._store.lease(name, ttl_s=self._silent_s, agent=self._agent)
        try:
            lease.acquire()
        except LeaseError:
            return not may_wait
        self._keep(name, _Claim(lease, owner, time.monotonic() + self._hold_s))
        return True

    def _keep(self, name: str, claim: _Claim) -> None:
        def beat() -> None:
            if _has_ended(claim.owner) or time.monotonic() >= claim.until:
                _log.info("%r was claimed, and no answer has come", name)
                self._drop(name, claim)
            else:
                claim.lease.renew()

        every_s = self._silent_s / _BEATS
        claim.heartbeat = Heartbeat(beat, every_s, f"the claim of {name!r}")
        with self._lock:
            earlier, self._claims[name] = self._claims.get(name), claim
        if earlier is not None and earlier.heartbeat is not None:
            # Its lease was lost, or ours would not have been to be had.
            earlier.heartbeat.stop()

    def end(self, name: str) -> None:
        """Gives a claim back, if this object has it."""
        with self._lock:
            claim = self._claims.get(name)
        if claim is not None:
            self._drop(name, claim)

    def end_all(self) -> None:
        """Gives back all claims."""
        with self._lock:
            names = list(self._claims)
        for name in names:
            self.end(name)

    def _drop(self, name: str, claim: _Claim) -> None:
        with self._lock:
            if self._claims.get(name) is claim:
                del self._claims[name]
        if claim.heartbeat is not None:
            claim.heartbeat.stop()
        try:
            claim.lease.release()
        except AgentMemError:
            # It runs out by itself, a little later.
            _log.info("the claim of %r could not be given back", name, exc_info=True)
