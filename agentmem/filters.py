r"""Filters: the ``where`` of ``list``, ``count`` and ``search``.

An expression is checked as a whole at the call, copied, and decided by one evaluator,
`Filter.matches`. An engine may narrow with SQL what it hands to it, never decide itself.

::

    {"status": "open", "meta.priority": {"$gte": 3}}     several keys: all must hold
    {"$or": [{"owner": "ann"}, {"tags.0": "urgent"}]}    $and, $or, $not hold expressions
    {"n": {"$gt": 3, "$not": {"$in": [5, 7]}}}           several operators: all must hold
    {"plan": {"days": 3}}                                no operator: deep equality with the object
    {"plan": {"$eq": {"$ref": 1}}}                       ... also if the object holds "$" names
    {r"a\.b": 1, r"c\\d": 2, r"\$ref": 3}                the fields "a.b", "c\d" and "$ref"

A path is names separated by dots and walks objects. On a list a name that is a decimal number
without leading zeros is an index, as in RFC 6901; on an object it is a name like any other.
Escapes are for paths only: inside an operand every name stands for itself.

Every condition is false where its path is missing, even ``{"a": None}``. ``$ne``, ``$nin``,
``$not`` and ``$exists: false`` are exact negations, so they hold there. Types are strict:
``True`` is not 1, 1 equals 1.0, order compares numbers with numbers (exactly, whatever their
size) and strings with strings (by code point, which is bytewise in UTF-8), else it is false.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias, cast

from agentmem.errors import InvalidValueError, LimitExceededError
from agentmem.limits import Limits
from agentmem.values import canonical, dump, load

__all__ = ["AllOf", "AnyOf", "Condition", "Filter", "Node", "Not"]

MAX_NESTING: Final = 32
"""How deep ``$and``, ``$or`` and ``$not`` may stand inside each other."""
MAX_CONDITIONS: Final = 1_000
"""Conditions in one filter; an empty mapping counts as one, the items of an ``$in`` do not."""
MAX_SIZE: Final = 8 * 1024 * 1024
"""Characters in one filter, each name and value taken for 64 more."""
_VALUE_SIZE: Final = 64
# A logical operator adds a list and a mapping, and an operand may be as deep as a value, 64.
_MAX_DEPTH: Final = 2 * MAX_NESTING + 2 + 64
_LIMITS: Final = Limits()
_MAX_SHOWN: Final = 200  # characters of a key in an error

# No list has more than 10**18 items, and int() refuses texts of thousands of digits.
_INDEX: Final = re.compile("0|[1-9][0-9]{0,17}")
_NAME: Final = re.compile(r"(?:[^\\.]++|\\[\\.$])++")
_ESCAPE: Final = re.compile(r"\\(.)")
_SCALARS: Final = (str, int, float, type(None))

_At: TypeAlias = tuple[str | int, ...]  # the way from the expression to one of its parts
Node: TypeAlias = "Condition | AllOf | AnyOf | Not"


@dataclass(frozen=True, slots=True)
class Filter:
    """A checked ``where``. Equal, and of equal hash, if the canonical texts are equal.

    Attributes:
        canonical: the expression as JSON text with sorted keys, for fingerprints.
        root: the parsed expression, for engines that narrow with SQL.
    """

    canonical: str
    root: Node = field(compare=False, repr=False)

    @classmethod
    def parse(cls, where: object) -> Filter | None:
        """A ``where`` argument, checked and copied.

        Args:
            where: a mapping as the module describes it; an empty one matches every value.

        Returns:
            The filter; None for None.

        Raises:
            InvalidValueError: it is no such mapping; ``path`` says which part, as
                ``$.where["meta.priority"]["$gte"]``.
            LimitExceededError: it is too deep, too large, or has too many conditions.
        """
        if where is None:
            return None
        if not isinstance(where, Mapping):
            _refuse((), f"must be a mapping like {{'status': 'open'}}, not {_kind(where)}")
        plain = cast(dict[str, Any], _Copy().of(where, ()))
        root = _expression(plain, (), 0)
        conditions = _count(root)
        if conditions > MAX_CONDITIONS:
            _exceed((), "conditions; use $in for many values", MAX_CONDITIONS, conditions)
        return cls(canonical(plain).decode(), root)

    @property
    def source(self) -> dict[str, Any]:
        """The expression as plain JSON, a fresh copy: changing it changes nothing."""
        return cast(dict[str, Any], load(self.canonical))

    def matches(self, value: Any) -> bool:
        """Whether a value passes. Never raises, whatever JSON the value is."""
        return self.root.matches(value)


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """One test of what is found at a path; false if nothing is.

    Attributes:
        path: names, at least one.
        operator: ``$eq $in $gt $gte $lt $lte`` or ``$exists``; the others are made of these.
        operand: plain JSON; a list for ``$in``, None for ``$exists``.
        members: the scalars of an ``$in``, see `_member`.
    """

    path: tuple[str, ...]
    operator: str
    operand: Any
    members: frozenset[tuple[bool, Any]] = frozenset()

    def matches(self, value: Any) -> bool:
        """Whether the value passes this condition."""
        for name in self.path:
            if isinstance(value, dict):
                if name not in value:
                    return False
                value = value[name]
            elif isinstance(value, list):
                if not _INDEX.fullmatch(name) or int(name) >= len(value):
                    return False
                value = value[int(name)]
            else:
                return False
        if self.operator == "$in" and isinstance(value, _SCALARS):
            return _member(value) in self.members
        return _TESTS[self.operator](value, self.operand)


@dataclass(frozen=True, slots=True, eq=False)
class AllOf:
    """Every part passes; true if there is none."""

    parts: tuple[Node, ...]

    def matches(self, value: Any) -> bool:
        """Whether the value passes all parts."""
        return all(part.matches(value) for part in self.parts)


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf:
    """At least one part passes."""

    parts: tuple[Node, ...]

    def matches(self, value: Any) -> bool:
        """Whether the value passes one of the parts."""
        return any(part.matches(value) for part in self.parts)


@dataclass(frozen=True, slots=True, eq=False)
class Not:
    """The part does not pass. The negation of a narrowing is no narrowing: SQL beware."""

    part: Node

    def matches(self, value: Any) -> bool:
        """Whether the value does not pass the part."""
        return not self.part.matches(value)


# --- the tests: what was found on the left, the operand on the right ---


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _comparable(found: Any, operand: Any) -> bool:
    if isinstance(operand, str):
        return isinstance(found, str)
    return _is_number(found)


def _equal(found: Any, operand: Any) -> bool:
    """Deep equality of JSON. Its recursion ends with the operand, whose depth is bounded."""
    if isinstance(operand, dict):
        return (
            isinstance(found, dict)
            and len(found) == len(operand)
            and all(name in found and _equal(found[name], operand[name]) for name in operand)
        )
    if isinstance(operand, list):
        return (
            isinstance(found, list)
            and len(found) == len(operand)
            and all(map(_equal, found, operand))
        )
    # Python holds True == 1, and compares an int with a float exactly.
    return isinstance(found, _SCALARS) and _member(found) == _member(operand)


def _member(scalar: Any) -> tuple[bool, Any]:
    """A scalar such that ``==`` and ``in`` keep booleans apart from numbers."""
    return isinstance(scalar, bool), scalar


_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$eq": _equal,
    "$in": lambda found, operand: any(_equal(found, item) for item in operand),
    "$gt": lambda found, operand: _comparable(found, operand) and found > operand,
    "$gte": lambda found, operand: _comparable(found, operand) and found >= operand,
    "$lt": lambda found, operand: _comparable(found, operand) and found < operand,
    "$lte": lambda found, operand: _comparable(found, operand) and found <= operand,
    "$exists": lambda found, operand: True,
}


# --- parsing: first a plain copy, then the tree ---


class _Copy:
    """Copies an argument to plain JSON, so that what is checked is what is kept."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0

    def of(self, given: object, at: _At) -> Any:
        """A part of the argument; what is a legal value is decided by `values.dump`."""
        if isinstance(given, (list, tuple, Mapping)):
            self._grow(_VALUE_SIZE, at)
            if len(at) >= _MAX_DEPTH:
                _exceed(at, "levels, or holds itself; flatten it", _MAX_DEPTH, len(at) + 1)
            if isinstance(given, Mapping):
                return {
                    self._name(name, at): self.of(item, (*at, name)) for name, item in given.items()
                }
            return [self.of(item, (*at, index)) for index, item in enumerate(given)]
        try:
            text = dump(given, _LIMITS, what="operand")
        except InvalidValueError as error:
            error.path = _display(at)
            error.args = (f"{error.path} must be a value that can be stored: {error}",)
            raise
        self._grow(_VALUE_SIZE + len(text), at)
        return load(text)

    def _name(self, name: object, at: _At) -> str:
        if not isinstance(name, str):
            _refuse(at, f"has a key that is {_kind(name)}; every key must be a str")
        return cast(str, self.of(name, (*at, name)))

    def _grow(self, by: int, at: _At) -> None:
        # A list that holds another twice, 60 levels deep, is small to pass and endless to copy.
        self.size += by
        if self.size > MAX_SIZE:
            _exceed(at, "characters; split it", MAX_SIZE, self.size)


