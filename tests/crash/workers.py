"""What the processes of these tests do; `Crew` starts them, so they must be importable."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import agentmem

VALUE = "x" * 20_000
MOST_PUTS = 1_000
THREADS = 4


def fill(store: agentmem.Store) -> tuple[int, agentmem.AgentMemError]:
    """Puts values, each under its own op_id, until it fails; (puts that returned, the error)."""
    for number in range(MOST_PUTS):
        try:
            store.put(f"k{number:04}", VALUE, op_id=f"op-{number}")
        except agentmem.AgentMemError as error:
            return number, error
    raise AssertionError("the disk never fills")


def check_halves(
    store: agentmem.Store, value: object, each: int, make_room: Callable[[], None]
) -> None:
    """Threads write pairs onto a full disk: each pair is there, or its thread got the error.

    Args:
        each: so many pairs each thread writes.
        make_room: has the disk full no longer.
    """
    outcomes: dict[str, BaseException | None] = {}

    def write(worker: int) -> None:
        for number in range(each):
            name = f"{worker}-{number}"
            try:
                with store.transaction(op_id=name) as tx:
                    tx.put(f"{name}-a", value)
                    tx.put(f"{name}-b", "second half")
            except agentmem.AgentMemError as error:
                outcomes[name] = error
            else:
                outcomes[name] = None

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(outcomes) == THREADS * each
    failed = {name for name, error in outcomes.items() if error is not None}
    assert {type(outcomes[name]) for name in failed} == {agentmem.DiskFullError}
    make_room()
    done = outcomes.keys() - failed
    assert {entry.key for entry in store.list()} == {f"{n}-{half}" for n in done for half in "ab"}
    assert store.admin.verify().problems == []


def fill_limited_files(
    report: Callable[[dict[str, Any]], None],
    begin: Callable[[], object],
    path: str,
    max_bytes: int,
) -> None:
    """Fills files that may not grow beyond a size, then is allowed more, and goes on."""
    import resource

    begin()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with agentmem.open(path, blind_writes="allow") as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
        count, error = fill(store)
        said: dict[str, Any] = {"count": count, "error": error, "readable": len(store.list())}
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if isinstance(error, agentmem.IndeterminateCommitError):
            said["outcome"] = store.outcome(error)
        said["version"] = store.put(f"k{count:04}", VALUE, op_id=f"op-{count}").version
        said["after"] = store.put("after", 1).version
        report(said)
