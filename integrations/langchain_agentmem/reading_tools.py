"""Tools that read: one key, a namespace, a search, the history of a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from agentmem import Entry, Hit
from agentmem.history.diff import differences
from agentmem.model import MISSING
from langchain_agentmem.desk import Answer, Desk
from langchain_agentmem.invocation import Invocation
from langchain_agentmem.paths import Place, namespace_of, path_of, place_of
from langchain_agentmem.reads import Known
from langchain_agentmem.tool import Arguments, OptionalVersion, ToolKind
from langchain_agentmem.wording import (
    by_whom,
    changed_lines,
    shortened,
    value_text,
    version_words,
)

__all__ = ["READING"]

_PAGE: Final = 200  # entries looked at for one result
_PREVIEW: Final = 120  # characters of a value in a list
_HIT: Final = 600  # characters of a value that was found
_VERSIONS: Final = 50
_MOST_CHANGES: Final = 5  # lines for one version in a history
_MAX_HITS: Final = 50


class ReadArguments(Arguments):
    """Of memory_read."""

    key: str
    offset: int = Field(0, ge=0, description="go on at this character")
    version: OptionalVersion = Field(None, description="an older one")


def read(
    desk: Desk, call: Invocation, key: str, offset: int = 0, version: int | None = None
) -> Answer:
    """Shows a key's value, with its version, from an offset on as far as there is room."""
    place = place_of(key)
    path = path_of(place)
    entry = desk.get(place)
    current = entry.version if entry is not None else None
    if version is not None and version != current:
        return _read_old(desk, place, offset, version, current)
    if entry is None:
        return Answer(
            f"{path} is absent. To create it, call memory_write without a version.",
            facts={"key": path, "version": 0},
            reads={path: [known := desk.absent_as_of(place), known]},
        )
    text, whole = _page(desk, f"{path}, version {entry.version}, {by_whom(entry)}", entry, offset)
    reads = desk.seen(entry) if whole else {}
    return Answer(text, facts={"key": path, "version": entry.version}, reads=reads)


def _read_old(desk: Desk, place: Place, offset: int, version: int, current: int | None) -> Answer:
    labels, key = place
    path = path_of(place)
    entry = desk.view.audit.version(key, version, namespace=labels)
    now = f"now {version_words(current or 0)}"
    facts = {"key": path, "version": version}
    if entry.deleted or entry.purged is not None:
        what = "erased" if entry.purged is not None else "the deletion"
        return Answer(f"{path}, version {version} ({now}): {what}, {by_whom(entry)}.", facts=facts)
    text, _whole = _page(
        desk, f"{path}, version {version} ({now}), {by_whom(entry)}", entry, offset
    )
    return Answer(text, facts=facts)


def _page(desk: Desk, heading: str, entry: Entry[Any], offset: int) -> tuple[str, bool]:
    """The value from an offset on; and whether its end is shown."""
    value = value_text(entry.value)
    rest = value[offset:]
    if offset and not rest:
        return f"{heading}: it has {len(value)} characters, none from {offset} on.", False

    def shown(length: int) -> str:
        if length == len(rest):
            part = f", characters {offset}-{len(value)}" if offset else ""
            return f"{heading}{part}:\n{rest}"
        end = offset + length
        on = f"memory_read with offset={end} and version={entry.version}"
        return (
            f"{heading}, characters {offset}-{end} of {len(value)}:\n{rest[:length]}\n"
            f"[cut; to read on, call {on}]"
        )

    length = max(desk.budget.most(shown, len(rest)), min(1, len(rest)))
    return shown(length), length == len(rest)


class ListArguments(Arguments):
    """Of memory_list."""

    namespace: str = ""
    after: str | SkipJsonSchema[None] = Field(None, description="go on after this key")


def list_keys(
    desk: Desk, call: Invocation, namespace: str = "", after: str | None = None
) -> Answer:
    """Lists keys with their versions and the beginnings of their values."""
    labels = namespace_of(namespace)
    start = None if after is None else place_of(after)
    entries = desk.view.list(labels, after=start, limit=_PAGE + 1)
    where = f"in {'/'.join(labels)}" if labels else "in memory"
    if not entries:
        nothing = "No more keys" if after is not None else "No keys"
        return Answer(f"{nothing} {where}.", facts={"keys": [], "more": False})
    lines = [
        f"{path_of(entry)} v{entry.version}: {shortened(value_text(entry.value), _PREVIEW)}"
        for entry in entries[:_PAGE]
    ]

    def shown(some: Sequence[str]) -> str:
        if len(some) == len(entries):
            return "\n".join(some)
        last = path_of(entries[max(len(some) - 1, 0)])
        on = f"memory_list with namespace={namespace!r} and after={last!r}"
        return "\n".join([*some, f"[more; to read on, call {on}]"])

    whole, text = desk.budget.lines(lines, shown)
    count = max(whole, 1)
    facts = {"keys": [path_of(entry) for entry in entries[:count]], "more": count < len(entries)}
    return Answer(text, facts=facts)


