"""What a process does that forks while its store is in use: ``python forked.py SCENARIO TARGET``.

In a process of its own, so that no thread of the test runner is there when it forks. Prints one
JSON object.
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
from agentmem.testing.held import Held


def in_child(function: Callable[[], Any]) -> tuple[int, int]:
    """Forks; the child writes the result of the function to a pipe. Returns (pid, pipe)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        # A child that hangs is ended, and seen to have said nothing.
        signal.alarm(30)
        os.write(writing, json.dumps(function()).encode())
        status = 0
    finally:
        os._exit(status)


def heard(child: int, reading: int) -> Any:
    said = b""
    while part := os.read(reading, 65_536):
        said += part
    os.waitpid(child, 0)
    return json.loads(said) if said else "the child said nothing: it died or hung"


def attempts(
    store: agentmem.Store, tx: agentmem.Transaction, snap: agentmem.Snapshot
) -> dict[str, Callable[[], object]]:
    def hook(_conflict: agentmem.Conflict) -> object:
        return None

    return {
        "store.get": lambda: store.get("k"),
        "store[k]": lambda: store["k"],
        "store.get_many": lambda: store.get_many(["k"]),
        "store.list": store.list,
        "store.count": store.count,
        "store.namespaces": store.namespaces,
        "store.history": lambda: store.history("k"),
        "store.log": store.log,
        "store.revision": lambda: store.revision,
        "store.snapshot": store.snapshot,
        "store.put": lambda: store.put("k", 1),
        "store.add": lambda: store.add(1),
        "store.delete": lambda: store.delete("k"),
        "store.touch": lambda: store.touch("k", 5),
        "store.increment": lambda: store.increment("n"),
        "store.update": lambda: store.update("k", lambda old: old),
        "store.transaction": store.transaction,
        "store.transact": lambda: store.transact(lambda tx: tx.put("k", 1)),
        "store.set_merge": lambda: store.set_merge("k", "union"),
        "store.merges": store.merges,
        "store.audit.conflicts": store.audit.conflicts,
        "store.audit.tag": lambda: store.audit.tag("v1"),
        "store.admin.verify": store.admin.verify,
        "store.admin.stats": store.admin.stats,
        "scoped.put": lambda: store.scoped("team").put("k", 1),
        "tx.get": lambda: tx.get("k"),
        "tx.list": tx.list,
        "tx.put": lambda: tx.put("k", 1),
        "tx.increment": lambda: tx.increment("n"),
        "tx.stale": tx.stale,
        "tx.commit": tx.commit,
        "snapshot.get": lambda: snap.get("k"),
        "snapshot.list": snap.list,
        "snapshot.count": snap.count,
    }


def tried(calls: dict[str, Callable[[], object]]) -> dict[str, str]:
    found = {}
    for name, call in calls.items():
        try:
            call()
            found[name] = "no error"
        except Exception as error:  # noqa: BLE001  # its name is what is asked for
            found[name] = type(error).__name__
    return found


def refused(target: str) -> dict[str, Any]:
    """Forks while another thread of this process is committing."""
    store = agentmem.open(target, durability="relaxed", blind_writes="allow")
    store.put("k", 0)
    tx, snap = store.transaction(), store.snapshot()
    tx["k"] = tx["k"] + 1
    held = Held(store)
    with held.back():
        outcome = heard(*in_child(lambda: tried(attempts(store, tx, snap))))
        closed = heard(*in_child(lambda: tried({"store.close": store.close})))
    assert held.join() == []
    # The parent is none the worse.
    tx.commit()
    problems = store.admin.verify().problems
    return {"child": outcome, **closed, "parent": store["k"], "problems": problems}


def reopened(target: str) -> dict[str, Any]:
    """The child opens the store anew, as the error says; then the parent closes its own."""
    store = agentmem.open(target, durability="relaxed", blind_writes="allow")
    store.put("parent", 1)
    told, tell = os.pipe()
    ready, get_ready = os.pipe()

    def child() -> list[str]:
        acknowledged = []
        try:
            again = agentmem.open(target, durability="relaxed", blind_writes="allow")
        except agentmem.ForkedStoreError:
            # An honest refusal loses nothing either.
            os.write(get_ready, b"x")
            os.read(told, 1)
            return []
        acknowledged.append(again.put("child, before", 1).key)
        os.write(get_ready, b"x")
        os.read(told, 1)
        acknowledged.append(again.put("child, after", 2).key)
        return acknowledged

    pid, reading = in_child(child)
    os.read(ready, 1)
    store.put("parent, after", 2)
    store.close()
    os.write(tell, b"x")
    acknowledged = heard(pid, reading)
    with agentmem.open(target) as witness:
        keys = [entry.key for entry in witness.list()]
        return {
            "lost": [key for key in ["parent", "parent, after", *acknowledged] if key not in keys],
            "problems": witness.admin.verify().problems,
        }


def orphaned(target: str) -> dict[str, Any]:
    """Forks while a session holds the store's lock, then is killed; the child lives on."""
    from agentmem.engines.postgres import session as postgres_session

    # The child keeps the parent's connection open, so PostgreSQL lets the lock go only when it
    # has heard nothing for this long; ten seconds, as it is otherwise, are long for a test.
    postgres_session._IDLE_MS = 1_000  # type: ignore[misc]  # see above
    store = agentmem.open(target, durability="relaxed")
    store.put("k", 0)
    entered = threading.Event()
    make = store._core.engine.session

    def session() -> Any:
        made = make()
        append = made.append

        def held(rows: Any) -> None:
            append(rows)
            entered.set()
            threading.Event().wait()

        made.append = held  # type: ignore[method-assign]  # a fault on purpose
        return made

    store._core.engine.session = session  # type: ignore[method-assign]  # a fault on purpose
    threading.Thread(target=lambda: store.put("k", 1), daemon=True).start()
    assert entered.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        signal.pause()
    print(json.dumps({"child": child}), flush=True)
    signal.alarm(60)
    signal.pause()
    return {}


if __name__ == "__main__":
    scenario = {"refused": refused, "reopened": reopened, "orphaned": orphaned}[sys.argv[1]]
    print(json.dumps(scenario(sys.argv[2])), flush=True)
