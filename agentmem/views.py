"""Reading: the same calls on stores, snapshots, transactions and scoped views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from builtins import list as List  # noqa: N812  # the method list() hides the type in the class
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from agentmem.core import Core
from agentmem.engines.rows import (
    EntryRow,
    Place,
    Range,
)
from agentmem.errors import InvalidValueError
from agentmem.filters import Filter
from agentmem.model import Entry, Hit
from agentmem.namespaces import Labels, check_key, encode, parse_namespace
from agentmem.records import entry_of
from agentmem.scope import Scope, missing
from agentmem.search.query import SearchQuery

if TYPE_CHECKING:
    from agentmem.collection import Collection

__all__ = ["PinnedView", "View"]

M = TypeVar("M")
D = TypeVar("D")


class View(ABC):
    """What can be read, and how. Where a view stands in time, its class says."""

    __slots__ = ("_core", "_scope")

    def __init__(self, core: Core, scope: Scope) -> None:
        self._core = core
        self._scope = scope

    @abstractmethod
    def _point(self, place: Place, *, track: bool) -> Entry[Any] | None:
        """The entry of a key that the view sees."""

    @abstractmethod
    def _points(self, places: List[Place], *, track: bool) -> List[Entry[Any]]:
        """As `_point`, for many keys at one instant; absent ones are left out."""

    @abstractmethod
    def _scan(self, query: Query) -> List[Entry[Any]]:
        """The entries that a query finds, in order of (namespace, key)."""

    @abstractmethod
    def _search(self, query: SearchQuery) -> List[Hit]:
        """The entries that a search finds, best first."""

    def _count(self, query: Query) -> int:
        """How many entries a query finds."""
        return len(self._scan(query))

    def _namespaces(self, query: Query) -> Iterable[Labels]:
        """The namespaces of the entries that a query finds."""
        return (entry.namespace for entry in self._scan(query))

    def get(
        self, key: str, *, namespace: object = None, default: D | None = None, track: bool = True
    ) -> Entry[Any] | D | None:
        """The entry of a key, or the default if the key is absent.

        Args:
            key: the key.
            namespace: None is the view's root.
            default: returned if the key was never written, was deleted, or has expired.
            track: in a transaction, False leaves the read unchecked at commit.

        Raises:
            TypeError, InvalidValueError: the key or namespace is none.
            AccessDeniedError: the view does not grant read access.
        """
        place = self._scope.place(namespace, key)
        self._scope.check(place, "read")
        entry = self._point(place, track=track)
        return entry if entry is not None else default

    def __getitem__(self, key: str) -> Any:
        """The value of a key in the view's root.

        Raises:
            KeyMissingError: the key is absent.
        """
        place = self._scope.place(None, key)
        self._scope.check(place, "read")
        entry = self._point(place, track=True)
        if entry is None:
            raise missing(self._scope, place)
        return entry.value

    def __contains__(self, key: object) -> bool:
        place = self._scope.place(None, key)
        self._scope.check(place, "read")
        return self._point(place, track=True) is not None

    # Without it, Python would iterate by x[0], x[1], ...
    __iter__ = None

    def get_many(
        self, keys: Iterable[str], *, namespace: object = None, track: bool = True
    ) -> dict[str, Entry[Any]]:
        """The entries of many keys, read at one instant; absent keys are left out.

        Raises: as `get`; nothing is returned if one key is not allowed.
        """
        if isinstance(keys, str):
            raise TypeError("keys is a list of keys, not one str")
        places = [self._scope.place(namespace, key) for key in keys]
        for place in places:
            self._scope.check(place, "read")
        return {entry.key: entry for entry in self._points(places, track=track)}

    def list(
        self,
        namespace: object = None,
        *,
        key_prefix: str | None = None,
        where: object = None,
        limit: int | None = None,
        after: object = None,
        track: bool = True,
    ) -> List[Entry[Any]]:
        """The entries of a namespace and all below it, by (namespace, key) bytewise.

        Args:
            namespace: None is the view's root.
            key_prefix: only keys that begin with it.
            where: only values that match; see ``docs/filters.md``.
            limit: at most so many.
            after: only what comes after this entry, key (in `namespace`), or
                (namespace, key): go on with the last entry of the page before.
            track: in a transaction, False leaves the scan unchecked at commit.

        Raises:
            InvalidValueError: an argument is not allowed.
            AccessDeniedError: the view grants read access to nothing in the namespace.
        """
        return self._scan(
            Query.parse(self._scope, namespace, key_prefix, where, limit, after, track=track)
        )

    def count(
        self,
        namespace: object = None,
        *,
        key_prefix: str | None = None,
        where: object = None,
        track: bool = True,
    ) -> int:
        """How many entries `list` would return."""
        query = Query.parse(
            self._scope, namespace, key_prefix, where, None, None, track=track, presence=True
        )
        return self._count(query)

    def namespaces(
        self, under: object = None, depth: int | None = None, *, track: bool = True
    ) -> List[Labels]:
        """The namespaces that hold a key, in order.

        Args:
            under: only this one and those below it.
            depth: cut to so many labels (counted from the view's root), each once.
        """
        if depth is not None and (type(depth) is not int or depth < 1):
            raise InvalidValueError(f"depth is a positive integer, not {depth!r}")
        query = Query.parse(self._scope, under, None, None, None, None, track=track, presence=True)
        return sorted({labels[:depth] for labels in self._namespaces(query)})

    def search(
        self,
        query: object,
        *,
        namespace: object = None,
        k: int = 10,
        offset: int = 0,
        mode: str = "hybrid",
        where: object = None,
        half_life_s: float | None = None,
        track: bool = True,
    ) -> List[Hit]:
        """The entries that fit a query best, best first, as of the view's revision.

        Exact: what is found is what a look at every entry that the view sees would find, in the
        same order; ties go by (namespace, key). Words rank by today's statistics of words.

        Args:
            query: a text, or a vector of as many numbers as those of the namespace have.
            namespace: None is the view's root; with all namespaces below it.
            k, offset: how many, after how many.
            mode: ``"text"`` looks for words (any of them, by their stems), ``"vector"`` for
                meaning, ``"hybrid"`` for both; without an embedder that is words alone.
            where: only values that match; see ``docs/filters.md``.
            half_life_s: a score counts half for an entry that is so old, and so on.
            track: in a transaction, False leaves the search unchecked at commit.

        Raises:
            EmbedderError: the embedder failed, or is not that of the namespace; the vector has
                another dimension.
            InvalidValueError, LimitExceededError: an argument is not allowed.
            AccessDeniedError: the view grants read access to nothing in the namespace.
        """
        return self._search(
            SearchQuery.parse(
                self._scope.labels(namespace), query, k, offset, mode, where, half_life_s,
                self._core.limits, track=track,
            )
        )  # fmt: skip

    def collection(self, model: type[M], namespace: object) -> Collection[M]:
        """The entries of a namespace as instances of a pydantic model; see `Collection`."""
        from agentmem.collection import Collection

        found = Collection(self, model, parse_namespace(namespace, self._core.limits))
        found.register()
        return found


class Query:
    """What a scan asks for, checked."""

    __slots__ = ("after", "filter", "key_prefix", "labels", "limit", "presence", "track")

    def __init__(
        self,
        labels: Labels,
        key_prefix: str,
        filter: Filter | None,
        limit: int | None,
        after: Place | None,
        track: bool,
        presence: bool,
    ) -> None:
        self.labels = labels
        self.key_prefix = key_prefix
        self.filter = filter
        self.limit = limit
        self.after = after
        self.track = track
        self.presence = presence

    @property
    def likely_rows(self) -> int | None:
        """How many rows are enough, unless some of them cannot be seen; None: not known."""
        return self.limit if self.filter is None else None

    @classmethod
    def parse(
        cls,
        scope: Scope,
        namespace: object,
        key_prefix: object,
        where: object,
        limit: object,
        after: object,
        *,
        track: bool,
        presence: bool = False,
    ) -> Query:
        """Checks the arguments of `View.list`."""
        labels = scope.labels(namespace)
        if key_prefix is not None and key_prefix != "":
            check_key(key_prefix, scope.limits)
        if limit is not None and (type(limit) is not int or limit < 0):
            raise InvalidValueError(f"limit is a number from 0 on, or None, not {limit!r}")
        place: Place | None = None
        if isinstance(after, Entry):
            place = scope.place(after.namespace, after.key)
        elif isinstance(after, tuple) and len(after) == 2:
            place = scope.place(*after)
        elif isinstance(after, str):
            place = encode(labels), check_key(after, scope.limits)
        elif after is not None:
            raise TypeError("after is an Entry, a key, or (namespace, key)")
        prefix = str(key_prefix) if key_prefix else ""
        return cls(labels, prefix, Filter.parse(where), limit, place, track, presence)


class PinnedView(View):
    """A view with one revision and one instant: what it shows never changes."""

    __slots__ = ("_instant", "_revision")

    def __init__(self, core: Core, scope: Scope, revision: int, instant: int) -> None:
        super().__init__(core, scope)
        self._revision = revision
        self._instant = instant

    @property
    def revision(self) -> int:
        """The revision that is read."""
        return self._revision

    def _row(self, place: Place) -> EntryRow | None:
        row = self._core.engine.point(place, self._revision).row
        return row if row is not None and row.visible_at(self._instant) else None

    def _point(self, place: Place, *, track: bool) -> Entry[Any] | None:
        self._core.check_open()
        row = self._row(place)
        return entry_of(row, self._scope) if row is not None else None

    def _points(self, places: List[Place], *, track: bool) -> List[Entry[Any]]:
        self._core.check_open()
        rows = self._core.engine.points(places, self._revision)
        return [entry_of(row, self._scope) for row in rows if row.visible_at(self._instant)]

    def _scan(self, query: Query) -> List[Entry[Any]]:
        self._core.check_open()
        view = (self._revision, self._instant)
        found: List[Entry[Any]] = []
        if query.limit == 0:
            return found
        for row in self._core.iterate(
            self._scope,
            self._inside(query.labels),
            view,
            query.key_prefix,
            query.after,
            query.likely_rows,
        ):
            entry = entry_of(row, self._scope)
            if query.filter is None or query.filter.matches(entry.value):
                found.append(entry)
                if len(found) == query.limit:
                    break
        return found

    def _search(self, query: SearchQuery) -> List[Hit]:
        core, view = self._core, (self._revision, self._instant)
        core.check_open()
        found = core.searcher.search(self._scope, query, view, core.engine.reading())
        return found.answer.hits(query, self._scope)

    def _count(self, query: Query) -> int:
        if query.filter is not None:
            return len(self._scan(query))
        self._core.check_open()
        view = (self._revision, self._instant)
        rows = self._core.iterate(self._scope, self._inside(query.labels), view, query.key_prefix)
        return sum(1 for _row in rows)

    def _namespaces(self, query: Query) -> Iterable[Labels]:
        if self._scope.rules:
            return super()._namespaces(query)
        self._core.check_open()
        found = self._core.engine.namespaces(
            Range(encode(query.labels)), self._revision, self._instant
        )
        return [self._scope.relative(encoded) for encoded in found]

    def _inside(self, labels: Labels) -> Labels:
        return labels[len(self._scope.prefix) :]