def _expression(where: dict[str, Any], at: _At, nesting: int) -> Node:
    _check_nesting(at, nesting)
    parts: list[Node] = []
    for key, operand in where.items():
        here = (*at, key)
        if key in ("$and", "$or"):
            clauses = _clauses(operand, here, nesting + 1)
            parts.append(AllOf(clauses) if key == "$and" else AnyOf(clauses))
        elif key == "$not":
            if not isinstance(operand, dict):
                _refuse(here, f"needs a mapping like {{'status': 'open'}}, not {_kind(operand)}")
            parts.append(Not(_expression(operand, here, nesting + 1)))
        elif key.startswith("$"):
            _refuse(
                here,
                "is not $and, $or or $not, which alone stand here; other operators stand under "
                "a path, as {'days': {'$gt': 3}}, and a field of this name is written '\\$...'",
            )
        else:
            parts.append(_field(_names(key, here), operand, here, nesting))
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _clauses(clauses: Any, at: _At, nesting: int) -> tuple[Node, ...]:
    if not isinstance(clauses, list) or not clauses:
        _refuse(at, f"needs a list of at least one mapping, not {_kind(clauses)}")
    for index, clause in enumerate(clauses):
        if not isinstance(clause, dict):
            _refuse((*at, index), f"must be a mapping, not {_kind(clause)}")
    return tuple(_expression(clause, (*at, index), nesting) for index, clause in enumerate(clauses))


