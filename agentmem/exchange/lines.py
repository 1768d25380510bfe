"""Rows as lines of JSON, and back: one object a line, checked field by field.

A kind of line follows from the type of its row: every field under its own name, None left out,
bytes in base64, namespaces as lists of labels. What is JSON in the store stands there as itself::

    {"type":"entry","id":7,"namespace":["team"],"key":"plan","revision":4,…,"value":{"days":3},…}

A field that is added to a row is on its lines from then on. Reading makes numbers, texts, lists and
objects, never anything else, and refuses a name that it does not know.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeVar, get_args, get_type_hints

import orjson

from agentmem.engines.rows import (
    CommitRow,
    ConflictRow,
    NewEntry,
    PurgeRow,
    ReadRow,
    TagRow,
    VectorSet,
)
from agentmem.errors import InvalidValueError
from agentmem.limits import Limits
from agentmem.namespaces import decode, encode, parse_namespace
from agentmem.values import dump

__all__ = [
    "COMMIT",
    "CONFLICT",
    "ENTRY",
    "FLOOR",
    "PENDING",
    "PURGE",
    "READ",
    "SPACE",
    "STATE",
    "STRATEGY",
    "TAG",
    "VECTOR",
    "VECTOR_SET",
    "Floor",
    "LineError",
    "LineKind",
    "Pending",
    "Space",
    "State",
    "Strategy",
    "Vector",
    "object_of",
]

R = TypeVar("R")

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**63 - 1
# What a store holds was within the limits of whoever wrote it; these only keep a file from
# exhausting this process.
_LIMITS: Final = Limits(
    max_value_bytes=256 * 1024 * 1024, max_json_depth=256, max_key_bytes=1024 * 1024,
    max_namespace_depth=1_000,
)  # fmt: skip
_CACHED: Final = 4_096


class LineError(Exception):
    """What is wrong with a line, in words; whoever reads the file adds where it stands."""


class Vector(NamedTuple):
    """A line with the vector of an entry; ``late`` as in ``vectors``."""

    set_id: int
    entry_id: int
    late: int | None
    vector: bytes


class Space(NamedTuple):
    """A line that says which vectors a top-level namespace has."""

    namespace: str
    set_id: int


class Pending(NamedTuple):
    """A line that says that an entry has yet to be embedded."""

    entry_id: int


class Strategy(NamedTuple):
    """A line with a stored merge strategy; they stand in order of registration."""

    pattern: str
    spec: str


class Floor(NamedTuple):
    """The line that says how far the history was compacted."""

    revision: int


class State(NamedTuple):
    """A line of an export of one revision: an entry as it was visible there."""

    namespace: str
    key: str
    version: int
    revision: int
    value: str
    text: str | None
    agent: str | None
    op_id: str | None
    created_at: int
    committed_at: int
    expires_at: int | None
    vector: bytes | None


class _Spelling(NamedTuple):
    write: Callable[[Any], Any] | None  # None: as it is
    read: Callable[[Any], Any]


def _int(value: Any) -> int:
    if type(value) is not int or not _MIN_INT <= value <= _MAX_INT:
        raise LineError("is no integer of 64 bits")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise LineError("is no string")
    if "\x00" in value:
        raise LineError("holds NUL")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise LineError("is no base64") from error


def _json(value: Any) -> str:
    try:
        return dump(value, _LIMITS)
    except InvalidValueError as error:
        raise LineError(str(error)) from error


def _labels(value: Any) -> str:
    if type(value) is not list or not all(type(label) is str for label in value):
        raise LineError("is no list of strings")
    return _encoded(tuple(value))


@lru_cache(_CACHED)
def _encoded(labels: tuple[str, ...]) -> str:
    try:
        return encode(parse_namespace(labels, _LIMITS))
    except InvalidValueError as error:
        raise LineError(f"is no namespace: {error}") from error


_SPELLINGS: Final = {
    int: _Spelling(None, _int),
    str: _Spelling(None, _text),
    bytes: _Spelling(lambda value: b64encode(value).decode(), _bytes),
}
_NAMESPACE: Final = _Spelling(lambda text: list(decode(text)), _labels)
_JSON: Final = _Spelling(orjson.Fragment, _json)


class LineKind(Generic[R]):
    """How the rows of one type stand on lines.

    Attributes:
        name: of the kind, on every line of it.
    """

    def __init__(
        self,
        name: str,
        row: Callable[..., R],
        *,
        json: Collection[str] = (),
        given: str = "",
    ) -> None:
        """
        Args:
            row: a NamedTuple.
            json: its fields that hold canonical JSON text.
            given: a field that is not on the line, because it follows from others.
        """
        self.name = name
        self._row = row
        self._given = given
        self._fields: list[tuple[str, _Spelling, bool]] = []
        for field, hint in get_type_hints(row).items():
            if field == given:
                continue
            kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
            spelling = _SPELLINGS[kinds[0]]
            if field == "namespace":
                spelling = _NAMESPACE
            elif field in json:
                spelling = _JSON
            self._fields.append((field, spelling, type(None) in get_args(hint)))
        self._names = [field for field, _spelling, _optional in self._fields]

    def line(self, row: Sequence[Any]) -> bytes:
        """A row as a line, with its end."""
        found: dict[str, Any] = {"type": self.name}
        for (field, spelling, _optional), value in zip(self._fields, row, strict=False):
            if value is not None:
                found[field] = value if spelling.write is None else spelling.write(value)
        return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)

    def row(self, found: dict[str, Any], given: Any = None) -> R:
        """The row of a line.

        Args:
            given: what stands in the field that is not on the line.

        Raises:
            LineError: a field is missing, unknown, or holds what it cannot.
        """
        values: dict[str, Any] = {self._given: given} if self._given else {}
        left = len(found) - 1  # the type
        for field, spelling, optional in self._fields:
            if field in found:
                left -= 1
                try:
                    values[field] = spelling.read(found[field])
                except LineError as error:
                    raise LineError(f"{field} {error}") from error
            elif optional:
                values[field] = None
            else:
                raise LineError(f"{field} is missing")
        if left:
            unknown = sorted(found.keys() - {"type", *self._names})
            raise LineError(f"{unknown[0]!r} is not known here; a newer agentmem may have written")
        return self._row(**values)


def object_of(line: bytes) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        LineError: it is none.
    """
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise LineError(f"is not JSON ({error})") from error
    if type(found) is not dict:
        raise LineError("is no JSON object")
    return found


# The digest of an entry stands with its commit.
ENTRY: Final = LineKind("entry", NewEntry, json=("value",), given="digest")
COMMIT: Final = LineKind("commit", CommitRow, json=("metadata", "accepted", "result"))
READ: Final = LineKind("read", ReadRow)
VECTOR: Final = LineKind("vector", Vector)
VECTOR_SET: Final = LineKind("vector_set", VectorSet)
SPACE: Final = LineKind("vector_space", Space)
PENDING: Final = LineKind("pending_vector", Pending)
CONFLICT: Final = LineKind("conflict", ConflictRow, json=("ours",))
STRATEGY: Final = LineKind("strategy", Strategy)
TAG: Final = LineKind("tag", TagRow)
FLOOR: Final = LineKind("floor", Floor)
PURGE: Final = LineKind("purge", PurgeRow, given="id")
STATE: Final = LineKind("state", State, json=("value",))
