"""The entries of a namespace as instances of a pydantic model, awaited."""

from __future__ import annotations

from builtins import list as List  # noqa: N812  # the method list() hides the type in the class
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentmem.aio.delegating import Delegate, documented
from agentmem.aio.runner import Runner
from agentmem.collection import Collection
from agentmem.model import MISSING, Entry
from agentmem.namespaces import Labels

if TYPE_CHECKING:
    from agentmem.aio.views import AsyncView

__all__ = ["AsyncCollection"]

M = TypeVar("M")
D = TypeVar("D")


class AsyncCollection(Delegate, Generic[M]):
    """Typed entries: checked against a pydantic model when written and read; see `Collection`."""

    __module__ = "agentmem"
    _sync: Collection[M]

    def __init__(self, runner: Runner, sync: Collection[M]) -> None:
        super().__init__(runner, sync)

    @property
    def namespace(self) -> Labels:
        """The namespace of the entries; only keys directly in it belong to the collection."""
        return self._sync.namespace

    @documented(Collection.on)
    def on(self, view: AsyncView) -> AsyncCollection[M]:
        return AsyncCollection(self._runner, self._sync.on(view._sync))

    @documented(Collection.get)
    async def get(
        self, key: str, *, default: D | None = None, track: bool = True
    ) -> Entry[M] | D | None:
        return await self._runner.call(self._sync.get, key, default=default, track=track)

    async def value(self, key: str) -> M:
        """The model of a key: what ``collection[key]`` is where nothing is awaited.

        Raises:
            KeyMissingError: the key is absent.
        """
        return await self._runner.call(self._sync.__getitem__, key)

    async def has(self, key: str) -> bool:
        """Whether a key is there: what ``key in collection`` is where nothing is awaited."""
        return await self._runner.call(self._sync.__contains__, key)

    @documented(Collection.list)
    async def list(
        self,
        *,
        key_prefix: str | None = None,
        where: object = None,
        limit: int | None = None,
        after: object = None,
    ) -> List[Entry[M]]:
        return await self._runner.call(
            self._sync.list, key_prefix=key_prefix, where=where, limit=limit, after=after
        )

    @documented(Collection.put)
    async def put(self, key: str, value: M, **options: Any) -> Any:
        return await self._runner.call(self._sync.put, key, value, **options)

    @documented(Collection.add)
    async def add(self, value: M, **options: Any) -> Any:
        return await self._runner.call(self._sync.add, value, **options)

    @documented(Collection.delete)
    async def delete(self, key: str, **options: Any) -> Any:
        return await self._runner.call(self._sync.delete, key, **options)

    @documented(Collection.update)
    async def update(
        self,
        key: str,
        fn: Callable[[M], Awaitable[Any]] | Callable[[M], Any],
        *,
        default: object = MISSING,
        **options: Any,
    ) -> Entry[M] | None:
        course = self._sync.updating(key, fn, default=default, **options)
        return await self._runner.drive(course)
