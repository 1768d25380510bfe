"""Values are JSON: checked at the call, stored as canonical text, never reconstructed.

The canonical text has sorted names, no spaces, and one spelling for each string and number
(orjson's), so that equal values have equal texts on both engines and in every process.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from agentmem.errors import InvalidValueError, LimitExceededError
from agentmem.limits import Limits

__all__ = [
    "MAX_INT",
    "canonical",
    "check_label_text",
    "check_metadata",
    "check_number",
    "dump",
    "load",
    "search_text",
]

_MIN_INT: Final = -(2**63)
MAX_INT: Final = 2**63 - 1
_INFINITY: Final = float("inf")
_ESCAPED_NUL: Final = b"\\u0000"
_OPTIONS: Final = orjson.OPT_SORT_KEYS

load = orjson.loads
"""A stored text as a fresh value."""


def dump(value: object, limits: Limits, *, what: str = "value") -> str:
    """A value as canonical JSON text.

    Tuples become lists and pydantic models their ``model_dump(mode="json")``, at any depth.

    Raises:
        InvalidValueError: not JSON, with the path inside the value: NaN and infinities,
            integers outside of signed 64 bits, lone surrogates, NUL, names that are no
            strings, bytes, sets and other objects, cycles.
        LimitExceededError: larger or deeper than the limits allow.
    """
    kind = type(value)
    if kind is str:
        if len(value) <= limits.max_value_bytes and "\x00" not in value:  # type: ignore[arg-type,operator]  # kind is str
            text = _dump_plain(value, limits, what)
            return _within(text, limits, what)
    elif kind is bool or value is None or (kind is int and _MIN_INT <= value <= MAX_INT):  # type: ignore[operator]  # kind is int
        return orjson.dumps(value).decode()
    return _within(_dump_plain(_plain(value, limits, what), limits, what), limits, what)


def _within(encoded: bytes, limits: Limits, what: str) -> str:
    if len(encoded) > limits.max_value_bytes:
        raise LimitExceededError(
            f"{what} of {len(encoded)} bytes as JSON; at most {limits.max_value_bytes} are "
            "allowed; split it over several keys",
            path="$",
            limit=limits.max_value_bytes,
            actual=len(encoded),
        )
    return encoded.decode()


def _dump_plain(value: object, limits: Limits, what: str) -> bytes:
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        # The walk has let only JSON types through; what is left is text that is not Unicode.
        path = _surrogate_path(value, "$") or "$"
        raise InvalidValueError(f"{what} at {path}: {error}", path=path) from error


def _plain(value: object, limits: Limits, what: str) -> Any:
    """The value with only JSON's own types in it; raises at the first thing that is none."""

    # Every part takes two bytes at least; without a count, a list that holds one list twice, and
    # so on forty levels deep, would be walked for ever.
    left = limits.max_value_bytes // 2 + 1

    def walk(node: object, path: tuple[object, ...]) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise LimitExceededError(
                f"{what} is longer than {limits.max_value_bytes} bytes as JSON; split it over "
                "several keys",
                path=_spell(path),
                limit=limits.max_value_bytes,
                actual=limits.max_value_bytes + 1,
            )
        kind = type(node)
        if kind is str:
            if "\x00" in node:  # type: ignore[operator]  # kind is str
                raise _invalid(what, path, "a string holds NUL")
            return node
        if kind is int:
            if not _MIN_INT <= node <= MAX_INT:  # type: ignore[operator]  # kind is int
                raise _invalid(what, path, "an integer lies outside of signed 64 bits")
            return node
        if kind is float:
            if node != node or node in (_INFINITY, -_INFINITY):
                raise _invalid(what, path, f"{node} is not JSON")
            return node
        if kind is bool or node is None:
            return node
        if len(path) >= limits.max_json_depth and isinstance(node, (dict, list, tuple)):
            raise LimitExceededError(
                f"{what} is nested deeper than {limits.max_json_depth} levels, or holds itself",
                path=_spell(path),
                limit=limits.max_json_depth,
                actual=len(path) + 1,
            )
        if kind is dict:
            for name in node:  # type: ignore[attr-defined]  # kind is dict
                if type(name) is not str and not isinstance(name, str):
                    raise _invalid(what, path, f"the name {name!r} is no string")
                if "\x00" in name:
                    raise _invalid(what, path, f"the name {name!r} holds NUL")
            return {name: walk(inner, (*path, name)) for name, inner in node.items()}  # type: ignore[attr-defined]  # kind is dict
        if kind is list or kind is tuple:
            return [walk(inner, (*path, index)) for index, inner in enumerate(node)]  # type: ignore[arg-type,var-annotated]  # kind is list or tuple
        return walk_other(node, path)

    def walk_other(node: object, path: tuple[object, ...]) -> Any:
        dump_model = getattr(type(node), "model_dump", None)
        if dump_model is not None and hasattr(type(node), "model_fields"):
            return walk(dump_model(node, mode="json"), path)
        # Subclasses of JSON's types (enums of str, defaultdict, named tuples) are what they hold.
        for base in (bool, str, int, float):
            if isinstance(node, base):
                return walk(base(node) if base is not str else str.__str__(node), path)
        if isinstance(node, dict):
            return walk(dict(node), path)
        if isinstance(node, (list, tuple)):
            return walk(list(node), path)
        raise _invalid(
            what, path, f"{type(node).__name__} is not JSON; convert it to a string, number or list"
        )

    return walk(value, ())


