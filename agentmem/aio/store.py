"""The async store: the calls of a store, awaited."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from agentmem.aio.coordination import AsyncLease, AsyncQueue
from agentmem.aio.delegating import awaited, documented, driven, made, opened
from agentmem.aio.feed import AsyncFeed, Watching
from agentmem.aio.history import AsyncAdmin, AsyncAudit
from agentmem.aio.hooks import LoopHook
from agentmem.aio.transaction import AsyncTransaction
from agentmem.aio.views import AsyncSnapshot, AsyncView
from agentmem.coordination import feed
from agentmem.coordination.once import HOLD_S, WAIT_S, once, tool_id
from agentmem.course import is_async
from agentmem.limits import Limits
from agentmem.model import Conflict
from agentmem.store import Store
from agentmem.transact import transact
from agentmem.transaction import Isolation, Transaction

__all__ = ["AsyncStore"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound=Callable[[Conflict], Any])


class AsyncStore(AsyncView):
    """A shared memory, or a scoped part of it, for tasks of an event loop; see `Store`.

    Made by `agentmem.aopen` and `AsyncStore.scoped`. Every call that may touch the storage is
    awaited; it is made by one of a bounded number of threads, and never blocks the event loop.

    Guarantees:
        Cancelled, a writing call was committed as a whole or not at all. If it was not begun, it
        never will be; what had begun may commit after the cancellation. With the same op_id it
        can be repeated: it then applies exactly once.
    """

    __slots__ = ()
    __module__ = "agentmem"
    _sync: Store

    # Reading.

    snapshot = opened(Store.snapshot, AsyncSnapshot)
    history = awaited(Store.history)
    log = awaited(Store.log)

    @property
    def revision(self) -> Coroutine[Any, Any, int]:
        """The latest revision, to be awaited; 0 for an empty store."""
        return self._runner.call(lambda: self._sync.revision)

    @property
    def floor(self) -> Coroutine[Any, Any, int]:
        """The compaction floor, to be awaited: the lowest revision that can be read."""
        return self._runner.call(lambda: self._sync.floor)

    @property
    def store_id(self) -> str:
        """Tells this store from all others: random, made with it, the same in every view."""
        return self._sync.store_id

    @property
    def prefix(self) -> tuple[str, ...]:
        """The labels that are the root inside of a scoped view; () for the store itself."""
        return self._sync.prefix

    @property
    def agent(self) -> str | None:
        """Who acts where a call names nobody."""
        return self._sync.agent

    @property
    def limits(self) -> Limits:
        """What may be written."""
        return self._sync.limits

    # Writing.

    put = awaited(Store.put)
    put_many = awaited(Store.put_many)
    add = awaited(Store.add)
    delete = awaited(Store.delete)
    clear = awaited(Store.clear)
    touch = awaited(Store.touch)
    increment = awaited(Store.increment)
    append = awaited(Store.append)
    add_to_set = awaited(Store.add_to_set)
    patch = awaited(Store.patch)
    outcome = awaited(Store.outcome)
    transaction = opened(Store.transaction, AsyncTransaction)
    update = driven(Store.updating, Store.update)

    @overload
    async def transact(
        self,
        fn: Callable[[AsyncTransaction], Awaitable[T]],
        *,
        attempts: int = 20,
        deadline_s: float | None = None,
        repair: Callable[..., object] | None = None,
        merge: bool = False,
        lock: Iterable[Any] = (),
        agent: str | None = None,
        op_id: str | None = None,
        isolation: Isolation = "serializable",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        fingerprint: object = None,
    ) -> T: ...

    @overload
    async def transact(
        self,
        fn: Callable[[Transaction], T],
        *,
        attempts: int = 20,
        deadline_s: float | None = None,
        repair: Callable[..., object] | None = None,
        merge: bool = False,
        lock: Iterable[Any] = (),
        agent: str | None = None,
        op_id: str | None = None,
        isolation: Isolation = "serializable",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        fingerprint: object = None,
    ) -> T: ...

    async def transact(
        self,
        fn: Callable[..., Any],
        *,
        attempts: int = 20,
        deadline_s: float | None = None,
        repair: Callable[..., object] | None = None,
        merge: bool = False,
        lock: Iterable[Any] = (),
        agent: str | None = None,
        op_id: str | None = None,
        isolation: Isolation = "serializable",
        note: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        fingerprint: object = None,
    ) -> Any:
        """Runs ``fn(tx)`` in a transaction and commits; on a conflict runs it again.

        As `Store.transact`. An ``async def`` function is awaited on the event loop, with an
        `AsyncTransaction`; a plain one runs in a worker, with a `Transaction`. The same holds
        for `repair`, by itself.
        """
        course = transact(
            self._sync._core,
            self._sync._scope,
            self._with_tx(fn),
            attempts=attempts,
            deadline_s=deadline_s,
            repair=None if repair is None else self._with_tx(repair),
            merge=merge,
            lock=lock,
            agent=agent,
            op_id=op_id,
            isolation=isolation,
            note=note,
            metadata=metadata,
            fingerprint=fingerprint,
        )
        return await self._runner.drive(course)

    def _with_tx(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, as it is called with a plain transaction."""
        if not is_async(function):
            return function

        async def call(tx: Transaction, *conflicts: Any) -> Any:
            return await function(AsyncTransaction(self._runner, tx), *conflicts)

        return call

    # Merging.

    @documented(Store.merge_hook)
    def merge_hook(self, pattern: str) -> Callable[[H], H]:
        register = self._sync.merge_hook(pattern)
        rounds = self._sync._core.limits.max_merge_rounds

        def wrap(hook: H) -> H:
            if is_async(hook):
                register(functools.update_wrapper(LoopHook(hook, rounds), hook))
            else:
                register(hook)
            return hook

        return wrap

    set_merge = awaited(Store.set_merge)
    merges = awaited(Store.merges)

    # Coordination.

    lease = made(Store.lease, AsyncLease)
    leases = awaited(Store.leases)
    break_lease = awaited(Store.break_lease)
    queue = made(Store.queue, AsyncQueue)
    queues = awaited(Store.queues)
    consumers = awaited(Store.consumers)
    break_consumer = awaited(Store.break_consumer)
    forget_consumer = awaited(Store.forget_consumer)

    @documented(Store.watch)
    def watch(
        self,
        namespace: object = None,
        since: int | None = None,
        consumer: str | None = None,
        *,
        timeout_s: float | None = None,
        wait_s: float = 0,
        hold_s: float = feed.HOLD_S,
        agent: str | None = None,
    ) -> Watching:
        async def open() -> AsyncFeed:
            course = feed.watch(
                self._sync._core,
                self._sync._scope,
                namespace,
                since,
                consumer,
                timeout_s=timeout_s,
                wait_s=wait_s,
                hold_s=hold_s,
                agent=agent,
            )
            return AsyncFeed(self._runner, await self._runner.drive(course, feed.Feed.close))

        return Watching(open)

    @documented(Store.once)
    async def once(
        self,
        id: str,
        fn: Callable[[], Any],
        *,
        ttl_s: float | None = None,
        retry: bool = False,
        wait_s: float = WAIT_S,
        hold_s: float = HOLD_S,
        agent: str | None = None,
    ) -> Any:
        course = once(
            self._sync._core,
            self._sync._scope,
            id,
            fn,
            ttl_s=ttl_s,
            retry=retry,
            wait_s=wait_s,
            hold_s=hold_s,
            agent=agent,
        )
        return await self._runner.drive(course)

    @overload
    def cached_tool(
        self, function: Callable[P, Awaitable[R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...

    @overload
    def cached_tool(
        self,
        *,
        name: str | None = None,
        ttl_s: float | None = None,
        retry: bool = False,
        wait_s: float = WAIT_S,
        hold_s: float = HOLD_S,
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]: ...

    def cached_tool(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        ttl_s: float | None = None,
        retry: bool = False,
        wait_s: float = WAIT_S,
        hold_s: float = HOLD_S,
    ) -> Any:
        """Runs a tool, an ``async def`` function, once for the same arguments, for all agents.

        As `Store.cached_tool`. A plain function can be wrapped, too; it runs in a worker, and
        what comes of it is awaited.
        """

        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            id_of = tool_id(self._sync._core, self._sync._scope, function, name)

            @functools.wraps(function)
            async def cached_function(*args: Any, **kwargs: Any) -> Any:
                call = functools.partial(function, *args, **kwargs)
                return await self.once(
                    id_of(*args, **kwargs),
                    call,
                    ttl_s=ttl_s,
                    retry=retry,
                    wait_s=wait_s,
                    hold_s=hold_s,
                )

            return cached_function

        return wrap if function is None else wrap(function)

    # Parts and tools.

    @documented(Store.scoped)
    def scoped(
        self,
        namespace: object = None,
        *,
        agent: str | None = None,
        access: str | Mapping[str, str] = "write",
    ) -> AsyncStore:
        return AsyncStore(self._runner, self._sync.scoped(namespace, agent=agent, access=access))

    @documented(Store.with_embedder)
    async def with_embedder(self, embedder: object) -> AsyncStore:
        # Awaited: an embedder may have to be loaded.
        found = await self._runner.call(self._sync.with_embedder, embedder)
        return AsyncStore(self._runner, found)

    @property
    def audit(self) -> AsyncAudit:
        """Who changed what: differences, conflicts, tags."""
        return AsyncAudit(self._runner, self._sync.audit)

    @property
    def admin(self) -> AsyncAdmin:
        """Statistics, verification, backups, exports; of the whole store only."""
        return AsyncAdmin(self._runner, self._sync.admin)

    async def close(self) -> None:
        """Closes the store and all views of it, and ends its threads. May be called again.

        What was cancelled and still goes on is given a few seconds to end before.
        """
        await self._runner.close(self._sync.close)

    async def __aenter__(self) -> AsyncStore:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
