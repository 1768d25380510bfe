"""Exports into a store: a history into an empty one, the entries of one revision into any.

A file is read twice, and nothing is written before it was found to be whole. A history then goes
the way of a copy, which can be killed and run again. The entries of one revision become ordinary
commits, whose op ids follow from the file, so that a repeated load applies once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from agentmem import writes
from agentmem.core import Core
from agentmem.engines.rows import (
    EntryRow,
    Place,
)
from agentmem.errors import ConflictError, InvalidValueError
from agentmem.exchange import lines
from agentmem.exchange.exporting import HISTORY
from agentmem.exchange.lines import LineError, State
from agentmem.exchange.reading import Lines, opened_lines
from agentmem.exchange.source import FileSource
from agentmem.exchange.survey import surveyed
from agentmem.history.copy import Progress, copy_store
from agentmem.model import display_key
from agentmem.namespaces import check_key, decode, parse_namespace
from agentmem.operations import PUT
from agentmem.request import Request, Write
from agentmem.scope import Scope
from agentmem.values import dump, load

__all__ = ["Loaded", "load_from"]

_EXISTING: Final = ("refuse", "keep", "replace")
_BATCH_ENTRIES: Final = 500
_BATCH_BYTES: Final = 4 * 1024 * 1024
_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `Admin.load` did.

    Attributes:
        kind: ``history``, or ``entries`` of one revision.
        source: the name of the file.
        revision: the store's, once it was loaded.
        commits: how many were written by this call.
        entries: how many were written by this call.
        kept: of one revision: keys that were there, and were left as they are.
        expired: of one revision: entries whose time had passed.
        repeated: of one revision: entries that an earlier load of the same file had written.
    """

    kind: str
    source: str
    revision: int
    commits: int
    entries: int
    kept: int = 0
    expired: int = 0
    repeated: int = 0

    __module__ = "agentmem"


def load_from(
    core: Core,
    scope: Scope,
    source: str | os.PathLike[str] | BinaryIO,
    *,
    existing: str,
    agent: str | None,
    note: str | None,
    progress: Progress | None,
) -> Loaded:
    """See `Admin.load`."""
    if existing not in _EXISTING:
        raise InvalidValueError(f"existing is 'refuse', 'keep' or 'replace', not {existing!r}")
    with opened_lines(source) as found:
        if found.kind == HISTORY:
            return _load_history(core, found, progress)
        return _Entries(core, scope, found, existing, agent, note).load(progress)


def _load_history(core: Core, found: Lines, progress: Progress | None) -> Loaded:
    began = core.engine.position().revision
    if progress is not None:
        progress("reading", 0, 0)
    survey = surveyed(found, began)
    before = core.engine.counts()["entries"]
    report = copy_store(
        FileSource(found, survey),
        core.engine,
        progress,
        lock_timeout_ms=core.limits.lock_timeout_ms,
    )
    copied = report.revision - report.began_at
    return Loaded(HISTORY, found.name, report.revision, copied, report.entries - before)


