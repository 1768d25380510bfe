"""LangChain's record manager, whose records are written in the commits of the documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from langchain_core.indexing import RecordManager
from langchain_core.runnables import run_in_executor

import agentmem
from agentmem import Transaction
from agentmem.model import to_microseconds
from langchain_agentmem.document_records import CLOCK, SCHEMA, DocumentRecords, document_labels
from langchain_agentmem.documents import parts_of
from langchain_agentmem.opening import HoldsStore, Target
from langchain_agentmem.runs import current_run
from langchain_agentmem.vector_store import AgentMemVectorStore

__all__ = ["AgentMemRecordManager"]

T = TypeVar("T")

_PAGE: Final = 500  # documents that get their records in one commit


class AgentMemRecordManager(HoldsStore, RecordManager):
    """Keeps which documents of an `AgentMemVectorStore` are indexed, for ``index`` and ``aindex``.

    ::

        documents = AgentMemVectorStore("team.db", embedding)
        records = AgentMemRecordManager(documents)
        index(loader, records, documents, cleanup="full", source_id_key="source")

    From its first use on, whoever writes or deletes a document of the namespace by a vector store,
    in any process, writes or deletes the document's record in the same commit. So records and
    documents are never apart, wherever a process is killed, and running ``index`` again does only
    what was left to do.

    Args:
        store: the vector store; or the store that has the documents, open, or what
            `agentmem.open` takes.
        namespace: where the documents are; of the vector store, if that is given.
        source_id_key: the field of the metadata that tells a document's source, as ``index`` takes
            it: the group of a document that is written and not yet updated. None: it has none
            until then.
        agent: who writes; None: the agent of the store.

    Guarantees:
        Times are from the storage's clock, and each ``get_time`` is later than all before, and
        than every update before, also where that clock stands or was set back.
    """

    def __init__(
        self,
        store: AgentMemVectorStore | Target,
        namespace: object = None,
        *,
        source_id_key: str | None = "source",
        agent: str | None = None,
    ) -> None:
        if isinstance(store, AgentMemVectorStore):
            namespace = store.namespace if namespace is None else namespace
            store = store.store
        labels = document_labels("documents" if namespace is None else namespace)
        super().__init__("/".join(labels))
        self._hold(store, embedder=None)
        self._records = DocumentRecords(labels)
        self._source_id_key = source_id_key
        self._agent = agent
        self._ready = False
        self._listed: dict[str, int | None] = {}  # versions of the records listed last

    # The schema.

    def create_schema(self) -> None:
        """Begins to keep records, and makes those of documents that are there already.

        Done by itself at the first use. Killed in the middle, it goes on when it is called again.
        """
        schema = self._commit(self._begin, "index: begin to keep records")
        if not schema["complete"]:
            # From here on every writer keeps records: only what was there before is left.
            last: str | None = None
            while True:
                page = self._commit(lambda tx: self._adopt(tx, last), "index: make records")  # noqa: B023  # called at once
                if page is None:
                    break
                last = page
            self._commit(self._complete, "index: records are made")
        self._ready = True

    def _begin(self, tx: Transaction) -> dict[str, Any]:
        schema = self._records.schema(tx)
        wanted = {"source_id_key": self._source_id_key}
        if schema is None:
            schema = {**wanted, "complete": tx.count(self._records.documents) == 0}
        elif schema["source_id_key"] == self._source_id_key:
            return schema
        schema = {**schema, **wanted}
        tx.put(SCHEMA, schema, namespace=self._records.root, text=False)
        return schema

    def _adopt(self, tx: Transaction, after: str | None) -> str | None:
        documents = self._records.documents
        place = None if after is None else (documents, after)
        page = tx.list(documents, after=place, limit=_PAGE)
        metadatas = {
            entry.key: (parts_of(entry) or ("", {}))[1]
            for entry in page
            if entry.namespace == documents
        }
        self._records.adopt(tx, self._source_id_key, metadatas)
        return max(metadatas) if len(page) == _PAGE and metadatas else None

    def _complete(self, tx: Transaction) -> None:
        schema = self._records.schema(tx)
        assert schema is not None, "it was begun"
        tx.put(SCHEMA, {**schema, "complete": True}, namespace=self._records.root, text=False)

    def _check_ready(self) -> None:
        if not self._ready:
            self.create_schema()

    # Time.

    def get_time(self) -> float:
        """The time, in seconds since 1970: later than all that was done before.

        Each call is a commit, so that no two of them, in whatever processes, are the same.
        """
        self._check_ready()

        def tick(tx: Transaction) -> int:
            known = tx.get(CLOCK, namespace=self._records.root)
            moment = max(self._now(), known.value if known is not None else 0) + 1
            tx.put(CLOCK, moment, namespace=self._records.root, text=False)
            return moment

        return self._commit(tick, "index: begin") / 1e6

    def _now(self) -> int:
        """The storage's clock, never before the last commit, in microseconds."""
        return to_microseconds(self.store.snapshot().instant)

    # Records.

    def update(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """Marks documents as seen at `time_at_least`, or now, and as those of their groups.

        Args:
            group_ids: one for each key; None leaves their groups as they are.

        Raises:
            ConflictError: documents are not there, because another has deleted them meanwhile;
                nothing was changed, and running ``index`` again adds them.
            ValueError: there are not as many groups as keys, or the time lies in the future.
        """
        if group_ids is not None and len(group_ids) != len(keys):
            raise ValueError(f"there are {len(keys)} keys and {len(group_ids)} group_ids")
        self._check_ready()
        self._check_past(time_at_least)
        groups = dict(zip(keys, group_ids or [None] * len(keys), strict=True))
        if not groups:
            return
        moment = self.get_time() if time_at_least is None else time_at_least

        def refresh(tx: Transaction) -> list[str]:
            return self._records.refresh(tx, groups, moment, keep_groups=group_ids is None)

        for key in groups:
            self._listed.pop(key, None)  # what this one writes itself is no surprise to it
        missing = self._commit(refresh, "index: update records")
        if missing:
            raise agentmem.ConflictError(
                f"{missing[0]!r} (and {len(missing) - 1} more) is not among the documents in "
                f"{self.namespace!r}: either another has deleted it meanwhile, then run index() "
                "again; or the vector store has its documents in another namespace, then give "
                "AgentMemRecordManager the vector store, or that namespace"
            )

    def _check_past(self, moment: float | None) -> None:
        if moment is None or moment <= self._now() / 1e6:
            return
        known = self.store.get(CLOCK, namespace=self._records.root)
        if known is None or moment > known.value / 1e6:
            raise ValueError(f"time_at_least is {moment}, which lies in the future")

    def exists(self, keys: Sequence[str]) -> list[bool]:
        """Whether each document, and so its record, is there."""
        self._check_ready()
        snapshot = self.store.snapshot()
        wanted = list(dict.fromkeys(keys))
        records = snapshot.get_many(wanted, namespace=self._records.ids)
        # Whoever deletes an entry by other means than a vector store leaves its record.
        documents = snapshot.get_many(records, namespace=self._records.documents)
        return [key in documents for key in keys]

    def list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """The documents that were updated before, or after, a time (not at it), of some groups."""
        self._check_ready()
        found = self._records.find(
            self.store.snapshot(), before=before, after=after, group_ids=group_ids, limit=limit
        )
        self._listed = {record.key: record.version for record in found}
        return list(self._listed)

    def delete_keys(self, keys: Sequence[str]) -> None:
        """Deletes records, and with them their documents, which are never apart.

        One that was listed by `list_keys`, and was written again since, stays: what another has
        indexed meanwhile is not what was meant.
        """
        self._check_ready()
        listed = self._listed
        wanted = list(dict.fromkeys(keys))

        def delete(tx: Transaction) -> None:
            records = tx.get_many(wanted, namespace=self._records.ids)
            meant = [
                key
                for key, record in records.items()
                if record.version == listed.get(key, record.version)
            ]
            for key in meant:
                tx.delete(key, namespace=self._records.documents, overwrite=True)
            self._records.deleted(tx, meant)

        if wanted:
            self._commit(delete, "index: delete records")

    def _commit(self, write: Callable[[Transaction], T], note: str) -> T:
        metadata = current_run().metadata() or None
        return self.store.transact(write, agent=self._agent, note=note, metadata=metadata)

    # The same, awaited: in a thread each, with the context of the caller.

    async def acreate_schema(self) -> None:
        """As `create_schema`."""
        await run_in_executor(None, self.create_schema)

    async def aget_time(self) -> float:
        """As `get_time`."""
        return await run_in_executor(None, self.get_time)

    async def aupdate(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> None:
        """As `update`."""
        await run_in_executor(
            None, self.update, keys, group_ids=group_ids, time_at_least=time_at_least
        )

    async def aexists(self, keys: Sequence[str]) -> list[bool]:
        """As `exists`."""
        return await run_in_executor(None, self.exists, keys)

    async def alist_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """As `list_keys`."""
        return await run_in_executor(
            None, self.list_keys, before=before, after=after, group_ids=group_ids, limit=limit
        )

    async def adelete_keys(self, keys: Sequence[str]) -> None:
        """As `delete_keys`."""
        await run_in_executor(None, self.delete_keys, keys)
