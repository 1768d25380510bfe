"""Single writing calls on a store: each commits at once and returns what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict

from agentmem import writes
from agentmem.core import Core
from agentmem.course import Course, drive
from agentmem.engines.rows import (
    CommitRow,
    ConflictRow,
    EntryRow,
    KnownOperation,
    Place,
)
from agentmem.errors import AgentMemError, CompactedError, ConflictError, InvalidValueError
from agentmem.model import DELETE, MISSING, Conflict, Entry
from agentmem.operations import PUT
from agentmem.records import conflict_row_of, entry_of
from agentmem.request import Receipt, Request, Touch, Write
from agentmem.scope import Scope, missing
from agentmem.values import dump, load

__all__ = ["CommitOptions", "Single"]

_MISMATCH: Final = ("error", "replay")
_UPDATE_ATTEMPTS: Final = 1_000


class CommitOptions(TypedDict, total=False):
    """Who and why: what every writing call of a store takes besides its own arguments.

    Attributes:
        agent: who writes; the agent of the store or scoped view if it is not given.
        op_id: the operation id: the same op_id applies once, and a repeat returns the first
            result. Make it, and keep it, before the call.
        note: why, for the log.
        metadata: a JSON object for the log.
        on_mismatch: what if the op_id was used for another request: ``"error"`` (the default:
            `OperationMismatchError`), or ``"replay"`` for the first result.
    """

    agent: str | None
    op_id: str | None
    note: str | None
    metadata: Mapping[str, Any] | None
    on_mismatch: str


class Single:
    """One writing call: its commit's fields, and how to run it."""

    __slots__ = ("_agent", "_core", "_metadata", "_mismatch", "_note", "_op_id", "_scope")

    def __init__(
        self,
        core: Core,
        scope: Scope,
        *,
        agent: str | None = None,
        op_id: str | None = None,
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_mismatch: str = "error",
    ) -> None:
        if on_mismatch not in _MISMATCH:
            raise InvalidValueError(f"on_mismatch is 'error' or 'replay', not {on_mismatch!r}")
        self._core = core
        self._scope = scope
        self._mismatch = on_mismatch
        if agent is None and op_id is None and note is None and metadata is None:
            self._agent = scope.agent
            self._op_id = self._note = self._metadata = None
        else:
            fields = writes.commit_fields(scope, agent, op_id, note, metadata)
            self._agent, self._op_id, self._note, self._metadata = fields

    def _request(self, operation: str, found: dict[Place, Write]) -> Request:
        request = Request(self._scope, self._op_id, self._agent, 0, 0, self._note, self._metadata)
        request.writes = found
        request.pinned = request.validate = False
        request.forbid_blind = self._core.blind_writes == "forbid"
        if self._op_id is not None:
            payload = [writes.payload_of(write) for write in found.values()]
            request.fingerprint = writes.fingerprint(operation, found, payload)
        return request

    def run(self, operation: str, found: dict[Place, Write]) -> list[Entry[Any]]:
        """Commits writes; returns the entries, in order of (namespace, key)."""
        for place, write in found.items():
            self._prepare(place, write)
        request = self._request(operation, found)
        rows = self._rows(request, self._core.run(request))
        return [entry_of(row, self._scope) for row in rows]

    def one(self, operation: str, place: Place, write: Write) -> Entry[Any] | None:
        """Commits one write; None if it wrote nothing."""
        entries = self.run(operation, {place: write})
        return entries[0] if entries else None

    def add(self, place: Place, write: Write) -> Entry[Any] | None:
        """Commits a write under a generated key, which is no part of what was asked for."""
        self._prepare(place, write)
        request = self._request("add", {place: write})
        if self._op_id is not None:
            payload = [place[0], writes.payload_of(write)]
            request.fingerprint = writes.fingerprint("add", (), payload)
        rows = self._rows(request, self._core.run(request))
        return entry_of(rows[0], self._scope) if rows else None

    def add_similar(
        self, value: object, namespace: object, similar: float, arguments: dict[str, Any]
    ) -> Entry[Any]:
        """Commits a write under a generated key, unless something like it is there.

        Args:
            similar: from which cosine on it counts as the same.
            arguments: of the write: text, vector, embed, ttl_s.
        """
        # Imported here: transactions are made of what this module is for.
        from agentmem.transact import transact
        from agentmem.transaction import Transaction

        def add(tx: Transaction) -> list[Any]:
            place, version = tx.add_similar(value, namespace, similar, **arguments)
            return [*place, version]

        given = arguments["vector"]
        asked = [value, None if given is None else [float(each) for each in given]]
        namespace_text, key, version = drive(
            transact(
                self._core,
                self._scope,
                add,
                attempts=_UPDATE_ATTEMPTS,
                deadline_s=None,
                repair=None,
                merge=False,
                lock=(),
                isolation="serializable",
                agent=self._agent,
                op_id=self._op_id,
                note=self._note,
                metadata=load(self._metadata) if self._metadata is not None else None,
                fingerprint=["add", similar, asked] if self._mismatch == "error" else None,
            )
        )
        row = self._core.engine.entry_version((namespace_text, key), version)
        if row is None:
            raise missing(self._scope, (namespace_text, key))
        return entry_of(row, self._scope)

    def _prepare(self, place: Place, write: Write) -> None:
        core = self._core
        # The creation of a key by add() and put() is what "append" allows, and no more.
        if not write.steps and self._scope.is_append_only(place):
            write.create_only = True
        if write.warn and core.blind_writes == "allow":
            write.warn = False
        if "/" in place[1] and not place[0]:
            writes.warn_slash(core, place)

    def _rows(self, request: Request, receipt: Receipt) -> list[EntryRow]:
        core = self._core
        if receipt.known is None:
            if receipt.blind_over:
                core.warn_blind(receipt, self._scope)
            return receipt.rows
        core.check_known(request, receipt, self._mismatch)
        commit = core.commit_row(receipt.known.revision)
        rows = core.engine.commit_entries([commit])
        if len(rows) < commit.changes:
            raise self._compacted(commit)
        return rows

    def _compacted(self, commit: CommitRow) -> CompactedError:
        return CompactedError(
            f"op_id {self._op_id!r} was applied at revision {commit.revision}, and nothing was "
            "written now; but what it returned then was compacted since",
            floor=self._core.engine.floor(),
        )

    def touch(self, place: Place, touch: Touch) -> Entry[Any]:
        """Moves an expiry."""
        request = self._request("touch", {})
        request.touches[place] = touch
        if self._op_id is not None:
            request.fingerprint = writes.fingerprint("touch", [place], [touch.ttl_us])
        receipt = self._core.run(request)
        if receipt.known is None:
            return entry_of(receipt.touched[0], self._scope)
        self._core.check_known(request, receipt, self._mismatch)
        commit = self._core.commit_row(receipt.known.revision)
        first = load(commit.result) if commit.result is not None else {}
        row = self._core.engine.entry_version(place, first.get("version", 0))
        if row is None:
            raise self._compacted(commit)
        return entry_of(row._replace(expires_at=first["expires_at"]), self._scope)

    def known(self) -> CommitRow | None:
        """The commit of the op_id, if it was used before."""
        if self._op_id is None:
            return None
        return self._core.engine.operation(self._scope.name, self._op_id)

    def update(
        self,
        place: Place,
        change: Callable[[Any], Course[Any]],
        default: object,
        ttl_us: int | None,
    ) -> Course[Entry[Any] | None]:
        """Reads, changes and writes one key, again and again until nothing moved in between."""
        fingerprint = writes.fingerprint("update", [place], []) if self._op_id is not None else None
        start = None if default is MISSING else dump(default, self._core.limits, what="default")
        known = self.known()
        if known is not None:
            return self._replay(known, fingerprint)
        earlier: list[ConflictRow] = []

        def trial(*, record: bool) -> Course[list[EntryRow]]:
            request = yield from self._updated(place, change, start, ttl_us)
            request.fingerprint = fingerprint
            request.earlier = earlier
            request.record = record
            return self._rows(request, self._core.run(request))

        for attempt in range(1, _UPDATE_ATTEMPTS + 1):
            last = attempt == _UPDATE_ATTEMPTS
            try:
                rows = yield from self._core.lane.attempt(attempt, trial(record=last))
            except ConflictError as error:
                if last:
                    raise
                earlier += [self._retried(conflict) for conflict in error.conflicts]
            except Exception:
                if earlier:
                    self._core.record(earlier, self._scope, self._agent)
                raise
            else:
                return entry_of(rows[0], self._scope) if rows else None
        raise AgentMemError("unreachable: the last attempt returns or raises")

    def _retried(self, conflict: Conflict) -> ConflictRow:
        now = self._core.clock()
        return conflict_row_of(conflict, "retried", self._scope, self._agent, self._op_id, now)

    def _replay(self, known: CommitRow, fingerprint: bytes | None) -> Entry[Any] | None:
        request = self._request("update", {})
        request.fingerprint = fingerprint
        receipt = Receipt(
            known.revision, None, [], known=KnownOperation(known.revision, known.fingerprint)
        )
        rows = self._rows(request, receipt)
        return entry_of(rows[0], self._scope) if rows else None

    def _updated(
        self,
        place: Place,
        change: Callable[[Any], Course[Any]],
        start: str | None,
        ttl_us: int | None,
    ) -> Course[Request]:
        core = self._core
        row = core.engine.point(place, None).row
        present = row is not None and core.sees(row)
        if present and row is not None:
            before, version = row.value, row.version
        elif start is not None:
            before, version = start, 0
        else:
            raise missing(self._scope, place)
        after = yield from change(load(before or "null"))
        if after is DELETE:
            write = writes.deletion(version, merge=False)
        else:
            # Hidden stays hidden: from whoever embeds it, too.
            text = row.text if present and row is not None and row.text == "" else None
            write = Write(PUT, dump(after, core.limits), text, ttl_us, version, merge=False)
            write.keep = present
        self._prepare(place, write)
        return self._request("update", {place: write})
