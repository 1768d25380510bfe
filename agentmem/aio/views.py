"""Reading, awaited: the same calls on async stores, snapshots and transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from agentmem.aio.collection import AsyncCollection
from agentmem.aio.delegating import Delegate, awaited
from agentmem.snapshot import Snapshot
from agentmem.views import View

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["AsyncSnapshot", "AsyncView"]

M = TypeVar("M")


class AsyncView(Delegate):
    """What can be read, and how; see `View`."""

    __slots__ = ()
    _sync: View

    get = awaited(View.get)
    get_many = awaited(View.get_many)
    list = awaited(View.list)
    count = awaited(View.count)
    namespaces = awaited(View.namespaces)
    search = awaited(View.search)

    async def value(self, key: str) -> Any:
        """The value of a key in the view's root: what ``view[key]`` is where nothing is awaited.

        Raises:
            KeyMissingError: the key is absent.
        """
        return await self._runner.call(self._sync.__getitem__, key)

    async def has(self, key: str) -> bool:
        """Whether a key is there: what ``key in view`` is where nothing is awaited."""
        return await self._runner.call(self._sync.__contains__, key)

    def collection(self, model: type[M], namespace: object) -> AsyncCollection[M]:
        """The entries of a namespace as instances of a pydantic model; see `Collection`."""
        return AsyncCollection(self._runner, self._sync.collection(model, namespace))

    if not TYPE_CHECKING:  # type checkers say by themselves that there is no item access
        __iter__ = None

        def __getitem__(self, key: str) -> NoReturn:
            raise TypeError("reading is awaited: await view.value(key), or await view.get(key)")

        def __setitem__(self, key: str, value: object) -> NoReturn:
            raise TypeError("writing is awaited: await tx.put(key, value)")

        def __contains__(self, key: object) -> NoReturn:
            raise TypeError("reading is awaited: await view.has(key)")


class AsyncSnapshot(AsyncView):
    """The store as it was at one revision and one instant; see `Snapshot`."""

    __slots__ = ()
    __module__ = "agentmem"
    _sync: Snapshot

    @property
    def revision(self) -> int:
        """The revision that is read."""
        return self._sync.revision

    @property
    def instant(self) -> datetime:
        """What decides which entries have expired."""
        return self._sync.instant

    async def __aenter__(self) -> AsyncSnapshot:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        return None
