"""Documents as entries, entries as documents, and filters over metadata as filters over values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from langchain_core.documents import Document

import agentmem
from agentmem import Entry
from agentmem.filters import Filter

__all__ = ["VERSION_FIELDS", "check_callable", "document_of", "value_of", "where_of"]

CONTENT: Final = "page_content"
METADATA: Final = "metadata"
VERSION_FIELDS: Final = ("agentmem_version", "agentmem_revision")


def value_of(content: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A document as the value of an entry; its id is the key."""
    return {CONTENT: content, METADATA: dict(metadata)}


def parts_of(entry: Entry[Any]) -> tuple[str, dict[str, Any]] | None:
    """Content and metadata, if the entry is a document; None if it is something else."""
    value = entry.value
    if not isinstance(value, dict):
        return None
    content, metadata = value.get(CONTENT), value.get(METADATA)
    if isinstance(content, str) and isinstance(metadata, dict):
        return content, metadata
    return None


def document_of(entry: Entry[Any], *, with_versions: bool = False) -> Document:
    """An entry as a document; what is no document is its text, without metadata.

    Args:
        with_versions: add the fields `VERSION_FIELDS` to the metadata.
    """
    content, metadata = parts_of(entry) or (entry.text or "", {})
    if with_versions:
        found = (entry.version, entry.revision)
        metadata = {**metadata, **dict(zip(VERSION_FIELDS, found, strict=True))}
    return Document(id=entry.key, page_content=content, metadata=metadata)


def check_callable(filter: object) -> None:
    """Raises `InvalidValueError` for a filter that is a function, as some other stores take."""
    if callable(filter):
        raise agentmem.InvalidValueError(
            "filter is a mapping over metadata, such as {'source': 'a.md'}, not a function: it is "
            "judged where the documents are; see docs/filters.md"
        )


def where_of(filter: object) -> dict[str, Any] | None:
    """A filter over metadata as a filter over the values of entries.

    Raises:
        InvalidValueError, LimitExceededError: it is none; see ``docs/filters.md``.
    """
    check_callable(filter)
    parsed = Filter.parse(filter)
    return None if parsed is None else _under_metadata(parsed.source)


def _under_metadata(expression: dict[str, Any]) -> dict[str, Any]:
    # It was parsed before, so a name with "$" in front is one of these, and no field.
    found: dict[str, Any] = {}
    for name, condition in expression.items():
        if name in ("$and", "$or"):
            found[name] = [_under_metadata(each) for each in condition]
        elif name == "$not":
            found[name] = _under_metadata(condition)
        else:
            found[f"{METADATA}.{name}"] = condition
    return found