class _Entries:
    """One load of the entries of one revision."""

    def __init__(
        self,
        core: Core,
        scope: Scope,
        found: Lines,
        existing: str,
        agent: str | None,
        note: str | None,
    ) -> None:
        self._core = core
        self._scope = scope
        self._lines = found
        self._existing = existing
        self._agent, _op_id, self._note, _metadata = writes.commit_fields(
            scope, agent, None, note, None
        )
        self._counts = dict.fromkeys(("commits", "entries", "kept", "expired", "repeated"), 0)

    def load(self, progress: Progress | None) -> Loaded:
        """Checks all, then writes batch by batch."""
        total = sum(len(batch) for batch in self._batches(check=True))
        known, refused = set(), []
        for number, batch in enumerate(self._batches()):
            if self._core.engine.operation(self._scope.name, self._op_id(number)) is not None:
                known.add(number)
            elif self._existing == "refuse":
                refused += list(self._present(batch))
        if refused:
            self._refuse(refused)
        done = 0
        for number, batch in enumerate(self._batches()):
            if number in known:
                self._counts["repeated"] += len(batch)
            else:
                self._write(number, batch)
            done += len(batch)
            if progress is not None:
                progress("loading", done, total)
        revision = self._core.engine.position().revision
        return Loaded(self._lines.kind, self._lines.name, revision, **self._counts)

    def _op_id(self, number: int) -> str:
        # The size of batches is in it: other batches are other operations.
        return f"load:{self._lines.digest.hex()}:{_BATCH_ENTRIES}:{number}"

    def _batches(self, *, check: bool = False) -> Iterator[list[State]]:
        batch: list[State] = []
        size = 0
        before: Place | None = None
        for number, line in self._lines:
            try:
                if line.get("type") != "state":
                    raise LineError(f"the type {line.get('type')!r} is not known here")
                state = lines.STATE.row(line)
                if check:
                    before = self._checked(state, before)
            except (LineError, InvalidValueError) as error:
                raise self._lines.wrong(number, str(error)) from error
            more = len(state.value) + len(state.text or "")
            if batch and (len(batch) == _BATCH_ENTRIES or size + more > _BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(state)
            size += more
        if batch:
            yield batch

    def _checked(self, state: State, before: Place | None) -> Place:
        """Whether this store could hold it, as what anybody writes."""
        limits, place = self._core.limits, (state.namespace, state.key)
        parse_namespace(decode(state.namespace), limits)
        check_key(state.key, limits)
        dump(load(state.value), limits)
        if before is not None and place <= before:
            raise LineError("the key does not follow that of the line before")
        return place

    def _present(self, batch: list[State]) -> dict[Place, EntryRow]:
        """What of a batch is there already."""
        position = self._core.engine.position()
        places = [(state.namespace, state.key) for state in batch]
        return {
            (row.namespace, row.key): row
            for row in self._core.engine.points(places, position.revision)
            if row.visible_at(position.now)
        }

    def _refuse(self, places: list[Place]) -> None:
        namespace, key = places[0]
        more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
        raise ConflictError(
            f"{display_key(decode(namespace), key)!r}{more} is there already; nothing was "
            "written: say existing='keep' or existing='replace'",
            conflicts=[],
        )

    def _write(self, number: int, batch: list[State]) -> None:
        """Commits a batch, as often as a key moves meanwhile."""
        for left in reversed(range(_ATTEMPTS)):
            request, counts = self._request(number, batch)
            try:
                receipt = self._core.run(request)
            except ConflictError:
                if left:
                    continue
                raise
            if receipt.known is not None:
                self._counts["repeated"] += len(batch)
                return
            self._counts["commits"] += 1
            self._counts["entries"] += len(request.writes)
            for name, count in counts.items():
                self._counts[name] += count
            return

    def _request(self, number: int, batch: list[State]) -> tuple[Request, dict[str, int]]:
        now = self._core.engine.position().now
        present = self._present(batch)
        if present and self._existing == "refuse":
            self._refuse(list(present))
        counts = {"kept": 0, "expired": 0}
        request = Request(
            self._scope,
            self._op_id(number),
            self._agent,
            0,
            0,
            note=self._note or f"load of {self._lines.name}",
            pinned=False,
            merge=False,
        )
        for state in batch:
            place = (state.namespace, state.key)
            there = present.get(place)
            if state.expires_at is not None and state.expires_at <= now:
                counts["expired"] += 1
            elif there is not None and self._existing == "keep":
                counts["kept"] += 1
                request.reads[place] = there.version
            else:
                base = there.version if there is not None else 0
                request.writes[place] = _write_of(state, base, now)
        return request, counts


def _write_of(state: State, base: int, now: int) -> Write:
    write = Write(PUT, state.value, state.text, None, base, merge=False)
    write.vector = state.vector
    if state.expires_at is not None:
        write.expires_at = state.expires_at
        write.ttl_us = state.expires_at - now
    return write
