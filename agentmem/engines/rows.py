"""What engines keep: the rows of their tables, and what is asked for and appended by them.

Namespaces are encoded (`agentmem.namespaces.encode`), times are microseconds since 1970 UTC,
values are canonical JSON text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

__all__ = [
    "ERASED",
    "OPERATIONS",
    "OPERATION_CODES",
    "VECTOR_SET_SHIFT",
    "Answer",
    "Change",
    "CommitRow",
    "ConflictRow",
    "EntryRow",
    "GenerationRow",
    "KnownOperation",
    "Look",
    "Migrations",
    "Moment",
    "Narrowing",
    "NewCommit",
    "NewEntry",
    "NewVector",
    "Place",
    "Point",
    "Position",
    "PurgeRow",
    "Range",
    "ReadRow",
    "Spaces",
    "Start",
    "StrategyRow",
    "TagRow",
    "TextHit",
    "VectorRow",
    "VectorSet",
    "vector_id",
]

Place = tuple[str, str]
"""(encoded namespace, key)."""

OPERATIONS = {
    1: "put",
    2: "delete",
    3: "increment",
    4: "append",
    5: "add_to_set",
    6: "patch",
}
OPERATION_CODES = {name: code for code, name in OPERATIONS.items()}


class EntryRow(NamedTuple):
    """One row of ``entries``, with who and when from its commit.

    ``text`` is None if it follows from the value, and empty if the entry is hidden from search.
    ``value`` is None for a tombstone, and for an entry that was purged.
    """

    id: int
    namespace: str
    key: str
    version: int
    revision: int
    operation: int
    base_version: int | None
    merged: str | None
    value: str | None
    text: str | None
    created_at: int
    expires_at: int | None
    agent: str | None
    op_id: str | None
    committed_at: int

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.operation == 2

    @property
    def purged(self) -> bool:
        """Whether its value was erased."""
        return self.value is None and self.operation != 2

    def visible_at(self, instant: int) -> bool:
        """Whether a view at that instant sees the key as present."""
        return self.value is not None and (self.expires_at is None or self.expires_at > instant)


class Position(NamedTuple):
    """A commit in the log, the last one for the most part; zeros for an empty log.

    ``now`` is the storage's clock when the end of the log was read, never before
    ``committed_at``; for a commit that may have others after it, it is ``committed_at``.
    """

    revision: int
    committed_at: int
    hash: bytes
    last_entry_id: int
    now: int


class Point(NamedTuple):
    """One key, read at a revision."""

    floor: int
    row: EntryRow | None


class CommitRow(NamedTuple):
    """One row of ``commits``, with its operation's result.

    ``beside`` is how many rows of ``reads`` it was written with, doubled, and one more if it was
    written with a row of ``operation_results``; None: with neither, or before that was counted.
    """

    revision: int
    committed_at: int
    scope: str
    op_id: str | None
    agent: str | None
    note: str | None
    metadata: str | None
    base_revision: int
    attempt: bytes
    first_entry_id: int
    changes: int
    accepted: str | None
    digests: bytes
    hash: bytes
    beside: int | None
    fingerprint: bytes | None
    result: str | None


ERASED: Final = b""
"""The fingerprint of a request whose fingerprint was erased."""


class KnownOperation(NamedTuple):
    """An op_id that was used before; its fingerprint may be `ERASED`."""

    revision: int
    fingerprint: bytes | None


class ConflictRow(NamedTuple):
    """One row of ``conflicts``; ``id`` is None until it is written."""

    id: int | None
    namespace: str
    key: str
    status: str
    kind: str
    strategy: str | None
    base_version: int
    theirs_version: int
    ours: str | None
    agent: str | None
    op_id: str | None
    revision: int | None
    detected_at: int
    note: str | None


class ReadRow(NamedTuple):
    """One row of ``reads``: what a commit was derived from, see `agentmem.provenance`.

    ``base_revision`` and ``scan`` are None if one key was read, and ``key`` is empty if it was
    not. ``position`` counts the rows of a commit.
    """

    revision: int
    position: int
    kind: int
    namespace: str
    key: str
    version: int
    base_revision: int | None
    scan: str | None


class VectorSet(NamedTuple):
    """One row of ``vector_sets``: vectors that can be compared with each other.

    ``embedder`` is the identity of what made them, empty if their writers did.
    """

    id: int
    embedder: str
    dimension: int


class Spaces(NamedTuple):
    """Which vectors the top-level namespaces have.

    ``sets`` are all there are, by id; ``of`` has the set's id of each namespace (encoded, one
    label; ``""`` for the root's own keys) that has vectors.
    """

    sets: dict[int, VectorSet]
    of: dict[str, int]


class Moment(NamedTuple):
    """When it is, for what runs out: leases, claims, delays.

    ``epoch`` names the clock, and a moment of another epoch has passed; ``at`` are its
    microseconds. On a file it is the clock of the machine since its start, which no one sets; on
    a server it is the server's.
    """

    epoch: str
    at: int

    def has_passed(self, epoch: str, at: int) -> bool:
        """Whether it is that moment, or later."""
        return epoch != self.epoch or at <= self.at


class Look(NamedTuple):
    """A question to the tables of coordination: leases, queues, once.

    ``name`` is that of a statement, the same in every engine; ``values`` are its parameters, in
    order. Where the answer hangs on the time, the engine adds the moment.
    """

    name: str
    values: tuple[Any, ...] = ()


Answer = list[tuple[Any, ...]]
"""The rows that a `Look` finds."""


class Start(NamedTuple):
    """What a write session finds when it begins.

    ``heads`` are the newest entries of the places asked for, tombstones included; None for those
    never written. ``operations`` are those (scope, op_id) asked for that were used before.
    ``spaces`` is None unless asked for; so are ``moment`` and ``answers``, without looks.
    """

    position: Position
    heads: dict[Place, EntryRow | None]
    operations: dict[tuple[str, str], KnownOperation]
    spaces: Spaces | None = None
    moment: Moment | None = None
    answers: Mapping[Look, Answer] | None = None


class TextHit(NamedTuple):
    """A current entry that holds a word of a query.

    ``score`` rises with the match; what it is, its engine says. ``revision`` is the entry's.
    """

    entry_id: int
    namespace: str
    key: str
    revision: int
    score: float


class VectorRow(NamedTuple):
    """A vector, and the revisions at which it is that of its key.

    ``revision`` is its entry's; ``since``: the revision from which on it is there; ``until``: the
    revision at which another entry replaced its entry, None if none has. ``vector`` is None if
    there is nothing to load: the entry has none, or was replaced before anybody could ask for it.
    ``previous`` is the entry that its entry replaced, where that was asked for.
    """

    entry_id: int
    namespace: str
    revision: int
    since: int
    until: int | None
    vector: bytes | None
    previous: int | None = None


class GenerationRow(NamedTuple):
    """One row of ``generations``: a published index of a set, and its watermark."""

    set_id: int
    name: str
    manifest: str
    revision: int
    hash: bytes
    last_entry_id: int
    live: int
    dead: int
    built_at: int


class StrategyRow(NamedTuple):
    """One row of ``merge_strategies``."""

    pattern: str
    spec: str
    position: int


class Migrations(NamedTuple):
    """What a store has been migrated by.

    Attributes:
        location: for people, without secrets.
        applied: the names of those that it has, in order.
        missing: the names of those that this agentmem would apply, in order.
    """

    location: str
    applied: list[str]
    missing: list[str]


class TagRow(NamedTuple):
    """One row of ``tags``."""

    scope: str
    name: str
    revision: int
    created_at: int
    agent: str | None
    note: str | None


class Narrowing(NamedTuple):
    """Which commits are wanted; all conditions that are given must hold.

    ``agent``: it committed. ``within``: an encoded namespace in or below which a key was written
    (None: any), or else the commit is of the scope ``or_scope``. ``texts``: they all stand in the
    metadata.
    """

    agent: str | None = None
    within: str | None = None
    or_scope: str | None = None
    texts: tuple[str, ...] = ()


class PurgeRow(NamedTuple):
    """One row of ``purges``; ``key`` is None if it was of a namespace and all below it."""

    id: int
    namespace: str
    key: str | None
    revision: int
    purged_at: int
    agent: str | None
    note: str | None
    finished: int


@dataclass(frozen=True, slots=True)
class Range:
    """A part of the key space in order of (namespace, key).

    Attributes:
        namespace: encoded; with all below it.
        key_prefix: only keys that begin with it.
        after: only places after it; before it, where the range is read backwards.
        upto: only places up to and including it; down to it, backwards.
    """

    namespace: str
    key_prefix: str = ""
    after: Place | None = None
    upto: Place | None = None


class NewEntry(NamedTuple):
    """One entry as it is appended."""

    id: int
    namespace: str
    key: str
    revision: int
    version: int
    operation: int
    base_version: int | None
    merged: str | None
    value: str | None
    text: str | None
    ttl_us: int | None
    expires_at: int | None
    created_at: int
    salt: bytes | None  # None: purged
    digest: bytes


@dataclass(slots=True)
class Change:
    """A change to a table beside the log, made in the same database transaction.

    Attributes:
        name: one of ``set_strategy``, ``unset_strategy``, ``set_tag``, ``unset_tag``,
            ``resolve_conflict``, ``fence``, ``move_space`` (a namespace gets another set of
            vectors; ``count_spaces`` goes with it), ``drop_vectors`` (some of a set that nobody
            has any more), ``publish`` and ``unpublish`` (an index); for a purge
            ``begin_purge``, ``widen_purge``, ``finish_purge``, and what erases, page by page:
            ``erase_entries``, ``erase_vectors``, ``erase_pending`` (all by ids of entries),
            ``erase_results`` (by revisions), ``erase_conflicts`` (by ids), ``erase_scan`` (one
            row of ``reads``); for a compaction ``raise_floor`` (no higher than the oldest tag),
            ``drop_entries`` (by ids), ``drop_reads`` (of those of the revisions that have no
            entry any more), ``drop_results``; in a copy also ``copy_conflict`` (writes a record
            under its own id, or how it ended into the one that is there). Those of
            `agentmem.coordination` are described where they are made.
        values: what the change of that name needs, by name.
        count: the rows that it touched, set by the session.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    count: int = 0


