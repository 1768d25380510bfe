"""Nodes of a graph that run as one transaction, and apply once."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar, cast

from langchain_core.runnables import Runnable

from agentmem import CompactedError, Store, Transaction
from agentmem.course import is_async
from langchain_agentmem.runs import Run, current_run
from langgraph_agentmem.results import decoded, encoded
from langgraph_agentmem.running import running_in, running_transaction
from langgraph_agentmem.store import AgentMemStore

__all__ = ["transactional_node"]

F = TypeVar("F", bound=Callable[..., Any])

_ATTEMPTS: Final = 20
_TX: Final = "tx"


def transactional_node(
    store: AgentMemStore | Store,
    *,
    attempts: int = _ATTEMPTS,
    merge: bool = False,
    agent: str | None = None,
    op_id: Callable[[Run], str | None] | None = None,
) -> Callable[[F], F]:
    """Makes a node one transaction that applies once, however often the node is replayed.

    ::

        @transactional_node(store)
        def book(state, *, store):  # unmodified: the store that LangGraph injects
            trip = store.get(("team",), "trip").value
            store.put(("team",), "trip", {**trip, "seats": trip["seats"] - 1})
            return {"messages": [AIMessage("booked")]}


        builder.add_node("book", transactional_node(store)(book))  # or so

    Whatever the node does with the store, as ``store``, ``runtime.store`` or from
    ``get_store()``, goes through one transaction, which commits when the node returns. A node
    with a parameter ``tx`` gets the `agentmem.Transaction` as well. An exception, an interrupt
    among them, writes nothing.

    The commit keeps what the node returned. A node that is replayed in the same thread,
    checkpoint and task, because the process died before LangGraph had saved its checkpoint, is
    not run again: its result is returned.

    Args:
        store: the store of the graph, or the `agentmem.Store` below it.
        attempts: how often the node may run if what it read was changed meanwhile. With 1, a
            conflict is raised, for LangGraph's retry policy.
        merge: let merge strategies settle conflicts, instead of running the node again.
        agent: who writes, in the log; None: the agent of the store or, without one, the node.
        op_id: another operation id, made from the run; None from it: not once, but each time.

    Returns: a decorator for functions and ``async def`` functions.

    Guarantees:
        Serializable: the node behaves as if it ran alone, at its commit.
        Only the store is covered: a node that may run several times must not pay or send mails
        by itself; see `agentmem.Store.once`.

    Raises:
        ConflictError: still in conflict after the last attempt; nothing was written.
        InvalidValueError: what the node returns is not JSON, messages, ``Command``, ``Send`` or
            ``Overwrite``; nothing was written.
    """
    below: Any = store
    if isinstance(store, AgentMemStore):
        below = store.agentmem
        agent = store.agent if agent is None else agent
    if not isinstance(below, Store):
        raise TypeError(f"store is an AgentMemStore or agentmem.Store, not {type(store).__name__}")

    def decorate(function: F) -> F:
        if not callable(function) or isinstance(function, Runnable):
            raise TypeError(
                "a transactional node is a function; for a runnable, write one that invokes it"
            )
        node = _Node(below, function, op_id or _operation(_name_of(function)), agent)
        return cast(F, _wrapped(node, attempts=attempts, merge=merge))

    return decorate


def _wrapped(node: _Node, *, attempts: int, merge: bool) -> Any:
    """What LangGraph calls in place of the function of a node."""
    run = functools.partial(node.transact, attempts=attempts, merge=merge)

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return await node.run_async(run, args, kwargs)

    def plain(*args: Any, **kwargs: Any) -> Any:
        return run(lambda tx: node.call(tx, args, kwargs))

    wrapper: Any = functools.wraps(node.function)(coroutine if node.is_async else plain)
    wrapper.__signature__ = node.signature  # LangGraph looks in it for what to inject
    wrapper.__annotations__ = {
        name: kind for name, kind in wrapper.__annotations__.items() if name != _TX
    }
    return wrapper


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _operation(name: str) -> Callable[[Run], str | None]:
    """The operation id of a function in a task: two functions of one task have two."""

    def of(run: Run) -> str | None:
        if run.task_id is None:
            return None
        parts = (run.thread_id, run.checkpoint_ns, run.checkpoint_id, run.task_id, name)
        return ":".join(("langgraph", *(part or "-" for part in parts)))

    return of


class _Node:
    """A function that runs as one transaction."""

    def __init__(
        self,
        store: Store,
        function: Callable[..., Any],
        op_id: Callable[[Run], str | None],
        agent: str | None,
    ) -> None:
        self._store = store
        self.function = function
        self._op_id = op_id
        self._agent = agent
        signature = inspect.signature(function)
        self._takes_tx = _TX in signature.parameters
        parameters = [each for each in signature.parameters.values() if each.name != _TX]
        self.signature = signature.replace(parameters=parameters)
        self.is_async = is_async(function)

    def call(self, tx: Transaction, args: Any, kwargs: Any) -> Any:
        """The function itself."""
        given = {_TX: tx} if self._takes_tx else {}
        return self.function(*args, **kwargs, **given)

    def transact(self, call: Callable[[Transaction], Any], *, attempts: int, merge: bool) -> Any:
        """Runs a call in a transaction, and returns what it, or its first run, returned."""
        outer = running_transaction(self._store)
        if outer is not None:
            return call(outer.tx)  # part of a node that is one already

        def run(tx: Transaction) -> Any:
            with running_in(self._store, tx):
                return {"result": encoded(call(tx))}

        graph = current_run()
        agent = self._agent
        if agent is None and self._store.agent is None:
            agent = graph.node
        op_id = self._op_id(graph)
        kept = self._store.transact(
            run, attempts=attempts, merge=merge, agent=agent, op_id=op_id,
            metadata=graph.metadata() or None,
        )  # fmt: skip
        if kept is None:
            raise CompactedError(
                f"the node was run, as {op_id!r}, and its result was dropped since, by a "
                "compaction or a purge: it is not run again, and what it returned is not known",
                floor=self._store.floor,
            )
        return decoded(kept["result"])

    async def run_async(
        self, transact: Callable[[Callable[[Transaction], Any]], Any], args: Any, kwargs: Any
    ) -> Any:
        """The same for a coroutine function, which runs on the loop as before.

        What waits for the storage is done in a thread of its own: in one of the loop's shared
        threads, nodes that wait for each other could take all of them.
        """
        outer = running_transaction(self._store)
        if outer is not None:
            return await self.call(outer.tx, args, kwargs)
        loop = asyncio.get_running_loop()
        inner: list[Future[Any]] = []
        cancelled = threading.Event()

        def call(tx: Transaction) -> Any:
            inner.append(asyncio.run_coroutine_threadsafe(self.call(tx, args, kwargs), loop))
            # The node may have begun, and been cancelled, before it stood in the list.
            if cancelled.is_set():
                inner[-1].cancel()
            return inner[-1].result()

        pool = ThreadPoolExecutor(1, thread_name_prefix="agentmem-node")
        context = contextvars.copy_context()
        try:
            return await loop.run_in_executor(pool, context.run, transact, call)
        except asyncio.CancelledError:
            cancelled.set()
            for future in inner:
                future.cancel()
            raise
        finally:
            pool.shutdown(wait=False)
