"""Tools that write: each call is one commit, made before its result is returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from agentmem import Change, Commit, Conflict, ConflictError, Entry, Transaction
from agentmem.history.diff import differences
from agentmem.model import MISSING
from agentmem.operations import PATCH, apply_step
from agentmem.values import dump, load
from langchain_agentmem.desk import Answer, Desk
from langchain_agentmem.invocation import Invocation
from langchain_agentmem.paths import Place, path_of, place_of
from langchain_agentmem.reads import Known, visible
from langchain_agentmem.tool import Arguments, OptionalVersion, ToolKind
from langchain_agentmem.wording import (
    changed_lines,
    conflict_parts,
    value_text,
)

__all__ = ["WRITING", "refusal"]

_VERSION: Final = "the version you read"
_Base = Annotated[int, Field(ge=0)] | SkipJsonSchema[None]


class WriteArguments(Arguments):
    """Of memory_write."""

    key: str
    value: Any = Field(description="any JSON or text; replaces all")
    version: _Base = Field(None, description=f"{_VERSION}; 0 or none: only if absent")


def write(desk: Desk, call: Invocation, key: str, value: Any, version: int | None = None) -> Answer:
    """Sets a key, if it is still as the agent has read it."""
    place = place_of(key)
    base = _base(desk, call, place, version)
    if isinstance(base, Answer):
        return base

    def put(tx: Transaction) -> None:
        labels, name = place
        tx.put(name, value, namespace=labels, expected_version=base)

    request = {"key": key, "value": value, "version": version}
    return _written(desk, call, place, base, put, request, "Wrote", given=value)


class PatchArguments(Arguments):
    """Of memory_patch."""

    key: str
    patch: dict[str, Any] = Field(description="fields to set; null removes")
    version: _Base = Field(None, description="only if it still has this version")


def patch(
    desk: Desk, call: Invocation, key: str, patch: dict[str, Any], version: int | None = None
) -> Answer:
    """Changes fields of an object, whatever it is now, or only at a version."""
    place = place_of(key)
    labels, name = place
    request = {"key": key, "patch": patch, "version": version}
    if version is None:

        def apply(tx: Transaction) -> None:
            tx.patch(name, patch, namespace=labels)

        return _written(desk, call, place, None, apply, request, "Patched", given=MISSING)
    base = _base(desk, call, place, version)
    if isinstance(base, Answer):
        return base

    def put(tx: Transaction) -> None:
        value = patched(desk, place, base, patch)
        tx.put(name, value, namespace=labels, expected_version=base)

    return _written(desk, call, place, base, put, request, "Patched", given=MISSING)


def patched(desk: Desk, place: Place, base: int, patch: dict[str, Any]) -> Any:
    """What a patch makes of a version of a key.

    Raises:
        InvalidValueError: the version is no object.
        KeyMissingError: there is no such version, or it is not kept any more.
    """
    labels, key = place
    value: Any = {}
    if base:
        value = desk.view.audit.version(key, base, namespace=labels).value
    return apply_step(PATCH, load(dump(patch, desk.limits)), value, path_of(place))


class AppendArguments(Arguments):
    """Of memory_append."""

    key: str
    items: list[Any]


def append(desk: Desk, call: Invocation, key: str, items: list[Any]) -> Answer:
    """Adds items to a list, whatever it holds by now."""
    place = place_of(key)

    def add(tx: Transaction) -> None:
        labels, name = place
        tx.append(name, *items, namespace=labels)

    request = {"key": key, "items": items}
    done = f"Appended {len(items)} to"
    return _written(desk, call, place, None, add, request, done, given=MISSING)


class DeleteArguments(Arguments):
    """Of memory_delete."""

    key: str
    version: OptionalVersion = Field(None, description=_VERSION)


def delete(desk: Desk, call: Invocation, key: str, version: int | None = None) -> Answer:
    """Deletes a key, if it is still as the agent has read it."""
    place = place_of(key)
    base = _base(desk, call, place, version)
    if isinstance(base, Answer):
        return base

    def remove(tx: Transaction) -> None:
        labels, name = place
        tx.delete(name, namespace=labels, expected_version=base, merge=False)

    request = {"key": key, "version": version}
    return _written(desk, call, place, base, remove, request, "Deleted", given=MISSING)


def _base(desk: Desk, call: Invocation, place: Place, version: int | None) -> int | Answer:
    """The version that a write is made from: the one it names, else the one that was read.

    A version that is newer than any that was put before this agent is a guess, and is refused:
    it would let a write pass that is made from an older value.
    """
    read, told = desk.known(call, path_of(place))
    if version is None:
        return visible(read)
    if told is not None and version > abs(told):
        path = path_of(place)
        return Answer(
            f"NOT DONE: you have seen {path} up to version {abs(told)}, not {version}. "
            "Read it with memory_read, then write from what you find.",
            refused=True,
            facts={"key": path, "unseen": version},
        )
    return version


def _written(
    desk: Desk,
    call: Invocation,
    place: Place,
    base: int | None,
    act: Any,
    request: Mapping[str, Any],
    done: str,
    given: Any,
) -> Answer:
    """Commits, and says what became of it.

    Args:
        base: the version that the call starts from; None: it takes the key as it is.
        done: what was done, as a sentence goes on with the key.
        given: the whole value that the agent gave; MISSING: it gave less.
    """
    path = path_of(place)
    try:
        commit = desk.commit(call, act, request)
    except ConflictError as error:
        return refusal(desk, call, place, base or 0, error.conflicts[0])
    change = _change_of(commit, place)
    if change is None:
        return Answer(f"{path} was absent already.", facts={"key": path, "version": 0})
    labels, key = place
    entry = desk.view.audit.version(key, change.version, namespace=labels)
    facts = {"key": path, "version": change.version, "revision": commit.revision}
    if call.op_id is not None:
        facts["op_id"] = call.op_id
    if change.merged is not None:
        return _merged(desk, call, entry, given, facts)
    if entry.deleted:
        text = f"{done} {path}; its deletion is version {change.version}."
        return Answer(text, facts=facts, reads=desk.wrote(call, entry, whole=True))
    text = f"{done} {path}: now version {change.version}."
    if given is not MISSING:
        return Answer(text, facts=facts, reads=desk.wrote(call, entry, whole=True))
    return _with_value(desk, call, entry, text, facts)


def _change_of(commit: Commit, place: Place) -> Change | None:
    for change in commit.changes:
        if (change.namespace, change.key) == place:
            return change
    return None


def _with_value(
    desk: Desk, call: Invocation, entry: Entry[Any], text: str, facts: dict[str, Any]
) -> Answer:
    """Adds the whole value, which the agent may not know, if there is room."""
    full = f"{text} It is:\n{value_text(entry.value)}"
    whole = desk.budget.fits(full)
    reads = desk.wrote(call, entry, whole=whole)
    return Answer(full if whole else text, facts=facts, reads=reads)


def _merged(
    desk: Desk, call: Invocation, entry: Entry[Any], given: Any, facts: dict[str, Any]
) -> Answer:
    """A merge hook or strategy has put both changes into one value."""
    path = path_of(entry)
    facts["merged"] = True
    if entry.deleted:
        text = f"{path} was changed by another meanwhile; merged, it is deleted."
        return Answer(text, facts=facts, reads=desk.wrote(call, entry, whole=True))
    text = f"Wrote {path}, merged with a change by another: now version {entry.version}."
    lines = changed_lines(differences(given, entry.value)) if given is not MISSING else []
    told = "\n".join([text, "What differs from what you wrote:", *lines])
    if lines and desk.budget.fits(told):
        text = told
    return _with_value(desk, call, entry, text, facts)


# Conflicts.


def refusal(desk: Desk, call: Invocation, place: Place, base: int, conflict: Conflict) -> Answer:
    """Tells of a conflict: what the call was based on, what is there now, what to do."""
    path = path_of(place)
    theirs = conflict.theirs_entry
    changes = desk.changes(place, base, theirs)
    happened, lines, advice = conflict_parts(path, call.tool, base, theirs, changes)
    now = "" if theirs is None else f"It is now:\n{value_text(theirs.value)}"

    def shown(count: int) -> str:
        cut = [f"  and {len(lines) - count} more"] if count < len(lines) else []
        return "\n".join([happened, *lines[:count], *cut, advice])

    count = desk.budget.most(shown, len(lines))
    text = "\n".join([happened, *lines[:count], *([now] if now else []), advice])
    whole = count == len(lines) and desk.budget.fits(text)
    current = conflict.current_version
    known: Known = [None, current] if theirs is not None else [None, desk.absent_as_of(place)]
    if whole:
        known = [known[1], known[1]]
    facts = {"key": path, "conflict": {"base_version": base, "theirs_version": current}}
    return Answer(text if whole else shown(count), refused=True, facts=facts, reads={path: known})


WRITING: Final = (
    ToolKind(
        "memory_write",
        "Set a key. If it was changed since the version you give, nothing is written and you "
        "are told the difference.",
        WriteArguments,
        write,
        writes=True,
    ),
    ToolKind(
        "memory_patch",
        "Set or remove fields of an object; the others stay as they are now.",
        PatchArguments,
        patch,
        writes=True,
    ),
    ToolKind(
        "memory_append",
        "Append items to a list. Never conflicts.",
        AppendArguments,
        append,
        writes=True,
    ),
    ToolKind("memory_delete", "Delete a key.", DeleteArguments, delete, writes=True),
)
