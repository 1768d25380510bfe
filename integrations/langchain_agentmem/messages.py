"""Messages as JSON, and back, by a closed table of types.

A message is stored as ``{"type": "human", "data": {...}}``, the form that LangChain's
``messages_from_dict`` reads, too. On the way back the type is looked up in the table and the fields
are validated by its class. Nothing in the data can name a class: ``lc``, ``id`` and ``kwargs``, by
which LangChain's serialization names constructors, are fields as all others.
"""

from __future__ import annotations

from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import ValidationError

from agentmem import InvalidValueError, Limits
from agentmem.values import dump, load

__all__ = ["message_of", "message_value", "plain"]

_TYPES: Final[dict[str, type[BaseMessage]]] = {
    "ai": AIMessage,
    "chat": ChatMessage,
    "function": FunctionMessage,
    "human": HumanMessage,
    "system": SystemMessage,
    "tool": ToolMessage,
}

# What streaming leaves is stored as the message that it adds up to.
_WHOLE: Final = {
    "AIMessageChunk": "ai",
    "ChatMessageChunk": "chat",
    "FunctionMessageChunk": "function",
    "HumanMessageChunk": "human",
    "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool",
}
_OF_CHUNKS: Final = ("chunk_position", "tool_call_chunks")
_COUNTS: Final = {"input_tokens", "output_tokens", "total_tokens"}

# What validation raises: hostile fields can also break the constructors of messages.
_UNREADABLE: Final = (ValidationError, TypeError, KeyError, AttributeError)

# Whether it is JSON is judged here; how much the store takes, the store judges.
_JSON: Final = Limits(max_value_bytes=2**40, max_json_depth=200)
_SHOWN: Final = 40  # characters of a type that is unknown, in an error


def plain(value: object, what: str) -> Any:
    """A value with only JSON's own types in it.

    Raises:
        InvalidValueError: it is not JSON; ``path`` says where.
    """
    return load(dump(value, _JSON, what=what))


def message_value(message: BaseMessage) -> dict[str, Any]:
    """A message as JSON.

    A chunk is stored as a whole message. What a class of the caller's own adds to one of the
    table's is kept as fields, and read back as an instance of the table's class.

    Raises:
        InvalidValueError: its type is none of the table's; something in it is not JSON, with the
            path as ``$.data.artifact``; or it was changed to what its class does not allow.
    """
    if not isinstance(message, BaseMessage):
        raise TypeError(f"a message is a BaseMessage, not {type(message).__name__}")
    kind = _WHOLE.get(message.type, message.type)
    known = _TYPES.get(kind)
    if known is None or not isinstance(message, known):
        raise InvalidValueError(
            f"a message of class {type(message).__name__} and type {kind[:_SHOWN]!r} is not "
            f"stored; the types that are: {', '.join(_TYPES)}",
            path="$.type",
        )
    data = _fields(message, kind)
    if message.type in _WHOLE:
        for name in _OF_CHUNKS:
            data.pop(name, None)
    data = plain({"type": kind, "data": data}, "message")["data"]
    usage = data.get("usage_metadata")
    if isinstance(usage, dict) and not usage.keys() >= _COUNTS:
        # LangChain marks what comes from a cache with a cost of 0, and then cannot read it itself.
        data["usage_metadata"] = None
    # As it will be read: so what is stored can be, and is the same when it is stored again.
    try:
        return {"type": kind, "data": _fields(known.model_validate(data), kind)}
    except _UNREADABLE as error:
        raise InvalidValueError(
            f"a message of type {kind!r} is not stored, since it could not be read back: "
            f"{_wrong(error)} is not what its class asks for",
            path="$.data",
        ) from None


def message_of(value: object, where: str) -> BaseMessage:
    """The message that was stored.

    Args:
        value: JSON, as `message_value` made it.
        where: the key that it was read from, for errors.

    Raises:
        InvalidValueError: it is not what `message_value` makes; nothing was constructed.
    """
    kind = value.get("type") if isinstance(value, dict) else None
    known = _TYPES.get(kind) if isinstance(kind, str) else None
    if known is None or not isinstance(value, dict):
        shown = f"type {kind[:_SHOWN]!r}" if isinstance(kind, str) else "no type"
        raise InvalidValueError(
            f"the value of {where} has {shown} and is no message; the types that are: "
            f"{', '.join(_TYPES)}. Somebody else wrote there: delete it, or look with "
            "store.history who did",
            path="$.type",
        )
    try:
        return known.model_validate(value.get("data"))
    except _UNREADABLE as error:
        raise InvalidValueError(
            f"the value of {where} is no message of type {kind!r}: {_wrong(error)} cannot be read. "
            "Somebody else wrote there: delete it, or look with store.history who did",
            path="$.data",
        ) from None


def _fields(message: BaseMessage, kind: str) -> dict[str, Any]:
    fields = {name: getattr(message, name) for name in type(message).model_fields}
    return fields | (message.model_extra or {}) | {"type": kind}


def _wrong(error: Exception) -> str:
    """The fields that are wrong, without their values, which what pydantic says has in it."""
    found = error.errors(include_input=False) if isinstance(error, ValidationError) else []
    return ", ".join(sorted({".".join(map(str, each["loc"])) for each in found})) or "data"
