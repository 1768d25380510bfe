"""Undoing while others write: nothing of theirs is lost, and nothing is undone twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from agentmem import ConflictError, InvalidValueError, Store
from tests.contract.conftest import StoreMaker

WRITERS = 2
EACH = 20


def at_once(*works: Callable[[], None]) -> None:
    """Runs all at once, each in a thread of its own; what one raises is raised here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        try:
            barrier.wait()
            work()
        except BaseException as error:  # noqa: BLE001  # raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_increments_are_undone_exactly_once_while_others_increment(make_store: StoreMaker) -> None:
    first = make_store()
    revisions = [first.increment("n").revision for _number in range(EACH)]
    undone: list[int] = []
    refused: list[int] = []

    def increment() -> None:
        store = make_store()
        for _number in range(EACH):
            store.increment("n")

    def undo() -> None:
        store = make_store()
        for revision in revisions:
            assert revision is not None
            try:
                store.audit.revert_commit(revision, op_id=f"undo {revision}")
            except InvalidValueError:
                refused.append(revision)
            else:
                undone.append(revision)

    # Two undo the same commits, by the same op_ids: each is undone by one of them.
    at_once(*[increment] * WRITERS, undo, undo)
    assert refused == []
    assert sorted(undone) == sorted([*revisions, *revisions])  # type: ignore[type-var]  # revisions are numbers
    assert first["n"] == WRITERS * EACH
    undoing = first.log(where={"reverts": {"$exists": True}})
    assert len(undoing) == EACH


def test_a_revert_beside_writers_puts_back_what_it_says_or_nothing(make_store: StoreMaker) -> None:
    first = make_store()
    first.put("k", {"n": 0}, agent="base")
    conflicts: list[ConflictError] = []

    def write(store: Store) -> None:
        for number in range(EACH):
            store.update("k", lambda value, n=number: {"n": n, "was": value["n"]})  # type: ignore[misc]  # mypy does not infer a lambda with a default

    def revert(store: Store) -> None:
        for _number in range(EACH):
            try:
                store.audit.revert("k", 1, agent="undoer")
            except ConflictError as error:
                conflicts.append(error)

    stores = [make_store() for _thread in range(3)]
    at_once(lambda: write(stores[0]), lambda: write(stores[1]), lambda: revert(stores[2]))
    history = first.history("k")[::-1]
    assert [entry.version for entry in history] == list(range(1, len(history) + 1))
    reverts = [entry for entry in history if entry.agent == "undoer"]
    assert all(entry.value == {"n": 0} for entry in reverts)
    written = [entry for entry in history if entry.agent is None]
    assert len(written) == 2 * EACH
    # Each update has seen the version right before it: no write of another was lost.
    values: list[Any] = [entry.value for entry in history]
    for before, entry in zip(values, history[1:], strict=False):
        if entry.agent is None:
            assert entry.value["was"] == before["n"]
