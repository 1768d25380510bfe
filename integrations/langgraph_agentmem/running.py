"""The transaction that the code at hand runs in, if a node does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from agentmem import InvalidValueError, Store, Transaction

__all__ = ["running_in", "running_transaction"]

_running: Final[ContextVar[tuple[tuple[Store, Transaction], ...]]] = ContextVar(
    "running", default=()
)


@contextmanager
def running_in(store: Store, tx: Transaction) -> Iterator[None]:
    """What uses the store in this context goes through the transaction."""
    token = _running.set(((store, tx), *_running.get()))
    try:
        yield
    finally:
        _running.reset(token)


def running_transaction(store: Store) -> Transaction | None:
    """The transaction on that store that runs here; None without one.

    Raises:
        InvalidValueError: it runs on the same store, but was begun in another view of it, or
            by another opening: what is written here would not be part of it.
    """
    for other, tx in _running.get():
        if other._core.engine.store_id != store._core.engine.store_id:
            continue
        one, two = other._scope, store._scope
        same_view = (one.prefix, one.access, one.rules) == (two.prefix, two.access, two.rules)
        if other._core is store._core and same_view:
            return tx
        raise InvalidValueError(
            "the node runs in a transaction on another view of this store; give "
            "transactional_node the same AgentMemStore, or agentmem.Store, that the graph has"
        )
    return None
