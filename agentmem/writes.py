"""The arguments of writing calls as `Write` objects: checked here, for stores and transactions."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final

from agentmem.callers import warn
from agentmem.core import Core
from agentmem.engines.rows import (
    OPERATION_CODES,
    Place,
)
from agentmem.errors import InvalidValueError
from agentmem.limits import Limits
from agentmem.operations import ADD_TO_SET, APPEND, DELETE, INCREMENT, PATCH, PUT
from agentmem.request import BLIND, Touch, Write
from agentmem.scope import Scope
from agentmem.search.vectors import pack
from agentmem.values import (
    canonical,
    check_label_text,
    check_metadata,
    check_number,
    dump,
    load,
    search_text,
)

__all__ = [
    "atomic",
    "base_of",
    "commit_fields",
    "deletion",
    "fingerprint",
    "new_key",
    "pairs",
    "payload_of",
    "put",
    "similarity",
    "touch",
    "ttl_microseconds",
    "warn_slash",
]

_MAX_TTL_S: Final = 100 * 366 * 24 * 3_600
_FINGERPRINT_BYTES: Final = 16
_EMBEDS: Final = ("now", "deferred")


def put(
    value: object,
    *,
    base: int,
    merge: bool,
    text: str | bool | None,
    ttl_s: float | None,
    limits: Limits,
    vector: object = None,
    embed: str = "now",
) -> Write:
    """A put, checked.

    Raises:
        EmbedderError: the vector is no list of finite numbers.
        InvalidValueError, LimitExceededError: another argument is not allowed.
    """
    if embed not in _EMBEDS:
        raise InvalidValueError(f"embed is 'now' or 'deferred', not {embed!r}")
    encoded = dump(value, limits)
    stored_text = None if text is None else _stored_text(text, limits)
    ttl_us = None if ttl_s is None else ttl_microseconds(ttl_s)
    write = Write(PUT, encoded, stored_text, ttl_us, base, merge)
    write.deferred = embed == "deferred"
    if text is None and type(value) is str:
        write.words = value  # what search sees of a string is the string
    if vector is not None:
        write.vector = pack(vector, "the vector")
    return write


def similarity(similar: object) -> float:
    """The argument ``similar`` of ``add``, checked."""
    if isinstance(similar, bool) or not isinstance(similar, (int, float)):
        raise TypeError(f"similar is a cosine such as 0.95, not {type(similar).__name__}")
    if not 0 < similar <= 1:
        raise InvalidValueError(f"similar is {similar}; it lies above 0 and is at most 1")
    return float(similar)


def deletion(base: int, *, merge: bool) -> Write:
    """A delete."""
    return Write(DELETE, base=base, merge=merge)


def atomic(operation: str, operand: object, limits: Limits) -> Write:
    """An atomic operation with its operand, checked.

    Raises:
        InvalidValueError: ``increment`` by what is no number, ``patch`` by what is no object.
    """
    code = OPERATION_CODES[operation]
    if code == INCREMENT and (isinstance(operand, bool) or not isinstance(operand, (int, float))):
        raise InvalidValueError(f"increment is by a number, not {type(operand).__name__}", path="$")
    # Through text, so that nothing the caller changes later can reach it.
    plain = load(dump(operand, limits, what="operand"))
    if code == PATCH and not isinstance(plain, dict):
        raise InvalidValueError(
            f"a merge patch is an object, not {type(plain).__name__}; put replaces a value",
            path="$",
        )
    assert code in (INCREMENT, APPEND, ADD_TO_SET, PATCH), operation
    return Write(code, steps=[(code, plain)])


def touch(ttl_s: float | None) -> Touch:
    """A new expiry, checked."""
    return Touch(ttl_microseconds(ttl_s))


def base_of(expected_version: int | None, *, overwrite: bool, otherwise: int) -> int:
    """The base of a write from ``expected_version`` and ``overwrite``.

    Raises:
        InvalidValueError: the version is negative, or both are given.
    """
    if expected_version is None:
        return BLIND if overwrite else otherwise
    check_number(expected_version, "expected_version (entry.version, or 0 for absent)")
    if overwrite:
        raise InvalidValueError("overwrite=True ignores versions; leave expected_version out")
    return expected_version


def ttl_microseconds(ttl_s: object) -> int | None:
    """A time to live in microseconds; None is for ever.

    Raises:
        InvalidValueError: it is not positive, or longer than 100 years.
    """
    if ttl_s is None:
        return None
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, (int, float)):
        raise TypeError(f"ttl_s is a number of seconds, not {type(ttl_s).__name__}")
    if not 0 < ttl_s <= _MAX_TTL_S:
        raise InvalidValueError(
            f"ttl_s is {ttl_s}; it must be positive and at most {_MAX_TTL_S} (100 years)"
        )
    return max(1, round(ttl_s * 1_000_000))


def _stored_text(text: str | bool, limits: Limits) -> str:
    """``text=`` as it is stored: ``""`` is hidden."""
    if text is True:
        raise TypeError("text is a str, False (hidden from search) or None (from the value)")
    return search_text(text, None, limits) or ""


def pairs(items: object) -> list[tuple[Any, Any]]:
    """The argument of ``put_many``: a mapping, or (key, value) pairs."""
    if isinstance(items, Mapping):
        return list(items.items())
    if isinstance(items, Iterable) and not isinstance(items, (str, bytes)):
        found = [tuple(item) for item in items]
        if all(len(item) == 2 for item in found):
            return [(item[0], item[1]) for item in found]
    raise TypeError("items is a mapping of keys to values, or a list of (key, value)")


def commit_fields(
    scope: Scope, agent: object, op_id: object, note: object, metadata: object
) -> tuple[str | None, str | None, str | None, str | None]:
    """Who, operation id, why and with what, checked; the agent of the view if none is given."""
    limits = scope.limits
    return (
        check_label_text(agent, "agent", limits) if agent is not None else scope.agent,
        check_label_text(op_id, "op_id", limits),
        check_label_text(note, "note", limits),
        check_metadata(metadata, limits),
    )


def fingerprint(operation: str, places: Iterable[Place], payload: list[Any]) -> bytes:
    """What tells a request from others with its op_id: all but versions."""
    body = canonical([operation, [list(place) for place in places], payload])
    return blake2b(body, digest_size=_FINGERPRINT_BYTES).digest()


def payload_of(write: Write) -> list[Any]:
    """The part of a write that belongs to its fingerprint."""
    payload = [write.value, write.text, write.ttl_us, [list(step) for step in write.steps]]
    return payload if write.vector is None else [*payload, write.vector.hex()]


def warn_slash(core: Core, place: Place) -> None:
    """Warns of a new root key that looks as if it were meant for a namespace with a pattern.

    ``"notes/x"`` is a key in the root, to which the pattern ``"notes/**"`` does not apply.
    """
    patterns = core.registry.patterns() + core.stored_patterns()
    if not patterns or core.engine.point(place, None).row is not None:
        return
    *labels, key = place[1].split("/")
    for pattern in patterns:
        if pattern.matches((), place[1]):
            continue
        if key and all(labels) and pattern.matches(tuple(labels), key):
            warn(
                f"the key {place[1]!r} lies in the root, so the merge pattern {pattern.text!r} "
                f"does not apply to it; did you mean namespace={'/'.join(labels)!r}, key={key!r}?",
                UserWarning,
            )
            return


class _KeyMaker:
    """Time-ordered keys: milliseconds, a counter within the millisecond, and random bits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects _last
        self._last = (0, 0)

    def __call__(self) -> str:
        now_ms = time.time_ns() // 1_000_000
        with self._lock:
            last_ms, count = self._last
            # A clock that was set back must not put new keys before old ones.
            self._last = (now_ms, 0) if now_ms > last_ms else (last_ms, count + 1)
            moment_ms, count = self._last
        return f"{moment_ms:012x}{count:06x}{os.urandom(7).hex()}"


new_key: Final = _KeyMaker()
"""A new key, 32 hexadecimal digits, after all that this process has made before."""
