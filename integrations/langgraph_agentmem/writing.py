"""Writing items, with what is kept beside them: further texts, and how long they live."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from langgraph.store.base import PutOp

from agentmem import ConflictError, Entry, KeyMissingError, Store, Transaction
from langgraph_agentmem.seen import Place
from langgraph_agentmem.texts import FIELDS, Index, field_key

__all__ = ["TTL", "Writer", "cite", "prune", "refresh", "refresh_in", "text_of"]

TTL: Final = "langgraph.ttl"
"""The root of the hidden namespace where an item's time to live is kept, in minutes.

An entry knows when it expires, which moves at each read; the item of the same revision here says
how far. As with further texts, another revision says nothing.
"""

_SECONDS: Final = 60
_REFRESH_ATTEMPTS: Final = 5
_SWEPT: Final = "swept what was kept beside items"
_PAGE: Final = 500


def text_of(index: Index | None, op: PutOp) -> tuple[str | bool | None, list[tuple[str, str]]]:
    """What search sees of an item, and its further texts.

    Without an index, agentmem finds items by the words in them; LangGraph does not look.
    """
    if index is None:
        return None, []
    texts = index.texts(op)
    return (texts[0][1] if texts else False), texts[1:]


class Writer:
    """Puts and deletes items in a transaction."""

    def __init__(self, tx: Transaction, index: Index | None) -> None:
        self._tx = tx
        self._index = index

    def write(self, op: PutOp, **base: Any) -> None:
        """Puts an item, or deletes it.

        Args:
            base: ``expected_version`` or ``overwrite``; without it, what the transaction sees.
        """
        namespace, key = op.namespace, str(op.key)
        if op.value is None:
            self._tx.delete(key, namespace=namespace, **base)
            self._drop_fields(namespace, key)
            return
        text, further = text_of(self._index, op)
        ttl_s = None if op.ttl is None else op.ttl * _SECONDS
        self._tx.put(key, dict(op.value), namespace=namespace, text=text, ttl_s=ttl_s, **base)
        if op.ttl is not None:
            self._tx.put(key, op.ttl, namespace=(TTL, *namespace), text=False, overwrite=True)
        if further:
            self._drop_fields(namespace, key)
        for number, (field, each) in enumerate(further, 1):
            self._tx.put(
                field_key(number), {"field": field}, namespace=(FIELDS, *namespace, key),
                text=each, overwrite=True,
            )  # fmt: skip

    def _drop_fields(self, namespace: tuple[str, ...], key: str) -> None:
        """Removes texts that count no more. Nothing depends on it but the space they take."""
        if self._index is None or not self._index.many:
            return
        for entry in self._tx.list((FIELDS, *namespace, key), track=False):
            self._tx.delete(entry.key, namespace=entry.namespace, overwrite=True)


def cite(tx: Transaction, read: Iterable[tuple[Place, int]]) -> None:
    """Names what the task has read before as what the commit may come of; it is not checked."""
    for (namespace, key), version in read:
        tx.cite(key, version, namespace=namespace)


def refresh_in(tx: Transaction, touched: Iterable[tuple[Place, int | None]]) -> None:
    """Has what was read live on, when the transaction commits; what is new since is left alone."""
    for (namespace, key), revision in touched:
        kept: Entry[Any] | None = tx.get(key, namespace=(TTL, *namespace), track=False)
        if kept is None or kept.revision != revision:
            continue
        entry: Entry[Any] | None = tx.get(key, namespace=namespace, track=False)
        if entry is not None and entry.revision == revision:
            tx.touch(key, kept.value * _SECONDS, namespace=namespace)


def refresh(store: Store, touched: Iterable[tuple[Place, int | None]], **commit: Any) -> None:
    """Has what was read live on, from now."""
    for _attempt in range(_REFRESH_ATTEMPTS):
        with suppress(ConflictError, KeyMissingError):
            with store.transaction(**commit) as tx:
                refresh_in(tx, touched)
            return


def prune(store: Store) -> int:
    """Removes what is kept beside items that are gone, or were written anew since.

    Returns: how many entries.
    """
    removed = 0
    for root in (FIELDS, TTL):
        after: Entry[Any] | None = None
        while page := store.list(root, limit=_PAGE, after=after):
            after = page[-1]
            # What is written anew meanwhile conflicts, and is looked at by the next sweep.
            with suppress(ConflictError), store.transaction(note=_SWEPT) as tx:
                gone = [entry for entry in page if not _counts(tx, entry)]
                for entry in gone:
                    tx.delete(entry.key, namespace=entry.namespace, merge=False)
                tx.commit()
                removed += len(gone)
    return removed


def _counts(tx: Transaction, beside: Entry[Any]) -> bool:
    namespace, key = _item_of(beside)
    item: Entry[Any] | None = tx.get(key, namespace=namespace)
    return item is not None and item.revision == beside.revision


def _item_of(entry: Entry[Any]) -> Place:
    root, *labels = entry.namespace
    if root == TTL:
        return tuple(labels), entry.key
    *namespace, key = labels
    return tuple(namespace), key
