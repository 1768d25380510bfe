"""The limits of a store, all in one place."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store accepts. Every limit can be changed at ``agentmem.open(limits=...)``.

    A limit belongs to the process that opened the store, not to the file: it guards what this
    process writes, and never hides what another has written.

    Attributes:
        max_key_bytes: length of a key, and of a label of a namespace, in UTF-8 bytes.
        max_namespace_depth: labels in a namespace.
        max_value_bytes: length of a value as canonical JSON text, and of a text, in UTF-8 bytes.
        max_json_depth: nesting of lists and objects inside a value.
        max_writes: keys that one transaction writes.
        max_metadata_bytes: length of a commit's metadata as JSON text, and of its note,
            agent and op_id, in UTF-8 bytes.
        max_k: results of one search.
        max_merge_bytes: text that a built-in strategy merges under the store's lock; a larger
            merge runs outside of it.
        max_merge_rounds: how often one commit is merged again because the key moved meanwhile.
        lock_timeout_ms: how long a write waits for the store's lock before `StoreBusyError`.
    """

    max_key_bytes: int = 1_024
    max_namespace_depth: int = 16
    max_value_bytes: int = 4 * 1024 * 1024
    max_json_depth: int = 64
    max_writes: int = 10_000
    max_metadata_bytes: int = 64 * 1024
    max_k: int = 1_000
    max_merge_bytes: int = 64 * 1024
    max_merge_rounds: int = 16
    lock_timeout_ms: int = 30_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            limit = getattr(self, name)
            if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
                raise ValueError(f"{name} must be a positive integer, not {limit!r}")
