"""A writer on a disk that fails: ``python writer.py PATH DURABILITY [END]``; prints JSON lines.

Each operation is done under its own op_id, once more for every failure, as a client would. Of a
failure it tells all that the store says about it. END is ``die``: it kills itself where COMMIT
has failed; or ``ask-and-die``: where it has also been told the outcome.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import agentmem

MOST_TRIES = 6


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def operations(store: agentmem.Store) -> dict[str, Callable[[], Any]]:
    def transaction() -> None:
        with store.transaction(op_id="transaction") as tx:
            tx.put("a", 1, namespace="pair")
            tx.put("b", 1, namespace="pair")

    def transact() -> Any:
        return store.transact(lambda tx: tx.increment("n"), op_id="transact")

    return {
        "put": lambda: store.put("text", "x" * 5_000, op_id="put"),
        "increment": lambda: store.increment("n", op_id="increment"),
        "transaction": transaction,
        "transact": transact,
    }


def told(store: agentmem.Store, error: Exception, end: str) -> dict[str, Any]:
    """What there is to say about a failure."""
    found: dict[str, Any] = {"error": type(error).__name__}
    found["known"] = isinstance(error, agentmem.AgentMemError)
    if isinstance(error, agentmem.IndeterminateCommitError):
        found |= {
            "op_id": error.op_id,
            "attempt": error.attempt.hex(),
            "revision": error.revision,
        }
        if end == "die":
            say(**found)
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            commit = store.outcome(error)
            found["outcome"] = commit.revision if commit is not None else None
        except agentmem.AgentMemError as second:
            found["outcome"] = type(second).__name__
            found["outcome_attempt"] = getattr(second, "attempt", b"").hex()
        if end == "ask-and-die":
            say(**found)
            os.kill(os.getpid(), signal.SIGKILL)
    return found


def readable(store: agentmem.Store) -> str:
    try:
        store.list()
        store.revision  # noqa: B018  # only that it can be read
    except agentmem.AgentMemError as error:
        return type(error).__name__
    return "yes"


def opened(path: str, durability: str) -> agentmem.Store:
    for _try in range(MOST_TRIES):
        try:
            return agentmem.open(path, durability=durability, blind_writes="allow")
        except agentmem.AgentMemError as error:
            say(operation="open", error=type(error).__name__, known=True)
    raise SystemExit("it cannot be opened")


def keep_another_connection(store: agentmem.Store) -> None:
    """Else the one that fails is the last one, whose close would sweep the log away."""
    connected = threading.Event()

    def read_and_stay() -> None:
        try:
            readable(store)
        finally:
            connected.set()
        threading.Event().wait()

    threading.Thread(target=read_and_stay, daemon=True).start()
    connected.wait()


def main(path: str, durability: str, end: str = "") -> None:
    store = opened(path, durability)
    keep_another_connection(store)
    for name, operation in operations(store).items():
        for _try in range(MOST_TRIES):
            try:
                operation()
            except Exception as error:  # noqa: BLE001  # the test looks at what came
                say(operation=name, **told(store, error, end), readable=readable(store))
            else:
                say(operation=name, error=None)
                break
    store.close()
    say(operation="close", error=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
