"""Where a store may lie, and how its files are made."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

from agentmem.errors import StorageError, UnsafeStorageError

__all__ = ["create_private", "identity", "real_path", "refuse_network"]

_MODE: Final = 0o600
_creating: Final = threading.Lock()
_MOUNTS: Final = "/proc/self/mountinfo"
# On these, flock or the shared memory of the write-ahead log does not reach other machines, or
# a sync does not reach the disk.
_NETWORK: Final = frozenset(
    {
        "9p", "acfs", "afs", "afpfs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph",
        "fuse.cephfs", "fuse.davfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs",
        "fuse.goofys", "fuse.juicefs", "fuse.mountpoint-s3", "fuse.nfs", "fuse.rclone",
        "fuse.s3fs", "fuse.seaweedfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs",
        "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs", "webdav",
    }
)  # fmt: skip


def real_path(target: str) -> str:
    """The path with links resolved, so that every process names the same sidecar files."""
    path = os.path.realpath(os.path.expanduser(target))
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        raise StorageError(f"{path} is a folder; name a file in it, for example {path}/team.db")
    if not os.path.isdir(folder):
        raise StorageError(f"the folder {folder} does not exist; make it first")
    return path


def refuse_network(path: str, mounts: str = _MOUNTS) -> None:
    """Raises `UnsafeStorageError` if the path lies on a network file system."""
    kind = _file_system(path, mounts)
    if kind in _NETWORK:
        raise UnsafeStorageError(
            f"{path} lies on {kind}, a network file system, where locks and syncs cannot be "
            "trusted; use a local disk, or PostgreSQL for agents on many machines: "
            'agentmem.open("postgresql://...")'
        )


def _file_system(path: str, mounts: str) -> str | None:
    """The type of the file system that holds the path; None if it cannot be told."""
    if not sys.platform.startswith("linux"):
        return None
    best, kind = "", None
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                # 36 35 98:0 / /mnt rw,noatime shared:1 - ext3 /dev/root rw
                left, _, right = line.partition(" - ")
                fields = left.split()
                if len(fields) < 5 or not right:
                    continue
                point = _unescape(fields[4])
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, right.split()[0]
    except OSError:
        return None
    return kind


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def create_private(path: str) -> None:
    """Makes the file, empty and readable by its owner alone, before any connection does."""
    # Closing a descriptor of the file would drop the locks of a connection that another thread
    # has opened meanwhile, so nobody gets past this point while the new file is open here.
    with _creating:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
        except FileExistsError:
            return
        except OSError as error:
            raise StorageError(f"{path} cannot be made: {error.strerror}") from error


def identity(path: str) -> tuple[int, int] | None:
    """What tells a file from every other; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