def _invalid(what: str, path: tuple[object, ...], problem: str) -> InvalidValueError:
    spelled = _spell(path)
    return InvalidValueError(f"{what} at {spelled}: {problem}", path=spelled)


def _spell(path: tuple[object, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _surrogate_path(value: object, path: str) -> str | None:
    if isinstance(value, str):
        return None if _is_unicode(value) else path
    if isinstance(value, dict):
        for name, inner in value.items():
            if not _is_unicode(name):
                return path
            if (found := _surrogate_path(inner, f"{path}.{name}")) is not None:
                return found
    if isinstance(value, list):
        for index, inner in enumerate(value):
            if (found := _surrogate_path(inner, f"{path}[{index}]")) is not None:
                return found
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def canonical(value: object) -> bytes:
    """Canonical JSON of a value that was already checked, for comparing and fingerprints."""
    return orjson.dumps(value, option=_OPTIONS)


def check_label_text(text: object, what: str, limits: Limits) -> str | None:
    """An agent, op_id or note: None, or text without NUL and lone surrogates, not empty."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str, not {type(text).__name__}")
    if not text or "\x00" in text or not _is_unicode(text):
        raise InvalidValueError(f"{what} {text!r} must be non-empty Unicode text without NUL")
    if len(text) > limits.max_metadata_bytes // 4:
        _limit_text(text, what, limits)
    return text


def _limit_text(text: str, what: str, limits: Limits) -> None:
    size = len(text.encode())
    if size > limits.max_metadata_bytes:
        raise LimitExceededError(
            f"{what} of {size} bytes; at most {limits.max_metadata_bytes} are allowed",
            limit=limits.max_metadata_bytes,
            actual=size,
        )


def check_number(number: object, what: str) -> int:
    """A version, revision or id: an int from 0 on that a database can hold."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{what} is an int, not {type(number).__name__}")
    if not 0 <= number <= MAX_INT:
        raise InvalidValueError(f"{what} is {number}; it lies between 0 and {MAX_INT}")
    return number


def check_metadata(metadata: object, limits: Limits) -> str | None:
    """A commit's metadata as canonical text; None if there is none."""
    if not metadata:
        return None
    text = dump(metadata, limits, what="metadata")
    if not text.startswith("{"):
        raise InvalidValueError("metadata is a JSON object", path="$")
    _limit_text(text, "metadata", limits)
    return text


def search_text(text: object, value: object, limits: Limits) -> str | None:
    """What search sees of a value.

    Args:
        text: a str: that; False: nothing; None: the value if it is a string, else the strings
            in it, one a line, in canonical order of the names.
        value: a JSON value, already checked.
    """
    if text is False:
        return None
    if text is None:
        return value if isinstance(value, str) else "\n".join(_strings(value)) or None
    if not isinstance(text, str):
        raise TypeError(f"text is a str, False or None, not {type(text).__name__}")
    if "\x00" in text or not _is_unicode(text):
        raise InvalidValueError("text must be Unicode text without NUL")
    if len(text) > limits.max_value_bytes // 4 and len(text.encode()) > limits.max_value_bytes:
        raise LimitExceededError(
            f"text is longer than {limits.max_value_bytes} bytes",
            limit=limits.max_value_bytes,
            actual=len(text.encode()),
        )
    return text


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for name in sorted(value) for text in _strings(value[name])]
    if isinstance(value, list):
        return [text for inner in value for text in _strings(inner)]
    return []
