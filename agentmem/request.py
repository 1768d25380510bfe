"""What a transaction or a single call asks the commit path to do, and what it gets back.

A request is made by one thread, judged by whichever thread leads, and read again by the one
that made it; it is never looked at by two at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from agentmem.coordination.steps import Step
from agentmem.engines.rows import (
    Change,
    ConflictRow,
    EntryRow,
    KnownOperation,
    Place,
    Range,
    ReadRow,
)
from agentmem.filters import Filter
from agentmem.merge.registry import Match
from agentmem.provenance import scan_text
from agentmem.scope import Scope
from agentmem.search.embedders import Embedder
from agentmem.values import load

if TYPE_CHECKING:
    from agentmem.staleness import World

__all__ = [
    "BLIND",
    "SNAPSHOT",
    "UNKNOWN",
    "Merged",
    "PendingMerge",
    "Receipt",
    "Request",
    "Scan",
    "StaleItem",
    "Touch",
    "Watch",
    "Write",
]

SNAPSHOT: Final = -1
"""Base of a write: the version that is visible at the request's revision and instant."""

BLIND: Final = -2
"""Base of a write: none; it replaces whatever is there."""

UNKNOWN: Final = "\x00"
"""What search sees of a value has yet to be looked for; no text holds a NUL."""


@dataclass(slots=True)
class Merged:
    """What a hook made of a write, outside of the lock.

    Attributes:
        value: JSON text; None: delete.
        against: the version that it was merged with, 0 if the key was absent.
        name: the hook's name.
        status: how it goes on record: ``merged``, or ``open`` if ours was parked.
        details: JSON text of what the hook tells of how; None: nothing.
    """

    value: str | None
    against: int
    name: str
    status: str = "merged"
    details: str | None = None


@dataclass(slots=True)
class Write:
    """What to do to one key.

    Attributes:
        operation: a code of `agentmem.engines.rows.OPERATIONS`.
        value: JSON text of a put; None for a delete and for atomic operations.
        text: what search sees: None: follows from the value, ``""``: hidden.
        ttl_us: time to live; None: for ever. Atomic operations leave what is there.
        base: the version the writer started from (0: absent), or `SNAPSHOT`, or `BLIND`.
        merge: whether a hook or strategy may merge it.
        create_only: refused, with `AccessDeniedError`, if the key is present.
        keep: expiry and hiding from search stay as they are, unless the write sets them.
        warn: tell if it replaces, blindly, another agent's version.
        steps: atomic operations, (code, operand) in order; empty for a put and a delete.
        merged: what a hook made of it.
        refused: why a hook could not merge it.
        words: what search sees of the value; None: nothing.
        vector: as stored, given by the caller; None: the embedder makes it from the words.
        deferred: it is embedded after the commit, not before.
        expires_at: an instant, in place of one that follows from `ttl_us`.
        otherwise: merges it where no hook or strategy is registered.
        buries: of a delete: a tombstone comes even where nobody sees the entry any more:
            ``expired``: only then; ``any``: over whatever still has a value; empty: as any delete.
    """

    operation: int
    value: str | None = None
    text: str | None = None
    ttl_us: int | None = None
    base: int = SNAPSHOT
    merge: bool = True
    create_only: bool = False
    keep: bool = False
    warn: bool = False
    steps: Sequence[tuple[int, Any]] = ()
    merged: Merged | None = None
    refused: str | None = None
    words: str | None = UNKNOWN
    vector: bytes | None = None
    deferred: bool = False
    expires_at: int | None = None
    otherwise: Match | None = None
    buries: str = ""


@dataclass(slots=True)
class Touch:
    """Moves the expiry of a key.

    Attributes:
        ttl_us: from the commit on; None: never expires.
    """

    ttl_us: int | None


@dataclass(slots=True)
class Scan:
    """A range that a transaction has read.

    Attributes:
        within: the range; ``upto`` is the last place returned if there was a limit.
        filter: what the values had to match.
        allowed: what the view may see; None: everything.
        found: version of each place returned.
        presence: only which keys there are counts, not their versions.
        asked: JSON text of what was asked, for the record.
        ids: of the entries found, as `found`.
        text: what is kept of it; None: not made yet.
    """

    within: Range
    filter: Filter | None
    allowed: Callable[[Place], bool] | None
    found: dict[Place, int]
    presence: bool
    asked: str
    ids: dict[Place, int] = field(default_factory=dict)
    text: str | None = None

    def kept(self) -> str:
        """What is kept of it, see `agentmem.provenance`."""
        if self.text is None:
            self.text = scan_text(self.asked, self.ids.values())
        return self.text

    def covers(self, place: Place) -> bool:
        """Whether the place lies in the range."""
        within = self.within
        return (
            place[0].startswith(within.namespace)
            and place[1].startswith(within.key_prefix)
            and (within.after is None or place > within.after)
            and (within.upto is None or place <= within.upto)
            and (self.allowed is None or self.allowed(place))
        )

    def vector_sets(self, world: World) -> Iterable[int]:
        """The sets of which a vector that comes late could change what it has found."""
        return ()

    def versions_of(self, heads: Mapping[Place, EntryRow | None], world: World) -> dict[Place, int]:
        """The versions with which these would be found; 0 for those that would not.

        Args:
            heads: all that is to be judged, at once: what they need of the world is read in one
                go, most often while others wait for the lock.
        """
        return {
            place: row.version if row is not None and self._matches(row, world) else 0
            for place, row in heads.items()
        }

    def _matches(self, row: EntryRow, world: World) -> bool:
        return row.visible_at(world.now) and (
            self.filter is None or self.filter.matches(load(row.value or "null"))
        )


