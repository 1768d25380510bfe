"""The hash chain: what makes changed or replaced history noticeable.

Each entry has a random salt, so that its digest tells nothing of a value that was purged; each
commit holds the digests of its entries, and a hash over the hash of the commit before::

    digest(entry)  = blake2b-256(salt, identity, value, text)
    hash(revision) = blake2b-256(hash(revision - 1), fields of the commit, digests)

Identity and fields are JSON lists that include the lengths of what follows them, so that no two
inputs share an encoding. The fields of a commit say how many rows it has beside the log (what it
had read, its result), so a missing one is noticed. Not covered: ``expires_at``, which `touch`
moves, and the results of operations, which retention may drop.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import orjson

from agentmem.engines.rows import (
    NewEntry,
)

__all__ = ["DIGEST_BYTES", "commit_hash", "digest_of", "entry_digest", "fields_of"]

DIGEST_BYTES: Final = 32


def entry_digest(
    salt: bytes,
    identity: tuple[str, str, int, int, int, int | None, str | None, int | None, int],
    value: str | None,
    text: str | None,
) -> bytes:
    """The digest of an entry.

    Args:
        salt: 16 random bytes.
        identity: namespace, key, revision, version, operation, base_version, merged, ttl_us,
            created_at.
        value: JSON text, None for a tombstone.
        text: as stored.
    """
    value_bytes = b"" if value is None else value.encode()
    text_bytes = b"" if text is None else text.encode()
    lengths = (
        None if value is None else len(value_bytes),
        None if text is None else len(text_bytes),
    )
    head = orjson.dumps((*identity, *lengths))
    return blake2b(salt + head + value_bytes + text_bytes, digest_size=DIGEST_BYTES).digest()


def digest_of(entry: NewEntry) -> bytes:
    """The digest that a stored entry should have."""
    identity = (
        entry.namespace,
        entry.key,
        entry.revision,
        entry.version,
        entry.operation,
        entry.base_version,
        entry.merged,
        entry.ttl_us,
        entry.created_at,
    )
    return entry_digest(entry.salt or b"", identity, entry.value, entry.text)


def fields_of(commit: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the hash of a commit covers beside its digests.

    Args:
        commit: the columns of ``commits``, in order; others may follow.

    Returns:
        The columns up to ``accepted``, with ``attempt`` in hexadecimal; then ``beside``, unless it
        is None, as it is in all commits from before there was such a column.
    """
    beside = commit[14]
    fields = (*commit[:8], commit[8].hex(), *commit[9:12])
    return fields if beside is None else (*fields, beside)


def commit_hash(previous: bytes, fields: tuple[Any, ...], digests: bytes) -> bytes:
    """The hash of a commit.

    Args:
        previous: hash of the revision before, empty for revision 1.
        fields: see `fields_of`.
        digests: those of its entries, joined.
    """
    body = orjson.dumps((len(previous), len(digests), *fields))
    return blake2b(body + previous + digests, digest_size=DIGEST_BYTES).digest()
