"""Items out of a view of agentmem: the reading operations of LangGraph's stores."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    SearchItem,
    SearchOp,
)

from agentmem import Entry, Hit, Transaction
from agentmem.filters import Filter
from agentmem.views import View
from langgraph_agentmem.filtering import where_of
from langgraph_agentmem.seen import Place
from langgraph_agentmem.texts import FIELDS, Index

__all__ = ["Reader", "check_writable", "is_addressable"]

_RESERVED: Final = "langgraph"
_MORE: Final = 16  # hits of a page beyond those asked for: some are of the same item
_LARGEST_PAGE: Final = 1_000


def is_addressable(namespace: Sequence[str]) -> bool:
    """Whether LangGraph has a name for a namespace; what lies elsewhere it does not see."""
    return (
        len(namespace) > 0
        and namespace[0] != _RESERVED
        and not any("." in label for label in namespace)
    )


@dataclass(slots=True)
class Reader:
    """Answers reading operations from one view.

    Attributes:
        view: where it reads.
        index: what is embedded; None: queries are ignored, as by LangGraph's stores.
        seen: what was returned, with its version; 0: it was absent.
        touched: what was returned and is to live on, with its revision.
    """

    view: View
    index: Index | None = None
    seen: list[tuple[Place, int]] = field(default_factory=list)
    touched: list[tuple[Place, int | None]] = field(default_factory=list)

    def get(self, op: GetOp) -> Item | None:
        """One item."""
        place = (op.namespace, str(op.key))
        if not is_addressable(op.namespace):
            return None
        entry: Entry[Any] | None = self.view.get(place[1], namespace=op.namespace)
        if entry is None:
            self.seen.append((place, 0))
            return None
        self._note(entry, refresh=op.refresh_ttl)
        created, updated = _times(entry)
        return Item(
            value=entry.value,
            key=place[1],
            namespace=op.namespace,
            created_at=created,
            updated_at=updated,
        )

    def search(self, op: SearchOp) -> list[SearchItem]:
        """Items of a namespace and below it: the nearest, or the newest without a query."""
        where = where_of(op.filter)
        if op.query and self.index is not None:
            found: Iterable[tuple[float | None, Entry[Any]]] = self._nearest(
                op, where, self.index.query(op.query)
            )
        else:
            found = ((None, entry) for entry in self._newest(op, where))
        items: list[SearchItem] = []
        for score, entry in found:
            self._note(entry, refresh=op.refresh_ttl)
            items.append(_search_item(entry, score))
        return items

    def namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        """Namespaces that hold items, in order of their labels."""
        conditions = op.match_conditions or ()
        found = {
            namespace[: op.max_depth]
            for namespace in self.view.namespaces(_common_root(conditions))
            if is_addressable(namespace) and all(_matches(each, namespace) for each in conditions)
        }
        return sorted(found)[op.offset : op.offset + op.limit]

    def _note(self, entry: Entry[Any], *, refresh: bool) -> None:
        place = (entry.namespace, entry.key)
        self.seen.append((place, entry.version or 0))
        if refresh and entry.expires_at is not None:
            self.touched.append((place, entry.revision))

    def _newest(self, op: SearchOp, where: object) -> list[Entry[Any]]:
        entries = [
            entry
            for root in self._roots(op.namespace_prefix)
            for entry in self.view.list(root, where=where)
            if is_addressable(entry.namespace)
        ]
        # Own writes of a transaction come first; of one commit, the order of the keys stays.
        entries.sort(key=lambda entry: (entry.revision is not None, -(entry.revision or 0)))
        return entries[op.offset : op.offset + op.limit]

    def _roots(self, prefix: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Where to look: not at all checkpoints of a store, only to leave them out.

        A transaction looks at everything, so that a new namespace conflicts with what it saw.
        """
        if prefix or isinstance(self.view, Transaction):
            return [prefix]
        return [root for root in self.view.namespaces(depth=1) if is_addressable(root)]

    def _nearest(
        self, op: SearchOp, where: dict[str, Any] | None, vector: Any
    ) -> list[tuple[float, Entry[Any]]]:
        """The items whose nearest text is nearest, by the cosine of that text."""
        wanted = op.offset + op.limit
        size = min(wanted + _MORE, _LARGEST_PAGE)
        prefix = op.namespace_prefix
        streams = (
            self._items(self._hits(vector, prefix, where, size)),
            self._items_of_fields(self._hits(vector, (FIELDS, *prefix), None, size), where),
        )
        found: dict[Place, tuple[float, Entry[Any]]] = {}
        for score, entry in heapq.merge(*streams, key=_nearest_first):
            found.setdefault((entry.namespace, entry.key), (score, entry))
            if len(found) >= wanted:
                break
        return list(found.values())[op.offset : wanted]

    def _hits(
        self, vector: Any, namespace: Sequence[str], where: object, size: int
    ) -> Iterator[Hit]:
        """All entries with a vector, nearest first; a page at a time, as they are asked for."""
        for offset in range(0, 1 << 62, size):
            page = self.view.search(
                vector, namespace=tuple(namespace), k=size, offset=offset, mode="vector",
                where=where,
            )  # fmt: skip
            yield from page
            if len(page) < size:
                return

    def _items(self, hits: Iterator[Hit]) -> Iterator[tuple[float, Entry[Any]]]:
        for hit in hits:
            if is_addressable(hit.entry.namespace):
                yield hit.score, hit.entry

    def _items_of_fields(
        self, hits: Iterator[Hit], where: dict[str, Any] | None
    ) -> Iterator[tuple[float, Entry[Any]]]:
        """The items that further texts belong to, if they are still of that revision."""
        passes = Filter.parse(where)
        for hit in hits:
            *namespace, key = hit.entry.namespace[1:]
            entry: Entry[Any] | None = self.view.get(key, namespace=tuple(namespace))
            if entry is None or entry.revision != hit.entry.revision:
                continue
            if passes is None or passes.matches(entry.value):
                yield hit.score, entry


