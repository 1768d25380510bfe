"""The atomic operations: what they make of the value that is there when they commit."""

from __future__ import annotations

from typing import Any, Final

from agentmem.engines.rows import (
    OPERATION_CODES,
)
from agentmem.errors import InvalidValueError
from agentmem.values import canonical

__all__ = ["ADD_TO_SET", "APPEND", "DELETE", "INCREMENT", "PATCH", "PUT", "apply_step", "start_of"]

PUT: Final = OPERATION_CODES["put"]
DELETE: Final = OPERATION_CODES["delete"]
INCREMENT: Final = OPERATION_CODES["increment"]
APPEND: Final = OPERATION_CODES["append"]
ADD_TO_SET: Final = OPERATION_CODES["add_to_set"]
PATCH: Final = OPERATION_CODES["patch"]

_NAMES: Final = {INCREMENT: "increment", APPEND: "append", ADD_TO_SET: "add_to_set", PATCH: "patch"}
_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**63 - 1


def start_of(operation: int) -> Any:
    """The value that an operation starts from where the key is absent."""
    return {INCREMENT: 0, APPEND: [], ADD_TO_SET: [], PATCH: {}}[operation]


def apply_step(operation: int, operand: Any, value: Any, name: str) -> Any:
    """The value after one atomic operation; the value given may be changed.

    Args:
        operation: its code.
        operand: a number, a list of items, or a merge patch.
        value: what is there, or `start_of` the operation.
        name: the key as people write it, for messages.

    Raises:
        InvalidValueError: the value is of another type than the operation works on.
    """
    if operation == INCREMENT:
        return _increment(operand, value, name)
    if operation == PATCH:
        # RFC 7396 would replace a value that is no object; here that is taken for a mistake.
        if not isinstance(value, dict):
            raise _wrong(operation, value, "an object", name)
        return _patch(value, operand)
    if not isinstance(value, list):
        raise _wrong(operation, value, "a list", name)
    if operation == APPEND:
        return value + operand
    known = {canonical(item) for item in value}
    added = list(value)
    for item in operand:
        text = canonical(item)
        if text not in known:
            known.add(text)
            added.append(item)
    return added


def _increment(by: Any, value: Any, name: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(INCREMENT, value, "a number", name)
    total = value + by
    if isinstance(total, int):
        if not _MIN_INT <= total <= _MAX_INT:
            raise InvalidValueError(
                f"increment of {name!r} leaves signed 64 bits; nothing was written", path="$"
            )
    elif total != total or total in (float("inf"), float("-inf")):
        raise InvalidValueError(
            f"increment of {name!r} leaves the finite numbers; nothing was written", path="$"
        )
    return total


def _patch(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for field, change in patch.items():
        if change is None:
            result.pop(field, None)
        else:
            result[field] = _patch(result.get(field), change)
    return result


def _wrong(operation: int, value: Any, needed: str, name: str) -> InvalidValueError:
    kind = "null" if value is None else type(value).__name__
    return InvalidValueError(
        f"{_NAMES[operation]} needs {needed}, but {name!r} holds {kind}; nothing was written",
        path="$",
    )
