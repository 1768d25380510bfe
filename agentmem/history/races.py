"""``store.audit.races``: what in the log went wrong, or nearly so, without anybody being told.

Blind writes, and write skew under snapshot isolation, are committed: no error tells of them. An
op_id that is used again for something else does nothing. A hot key costs attempts, and looks like
a slow agent. All of these stand in the log, and on the record of conflicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentmem.core import Core
from agentmem.engines.rows import (
    CommitRow,
    ConflictRow,
    EntryRow,
    Place,
    ReadRow,
)
from agentmem.history.hot_keys import HotKeys
from agentmem.history.skew import Skew
from agentmem.model import display_key
from agentmem.namespaces import encode
from agentmem.provenance import BASE, CONTEXT, READ, found_by_scan
from agentmem.scope import Scope

__all__ = ["Race", "races_of"]

_PAGE: Final = 500
_BLIND: Final = (1, 2)  # put and delete; an atomic operation takes in what is there


@dataclass(frozen=True, slots=True, repr=False)
class Race:
    """One finding.

    Attributes:
        kind: ``blind_write``, ``write_skew``, ``operation_reused`` or ``hot_key``.
        namespace: labels of the key that it is about.
        key: the key.
        versions: the versions involved, as (namespace, key, version), older ones first.
        revisions: the commits involved, in order.
        agents: who was involved, each once; None: not told.
        explanation: what happened, in words.
        advice: what would prevent it, in words.
        figures: of a hot key: ``writes`` (commits that wrote it), ``conflicts`` (attempts that
            failed because of it), ``retried`` (of these, how many a later attempt made good),
            ``merged``, and ``conflict_rate`` and ``retry_rate``: the share of all attempts.
    """

    kind: str
    namespace: tuple[str, ...]
    key: str
    versions: tuple[tuple[tuple[str, ...], str, int], ...]
    revisions: tuple[int, ...]
    agents: tuple[str | None, ...]
    explanation: str
    advice: str
    figures: Mapping[str, float] = field(default_factory=dict)

    __module__ = "agentmem"

    def __repr__(self) -> str:
        name = display_key(self.namespace, self.key)
        return f"Race({self.kind}, {name!r}, revisions={list(self.revisions)})"


def races_of(
    core: Core, scope: Scope, since: int, namespace: object, fresh_s: float, limit: int
) -> list[Race]:
    """See `Audit.races`."""
    core.check_open()
    labels = scope.labels(namespace)
    scope.readable(labels)
    return _Search(core, scope, encode(labels), int(fresh_s * 1_000_000)).run(since, limit)


class _Search:
    def __init__(self, core: Core, scope: Scope, within: str, fresh_us: int) -> None:
        self._core = core
        self._engine = core.engine
        self._scope = scope
        self._within = within
        self._fresh_us = fresh_us

    def run(self, since: int, limit: int) -> list[Race]:
        """The findings, in order of their last commits, hot keys at the end."""
        found: list[Race] = []
        hot = HotKeys(self._core, self._scope)
        skew = Skew(self._engine)
        upto = self._engine.position().revision
        after = since
        while after < upto and len(found) < limit:
            commits = self._engine.commits(after, upto, _PAGE, newest_first=False)
            if not commits:
                break
            last = commits[-1].revision
            entries: dict[int, list[EntryRow]] = {}
            for entry in self._engine.commit_entries(commits):
                entries.setdefault(entry.revision, []).append(entry)
                if self._sees((entry.namespace, entry.key)):
                    hot.written(entry)
            reads: dict[int, list[ReadRow]] = {}
            for read in self._engine.reads_of(after, last):
                reads.setdefault(read.revision, []).append(read)
            found += self._blind_writes(entries, reads)
            for commit in commits:
                pair = (entries.get(commit.revision, []), reads.get(commit.revision, []))
                found += self._skew(commit, *pair, skew)
            after = last
        found.sort(key=lambda race: race.revisions[-1])
        start = self._engine.position_at(since)
        for conflict in self._conflicts(start.committed_at if start is not None else 0):
            if conflict.kind == "operation":
                found.append(self._reused(conflict))
            else:
                hot.met(conflict)
        found += [self._hot(each) for each in hot.found()]
        return found[:limit]

    def _sees(self, place: Place) -> bool:
        return place[0].startswith(self._within) and self._scope.sees(place)

    def _race(
        self,
        kind: str,
        rows: list[EntryRow],
        words: tuple[str, str],
        agents: list[str | None],
        revisions: list[int],
    ) -> Race:
        first = rows[0]
        return Race(
            kind,
            self._scope.relative(first.namespace),
            first.key,
            tuple((self._scope.relative(row.namespace), row.key, row.version) for row in rows),
            tuple(sorted(set(revisions))),
            tuple(dict.fromkeys(agents)),
            *words,
        )

    def _name(self, place: Place) -> str:
        return display_key(self._scope.relative(place[0]), place[1])

    # Blind writes.

    def _blind_writes(
        self, entries: dict[int, list[EntryRow]], reads: dict[int, list[ReadRow]]
    ) -> Iterator[Race]:
        blind = {
            (row.namespace, row.key, row.version - 1): row
            for rows in entries.values()
            for row in rows
            if row.base_version is None
            and row.version > 1
            and row.operation in _BLIND
            and self._sees((row.namespace, row.key))
        }
        wanted = [(*ref, row.revision - 1) for ref, row in blind.items()]
        for before in self._engine.versions(wanted):
            row = blind[before.namespace, before.key, before.version]
            age_us = row.committed_at - before.committed_at
            if before.agent == row.agent or not before.visible_at(row.committed_at):
                continue
            if age_us <= self._fresh_us and not self._had_read(row, before, reads):
                yield self._blind(before, row, age_us)

    def _had_read(self, row: EntryRow, before: EntryRow, reads: dict[int, list[ReadRow]]) -> bool:
        """Whether the writer had read what it has replaced: in this commit, or in an earlier."""
        ref = (before.namespace, before.key, before.version)
        for read in reads.get(row.revision, ()):
            if read.scan is not None and before.id in found_by_scan(read.scan)[1]:
                return True
        known = self._engine.readers([ref])
        revisions = [
            read.revision
            for read in known
            if read.kind in (READ, CONTEXT, BASE) and read.revision <= row.revision
        ]
        return any(
            commit.agent == row.agent and commit.revision <= row.revision
            for commit in self._engine.commits_of(revisions)
        )

    def _blind(self, before: EntryRow, row: EntryRow, age_us: int) -> Race:
        name = self._name((row.namespace, row.key))
        done = "deleted" if row.deleted else "replaced"
        explanation = (
            f"{_who(row.agent)} {done} {name} version {before.version}, which "
            f"{_who(before.agent)} had written {_age(age_us)} before, without having read it"
        )
        advice = (
            "write it by store.update or in a transaction that reads it, or name the version by "
            'expected_version=; blind_writes="forbid" refuses such writes'
        )
        return self._race(
            "blind_write",
            [before, row],
            (explanation, advice),
            [before.agent, row.agent],
            [before.revision, row.revision],
        )

    # Write skew.

    def _skew(
        self, commit: CommitRow, entries: list[EntryRow], reads: list[ReadRow], skew: Skew
    ) -> Iterator[Race]:
        for other, theirs, mine in skew.against(commit, entries, reads):
            if not (self._sees(theirs[:2]) and self._sees(mine[:2])):
                continue
            rows = self._engine.versions([(*theirs, other.revision), (*mine, commit.revision)])
            rows.sort(key=lambda row: row.id)
            names = self._name(theirs[:2]), self._name(mine[:2])
            explanation = (
                f"{_who(commit.agent)} wrote {names[1]} from a {names[0]} that "
                f"{_who(other.agent)} had replaced meanwhile, and {_who(other.agent)} wrote that "
                f"from a {names[1]} that was replaced in turn: neither saw what the other did"
            )
            advice = (
                'isolation="snapshot" lets this pass: leave the isolation serializable, or let '
                "both write one key that decides"
            )
            yield self._race(
                "write_skew",
                rows,
                (explanation, advice),
                [other.agent, commit.agent],
                [other.revision, commit.revision],
            )

    # The record of conflicts.

    def _conflicts(self, instant: int) -> Iterator[ConflictRow]:
        after = 0
        while True:
            rows = self._engine.conflicts(None, after, _PAGE)
            for row in rows:
                if row.detected_at >= instant and self._sees((row.namespace, row.key)):
                    yield row
            if len(rows) < _PAGE:
                return
            after = rows[-1].id or 0

    def _reused(self, row: ConflictRow) -> Race:
        name = self._name((row.namespace, row.key))
        revision = row.revision or 0
        first = self._engine.commits_of([revision])
        answer = (
            "and got the first result as if it were its own"
            if row.strategy == "replay"
            else "and was refused"
        )
        explanation = (
            f"{_who(row.agent)} used op_id {row.op_id!r}, which revision {revision} was made with, "
            f"for another request ({name}), {answer}; nothing was written"
        )
        advice = (
            "make a new op_id for each operation, and keep it with the request before it is sent: "
            "the same op_id is for sending the same request again"
        )
        agents = [commit.agent for commit in first] + [row.agent]
        return Race(
            "operation_reused",
            self._scope.relative(row.namespace),
            row.key,
            (),
            (revision,),
            tuple(dict.fromkeys(agents)),
            explanation,
            advice,
        )

    def _hot(self, found: HotKeys.Found) -> Race:
        figures = found.figures
        explanation = (
            f"{self._name(found.place)}: {figures['conflicts']:.0f} of "
            f"{figures['writes'] + figures['conflicts']:.0f} attempts "
            f"({figures['conflict_rate']:.0%}) met a conflict, "
            f"{figures['retried']:.0f} were retried"
        )
        return Race(
            "hot_key",
            self._scope.relative(found.place[0]),
            found.place[1],
            (),
            tuple(found.revisions),
            tuple(found.agents),
            explanation,
            found.advice,
            figures,
        )


def _who(agent: str | None) -> str:
    return "an agent without a name" if agent is None else repr(agent)


def _age(microseconds: int) -> str:
    seconds = microseconds / 1_000_000
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
