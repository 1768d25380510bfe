"""Judging: which requests of a batch are committed, as what, and why the others are not.

Requests are judged in the order in which they queued, each alone, against the heads as the
earlier requests of the batch have left them. Nothing here knows an engine, takes a lock or runs
a Python hook; built-in strategies run here if they are small, everything else goes back to the
thread that asked, is merged there, and is submitted again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from agentmem.coordination.judging import StepJudge
from agentmem.coordination.steps import NUMBER
from agentmem.engines.base import check_floor
from agentmem.engines.rows import (
    Change,
    ConflictRow,
    EntryRow,
    KnownOperation,
    Look,
    Place,
    Range,
    Spaces,
    Start,
    VectorSet,
    vector_id,
)
from agentmem.engines.session import WriteSession
from agentmem.errors import AccessDeniedError, LimitExceededError, MergeError
from agentmem.kept import kept_text
from agentmem.limits import Limits
from agentmem.marks import Marker
from agentmem.merge.registry import MergeRegistry, StoredStrategy
from agentmem.merge.strategy import Outcome as MergeOutcome
from agentmem.merge.strategy import Unmergeable
from agentmem.model import DELETE as DELETED
from agentmem.model import MISSING, display_key
from agentmem.namespaces import decode
from agentmem.operations import DELETE, PUT, apply_step, start_of
from agentmem.request import BLIND, PendingMerge, Receipt, Request, StaleItem, Watch, Write
from agentmem.scope import missing
from agentmem.search.spaces import set_of, top_label, wanted_vector
from agentmem.staleness import (
    base_version,
    stale_reads,
    stale_scans,
    stale_write,
    visible_version,
)
from agentmem.stored import parse_strategies
from agentmem.tail import Outcome, Tail
from agentmem.values import canonical, dump, load

__all__ = ["Judge", "check_writes", "merge_error", "merge_status", "sides", "wanted"]

_EMBEDDINGS: Final = 3  # of one request; what moves on is embedded after its commit
_MERGING_NS: Final = 20_000_000  # of built-in merges under one hold of the lock


class Wanted(NamedTuple):
    """What most of a batch is judged by, to be read in one go, and how it is to be committed.

    Attributes:
        places: whose heads.
        operations: the (scope, op_id) pairs.
        looks: what the steps are judged by.
        spaces: whether the spaces are wanted.
        lasts: whether what the batch does must survive a loss of power, as the store was opened.
    """

    places: list[Place]
    operations: list[tuple[str, str]]
    looks: list[Look]
    spaces: bool
    lasts: bool


def wanted(requests: Sequence[Request]) -> Wanted:
    """What a batch of requests is judged by."""
    places: dict[Place, object] = {}
    operations: list[tuple[str, str]] = []
    looks: dict[Look, None] = {}
    spaces = lasts = False
    for request in requests:
        places.update(request.writes)
        if request.touches:
            places.update(request.touches)
        if request.validate and request.reads:
            places.update(request.reads)
        if request.op_id is not None:
            operations.append((request.scope.name, request.op_id))
        if request.steps:
            looks[NUMBER] = None
            for step in request.steps:
                looks.update(dict.fromkeys(step.looks()))
        spaces = spaces or request.has_vectors
        lasts = lasts or request.lasts
    return Wanted(list(places), operations, list(looks), spaces, lasts)


class Judge:
    """Judges one batch, in one write session. Also the `World` that requests are held against.

    Attributes:
        now: the commit time of every commit of the batch: never before that of the last commit.
        rows: what the batch appends.
    """

    def __init__(
        self,
        session: WriteSession,
        start: Start,
        registry: MergeRegistry,
        limits: Limits,
        marker: Marker,
    ) -> None:
        position, self._heads, self._operations, self._spaces, _moment, answers = start
        self.now = position.now
        marker.begin(position.revision)
        self._tail = Tail(position, marker)
        self.rows = self._tail.rows
        self._session = session
        self._registry = registry
        self._limits = limits
        self._changed: dict[Place, None] = {}
        self._stored: list[StoredStrategy] | None = None
        self._merging_ends_ns = 0
        self._steps = StepJudge(session, start, self.rows) if answers else None

    # The world that requests are held against.

    def head(self, place: Place) -> EntryRow | None:
        """See `World.head`."""
        try:
            return self._heads[place]
        except KeyError:
            self._heads |= self._session.heads([place])
            return self._heads[place]

    def heads(self, places: Collection[Place]) -> dict[Place, EntryRow | None]:
        """See `World.heads`."""
        if unread := [place for place in places if place not in self._heads]:
            self._heads |= self._session.heads(unread)
        return {place: self._heads[place] for place in places}

    def entry_at(self, place: Place, revision: int) -> EntryRow | None:
        """See `World.entry_at`. Bases lie before the batch, so the session sees them."""
        return self._session.entry_at(place, revision)

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        """See `World.entry_version`."""
        head = self.head(place)
        if head is not None and head.version == version:
            return head
        return self._session.entry_version(place, version)

    def changed_since(
        self, revision: int, within: Range, expired: tuple[int, int]
    ) -> Iterable[Place]:
        """See `World.changed_since`; what the batch itself changed comes on top."""
        places = dict.fromkeys(self._session.changed_since(revision, within, expired))
        return places | self._changed

    def embedded_since(self, revision: int, within: Range, set_id: int) -> Iterable[Place]:
        """See `World.embedded_since`."""
        return self._session.embedded_since(revision, within, set_id)

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        """See `World.vectors`; those of the batch itself are not stored yet."""
        by_id = {vector_id(set_id, each): each for each in entries}
        # Of two of one entry the first is kept.
        rows = [row for row in reversed(self.rows.vectors) if row.id in by_id]
        own = {by_id[row.id]: row.vector for row in rows}
        unread = [each for each in entries if each not in own]
        return own | self._session.vectors(set_id, unread) if unread else own

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        """See `World.text_scores`."""
        return self._session.text_scores(words, texts)

    # Judging.

    def decide(self, request: Request) -> None:
        """Sets the request's verdict. A rejected request leaves no trace but its record."""
        if request.op_id is not None:
            known = self._operations.get((request.scope.name, request.op_id))
            if known is not None:
                request.receipt = Receipt(known.revision, None, [], known=known)
                return
        # First: who is fenced off need not hear of conflicts.
        changes = self._steps.judge(request) if self._steps and request.steps else []
        if request.pinned:
            if request.base_revision < self._tail.revision:
                check_floor(request.base_revision, self._session.floor())
        else:
            request.base_revision = self._tail.revision
        finals, stale, records = self._final_writes(request)
        if request.merges is not None:
            return
        if request.touches:
            stale += self._touched_and_gone(request)
        if request.validate and (request.reads or request.scans):
            stale = self._with_stale_reads(request, stale, records)
        if request.watch is not None:
            stale += self._met_since(request.watch)
        if stale:
            self._reject(request, stale)
            return
        if request.has_vectors and finals and self._lacks_vectors(request, finals):
            return
        self._accept(request, finals, records, changes)

    def _met_since(self, watch: Watch) -> list[StaleItem]:
        """What commits since, earlier ones of this batch included, have read and should not."""
        since = self._session.reads_of(watch.revision, self._tail.revision)
        met = watch.met([*since, *self.rows.reads])
        return [
            StaleItem(place, "read", version, version, None, self.head(place))
            for place, version in met
        ]

    # Vectors.

    def spaces(self) -> Spaces:
        """See `World.spaces`; with those that this batch has claimed."""
        if self._spaces is None:
            self._spaces = self._session.spaces()
        return self._spaces

    def _lacks_vectors(self, request: Request, finals: dict[Place, Outcome]) -> bool:
        """Gives the outcomes their vectors; True if texts must be embedded first."""
        missing: dict[str, None] = {}
        claims: dict[str, tuple[str, int]] = {}
        given: list[tuple[Outcome, str, bytes]] = []
        for place, final in finals.items():
            found = wanted_vector(request, place, final, self.spaces(), claims)
            if found is None:
                continue
            if isinstance(found, bytes):
                given.append((final, top_label(place[0]), found))
            elif request.embeddings < _EMBEDDINGS:
                missing[found] = None
            else:
                final.pending = True  # it moves faster than it can be embedded
        if missing:
            request.texts = list(missing)
            return True
        for label, (embedder, dimension) in claims.items():
            self._claim(label, embedder, dimension)
        for final, label, vector in given:
            final.vector = (self.spaces().of[label], vector)
        return False

    def _set_of_late(self, request: Request, namespace: str, vector: bytes) -> int | None:
        """The set of a vector that comes late; None if the space is another embedder's now."""
        assert request.embedder is not None, "it has made the vector"
        label, made = top_label(namespace), (request.embedder.identity, len(vector) // 4)
        if label not in self.spaces().of:
            self._claim(label, *made)
        found = set_of(self.spaces(), label)
        return found.id if found is not None and found[1:] == made else None

    def _claim(self, label: str, embedder: str, dimension: int) -> None:
        known = self.spaces()
        # What the session gave belongs to others, too, and this batch may come to nothing.
        sets, of = dict(known.sets), dict(known.of)
        self._spaces = Spaces(sets, of)
        same = [each.id for each in sets.values() if each[1:] == (embedder, dimension)]
        set_id = same[0] if same else max(sets, default=0) + 1
        if not same:
            new = VectorSet(set_id, embedder, dimension)
            sets[set_id] = new
            self.rows.sets.append(new)
        of[label] = set_id
        self.rows.spaces.append((label, set_id))

    # Writes.

    def _final_writes(
        self, request: Request
    ) -> tuple[dict[Place, Outcome], list[StaleItem], list[ConflictRow]]:
        finals: dict[Place, Outcome] = {}
        stale: list[StaleItem] = []
        records: list[ConflictRow] = []
        pending: list[PendingMerge] = []
        for place, write in request.writes.items():
            head = self.head(place)
            if write.create_only and visible_version(head, self.now):
                raise AccessDeniedError(
                    f"{_display(request, place)!r} is there, and access 'append' cannot replace it",
                    namespace=request.scope.relative(place[0]),
                    key=place[1],
                    access="write",
                )
            if write.steps:
                finals[place] = self._apply_steps(request, place, write, head)
                continue
            item = stale_write(request, place, write, self)
            if item is None:
                if write.base == BLIND and request.forbid_blind and self._foreign(request, head):
                    stale.append(_blind_item(place, write, head))
                final = Outcome(
                    write.operation, write.value, write.text, None, None, write.ttl_us,
                    write.expires_at,
                )  # fmt: skip
                final.base = base_version(write, head, self.now)
                final.words = write.words
                if write.keep and head is not None and head.visible_at(self.now):
                    self._keep(final, head)
                finals[place] = final
                continue
            merged = self._merge(request, item, write, records, pending)
            if merged is not None:
                finals[place] = merged
            else:
                stale.append(item)
        if pending and len(pending) == len(stale):
            # Nothing but merges stands in the way: the caller's thread runs the hooks.
            request.merges = pending
        return finals, stale, records

    def _apply_steps(
        self, request: Request, place: Place, write: Write, head: EntryRow | None
    ) -> Outcome:
        version = visible_version(head, self.now)
        present = version and head is not None
        value = load(head.value or "null") if present and head else start_of(write.steps[0][0])
        name = _display(request, place)
        for operation, operand in write.steps:
            value = apply_step(operation, operand, value, name)
        # A text given before would describe the value before, so it follows from the value now.
        final = Outcome(write.operation, dump(value, self._limits), None, version)
        if place in request.touches:
            final.ttl_us = request.touches[place].ttl_us
        elif present and head:
            self._keep(final, head)
        if final.text is None and present and head and head.text == "":
            final.text = ""
        return final

    def _keep(self, final: Outcome, head: EntryRow) -> None:
        """Lets the expiry and the hiding of what is replaced live on."""
        if final.text is None and head.text == "":
            final.text = ""
        if final.ttl_us is None and head.expires_at is not None:
            final.expires_at = head.expires_at
            final.ttl_us = head.expires_at - self.now

    def _with_stale_reads(
        self, request: Request, stale: list[StaleItem], records: list[ConflictRow]
    ) -> list[StaleItem]:
        """The stale writes, with the stale reads and scans that nothing excuses."""
        found = stale_reads(request, self) + stale_scans(request, self)
        if not found:
            return stale
        # A stale read of a key is excused if the transaction's only write (atomic operations
        # aside) is to that key and was merged: the merge has seen what the read had not.
        full = [place for place, write in request.writes.items() if not write.steps]
        merged = {(record.namespace, record.key) for record in records}
        excused = full[0] if len(full) == 1 and full[0] in merged else None
        known = {item.place for item in stale}
        return stale + [
            item
            for item in found
            if item.place not in known and not (item.kind == "read" and item.place == excused)
        ]

    def _merge(
        self,
        request: Request,
        item: StaleItem,
        write: Write,
        records: list[ConflictRow],
        pending: list[PendingMerge],
    ) -> Outcome | None:
        """What a hook or strategy makes of a stale write; None if it stays stale, for now."""
        if not (request.merge and write.merge):
            item.reason = write.refused
            return None
        if item.seen_version and item.base is None:
            item.reason = f"version {item.seen_version}, which it started from, is not in the log"
            return None
        if write.merged is not None and write.merged.against == item.version:
            done = write.merged
            kept = kept_text(write.value, done.details)
            records.append(self._record(request, item, done.status, done.name, kept))
            return self._merged_final(write, done.value, item, done.name)
        if self._stored is None:
            self._stored = parse_strategies(self._session.strategies())
        match = self._registry.match(decode(item.place[0]), item.place[1], self._stored)
        match = match or write.otherwise
        if match is None:
            return None
        if match.strategy is None or not self._may_merge_here(item, write):
            pending.append(PendingMerge(item, match))
            return None
        try:
            outcome = match.strategy.resolve_values(*sides(item, write))
        except Unmergeable as error:
            item.reason = str(error)
            return None
        except Exception as error:
            raise merge_error(request, item, match.name, error) from error
        value = None if outcome.value is DELETED else dump(outcome.value, self._limits)
        status = merge_status(outcome)
        kept = kept_text(write.value, None)
        records.append(self._record(request, item, status, match.name, kept))
        return self._merged_final(write, value, item, match.name)

    def _may_merge_here(self, item: StaleItem, write: Write) -> bool:
        """Whether a merge is small enough to be done while others wait for the lock."""
        size = sum(
            len(text or "")
            for text in (
                item.base.value if item.base else None,
                item.theirs.value if item.theirs else None,
                write.value,
            )
        )
        now_ns = time.monotonic_ns()
        if not self._merging_ends_ns:
            self._merging_ends_ns = now_ns + _MERGING_NS
        return size <= self._limits.max_merge_bytes and now_ns < self._merging_ends_ns

    def _merged_final(self, write: Write, value: str | None, item: StaleItem, name: str) -> Outcome:
        # A text given for the value that was not kept would tell search something else.
        text = write.text if value == write.value or write.text == "" else None
        operation = DELETE if value is None else PUT
        return Outcome(
            operation, value, text, item.seen_version, name, write.ttl_us, write.expires_at
        )

    def _foreign(self, request: Request, head: EntryRow | None) -> bool:
        return bool(visible_version(head, self.now)) and (
            head is not None and head.agent != request.agent
        )

    def _reject(self, request: Request, stale: list[StaleItem]) -> None:
        request.stale = stale
        if request.record:
            for item in stale:
                self.rows.conflicts.append(self._record(request, item, "rejected", None))

    def _record(
        self,
        request: Request,
        item: StaleItem,
        status: str,
        strategy: str | None,
        ours: str | None = None,
    ) -> ConflictRow:
        return ConflictRow(
            None,
            *item.place,
            status,
            item.kind,
            strategy,
            item.seen_version,
            item.version,
            ours,
            request.agent,
            request.op_id,
            None,
            self.now,
            None,
        )

    def _accept(
        self,
        request: Request,
        finals: dict[Place, Outcome],
        records: list[ConflictRow],
        changes: list[Change],
    ) -> None:
        rows = self.rows
        mark = self._steps.accept(request, changes) if self._steps and changes else None
        touched = self._touches(request, finals) if request.touches else []
        if request.change is not None:
            if request.change.name == "set_tag":  # it keeps the floor from rising, from now on
                check_floor(request.change.values["revision"], self._session.floor())
            request.change.values.setdefault("revision", self._tail.revision + 1)
            rows.changes.append(request.change)
        writes = []
        for place, final in sorted(finals.items()) if len(finals) > 1 else finals.items():
            if final.value is not None or self._deletes(request, place):
                writes.append((place, final))
        conflicts = (*request.earlier, *records)
        if not writes and request.op_id is None and not request.late:
            rows.settled += request.settled
            request.receipt = Receipt(None, None, [], touched, mark=mark)
            rows.conflicts += conflicts
            return
        blind_over = self._blind_over(request)
        written = self._tail.append(request, writes, self._heads)
        revision = self._tail.revision
        for entry_id, namespace, vector in request.late:
            set_id = self._set_of_late(request, namespace, vector)
            if set_id is not None:
                self._tail.add_vector(set_id, entry_id, revision, vector)
        rows.settled += request.settled
        for record in conflicts:
            rows.conflicts.append(record._replace(revision=revision))
        for row in written:
            place = (row.namespace, row.key)
            self._heads[place] = row
            self._changed[place] = None
        if request.op_id is not None:
            known = KnownOperation(revision, request.fingerprint)
            self._operations[request.scope.name, request.op_id] = known
        request.receipt = Receipt(revision, self.now, written, touched, blind_over)

    def _deletes(self, request: Request, place: Place) -> bool:
        """Whether a delete writes a tombstone: deleting what is absent writes nothing."""
        head = self._heads.get(place)
        present = bool(visible_version(head, self.now))
        buries = request.writes[place].buries
        if not buries:
            return present
        holds = head is not None and head.value is not None
        return holds and (buries == "any" or not present)

    def _touched_and_gone(self, request: Request) -> list[StaleItem]:
        gone = []
        for place in request.touches:
            head = self.head(place)
            if visible_version(head, self.now):
                continue
            if not request.pinned:
                raise missing(request.scope, place)
            seen = request.reads.get(place, 0)
            gone.append(StaleItem(place, "read", seen, 0, head, None))
        return gone

    def _touches(self, request: Request, finals: dict[Place, Outcome]) -> list[EntryRow]:
        touched = []
        for place, touch in request.touches.items():
            head = self.head(place)
            if head is None or place in finals:  # an atomic operation has taken it over
                continue
            expires_at = None if touch.ttl_us is None else self.now + touch.ttl_us
            moved = head._replace(expires_at=expires_at)
            self._heads[place] = moved
            self.rows.touches.append((expires_at, head.id))
            touched.append(moved)
            if request.op_id is not None and not request.pinned:
                first = {"version": head.version, "expires_at": expires_at}
                request.result = canonical(first).decode()
        return touched

    def _blind_over(self, request: Request) -> list[tuple[Place, int, str | None]]:
        over = []
        for place, write in request.writes.items():
            if write.warn and write.base == BLIND:
                head = self._heads[place]
                if head is not None and self._foreign(request, head):
                    over.append((place, head.version, head.agent))
        return over


def sides(item: StaleItem, write: Write) -> tuple[Any, Any, Any]:
    """Base, theirs and ours of a stale write, as values for a strategy."""
    base = (
        MISSING if item.base is None or not item.seen_version else load(item.base.value or "null")
    )
    theirs = DELETED if item.theirs is None else load(item.theirs.value or "null")
    ours = DELETED if write.value is None else load(write.value)
    return base, theirs, ours


def merge_status(outcome: MergeOutcome) -> str:
    """How a merge goes on record: a parked change is an open conflict."""
    return "open" if outcome.parks else "merged"


def merge_error(request: Request, item: StaleItem, name: str, error: BaseException) -> MergeError:
    """What the caller gets for a hook or strategy that raised; raise it ``from`` the error."""
    place = item.place
    return MergeError(
        f"merge {name!r} of {_display(request, place)!r} raised {type(error).__name__}: {error}; "
        "nothing was written",
        namespace=request.scope.relative(place[0]),
        key=place[1],
    )


def _blind_item(place: Place, write: Write, head: EntryRow | None) -> StaleItem:
    item = StaleItem(place, "write", 0, head.version if head else 0, None, head, write)
    item.reason = "the store forbids blind writes over another agent's version"
    return item


def _display(request: Request, place: Place) -> str:
    return display_key(request.scope.relative(place[0]), place[1])


def check_writes(count: int, limits: Limits) -> None:
    """Raises if a transaction writes more keys than it may."""
    if count > limits.max_writes:
        raise LimitExceededError(
            f"a transaction of {count} writes; at most {limits.max_writes} are allowed; "
            "commit in parts",
            limit=limits.max_writes,
            actual=count,
        )
