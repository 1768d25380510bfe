"""Stores that a forked child inherits and opens anew.

SQLite keeps one record of locks for each file and process, and a fork copies it: the child's new
connection finds the parent's there, takes the file for locked by itself, and never locks it. Then
the parent, closing the store as the last who has it open, would delete the write-ahead log under
the child. So before a child uses such a file, it locks it by descriptors of its own, with
open-file-description locks, on the bytes that SQLite uses (https://sqlite.org/src, os_unix.c):

* the shared range of the database, which keeps others from thinking that they are the last;
* the dead man's switch of the shared memory, which keeps them from making it anew.

The descriptors stay open to the end of the process: closing one would drop SQLite's own locks.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from agentmem.engines.sqlite.files import identity
from agentmem.errors import ForkedStoreError

__all__ = ["guard", "remember"]

_FLOCK: Final = struct.Struct("@hhqqi4x")
_SHARED_FIRST: Final = 0x40000002
_SHARED_SIZE: Final = 510
_DEAD_MANS_SWITCH: Final = 128

_inherited: Final[dict[tuple[int, int], tuple[int, int] | None]] = {}
_kept_open: Final[list[int]] = []


def remember(path: str) -> None:
    """In a forked child: notes a file that the parent had open, and its shared memory."""
    database = identity(path)
    if database is not None:
        _inherited[database] = identity(path + "-shm")


def guard(path: str) -> None:
    """Before a file is opened: locks it, if it was inherited.

    Raises:
        ForkedStoreError: it cannot be made safe, because the parent has closed it meanwhile.
    """
    database = identity(path)
    if database is None or database not in _inherited:
        return
    _lock(path, _SHARED_FIRST, _SHARED_SIZE)
    memory = path + "-shm"
    if _inherited[database] is None or identity(memory) != _inherited[database]:
        raise ForkedStoreError(
            f"{path} was open when this process was forked, and was closed by the parent since; "
            'start processes by "spawn", or close the store before the fork'
        )
    _lock(memory, _DEAD_MANS_SWITCH, 1)
    del _inherited[database]


def _lock(path: str, start: int, length: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    _kept_open.append(descriptor)
    wanted = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, wanted)
    except (AttributeError, OSError) as error:
        raise ForkedStoreError(
            f"{path} was open when this process was forked, and cannot be locked anew: {error}; "
            'start processes by "spawn", or close the store before the fork'
        ) from error