def _names(path: str, at: _At) -> tuple[str, ...]:
    names = _NAME.findall(path)
    if not names or ".".join(names) != path:
        _refuse(
            at,
            "is no path: names, none of them empty, separated by single dots; inside a name "
            "a dot is written '\\.' and a backslash '\\\\'",
        )
    return tuple(_ESCAPE.sub(r"\1", name) for name in names)


def _field(path: tuple[str, ...], operand: Any, at: _At, nesting: int) -> Node:
    if isinstance(operand, dict) and any(name.startswith("$") for name in operand):
        return _operators(path, operand, at, nesting)
    return Condition(path, "$eq", operand)


def _operators(path: tuple[str, ...], operators: dict[str, Any], at: _At, nesting: int) -> Node:
    _check_nesting(at, nesting)
    if not all(name.startswith("$") for name in operators):
        _refuse(at, "mixes operators and plain names; use $eq for an object with '$' names")
    parts = tuple(
        _operator(path, name, operand, (*at, name), nesting) for name, operand in operators.items()
    )
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _operator(path: tuple[str, ...], name: str, operand: Any, at: _At, nesting: int) -> Node:
    if name in ("$eq", "$ne"):
        node: Node = Condition(path, "$eq", operand)
    elif name in ("$in", "$nin"):
        if not isinstance(operand, list):
            _refuse(at, f"needs a list, not {_kind(operand)}; use $eq or $ne for one value")
        members = frozenset(_member(item) for item in operand if isinstance(item, _SCALARS))
        node = Condition(path, "$in", operand, members)
    elif name in ("$gt", "$gte", "$lt", "$lte"):
        if not isinstance(operand, str) and not _is_number(operand):
            _refuse(at, f"compares numbers or strings, not {_kind(operand)}")
        node = Condition(path, name, operand)
    elif name == "$exists":
        if not isinstance(operand, bool):
            _refuse(at, f"needs True or False, not {_kind(operand)}")
        node = Condition(path, "$exists", None)
    elif name == "$not":
        if not isinstance(operand, dict) or not any(inner.startswith("$") for inner in operand):
            _refuse(at, "needs operators here, as {'$gt': 3}; use $ne for a value")
        node = _operators(path, operand, at, nesting + 1)
    elif name in ("$and", "$or"):
        _refuse(at, f"stands above paths, as {{'{name}': [{{'days': 3}}, ...]}}, not under one")
    else:
        _refuse(at, f"is no operator; use {' '.join(_TESTS)} $ne $nin $not")
    negated = name in ("$ne", "$nin", "$not") or (name == "$exists" and not operand)
    return Not(node) if negated else node


def _count(node: Node) -> int:
    if isinstance(node, Condition):
        return 1
    if isinstance(node, Not):
        return _count(node.part)
    return max(1, sum(map(_count, node.parts)))


def _check_nesting(at: _At, nesting: int) -> None:
    if nesting > MAX_NESTING:
        _exceed(at, "levels of $and, $or and $not; flatten it", MAX_NESTING, nesting)


# --- errors: they name keys and types, never values ---


def _kind(value: object) -> str:
    return "an empty list" if isinstance(value, list) and not value else type(value).__name__


def _display(at: _At) -> str:
    shown = (step if isinstance(step, int) else step[:_MAX_SHOWN] for step in at)
    steps = "".join(f"[{json.dumps(step, ensure_ascii=False)}]" for step in shown)
    return "$.where" + steps.encode("utf-8", "backslashreplace").decode()


def _refuse(at: _At, message: str) -> NoReturn:
    path = _display(at)
    raise InvalidValueError(f"{path} {message}", path=path)


def _exceed(at: _At, what: str, limit: int, actual: int) -> NoReturn:
    path = _display(at)
    message = f"{path} has more than {limit} {what}"
    raise LimitExceededError(message, path=path, limit=limit, actual=actual)
