"""A store as plain dicts: what DESIGN says of versions, expiry, transactions, merges and op_ids.

It shares no code with agentmem. Time is counted in seconds, namespaces are tuples of labels,
values are plain JSON without floats. Where the design leaves an implementation free to be more
careful than it must (a scan over a key that an own write hides, say), the verdict is EITHER.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

__all__ = [
    "BLIND",
    "DELETED",
    "SNAPSHOT",
    "Model",
    "Place",
    "Refused",
    "Scan",
    "Tx",
    "Verdict",
    "Version",
    "Write",
    "applied",
    "order",
    "spell",
]

Place = tuple[tuple[str, ...], str]
Step = tuple[str, Any]

BLIND: Final = -2
SNAPSHOT: Final = -1


class _Marker(Enum):
    DELETED = "no value (any more)"


DELETED: Final = _Marker.DELETED


class Refused(Exception):  # noqa: N818  # a verdict, not an error
    """An operation meets a value of the wrong type, or a merge cannot keep both sides."""


class Verdict(Enum):
    """What a commit must come to."""

    COMMIT = "it holds"
    CONFLICT = "it is stale"
    EITHER = "an implementation may be more careful than it must"
    INVALID = "an atomic operation meets the wrong type"


def order(place: Place) -> tuple[tuple[bytes, ...], bytes]:
    """Bytewise order of (namespace, key)."""
    return tuple(label.encode() for label in place[0]), place[1].encode()


def spell(value: Any) -> str:
    """A value such that booleans, numbers and texts are told apart."""
    return "gone" if value is DELETED else json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class Version:
    """One version of one key; `value` is DELETED for a tombstone."""

    number: int
    revision: int
    value: Any
    text: str | None
    hidden: bool
    created_at: int
    committed_at: int
    expires_at: int | None
    agent: str | None
    op_id: str | None

    def visible_at(self, instant: int) -> bool:
        return self.value is not DELETED and (self.expires_at is None or self.expires_at > instant)


@dataclass
class Write:
    """A put, a delete, or atomic operations on one key."""

    value: Any = DELETED
    steps: tuple[Step, ...] = ()
    base: int = SNAPSHOT
    merge: bool = True
    ttl: int | None = None
    text: str | None = None
    hidden: bool = False
    keep: bool = False


@dataclass
class Scan:
    """A range that was read, and what was found in it."""

    namespace: tuple[str, ...]
    prefix: str
    matches: Callable[[Any], bool]
    presence: bool
    upto: Place | None = None
    found: dict[Place, int] = field(default_factory=dict)

    def covers(self, place: Place) -> bool:
        inside = place[0][: len(self.namespace)] == self.namespace
        within = self.upto is None or order(place) <= order(self.upto)
        return inside and within and place[1].startswith(self.prefix)


@dataclass
class Tx:
    """A transaction: its view, what it has read, what it has written."""

    revision: int
    instant: int
    serializable: bool = True
    op_id: str | None = None
    reads: dict[Place, int] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)
    writes: dict[Place, Write] = field(default_factory=dict)
    touches: dict[Place, int | None] = field(default_factory=dict)


def applied(steps: Iterable[Step], value: Any) -> Any:
    """A value after atomic operations; DELETED is what an absent key holds."""
    for operation, operand in steps:
        start: Any = {"increment": 0, "patch": {}}.get(operation, [])
        value = start if value is DELETED else value
        if type(value) is not type(start):
            raise Refused(operation)
        if operation == "increment":
            value = value + operand
        elif operation == "append":
            value = [*value, *operand]
        elif operation == "add_to_set":
            for item in operand:
                if spell(item) not in map(spell, value):
                    value = [*value, item]
        else:
            value = _patched(value, operand)
    return value


def _patched(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = _patched(result.get(name), change)
    return result


def merged(strategy: str, base: Any, theirs: Any, ours: Any) -> Any:
    """The three-way merge of the strategies that the machine stores: counter and union."""
    before, mine, other = spell(base), spell(ours), spell(theirs)
    if other == before:
        return ours
    if mine == before:
        return theirs
    if DELETED in (theirs, ours):
        if mine == other:
            return DELETED
        raise Refused("one side deleted what the other changed")
    if strategy == "counter":
        numbers = (0 if base is DELETED else base, theirs, ours)
        if any(type(number) is not int for number in numbers):
            raise Refused("no number")
        return numbers[1] + numbers[2] - numbers[0]
    if mine == other:
        return theirs
    lists = ([] if base is DELETED else base, theirs, ours)
    if any(type(each) is not list for each in lists):
        raise Refused("no list")
    old, left, right = ({spell(item): item for item in each} for each in lists)
    kept = [item for text, item in old.items() if text in left and text in right]
    both = left | right
    # agentmem orders what was added by its canonical text, which has no spaces.
    added = sorted(
        (json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False), text)
        for text, item in both.items()
        if text not in old
    )
    return kept + [both[text] for _canonical, text in added]


def text_of(version: Version) -> str | None:
    """What search sees of a version."""
    if version.hidden:
        return None
    if version.text is not None:
        return version.text
    return "\n".join(_strings(version.value)) or None


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for name in sorted(value) for text in _strings(value[name])]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []


class Model:
    """The whole store.

    Attributes:
        now: seconds.
        times: committed_at of each revision, from 1 on.
        versions: of each key, oldest first.
        strategies: for all keys of a top-level namespace.
        operations: op_id → (revision, fingerprint or None, result).
    """

    def __init__(self, strategies: dict[str, str]) -> None:
        self.now = 0
        self.times: list[int] = []
        self.versions: dict[Place, list[Version]] = {}
        self.strategies = strategies
        self.operations: dict[str, tuple[int, Any, Any]] = {}

    @property
    def revision(self) -> int:
        return len(self.times)

    # Reading.

    def at(self, place: Place, revision: int, instant: int) -> Version | None:
        """The version that a view sees."""
        before = [each for each in self.versions.get(place, ()) if each.revision <= revision]
        return before[-1] if before and before[-1].visible_at(instant) else None

    def seen(self, place: Place) -> Version | None:
        """The version that is visible now."""
        return self.at(place, self.revision, self.now)

    def state(self, revision: int, instant: int) -> dict[Place, Version]:
        """All that a view sees, in order."""
        found = ((place, self.at(place, revision, instant)) for place in self.versions)
        rows = {place: version for place, version in found if version is not None}
        return {place: rows[place] for place in sorted(rows, key=order)}

    def revision_at(self, instant: int) -> int:
        """The newest revision committed at or before the instant."""
        return sum(time <= instant for time in self.times)

    # Transactions.

    def begin(self, *, serializable: bool = True, op_id: str | None = None) -> Tx:
        return Tx(self.revision, self.now, serializable, op_id)

    def own(self, tx: Tx, place: Place) -> Any:
        """The value that a transaction sees; DELETED if none."""
        row = self.at(place, tx.revision, tx.instant)
        value = DELETED if row is None else row.value
        write = tx.writes.get(place)
        if write is None:
            return value
        return applied(write.steps, value) if write.steps else write.value

    def read(self, tx: Tx, place: Place, *, track: bool = True) -> Any:
        """As `own`, and noted if it depends on the store."""
        write = tx.writes.get(place)
        if track and (write is None or write.steps):
            row = self.at(place, tx.revision, tx.instant)
            tx.reads.setdefault(place, row.number if row else 0)
        return self.own(tx, place)

    def scan(self, tx: Tx, scan: Scan, limit: int | None) -> list[tuple[Place, Any]]:
        """What a scan returns, and the scan noted."""
        rows = self.state(tx.revision, tx.instant)
        found: list[tuple[Place, Any]] = []
        for place in sorted({*rows, *tx.writes}, key=order):
            if not scan.covers(place):
                continue
            value = self.own(tx, place)
            if value is not DELETED and scan.matches(value):
                found.append((place, value))
                if len(found) == limit:
                    scan.upto = place
                    break
        scan.found = self._answer(scan, rows)
        tx.scans.append(scan)
        for place, write in tx.writes.items():
            if write.steps and scan.covers(place):
                self.read(tx, place)
        return found

    def _answer(self, scan: Scan, rows: dict[Place, Version]) -> dict[Place, int]:
        return {
            place: version.number
            for place, version in rows.items()
            if scan.covers(place) and scan.matches(version.value)
        }

    def fold(self, tx: Tx, place: Place, write: Write) -> None:
        """Adds a write to a transaction: several to one key make one version.

        Raises:
            Refused: an atomic operation on an own value of the wrong type.
        """
        earlier = tx.writes.get(place)
        if earlier is not None and write.steps:
            if earlier.steps:
                write = replace(earlier, steps=earlier.steps + write.steps)
            else:
                value = applied(write.steps, earlier.value)
                write = replace(earlier, value=value, text=None)
        elif earlier is not None and write.base == SNAPSHOT and not earlier.steps:
            write = replace(write, base=earlier.base, merge=write.merge and earlier.merge)
        tx.writes[place] = write
        if not write.steps:
            tx.touches.pop(place, None)

    # Judging.

    def base_of(self, tx: Tx, place: Place, write: Write) -> int:
        if write.base != SNAPSHOT:
            return write.base
        row = self.at(place, tx.revision, tx.instant)
        return row.number if row else 0

    def judge(self, tx: Tx) -> tuple[Verdict, dict[Place, Write]]:
        """The verdict on a commit now, and the writes as they would be applied."""
        final: dict[Place, Write] = {}
        stale, merges = False, set()
        for place, write in tx.writes.items():
            row = self.seen(place)
            if write.steps:
                try:
                    value = applied(write.steps, row.value if row else DELETED)
                except Refused:
                    return Verdict.INVALID, {}
                final[place] = replace(write, value=value, keep=True)
                continue
            base = self.base_of(tx, place, write)
            if write.base == BLIND or base == (row.number if row else 0):
                final[place] = write
                continue
            try:
                final[place] = self._merge(place, write, base, row)
                merges.add(place)
            except Refused:
                stale = True
        if stale:
            return Verdict.CONFLICT, {}
        observed = self._observed(tx, merges) if tx.writes or tx.touches else Verdict.COMMIT
        if observed is Verdict.COMMIT and not all(map(self.seen, tx.touches)):
            # Unless it was validated, a touch of what is gone may be nothing or a conflict.
            observed = Verdict.EITHER
        return observed, final

    def _merge(self, place: Place, write: Write, base: int, row: Version | None) -> Write:
        strategy = self.strategies.get(place[0][0]) if place[0] else None
        history = self.versions.get(place, [])
        if strategy is None or not write.merge or base > len(history):
            raise Refused("nothing can merge it")
        before = history[base - 1].value if base else DELETED
        if base and before is DELETED:
            before = None  # a tombstone was named as the base; its value reads as null
        value = merged(strategy, before, row.value if row else DELETED, write.value)
        same = spell(value) == spell(write.value)
        return replace(write, value=value, text=write.text if same else None)

    def _observed(self, tx: Tx, merges: set[Place]) -> Verdict:
        if not tx.serializable:
            return Verdict.COMMIT
        full = [place for place, write in tx.writes.items() if not write.steps]
        excused = full[0] if len(full) == 1 and full[0] in merges else None
        for place, number in tx.reads.items():
            row = self.seen(place)
            if place != excused and (row.number if row else 0) != number:
                return Verdict.CONFLICT
        verdict = Verdict.COMMIT
        rows = self.state(self.revision, self.now)
        for scan in tx.scans:
            answer = self._answer(scan, rows)
            if answer == scan.found:
                continue
            hidden = {place for place in full if place in {*answer, *scan.found}}
            must_differ = [
                {place: number for place, number in each.items() if place not in hidden}
                for each in (answer, scan.found)
            ]
            same_count = scan.presence and len(must_differ[0]) == len(must_differ[1])
            if must_differ[0] == must_differ[1] or same_count:
                verdict = Verdict.EITHER
            else:
                return Verdict.CONFLICT
        return verdict

    # Committing.

    def apply(
        self,
        final: dict[Place, Write],
        *,
        agent: str | None = None,
        op_id: str | None = None,
        touches: dict[Place, int | None] | None = None,
    ) -> tuple[int | None, list[tuple[Place, Version]]]:
        """Commits judged writes; returns the revision, None if none was taken, and versions."""
        for place, ttl in (touches or {}).items():
            self.touch(place, ttl)
        writes = {
            place: write
            for place, write in final.items()
            if write.value is not DELETED or self.seen(place)
        }
        if not writes and op_id is None:
            return None, []
        revision = self.revision + 1
        made = [
            (place, self._version(place, writes[place], revision, agent, op_id))
            for place in sorted(writes, key=order)
        ]
        self.times.append(self.now)
        for place, version in made:
            self.versions.setdefault(place, []).append(version)
        return revision, made

    def _version(
        self, place: Place, write: Write, revision: int, agent: str | None, op_id: str | None
    ) -> Version:
        row = self.seen(place)
        expires_at = None if write.ttl is None else self.now + write.ttl
        hidden = write.hidden
        if write.keep and row is not None:
            expires_at = row.expires_at if write.ttl is None else expires_at
            hidden = hidden or row.hidden
        return Version(
            len(self.versions.get(place, ())) + 1,
            revision,
            write.value,
            write.text,
            hidden,
            row.created_at if row else self.now,
            self.now,
            expires_at,
            agent,
            op_id,
        )

    def touch(self, place: Place, ttl: int | None) -> None:
        """Moves the expiry of a present key."""
        row = self.seen(place)
        if row is not None:
            expires_at = None if ttl is None else self.now + ttl
            self.versions[place][-1] = replace(row, expires_at=expires_at)

    def rebase(self, tx: Tx) -> None:
        """Moves a transaction to now, all that is stale accepted."""
        for place, write in tx.writes.items():
            if write.base >= 0:
                row = self.seen(place)
                write.base = row.number if row else 0
        tx.revision, tx.instant = self.revision, self.now
        for place in tx.reads:
            row = self.seen(place)
            tx.reads[place] = row.number if row else 0
        rows = self.state(self.revision, self.now)
        for scan in tx.scans:
            scan.found = self._answer(scan, rows)
