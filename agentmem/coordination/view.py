"""The calls of a store by which agents keep out of each other's way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from agentmem import writes
from agentmem.coordination import feed, leases
from agentmem.coordination.feed import ConsumerState, Feed
from agentmem.coordination.leases import Lease, LeaseState
from agentmem.coordination.once import HOLD_S, WAIT_S, cached, once
from agentmem.coordination.queue_states import QueueState, queues_of
from agentmem.coordination.queues import MAX_ATTEMPTS, Queue, queue_of
from agentmem.course import drive, refuse_async
from agentmem.scope import Scope

if TYPE_CHECKING:
    from agentmem.core import Core

__all__ = ["CoordinatingView"]

P = ParamSpec("P")
R = TypeVar("R")


class CoordinatingView:
    """Leases, queues, once and the feed. None of it takes a revision."""

    __slots__ = ()
    _core: Core
    _scope: Scope

    def lease(
        self,
        name: str,
        *,
        ttl_s: float = 30,
        wait_s: float = 0,
        auto_renew: bool = False,
        agent: str | None = None,
    ) -> Lease:
        """The right to do something alone, for a time; had when the `Lease` is entered.

        Args:
            name: of the lease; it belongs to this view of the store.
            ttl_s: seconds until it expires, from when it is granted or renewed.
            wait_s: how long to wait for it. Who waits gets it in the order of asking.
            auto_renew: renew it in the background for as long as it is held.
            agent: who holds it, for people.
        """
        return leases.lease_of(
            self._core,
            self._scope,
            name,
            ttl_us=writes.ttl_microseconds(ttl_s),
            wait_s=wait_s,
            auto_renew=auto_renew,
            agent=agent,
        )

    def leases(self) -> list[LeaseState]:
        """The leases that are granted, expired ones included; of the store itself those of all."""
        return leases.leases_of(self._core, self._scope)

    def break_lease(self, name: str, *, key: bool = False, namespace: object = None) -> int | None:
        """Ends a lease, whoever holds it: what its holder guards with it is not committed any more.

        Args:
            name: of a lease of this view.
            key: the name is that of a key, in `namespace`, whose lease ``transact(lock=...)`` took.

        Returns: the token that it was held by; None if it was not held.
        """
        if key:
            place = self._scope.place(namespace, name)
            return leases.break_key_lease(self._core, self._scope, place)
        return leases.break_lease(self._core, self._scope, name)

    def queue(self, name: str, *, max_attempts: int = MAX_ATTEMPTS) -> Queue:
        """A queue of tasks; it is there with its first task.

        Args:
            name: of the queue; it belongs to this view of the store.
            max_attempts: of the tasks put by this object: claimed so often without being
                acknowledged, a task is dead.
        """
        return queue_of(self._core, self._scope, name, max_attempts)

    def queues(self) -> list[QueueState]:
        """The queues that hold tasks, dead ones included; of the store itself those of all."""
        return queues_of(self._core, self._scope)

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
    ) -> Feed:
        """The commits that this view sees, in order, those to come included: a `Feed` of `Event`s.

        ::

            for event in store.watch("team"):
                print(event.revision, [change.key for change in event.changes])

        Args:
            namespace: only commits that changed a key in it or below. Without one, a store has
                all commits, and a scoped view those that changed a key that it may read.
            since: begin after this revision; 0 is the beginning, None is now.
            consumer: a name in this view, whose cursor the store keeps: who reads as it goes on
                after the last event that was acknowledged (`Feed.ack`, `Transaction.ack`), in
                whatever process; `since` is where a new one begins. One at a time reads as it.
            timeout_s: end the iteration when nothing came for so long; 0: with what is there.
            wait_s: how long to wait for another who reads as the consumer.
            hold_s: who reads as it and gives no sign of life for so long is replaced. Signs are
                given by a thread, three in that time.
            agent: who reads as the consumer, for people.

        Raises:
            FutureRevisionError: the store has no such revision yet.
            CompactedError: what comes after the revision, or the cursor, was compacted; its
                ``floor`` can be given as `since`.
            HistoryReplacedError: the store's history is not the one that the cursor is of;
                `forget_consumer`, then begin anew.
            LeaseError: another reads as the consumer after `wait_s`.
        """
        return drive(
            feed.watch(
                self._core,
                self._scope,
                namespace,
                since,
                consumer,
                timeout_s=timeout_s,
                wait_s=wait_s,
                hold_s=hold_s,
                agent=agent,
            )
        )

    def consumers(self) -> list[ConsumerState]:
        """The durable consumers of the feed, by name; of the store itself those of all."""
        return feed.consumers_of(self._core, self._scope)

    def break_consumer(self, name: str) -> int | None:
        """Lets another read as a consumer at once: who reads as it acknowledges nothing any more.

        Returns: the token of who read as it; None: nobody did.
        """
        return feed.break_consumer(self._core, self._scope, name)

    def forget_consumer(self, name: str) -> bool:
        """Forgets a consumer with its cursor, and breaks it; the next of that name is a new one.

        Returns: whether there was one.
        """
        return feed.forget_consumer(self._core, self._scope, name)

    def once(
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
        """Runs a function once for an id, in whatever process, and keeps its result.

        Who asks while it runs waits for the result. If it raises, nothing is kept, and the next
        to ask runs it. A process that dies while it runs leaves an outcome that nobody knows.

        Args:
            id: of what is done; it belongs to this view of the store.
            fn: takes nothing, and returns JSON. It is for effects outside of the store; what
                changes the store alone needs only an op_id.
            ttl_s: how long the result is kept; None is for ever.
            retry: if who ran it died, run it again; the effect may then happen twice.
            wait_s: how long to wait for another that runs it.
            hold_s: who runs it and gives no sign of life for so long counts as dead. Signs are
                given by a thread, three in that time.
            agent: who asks.

        Returns: the result, as JSON gives it back.

        Raises:
            OutcomeUnknownError: who ran it died, and its effect may have happened.
            FencedError: this call ran it, but was silent for too long, and another has run it
                since.
            LeaseError: it still runs after `wait_s`.
        """
        refuse_async(fn, "once")
        return drive(
            once(
                self._core,
                self._scope,
                id,
                fn,
                ttl_s=ttl_s,
                retry=retry,
                wait_s=wait_s,
                hold_s=hold_s,
                agent=agent,
            )
        )

    @overload
    def cached_tool(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def cached_tool(
        self,
        *,
        name: str | None = None,
        ttl_s: float | None = None,
        retry: bool = False,
        wait_s: float = WAIT_S,
        hold_s: float = HOLD_S,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

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
        """Runs a tool once for the same arguments, for all agents; see `once`.

        ::

            @store.cached_tool(ttl_s=3_600)
            def search_web(query: str) -> list[str]: ...

        Args:
            name: of the tool, with its arguments the id of `once`; the function's own name with
                that of its module if it is not given.
        """

        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            return cached(
                self._core,
                self._scope,
                function,
                name=name,
                ttl_s=ttl_s,
                retry=retry,
                wait_s=wait_s,
                hold_s=hold_s,
                agent=None,
            )

        return wrap if function is None else wrap(function)
