"""Key-value stores of LangChain: bytes, and JSON."""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from langchain_core.stores import BaseStore

from agentmem import InvalidValueError, LimitExceededError, Limits, Transaction
from agentmem.namespaces import parse_namespace
from langchain_agentmem.messages import plain
from langchain_agentmem.opening import HoldsStore, Target
from langchain_agentmem.runs import current_run

__all__ = ["AgentMemByteStore", "AgentMemKVStore"]

V = TypeVar("V")

_PAGE: Final = 100  # entries that are read at once to list their keys; they come with their values


class _KeyedStore(HoldsStore, BaseStore[str, V], ABC, Generic[V]):
    """Keys and values of one namespace; what kind of values, its class says."""

    def __init__(
        self,
        target: Target,
        *,
        namespace: object,
        agent: str | None = None,
        ttl_s: float | None = None,
        searchable: bool = False,
    ) -> None:
        super().__init__()
        self._labels = parse_namespace(namespace, Limits())
        self._hold(target)
        self._agent = agent
        self._ttl_s = ttl_s
        # None is the strings in a value.
        self._text = None if searchable else False

    @abstractmethod
    def _encoded(self, key: str, value: V) -> Any:
        """A value as JSON."""

    @abstractmethod
    def _decoded(self, key: str, value: Any) -> V:
        """A value out of JSON."""

    def mget(self, keys: Sequence[str]) -> list[V | None]:
        """The values of keys at one moment, in their order; None for a key that is absent."""
        found = self.store.get_many(keys, namespace=self._labels)
        return [self._decoded(key, found[key].value) if key in found else None for key in keys]

    def mset(self, key_value_pairs: Sequence[tuple[str, V]]) -> None:
        """Sets values in one commit, whatever was there; of one key's values the last.

        Raises:
            InvalidValueError: a value is not allowed; nothing was written.
            LimitExceededError: a value is too large, or there are more keys than one transaction
                may write; nothing was written.
        """
        values = {key: self._encoded(key, value) for key, value in key_value_pairs}

        def put_all(tx: Transaction) -> None:
            for key, value in values.items():
                self._put(tx, key, value)

        self._transact(put_all)

    def _put(self, tx: Transaction, key: str, value: Any) -> None:
        try:
            tx.put(
                key, value, namespace=self._labels, overwrite=True, text=self._text,
                ttl_s=self._ttl_s,
            )  # fmt: skip
        except LimitExceededError as error:
            raise LimitExceededError(
                f"{self._spelled(key)}: {error}",
                path=error.path,
                limit=error.limit,
                actual=error.actual,
            ) from error

    def mdelete(self, keys: Sequence[str]) -> None:
        """Deletes keys in one commit; absent ones are passed over."""

        def delete_all(tx: Transaction) -> None:
            for key in keys:
                tx.delete(key, namespace=self._labels, overwrite=True)

        self._transact(delete_all)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys, in order, as of the moment of the first; read page by page.

        Args:
            prefix: only keys that begin with it.
        """
        view = self.store.snapshot()
        after = None
        while True:
            page = view.list(self._labels, key_prefix=prefix, limit=_PAGE, after=after)
            # Namespaces below are others' to look into.
            yield from (entry.key for entry in page if entry.namespace == self._labels)
            if len(page) < _PAGE:
                return
            after = page[-1]

    def _transact(self, change: Any) -> None:
        self.store.transact(change, agent=self._agent, metadata=current_run().metadata())

    def _spelled(self, key: str) -> str:
        return f"key {'/'.join((*self._labels, key))!r}"


class AgentMemByteStore(_KeyedStore[bytes]):
    """A ``BaseStore`` of bytes, as `CacheBackedEmbeddings` and others take one.

    Bytes are kept as base64 text, a third longer than they are: with the default limits a value
    has at most about 3 MiB.
    """

    def __init__(
        self,
        target: Target,
        *,
        namespace: object = ("bytes",),
        agent: str | None = None,
        ttl_s: float | None = None,
    ) -> None:
        """A store of bytes.

        Args:
            target: an open store, or what `agentmem.open` takes; see `close`.
            namespace: of the keys; another one is another store.
            agent: who writes, for the log; None: the agent of the store.
            ttl_s: seconds after which what was set is absent; None: never.
        """
        super().__init__(target, namespace=namespace, agent=agent, ttl_s=ttl_s)

    def _encoded(self, key: str, value: bytes) -> str:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise InvalidValueError(
                f"{self._spelled(key)}: a value is bytes, not {type(value).__name__}; "
                "AgentMemKVStore takes JSON",
                path="$",
            )
        return base64.b64encode(value).decode("ascii")

    def _decoded(self, key: str, value: Any) -> bytes:
        try:
            if isinstance(value, str):
                return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
        raise InvalidValueError(
            f"{self._spelled(key)}: the value is no base64 text; somebody else wrote there",
            path="$",
        )


class AgentMemKVStore(_KeyedStore[Any]):
    """A ``BaseStore`` of JSON.

    What is read is what JSON gives back: tuples are lists, pydantic models are objects. A value
    None is kept, and cannot be told from an absent key by ``mget``.
    """

    def __init__(
        self,
        target: Target,
        *,
        namespace: object = ("kv",),
        agent: str | None = None,
        ttl_s: float | None = None,
        searchable: bool = False,
    ) -> None:
        """A store of JSON.

        Args:
            target: an open store, or what `agentmem.open` takes; see `close`.
            namespace: of the keys; another one is another store.
            agent: who writes, for the log; None: the agent of the store.
            ttl_s: seconds after which what was set is absent; None: never.
            searchable: whether ``store.search`` finds the strings in the values.
        """
        super().__init__(
            target, namespace=namespace, agent=agent, ttl_s=ttl_s, searchable=searchable
        )

    def _encoded(self, key: str, value: Any) -> Any:
        return plain(value, f"the value of {self._spelled(key)}")

    def _decoded(self, key: str, value: Any) -> Any:
        return value