class NewVector(NamedTuple):
    """One vector as it is appended; ``id`` as `vector_id`, ``late`` as in ``vectors``."""

    id: int
    late: int | None
    vector: bytes
    checksum: bytes


VECTOR_SET_SHIFT: Final = 40


def vector_id(set_id: int, entry_id: int) -> int:
    """The id of a vector: the vectors of a set lie together, in order of their entries."""
    return (set_id << VECTOR_SET_SHIFT) | entry_id


@dataclass(slots=True)
class NewCommit:
    """All rows that a batch appends, in order of their revisions.

    Attributes:
        commits, results, entries, touches, reads, conflicts, changes: of the log, and beside it.
        marks: (name, block), see `agentmem.marks`; one that is there already stays.
        texts: what of the new entries is found by words, by their ids.
        gone: (id, text) of the entries that these replace, as ``texts`` once had them.
        sets, spaces: new rows of ``vector_sets`` and ``vector_spaces``.
        vectors: new vectors; one that is there already stays.
        pending: entries that have yet to be embedded.
        settled: those that need not be embedded any more.
    """

    commits: list[tuple[Any, ...]] = field(default_factory=list)
    results: list[tuple[int, bytes | None, str | None]] = field(default_factory=list)
    entries: list[NewEntry] = field(default_factory=list)
    touches: list[tuple[int | None, int]] = field(default_factory=list)
    reads: list[ReadRow] = field(default_factory=list)
    conflicts: list[ConflictRow] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    marks: list[tuple[str, int]] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    gone: list[tuple[int, str]] = field(default_factory=list)
    sets: list[VectorSet] = field(default_factory=list)
    spaces: list[tuple[str, int]] = field(default_factory=list)
    vectors: list[NewVector] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.commits or self.touches or self.conflicts or self.changes)
