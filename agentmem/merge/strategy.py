"""What a merge strategy is: a named, pure function of base, theirs and ours.

Absence has two names here, because None is a value (JSON null):

* ``base`` is ``MISSING`` if the key was absent when the writer started;
* ``theirs`` and ``ours`` are ``DELETE`` if that side has no value (any more).

What all strategies but those that take a side share is decided in one place, `settle`::

    base      theirs    ours      result
    x         x         o         o         no change of theirs
    x         t         x         t         no change of ours
    x         DELETE    DELETE    DELETE
    x         DELETE    o         Unmergeable
    x         t         o         the strategy decides
    MISSING   t         o         the strategy decides
    MISSING   DELETE    o         o         never there, still not there: no change of theirs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from agentmem.model import DELETE, MISSING, Conflict
from agentmem.values import canonical, load

__all__ = ["Outcome", "Strategy", "Unmergeable", "kind_of", "same", "settle", "three_way"]


class Unmergeable(Exception):  # noqa: N818  # a refusal, not an error
    """Both sides cannot be kept; the writer gets `agentmem.ConflictError`.

    A merge hook raises it to say that a conflict is for the writer to settle. It is no error
    of the hook, and so no `AgentMemError`.

    Attributes:
        path: where inside the value, as labels from the outside in; empty: the whole value.
    """

    __module__ = "agentmem"

    def __init__(self, message: str = "", *, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.path = path

    def __str__(self) -> str:
        message = super().__str__()
        return f"at {'.'.join(('$', *self.path))}: {message}" if self.path else message

    def under(self, label: str) -> Unmergeable:
        """The same, seen from the object that has the failed value at ``label``."""
        return Unmergeable(*self.args, path=(label, *self.path))


def same(left: Any, right: Any) -> bool:
    """Whether both are the same JSON, or both absent. True is not 1, and 1 is not 1.0."""
    left_absent = left is MISSING or left is DELETE
    right_absent = right is MISSING or right is DELETE
    if left_absent or right_absent:
        return left_absent and right_absent
    return canonical(left) == canonical(right)


def kind_of(value: Any) -> str:
    """What a value is, for messages, which never show the value itself."""
    if value is MISSING or value is DELETE:
        return "absent"
    if value is None:
        return "null"
    for kinds, name in _KIND_NAMES:
        if isinstance(value, kinds):
            return name
    return f"a Python {type(value).__name__}"


# bool stands before int, because Python counts True as an int and JSON does not.
_KIND_NAMES: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "a boolean"),
    ((int, float), "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "an object"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy made of one conflict. A hook may return one, too, in place of the value.

    Attributes:
        value: JSON, or `agentmem.DELETE`.
        keeps_loser: a change was dropped, and has to stay on record.
        parks: our change was dropped, and a person has to look at it.
        details: JSON that stays on the record of the conflict: how the hook came to it. It is
            erased with the key.
    """

    value: Any
    keeps_loser: bool = False
    parks: bool = False
    details: Any = None


def settle(base: Any, theirs: Any, ours: Any) -> Any:
    """What is clear without a strategy: the table at the top of this module.

    Returns:
        The merged value, DELETE, or MISSING if both sides have changed to a value.

    Raises:
        Unmergeable: one side deleted what the other changed.
    """
    if same(base, theirs):
        return ours
    if same(base, ours):
        return theirs
    if theirs is DELETE and ours is DELETE:
        return DELETE
    if theirs is DELETE:
        raise Unmergeable("theirs deleted what ours changed")
    if ours is DELETE:
        raise Unmergeable("ours deletes what theirs changed")
    return MISSING


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Strategy:
    """A built-in way to merge. Call it with a `Conflict`; it is a pure function of its values.

    Strategies with the same ``spec`` are equal, can be hashed, copied and pickled.

    Attributes:
        name: ``"union"``, ``"model"`` and so on.
        spec_text: ``spec`` as canonical JSON text.
        decide: (base, theirs, ours) -> Outcome; see the module for the markers.
        keeps_loser: it can drop a change, which then has to stay on record.
        parks: it can drop our change, which then is an open conflict for a person.
    """

    name: str
    spec_text: str
    decide: Callable[[Any, Any, Any], Outcome]
    keeps_loser: bool = False
    parks: bool = False

    @property
    def spec(self) -> Any:
        """JSON that names it: ``"union"``, or ``{"model": {"fields": …, "otherwise": …}}``."""
        return load(self.spec_text)

    def __call__(self, conflict: Conflict) -> Any:
        """The merged value, or `agentmem.DELETE`.

        Raises:
            Unmergeable: both sides cannot be kept.
        """
        return self.resolve(conflict).value

    def resolve(self, conflict: Conflict) -> Outcome:
        """The merged value, and whether this very merge dropped a change.

        Raises:
            Unmergeable: both sides cannot be kept, or ours only read the key.
        """
        if conflict.kind != "write":
            raise Unmergeable("ours only read the key: there is nothing to merge")
        base, theirs = conflict.base, conflict.theirs
        # None is JSON null if there is an entry, and absence if there is none.
        if base is None and conflict.base_entry is None:
            base = MISSING
        if theirs is None and conflict.theirs_entry is None:
            theirs = DELETE
        return self.resolve_values(base, theirs, conflict.ours)

    def merge(self, base: Any, theirs: Any, ours: Any) -> Any:
        """As a call, from bare values: ``base`` may be MISSING, the sides may be DELETE."""
        return self.resolve_values(base, theirs, ours).value

    def resolve_values(self, base: Any, theirs: Any, ours: Any) -> Outcome:
        """As `resolve`, from bare values. MISSING and DELETE both mean absent here."""
        return self.decide(
            MISSING if base is DELETE else base,
            DELETE if theirs is MISSING else theirs,
            DELETE if ours is MISSING else ours,
        )

    def __eq__(self, other: object) -> bool:
        return self.spec_text == other.spec_text if isinstance(other, Strategy) else NotImplemented

    def __hash__(self) -> int:
        # typing hashes the metadata of Annotated inside of Optional and Union.
        return hash(self.spec_text)

    def __reduce__(self) -> tuple[Any, ...]:
        # By its spec, because the function of a model strategy cannot be pickled. Imported
        # here, because that module is built on this one.
        from agentmem.merge.model import strategy_from_spec

        return (strategy_from_spec, (self.spec,))

    def __repr__(self) -> str:
        return f"merge.{self.name}" if self.spec == self.name else f"merge.Strategy({self.spec!r})"


Strategy.__module__ = Outcome.__module__ = "agentmem.merge"


def three_way(name: str, merge: Callable[[Any, Any, Any], Any], *, agrees: bool) -> Strategy:
    """A strategy that is asked only where both sides have changed to a value.

    Args:
        name: its name and spec.
        merge: (base or MISSING, theirs, ours) -> value; may raise Unmergeable.
        agrees: the same change on both sides is one change (and not two, as for a counter).
    """

    def decide(base: Any, theirs: Any, ours: Any) -> Outcome:
        try:
            value = settle(base, theirs, ours)
            if value is MISSING:
                agreed = agrees and same(theirs, ours)
                value = theirs if agreed else merge(base, theirs, ours)
        except Unmergeable as error:
            raise Unmergeable(f"{name}: {error.args[0]}", path=error.path) from None
        return Outcome(value)

    return Strategy(name, canonical(name).decode(), decide)