@dataclass(slots=True)
class StaleItem:
    """An observation or a base that no longer holds.

    Attributes:
        place: the key.
        kind: ``write``, ``read`` or ``scan``.
        seen_version: what the writer saw, 0 if absent.
        version: what is there now, 0 if absent.
        base: the entry the writer saw; None if absent, or not asked for.
        theirs: the entry that is there now; None if absent.
        write: the write, if the request writes the key.
        reason: why no hook has merged it.
    """

    place: Place
    kind: str
    seen_version: int
    version: int
    base: EntryRow | None
    theirs: EntryRow | None
    write: Write | None = None
    reason: str | None = None


@dataclass(slots=True)
class Watch:
    """What no commit may have read since a revision.

    Attributes:
        revision: only later commits are looked at.
        met: (place, version) of what commits with these reads have met, and should not have.
    """

    revision: int
    met: Callable[[Iterable[ReadRow]], list[tuple[Place, int]]]


@dataclass(slots=True)
class PendingMerge:
    """A conflict that a hook must merge outside of the lock."""

    item: StaleItem
    match: Match


@dataclass(slots=True)
class Receipt:
    """What a request did.

    Attributes:
        revision: of its commit; None if it wrote nothing and had no op_id.
        committed_at: of its commit.
        rows: the entries written, in order of (namespace, key).
        touched: the entries whose expiry moved.
        blind_over: (place, version, agent) of the versions that were replaced blindly.
        known: the op_id had been used before; nothing was applied.
        mark: of the batch, if its steps changed something.
    """

    revision: int | None
    committed_at: int | None
    rows: list[EntryRow]
    touched: list[EntryRow] = field(default_factory=list)
    blind_over: list[tuple[Place, int, str | None]] = field(default_factory=list)
    known: KnownOperation | None = None
    mark: bytes | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One transaction on its way into the log.

    Attributes:
        scope: the view that asks.
        op_id, agent, note, metadata: as in ``commits``.
        fingerprint: of the request; None: any request with the op_id is the same.
        base_revision, base_instant: the view that it read.
        reads: version seen of each place, 0 if absent.
        scans: the ranges read.
        writes: one for each place.
        touches: expiry to move.
        pinned: it has read a view; False for a single call, which reads nothing.
        validate: whether reads and scans are judged (serializable).
        merge: whether conflicts on writes may be merged.
        record: whether a rejection is put on record at once.
        result: JSON text that the function returned.
        accepted: JSON text of what a repair judged to be still right.
        change: to a table beside the log, in the same database transaction.
        steps: what it asks of leases, queues and once.
        embedder: what makes vectors of the words that it writes; None: nothing does.
        has_vectors: it may write vectors.
        vectors: those that it has made so far, by the words.
        embeddings: how often it was asked for more.
        late: (entry id, namespace, vector) to add to entries that were committed without.
        settled: ids of entries that need not be embedded any more.
        provenance: whether what it has read is kept.
        cited: (kind, place, version) that it was derived from besides, see `agentmem.provenance`.
        unchecked: ranges read that are not judged.
        watch: it is stale if a commit since has read what it names.
        undoes: it takes out what the bases of its writes have written.
        earlier: records of conflicts that earlier attempts of the same call met.
        attempt: 16 random bytes that the commit row carries; empty until it is judged.
    """

    scope: Scope
    op_id: str | None
    agent: str | None
    base_revision: int
    base_instant: int
    note: str | None = None
    metadata: str | None = None
    fingerprint: bytes | None = None
    reads: dict[Place, int] = field(default_factory=dict)
    scans: Sequence[Scan] = ()
    writes: dict[Place, Write] = field(default_factory=dict)
    touches: dict[Place, Touch] = field(default_factory=dict)
    pinned: bool = True
    validate: bool = True
    merge: bool = True
    record: bool = True
    forbid_blind: bool = False
    result: str | None = None
    accepted: str | None = None
    change: Change | None = None
    provenance: bool = True
    cited: Sequence[tuple[int, Place, int]] = ()
    unchecked: Sequence[Scan] = ()
    watch: Watch | None = None
    undoes: bool = False
    steps: Sequence[Step] = ()
    earlier: Sequence[ConflictRow] = ()
    embedder: Embedder | None = None
    has_vectors: bool = False
    vectors: dict[str, bytes] = field(default_factory=dict)
    embeddings: int = 0
    late: Sequence[tuple[int, str, bytes]] = ()
    settled: Sequence[int] = ()
    attempt: bytes = b""
    # The verdict: at most one of these is set.
    receipt: Receipt | None = None
    error: BaseException | None = None
    stale: list[StaleItem] | None = None
    merges: list[PendingMerge] | None = None
    texts: list[str] | None = None  # to be embedded first

    def reset(self) -> None:
        """Forgets a verdict, so that the request can be judged again."""
        self.receipt = self.error = self.stale = self.merges = self.texts = None

    @property
    def size(self) -> int:
        """About how many bytes it adds to a batch."""
        size = sum(len(write.value or "") + len(write.text or "") for write in self.writes.values())
        return size + sum(step.size for step in self.steps) if self.steps else size

    @property
    def lasts(self) -> bool:
        """Whether what it does must survive a loss of power, as the store was opened."""
        if not self.steps:
            return True
        others = (self.writes, self.touches, self.late, self.earlier, self.change, self.op_id)
        return any(others) or any(step.lasts for step in self.steps)

    @property
    def trace(self) -> tuple[bytes, int] | None:
        """What tells later whether it was committed: (attempt, revision), or (mark, 0).

        None: it has written nothing.
        """
        receipt = self.receipt
        if receipt is None:
            return None
        if receipt.revision is not None:
            return self.attempt, receipt.revision
        return None if receipt.mark is None else (receipt.mark, 0)
