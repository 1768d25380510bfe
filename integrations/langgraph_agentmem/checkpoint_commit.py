"""One record, in a commit of its own: the write that is made most often.

It is what `Store.put` does, without what a saver has no use for. No fingerprint of the request is
stored with an operation id, which would be one more row in each commit: what the operation was is
seen from the entry that it wrote. And a task that has written before is no conflict for the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentmem import CompactedError, ConflictError, IndeterminateCommitError, Limits, Store
from agentmem.engines.rows import EntryRow, Place
from agentmem.operations import PUT
from agentmem.request import BLIND, Receipt, Request, Write
from agentmem.values import canonical, dump
from agentmem.writes import commit_fields
from langgraph_agentmem.checkpoint_places import Labels

__all__ = ["Recorder"]

_HIDDEN = ""  # from search


class Recorder:
    """Commits single records.

    Args:
        store: where to.
        agent: who the commits are by; None: the agent of the store.
    """

    __slots__ = ("_agent", "_core", "_scope")

    def __init__(self, store: Store, agent: str | None) -> None:
        self._core = store._core
        self._scope = store._scope
        self._agent = agent

    def put(
        self, namespace: Labels, key: str, record: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """Writes a record, whatever is there."""
        self._surely(self._place(namespace, key), record, metadata, BLIND, None)

    def create(
        self, namespace: Labels, key: str, record: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> bool:
        """Writes a record where there is none; False if there is one."""
        try:
            self._surely(self._place(namespace, key), record, metadata, 0, None)
        except ConflictError:
            return False
        return True

    def put_once(
        self,
        namespace: Labels,
        key: str,
        record: Mapping[str, Any],
        metadata: Mapping[str, Any],
        op_id: str,
    ) -> EntryRow | None:
        """Writes a record, whatever is there, unless the operation was applied before.

        That the record of another key was refused so is put on record, as a conflict.

        Returns: None if it was written; else what the operation wrote in the namespace before.

        Raises:
            CompactedError: it was applied before, and what it wrote is gone.
        """
        place = self._place(namespace, key)
        request, receipt = self._surely(place, record, metadata, BLIND, op_id)
        if receipt.known is None:
            return None
        commit = self._core.commit_row(receipt.known.revision)
        rows = self._core.engine.commit_entries([commit])
        first = next((row for row in rows if row.namespace == place[0]), None)
        if first is None or first.key != key:
            self._core.record_mismatch(request, commit.revision, "replay")
        if first is None:
            raise CompactedError(
                f"op_id {op_id!r} was applied at revision {commit.revision}; what it wrote was "
                "compacted since",
                floor=self._core.engine.floor(),
            )
        return first

    def _place(self, namespace: Labels, key: str) -> Place:
        place = self._scope.place(namespace, key)
        self._scope.check(place, "append")
        return place

    def _surely(
        self,
        place: Place,
        record: Mapping[str, Any],
        metadata: Mapping[str, Any],
        base: int,
        op_id: str | None,
    ) -> tuple[Request, Receipt]:
        """Commits; once more if it is not known whether it did."""
        scope, core = self._scope, self._core
        agent, op_id, _note, text = commit_fields(scope, self._agent, op_id, None, metadata)
        value = _text_of(record, core.limits)

        def request() -> Request:
            write = Write(PUT, value, _HIDDEN, None, base, merge=False)
            # Base 0 creates, and no more, as it is.
            write.create_only = base == BLIND and scope.is_append_only(place)
            return Request(
                scope, op_id, agent, 0, 0, metadata=text, writes={place: write}, pinned=False,
                validate=False, record=False, forbid_blind=core.blind_writes == "forbid",
            )  # fmt: skip

        made = request()
        try:
            return made, core.run(made)
        except IndeterminateCommitError:
            made = request()
            return made, core.run(made)


def _text_of(record: Mapping[str, Any], limits: Limits) -> str:
    """A record as canonical JSON. Whoever made it has seen to it that it holds nothing else."""
    try:
        encoded = canonical(record)
    except TypeError:
        return dump(record, limits)  # it tells what is wrong
    if b"\\u0000" in encoded or len(encoded) > limits.max_value_bytes:
        return dump(record, limits)
    return encoded.decode()
