"""What a node returns, as JSON that says what it was, and back.

The forms are a closed list: JSON, tuples, LangChain's messages, and LangGraph's `Command`, `Send`
and `Overwrite`. What is read back becomes one of these and never anything else, whatever is in
it: nothing is imported, looked up or called by a stored name. A user's object that looks like one
of the forms is kept as what it is::

    {"messages": [AIMessage("hi")]}     {"messages": [{"$message": {"type": "ai", "data": {...}}}]}
    {"$message": 1}                     {"$object": {"$message": 1}}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
from langgraph.types import Command, Overwrite, Send

from agentmem import InvalidValueError

__all__ = ["decoded", "encoded"]

_COMMAND: Final = ("graph", "update", "resume", "goto")
_MESSAGES: Final = "langchain_core.messages."
_SCALARS: Final = (str, int, float, bool, type(None))


def encoded(value: Any, path: str = "$") -> Any:
    """A node's result as JSON.

    Raises:
        InvalidValueError: there is something in it that has no form; ``path`` says where.
    """
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, dict):
        plain = {name: encoded(each, f"{path}.{name}") for name, each in value.items()}
        return {"$object": plain} if _looks_like_a_form(plain) else plain
    if isinstance(value, list):
        return _each(value, path)
    if isinstance(value, tuple):
        return {"$tuple": _each(value, path)}
    if isinstance(value, BaseMessage) and type(value).__module__.startswith(_MESSAGES):
        kept = message_to_dict(value)
        return {"$message": {**kept, "data": encoded(kept["data"], path)}}
    if isinstance(value, Command):
        fields = {name: encoded(getattr(value, name), f"{path}.{name}") for name in _COMMAND}
        return {"$command": fields}
    if isinstance(value, Send) and value.timeout is None:
        return {"$send": [value.node, encoded(value.arg, f"{path}.arg")]}
    if isinstance(value, Overwrite):
        return {"$overwrite": encoded(value.value, f"{path}.value")}
    raise InvalidValueError(
        f"at {path} of what the node returns is a {type(value).__module__}."
        f"{type(value).__qualname__}: a transactional node returns JSON, messages, Command, Send "
        "or Overwrite, so that its result can be kept; return a dict with the fields instead",
        path=path,
    )


def _each(values: list[Any] | tuple[Any, ...], path: str) -> list[Any]:
    return [encoded(each, f"{path}[{number}]") for number, each in enumerate(values)]


def _looks_like_a_form(value: dict[Any, Any]) -> bool:
    if len(value) != 1:
        return False
    name = next(iter(value))
    return isinstance(name, str) and name.startswith("$")


def decoded(value: Any) -> Any:
    """What `encoded` has made JSON of."""
    if isinstance(value, list):
        return [decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    if _looks_like_a_form(value):
        ((name, inner),) = value.items()
        return _FORMS[name](inner)
    return {name: decoded(each) for name, each in value.items()}


def _message(kept: dict[str, Any]) -> BaseMessage:
    (message,) = messages_from_dict([{**kept, "data": decoded(kept["data"])}])
    return message


_FORMS: Final[dict[str, Callable[[Any], Any]]] = {
    "$object": lambda inner: {name: decoded(each) for name, each in inner.items()},
    "$tuple": lambda inner: tuple(decoded(each) for each in inner),
    "$message": _message,
    "$command": lambda inner: Command(**{name: decoded(inner[name]) for name in _COMMAND}),
    "$send": lambda inner: Send(inner[0], decoded(inner[1])),
    "$overwrite": lambda inner: Overwrite(decoded(inner)),
}
