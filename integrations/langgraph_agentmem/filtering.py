"""The filters of LangGraph's stores as filters of agentmem.

What is compared, and how, is agentmem's closed grammar, judged in Python: a name is a name,
whatever it looks like, and no operator but the six gets through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["where_of"]

_ORDER: Final = ("$gt", "$gte", "$lt", "$lte")


def where_of(filter: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The ``where`` that finds what a filter of LangGraph finds.

    Args:
        filter: of each name, a value it equals, operators, or an object that holds more names.

    Raises:
        ValueError: an operator is none of ``$eq $ne $gt $gte $lt $lte``; a name is no str.
    """
    if not filter:
        return None
    return _all([_named(name, wanted) for name, wanted in filter.items()])


def _all(conditions: list[dict[str, Any]]) -> dict[str, Any]:
    """All of them; without any, whatever there is."""
    return {"$and": conditions} if conditions else {}


def _named(name: object, wanted: Any) -> dict[str, Any]:
    """A condition on a name: the field of that name or, without one, what its dots lead to."""
    name = _text(name)
    field = _escaped(name)
    if "." not in name or not all(name.split(".")):
        return _condition(field, wanted)
    path = ".".join(_escaped(part) for part in name.split("."))
    absent = {field: {"$exists": False}}
    return {
        "$or": [
            {"$and": [{field: {"$exists": True}}, _condition(field, wanted)]},
            {"$and": [absent, _condition(path, wanted)]},
        ]
    }


def _escaped(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace(".", "\\.")
    return f"\\{escaped}" if escaped.startswith("$") else escaped


def _condition(path: str, wanted: Any) -> dict[str, Any]:
    if isinstance(wanted, Mapping):
        if any(isinstance(name, str) and name.startswith("$") for name in wanted):
            return _all([_operator(path, *each) for each in wanted.items()])
        # An empty mapping asks for nothing, as in LangGraph's SQL stores.
        return _all(
            [_condition(f"{path}.{_escaped(_text(name))}", inner) for name, inner in wanted.items()]
        )
    return _equal(path, wanted)


def _text(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a filter key is a non-empty str, not {name!r}")
    return name


def _operator(path: str, operator: object, operand: Any) -> dict[str, Any]:
    if operator == "$eq":
        return _equal(path, operand)
    if operator == "$ne":
        # As in SQL, a missing field is neither equal to a value nor different from it.
        return {path: {"$exists": True, "$ne": operand}}
    if operator in _ORDER:
        if not isinstance(operand, (str, int, float)) or isinstance(operand, bool):
            raise ValueError(f"{operator} compares with a number or a str, not {operand!r}")
        return {path: {operator: operand}}
    raise ValueError(f"Unsupported operator: {operator}")


def _equal(path: str, wanted: Any) -> dict[str, Any]:
    if wanted is None:
        return {"$or": [{path: {"$exists": False}}, {path: {"$eq": None}}]}
    return {path: {"$eq": wanted}}
