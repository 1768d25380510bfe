"""Every call of the plain classes is there on the async ones, with arguments and documentation."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
from agentmem import aio
from agentmem.aio.opening import OpenOptions
from agentmem.coordination.queues import TransactionQueue
from agentmem.history.admin import Admin
from agentmem.history.audit import Audit

ROOT: Final = Path(__file__).parents[2]

PAIRS: Final[list[tuple[type, type]]] = [
    (agentmem.Store, aio.AsyncStore),
    (agentmem.Snapshot, aio.AsyncSnapshot),
    (agentmem.Transaction, aio.AsyncTransaction),
    (agentmem.Lease, aio.AsyncLease),
    (agentmem.Queue, aio.AsyncQueue),
    (agentmem.Task, aio.AsyncTask),
    (TransactionQueue, aio.AsyncTransactionQueue),
    (agentmem.Feed, aio.AsyncFeed),
    (agentmem.collection.Collection, aio.AsyncCollection),
    (Audit, aio.AsyncAudit),
    (Admin, aio.AsyncAdmin),
]

# What an async class has under another name, or not at all.
RENAMED: Final = {
    "__getitem__": "value",
    "__contains__": "has",
    "__len__": "count",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
    "__next__": "__anext__",
}
ABSENT: Final = {
    "Store.updating": "the course of `update`, which drives it",
    "Store.changing": "the course of `update`, which drives it",
    "Lease.acquiring": "the course of `acquire`",
    "Lease.held": "for the async face itself",
    "Queue.claiming": "the course of `claim`",
    "Feed.coming": "the course of `next`",
    "Feed.take": "for the async face itself",
    "Feed.is_ready": "for the async face itself",
    "Collection.register": "done by `View.collection`",
    "Collection.updating": "the course of `update`",
    "Transaction.is_live": "for the async face itself",
    "Transaction.__setitem__": "writing may have to look into the store, so it is awaited",
    "Transaction.add_similar": "for `add`",
    "Transaction.add_step": "for leases, queues and tasks",
    "Transaction.finish": "for `transact`",
    "Transaction.replay": "for `transact`",
    "Transaction.conflict_row": "for `transact`",
    "Transaction.conflicts": "for `transact`",
    "Queue.__bool__": "an object is true anyway",
}
# Names that only the async class has: item access by name.
ADDED: Final = {"value", "has", "count"}


def public(kind: type) -> set[str]:
    """The names that users of a class call, item access and the like included."""
    names = {name for name in dir(kind) if not name.startswith("_")}
    slots = set().union(*(getattr(base, "__slots__", ()) for base in kind.__mro__))
    special = {name for name in [*RENAMED, "__setitem__", "__bool__"] if name in vars_of(kind)}
    return names | special | {name for name in slots if not name.startswith("_")}


def vars_of(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__[:-1]):
        found |= vars(base)
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(("plain", "face"), PAIRS, ids=lambda kind: kind.__name__)
def test_every_public_name_is_there(plain: type, face: type) -> None:
    wanted = {RENAMED.get(name, name): name for name in public(plain)}
    absent = {name for name, was in wanted.items() if f"{plain.__name__}.{was}" in ABSENT}
    assert set(wanted) - absent <= public(face) | set(vars_of(face))
    assert public(face) - set(wanted) <= ADDED | set(RENAMED) | {"__setitem__"}


def test_every_exception_is_one() -> None:
    names = {f"{plain.__name__}.{name}" for plain, _face in PAIRS for name in public(plain)}
    assert set(ABSENT) <= names


@pytest.mark.parametrize(("plain", "face"), PAIRS, ids=lambda kind: kind.__name__)
def test_arguments_are_those_of_the_plain_call(plain: type, face: type) -> None:
    compared = 0
    for name in public(plain) & public(face):
        one, other = vars_of(plain).get(name), vars_of(face)[name]
        if not inspect.isfunction(one) or name.startswith("__"):
            continue
        ours, theirs = (list(inspect.signature(f).parameters.values())[1:] for f in (one, other))
        assert [(p.name, p.kind, p.default) for p in ours] == [
            (p.name, p.kind, p.default) for p in theirs
        ], f"{plain.__name__}.{name}"
        # A signature that is only claimed, by functools.wraps, must be that of what is called.
        assert other.__doc__, f"{face.__name__}.{name} is not documented"
        compared += 1
    assert compared or plain is agentmem.Snapshot or plain is agentmem.Task


def test_options_are_those_of_open() -> None:
    parameters = dict(inspect.signature(agentmem.open).parameters)
    del parameters["target"]
    assert set(OpenOptions.__annotations__) == set(parameters)


def test_calls_that_are_awaited_are_coroutine_functions() -> None:
    at_once = {"lease", "queue", "scoped", "collection", "merge_hook", "cached_tool"}
    opened = {"snapshot", "transaction", "watch"}
    functions = {
        name for name, value in vars_of(aio.AsyncStore).items() if inspect.isfunction(value)
    }
    awaited = {name for name in functions if not name.startswith("_")} - at_once - opened
    assert all(inspect.iscoroutinefunction(getattr(aio.AsyncStore, name)) for name in awaited)
    assert len(awaited) > 25


def test_importing_agentmem_imports_no_asyncio() -> None:
    script = """
        import sys, agentmem
        assert "AsyncStore" in dir(agentmem)
        assert "asyncio" not in sys.modules, "asyncio"
        assert not [name for name in sys.modules if name.startswith("agentmem.aio")]
        agentmem.aopen, agentmem.AsyncStore, agentmem.AsyncTransaction
        from agentmem import *
        assert AsyncFeed.__module__ == "agentmem"
        try:
            agentmem.AsyncNothing
        except AttributeError as error:
            assert "AsyncNothing" in str(error)
        else:
            raise AssertionError("a name that is not there was found")
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