def _nearest_first(scored: tuple[float, Entry[Any]]) -> tuple[float, tuple[str, ...], str]:
    score, entry = scored
    return -score, entry.namespace, entry.key


def _times(entry: Entry[Any]) -> tuple[datetime, datetime]:
    """When it was first and last written; a write of a running transaction: now."""
    if entry.created_at is None or entry.committed_at is None:
        now = datetime.now(UTC)
        return now, now
    return entry.created_at, entry.committed_at


def _search_item(entry: Entry[Any], score: float | None) -> SearchItem:
    created, updated = _times(entry)
    return SearchItem(
        namespace=entry.namespace,
        key=entry.key,
        value=entry.value,
        created_at=created,
        updated_at=updated,
        score=score,
    )


def _common_root(conditions: Sequence[MatchCondition]) -> tuple[str, ...]:
    """Labels that every namespace that fits begins with: fewer namespaces to look at."""
    for condition in conditions:
        if condition.match_type == "prefix":
            labels = tuple(condition.path)
            return labels[: labels.index("*")] if "*" in labels else labels
    return ()


def _matches(condition: MatchCondition, namespace: Sequence[str]) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    if condition.match_type == "prefix":
        part = namespace[: len(path)]
    elif condition.match_type == "suffix":
        part = namespace[len(namespace) - len(path) :]
    else:
        raise ValueError(f"match_type is 'prefix' or 'suffix', not {condition.match_type!r}")
    return all(wanted in ("*", label) for wanted, label in zip(path, part, strict=True))


def check_writable(namespace: tuple[str, ...]) -> None:
    """Raises `InvalidNamespaceError` where LangGraph's stores keep nothing."""
    if not namespace:
        raise InvalidNamespaceError("Namespace cannot be empty.")
    if not is_addressable(namespace):
        raise InvalidNamespaceError(
            f"the root label {_RESERVED!r} is LangGraph's own; choose another one: {namespace}"
        )
