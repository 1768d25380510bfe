"""The write session on PostgreSQL: the store's row locked first, two round trips a commit, or one.

::

    BEGIN; timeouts; lock the row; heads and operations of the batch   (one round trip)
    ... judged by the client ...
    insert commits, entries, heads; move the row; COMMIT                (one round trip)

READ COMMITTED, because the row's lock already makes commits take turns: every statement after it
sees all that was committed before. A client that stops in between is cut off by the server after
a few seconds, so it cannot hold the lock for ever.

A session of one key may begin with a guess and without the lock; then its commit is one statement
that holds only if the guess was right (`ahead`). Whatever it cannot answer by guessing ends it, and
it is run again, with the lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from agentmem.clock import MicrosecondClock
from agentmem.engines.postgres.ahead import Ahead, End
from agentmem.engines.postgres.coordination import CHANGED_BY, values_of
from agentmem.engines.postgres.failures import LostError, ServerError, row_missing, translated
from agentmem.engines.postgres.nearest import Nearest, registered
from agentmem.engines.postgres.pool import Pool
from agentmem.engines.postgres.retention_statements import RETENTION_CHANGES
from agentmem.engines.postgres.searching import SearchReads, appended, cut, spaces_of
from agentmem.engines.postgres.statements import BEGIN, COMMIT, ROLLBACK, Statements
from agentmem.engines.postgres.wire import Rows, Statement, Wire
from agentmem.engines.rows import (
    Answer,
    Change,
    ConflictRow,
    EntryRow,
    KnownOperation,
    Look,
    Moment,
    NewCommit,
    NewEntry,
    Place,
    Position,
    Range,
    ReadRow,
    Spaces,
    Start,
    StrategyRow,
)
from agentmem.engines.session import CommitUnknownError, TryAgainError

__all__ = ["PostgresSession"]

_TRIES: Final = 5
# Judging takes milliseconds. Who needs longer is stopped, swapped out or cut off.
_IDLE_MS: Final = 10_000
_CHANGES: Final = (
    {
        "set_strategy": ("pattern", "spec"),
        "unset_strategy": ("pattern",),
        "set_tag": ("scope", "name", "revision", "created_at", "agent", "note"),
        "unset_tag": ("scope", "name"),
        "resolve_conflict": ("revision", "note", "id"),
        "fence": (),
        "count_spaces": (),
        "move_space": ("set_id", "namespace"),
        "drop_vectors": ("first", "past", "limit"),
        # In a copy.
        "copy_conflict": ConflictRow._fields,
    }
    | CHANGED_BY
    | RETENTION_CHANGES
)
# What goes with a commit of one entry in one round trip, and what does not.
_AHEAD: Final = {"commits", "entries", "results", "marks", "reads", "texts", "gone"}
_BESIDE: Final = [each.name for each in fields(NewCommit) if each.name not in _AHEAD]
_Batch = list[tuple[Statement, Sequence[Any]]]


class PostgresSession:
    """See `agentmem.engines.session.WriteSession`."""

    def __init__(
        self,
        pool: Pool,
        statements: Statements,
        nearest: Nearest,
        ahead: Ahead,
        durability: str,
        clock: MicrosecondClock | None,
    ) -> None:
        self._pool = pool
        self._nearest = nearest
        self._ahead = ahead
        self._statements = statements
        self._synchronous = "off" if durability == "relaxed" else "on"
        self._clock = clock
        self._wire: Wire | None = None
        self._rows: NewCommit | None = None
        self._end: End | None = None  # of the log, as found or as guessed
        self._guessed = False
        self._guessed_head: EntryRow | None = None
        self._timeout_ms = 0
        self._moment: Moment | None = None
        self._indexed: Mapping[int, str] = {}  # sets, see `nearest`
        self._reads = _SessionReads(self)

    def enter(
        self,
        timeout_ms: int,
        places: Sequence[Place],
        operations: Sequence[tuple[str, str]],
        *,
        spaces: bool = False,
        looks: Sequence[Look] = (),
    ) -> Start:
        self._timeout_ms = timeout_ms
        if not (spaces or looks):
            guess = self._ahead.guess(places, operations, self._clock)
            if guess is not None:
                start, self._end = guess
                self._guessed = True
                self._guessed_head = start.heads[places[0]]
                return start
        sql = self._statements
        batch: _Batch = [
            (BEGIN, ()),
            (sql["settings"], (str(timeout_ms), str(_IDLE_MS), self._synchronous)),
            (sql["lock"], ()),
        ]
        if places:
            batch.append((sql["heads"], _columns(places, 2)))
        if operations:
            batch.append((sql["operations"], _columns(operations, 2)))
        if spaces:
            batch.append((sql["spaces"], ()))
        batch += [(sql[look.name], values_of(look, self._clock)) for look in looks]
        answers = self._begun(batch, timeout_ms)
        looked = dict(zip(looks, answers[len(answers) - len(looks) :], strict=True))
        del answers[len(answers) - len(looks) :]
        found = spaces_of(answers.pop()) if spaces else None
        position = self._position(answers[2])
        heads: dict[Place, EntryRow | None] = dict.fromkeys(places)
        known: dict[tuple[str, str], KnownOperation] = {}
        if places:
            heads |= _by_place(answers[3])
            if len(places) == 1 and self._end is not None:
                self._ahead.saw(places[0], heads[places[0]], self._end.fence)
        if operations:
            known = {(row[0], row[1]): KnownOperation(row[2], row[3]) for row in answers[-1]}
        return Start(position, heads, known, found, self._moment, looked)

    def _begun(self, batch: _Batch, timeout_ms: int) -> list[Rows]:
        """The first round trip; nothing was written, so a lost connection only costs another."""
        for tries_left in reversed(range(_TRIES)):
            self._wire = wire = self._pool.take()  # in this order: `release` finds it
            try:
                return wire.run(batch)
            except (ServerError, LostError) as error:
                self.rollback()
                self.release()
                place = self._pool.target.location
                lost = isinstance(error, LostError)
                if isinstance(error, ServerError):
                    self._pool.note(error)
                    lost = error.ended
                    if error.can_try_again:
                        raise TryAgainError(str(error)) from error
                if not lost or not tries_left:
                    raise translated(error, place, waited_ms=timeout_ms) from error
                self._pool.replace_lost()
        raise AssertionError("the last try returns or raises")

    def _position(self, rows: Rows) -> Position:
        if not rows:
            self.rollback()
            self.release()
            raise row_missing(self._pool.target.location)
        *end, indexed, now = rows[0]
        self._end = End._make(end)
        self._indexed = registered(indexed)
        self._ahead.heard(self._end, now, sure=True)
        if self._clock is not None:
            now = self._clock()
        self._moment = Moment("", now)
        return Position(*self._end[:4], max(now, self._end.committed_at))

    def _open(self) -> Wire:
        self.confirm()
        assert self._wire is not None, "the session was not entered"
        return self._wire

    def confirm(self) -> None:
        if self._guessed:
            self._ahead.missed()
            raise TryAgainError("what it judged by was guessed")

    def _read(self, statement: Statement, values: Sequence[Any]) -> Rows:
        return self._run([(statement, values)])[0]

    def _run(self, batch: _Batch) -> list[Rows]:
        try:
            return self._open().run(batch)
        except (ServerError, LostError) as error:
            if isinstance(error, ServerError):
                self._pool.note(error)
                if not error.can_try_again and not error.ended:
                    raise translated(error, self._pool.target.location) from error
            # Nothing was committed yet.
            raise TryAgainError(str(error)) from error

    def heads(self, places: Sequence[Place]) -> dict[Place, EntryRow | None]:
        found: dict[Place, EntryRow | None] = dict.fromkeys(places)
        if places:
            found |= _by_place(self._read(self._statements["heads"], _columns(places, 2)))
        return found

    def entry_at(self, place: Place, revision: int) -> EntryRow | None:
        row = self._read(self._statements["point_at"], (revision, *place))[0]  # the row is locked
        return EntryRow._make(row[1:]) if row[1] is not None else None

    def entry_version(self, place: Place, version: int) -> EntryRow | None:
        rows = self._read(self._statements["entry_version"], (*place, version))
        return EntryRow._make(rows[0]) if rows else None

    def changed_since(self, revision: int, within: Range, expired: tuple[int, int]) -> list[Place]:
        rows = self._read(*self._statements.changed_since(revision, within, expired))
        return [(namespace, key) for namespace, key in rows]

    def strategies(self) -> list[StrategyRow]:
        return [StrategyRow._make(row) for row in self._read(self._statements["strategies"], ())]

    def floor(self) -> int:
        assert self._end is not None, "the session was not entered"
        return self._end.floor

    def spaces(self) -> Spaces:
        return spaces_of(self._read(self._statements["spaces"], ()))

    def vectors(self, set_id: int, entries: Sequence[int]) -> dict[int, bytes]:
        return self._reads.vectors(set_id, entries)

    def text_scores(self, words: Sequence[str], texts: Sequence[str]) -> list[float]:
        return self._reads.text_scores(words, texts)

    def embedded_since(self, revision: int, within: Range, set_id: int) -> list[Place]:
        return self._reads.embedded_since(revision, within, set_id)

    def reads_of(self, after: int, upto: int) -> list[ReadRow]:
        return [
            ReadRow._make(row) for row in self._read(self._statements["reads_of"], (after, upto))
        ]

    def look(self, look: Look, after: Sequence[Change]) -> Answer:
        batch = [self._changing(change) for change in after]
        asked = (self._statements[look.name], values_of(look, self._clock))
        return self._run([*batch, asked])[-1]

    def append(self, rows: NewCommit) -> None:
        """Only notes them: they are sent together with COMMIT."""
        self._rows = rows

    def commit(self) -> None:
        assert self._rows is not None, "nothing was appended"
        if self._guessed:
            self._commit_ahead(self._rows)
            return
        changes = self._rows.changes
        batch = self._appending(self._rows)
        if self._indexed:
            batch += self._nearest.changes(self._indexed, self._rows)
        if changes or not self._rows.commits:
            batch.append((self._statements["fence"], ()))
        batch += [self._changing(change) for change in changes]
        batch.append((COMMIT, ()))
        answers = self._committed(self._open(), batch)
        if answers[-1].tag != "COMMIT":
            raise TryAgainError(f"COMMIT was answered by {answers[-1].tag}")
        self._nearest.doubted = False
        for change, answer in zip(changes, answers[-1 - len(changes) : -1], strict=True):
            change.count = answer.changed
        if changes or not self._rows.commits:
            self._ahead.forget()
        else:
            self._note_commits(self._rows)

    def _committed(self, wire: Wire, batch: _Batch) -> list[Rows]:
        """The round trip in which a commit is made."""
        try:
            return wire.run(batch)
        except LostError as error:
            raise CommitUnknownError(str(error)) from error
        except ServerError as error:
            self._pool.note(error)
            if error.ended:
                raise CommitUnknownError(str(error)) from error
            if error.can_try_again or (self._indexed and self._nearest.doubt(error)):
                raise TryAgainError(str(error)) from error
            # The failed statement has aborted the transaction, and COMMIT was passed over.
            raise translated(
                error, self._pool.target.location, waited_ms=self._timeout_ms
            ) from error

    def _commit_ahead(self, rows: NewCommit) -> None:
        """The whole commit in one statement, which does nothing if the guess was wrong."""
        assert self._end is not None, "the session was entered"
        if not _is_one(rows):
            self.confirm()
        (commit,), (entry,) = rows.commits, rows.entries
        head = self._guessed_head
        expected = "" if head is None else f"{head.id}/{_shown(head.expires_at)}"
        words = next((cut(text) for text in rows.texts.values()), None)
        gone = next((id for id, _text in rows.gone), None)
        values = (
            *commit[:14], *entry, self._end.hash, self._end.fence, expected,
            int(self._clock is None), str(self._timeout_ms), self._synchronous, words, gone,
            commit[14],
        )  # fmt: skip
        sql = self._statements
        batch: _Batch = [(sql["append_ahead"], values)]
        for name, found, width in (
            ("results_ahead", rows.results, 3),
            ("log_marks_ahead", rows.marks, 2),
            ("reads_ahead", rows.reads, 8),
        ):
            if found:
                batch.append((sql[name], (*_columns(found, width), commit[13])))
        self._wire = wire = self._pool.take()
        answers = self._committed(wire, batch)
        ((done, now),) = answers[0]
        if not done:
            self.confirm()
        self._ahead.hit(now)
        self._note_commits(rows)

    def _note_commits(self, rows: NewCommit) -> None:
        """What this process knows of the store, now that it has committed."""
        assert self._end is not None, "the session was entered"
        last = rows.commits[-1]
        revision, committed_at, last_hash, last_id = last[0], last[1], last[13], last[9] + last[10]
        end = self._end._replace(
            revision=revision, committed_at=committed_at, hash=last_hash, last_entry_id=last_id - 1
        )
        heads: dict[Place, EntryRow | None] = {
            (each.namespace, each.key): None for each in rows.entries
        }
        if len(rows.entries) == 1:
            entry = rows.entries[0]
            heads[entry.namespace, entry.key] = _head_of(entry, last)
        self._ahead.committed(end, heads)

    def _appending(self, rows: NewCommit) -> _Batch:
        sql = self._statements
        batch: _Batch = []
        if len(rows.commits) == 1 and len(rows.entries) == 1:
            commit = rows.commits[0]
            batch.append((sql["append_one"], (*commit[:14], *rows.entries[0], commit[14])))
        elif rows.commits:
            last = rows.commits[-1]
            batch.append((sql["append_commits"], _columns(rows.commits, 15)))
            if rows.entries:
                batch.append((sql["append_entries"], _columns(rows.entries, 15)))
                # Only the last entry of a key in the batch becomes its head.
                heads = {(entry.namespace, entry.key): entry for entry in rows.entries}
                pointers = [
                    (*place, each.id, each.version, each.revision) for place, each in heads.items()
                ]
                batch.append((sql["append_heads"], _columns(pointers, 5)))
            # Of a commit: first_entry_id + changes - 1 is its last entry.
            batch.append((sql["move"], (last[0], last[1], last[13], last[9] + last[10] - 1)))
        for name, found, width in (
            ("append_results", rows.results, 3),
            ("append_log_marks", rows.marks, 2),
            ("touch", rows.touches, 2),
            ("append_reads", rows.reads, 8),
            ("append_conflicts", [record[1:] for record in rows.conflicts], 13),
        ):
            if found:
                batch.append((sql[name], _columns(found, width)))
        batch += [(sql[name], columns) for name, columns in appended(rows)]
        return batch

    def _changing(self, change: Change) -> tuple[Statement, Sequence[Any]]:
        values = [change.values[name] for name in _CHANGES[change.name]]
        return self._statements[change.name], values

    def was_committed(self, attempt: bytes, revision: int) -> bool:
        # The connection that was struck is in nobody knows what state. Once it is closed the
        # server ends its transaction, one way or the other, and lets the lock go.
        if self._wire is not None:
            self._wire.close()
            self.release()
        sql = self._statements
        lock = (sql["settings"], (str(_IDLE_MS), str(_IDLE_MS), self._synchronous))
        if revision:
            look: tuple[Statement, Sequence[Any]] = (
                sql["commit_of_attempt"],
                (revision, attempt),
            )
        else:
            look = (sql["has_batch_mark"], (attempt,))
        answers = self._begun([(BEGIN, ()), lock, (sql["lock"], ()), look], _IDLE_MS)
        self.rollback()
        return bool(answers[3])

    def rollback(self) -> None:
        wire = self._wire
        if wire is None or not wire.in_transaction:
            return
        try:
            wire.run([(ROLLBACK, ())])
        except (ServerError, LostError):
            # Closing rolls back as surely.
            wire.close()

    def release(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            self._pool.give_back(wire)


def _is_one(rows: NewCommit) -> bool:
    """Whether the rows are one commit of one entry, with nothing beside what goes with it."""
    return (
        len(rows.commits) == 1
        and len(rows.entries) == 1
        and len(rows.gone) <= 1
        and not any(getattr(rows, name) for name in _BESIDE)
    )


def _shown(number: int | None) -> str:
    return "" if number is None else str(number)


def _head_of(entry: NewEntry, commit: tuple[Any, ...]) -> EntryRow:
    """A new entry as it is read from now on."""
    return EntryRow(
        entry.id, entry.namespace, entry.key, entry.version, entry.revision, entry.operation,
        entry.base_version, entry.merged, entry.value, entry.text, entry.created_at,
        entry.expires_at, commit[4], commit[3], commit[1],
    )  # fmt: skip


class _SessionReads(SearchReads):
    """What judging reads for searches, in the session's transaction."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def _read(self, name: str, *values: Any) -> Rows:
        session = self._session
        return session._read(session._statements[name], values)


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    """Rows as one list for each column."""
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _by_place(rows: Rows) -> dict[Place, EntryRow]:
    found = map(EntryRow._make, rows)
    return {(row.namespace, row.key): row for row in found}
