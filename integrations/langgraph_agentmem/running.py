"""The transaction that the code at hand runs in, if a node does.

Parallel tools of one node share its transaction. What each has read is noted there as well, so
that one cannot take over unseen what another has just written in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Final

from langchain_core.runnables.config import var_child_runnable_config

from agentmem import Conflict, ConflictError, InvalidValueError, Store, Transaction
from agentmem.adapting import is_same_view
from langgraph_agentmem.seen import Caller, Place, SeenVersions

__all__ = ["Running", "is_outside", "running_in", "running_transaction"]

_SHARED: Final = ("transaction", 1)


class Running:
    """A transaction that a node runs in.

    Attributes:
        tx: the transaction.
    """

    def __init__(self, store: Store, tx: Transaction) -> None:
        self.store = store
        self.tx = tx
        self._seen = SeenVersions()
        self._writes: dict[Place, int] = {}  # how often each key was written in it
        self._lock = threading.Lock()  # protects _writes, and orders writes after what they check

    def read(self, caller: Caller, places: Iterable[Place]) -> None:
        """Notes what one of its flows has read."""
        with self._lock:
            found = [(place, self._writes.get(place, 0)) for place in places]
            self._seen.note(self._in_it(caller), found)

    def write(self, caller: Caller, place: Place, put: Callable[[], None]) -> None:
        """Writes, unless another flow of the transaction has since this one has read the key.

        Raises:
            ConflictError: it has.
        """
        within = self._in_it(caller)
        with self._lock:
            written = self._writes.get(place, 0)
            base = self._seen.base(within, place)
            if base is not None and base != written:
                name = "/".join((*place[0], place[1]))
                raise ConflictError(
                    f"{name!r} was written by another tool of the same node since this one has "
                    "read it; run tools that change the same item one after the other",
                    conflicts=[Conflict(*place, base=None, theirs=None, ours=None)],
                )
            put()
            self._writes[place] = written + 1
            self._seen.note(within, [(place, written + 1)], written=True)

    def _in_it(self, caller: Caller) -> Caller:
        return replace(caller, attempt=_SHARED)


_running: Final[ContextVar[tuple[Running, ...]]] = ContextVar("running", default=())


@contextmanager
def running_in(store: Store, tx: Transaction) -> Iterator[None]:
    """What uses the store in this context goes through the transaction."""
    token = _running.set((Running(store, tx), *_running.get()))
    try:
        yield
    finally:
        _running.reset(token)


def is_outside() -> bool:
    """Whether the code at hand runs in no graph, and in no transaction of a node."""
    return var_child_runnable_config.get() is None and not _running.get()


def running_transaction(store: Store) -> Running | None:
    """The transaction on that store that runs here; None without one.

    Raises:
        InvalidValueError: it runs on the same store, but was begun in another view of it, or
            by another opening: what is written here would not be part of it.
    """
    for running in _running.get():
        other = running.store
        if other.store_id != store.store_id:
            continue
        if is_same_view(other, store):
            return running
        raise InvalidValueError(
            "the node runs in a transaction on another view of this store; give "
            "transactional_node the same AgentMemStore, or agentmem.Store, that the graph has"
        )
    return None