_TYPED: Final = """
import agentmem
from agentmem import AsyncTransaction, Conflict

async def use(store: agentmem.AsyncStore) -> None:
    entry = await store.put("k", 1, op_id="x")
    reveal_type(entry.version)
    reveal_type(await store.get("k"))
    reveal_type(await store.get("k", default=3))
    reveal_type(await store.list("n", limit=3))
    reveal_type(await store.revision)
    async def book(tx: AsyncTransaction) -> str:
        await tx.put("k", await tx.value("k"))
        return "done"
    reveal_type(await store.transact(book))
    reveal_type(await store.transact(lambda tx: tx.count()))
    async with store.transaction() as tx:
        reveal_type(await tx.commit())
    async with store.lease("l") as lease:
        reveal_type(lease.token)
    async for event in store.watch():
        reveal_type(event.revision)
    task = await store.queue("q").claim()
    if task is not None:
        await task.ack()
    @store.cached_tool
    async def search(query: str) -> list[str]: return [query]
    reveal_type(await search("x"))
    @store.merge_hook("n/**")
    async def merge(conflict: Conflict) -> int: return 1
    reveal_type((await store.snapshot()).revision)
    reveal_type(store.scoped("n"))
    reveal_type(await store.audit.tags())
    await store.put("k", 1, opid="x")
    store["k"]
    await store.update(3, lambda v: v)
"""
_REVEALED: Final = [
    "int | None",
    "agentmem.model.Entry[Any] | None",
    "agentmem.model.Entry[Any] | int | None",
    "list[agentmem.model.Entry[Any]]",
    "int",
    "str",
    "int",
    "agentmem.model.Commit",
    "int",
    "int",
    "list[str]",
    "int",
    "agentmem.aio.store.AsyncStore",
    "list[agentmem.model.Tag]",
]


@pytest.mark.slow
def test_type_checkers_know_arguments_and_results(tmp_path: Path) -> None:
    script = tmp_path / "use.py"
    script.write_text(_TYPED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    lines = done.stdout.splitlines()
    assert [line.split('"')[1] for line in lines if "Revealed type" in line] == _REVEALED
    errors = [line.rsplit("[", 1)[1] for line in lines if ": error:" in line]
    assert errors == ["call-arg]", "index]", "arg-type]"], done.stdout
