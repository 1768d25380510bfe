"""Leases, queues and tasks, awaited. Who waits for one holds no worker."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from agentmem.aio.delegating import Delegate, awaited, documented, driven
from agentmem.aio.runner import Runner
from agentmem.coordination.leases import Lease
from agentmem.coordination.queues import Queue, TransactionQueue
from agentmem.coordination.tasks import Task
from agentmem.errors import AgentMemError

if TYPE_CHECKING:
    from agentmem.aio.transaction import AsyncTransaction
    from agentmem.transaction import Transaction

__all__ = ["AsyncLease", "AsyncQueue", "AsyncTask", "AsyncTransactionQueue"]


class AsyncLease(Delegate):
    """The right to do something alone for a while; see `Lease`.

    ::

        async with store.lease("plan", ttl_s=30, wait_s=5) as lease:
            async with store.transaction() as tx:
                await tx.guard(lease)
                await tx.put("plan", ...)

    Who is cancelled while it waits leaves the line.
    """

    __slots__ = ()
    __module__ = "agentmem"
    _sync: Lease

    renew = awaited(Lease.renew)

    @property
    def name(self) -> str:
        """What it is called."""
        return self._sync.name

    @property
    def token(self) -> int:
        """The fencing token of the grant.

        Raises:
            LeaseError: it was not acquired, or was released.
        """
        return self._sync.token

    @property
    def lost(self) -> AgentMemError | None:
        """Why the automatic renewal has ended by itself; None while it goes on, or without."""
        return self._sync.lost

    @documented(Lease.acquire)
    async def acquire(self) -> AsyncLease:
        await self._runner.drive(self._sync.acquiring(), lambda _none: self._sync.release())
        return self

    @documented(Lease.release)
    async def release(self) -> bool:
        return await self._runner.surely(self._sync.release)

    @documented(Lease.guard)
    async def guard(self, tx: AsyncTransaction) -> None:
        await self._runner.call(self._sync.guard, tx._sync)

    async def __aenter__(self) -> AsyncLease:
        return self if self._sync.held else await self.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.surely(self._sync.__exit__, kind, error, traceback)


class AsyncTask(Delegate):
    """A task that was claimed: to be acknowledged in time, or given back; see `Task`.

    Attributes:
        id, payload, priority, group: of the task.
        attempts: how often it was claimed, this claim included.
        max_attempts: after how many it is dead.
        token: of this claim; larger than those of all claims before.
        queue: the name of its queue.
    """

    __slots__ = (
        "attempts", "group", "id", "max_attempts", "payload", "priority", "queue", "token",
    )  # fmt: skip
    __module__ = "agentmem"
    _sync: Task

    extend = awaited(Task.extend)

    def __init__(self, runner: Runner, sync: Task) -> None:
        super().__init__(runner, sync)
        self.id: int = sync.id
        self.payload: Any = sync.payload
        self.priority: int = sync.priority
        self.group: str | None = sync.group
        self.attempts: int = sync.attempts
        self.max_attempts: int = sync.max_attempts
        self.token: int = sync.token
        self.queue: str = sync.queue

    @documented(Task.ack)
    async def ack(self, tx: AsyncTransaction | None = None) -> None:
        await self._runner.call(self._sync.ack, _plain(tx))

    @documented(Task.nack)
    async def nack(
        self, delay_s: float = 0, *, note: str | None = None, tx: AsyncTransaction | None = None
    ) -> None:
        await self._runner.call(self._sync.nack, delay_s, note=note, tx=_plain(tx))


def _give_back(task: Task | None) -> None:
    if task is not None:
        task.nack(note="its claim was cancelled")


class AsyncQueue(Delegate):
    """Tasks in order, of one view of the store; see `Queue`.

    ::

        queue = store.queue("tasks")
        await queue.put({"city": "Rome"}, op_id="plan-7:rome")
        while (task := await queue.claim("worker-1", wait_s=60)) is not None:
            async with store.transaction() as tx:
                await tx.put(task.payload["city"], await research(task.payload))
                await task.ack(tx)

    A claim that is cancelled just as it gets a task gives it back; the attempt counts.
    """

    __slots__ = ()
    __module__ = "agentmem"
    _sync: Queue

    put = awaited(Queue.put)
    peek = awaited(Queue.peek)
    dead = awaited(Queue.dead)
    put_again = awaited(Queue.put_again)
    discard = awaited(Queue.discard)
    _claim = driven(Queue.claiming, Queue.claim, _give_back)

    @property
    def name(self) -> str:
        """What it is called."""
        return self._sync.name

    @documented(Queue.claim)
    async def claim(
        self,
        agent: str | None = None,
        *,
        visibility_s: float = 60,
        wait_s: float = 0,
        op_id: str | None = None,
    ) -> AsyncTask | None:
        task = await self._claim(agent, visibility_s=visibility_s, wait_s=wait_s, op_id=op_id)
        return None if task is None else AsyncTask(self._runner, task)

    @documented(Queue.task)
    async def task(self, id: int, token: int) -> AsyncTask:
        return AsyncTask(self._runner, await self._runner.call(self._sync.task, id, token))

    async def count(self) -> int:
        """How many tasks there are: what ``len(queue)`` is where nothing is awaited."""
        return await self._runner.call(len, self._sync)


class AsyncTransactionQueue(Delegate):
    """A queue inside a transaction: what is put is there when it commits. See `Queue`."""

    __slots__ = ()
    __module__ = "agentmem"
    _sync: TransactionQueue

    put = awaited(TransactionQueue.put)


def _plain(tx: AsyncTransaction | None) -> Transaction | None:
    return None if tx is None else tx._sync
