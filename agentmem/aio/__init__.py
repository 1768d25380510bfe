"""The async API: ``await agentmem.aopen(...)``. Only asyncio's event loops; not trio's.

There is one implementation of everything, that of the plain classes. What cannot block runs in
a few worker threads (`agentmem.aio.workers`); what waits, or calls the user, is written as a course
(`agentmem.course`), which an event loop drives as well as a thread does (`agentmem.aio.runner`).
"""

from agentmem.aio.collection import AsyncCollection
from agentmem.aio.coordination import AsyncLease, AsyncQueue, AsyncTask, AsyncTransactionQueue
from agentmem.aio.feed import AsyncFeed
from agentmem.aio.history import AsyncAdmin, AsyncAudit
from agentmem.aio.opening import aopen
from agentmem.aio.store import AsyncStore
from agentmem.aio.transaction import AsyncTransaction
from agentmem.aio.views import AsyncSnapshot

__all__ = [
    "AsyncAdmin",
    "AsyncAudit",
    "AsyncCollection",
    "AsyncFeed",
    "AsyncLease",
    "AsyncQueue",
    "AsyncSnapshot",
    "AsyncStore",
    "AsyncTask",
    "AsyncTransaction",
    "AsyncTransactionQueue",
    "aopen",
]
