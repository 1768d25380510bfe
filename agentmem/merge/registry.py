"""Which merge hook or stored strategy a key has.

Python hooks live in the process that registered them, stored strategies in the store. Of all
whose pattern matches a key, the most specific wins::

    key notes/team/plan
    "**"             0 literal parts
    "notes/**"       1
    "notes/*/plan"   2               wins
    "notes/**/plan"  2, one "**"     loses to the line above: fewer "**" first

then the later registration. A hook and a stored strategy with equally specific patterns
have no common order in time: the hook wins, because it is the nearer wish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from agentmem.merge.strategy import Strategy
from agentmem.model import Conflict
from agentmem.namespaces import Labels, Pattern

__all__ = ["Hook", "Match", "MergeRegistry", "StoredStrategy"]

Hook = Callable[[Conflict], Any]
"""``hook(conflict) -> value | DELETE | Outcome``, or raises Unmergeable."""

_STORED: Final = 0
_LOCAL: Final = 1


@dataclass(frozen=True, slots=True)
class StoredStrategy:
    """A strategy that the store keeps for every process.

    Attributes:
        text: the pattern as it is stored.
        pattern: the same, parsed.
        strategy: what to do.
        position: order of registration; the later has the larger.
    """

    text: str
    pattern: Pattern
    strategy: Strategy
    position: int


@dataclass(frozen=True, slots=True)
class Match:
    """What merges a key.

    Attributes:
        name: of the hook or strategy, for the record.
        merge: conflict → value or DELETE; may raise Unmergeable.
        strategy: the built-in; None for a Python hook.
    """

    name: str
    merge: Hook
    strategy: Strategy | None = None

    @property
    def builtin(self) -> bool:
        """Whether it is a built-in strategy: pure, and safe to run under the store's lock."""
        return self.strategy is not None


@dataclass(frozen=True, slots=True)
class _LocalHook:
    pattern: Pattern
    match: Match
    position: int


class MergeRegistry:
    """The merge hooks of one process. May be used by any number of threads."""

    def __init__(self) -> None:
        # Protects registrations from each other. Readers take no lock: the tuple that they see
        # is replaced as a whole, never changed.
        self._registering = Lock()
        self._hooks: tuple[_LocalHook, ...] = ()
        self._registered = 0

    def add_hook(self, pattern: Pattern, hook: Hook, name: str) -> None:
        """Registers a hook, in place of an earlier one with the same pattern.

        Args:
            pattern: the keys it is for.
            hook: a function, or a `Strategy`, which then counts as a built-in.
            name: for the record; a strategy keeps its own name.

        Raises:
            TypeError: the hook cannot be called.
        """
        if not callable(hook):
            raise TypeError(f"a merge hook is a function, not {type(hook).__name__}")
        match = _of_strategy(hook) if isinstance(hook, Strategy) else Match(name, hook)
        with self._registering:
            self._registered += 1
            others = (each for each in self._hooks if each.pattern.parts != pattern.parts)
            self._hooks = (*others, _LocalHook(pattern, match, self._registered))

    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns of all hooks, in order of registration."""
        return tuple(each.pattern for each in self._hooks)

    def has_any(self, namespace: Labels, key: str, stored: Sequence[StoredStrategy] = ()) -> bool:
        """Whether `match` would find something."""
        return next(_matching(self._hooks, stored, namespace, key), None) is not None

    def match(
        self, namespace: Labels, key: str, stored: Sequence[StoredStrategy] = ()
    ) -> Match | None:
        """The hook or stored strategy for a key, None if there is none.

        Args:
            namespace: labels of the key.
            key: the key.
            stored: all strategies that the store keeps, in any order.
        """
        best = max(_matching(self._hooks, stored, namespace, key), key=_rank, default=None)
        if best is None:
            return None
        return best.match if isinstance(best, _LocalHook) else _of_strategy(best.strategy)


def _matching(
    hooks: Sequence[_LocalHook], stored: Sequence[StoredStrategy], namespace: Labels, key: str
) -> Iterator[_LocalHook | StoredStrategy]:
    candidates: tuple[_LocalHook | StoredStrategy, ...] = (*hooks, *stored)
    return (each for each in candidates if each.pattern.matches(namespace, key))


def _rank(candidate: _LocalHook | StoredStrategy) -> tuple[tuple[int, int], int, int]:
    """The largest wins. No two are equal: positions differ within each kind."""
    kind = _LOCAL if isinstance(candidate, _LocalHook) else _STORED
    return candidate.pattern.specificity, kind, candidate.position


def _of_strategy(strategy: Strategy) -> Match:
    return Match(strategy.name, strategy, strategy)
