"""The numbered SQL migrations of agentmem, one folder an engine.

A file is never changed after a release: a store keeps the checksum of each that it applied.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

__all__ = ["Migration", "migrations_for"]


@dataclass(frozen=True, slots=True)
class Migration:
    """One file.

    Attributes:
        name: the file's name without its ending, as ``0001_create_log``.
        sql: its statements.
        checksum: blake2b-128 of the statements, in hexadecimal.
    """

    name: str
    sql: str
    checksum: str


def migrations_for(engine: str) -> list[Migration]:
    """The migrations of an engine (``sqlite``, ``postgres``), in order of their numbers."""
    folder = resources.files(__package__) / engine
    files = sorted(
        (each for each in folder.iterdir() if each.name.endswith(".sql")),
        key=lambda each: each.name,
    )
    return [_read(each.name, each.read_text("utf-8")) for each in files]


def _read(file_name: str, sql: str) -> Migration:
    checksum = hashlib.blake2b(sql.encode(), digest_size=16).hexdigest()
    return Migration(file_name.removesuffix(".sql"), sql, checksum)
