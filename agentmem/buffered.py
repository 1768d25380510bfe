"""Buffering: what a transaction has read and written so far, and how it reads its own writes."""

from __future__ import annotations

import threading
from abc import abstractmethod
from builtins import list as List  # noqa: N812  # the method list() hides the type in the class
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agentmem import writes
from agentmem.core import Core
from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
)
from agentmem.errors import AccessDeniedError
from agentmem.judge import check_writes
from agentmem.model import Entry, Hit, display_key
from agentmem.namespaces import Labels, encode
from agentmem.operations import PUT, apply_step, start_of
from agentmem.provenance import CONTEXT
from agentmem.records import entry_of, text_of
from agentmem.request import SNAPSHOT, Scan, Touch, Write
from agentmem.scope import Scope, missing
from agentmem.search.query import SearchQuery
from agentmem.values import canonical, dump, load
from agentmem.views import PinnedView, Query

if TYPE_CHECKING:
    from agentmem.search.finder import Found

__all__ = ["BufferedView"]


class BufferedView(PinnedView):
    """A pinned view with own writes over it, that keeps what it has read.

    May be used from several threads: parallel tool calls share a transaction.
    """

    __slots__ = (
        "_agent",
        "_context",
        "_lock",
        "_op_id",
        "_reads",
        "_scans",
        "_touches",
        "_unchecked",
        "_vectors",
        "_writes",
    )

    def __init__(
        self,
        core: Core,
        scope: Scope,
        revision: int,
        instant: int,
        agent: str | None,
        op_id: str | None,
    ) -> None:
        super().__init__(core, scope, revision, instant)
        self._agent = agent
        self._op_id = op_id
        self._lock = threading.RLock()  # protects all that follows
        self._reads: dict[Place, int] = {}
        self._scans: List[Scan] = []
        self._unchecked: List[Scan] = []
        self._context: List[tuple[int, Place, int]] = []  # seen, but not judged; `Request.cited`
        self._writes: dict[Place, Write] = {}
        self._touches: dict[Place, Touch] = {}
        self._vectors: dict[str, bytes] = {}  # made so far, by what they were made of

    @abstractmethod
    def _check_live(self) -> None:
        """Raises `ClosedError` after the end."""

    # Reading.

    def _point(self, place: Place, *, track: bool) -> Entry[Any] | None:
        with self._lock:
            self._check_live()
            write = self._writes.get(place)
            if write is not None and not write.steps:
                return self._pending(place, write, None)
            row = self._row(place)
            version = row.version if row is not None else 0
            if track:
                self._reads.setdefault(place, version)
            elif version:
                self._context.append((CONTEXT, place, version))
            if write is not None:
                return self._pending(place, write, row)
            return entry_of(row, self._scope) if row is not None else None

    def _points(self, places: List[Place], *, track: bool) -> List[Entry[Any]]:
        with self._lock:
            entries = (self._point(place, track=track) for place in places)
            return [entry for entry in entries if entry is not None]

    def _pending(self, place: Place, write: Write, row: EntryRow | None) -> Entry[Any] | None:
        """An own write as an entry; None if it deletes the key."""
        value = self._own_value(place, write, row)
        if value is None:
            return None
        plain = load(value)
        return Entry(
            self._scope.relative(place[0]),
            place[1],
            None,
            None,
            plain,
            text_of(write.text, plain, self._core.limits),
            self._agent,
            self._op_id,
            pending=True,
        )

    def _own_value(self, place: Place, write: Write, row: EntryRow | None) -> str | None:
        if not write.steps:
            return write.value
        value = load(row.value or "null") if row is not None else start_of(write.steps[0][0])
        for operation, operand in write.steps:
            value = apply_step(operation, operand, value, place[1])
        return dump(value, self._core.limits)

    def _scan(self, query: Query) -> List[Entry[Any]]:
        with self._lock:
            self._check_live()
            if query.limit == 0:
                return []
            own = self._own_in(query)
            found: List[Entry[Any]] = []
            seen: dict[Place, int] = {}
            ids: dict[Place, int] = {}
            upto: Place | None = None
            labels = self._inside(query.labels)
            view = (self.revision, self._instant)
            rows = self._core.iterate(
                self._scope, labels, view, query.key_prefix, query.after, query.likely_rows
            )
            for place, row, entry in self._merged(rows, own, query):
                if row is not None:
                    seen[place] = row.version
                    ids[place] = row.id
                if entry is not None:
                    found.append(entry)
                    if len(found) == query.limit:
                        upto = place
                        break
            scan = self._scan_of(query, seen, ids, upto)
            (self._scans if query.track else self._unchecked).append(scan)
            return found

    def _search(self, query: SearchQuery) -> List[Hit]:
        with self._lock:
            self._check_live()
            found = self._found(query)
            return found.answer.hits(query, self._scope)

    def _found(self, query: SearchQuery) -> Found:
        """A search over what is there and what was written, noted for the commit."""
        # Imported here: most transactions never search, and do without NumPy.
        from agentmem.search.scan import scan_of

        searcher = self._core.searcher
        within = Range(encode(query.labels))
        own: dict[Place, tuple[Entry[Any] | None, bytes | None]] = {}
        for place, write in self._writes.items():
            if not place[0].startswith(within.namespace):
                continue
            row = self._row(place) if write.steps else None
            if write.steps and query.track:
                self._reads.setdefault(place, row.version if row is not None else 0)
            entry = self._pending(place, write, row)
            own[place] = (entry, searcher.vector_of(place, write, entry, self._vectors))
        view = (self._revision, self._instant)
        reading = self._core.engine.reading()
        found = searcher.search(self._scope, query, view, reading, own, self._vectors)
        scan = scan_of(found, within, self._scope.readable(query.labels))
        (self._scans if query.track else self._unchecked).append(scan)
        return found

    # A transaction observes what it counts, and counts what it has written.

    def _count(self, query: Query) -> int:
        return len(self._scan(query))

    def _namespaces(self, query: Query) -> Iterator[Labels]:
        return (entry.namespace for entry in self._scan(query))

    def _own_in(self, query: Query) -> List[tuple[Place, Write]]:
        """The own writes in the range of a query, in order."""
        allowed = self._scope.readable(query.labels)
        scan = Scan(
            Range(encode(query.labels), query.key_prefix, query.after),
            None,
            allowed,
            {},
            presence=False,
            asked="",
        )
        return sorted(
            ((place, write) for place, write in self._writes.items() if scan.covers(place)),
            key=lambda item: item[0],
        )

    def _merged(
        self, rows: Iterator[EntryRow], own: List[tuple[Place, Write]], query: Query
    ) -> Iterator[tuple[Place, EntryRow | None, Entry[Any] | None]]:
        """(place, row if it matches, entry if it matches) in order; own writes hide rows."""
        waiting = dict(own)
        order = [place for place, _write in own]
        for row in rows:
            place = (row.namespace, row.key)
            while order and order[0] < place:
                mine = order.pop(0)
                yield mine, None, self._matching(mine, waiting[mine], None, query)
            entry = entry_of(row, self._scope)
            matches = query.filter is None or query.filter.matches(entry.value)
            if order and order[0] == place:
                order.pop(0)
                mine_entry = self._matching(place, waiting[place], row, query)
                yield place, row if matches else None, mine_entry
            elif matches:
                yield place, row, entry
        for mine in order:
            yield mine, None, self._matching(mine, waiting[mine], None, query)

    def _matching(
        self, place: Place, write: Write, row: EntryRow | None, query: Query
    ) -> Entry[Any] | None:
        if write.steps and query.track:
            # What it shows builds on what is there, as for a get beside an atomic operation.
            self._reads.setdefault(place, row.version if row is not None else 0)
        entry = self._pending(place, write, row)
        if entry is None or query.filter is None or query.filter.matches(entry.value):
            return entry
        return None

    def _scan_of(
        self, query: Query, seen: dict[Place, int], ids: dict[Place, int], upto: Place | None
    ) -> Scan:
        asked = {
            "key_prefix": query.key_prefix or None,
            "where": query.filter.source if query.filter is not None else None,
            "limit": query.limit,
            "presence": query.presence or None,  # only which keys there are was looked at
            "after": query.after is not None or None,
            "rules": bool(self._scope.rules) or None,  # what the view may not see was left out
        }
        return Scan(
            Range(encode(query.labels), query.key_prefix, query.after, upto),
            query.filter,
            self._scope.readable(query.labels),
            seen,
            query.presence,
            canonical({name: value for name, value in asked.items() if value is not None}).decode(),
            ids,
        )

    # Writing.

    def __setitem__(self, key: str, value: object) -> None:
        """As ``put(key, value)`` in the view's root."""
        self.put(key, value)

    def put(
        self,
        key: str,
        value: object,
        *,
        namespace: object = None,
        expected_version: int | None = None,
        merge: bool = True,
        overwrite: bool = False,
        text: str | bool | None = None,
        vector: object = None,
        embed: str = "now",
        ttl_s: float | None = None,
    ) -> None:
        """Sets a key when the transaction commits. Arguments as `Store.put`.

        Its base is the version visible at the transaction's revision, read or not, unless
        ``expected_version`` names another, or ``overwrite`` says that none is wanted.
        """
        base = writes.base_of(expected_version, overwrite=overwrite, otherwise=SNAPSHOT)
        write = writes.put(
            value, base=base, merge=merge, text=text, ttl_s=ttl_s, limits=self._core.limits,
            vector=vector, embed=embed,
        )  # fmt: skip
        self._buffer(namespace, key, write, "append", explicit=base != SNAPSHOT)

    def put_many(
        self,
        items: object,
        *,
        namespace: object = None,
        merge: bool = True,
        ttl_s: float | None = None,
    ) -> None:
        """Sets many keys: a mapping of keys to values, or (key, value) pairs."""
        checked = [
            (
                key,
                writes.put(
                    value, base=SNAPSHOT, merge=merge, text=None, ttl_s=ttl_s,
                    limits=self._core.limits,
                ),
            )
            for key, value in writes.pairs(items)
        ]  # fmt: skip
        places = [self._scope.place(namespace, key) for key, _write in checked]
        for place in places:
            self._scope.check(place, "append")
        for key, write in checked:
            self._buffer(namespace, key, write, "append")

    def add(
        self,
        value: object,
        *,
        namespace: object = None,
        similar: float | None = None,
        text: str | bool | None = None,
        vector: object = None,
        embed: str = "now",
        ttl_s: float | None = None,
    ) -> str:
        """Puts a value under a new, time-ordered key, and returns the key.

        With ``similar``, and an entry there whose vector is at least so near, it returns that
        one's key, and writes nothing; see `Store.add`.
        """
        if similar is not None:
            place, _version = self.add_similar(
                value, namespace, writes.similarity(similar),
                text=text, vector=vector, embed=embed, ttl_s=ttl_s,
            )  # fmt: skip
            return place[1]
        key = writes.new_key()
        write = writes.put(
            value, base=0, merge=False, text=text, ttl_s=ttl_s, limits=self._core.limits,
            vector=vector, embed=embed,
        )  # fmt: skip
        self._buffer(namespace, key, write, "append", explicit=True)
        return key

    def add_similar(
        self,
        value: object,
        namespace: object,
        similar: float,
        *,
        text: str | bool | None,
        vector: object,
        embed: str,
        ttl_s: float | None,
    ) -> tuple[Place, int]:
        """For `add`: where the value, or one like it, is, and its version; 1 if it is new."""
        write = writes.put(
            value, base=0, merge=False, text=text, ttl_s=ttl_s, limits=self._core.limits,
            vector=vector, embed=embed,
        )  # fmt: skip
        key = writes.new_key()
        place = self._scope.place(namespace, key)
        with self._lock:
            self._check_live()
            labels = self._scope.labels(namespace)
            stored = self._core.searcher.vector_to_compare(place, write, self._vectors)
            query = SearchQuery(
                None, (), stored, labels, 1, 0, "vector", None, None, track=True, at_least=similar
            )
            for hit in self._found(query).answer.ranked:
                return hit.place, hit.row.version if hit.row is not None else 1
            self._buffer(namespace, key, write, "append", explicit=True)
            return place, 1

    def delete(
        self,
        key: str,
        *,
        namespace: object = None,
        expected_version: int | None = None,
        merge: bool = True,
        overwrite: bool = False,
    ) -> None:
        """Deletes a key when the transaction commits; of an absent key it writes nothing."""
        base = writes.base_of(expected_version, overwrite=overwrite, otherwise=SNAPSHOT)
        write = writes.deletion(base, merge=merge)
        self._buffer(namespace, key, write, "write", explicit=base != SNAPSHOT)

    def knows(self, vectors: Mapping[str, bytes]) -> None:
        """Takes vectors of texts that were embedded before, so that no attempt does it again.

        Args:
            vectors: by the text, as the embedder of the store made them.
        """
        with self._lock:
            self._vectors.update(vectors)

    def clear(self, namespace: object = None) -> None:
        """Deletes every key of a namespace and all below it; a tracked scan finds them."""
        with self._lock:
            for entry in self.list(namespace):
                self.delete(entry.key, namespace=entry.namespace)

    def increment(self, key: str, by: float = 1, *, namespace: object = None) -> None:
        """Adds to a number; an absent key starts at 0. Reads nothing, never conflicts."""
        self._buffer(namespace, key, writes.atomic("increment", by, self._core.limits), "write")

    def append(self, key: str, *items: object, namespace: object = None) -> None:
        """Appends to a list; an absent key starts at []. Reads nothing, never conflicts."""
        write = writes.atomic("append", items, self._core.limits)
        self._buffer(namespace, key, write, "append")

    def add_to_set(self, key: str, *items: object, namespace: object = None) -> None:
        """Appends those items that the list does not hold. Reads nothing, never conflicts."""
        write = writes.atomic("add_to_set", items, self._core.limits)
        self._buffer(namespace, key, write, "append")

    def patch(self, key: str, merge_patch: object, *, namespace: object = None) -> None:
        """Applies a JSON merge patch (RFC 7396); an absent key starts at {}."""
        write = writes.atomic("patch", merge_patch, self._core.limits)
        self._buffer(namespace, key, write, "write")

    def touch(self, key: str, ttl_s: float | None, *, namespace: object = None) -> None:
        """Moves the expiry of a present key, without a new version; None: never expires.

        Raises:
            KeyMissingError: the key is absent.
        """
        moved = writes.touch(ttl_s)
        place = self._scope.place(namespace, key)
        self._scope.check(place, "write")
        with self._lock:
            entry = self._point(place, track=True)
            if entry is None:
                raise missing(self._scope, place)
            own = self._writes.get(place)
            if own is not None and not own.steps:
                own.ttl_us = moved.ttl_us
            else:
                self._touches[place] = moved

    def _buffer(
        self, namespace: object, key: object, write: Write, needed: str, *, explicit: bool = False
    ) -> None:
        place = self._scope.place(namespace, key)
        self._scope.check(place, needed)
        if "/" in place[1] and not place[0] and write.value is not None:
            writes.warn_slash(self._core, place)
        with self._lock:
            self._check_live()
            if self._scope.is_append_only(place) and not write.steps:
                self._create_only(place, write)
            if not write.steps:
                self._touches.pop(place, None)  # it sets an expiry of its own, or ends it
            earlier = self._writes.get(place)
            if earlier is None and len(self._writes) >= self._core.limits.max_writes:
                check_writes(len(self._writes) + 1, self._core.limits)
            self._writes[place] = (
                write if earlier is None else self._folded(place, earlier, write, explicit=explicit)
            )

    def _create_only(self, place: Place, write: Write) -> None:
        write.create_only = True
        row = self._row(place)
        if row is not None:
            labels = self._scope.relative(place[0])
            raise AccessDeniedError(
                f"{display_key(labels, place[1])!r} is there, and access 'append' cannot "
                "replace it",
                namespace=labels,
                key=place[1],
                access="write",
            )

    def _folded(self, place: Place, earlier: Write, write: Write, *, explicit: bool) -> Write:
        """Two writes to one key as one: they make one version."""
        if write.steps and earlier.steps:
            earlier.steps = [*earlier.steps, *write.steps]
            return earlier
        if write.steps:
            value = (
                load(earlier.value) if earlier.value is not None else start_of(write.steps[0][0])
            )
            for operation, operand in write.steps:
                value = apply_step(operation, operand, value, place[1])
            text = earlier.text if earlier.text == "" else None
            encoded = dump(value, self._core.limits)
            return Write(PUT, encoded, text, earlier.ttl_us, earlier.base, earlier.merge,
                         earlier.create_only)  # fmt: skip
        if not explicit and not earlier.steps:
            write.base = earlier.base
            write.merge = write.merge and earlier.merge
        write.create_only = write.create_only or earlier.create_only
        return write