class SearchArguments(Arguments):
    """Of memory_search."""

    query: str
    namespace: str = ""
    k: int = Field(5, ge=1, le=_MAX_HITS)
    offset: int = Field(0, ge=0, description="skip so many")


def search(
    desk: Desk, call: Invocation, query: str, namespace: str = "", k: int = 5, offset: int = 0
) -> Answer:
    """Finds what fits best, with versions."""
    hits = desk.view.search(query, namespace=namespace_of(namespace), k=k, offset=offset)
    if not hits:
        return Answer(
            "Nothing more was found." if offset else "Nothing was found.", facts={"keys": []}
        )
    lines = [_hit_line(hit) for hit in hits]

    def shown(some: Sequence[str]) -> str:
        text = "\n".join(some)
        if len(some) < len(hits):
            text += f"\n[cut; to read on, call memory_search with offset={offset + len(some)}]"
        return text

    whole, text = desk.budget.lines(lines, shown)
    count = max(whole, 1)
    reads: dict[str, Known] = {}
    for hit in hits[:whole]:
        if len(value_text(hit.entry.value)) <= _HIT:
            reads |= desk.seen(hit.entry)
    keys = [path_of(hit.entry) for hit in hits[:count]]
    return Answer(text, facts={"keys": keys}, reads=reads)


def _hit_line(hit: Hit) -> str:
    entry = hit.entry
    text = value_text(entry.value)
    cut = "" if len(text) <= _HIT else " [cut; memory_read shows all]"
    return f"{path_of(entry)} v{entry.version}: {text[:_HIT]}{cut}"


class HistoryArguments(Arguments):
    """Of memory_history."""

    key: str
    before: OptionalVersion = Field(None, description="only older versions")


def history(desk: Desk, call: Invocation, key: str, before: int | None = None) -> Answer:
    """Tells who changed a key, when and how, newest first."""
    labels, name = place_of(key)
    path = path_of((labels, name))
    upto = None
    if before is not None:
        upto = (desk.view.audit.version(name, before, namespace=labels).revision or 1) - 1
    # One more than is shown, to tell how the last of them differs from the one before it.
    found = desk.view.history(name, namespace=labels, upto=upto, limit=_VERSIONS + 1)
    if not found:
        older = f" before version {before}" if before is not None else ""
        return Answer(f"{path} has no versions{older}.", facts={"key": path, "versions": []})
    entries = found[:_VERSIONS]
    parts = [
        _version_lines(entry, found[index + 1] if index + 1 < len(found) else None)
        for index, entry in enumerate(entries)
    ]

    def shown(some: Sequence[str]) -> str:
        lines = [path, *some]
        if len(some) < len(found):
            last = entries[max(len(some) - 1, 0)].version
            lines.append(f"[more; to read on, call memory_history with before={last}]")
        return "\n".join(lines)

    count, text = desk.budget.lines(parts, shown)
    versions = [entry.version for entry in entries[: max(count, 1)]]
    return Answer(text, facts={"key": path, "versions": versions})


def _version_lines(entry: Entry[Any], before: Entry[Any] | None) -> str:
    heading = f"v{entry.version} {by_whom(entry)}"
    if entry.purged is not None:
        return f"{heading}: erased"
    if entry.deleted:
        return f"{heading}: deleted"
    comparable = before is not None and before.purged is None
    if not comparable and entry.version != 1:
        return f"{heading}: {shortened(value_text(entry.value), _PREVIEW)}"
    old = MISSING if before is None or before.deleted else before.value
    lines = changed_lines(differences(old, entry.value))
    if len(lines) > _MOST_CHANGES:
        lines = [*lines[:_MOST_CHANGES], f"  and {len(lines) - _MOST_CHANGES} more"]
    return "\n".join([f"{heading}:", *(lines or ["  no change"])])


READING: Final = (
    ToolKind(
        "memory_read",
        "Read a key of the shared memory, such as team/plan. Shows its version.",
        ReadArguments,
        read,
        writes=False,
    ),
    ToolKind(
        "memory_list",
        "List keys and versions in a namespace and below; empty: all.",
        ListArguments,
        list_keys,
        writes=False,
    ),
    ToolKind(
        "memory_search",
        "Search the shared memory by words and meaning.",
        SearchArguments,
        search,
        writes=False,
    ),
    ToolKind(
        "memory_history",
        "Who changed a key, when and how; newest first.",
        HistoryArguments,
        history,
        writes=False,
    ),
)
