"""The strategy ``model`` (one strategy for each field), and strategies by their name.

A field that one side left alone is taken from the other side, whatever its strategy: so a
field with ``theirs`` or ``escalate`` drops a change only where both sides changed the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from agentmem.errors import InvalidValueError
from agentmem.merge.builtin import (
    append,
    counter,
    escalate,
    maximum,
    minimum,
    ours,
    theirs,
    union,
)
from agentmem.merge.json_merge import json
from agentmem.merge.strategy import Outcome, Strategy, Unmergeable, kind_of, same, settle
from agentmem.merge.text import text
from agentmem.model import DELETE, MISSING
from agentmem.values import canonical

__all__ = ["BUILTINS", "model", "strategies_of", "strategy_from_spec"]

BUILTINS: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        each.name: each
        for each in (counter, union, append, maximum, minimum, json, text, theirs, ours, escalate)
    }
)
"""The strategies that a name alone is enough for."""

_MAX_NESTED_MODELS: Final = 16
_FORM: Final = "{'model': {'fields': {name: strategy, ...}, 'otherwise': strategy}}"


def model(fields: Mapping[str, Strategy | str], otherwise: Strategy | str = "json") -> Strategy:
    """A strategy for objects: each field is merged by its own.

    Args:
        fields: field name → strategy, or its name.
        otherwise: for all other fields.

    Raises:
        InvalidValueError: a strategy is unknown.
    """
    return _model(
        {name: strategy_from_spec(each) for name, each in fields.items()},
        strategy_from_spec(otherwise),
    )


def _model(fields: Mapping[str, Strategy], otherwise: Strategy) -> Strategy:
    spec = {
        "model": {
            "fields": {name: each.spec for name, each in fields.items()},
            "otherwise": otherwise.spec,
        }
    }
    used = (*fields.values(), otherwise)
    return Strategy(
        "model",
        canonical(spec).decode(),
        _fields_merger(dict(fields), otherwise),
        keeps_loser=any(each.keeps_loser for each in used),
        parks=any(each.parks for each in used),
    )


def _fields_merger(
    fields: Mapping[str, Strategy], otherwise: Strategy
) -> Callable[[Any, Any, Any], Outcome]:
    def decide(base: Any, theirs: Any, ours: Any) -> Outcome:
        try:
            value = settle(base, theirs, ours)
        except Unmergeable as error:
            raise Unmergeable(f"model: {error.args[0]}") from None
        if value is not MISSING:
            return Outcome(value)
        before = {} if base is MISSING else base
        if not all(isinstance(each, dict) for each in (before, theirs, ours)):
            # Not for objects: there the same change of a counter on both sides is two changes.
            if same(theirs, ours):
                return Outcome(theirs)
            raise Unmergeable(
                f"model: base is {kind_of(before)}, theirs is {kind_of(theirs)} and ours is "
                f"{kind_of(ours)}; all have to be objects"
            )
        outcomes = {
            name: _field(name, fields.get(name, otherwise), before, theirs, ours)
            for name in theirs | ours
        }
        return Outcome(
            {name: each.value for name, each in outcomes.items() if each.value is not DELETE},
            keeps_loser=any(each.keeps_loser for each in outcomes.values()),
            parks=any(each.parks for each in outcomes.values()),
        )

    return decide


def _field(
    name: str,
    strategy: Strategy,
    base: dict[str, Any],
    theirs: dict[str, Any],
    ours: dict[str, Any],
) -> Outcome:
    three = base.get(name, MISSING), theirs.get(name, DELETE), ours.get(name, DELETE)
    if same(three[0], three[1]):
        return Outcome(three[2])
    if same(three[0], three[2]):
        return Outcome(three[1])
    try:
        return strategy.resolve_values(*three)
    except Unmergeable as error:
        raise error.under(name) from None


def strategy_from_spec(spec: object) -> Strategy:
    """The strategy that a spec names.

    Args:
        spec: a name such as ``"union"``, ``{"model": {"fields": {…}, "otherwise": …}}`` as in
            ``Strategy.spec``, or a `Strategy`, which is returned as it is.

    Raises:
        InvalidValueError: it names none; the message lists the names.
    """
    return _from_spec(spec, "$", 0)


def _from_spec(spec: object, path: str, depth: int) -> Strategy:
    if isinstance(spec, Strategy):
        return spec
    if isinstance(spec, str) and spec in BUILTINS:
        return BUILTINS[spec]
    if not (isinstance(spec, Mapping) and set(spec) == {"model"}):
        raise _unknown(f"no merge strategy {spec!r}", path)
    if depth == _MAX_NESTED_MODELS:
        raise _unknown(f"models are nested deeper than {_MAX_NESTED_MODELS} levels", path)
    body = spec["model"]
    if not isinstance(body, Mapping) or not {"fields"} <= set(body) <= {"fields", "otherwise"}:
        raise _unknown("a model strategy has 'fields' and, if wanted, 'otherwise'", path)
    fields = body["fields"]
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        raise _unknown("the fields of a model strategy are an object", f"{path}.model.fields")
    return _model(
        {
            name: _from_spec(each, f"{path}.model.fields.{name}", depth + 1)
            for name, each in fields.items()
        },
        _from_spec(body.get("otherwise", "json"), f"{path}.model.otherwise", depth + 1),
    )


def _unknown(problem: str, path: str) -> InvalidValueError:
    return InvalidValueError(f"{problem}; known are {', '.join(BUILTINS)} and {_FORM}", path=path)


def strategies_of(model_class: type[Any]) -> Strategy:
    """The model strategy that a pydantic model's annotations ask for.

    ``tags: Annotated[list[str], merge.union]`` gives the field ``tags`` the strategy ``union``,
    as does ``Annotated[list[str], merge.union] | None``. A field that is a pydantic model
    itself is merged by its own annotations; every other field by `json`.

    Raises:
        TypeError: it is no pydantic model class.
        InvalidValueError: a field has two strategies.
    """
    return _of_class(model_class, ())


def _of_class(model_class: Any, outer: tuple[type[Any], ...]) -> Strategy:
    from pydantic import BaseModel

    if not (isinstance(model_class, type) and issubclass(model_class, BaseModel)):
        raise TypeError(f"{model_class!r} is no pydantic model class")
    by_alias = model_class.model_config.get("serialize_by_alias", False)
    fields = {}
    for name, info in model_class.model_fields.items():
        parts = [*info.metadata, *_parts(info.annotation)]
        strategy = _of_parts(parts, f"{model_class.__name__}.{name}", (*outer, model_class))
        if strategy is not None:
            # The name that the field has in the JSON that is stored.
            alias = info.serialization_alias or info.alias if by_alias else None
            fields[alias or name] = strategy
    return _model(fields, json)


def _of_parts(parts: Sequence[Any], where: str, outer: tuple[type[Any], ...]) -> Strategy | None:
    """The strategy of one field, None if it asks for none."""
    from pydantic import BaseModel

    named = {part for part in parts if isinstance(part, Strategy)}
    if len(named) > 1:
        names = ", ".join(sorted(each.name for each in named))
        raise InvalidValueError(f"{where} has more than one merge strategy: {names}")
    if named:
        return named.pop()
    models = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
    # Two models at one place could be told apart only by looking at values. A model inside of
    # itself would have a spec without an end.
    if len(models) != 1 or models[0] in outer or len(outer) >= _MAX_NESTED_MODELS:
        return None
    return _of_class(models[0], outer)


def _parts(annotation: Any) -> Iterator[Any]:
    """The types and metadata that stand for the field as a whole, not for what is inside it."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
        yield from _parts(annotation.__origin__)
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _parts(each)
    elif hasattr(annotation, "__value__"):  # a ``type`` alias
        yield from _parts(annotation.__value__)
    else:
        yield annotation
