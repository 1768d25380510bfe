"""An embedding that tells what it was asked for."""

from __future__ import annotations

from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

__all__ = ["Counted"]


class Counted(Embeddings):
    """Random directions, the same for the same text; counts what it embeds."""

    def __init__(self, size: int = 6, identity: str = "counted") -> None:
        self.identity = identity
        self.texts: list[str] = []
        self._fake = DeterministicFakeEmbedding(size=size)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return self._fake.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._fake.embed_query(text)
