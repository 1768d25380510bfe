"""The first argument of every class here: an open store, or the target of one to open."""

from __future__ import annotations

from os import PathLike
from types import TracebackType
from typing import Any, Self

import agentmem
from agentmem import Store

__all__ = ["HoldsStore", "Target"]

Target = Store | str | PathLike[str]


class HoldsStore:
    """A store that is used, and closed at the end if it was opened here.

    A store that the caller has opened stays the caller's to close.
    """

    store: Store
    _opened_here: bool

    def _hold(self, target: Target, **options: Any) -> None:
        """Takes an open store as it is, or opens a target with options of `agentmem.open`."""
        self._opened_here = not isinstance(target, Store)
        self.store = target if isinstance(target, Store) else agentmem.open(target, **options)

    def close(self) -> None:
        """Closes the store if it was opened here. May be called again."""
        if self._opened_here:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
