"""Which part of the key space a view stands for, and what it may do there.

The store itself is the scope of everything. `Store.scoped` makes smaller ones: a chroot (a
namespace that is the root inside), an access level, or a mapping of patterns to levels.
Arguments come in relative, and go on absolute; results go back relative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agentmem.engines.rows import (
    Place,
)
from agentmem.errors import (
    AccessDeniedError,
    InvalidValueError,
    KeyMissingError,
    LimitExceededError,
)
from agentmem.limits import Limits
from agentmem.model import display_key, display_namespace
from agentmem.namespaces import Labels, Pattern, check_key, decode, encode, parse_namespace
from agentmem.values import canonical, check_label_text

__all__ = ["Scope", "missing", "root_scope"]

_LEVELS: Final = {"read": 1, "append": 2, "write": 3}
_APPEND: Final = _LEVELS["append"]


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of the key space.

    Attributes:
        prefix: the labels that are the root inside.
        access: the level, where no rules are given.
        rules: (pattern, level), relative to the prefix; if given, all else is refused.
        agent: who acts in it, unless a call says otherwise.
        name: what its operation ids and tags belong to; ``""`` for the store itself.
        limits: of the store.
    """

    prefix: Labels
    access: int
    rules: tuple[tuple[Pattern, int], ...]
    agent: str | None
    name: str
    limits: Limits

    @property
    def is_root(self) -> bool:
        """Whether it is the whole store, without restriction."""
        return not self.prefix and self.access == _LEVELS["write"] and not self.rules

    def narrowed(
        self, namespace: object, agent: str | None, access: str | Mapping[str, str]
    ) -> Scope:
        """A scope inside of this one; it can never do more than this one.

        Raises:
            InvalidValueError: an access level is unknown.
            AccessDeniedError: this scope has rules, and cannot be narrowed by others.
        """
        labels = parse_namespace(namespace, self.limits)
        prefix = self._whole(labels)
        checked = check_label_text(agent, "agent", self.limits)
        agent = self.agent if checked is None else checked
        if self.rules:
            if labels or not isinstance(access, str):
                raise AccessDeniedError(
                    "a view made from a mapping cannot be scoped again; scope the store instead",
                    namespace=labels,
                    access="write",
                )
            level = _level(access)
            rules = tuple((pattern, min(own, level)) for pattern, own in self.rules)
            return Scope(prefix, self.access, rules, agent, self.name, self.limits)
        if isinstance(access, str):
            level = min(self.access, _level(access))
            return Scope(prefix, level, (), agent, encode(prefix), self.limits)
        if not isinstance(access, Mapping) or not access:
            raise TypeError("access is 'read', 'append', 'write' or a mapping of patterns to these")
        rules = tuple(
            (Pattern.parse(pattern, self.limits), min(self.access, _level(level)))
            for pattern, level in access.items()
        )
        # Unlike any encoded namespace: it ends with no terminator.
        spelled = canonical({pattern: str(level) for pattern, level in access.items()})
        return Scope(
            prefix, self.access, rules, agent, encode(prefix) + spelled.decode(), self.limits
        )

    # Arguments in, results out.

    def labels(self, namespace: object) -> Labels:
        """A namespace argument as absolute labels."""
        if namespace is None:
            return self.prefix
        return self._whole(parse_namespace(namespace, self.limits))

    def _whole(self, labels: Labels) -> Labels:
        whole = self.prefix + labels
        if len(whole) > self.limits.max_namespace_depth:
            raise LimitExceededError(
                f"{display_namespace(labels)!r} lies {len(whole)} labels below the root of the "
                f"store; at most {self.limits.max_namespace_depth} are allowed",
                limit=self.limits.max_namespace_depth,
                actual=len(whole),
            )
        return whole

    def place(self, namespace: object, key: object) -> Place:
        """A namespace and key argument as a place."""
        checked = check_key(key, self.limits)
        labels = self.labels(namespace) if namespace is not None else self.prefix
        return encode(labels), checked

    def relative(self, encoded: str) -> Labels:
        """The labels of an encoded namespace, as this scope names it."""
        labels = decode(encoded)
        return labels[len(self.prefix) :] if self.prefix else labels

    def holds(self, encoded: str) -> bool:
        """Whether an encoded namespace lies in it."""
        return encoded.startswith(encode(self.prefix))

    # Access.

    def level(self, place: Place) -> int:
        """What may be done at a place: 0 nothing, 1 read, 2 append, 3 write."""
        if not self.rules:
            return self.access
        labels = self.relative(place[0])
        matching = [
            (pattern.specificity, index, level)
            for index, (pattern, level) in enumerate(self.rules)
            if pattern.matches(labels, place[1])
        ]
        return max(matching)[2] if matching else 0

    def sees(self, place: Place) -> bool:
        """Whether a place lies in it and may be read."""
        return self.holds(place[0]) and (not self.rules or self.level(place) > 0)

    def check(self, place: Place, needed: str) -> None:
        """Raises `AccessDeniedError` if a place does not allow it."""
        if not self.rules and self.access >= _LEVELS[needed]:
            return
        if self.level(place) < _LEVELS[needed]:
            labels = self.relative(place[0])
            raise AccessDeniedError(
                f"{needed} access to {display_key(labels, place[1])!r} is not granted by this view",
                namespace=labels,
                key=place[1],
                access=needed,
            )

    def is_append_only(self, place: Place) -> bool:
        """Whether present keys at a place must stay as they are."""
        return (self.level(place) if self.rules else self.access) == _APPEND

    def readable(self, labels: Labels) -> Callable[[Place], bool] | None:
        """What of a namespace (absolute labels) may be read; None: all of it.

        Raises:
            AccessDeniedError: nothing of it.
        """
        if not self.rules:
            return None
        inside = labels[len(self.prefix) :]
        if not any(pattern.reaches(inside) for pattern, _level in self.rules):
            raise AccessDeniedError(
                f"read access to {display_namespace(inside)!r} is not granted by this view",
                namespace=inside,
                access="read",
            )
        return lambda place: self.level(place) > 0

    def check_all(self, what: str) -> None:
        """Raises `AccessDeniedError` unless everything in the scope may be written."""
        if self.rules or self.access < _LEVELS["write"]:
            raise AccessDeniedError(f"{what} needs write access to the whole view", access="write")

    def check_any(self, what: str) -> None:
        """Raises `AccessDeniedError` if nothing in the scope may be written."""
        levels = [level for _pattern, level in self.rules] or [self.access]
        if max(levels) < _LEVELS["append"]:
            raise AccessDeniedError(f"{what} writes, and this view only reads", access="append")

    def check_whole(self, what: str) -> None:
        """Raises `AccessDeniedError` unless this is the whole store."""
        if not self.is_root:
            raise AccessDeniedError(
                f"{what} is for the whole store; this is a scoped view", access="write"
            )


def _level(access: object) -> int:
    if not isinstance(access, str) or access not in _LEVELS:
        raise InvalidValueError(
            f"access is 'read', 'append' or 'write', not {access!r}", path="access"
        )
    return _LEVELS[access]


def root_scope(limits: Limits, agent: str | None) -> Scope:
    """The scope of the store itself."""
    checked = check_label_text(agent, "agent", limits)
    return Scope((), _LEVELS["write"], (), checked, "", limits)


def missing(scope: Scope, place: Place) -> KeyMissingError:
    """The error for an absent key."""
    labels = scope.relative(place[0])
    return KeyMissingError(
        f"{display_key(labels, place[1])!r} is absent: never written, deleted or expired",
        namespace=labels,
        key=place[1],
    )
