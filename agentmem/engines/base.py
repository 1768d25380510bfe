"""What an engine is: the protocols here are the specification, for every engine.

An engine keeps rows and knows nothing of what they mean: judging, merging, views and access
are above it, once, for all engines. It gives

* **reads** at a revision, each of them one consistent read that also checks the floor;
* a **write session** (see `agentmem.engines.session`): the store's lock, one database transaction,
  and the rows that a commit reads and writes.

Namespaces are encoded (`agentmem.namespaces.encode`), times are microseconds since 1970 UTC,
values are canonical JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agentmem.engines.rows import (
    Answer,
    CommitRow,
    ConflictRow,
    EntryRow,
    GenerationRow,
    Look,
    Moment,
    Narrowing,
    NewEntry,
    NewVector,
    Place,
    Point,
    Position,
    PurgeRow,
    Range,
    ReadRow,
    Spaces,
    StrategyRow,
    TagRow,
    TextHit,
    VectorRow,
    VectorSet,
)
from agentmem.engines.session import WriteSession
from agentmem.errors import CompactedError

__all__ = ["Engine", "Reading", "check_floor"]


class Reading(Protocol):
    """What one search, of one thread, reads by ids: as of when it began, or later."""

    @property
    def position(self) -> Position:
        """The end of the log."""

    @property
    def spaces_count(self) -> int:
        """How often `Engine.spaces` has changed."""

    def entries(self, ids: Sequence[int], revision: int, *, now: bool) -> list[EntryRow]:
        """The entries with these ids, in any order, without the compacted ones.

        Args:
            revision: of the view that asks: the floor is checked against it.
            now: the floor as of now counts, since other things were read after the reading began;
                False: the one as of when the entries were read will do.
        """

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        """As `Engine.vectors`."""


class TextsAside(Protocol):
    """Texts that the index does not hold, taken apart once and asked for often.

    For one thread at a time.
    """

    def add(self, texts: Mapping[int, str]) -> None:
        """Takes in texts, under ids of their own."""

    def best(
        self, words: Sequence[str], limit: int, also: Collection[int]
    ) -> tuple[dict[int, float], bool]:
        """What those that hold a word score among today's texts of the index.

        Args:
            limit: so many of the best at least, and all that score as the last of them.
            also: those that are given whatever they score.

        Returns: the scores, and whether others hold a word, too.
        """


class Engine(Protocol):
    """A store's rows. Safe for use from many threads of one process.

    Every read is one consistent read and fails with `CompactedError` if it was asked for a
    revision below the floor. Any method raises `ForkedStoreError` in a process that was forked
    after the engine was opened, `ClosedError` after ``close``, and `StorageError` if the storage
    fails.
    """

    name: str
    """``sqlite`` or ``postgres``."""

    pulse_s: float
    """How seldom to ask for `pulse`, at the most: what an answer costs decides."""

    store_id: str
    """Random, made with the store, the same for ever."""

    def check(self) -> None:
        """Raises `ForkedStoreError` or `ClosedError` if the engine cannot be used."""

    def describe(self) -> dict[str, Any]:
        """For people: location, durability, versions. No secrets."""

    def now(self) -> int:
        """The storage's clock, or a good guess of it: for records, not for judging."""

    def session(self) -> WriteSession:
        """A new write session."""

    def unsynced_session(self) -> WriteSession:
        """A new write session for what may be lost with the power, or with the server.

        It waits for no disk, however the engine was opened; all others see it at once.
        """

    def moment(self) -> Moment:
        """The clock of what runs out, or a good guess of it; judging goes by that of `Start`."""

    def look(self, look: Look) -> Answer:
        """Answers a question about coordination; the answer may be out of date at once."""

    def pulse(self) -> object:
        """Another value whenever something was committed since this thread asked last.

        Cheap to ask. Commits of the thread itself need not count.
        """

    def lane(self, timeout_s: float, *, urgent: bool) -> AbstractContextManager[bool]:
        """Around an attempt after a conflict: alone of all processes, if that can soon be had.

        A hint that keeps rivals apart; it guards nothing. Gives whether it was had within
        ``timeout_s``. ``urgent`` asks newcomers to hold back for a moment. One thread of the
        process asks for it at a time.
        """

    def make_way(self) -> None:
        """Before a first attempt: holds back, for a moment, if an urgent one asks for it."""

    def position(self) -> Position:
        """The end of the log."""

    def floor(self) -> int:
        """The compaction floor: the lowest revision that can be read."""

    def changed_since(self, revision: int, within: Range, expired: tuple[int, int]) -> list[Place]:
        """The keys in the range that changed, each once.

        These have an entry above the revision, or one whose ``expires_at`` lies after the first
        and not after the second instant of ``expired``.
        """

    def position_at(self, revision: int) -> Position | None:
        """The commit with that revision, 0 included; None if there is none."""

    def revision_at(self, instant: int) -> int:
        """The newest revision committed at or before the instant; 0 if there is none."""

    def point(self, place: Place, revision: int | None) -> Point:
        """The newest entry of the key at or below the revision (None: the newest of all)."""

    def points(self, places: Sequence[Place], revision: int) -> list[EntryRow]:
        """As ``point``, for many keys in one consistent read; never written keys are left out."""

    def scan(
        self, within: Range, revision: int, limit: int, *, backwards: bool = False
    ) -> list[EntryRow]:
        """The newest entry at or below the revision of each key in the range, in order.

        Tombstones and expired entries are included: at most ``limit`` rows, so that a caller
        can go on after the last one.

        Args:
            backwards: in the opposite order, from the end of the range on; ``after`` and ``upto``
                are the places that are met first and last all the same.
        """

    def namespaces(self, within: Range, revision: int, instant: int) -> list[str]:
        """The namespaces in the range that hold a key visible at (revision, instant), in order."""

    def changed_between(
        self, after: int, upto: int, within: Range, expired: tuple[int, int], limit: int
    ) -> list[Place]:
        """The keys in the range that changed between two ends of the log, each once, in order.

        Args:
            after, upto: ids of entries; those with ``after`` < id <= ``upto`` are looked at.
            expired: as `changed_since`.
            limit: at most so many.
        """

    def changed_keys(
        self, revision: int, within: Range, expired: tuple[int, int], limit: int
    ) -> list[Place]:
        """As `changed_since`, in order and at most ``limit``; the newest entry is looked at.

        It reads the keys in order, so that a caller can go on after the last one.
        """

    def history(self, place: Place, after: int, upto: int, limit: int) -> list[EntryRow]:
        """The versions of the key with ``after`` < revision <= ``upto``, newest first."""

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        """The entry of the key with that version."""

    def commits(
        self, after: int, upto: int | None, limit: int, *, newest_first: bool
    ) -> list[CommitRow]:
        """Commits with ``after`` < revision <= ``upto``, in order or newest first."""

    def commits_in(
        self,
        spans: Sequence[tuple[int, int]],
        wanted: Narrowing,
        limit: int,
        *,
        newest_first: bool,
    ) -> list[CommitRow]:
        """The commits of some spans (after, up to), in order or newest first.

        Args:
            spans: in the order asked for; none overlaps another.
            wanted: others are left out.
            limit: at most so many.
        """

    def blocks(self, name: str, start: int, limit: int, *, newest_first: bool) -> list[int]:
        """The blocks that are marked with a name, from ``start`` on, in order or newest first."""

    def marked_after(self) -> int:
        """The revision up to which nothing was marked."""

    def unmarked(self, marks: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those of these (name, block) that are not marked, for `verify`."""

    def commit_entries(self, commits: Iterable[CommitRow]) -> list[EntryRow]:
        """The entries of these commits, in order of their ids, without the compacted ones."""

    def operation(self, scope: str, op_id: str) -> CommitRow | None:
        """The commit of an op_id; None may be out of date at once."""

    def attempt(self, attempt: bytes, revision: int) -> CommitRow | None:
        """The commit with this revision, if it carries this attempt."""

    def tags(self, scope: str) -> list[TagRow]:
        """The tags of a scope, by name."""

    def conflicts(self, status: str | None, after: int, limit: int) -> list[ConflictRow]:
        """Conflict records with a larger id than ``after``, in order of their ids."""

    def conflict(self, id: int) -> ConflictRow | None:
        """The conflict record with that id."""

    def strategies(self) -> list[StrategyRow]:
        """The stored merge strategies, in order of registration."""

    def chain(self, after: int, limit: int) -> list[tuple[CommitRow, list[NewEntry]]]:
        """Commits with the stored form of their entries, for `verify` and for copies."""

    def reads_of(self, after: int, upto: int) -> list[ReadRow]:
        """What the commits with ``after`` < revision <= ``upto`` had read, by revision."""

    # Provenance. None of these looks at the floor: what was compacted is not found.

    def reads_by(self, revisions: Sequence[int]) -> list[ReadRow]:
        """What these commits had read, by revision and position."""

    def readers(self, entries: Sequence[tuple[str, str, int]]) -> list[ReadRow]:
        """The rows that name one of these (namespace, key, version), scans aside."""

    def scans_over(
        self, namespace: str, after: tuple[int, int, int], past: int, limit: int
    ) -> list[ReadRow]:
        """The scans of a namespace, in order of (base revision, revision, position).

        Args:
            namespace: exactly this; what looked only above or below it is not found.
            after: only those that come later in that order.
            past: only those with a smaller base revision.
            limit: at most so many.
        """

    def unkept(self, after: int) -> int:
        """How many commits with a larger revision had read something that was not kept."""

    def versions(self, wanted: Sequence[tuple[str, str, int, int]]) -> list[EntryRow]:
        """Entries by (namespace, key, version, at most this revision), in any order.

        A revision that lies close above the entry makes it quick to find.
        """

    def successors(self, wanted: Sequence[tuple[str, str, int]]) -> list[EntryRow]:
        """The oldest version of each (namespace, key) above a revision, in any order."""

    def commits_of(self, revisions: Sequence[int]) -> list[CommitRow]:
        """These commits, in any order."""

    def entries_found(self, ids: Sequence[int]) -> list[EntryRow]:
        """As `entries`, whatever the floor is."""

    def all_tags(self) -> list[TagRow]:
        """The tags of all scopes, by scope and name."""

    def expiries(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        """(id, expires_at) of entries with ``after`` < id <= ``upto`` that expire, by id."""

    # Search.

    def reading(self) -> Reading:
        """Begins to read what a search needs."""

    def text_hits(
        self,
        words: Sequence[str],
        within: Range,
        revision: int,
        limit: int,
        also: Sequence[int] = (),
    ) -> list[TextHit]:
        """The current entries at or below the revision that hold a word, best first.

        Args:
            words: as `agentmem.search.words.query_words` makes them; at least one.
            within: a namespace with all below it; its other bounds are not looked at.
            limit: at least so many, and no more than `also` has beyond that.
            also: entries that are given whatever they score, as far as they hold a word.
        """

    def texts_aside(self) -> TextsAside:
        """A place for texts that the index does not hold."""

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        """What these texts would score among today's; 0 for one that holds no word."""

    def spaces(self) -> Spaces:
        """Which vectors the top-level namespaces have."""

    def spaces_count(self) -> int:
        """How often `spaces` has changed."""

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        """The vectors of these entries; those that have none are left out."""

    def vector_revisions(self, set_id: int, entries: Sequence[int]) -> dict[int, int]:
        """The revisions that added vectors to these entries later than with them."""

    def embedded_since(self, revision: int, within: Range, set_id: int) -> list[Place]:
        """The keys in the range whose newest entry got its vector late, above the revision."""

    def vector_rows(
        self, set_id: int, within: Range, after: int, upto: Position, limit: int
    ) -> list[VectorRow]:
        """The vectors of a set as of a revision, page by page, in order of their entries.

        Args:
            within: as `text_hits`.
            after: only entries with a larger id.
            upto: rows that were replaced by then have no vector, those that came later are
                left out.
            limit: at most so many.
        """

    def vector_changes(
        self, set_id: int, within: Range, after: Position, upto: Position
    ) -> list[VectorRow]:
        """What changed between two revisions: each entry, with its vector if it has one.

        Also the vectors that were added late. ``previous`` is set.
        """

    def count_vectors(self, set_id: int, within: Range, limit: int) -> int:
        """How many current entries have a vector in the set; ``limit`` if there are more."""

    def pending_vectors(self, after: int, limit: int) -> list[EntryRow]:
        """Current entries with a larger id that have yet to be embedded, in order of ids."""

    def unembedded(
        self, set_id: int, label: str, after: int, limit: int, *, current: bool
    ) -> list[EntryRow]:
        """Entries without a vector in the set that may have a text, in order of their ids.

        Args:
            label: the top-level namespace, encoded; ``""`` is the root's own keys.
            after: only entries with a larger id.
            current: only the newest of each key; else all versions.
        """

    def text_ids(self) -> list[int]:
        """The entries that the text index holds, for `verify`."""

    def stored_vectors(self, after: int, limit: int) -> list[NewVector]:
        """Vectors of all sets with a larger id, in order of their ids, for `verify`."""

    def generation(self, set_id: int) -> GenerationRow | None:
        """The published index of a set."""

    def build_nearest(self, vector_set: VectorSet) -> bool:
        """Makes an index of a set's vectors that the database keeps with every commit.

        It is done if there is one already, and not done by an engine that has none, for a set
        that has too many dimensions, and while another process does it. Commits go on meanwhile.

        Returns: whether there is one now.
        """

    def nearest(
        self, vector_set: VectorSet, query: bytes, within: Range, k: int
    ) -> list[tuple[int, float]] | None:
        """The current entries near a vector, found by the index of `build_nearest`.

        Args:
            query: a vector as it is stored.
            within: as `text_hits`.
            k: at most so many.

        Returns: (id, cosine, good to about 1e-6) of entries, nearest first. The index can miss
            some, and fewer than ``k`` need not be all. None: there is no index.
        """

    def index_folder(self, set_id: int) -> str | None:
        """Where indexes of a set are kept; None: this engine keeps none in folders."""

    def beside(self, after: int, upto: int) -> dict[int, int]:
        """How many rows the commits of those revisions have beside them; see `CommitRow`.

        Args:
            after, upto: of the revisions above ``after``, up to and including ``upto``.

        Returns:
            By revision, as in ``commits.beside``; those that have none are not there.
        """

    def inspect(self) -> dict[str, Any]:
        """What the database itself finds: ``integrity`` (problems) and ``wrong_heads`` (number)."""

    def back_up(self, path: str, progress: Callable[[int, int], None] | None) -> Position | None:
        """Writes all of the store into an empty file, as it is at one revision; not synced.

        Args:
            progress: called with (done, total), in a unit of the engine's own.

        Returns: the end of the log in the file. None: the store is no file, and nothing was
            written; its rows can be copied.
        """

    def counts(self) -> dict[str, int]:
        """Rows and sizes, for `stats`: commits, entries, keys, conflicts, bytes."""

    # Retention.

    def purges(self) -> list[PurgeRow]:
        """All purges, oldest first."""

    def erasable(
        self, namespace: str, key: str | None, upto: int, after: int, limit: int
    ) -> list[tuple[int, int, str | None]]:
        """(id, revision, value) of the entries that hold something a purge erases, by id.

        Args:
            namespace: encoded.
            key: only this one; None: all of the namespace and below it.
            upto: only entries of this revision or before.
            after: only larger ids.
            limit: at most so many.
        """

    def expired(self, instant: int, after: Place | None, limit: int) -> list[Place]:
        """The keys after a place whose newest entry expired by the instant, in order."""

    def superseded(self, after: int, upto: int, floor: int, versions: int) -> list[tuple[int, int]]:
        """(id, revision) of entries that nobody sees at the floor or later, by id.

        Args:
            after, upto: only ids that are larger than the first, and not than the second.
            floor: another entry of the key has replaced it by this revision.
            versions: not of the newest so many versions of a key.
        """

    def results(self, after: int, limit: int) -> list[tuple[int, str]]:
        """(revision, result) of operations above the revision that have one, by revision."""

    def scrub(self, timeout_ms: int, told: Callable[[int, int], None]) -> bool:
        """Rewrites what the database keeps of rows that are gone: its log, free pages, indexes.

        Writers wait meanwhile. It can be run again, whatever has ended it.

        Args:
            timeout_ms: the longest to wait for others.
            told: called with (steps done, steps).

        Returns: whether an index of `build_nearest` was dropped, which can be made again.

        Raises:
            StoreBusyError: somebody reads an older state, which is therefore still there.
        """

    def close(self) -> None:
        """Releases everything. May be called again."""


def check_floor(revision: int, floor: int) -> None:
    """Raises `CompactedError` if the revision can no longer be read."""
    if revision < floor:
        raise CompactedError(
            f"revision {revision} was compacted; the oldest that can be read is {floor}",
            floor=floor,
        )
