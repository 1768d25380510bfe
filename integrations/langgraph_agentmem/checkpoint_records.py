"""What is stored of a checkpoint: JSON around LangGraph's own bytes.

One entry holds the checkpoint; channel values of more than a few kilobytes are kept apart, under
the digest of their bytes, so that checkpoints that share a value share the bytes::

    {"id": …, "parent": … or null,
     "metadata": {"source": "loop", "step": 3, …},
     "checkpoint": ["msgpack", "<base64>"],
     "channels": {"documents": ["msgpack", ["<digest>", …]]}}

A payload is ``[kind, base64]``, or ``[kind, [digest, …]]`` of the parts that it was cut into, so
that no entry comes near the limit of a value. Metadata that is no JSON is kept as a payload too,
under ``metadata_payload``.
"""

from __future__ import annotations

import hashlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import orjson
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentmem import CorruptionError, InvalidValueError

__all__ = [
    "Fetch",
    "add_writes",
    "bare_checkpoint_in",
    "channel_in",
    "checkpoint_in",
    "metadata_in",
    "pack",
    "part_names",
    "pending_writes",
]

_WHOLE_BYTES: Final = 8 * 1024  # a checkpoint up to this is one payload
_CHANNEL_BYTES: Final = 4 * 1024  # a larger channel value is kept apart
_METADATA_BYTES: Final = 64 * 1024  # larger metadata is a payload
_METADATA_DEPTH: Final = 32  # deeper metadata is one too
_PART_BYTES: Final = 1024 * 1024  # a third more as base64; a value may have 4 MiB

Payload = list[Any]
Record = dict[str, Any]
Parts = dict[str, str]
Fetch = Callable[[Iterable[str]], Mapping[str, str]]
"""Names of parts -> their base64 texts."""


def pack(
    serde: SerializerProtocol,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    parent: str | None,
) -> tuple[Record, Parts]:
    """A checkpoint as it is stored: its record, and the parts that it needs."""
    parts: Parts = {}
    record: Record = {"id": checkpoint["id"], "parent": parent}
    kind, data = serde.dumps_typed(checkpoint)
    if len(data) > _WHOLE_BYTES:
        small, channels = {}, {}
        for name, value in checkpoint["channel_values"].items():
            dumped = serde.dumps_typed(value)
            if len(dumped[1]) > _CHANNEL_BYTES:
                channels[name] = _apart(*dumped, parts)
            else:
                small[name] = value
        if channels:
            record["channels"] = channels
            kind, data = serde.dumps_typed({**checkpoint, "channel_values": small})
    record["checkpoint"] = _payload(kind, data, parts)
    if _is_json(metadata) and len(orjson.dumps(metadata)) <= _METADATA_BYTES:
        record["metadata"] = metadata
    else:
        record["metadata_payload"] = _payload(*serde.dumps_typed(metadata), parts)
    return record, parts


