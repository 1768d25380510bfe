"""Which documents are indexed, since when, and of which source: one record for each document.

LangChain's ``index`` writes to a vector store and to a record manager in turn, so a process that
dies in between leaves the two apart. Here whoever writes or deletes a document writes or deletes
its record in the same commit, so at every revision there are as many records as documents.

For the documents in ``("team", "docs")`` there are, once a record manager is used with them::

    ("team", "docs:records")                  schema  {"source_id_key": "source", "complete": true}
    ("team", "docs:records")                  clock   1767225600000000
    ("team", "docs:records", "ids")           <id>    {"group_id": "a.md", "updated_at": 1767225600}
    ("team", "docs:records", "groups", <#>)   <id>    true

``<#>`` is a digest of the group id, which may be longer than a label. ``updated_at`` is None for a
document that was written, and not yet seen by ``RecordManager.update``: it counts from its commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from agentmem import Entry, InvalidValueError, Limits, Transaction
from agentmem.namespaces import parse_namespace
from agentmem.views import View

__all__ = ["CLOCK", "SCHEMA", "DocumentRecords", "Labels", "document_labels"]

Labels = tuple[str, ...]

SCHEMA: Final = "schema"
CLOCK: Final = "clock"
_DIGEST_BYTES: Final = 16
_PAGE: Final = 1_000  # records that are read at once


def document_labels(namespace: object) -> Labels:
    """The namespace of documents, as labels.

    Raises:
        InvalidValueError: it is the root, beside which there is no place for records.
    """
    labels = parse_namespace(namespace, Limits())
    if not labels:
        raise InvalidValueError('documents need a namespace of their own, such as "documents"')
    return labels


class DocumentRecords:
    """The records of the documents in one namespace; writes only in transactions it is given."""

    def __init__(self, documents: Labels) -> None:
        self.documents = documents
        self.root = (*documents[:-1], f"{documents[-1]}:records")
        self.ids = (*self.root, "ids")

    def group(self, group_id: str) -> Labels:
        """Where it says which documents a group has."""
        digest = hashlib.blake2b(group_id.encode(), digest_size=_DIGEST_BYTES)
        return (*self.root, "groups", digest.hexdigest())

    def schema(self, view: View) -> dict[str, Any] | None:
        """How records are kept; None if no record manager has been used here."""
        entry = view.get(SCHEMA, namespace=self.root)
        return entry.value if entry is not None else None

    # What the vector store does in the commits that write and delete documents.

    def written(self, tx: Transaction, metadatas: Mapping[str, Mapping[str, Any]]) -> None:
        """Keeps the records of documents that the transaction writes.

        Args:
            metadatas: those of the documents, by id.
        """
        # Reading the schema in the transaction makes it conflict with the one that begins it.
        schema = self.schema(tx)
        if schema is not None:
            self.adopt(tx, schema["source_id_key"], metadatas)

    def adopt(
        self,
        tx: Transaction,
        source_id_key: str | None,
        metadatas: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """As `written`, where records are known to be kept."""
        known = tx.get_many(metadatas, namespace=self.ids)
        for id, metadata in metadatas.items():
            source = metadata.get(source_id_key) if source_id_key is not None else None
            group_id = source if isinstance(source, str) else None
            record = known.get(id)
            if record is None:
                self._put(tx, id, None, group_id, None)
            elif group_id is not None:
                self._put(tx, id, record, group_id, record.value["updated_at"])

    def deleted(self, tx: Transaction, ids: Sequence[str]) -> None:
        """Deletes the records of documents that the transaction deletes."""
        if self.schema(tx) is None:
            return
        for id, record in tx.get_many(ids, namespace=self.ids).items():
            tx.delete(id, namespace=self.ids)
            if record.value["group_id"] is not None:
                tx.delete(id, namespace=self.group(record.value["group_id"]), overwrite=True)

    # What the record manager does.

    def refresh(
        self,
        tx: Transaction,
        groups: Mapping[str, str | None],
        updated_at: float,
        *,
        keep_groups: bool,
    ) -> list[str]:
        """Moves records on to a time, never back.

        Args:
            groups: the group of each document, by id.
            keep_groups: leave the groups as they are.

        Returns: the ids that have no record; then nothing is written.
        """
        known = tx.get_many(groups, namespace=self.ids)
        if len(known) < len(groups):
            return [id for id in groups if id not in known]
        for id, record in known.items():
            before = record.value
            group_id = before["group_id"] if keep_groups else groups[id]
            later = max(updated_at, before["updated_at"] or updated_at)
            self._put(tx, id, record, group_id, later)
        return []

    def _put(
        self,
        tx: Transaction,
        id: str,
        record: Entry[Any] | None,
        group_id: str | None,
        updated_at: float | None,
    ) -> None:
        """Writes a record, if it is not so already, and moves the document to its group."""
        before = record.value if record is not None else None
        value = {"group_id": group_id, "updated_at": updated_at}
        if before == value:
            return
        tx.put(id, value, namespace=self.ids, text=False)
        old = before["group_id"] if before is not None else None
        if old == group_id:
            return
        if old is not None:
            tx.delete(id, namespace=self.group(old), overwrite=True)
        if group_id is not None:
            tx.put(id, True, namespace=self.group(group_id), text=False, overwrite=True)

    def find(
        self,
        view: View,
        *,
        before: float | None,
        after: float | None,
        group_ids: Sequence[str | None] | None,
        limit: int | None,
    ) -> list[Entry[Any]]:
        """The records of these groups, or all, of the times between; see ``list_keys``."""
        found: list[Entry[Any]] = []
        for record in self._records(view, group_ids):
            moment = record.value["updated_at"]
            if moment is None:
                assert record.committed_at is not None, "it is no pending write"
                moment = record.committed_at.timestamp()
            if (before is not None and moment >= before) or (after is not None and moment <= after):
                continue
            found.append(record)
            if limit is not None and len(found) >= limit:
                break
        return found

    def _records(self, view: View, group_ids: Sequence[str | None] | None) -> Iterable[Entry[Any]]:
        if group_ids is None or None in group_ids:
            page = view.list(self.ids, limit=_PAGE)
            while page:
                for record in page:
                    if group_ids is None or record.value["group_id"] in group_ids:
                        yield record
                page = view.list(self.ids, limit=_PAGE, after=page[-1])
            return
        for group_id in dict.fromkeys(group_ids):
            members = [entry.key for entry in view.list(self.group(group_id or ""))]
            yield from view.get_many(members, namespace=self.ids).values()
