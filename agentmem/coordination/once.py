"""Once: an effect outside of the store runs once, however many ask for it; its result is kept."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from agentmem.coordination.heartbeat import Heartbeat
from agentmem.coordination.leases import checked_name, checked_wait
from agentmem.coordination.once_steps import Begin, End, Forget, Record, Stay
from agentmem.coordination.waking import LOOK_S, Waking
from agentmem.course import Call, Course, Pause, drive, refuse_async
from agentmem.errors import AgentMemError, InvalidValueError, LeaseError, OutcomeUnknownError
from agentmem.limits import Limits
from agentmem.scope import Scope
from agentmem.values import check_label_text, dump, load
from agentmem.writes import ttl_microseconds

if TYPE_CHECKING:
    from agentmem.core import Core

__all__ = ["HOLD_S", "WAIT_S", "cached", "once", "tool_id"]

P = ParamSpec("P")
R = TypeVar("R")

HOLD_S: Final = 30.0
WAIT_S: Final = 600.0
_BEATS: Final = 3  # within the time after which a silent one counts as dead
_DIGEST_BYTES: Final = 16
_log = logging.getLogger("agentmem")


def once(
    core: Core,
    scope: Scope,
    id: str,
    function: Callable[[], Any],
    *,
    ttl_s: float | None,
    retry: bool,
    wait_s: float,
    hold_s: float,
    agent: str | None,
) -> Course[Any]:
    """See `Store.once`."""
    scope.check_any("once")
    checked = check_label_text(agent, "agent", scope.limits)
    hold_us = ttl_microseconds(hold_s)
    if hold_us is None:
        raise TypeError("hold_s is a number of seconds")
    step = Begin(
        scope.name,
        checked_name(id, "once", scope),
        scope.agent if checked is None else checked,
        hold_us,
        retry,
    )
    asked = _Once(core, step, ttl_microseconds(ttl_s), checked_wait(wait_s))
    return (yield from asked.run(function))


class _Once:
    """One call of once."""

    def __init__(self, core: Core, begin: Begin, ttl_us: int | None, wait_s: float) -> None:
        self._core = core
        self._begin = begin
        self._ttl_us = ttl_us
        self._wait_s = wait_s

    def run(self, function: Callable[[], Any]) -> Course[Any]:
        """Runs the function, or gives what it returned when it ran."""
        core, begin = self._core, self._begin
        core.check_open()
        deadline = time.monotonic() + self._wait_s
        waking = Waking(core.engine)
        # A result is there for the most part: then no lock is needed.
        found = self._look()
        while True:
            result = None if found is None else found.result_at(core.engine.now())
            if result is not None:
                return load(result)
            core.coordinate(begin)
            if begin.token is not None:
                return (yield from self._run(function, begin.token))
            assert begin.record is not None, "it begins what is not recorded"
            # As the lock has shown it: the storage's clock may be ahead of ours.
            if begin.record.result is not None:
                return load(begin.record.result)
            if begin.dead:
                raise self._unknown(begin.record)
            found = yield from self._await(waking, deadline)

    def _look(self) -> Record | None:
        rows = self._core.engine.look(self._begin.looks()[0])
        return Record._make(rows[0]) if rows else None

    def _await(self, waking: Waking, deadline: float) -> Course[Record | None]:
        """Waits until the one that runs it has ended, or is dead."""
        while (now := time.monotonic()) < deadline:
            found = self._look()
            if found is None or not found.runs(self._core.engine.moment()):
                return found
            yield Pause(waking, min(deadline, now + LOOK_S))
        raise LeaseError(
            f"{self._begin.id!r} still runs after {self._wait_s:g} s; wait longer (wait_s=...)"
        )

    def _run(self, function: Callable[[], Any], token: int) -> Course[Any]:
        core, begin = self._core, self._begin
        named = (begin.scope, begin.id, token)

        def beat() -> None:
            core.coordinate(Stay(*named, begin.hold_us))

        heartbeat = Heartbeat(beat, begin.hold_us / 1_000_000 / _BEATS, f"the run of {begin.id!r}")
        try:
            returned = yield Call(function)
            result = dump(returned, core.limits, what="result of once")
        except BaseException:
            heartbeat.stop()
            self._clear(token)
            raise
        heartbeat.stop()
        core.coordinate(End(*named, result, self._ttl_us))
        return load(result)

    def _clear(self, token: int) -> None:
        try:
            self._core.coordinate(Forget(self._begin.scope, self._begin.id, token))
        except AgentMemError:
            # The function's own exception is on its way; the others hear of it a little later.
            _log.warning("the record of %r was not cleared", self._begin.id, exc_info=True)

    def _unknown(self, found: Record) -> OutcomeUnknownError:
        by = "" if found.agent is None else f" by {found.agent!r}"
        return OutcomeUnknownError(
            f"{self._begin.id!r} was begun{by} (token {found.token}), and who ran it died or was "
            "stopped: its effect may have happened. Find out, then run it again with retry=True, "
            "which may repeat the effect"
        )


def cached(
    core: Core,
    scope: Scope,
    function: Callable[P, R],
    *,
    name: str | None,
    **options: Any,
) -> Callable[P, R]:
    """See `Store.cached_tool`."""
    refuse_async(function, "cached_tool")
    id_of = tool_id(core, scope, function, name)

    @functools.wraps(function)
    def cached_function(*args: P.args, **kwargs: P.kwargs) -> R:
        id = id_of(*args, **kwargs)
        result: R = drive(once(core, scope, id, lambda: function(*args, **kwargs), **options))
        return result

    return cached_function


def tool_id(
    core: Core, scope: Scope, function: Callable[P, Any], name: str | None
) -> Callable[P, str]:
    """What makes the id of a call of a tool from its arguments."""
    called = f"{function.__module__}.{function.__qualname__}" if name is None else name
    checked = checked_name(called, "a tool", scope)
    signature = inspect.signature(function)

    def id_of(*args: P.args, **kwargs: P.kwargs) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return f"{checked}:{_digest(bound.arguments, core.limits, checked)}"

    return id_of


def _digest(arguments: dict[str, Any], limits: Limits, name: str) -> str:
    """What tells the arguments of one call from those of another."""
    try:
        text = dump(arguments, limits, what="arguments")
    except InvalidValueError as error:
        raise InvalidValueError(
            f"the arguments of the cached tool {name!r} must be JSON: {error}", path=error.path
        ) from error
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
