"""What talks to Chroma: filling a folder, and asking it. Imported only where it is used.

Ids and vectors only: whatever else Chroma is given it keeps in tables of its own, even after it
was deleted. Never its default embedding function, which downloads a model; no telemetry; and
never ``where=`` or ``ids=``, which cost 40 to 340 ms where a search costs one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from agentmem.errors import AgentMemError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentmem.search.vectors import Vector

__all__ = ["Reader", "fill", "has_failed", "is_installed", "require"]

_COLLECTION: Final = "rows"
_BATCH: Final = 5_000
_CONFIGURATION: Final = {"hnsw": {"space": "cosine"}}


def is_installed() -> bool:
    """Whether Chroma can be imported."""
    return importlib.util.find_spec("chromadb") is not None


def require() -> None:
    """Raises `MissingExtraError` if Chroma is not installed."""
    if not is_installed():
        raise MissingExtraError(
            "an index by Chroma needs chromadb; install it with: "
            "pip install 'agentmem-store[chroma]', or open the store with index=\"exact\"",
            extra="chroma",
        )


def has_failed(error: BaseException) -> bool:
    """Whether an error is what Chroma, or the disk, makes of files that are not as they were.

    A panic of its Rust code is no `Exception`.
    """
    if isinstance(error, Exception):
        return not isinstance(error, AgentMemError)
    return type(error).__name__ == "PanicException"


def _client(folder: str) -> Any:
    require()
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))


def fill(folder: str, gone: Sequence[int], added: Iterable[tuple[NDArray[np.int64], Any]]) -> int:
    """Deletes and adds rows in a folder that nobody else has open; returns how many it has then.

    Args:
        gone: ids of rows.
        added: ids, and directions of shape (n, dimension).
    """
    client = _client(folder)
    try:
        rows = client.get_or_create_collection(
            _COLLECTION, embedding_function=None, configuration=_CONFIGURATION
        )
        batch = min(_BATCH, client.get_max_batch_size())
        for start in range(0, len(gone), batch):
            rows.delete(ids=[str(each) for each in gone[start : start + batch]])
        for ids, vectors in added:
            for start in range(0, len(ids), batch):
                rows.add(
                    ids=[str(each) for each in ids[start : start + batch].tolist()],
                    embeddings=vectors[start : start + batch],
                )
        return int(rows.count())
    finally:
        client.close()


class Reader:
    """A folder that this process alone has open."""

    def __init__(self, folder: str) -> None:
        self._client = _client(folder)
        self._rows = self._client.get_collection(_COLLECTION, embedding_function=None)
        # Chroma loads its files when it is first asked: now, as they have just been verified.
        if self.count:
            one = self._rows.peek(1)["embeddings"]
            self.nearest(np.asarray(one[0], dtype=np.float32), 1)

    @property
    def count(self) -> int:
        """How many rows it has."""
        return int(self._rows.count())

    def nearest(self, vector: Vector, k: int) -> tuple[list[int], list[float]]:
        """Ids and cosine distances, nearest first."""
        if k < 1:
            return [], []
        found = self._rows.query(
            query_embeddings=vector.reshape(1, -1), n_results=k, include=["distances"]
        )
        return [int(each) for each in found["ids"][0]], found["distances"][0]

    def close(self) -> None:
        """Lets go of the folder."""
        self._client.close()
