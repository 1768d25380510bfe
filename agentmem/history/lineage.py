"""``store.audit.lineage``: what an entry was derived from, and what was derived from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from agentmem.core import Core
from agentmem.engines.base import (
    Engine,
)
from agentmem.engines.rows import (
    OPERATIONS,
    CommitRow,
    EntryRow,
    ReadRow,
)
from agentmem.errors import InvalidValueError
from agentmem.history.derivation import Ref, Walk, ref_of
from agentmem.model import display_key, to_datetime
from agentmem.provenance import found_by_scan
from agentmem.scope import Scope

__all__ = ["Edge", "Lineage", "Node", "lineage_of", "nodes_of"]

Direction = Literal["up", "down"]

_DIRECTIONS: Final = ("up", "down")
_BATCH: Final = 500
_EDGES_A_NODE: Final = 20  # of the limit on nodes: a commit that read much and wrote much


@dataclass(frozen=True, slots=True, repr=False)
class Node:
    """An entry in a lineage, with who committed it.

    Attributes:
        namespace: labels.
        key: the key.
        version: its version.
        state: ``kept``; ``purged`` (its value was erased); ``compacted`` (it is not in the log
            any more, and nothing but its name and version is known).
        revision: of its commit; None if compacted, and so is all that follows.
        operation: ``put``, ``delete``, ``increment``, ``append``, ``add_to_set`` or ``patch``.
        agent: who committed it, or None.
        op_id: the operation id, or None.
        note: of the commit, or None.
        committed_at: when.
    """

    namespace: tuple[str, ...]
    key: str
    version: int
    state: str = "kept"
    revision: int | None = None
    operation: str | None = None
    agent: str | None = None
    op_id: str | None = None
    note: str | None = None
    committed_at: datetime | None = None

    __module__ = "agentmem"

    @property
    def deleted(self) -> bool:
        """Whether it is a tombstone."""
        return self.operation == "delete"

    def __repr__(self) -> str:
        state = "" if self.state == "kept" else f", {self.state}"
        return f"Node({display_key(self.namespace, self.key)!r}, version={self.version}{state})"


@dataclass(frozen=True, slots=True, repr=False)
class Edge:
    """That one entry was derived from another, and why.

    Attributes:
        derived: the newer one.
        source: the older one.
        why: ``read``: its transaction had read the key; ``scan``, ``search``: found it in one;
            ``base``: it replaces or changes that version, knowing it; ``merge``: it was merged
            with it or from it; ``restored``: it was put back.
        asked: what a scan or search asked for (``namespace``, and ``key_prefix``, ``where``,
            ``limit``, ``search`` and so on as they were given); empty otherwise.
    """

    derived: Node
    source: Node
    why: str
    asked: Mapping[str, Any] = field(default_factory=dict, compare=False)

    __module__ = "agentmem"

    def __repr__(self) -> str:
        return f"Edge({self.derived!r} <- {self.why} <- {self.source!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Lineage:
    """Entries and what was derived from what. Without cycles: sources are always older.

    Attributes:
        root: the entry that was asked about.
        direction: ``up``: what it was derived from; ``down``: what was derived from it.
        nodes: the root and all that was found, by revision, compacted ones first.
        edges: newer to older.
        complete: False if a depth or limit left something out; on the way down also if history
            since the root was compacted, for what was derived from what is gone is not found.
        unkept: commits that had read something that was not kept (``provenance=False``); of those
            met on the way up, or all since the root. The lineage may lack what they hide.
        lost: entries that scans had found and that were compacted, so that no name is left.
        outside: entries that this view may not see.
    """

    root: Node
    direction: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    complete: bool
    unkept: int
    lost: int
    outside: int

    __module__ = "agentmem"

    def sources(self, node: Node) -> list[Edge]:
        """The edges to what a node was derived from."""
        return [edge for edge in self.edges if edge.derived == node]

    def derived(self, node: Node) -> list[Edge]:
        """The edges from what was derived from a node."""
        return [edge for edge in self.edges if edge.source == node]

    def __repr__(self) -> str:
        rest = "" if self.complete else ", complete=False"
        return (
            f"Lineage({self.root!r}, {self.direction!r}, nodes={len(self.nodes)}, "
            f"edges={len(self.edges)}{rest})"
        )


def lineage_of(
    core: Core, scope: Scope, start: EntryRow, direction: str, depth: int | None, limit: int
) -> Lineage:
    """See `Audit.lineage`."""
    if direction not in _DIRECTIONS:
        raise InvalidValueError(f"direction is 'up' or 'down', not {direction!r}")
    walk = Walk(core.engine, limit)
    if direction == "up":
        walk.up(start, depth)
        unkept = len(walk.unkept)
    else:
        walk.down(start, depth)
        unkept = core.engine.unkept(start.revision)
        walk.complete = walk.complete and core.engine.floor() <= start.revision
    seen = {ref: row for ref, row in walk.rows.items() if scope.sees(ref[:2])}
    lost = [ref for ref in walk.lost if scope.sees(ref[:2])]
    nodes = nodes_of(core.engine, scope, seen.values())
    nodes |= {ref: Node(scope.relative(ref[0]), ref[1], ref[2], "compacted") for ref in lost}
    edges: list[Edge] = []
    for edge in _edges(walk, nodes, scope):
        if len(edges) >= limit * _EDGES_A_NODE:
            walk.complete = False
            break
        edges.append(edge)
    return Lineage(
        nodes[ref_of(start)],
        direction,
        tuple(sorted(nodes.values(), key=_order)),
        tuple(edges),
        walk.complete,
        unkept,
        len(walk.lost_ids),
        len(walk.rows) + len(walk.lost) - len(nodes),
    )


def _order(node: Node) -> tuple[Any, ...]:
    return node.revision or 0, node.namespace, node.key, node.version


def nodes_of(engine: Engine, scope: Scope, rows: Iterable[EntryRow]) -> dict[Ref, Node]:
    """Entries as nodes."""
    rows = list(rows)
    revisions = sorted({row.revision for row in rows})
    commits: dict[int, CommitRow] = {}
    for start in range(0, len(revisions), _BATCH):
        found = engine.commits_of(revisions[start : start + _BATCH])
        commits |= {commit.revision: commit for commit in found}
    return {ref_of(row): _node(row, commits.get(row.revision), scope) for row in rows}


def _node(row: EntryRow, commit: CommitRow | None, scope: Scope) -> Node:
    return Node(
        scope.relative(row.namespace),
        row.key,
        row.version,
        "purged" if row.value is None and not row.deleted else "kept",
        row.revision,
        OPERATIONS[row.operation],
        row.agent,
        row.op_id,
        commit.note if commit is not None else None,
        to_datetime(row.committed_at),
    )


def _edges(walk: Walk, nodes: dict[Ref, Node], scope: Scope) -> Iterator[Edge]:
    for ref in sorted(walk.rows, key=lambda ref: walk.rows[ref].id):
        derived = nodes.get(ref)
        if derived is None:
            continue
        for reading in walk.readings.get(walk.rows[ref].revision, ()):
            if reading.source in nodes:
                asked = _asked(reading.scan, scope)
                yield Edge(derived, nodes[reading.source], reading.why, asked)
        for held in walk.held.get(ref, ()):
            if held.source in nodes:
                yield Edge(derived, nodes[held.source], held.why)


def _asked(scan: ReadRow | None, scope: Scope) -> dict[str, Any]:
    """What a scan asked for, in the words of the view that looks at it."""
    if scan is None:
        return {}
    asked, _found = found_by_scan(scan.scan or "{}")
    if not scope.holds(scan.namespace):
        return {}  # it looked into more than this view
    return {"namespace": list(scope.relative(scan.namespace)), **asked}
