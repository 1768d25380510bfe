"""What each task of a graph has read, so that what it writes carries the version it started from.

A task is one node of one step; its id is the same in every retry and after a resume, and each
retry counts as an attempt with a memory of its own. Within a task, calls may run side by side
(parallel tools of one node), and one must not take over what another has just written::

    tool A                     tool B
    get notes -> version 1     get notes -> version 1
    put notes -> version 2
                               put notes: from version 1, so it conflicts

Each of them is a flow: a runnable's run, in an asyncio task or a thread. A flow that has not read
a key itself goes on from what the task last read or wrote; what it then writes is known to the flow
that it goes on from as well, as when a node waits for a put with ``asyncio.wait_for``.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from langchain_core.runnables.config import var_child_runnable_config

from langchain_agentmem.runs import Run, current_run

__all__ = [
    "MAX_CITED",
    "MAX_KEYS",
    "MAX_TASKS",
    "Caller",
    "Place",
    "SeenVersions",
    "current_caller",
]

MAX_TASKS: Final = 10_000
"""Attempts of tasks whose reads are remembered; those used least recently are forgotten first."""
MAX_KEYS: Final = 100_000
"""Reads of one attempt that are remembered; the oldest are forgotten first."""
MAX_CITED: Final = 1_000
"""Versions that an attempt has read which a commit of it names; the oldest are left out first."""

Place: TypeAlias = tuple[tuple[str, ...], str]
_Attempt: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls the store.

    Attributes:
        run: what LangGraph tells of the run; all None outside of any.
        attempt: the task and its attempt; None outside of a task.
        flow: what runs one thing after the other within the task.
    """

    run: Run
    attempt: _Attempt | None = None
    flow: object = None

    @property
    def is_outside(self) -> bool:
        """Whether it calls from no run at all."""
        return self is _OUTSIDE


_OUTSIDE: Final = Caller(Run())
_numbers: Final = itertools.count()
_local: Final = threading.local()
_async_numbers: Final[weakref.WeakKeyDictionary[asyncio.Task[Any], int]] = (
    weakref.WeakKeyDictionary()
)


def current_caller() -> Caller:
    """Whoever calls this, in its own thread or asyncio task."""
    config = var_child_runnable_config.get()
    if config is None:
        return _OUTSIDE
    run = current_run(config)
    if run.task_id is None:
        return Caller(run)
    parent = getattr(config.get("callbacks"), "parent_run_id", None)
    info = getattr(config["configurable"].get("__pregel_runtime"), "execution_info", None)
    attempt = getattr(info, "node_attempt", 1)
    return Caller(run, (run.task_id, attempt), (parent, _strand()))


def _strand() -> tuple[str, int]:
    """A number for the asyncio task or, without one, the thread; never used again for another."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is not None:
        return "task", _async_numbers.setdefault(task, next(_numbers))
    if not hasattr(_local, "number"):
        _local.number = next(_numbers)
    return "thread", _local.number


@dataclass(slots=True)
class _Seen:
    """What one attempt of a task has seen: by flow, and which flow was the last.

    ``read`` has the versions that others made, in order; a dict is an ordered set.
    """

    by_flow: dict[tuple[object, Place], int] = field(default_factory=dict)
    last: dict[Place, object] = field(default_factory=dict)
    read: dict[tuple[Place, int], None] = field(default_factory=dict)

    def note(self, flow: object, place: Place, version: int) -> None:
        # Taken out first, so that what was read again is not the oldest.
        self.by_flow.pop((flow, place), None)
        self.last.pop(place, None)
        self.by_flow[flow, place] = version
        self.last[place] = flow
        if len(self.by_flow) > MAX_KEYS:
            del self.by_flow[next(iter(self.by_flow))]
        if len(self.last) > MAX_KEYS:
            del self.last[next(iter(self.last))]

    def cite(self, place: Place, version: int) -> None:
        self.read.pop((place, version), None)
        self.read[place, version] = None
        if len(self.read) > MAX_CITED:
            del self.read[next(iter(self.read))]

    def source(self, flow: object, place: Place) -> object:
        """The flow whose reading a write goes on from: itself, if it has read."""
        return flow if (flow, place) in self.by_flow else self.last.get(place)


class SeenVersions:
    """The versions that tasks have read, 0 for an absent key. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects _attempts and what is in it
        self._attempts: OrderedDict[_Attempt, _Seen] = OrderedDict()

    def note(
        self, caller: Caller, found: Iterable[tuple[Place, int]], *, written: bool = False
    ) -> None:
        """Remembers what a caller has read, or written."""
        if caller.attempt is None:
            return
        with self._lock:
            seen = self._attempts.get(caller.attempt)
            if seen is None:
                seen = self._attempts[caller.attempt] = _Seen()
                if len(self._attempts) > MAX_TASKS:
                    self._attempts.popitem(last=False)
            else:
                self._attempts.move_to_end(caller.attempt)
            for place, version in found:
                source = seen.source(caller.flow, place) if written else None
                if source is not None:
                    seen.note(source, place, version)
                seen.note(caller.flow, place, version)
                if not written and version:
                    seen.cite(place, version)

    def cited(self, caller: Caller) -> list[tuple[Place, int]]:
        """The versions that the caller's attempt has read: what it writes may come of them."""
        if caller.attempt is None:
            return []
        with self._lock:
            seen = self._attempts.get(caller.attempt)
            return list(seen.read) if seen is not None else []

    def base(self, caller: Caller, place: Place) -> int | None:
        """The version that a write of the caller starts from; None if it has read none."""
        if caller.attempt is None:
            return None
        with self._lock:
            seen = self._attempts.get(caller.attempt)
            if seen is None:
                return None
            return seen.by_flow.get((seen.source(caller.flow, place), place))

    def __len__(self) -> int:
        with self._lock:
            return len(self._attempts)
