"""The records that agentmem returns: frozen, slotted, with a short repr."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

__all__ = [
    "DELETE",
    "Change",
    "Commit",
    "Conflict",
    "ConflictRecord",
    "Entry",
    "Hit",
    "Purge",
    "Stale",
    "Tag",
]

V = TypeVar("V")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Marker(Enum):
    """Values that cannot be confused with JSON."""

    DELETE = "DELETE"
    MISSING = "MISSING"

    def __repr__(self) -> str:
        return f"agentmem.{self.name}"


DELETE: Final = _Marker.DELETE
"""In a `Conflict`: this side deleted the key. Returned by a merge hook: delete it."""

MISSING: Final = _Marker.MISSING
"""No argument was given (None is a value)."""


def to_datetime(microseconds: int) -> datetime:
    """Microseconds since 1970 UTC as an aware datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_microseconds(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970 UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def display_namespace(namespace: tuple[str, ...]) -> str:
    """A namespace as people write it; for messages only, labels may hold any character."""
    return "/".join(namespace)


def display_key(namespace: tuple[str, ...], key: str) -> str:
    """A key with its namespace as people write it; for messages only."""
    return "/".join((*namespace, key))


class _Html:
    """Shows a record as a two-column table in notebooks. Every cell is escaped."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        if not is_dataclass(self):  # pragma: no cover - every record is a dataclass
            return html.escape(repr(self))
        rows = "".join(
            f"<tr><th>{html.escape(each.name)}</th>"
            f"<td>{html.escape(str(getattr(self, each.name)))}</td></tr>"
            for each in fields(self)
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


class _Filled:
    """Fills its fields when they are first asked for.

    A read makes many entries of which the caller looks at two or three fields; making times and
    texts for all of them costs more than reading the row. `fill` sets where the fields come from;
    an object that was made by its constructor has them all and never comes here.
    """

    __slots__ = ("_source",)

    if not TYPE_CHECKING:  # a type checker would take it to mean that every name is there

        def __getattr__(self, name: str) -> Any:
            fields_of, source = object.__getattribute__(self, "_source")
            field_of = fields_of.get(name)
            if field_of is None:
                raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
            value = field_of(source)
            object.__setattr__(self, name, value)
            return value


_set_source: Final = _Filled._source.__set__  # type: ignore[attr-defined]  # the slot's descriptor


@dataclass(frozen=True, slots=True, repr=False)
class Entry(_Filled, _Html, Generic[V]):
    """One version of one key.

    Attributes:
        namespace: labels, ``()`` for the root.
        key: the key.
        version: counts the commits that wrote the key, from 1; None if pending.
        revision: the commit that wrote it; None if pending.
        value: JSON, or the model of a collection; None for a tombstone.
        text: what search sees, or None.
        agent: who wrote it, or None.
        op_id: the operation id of its commit, or None.
        created_at: when the key last became present; None if pending.
        committed_at: when this version was committed; None if pending.
        expires_at: from when on it is absent; None: never.
        deleted: True for a tombstone, which only `history` shows.
        purged: when and by whom its value was erased; None if it was not. Only `history` and
            `audit.version` show such entries, and only there this is looked up.
        pending: True for an own write of a transaction that has not been committed.
    """

    namespace: tuple[str, ...]
    key: str
    version: int | None
    revision: int | None
    value: V
    text: str | None = None
    agent: str | None = None
    op_id: str | None = None
    created_at: datetime | None = None
    committed_at: datetime | None = None
    expires_at: datetime | None = None
    deleted: bool = False
    pending: bool = False
    purged: Purge | None = None

    def __repr__(self) -> str:
        name = display_key(self.namespace, self.key)
        state = (
            "pending"
            if self.pending
            else f"version={self.version}, revision={self.revision}"
            + (", deleted" if self.deleted else "")
            + (", purged" if self.purged else "")
        )
        return f"Entry({name!r}, {short(self.value)}, {state})"


def filled(fields_of: Mapping[str, Callable[[Any], Any]], source: object) -> Entry[Any]:
    """An entry whose fields are made from a source when they are first asked for."""
    entry: Entry[Any] = object.__new__(Entry)
    _set_source(entry, (fields_of, source))
    return entry


@dataclass(frozen=True, slots=True)
class Hit(_Html):
    """One entry that a search found.

    Attributes:
        entry: the entry, as the view sees it.
        score: what hits are ranked by. In mode ``hybrid`` from 0 to 1, measured by the best of
            this search; in ``text`` what the engine gives for words (bm25 on SQLite); in
            ``vector`` the cosine, from -1 to 1. With a half-life, that times 0.5^(age / half-life).
        text_rank: its rank by words alone, from 1 on; None if it holds none, or ranks below all
            that was asked for.
        vector_rank: its rank by its vector alone; None likewise.
        distance: one minus the cosine of the angle between its vector and the query's, from 0 to
            2; None if it has no vector, or none was looked for.
    """

    entry: Entry[Any]
    score: float
    text_rank: int | None = None
    vector_rank: int | None = None
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Change(_Html):
    """What a commit did to one key.

    Attributes:
        namespace: labels.
        key: the key.
        version: the version that this commit made.
        base_version: the version that the writer started from, 0 if the key was absent,
            None if the write was blind.
        operation: ``put``, ``delete``, ``increment``, ``append``, ``add_to_set`` or ``patch``.
        merged: the strategy or hook that merged it with another's version, or None.
    """

    namespace: tuple[str, ...]
    key: str
    version: int
    base_version: int | None
    operation: str
    merged: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Commit(_Html):
    """The changes that share one revision.

    Attributes:
        revision: store-wide, +1 a commit; None if nothing was written and no op_id given.
        committed_at: time of the commit; None if there was no commit.
        agent: who committed, or None.
        op_id: the operation id, or None.
        note: free text, or None.
        metadata: JSON object, possibly empty.
        base_revision: the revision that the transaction read.
        changes: one for each key written, in order of (namespace, key).
        merged: (namespace, key) of the changes that a merge hook or strategy made.
        accepted: what a repair judged to be still right: (namespace, key, seen version,
            judged version).
        replayed: True if the op_id was known and nothing was applied by this call.
        result: what the function of `transact` returned, JSON.
    """

    revision: int | None
    committed_at: datetime | None
    agent: str | None
    op_id: str | None
    note: str | None
    metadata: Mapping[str, Any]
    base_revision: int
    changes: tuple[Change, ...]
    merged: tuple[tuple[tuple[str, ...], str], ...] = ()
    accepted: tuple[tuple[tuple[str, ...], str, int, int], ...] = ()
    replayed: bool = False
    result: Any = None

    def __repr__(self) -> str:
        parts = [f"revision={self.revision}", f"changes={len(self.changes)}"]
        if self.agent is not None:
            parts.append(f"agent={self.agent!r}")
        if self.op_id is not None:
            parts.append(f"op_id={self.op_id!r}")
        if self.merged:
            parts.append(f"merged={len(self.merged)}")
        if self.replayed:
            parts.append("replayed")
        return f"Commit({', '.join(parts)})"


@dataclass(frozen=True, slots=True, repr=False)
class Conflict(_Html):
    """The key's current version is not the one that the writer started from.

    Attributes:
        namespace: labels.
        key: the key.
        base: the value that the writer started from; None if the key was absent.
        theirs: the value that is there now; None absent (of a key that was absent),
            `agentmem.DELETE` deleted or expired.
        ours: the value that the writer wants; None if it only read the key,
            `agentmem.DELETE` to delete it.
        base_entry: the whole base, None if the key was absent.
        theirs_entry: what is there now, None if the key is absent.
        kind: ``write``, ``read`` or ``scan``.
    """

    namespace: tuple[str, ...]
    key: str
    base: Any
    theirs: Any
    ours: Any
    base_entry: Entry[Any] | None = None
    theirs_entry: Entry[Any] | None = None
    kind: str = "write"

    @property
    def base_version(self) -> int:
        """The version that the writer started from, 0 if the key was absent."""
        return (self.base_entry.version or 0) if self.base_entry is not None else 0

    @property
    def current_version(self) -> int:
        """The version that is there now, 0 if the key is absent."""
        return (self.theirs_entry.version or 0) if self.theirs_entry is not None else 0

    def __repr__(self) -> str:
        return (
            f"Conflict({display_key(self.namespace, self.key)!r}, {self.kind}, "
            f"base_version={self.base_version}, current_version={self.current_version})"
        )


@dataclass(frozen=True, slots=True)
class Stale(_Html):
    """One observation of a transaction that no longer holds, as `Transaction.stale` gives it.

    Attributes:
        namespace: labels.
        key: the key.
        seen_version: the version that the transaction saw, 0 if absent.
        judged_version: the version at the revision of the `stale()` call, 0 if absent.
    """

    namespace: tuple[str, ...]
    key: str
    seen_version: int
    judged_version: int

    def __iter__(self) -> Iterator[Any]:
        """Unpacks as ``key, seen_version, judged_version``."""
        yield self.key
        yield self.seen_version
        yield self.judged_version


@dataclass(frozen=True, slots=True, repr=False)
class ConflictRecord(_Html):
    """A conflict as the store keeps it, with how it was resolved.

    Attributes:
        id: number of the record.
        namespace: labels.
        key: the key.
        status: ``merged``, ``retried``, ``rejected``, ``repaired``, ``open`` (parked by
            `escalate`) or ``resolved``.
        strategy: the strategy or hook that merged it, or None.
        kind: ``write``, ``read``, ``scan``; or ``operation``: an op_id was used for another
            request than the first (of the commit `revision`), and nothing was written.
        base_version: the version that the writer started from, 0 if absent.
        theirs_version: the version it met, 0 if absent.
        ours: the value that the writer wanted, kept where it is not in the log (a merge);
            None otherwise.
        agent: the writer.
        op_id: the writer's operation id.
        revision: the commit that ended it; None if there was none.
        detected_at: when.
        note: how it was resolved, by a person, or None.
        details: what the hook that merged it, or could not, tells of how; JSON, or None.
    """

    id: int
    namespace: tuple[str, ...]
    key: str
    status: str
    strategy: str | None
    kind: str
    base_version: int
    theirs_version: int
    ours: Any
    agent: str | None
    op_id: str | None
    revision: int | None
    detected_at: datetime
    note: str | None = None
    details: Any = None

    def __repr__(self) -> str:
        by = f", strategy={self.strategy!r}" if self.strategy is not None else ""
        return (
            f"ConflictRecord({self.id}, {display_key(self.namespace, self.key)!r}, {self.kind}, "
            f"{self.status}{by}, base_version={self.base_version}, "
            f"theirs_version={self.theirs_version}, ours={short(self.ours)})"
        )


@dataclass(frozen=True, slots=True)
class Purge(_Html):
    """When and by whom values were erased, see `Admin.purge`.

    Attributes:
        revision: what was written up to this one was erased.
        purged_at: when; None: it was purged in a store that this one was loaded from.
        agent: who, or None.
        note: why, or None.
        finished: whether no byte is left; else it has to be run again.
    """

    revision: int
    purged_at: datetime | None
    agent: str | None = None
    note: str | None = None
    finished: bool = True


@dataclass(frozen=True, slots=True)
class Tag(_Html):
    """A name for a revision."""

    name: str
    revision: int
    created_at: datetime
    agent: str | None = None
    note: str | None = field(default=None)


def short(value: object, width: int = 60) -> str:
    """A repr that is cut where it is long."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


for _record in (Entry, Hit, Change, Commit, Conflict, ConflictRecord, Purge, Stale, Tag):
    _record.__module__ = "agentmem"
del _record
