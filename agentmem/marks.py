"""What makes the log quick to narrow: which names occur in which part of it.

The log is cut into blocks of 128 revisions. For each block there is a row for each agent, each
namespace, each scope and each field of metadata that occurs in it. Who looks for the commits of
an agent reads only the blocks that have a row for it, newest or oldest first::

    revision   1 ... 127   128 ... 255   256 ... 383
    block          0            1             2
    ann            x                          x         a row for each x
    bob            x            x             x

A row is written by the first commit of a block that has the name; the next ones find it there. So
an agent that commits all the time costs a row in 128 commits, where an index of the commits by
agent would cost one in each. Rows only narrow: a name is cut where it is long, and every commit of
a block is looked at itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from agentmem.values import canonical, load

__all__ = [
    "Marker",
    "agent_name",
    "block_of",
    "field_name",
    "names_of",
    "namespace_name",
    "overfull_name",
    "revisions_of",
    "scope_name",
    "value_name",
]

_BLOCK_BITS: Final = 7
_MAX_NAME: Final = 200  # characters; the rest of a name does not narrow
_MAX_FIELDS: Final = 32  # of one commit's metadata; of more only that there are more is marked
_MAX_KNOWN: Final = 10_000  # combinations that a process remembers of the block it writes

Mark = tuple[str, int]
"""(name, block)."""


def block_of(revision: int) -> int:
    """The block that a revision lies in."""
    return revision >> _BLOCK_BITS


def revisions_of(block: int) -> tuple[int, int]:
    """The revisions of a block, as (after, up to)."""
    return (block << _BLOCK_BITS) - 1, ((block + 1) << _BLOCK_BITS) - 1


def agent_name(agent: str) -> str:
    """The name of an agent that committed."""
    return ("a" + agent)[:_MAX_NAME]


def namespace_name(encoded: str) -> str:
    """The name of a namespace in which, or below which, a key was written. Not of the root."""
    return ("n" + encoded)[:_MAX_NAME]


def scope_name(scope: str) -> str:
    """The name of a scoped view that committed. Not of the store itself."""
    return ("s" + scope)[:_MAX_NAME]


def field_name(field: str) -> str:
    """The name of a field that metadata had."""
    return ("f" + field)[:_MAX_NAME]


def value_name(field: str, value: Any) -> str:
    """The name of a field of metadata with its value, JSON."""
    return f"m{field}={canonical(value).decode()}"[:_MAX_NAME]


def overfull_name() -> str:
    """The name of metadata with more fields than are marked."""
    return "x"


def names_of(
    scope: str, agent: str | None, metadata: str | None, namespaces: Iterable[str]
) -> set[str]:
    """The names that a commit has.

    Args:
        scope: of the view that committed.
        metadata: JSON text.
        namespaces: encoded, in which it wrote.
    """
    names = {namespace_name(each) for namespace in namespaces for each in _with_parents(namespace)}
    if scope:
        names.add(scope_name(scope))
    if agent is not None:
        names.add(agent_name(agent))
    if metadata is not None:
        fields = list(load(metadata).items())
        for field, value in fields[:_MAX_FIELDS]:
            names.add(field_name(field))
            names.add(value_name(field, value))
        if len(fields) > _MAX_FIELDS:
            names.add(overfull_name())
    return names


def _with_parents(namespace: str) -> Iterable[str]:
    end = namespace.find("\x01")
    while end >= 0:
        yield namespace[: end + 1]
        end = namespace.find("\x01", end + 1)


class Marker:
    """Finds what has to be marked, and remembers what this process has marked already.

    Used by the thread that leads the commits, alone.
    """

    __slots__ = ("_block", "_known", "_new", "_revision")

    def __init__(self) -> None:
        # Marks, and what commits consist of whose marks are all there.
        self._known: set[tuple[Any, ...]] = set()  # of the block, committed
        self._new: set[tuple[Any, ...]] = set()  # of the batch
        self._block = 0
        self._revision = 0

    def begin(self, revision: int) -> None:
        """A batch begins behind a revision; what an earlier one has not kept is forgotten."""
        if self._new:
            self._new = set()
        block = block_of(revision + 1)
        if block != self._block or revision < self._revision or len(self._known) > _MAX_KNOWN:
            # Also if the log has become shorter: an older backup was put in its place.
            self._known = set()
            self._block = block
        self._revision = revision

    def marks(
        self,
        revision: int,
        scope: str,
        agent: str | None,
        metadata: str | None,
        namespaces: Collection[str],
    ) -> Iterable[Mark]:
        """The marks of a commit that may not be there yet."""
        block = block_of(revision)
        made = (block, scope, agent, metadata, *namespaces)
        if made in self._known or made in self._new:
            return ()
        names = sorted(names_of(scope, agent, metadata, namespaces))
        marks = [mark for name in names if (mark := (name, block)) not in self._known]
        self._new.add(made)
        self._new.update(marks)
        return marks

    def keep(self) -> None:
        """The batch was committed."""
        if self._new:
            self._known |= self._new
            self._new = set()
