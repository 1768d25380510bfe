"""Two runs that go on from one checkpoint at once: how they are told from forks that are meant.

LangGraph names, with each checkpoint, its parent. Two runs that are started on one thread at once
read the same newest checkpoint, and each writes a child of it: the thread is forked, the run whose
checkpoints have the larger ids wins, and what the other did is gone from the conversation::

    run A                                run B
    reads the newest: c7                 reads the newest: c7
    writes c8a, a child of c7
                                         writes c8b, a child of c7, which has a child: fork

A fork can also be meant: a run, or ``update_state``, that is started at a ``checkpoint_id``. So the
saver keeps, in the context of the caller (which LangGraph copies to the threads and tasks in which
it writes), whether a graph was entered at its newest checkpoint or at one that was named.

A child says in its commit whose it is, by an operation id that only one commit can have: the first
child costs no read, and of two that come at once, in whatever processes, one learns of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from agentmem import AgentMemError
from langgraph_agentmem.checkpoint_places import Graph

__all__ = ["ConcurrentRunError", "ConcurrentRunWarning", "ConcurrentRuns", "Entered", "claim_of"]

ConcurrentRuns = Literal["warn", "error", "allow"]
"""What to do about a second child of a checkpoint that no one asked for."""

_RUNTIME: Final = "__pregel_runtime"
_REMEMBERED: Final = 64  # graphs entered in one context; older ones are forgotten


class ConcurrentRunWarning(UserWarning):
    """Two runs wrote the same thread at once: it is forked, and one of them is out of sight."""

    __module__ = "langgraph_agentmem"


class ConcurrentRunError(AgentMemError):
    """Another run has gone on from the same checkpoint; this checkpoint was not written.

    Attributes:
        thread_id: the thread.
        checkpoint_ns: the subgraph; ``""`` is the root graph.
        parent_id: the checkpoint that both went on from; None: the thread was empty.
        checkpoint_id: the one that was not written.
        other_id: the one that the other run had written before.
    """

    __module__ = "langgraph_agentmem"
    thread_id: str
    checkpoint_ns: str
    parent_id: str | None
    checkpoint_id: str
    other_id: str


@dataclass(frozen=True, slots=True)
class Entered:
    """How a caller came to the checkpoint of a graph that it will go on from.

    Attributes:
        named: the checkpoints that it asked for by their ids; empty: it asked for the newest.
        runtime: which run of LangGraph asked; 0 outside of any.
    """

    named: frozenset[str | None] = field(default_factory=frozenset)
    runtime: int = 0


_entered: ContextVar[Mapping[tuple[int, Graph], Entered]] = ContextVar("_entered", default={})  # noqa: B039  # never changed, only replaced


def entered(saver: int, graph: Graph) -> Entered | None:
    """How the caller entered a graph; None if it never did."""
    return _entered.get().get((saver, graph))


def enter_at_newest(saver: int, graph: Graph, named: Mapping[str, Any]) -> None:
    """Notes that the caller has read the newest checkpoint of a graph.

    A run, or an update, that was started at a named checkpoint looks for the newest one, too, to
    see whether the thread has moved past it; that takes nothing back. It does so with the config
    that it was started with, and None for the id.
    """
    before = entered(saver, graph)
    runtime = _runtime(named)
    same_caller = before is not None and before.named and before.runtime == runtime
    if same_caller and (runtime or "checkpoint_id" in named):
        return
    _note(saver, graph, Entered(runtime=runtime))


def enter_at(saver: int, graph: Graph, named: Mapping[str, Any], checkpoint_id: str | None) -> None:
    """Notes that the caller has asked for one checkpoint by its id, or by what comes after it.

    Args:
        checkpoint_id: None: there was none before the one that it named.
    """
    _note(saver, graph, Entered(frozenset((checkpoint_id,)), _runtime(named)))


def _note(saver: int, graph: Graph, how: Entered) -> None:
    known = {place: each for place, each in _entered.get().items() if place != (saver, graph)}
    while len(known) >= _REMEMBERED:
        del known[next(iter(known))]
    known[saver, graph] = how
    _entered.set(known)


def _runtime(named: Mapping[str, Any]) -> int:
    """Tells one run of LangGraph from another: each has a runtime object of its own."""
    runtime = named.get(_RUNTIME)
    return 0 if runtime is None else id(runtime)


def claim_of(graph: Graph, parent: str | None) -> str:
    """The operation id of the first child of a checkpoint."""
    parts = ["langgraph", graph.thread_id, graph.checkpoint_ns, parent]
    return orjson.dumps(parts).decode()


def refusal(graph: Graph, parent: str | None, checkpoint_id: str, other_id: str) -> str:
    """What happened, and what to do, in words."""
    where = f"thread {graph.thread_id!r}" + (
        f" ({graph.checkpoint_ns!r})" if graph.checkpoint_ns else ""
    )
    start = f"went on from checkpoint {parent!r}" if parent else "started it"
    return (
        f"two runs write {where} at once: another {start} with {other_id!r}, and this one with "
        f"{checkpoint_id!r}; let the runs of a thread follow each other (a lease on the thread "
        "does that), or start this one again from the newest checkpoint"
    )
