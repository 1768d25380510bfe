"""``store.admin``: statistics, verification, indexes, backups, exports, retention."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, BinaryIO

from agentmem.core import Core
from agentmem.errors import InvalidValueError
from agentmem.exchange.backup import Backup, back_up
from agentmem.exchange.exporting import Exported, export_to
from agentmem.exchange.loading import Loaded, load_from
from agentmem.history.compact import CompactReport, Keep, compact
from agentmem.history.copy import Progress
from agentmem.history.doomed import Doomed
from agentmem.history.purge import PurgeReport, purge
from agentmem.history.verify import Report, verify
from agentmem.model import to_datetime
from agentmem.namespaces import encode
from agentmem.scope import Scope
from agentmem.search.embedders import resolve
from agentmem.search.embedding import embed_pending, reindex
from agentmem.snapshot import resolve_at
from agentmem.values import check_label_text, check_number

__all__ = ["Admin"]


class Admin:
    """Looks after a whole store. Made by `Store.admin`."""

    __module__ = "agentmem"

    def __init__(self, core: Core, scope: Scope) -> None:
        self._core = core
        self._scope = scope

    def stats(self) -> dict[str, Any]:
        """Sizes and numbers of a store, as JSON values.

        ``engine``, ``location``, ``durability``, ``store_id``, ``revision``, ``committed_at``
        (ISO 8601, None for an empty store), ``floor``, ``commits``, ``entries``, ``keys`` (deleted
        ones included), ``conflicts``, ``open_conflicts``, ``open_purges`` (that have to be
        run again), ``database_bytes``, ``wal_bytes``,
        ``embedder`` (that of this process, or None), ``vectors`` (how many entries of the present
        have one), ``pending_vectors`` (how many have yet to get one), ``index`` (``exact``, or
        ``chroma`` if one is published), ``index_watermark`` (the revision that it holds, or
        None), ``index_lag`` (entries that came after it).
        """
        self._core.check_open()
        engine = self._core.engine
        position = engine.position()
        committed_at = to_datetime(position.committed_at).isoformat() if position.revision else None
        return {
            **engine.describe(),
            "store_id": engine.store_id,
            "revision": position.revision,
            "committed_at": committed_at,
            **engine.counts(),
            "open_purges": sum(not row.finished for row in engine.purges()),
            **self._core.searcher.stats(),
        }

    def reindex(
        self,
        embedder: object = None,
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> int:
        """Embeds every version of every entry anew, beside the vectors that are there.

        Searches and writers go on with the old vectors until all is done; then every namespace
        changes over in one transaction, and this store uses the embedder from there on. Other
        processes with the old embedder get an `EmbedderError` that says so. After an interruption
        another run goes on with what is left.

        Args:
            embedder: as for `agentmem.open`; None is that of the store.
            progress: called with what is being done, how many are done, and of how many (0 if
                that is not known).

        Returns: how many entries this run embedded.

        Raises:
            EmbedderError: there is none, or it failed; the old vectors are still in use.
        """
        self._core.check_open()
        return reindex(self._core, resolve(embedder), progress)

    def index(self, *, progress: Callable[[str, int, int], None] | None = None) -> int:
        """Brings what is derived up to date: vectors that were deferred or missed, and indexes.

        Args:
            progress: as for `reindex`.

        Returns: how many entries got a vector.

        Raises:
            EmbedderError: the embedder failed; what was done before stays.
            MissingExtraError: the store was opened with ``index="chroma"`` without Chroma.
        """
        self._core.check_open()
        done = embed_pending(self._core, progress, missing=True)
        self._core.searcher.indexes.build(progress)
        return done

    def backup(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Backup:
        """Writes the whole store, at one revision, into a new SQLite file, and verifies it.

        Agents go on reading and writing meanwhile. The file is a store: it can be opened, and
        copied back to a server. It has the mode 0600, and gets its name when all of it is on the
        disk and verified; whatever fails or is killed before leaves nothing under that name.
        From a server, tags, conflicts and expiries are those of about the same time.

        Args:
            path: of the file, on a local disk.
            overwrite: replace a file that is there, unless it is a database in use.
            progress: called with what is being done, how far it is, and of how much.

        Returns: which revision and hash it holds.

        Raises:
            StorageError: there is such a file, it cannot be written, or the store fails.
            DiskFullError: nothing is left behind.
            CorruptionError: the store is damaged; no backup was made.
        """
        self._core.check_open()
        return back_up(
            self._core.engine,
            path,
            overwrite=overwrite,
            progress=progress,
            lock_timeout_ms=self._core.limits.lock_timeout_ms,
        )

    def export(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        at: object = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Exported:
        """Writes the store as lines of JSON: its whole history, or what one revision shows.

        A history has commits, entries with their digests, op ids and results, reads, vectors,
        conflicts, tags and merge strategies, up to the revision as of now, and can be loaded into
        an empty store of either engine. Agents go on writing meanwhile.

        Args:
            target: a path, compressed if it ends in ``.gz``, or an open binary stream. A file has
                the mode 0600, and is there whole or not at all.
            at: only the entries that are visible at a revision, a tag or an aware datetime.
            overwrite: replace a file that is there.
            progress: called with what is being done, how far it is, and of how much (0 if that is
                not known).

        Raises:
            RevisionError: `at` cannot be read.
            StorageError: there is such a file, it cannot be written, or the store fails.
            DiskFullError: nothing is left behind.
        """
        self._core.check_open()
        view = None if at is None else resolve_at(self._core, self._scope, at)
        return export_to(self._core, target, view, overwrite=overwrite, progress=progress)

    def load(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        existing: str = "refuse",
        agent: str | None = None,
        note: str | None = None,
        progress: Progress | None = None,
    ) -> Loaded:
        """Loads what `export` wrote, with either engine, compressed or not.

        The whole file is checked before anything is written. A history goes into an empty store,
        with its revisions, versions and hashes; one that was interrupted goes on where it was when
        it is loaded again. The entries of one revision go into any store, as new versions, in
        commits of at most 500; the same file applies once, however often it is loaded.

        Args:
            source: a path, or an open binary stream.
            existing: of one revision: what if a key is there already: ``"refuse"``
                (`ConflictError`, nothing is written), ``"keep"`` it as it is, or ``"replace"`` it.
            agent, note: of the commits, for one revision.
            progress: as for `export`.

        Raises:
            InvalidValueError: it is no export, or a line is not what it should be; says which
                line, and why. Nothing was written.
            CorruptionError: it was cut off or changed. Nothing was written.
            HistoryReplacedError: the store is not empty, and its history is another.
            ConflictError: keys are there already, with ``existing="refuse"``.
        """
        self._core.check_open()
        return load_from(
            self._core,
            self._scope,
            source,
            existing=existing,
            agent=agent,
            note=note,
            progress=progress,
        )

    # Retention.

    def compact(
        self,
        keep: timedelta | None = None,
        *,
        keep_revision: int | None = None,
        keep_versions: int | None = None,
        keep_results: timedelta | None = None,
        vacuum: bool = False,
        dry_run: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> CompactReport:
        """Drops superseded versions that nobody needs any more, and buries what has expired.

        What is to be kept is kept by each bound that is given; without any of `keep`,
        `keep_revision` and `keep_versions`, no version is dropped. Afterwards the store can be
        read at the report's ``floor`` and at every later revision as before; at an older one, and
        in transactions and snapshots that are based on one, a call raises `CompactedError`.
        The newest version of each key stays, and what a tag names: a tag keeps the floor at or
        below its revision. Commits, their hashes and operation ids stay. Others read and write
        meanwhile: it works in short turns.

        Args:
            keep: what could be read so long ago can be read afterwards.
            keep_revision: this revision can be read afterwards.
            keep_versions: so many of the newest versions of each key stay in its history.
            keep_results: stored results of operations that are older are dropped; repeating
                such an operation then returns None, and still applies nothing.
            vacuum: give the space back to the file system as well, for which writers wait;
                else it is used for what is written next.
            dry_run: write nothing, and tell what would be done.
            progress: called with what is being done, how far it is, and of how much (0 if that
                is not known).

        Raises:
            FutureRevisionError: `keep_revision` is not there yet.
            StoreBusyError: with `vacuum`, somebody reads an older state.
        """
        self._core.check_open()
        wanted = Keep(keep, keep_revision, keep_versions, keep_results)
        report = compact(self._core, self._scope, wanted, dry_run=dry_run, progress=progress)
        if vacuum and not dry_run:
            told = progress or (lambda _what, _done, _of: None)
            if self._core.engine.scrub(
                self._core.limits.lock_timeout_ms, lambda done, of: told("cleaning", done, of)
            ):
                self._core.searcher.indexes.build(told)
        return report

    def purge(
        self,
        key: str | None = None,
        *,
        namespace: object = None,
        agent: str | None = None,
        note: str | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> PurgeReport:
        """Erases a key with its whole history, or all keys of a namespace and below it.

        Erased are values, texts, vectors, stored results and fingerprints of the operations that
        wrote or read them, what searches and scans there asked for, copies in conflicts on
        record; and what the files keep of rows that are gone. What stays is that there were
        versions: who wrote them, when, under which key, with which note and metadata, and a
        digest that tells nothing of the value. So the log still verifies, versions go on where
        they were, and `history` shows for each erased version when and by whom it was purged.
        Every view sees the key as absent, snapshots of before included.

        A key that is written again meanwhile or afterwards is kept from that write on. Others
        read and write all the while, except during the last step, which rewrites the file (or
        the tables, on a server) while writers wait. After an interruption, run it again.

        Args:
            key: without it, the whole namespace goes; of the whole store: ``namespace=()``.
            namespace: of the key, None is the root; or that which goes.
            agent, note: who and why, for the record and the log.
            progress: called with what is being done, how far it is, and of how much (0 if that
                is not known).

        Raises:
            KeyMissingError: the key was never written.
            StoreBusyError: somebody reads an older state, or has an index open, and so keeps
                bytes of what was erased; the message says who. Run it again afterwards.
        """
        self._core.check_open()
        if key is None and namespace is None:
            raise InvalidValueError(
                "name a key or a namespace to purge; the whole store is namespace=()"
            )
        if key is not None:
            doomed = Doomed(*self._scope.place(namespace, key))
        else:
            doomed = Doomed(encode(self._scope.labels(namespace)), None)
        limits = self._core.limits
        who = check_label_text(agent, "agent", limits)
        who = self._scope.agent if who is None else who
        why = check_label_text(note, "note", limits)
        return purge(self._core, self._scope, doomed, who, why, progress)

    def verify(
        self,
        *,
        expected: tuple[int, str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Reads the whole log and proves that it is whole and that what is derived agrees.

        Checked: the hash chain, revisions and (above the floor) entries and versions without a
        gap, digests of all values, merge parents, purges on record, operation ids applied once,
        heads, the text index, vectors, marks, the checksums of the rows beside the log, and the
        database's own integrity. Not covered: expiries, which `touch` moves, stubs of purged
        versions beyond key, version and revision, rows beside the log that agentmem itself has
        changed since (a resolved conflict), and that such a row is missing.

        Args:
            expected: (revision, hash) of an earlier report, kept elsewhere: the log must still
                hold that commit. What was replaced by an older backup is noticed by nothing else.
            progress: called with (revisions read, latest revision) from time to time.
        """
        self._core.check_open()
        if expected is not None:
            check_number(expected[0], "the expected revision")
        return verify(self._core.engine, progress, expected)
