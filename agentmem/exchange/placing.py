"""Files that are there whole, or not at all: backups and exports.

What is being written has a private file beside its place, and takes its name when all of it is on
the disk::

    .agentmem-1f3c...-9b2e41d0.partial     being written: locked by its process
    team.backup.db                         whole

A process that is killed leaves its private file behind. The next one for the same name removes
those that nobody has locked.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Final

from agentmem.engines.sqlite.files import real_path
from agentmem.errors import DiskFullError, StorageError

__all__ = ["file_errors", "placed"]

_MODE: Final = 0o600
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_BESIDE: Final = ("-wal", "-journal")  # of a database that somebody has open, or that crashed


@contextmanager
def placed(target: str | os.PathLike[str], *, overwrite: bool) -> Iterator[str]:
    """The path of an empty, private file, which gets the target's name at the end of the block.

    Whatever is made beside it under its name and more is removed. An exception in the block
    leaves nothing behind.

    Args:
        overwrite: replace a file that is there; a database in use is refused all the same.

    Raises:
        DiskFullError: no space is left.
        StorageError: there is something at the target, or the folder cannot be written.
    """
    path = real_path(os.fspath(target))
    _check_free(path, overwrite)
    folder, name = os.path.split(path)
    # The name itself could be too long with something added.
    stem = os.path.join(folder, f".agentmem-{blake2b(name.encode(), digest_size=8).hexdigest()}-")
    with file_errors(path):
        _remove_abandoned(stem)
        partial = f"{stem}{os.urandom(4).hex()}.partial"
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield partial
            os.fsync(descriptor)
            _check_free(path, overwrite)
            _publish(partial, path, overwrite)
        finally:
            os.close(descriptor)
            _remove(partial)
        _sync_folder(folder)


@contextmanager
def file_errors(path: str) -> Iterator[None]:
    """Errors of the operating system in agentmem's words."""
    full = f"no space left for {path}; nothing is there: free space and run it again"
    try:
        yield
    except DiskFullError as error:
        raise DiskFullError(full) from error  # a database's, which knows the private name alone
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(full) from error
        raise StorageError(f"{path}: {error.strerror or error}") from error


def _check_free(path: str, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise StorageError(
            f"{path} is there already; name another file, or say that it is to be overwritten"
        )
    if any(os.path.exists(path + each) for each in _BESIDE):
        raise StorageError(f"{path} is a database that is in use; name another file")


def _publish(partial: str, path: str, overwrite: bool) -> None:
    if overwrite:
        os.replace(partial, path)
        return
    # A link, unlike a rename, fails if the name was taken meanwhile.
    try:
        os.link(partial, path)
    except FileExistsError:
        _check_free(path, overwrite)
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        os.rename(partial, path)  # this file system has no links


def _remove_abandoned(stem: str) -> None:
    for partial in glob.glob(glob.escape(stem) + "*.partial", include_hidden=True):
        try:
            descriptor = os.open(partial, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # it is being written
        else:
            _remove(partial)
        finally:
            os.close(descriptor)


def _remove(partial: str) -> None:
    """Removes a file, and what a database has made beside it."""
    for path in glob.glob(glob.escape(partial) + "*", include_hidden=True):
        with suppress(FileNotFoundError):
            os.unlink(path)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
