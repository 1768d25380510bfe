"""Transactions, awaited: one snapshot to read, writes buffered, all or nothing at the end."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from agentmem.aio.coordination import AsyncLease, AsyncTransactionQueue
from agentmem.aio.delegating import awaited, documented, made
from agentmem.aio.views import AsyncView
from agentmem.transaction import Transaction

if TYPE_CHECKING:
    from agentmem.coordination.leases import Lease
    from agentmem.model import Commit

__all__ = ["AsyncTransaction"]


class AsyncTransaction(AsyncView):
    """A transaction of an async store; see `Transaction`, whose promises it keeps.

    ::

        async with store.transaction(agent="planner", op_id="thread-9:msg-4") as tx:
            seats = await tx.value("seats")
            await tx.put("seats", seats - 1)

    It commits at the end of the block; an exception inside, a cancellation too, writes nothing.
    Several tasks may use it at once. Writing is awaited, too, because it may have to look into the
    store: there is no ``tx[key] = value``.

    Guarantees:
        A cancelled commit was made or was not; whoever repeats it with its op_id is told the
        first commit, or makes it.
    """

    __slots__ = ()
    __module__ = "agentmem"
    _sync: Transaction

    put = awaited(Transaction.put)
    put_many = awaited(Transaction.put_many)
    add = awaited(Transaction.add)
    delete = awaited(Transaction.delete)
    clear = awaited(Transaction.clear)
    increment = awaited(Transaction.increment)
    append = awaited(Transaction.append)
    add_to_set = awaited(Transaction.add_to_set)
    patch = awaited(Transaction.patch)
    touch = awaited(Transaction.touch)
    knows = awaited(Transaction.knows)
    commit = awaited(Transaction.commit)
    stale = awaited(Transaction.stale)
    rebase = awaited(Transaction.rebase)
    ack = awaited(Transaction.ack)
    cite = awaited(Transaction.cite)
    queue = made(Transaction.queue, AsyncTransactionQueue)

    @property
    def revision(self) -> int:
        """The revision that is read."""
        return self._sync.revision

    @property
    def applied(self) -> Commit | None:
        """The first `Commit` if the op_id is known, so that a block can skip its work."""
        return self._sync.applied

    @property
    def agent(self) -> str | None:
        """Who writes."""
        return self._sync.agent

    @documented(Transaction.guard)
    async def guard(self, lease: AsyncLease | Lease) -> None:
        plain = lease._sync if isinstance(lease, AsyncLease) else lease
        await self._runner.call(self._sync.guard, plain)

    @documented(Transaction.rollback)
    async def rollback(self) -> None:
        await self._runner.surely(self._sync.rollback)

    async def __aenter__(self) -> AsyncTransaction:
        self._sync.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._sync.is_live:
            return
        if kind is not None:
            await self.rollback()
            return
        try:
            await self.commit()
        except asyncio.CancelledError:
            # Not awaited: a commit that has begun holds it until it has ended.
            self._runner.later(self._sync.rollback)
            raise
        except BaseException:
            await self.rollback()
            raise