def _text(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def _payload(kind: str, data: bytes, parts: Parts) -> Payload:
    if len(data) > _PART_BYTES:
        return _apart(kind, data, parts)
    return [kind, _text(data)]


def _apart(kind: str, data: bytes, parts: Parts) -> Payload:
    names = []
    for start in range(0, len(data), _PART_BYTES):
        part = bytes(data[start : start + _PART_BYTES])
        name = hashlib.blake2b(part, digest_size=20).hexdigest()
        parts[name] = _text(part)
        names.append(name)
    return [kind, names]


def _is_json(value: object, depth: int = 0) -> bool:
    """Whether a value comes back from the store as it is; tuples come back as lists."""
    kind = type(value)
    if kind is str:
        return "\x00" not in cast(str, value) and _is_unicode(cast(str, value))
    if kind is int:
        return -(2**63) <= cast(int, value) < 2**63
    if kind is float:
        return value == value and value not in (float("inf"), -float("inf"))
    if kind is bool or value is None:
        return True
    if kind not in (dict, list, tuple) or depth == _METADATA_DEPTH:
        return False
    inner = cast(Iterable[object], value)
    if isinstance(value, dict):
        if not all(type(name) is str and _is_json(name) for name in value):
            return False
        inner = value.values()
    return all(_is_json(each, depth + 1) for each in inner)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Reading.


def part_names(record: Mapping[str, Any]) -> list[str]:
    """The parts that a record, of a checkpoint or of writes, needs."""
    payloads = [
        record.get("checkpoint"),
        record.get("metadata_payload"),
        record.get("writes_payload"),
        *record.get("channels", {}).values(),
    ]
    return [
        name
        for payload in payloads
        if payload is not None and isinstance(payload[1], list)
        for name in payload[1]
    ]


def checkpoint_in(record: Mapping[str, Any], serde: SerializerProtocol, fetch: Fetch) -> Checkpoint:
    """The checkpoint of a record, whole."""
    checkpoint = cast(Checkpoint, _load(record["checkpoint"], serde, fetch))
    for name, payload in record.get("channels", {}).items():
        checkpoint["channel_values"][name] = _load(payload, serde, fetch)
    return checkpoint


def channel_in(
    record: Mapping[str, Any],
    bare: Checkpoint,
    name: str,
    serde: SerializerProtocol,
    fetch: Fetch,
) -> Any:
    """The value of one channel in a record.

    Args:
        bare: the checkpoint without the channels that are kept apart.

    Raises:
        KeyError: nothing is stored of it there.
    """
    apart = record.get("channels", {})
    if name in apart:
        return _load(apart[name], serde, fetch)
    return bare["channel_values"][name]


def bare_checkpoint_in(
    record: Mapping[str, Any], serde: SerializerProtocol, fetch: Fetch
) -> Checkpoint:
    """The checkpoint of a record, without the channels that are kept apart."""
    return cast(Checkpoint, _load(record["checkpoint"], serde, fetch))


def metadata_in(
    record: Mapping[str, Any], serde: SerializerProtocol, fetch: Fetch
) -> CheckpointMetadata:
    """The metadata of a record."""
    if "metadata" in record:
        return cast(CheckpointMetadata, record["metadata"])
    return cast(CheckpointMetadata, _load(record["metadata_payload"], serde, fetch))


def _load(payload: Payload, serde: SerializerProtocol, fetch: Fetch) -> Any:
    return serde.loads_typed((payload[0], _data(payload, fetch)))


def _data(payload: Payload, fetch: Fetch) -> bytes:
    content = payload[1]
    if isinstance(content, str):
        return a2b_base64(content)
    parts = fetch(content)
    missing = [name for name in content if name not in parts]
    if missing:
        raise CorruptionError(
            f"part {missing[0]!r} of a checkpoint is missing; it was purged, or deleted by hand"
        )
    return b"".join(a2b_base64(parts[name]) for name in content)


# What tasks have written.


def add_writes(
    before: Mapping[str, Any] | None,
    writes: Sequence[tuple[str, Any]],
    task_path: str,
    serde: SerializerProtocol,
    fetch: Fetch,
) -> tuple[Record, Parts] | None:
    """The record of a task's writes with more of them; None if that changes nothing.

    The first write of a task to an index stays; those to special channels, such as errors and
    interrupts, have an index of their own and the last one counts.
    """
    rows = _rows(before, fetch) if before is not None else {}
    changed = False
    for position, (channel, value) in enumerate(writes):
        index = WRITES_IDX_MAP.get(channel, position)
        if index >= 0 and index in rows:
            continue
        kind, data = serde.dumps_typed(value)
        rows[index] = [index, channel, task_path, kind, _text(data)]
        changed = True
    if not changed:
        return None
    parts: Parts = {}
    plain = [rows[index] for index in sorted(rows)]
    try:
        text = orjson.dumps(plain)
    except orjson.JSONEncodeError as error:
        raise InvalidValueError(f"the name of a channel, or the path of a task: {error}") from error
    if len(text) <= _PART_BYTES and _is_json(plain):
        return {"writes": plain}, parts
    return {"writes_payload": _apart("rows", text, parts)}, parts


def _rows(record: Mapping[str, Any], fetch: Fetch) -> dict[int, list[Any]]:
    if "writes" in record:
        rows = record["writes"]
    else:
        rows = orjson.loads(_data(record["writes_payload"], fetch))
    return {row[0]: row for row in rows}


def pending_writes(
    records: Iterable[tuple[str, Mapping[str, Any]]],
    serde: SerializerProtocol,
    fetch: Fetch,
    channels: Collection[str] | None = None,
) -> list[PendingWrite]:
    """What tasks have written, in the order in which LangGraph would apply it.

    Args:
        records: (task id, record).
        channels: only what they have written to these; None: to any.
    """
    rows = [
        (task_id, row)
        for task_id, record in records
        for row in _rows(record, fetch).values()
        if channels is None or row[1] in channels
    ]
    rows.sort(key=lambda each: writes_sort_key(each[1][2], each[0], each[1][0]))
    return [
        (task_id, channel, serde.loads_typed((kind, a2b_base64(data))))
        for task_id, (_index, channel, _path, kind, data) in rows
    ]
