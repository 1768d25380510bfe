"""A client on another host, told what to do line by line: ``python remote.py URL IDLE_MS``.

Reads ``OPERATION OP_ID POINT`` and ``go``; prints one JSON object a line: ``{"at": POINT}`` when
it has come to the point where the parent wants to cut the link, and the outcome of the operation.
The points: ``enter`` before the first round trip, ``append`` between the two, ``none``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import agentmem
from agentmem.engines.postgres import session as postgres_session

LIMITS = agentmem.Limits(lock_timeout_ms=3_000)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def stop_at(store: agentmem.Store, point: str) -> None:
    """Has the next session that comes to the point say so, and wait for ``go``."""
    engine = store._core.engine
    make = engine.session

    def session() -> Any:
        engine.session = make  # type: ignore[method-assign]  # a fault on purpose
        made: Any = make()
        original = getattr(made, point)

        def stopped(*arguments: Any, **named: Any) -> Any:
            answer = original(*arguments, **named) if point == "append" else None
            say(at=point)
            assert sys.stdin.readline() == "go\n"
            return original(*arguments, **named) if point == "enter" else answer

        setattr(made, point, stopped)
        return made

    engine.session = session  # type: ignore[method-assign]  # a fault on purpose


def run(store: agentmem.Store, operation: str, op_id: str) -> Any:
    if operation == "get":
        return store.get("k", default="nothing")
    if operation == "outcome":
        return None
    return store.increment("n", op_id=op_id).version


def main(url: str, idle_ms: str) -> None:
    postgres_session._IDLE_MS = int(idle_ms)  # type: ignore[misc]  # ten seconds are long for a test
    with agentmem.open(url, limits=LIMITS, agent="remote") as store:
        store.get("k")
        say(ready=True)
        for line in sys.stdin:
            operation, op_id, point = line.split()
            if point != "none":
                stop_at(store, point)
            try:
                say(result=run(store, operation, op_id))
            except agentmem.AgentMemError as error:
                say(error=type(error).__name__, message=str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
