"""``store.log``: the commits that a view sees, narrowed by what is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypedDict

from agentmem.core import Core
from agentmem.engines.rows import (
    CommitRow,
    EntryRow,
    Narrowing,
)
from agentmem.filters import Filter
from agentmem.history.log import check_limit, check_revisions
from agentmem.history.narrowing import Wanted, metadata_needs, view_needs
from agentmem.marks import agent_name
from agentmem.model import Commit
from agentmem.namespaces import Labels, encode, range_end
from agentmem.records import commit_of
from agentmem.scope import Scope
from agentmem.snapshot import instant_of
from agentmem.values import canonical, check_label_text, dump, load

__all__ = ["LogOptions", "log_of"]

_PAGE: Final = 200
_FILTERED_PAGE: Final = 1_000  # of commits of which a filter may leave few


class LogOptions(TypedDict, total=False):
    """Which commits `Store.log` gives.

    Attributes:
        agent: only those of this agent.
        op_id: only that of this operation.
        since, until: aware datetimes; only those with ``since <= committed_at < until``.
        after, upto: only revisions with ``after < revision <= upto``.
        metadata: only those whose metadata has these fields with exactly these values (JSON;
            1 is not 1.0), and perhaps others.
        where: only those whose metadata passes this filter, as in `Store.list`.
        oldest_first: the other way round.
        limit: at most so many; None is all.
    """

    agent: str | None
    op_id: str | None
    since: datetime | None
    until: datetime | None
    after: int
    upto: int | None
    metadata: Mapping[str, Any] | None
    where: Mapping[str, Any] | None
    oldest_first: bool
    limit: int | None


def log_of(core: Core, scope: Scope, namespace: object, options: LogOptions) -> list[Commit]:
    """See `Store.log`."""
    core.check_open()
    wanted = check_limit(options.get("limit"))
    search = _Search(core, scope, namespace, options)
    found: list[Commit] = []
    if wanted:
        for commit in search.commits(wanted):
            found.append(commit)
            if len(found) >= wanted:
                break
    return found


class _Search:
    """One call: what is asked for, checked."""

    def __init__(self, core: Core, scope: Scope, namespace: object, options: LogOptions) -> None:
        self._core = core
        self._scope = scope
        self._agent = options.get("agent")
        self._op_id = options.get("op_id")
        check_label_text(self._agent, "agent", scope.limits)
        check_label_text(self._op_id, "op_id", scope.limits)
        labels = scope.labels(namespace)
        scope.readable(labels)
        self._labels = labels
        self._unnamed = namespace is None
        self._newest_first = not options.get("oldest_first", False)
        self._metadata = _exact(options.get("metadata"), scope)
        self._where = Filter.parse(options.get("where"))
        self._after, self._upto = self._bounds(options)

    def _bounds(self, options: LogOptions) -> tuple[int, int]:
        after, upto = check_revisions(options.get("after", 0), options.get("upto"))
        since, until = _moment(options, "since"), _moment(options, "until")
        engine = self._core.engine
        # The end is fixed now: what others commit meanwhile is not in this answer.
        upto = min(upto, engine.position().revision)
        if since is not None:
            after = max(after, engine.revision_at(since - 1))
        if until is not None:
            upto = min(upto, engine.revision_at(until - 1))
        return after, upto

    def commits(self, at_first: int) -> Iterator[Commit]:
        """The commits asked for, in order. Of as many as `at_first` the rows are read at once."""
        if self._after >= self._upto:
            return
        for rows in self._rows(at_first):
            passing = [row for row in rows if self._passes(row)]
            entries = self._entries_of(passing)
            for row in passing:
                commit = self._commit(row, entries.get(row.revision, []))
                if commit is not None:
                    yield commit

    def _rows(self, at_first: int) -> Iterator[Sequence[CommitRow]]:
        engine = self._core.engine
        if self._op_id is not None:
            row = engine.operation(self._scope.name, self._op_id)
            if row is not None and self._after < row.revision <= self._upto:
                yield [row]
            return
        by_filter = self._where is not None or self._metadata or self._scope.rules
        page = _FILTERED_PAGE if by_filter else min(_PAGE, at_first)
        wanted = Wanted(engine, self._needs(), self._narrowing(), self._newest_first)
        yield from wanted.pages(self._after, self._upto, page)

    @property
    def _everything(self) -> bool:
        return not self._labels and not self._scope.rules

    def _needs(self) -> list[tuple[str, ...]]:
        """Names of which each block must have one out of each tuple."""
        needs: list[tuple[str, ...]] = []
        if self._agent is not None:
            needs.append((agent_name(self._agent),))
        if not self._everything:
            needs += view_needs(self._scope, self._labels, own=self._unnamed)
        return needs + metadata_needs(self._metadata, self._where)

    def _narrowing(self) -> Narrowing:
        return Narrowing(
            self._agent,
            encode(self._labels) if self._labels else None,
            self._scope.name if self._unnamed else None,
            tuple(f"{canonical(name).decode()}:{text}" for name, text in self._metadata.items()),
        )

    # What engines have narrowed is decided here.

    def _passes(self, row: CommitRow) -> bool:
        if self._agent is not None and row.agent != self._agent:
            return False
        if self._op_id is not None and (row.op_id, row.scope) != (self._op_id, self._scope.name):
            return False
        if not self._metadata and self._where is None:
            return True
        metadata = load(row.metadata) if row.metadata else {}
        return all(
            name in metadata and canonical(metadata[name]).decode() == text
            for name, text in self._metadata.items()
        ) and (self._where is None or self._where.matches(metadata))

    def _entries_of(self, rows: Sequence[CommitRow]) -> dict[int, list[EntryRow]]:
        entries: dict[int, list[EntryRow]] = {}
        for entry in self._core.engine.commit_entries(rows):
            entries.setdefault(entry.revision, []).append(entry)
        return entries

    def _commit(self, row: CommitRow, entries: list[EntryRow]) -> Commit | None:
        """A commit as the view sees it; None if it sees nothing of it."""
        inside = [entry for entry in entries if _below(entry.namespace, self._labels)]
        own = self._unnamed and row.scope == self._scope.name
        if not (self._everything or inside or own):
            return None
        commit = commit_of(row, inside, self._scope)
        return commit if self._everything or own or commit.changes else None


def _exact(metadata: object, scope: Scope) -> dict[str, str]:
    """The fields of a ``metadata`` argument, each with its value as it is stored."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is a mapping of fields to values, not {metadata!r}")
    fields = load(dump(metadata, scope.limits, what="metadata"))
    return {name: canonical(value).decode() for name, value in fields.items()}


def _moment(options: LogOptions, name: str) -> int | None:
    moment = options.get(name)
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise TypeError(f"{name} is an aware datetime, not {type(moment).__name__}")
    return instant_of(moment)


def _below(encoded: str, labels: Labels) -> bool:
    start = encode(labels)
    end = range_end(start)
    return encoded >= start and (end is None or encoded < end)
