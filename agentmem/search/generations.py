"""Generations: indexes that are built aside, published whole, and never changed afterwards.

::

    team.db.index/
        lock                    held by whoever builds
        g-5f0c.../              a generation: files that nobody opens for writing
        building-81aa.../       one that is being built; of a killed builder: rubbish
        view-4321-9b7e.../      what one process has open: links to a generation's files
        view-4321-9b7e....lock  held while it has

A folder that Chroma has open is written to even by readers, and a damaged one takes the process
down. So a published folder is never opened at all: a reader first holds its files against the
digests that stand in the store's own database, then makes a view of its own, with links to the
large files and a copy of the small one that Chroma writes to. A generation can be deleted while
others read it: their links keep the data until they let go.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from agentmem.search import chroma, filler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentmem.search.vectors import Vector

    Batch = tuple[NDArray[np.int64], NDArray[np.float32]]

if sys.platform != "win32":
    import fcntl

__all__ = ["BrokenGenerationError", "Generation", "Generations", "Published"]

_GENERATION: Final = "g-"
_BUILDING: Final = "building-"
_VIEW: Final = "view-"
_LOCK: Final = ".lock"
_LARGE: Final = "data_level0.bin"  # the vectors, by far the largest of Chroma's files
_SAVED: Final = "index_metadata.pickle"  # there once Chroma has saved the graph
_CHUNK: Final = 1024 * 1024
_CANARIES: Final = 16
_PROBE_S: Final = 120.0


class BrokenGenerationError(Exception):
    """It is missing, damaged, or not what it should be. Never leaves `agentmem.search`."""


@dataclass(frozen=True, slots=True)
class Published:
    """What the store remembers of a generation.

    Attributes:
        name: its folder.
        manifest: digest of the names, sizes and digests of its files, in hexadecimal.
        live: rows that it holds.
        dead: rows that were deleted since it was built from nothing; they still take space.
    """

    name: str
    manifest: str
    live: int
    dead: int


class Generations:
    """The generations of one set of vectors, in one folder."""

    def __init__(self, folder: str, dimension: int) -> None:
        self.folder = folder
        self._dimension = dimension

    @contextmanager
    def builder(self, *, wait: bool) -> Iterator[bool]:
        """Around building: whether no other is at it, now or after waiting for it to end."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        with open(os.path.join(self.folder, "lock"), "wb") as file:
            yield _locked(file.fileno(), wait=wait)

    def build(
        self,
        previous: Published | None,
        gone: Sequence[int],
        added: Iterable[Batch],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Published:
        """Makes a generation that is ready to be published: whole, on disk, and probed.

        Args:
            previous: what it is made from; None: from nothing.
            gone: rows of `previous` that it is not to hold; those that are not there do no harm.
            added: (ids, directions) of new rows, in batches.
            progress: told how many rows were added.

        Raises:
            BrokenGenerationError: `previous` is damaged; or what was built does not answer.
            MissingExtraError: Chroma is not installed.
        """
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        building = os.path.join(self.folder, _BUILDING + secrets.token_hex(8))
        if previous is not None:
            source = os.path.join(self.folder, previous.name)
            self._verify(previous)
            shutil.copytree(source, building)
        else:
            os.mkdir(building, 0o700)
        canaries: list[tuple[int, list[float]]] = []
        done = 0

        def watched() -> Iterator[Batch]:
            nonlocal done
            for ids, rows in added:
                if len(canaries) < _CANARIES and len(ids):
                    canaries.append((int(ids[0]), rows[0].tolist()))
                yield ids, rows
                done += len(ids)
                if progress is not None:
                    progress(done)

        try:
            live = _fill(building, gone, watched(), self._dimension)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        _sync(building)
        dead = previous.dead + previous.live + done - live if previous is not None else 0
        published = Published(_GENERATION + secrets.token_hex(8), _manifest(building), live, dead)
        os.rename(building, os.path.join(self.folder, published.name))
        _sync_folder(self.folder)
        self._probe(published, canaries)
        return published

    def open(self, published: Published) -> Generation:
        """Opens a published generation for reading, in a view of this process's own.

        Raises:
            BrokenGenerationError: it is missing or damaged.
        """
        self._verify(published)
        view = os.path.join(self.folder, f"{_VIEW}{os.getpid()}-{secrets.token_hex(8)}")
        lock = os.open(view + _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        _locked(lock)
        try:
            _link(os.path.join(self.folder, published.name), view)
            return Generation(published, chroma.Reader(view), view, lock)
        except BaseException as error:
            _remove_view(view, lock)
            if chroma.has_failed(error):
                raise BrokenGenerationError(f"{published.name}: {error}") from error
            raise

    def sweep(self, keep: Collection[str]) -> int:
        """Deletes all that nobody needs: other generations, and what dead processes left.

        Args:
            keep: the names of generations that stay.

        Returns: about how many bytes were given back.
        """
        freed = 0
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return 0
        for name in names:
            path = os.path.join(self.folder, name)
            if name.startswith((_GENERATION, _BUILDING)) and name not in keep:
                freed += _size(path)
                shutil.rmtree(path, ignore_errors=True)
            elif name.startswith(_VIEW) and name.endswith(_LOCK):
                freed += _sweep_view(path)
        return freed

    def users(self) -> list[int]:
        """The ids of the processes that have a view open, after `sweep` has removed the others."""
        names = [name for name in os.listdir(self.folder) if name.endswith(_LOCK)]
        return sorted({int(name.split("-")[1]) for name in names if name.startswith(_VIEW)})

    def _verify(self, published: Published) -> None:
        path = os.path.join(self.folder, published.name)
        try:
            found = _manifest(path)
        except OSError as error:
            raise BrokenGenerationError(f"{published.name}: {error}") from error
        if found != published.manifest:
            raise BrokenGenerationError(f"{published.name} is not as it was published")

    def _probe(self, published: Published, canaries: list[tuple[int, list[float]]]) -> None:
        """Asks it, in a child process, for some of its rows."""
        asked = {"live": published.live, "canaries": canaries}
        view = os.path.join(self.folder, f"{_VIEW}{os.getpid()}-{secrets.token_hex(8)}")
        lock = os.open(view + _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        _locked(lock)
        try:
            _link(os.path.join(self.folder, published.name), view)
            child = subprocess.run(  # noqa: S603  # this Python, on a folder of our own
                [sys.executable, "-m", "agentmem.search.probe", view],
                input=json.dumps(asked).encode(),
                capture_output=True,
                timeout=_PROBE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BrokenGenerationError(f"{published.name} could not be probed: {error}") from error
        finally:
            _remove_view(view, lock)
        if child.returncode != 0:
            told = child.stderr.decode(errors="replace").strip().splitlines()
            raise BrokenGenerationError(
                f"{published.name} does not answer (exit {child.returncode}): {(told or [''])[-1]}"
            )


class Generation:
    """A published index, open for reading. Safe for use from many threads.

    Attributes:
        published: which one.
        broken: it has failed to answer: its view was damaged while it was open.
    """

    def __init__(self, published: Published, reader: chroma.Reader, view: str, lock: int) -> None:
        self.published = published
        self.broken = False
        self._reader = reader
        # Who is still searching in it keeps it open after another has been published.
        self._close = weakref.finalize(self, _close, reader, view, lock, os.getpid())

    def nearest(self, vector: Vector, k: int) -> tuple[list[int], list[float]]:
        """Ids and cosine distances of the rows nearest to a direction, nearest first; at most k.

        Raises:
            BrokenGenerationError: it does not answer.
        """
        wanted = min(k, self.published.live)
        try:
            found = self._reader.nearest(vector, wanted)
        except BaseException as error:
            if not chroma.has_failed(error):
                raise
            self.broken = True
            raise BrokenGenerationError(f"{self.published.name}: {error}") from error
        if len(found[0]) < wanted:
            # Its graph does not lead to so many. Where few are asked for, that means damage.
            self.broken = wanted <= _CANARIES
            raise BrokenGenerationError(f"{self.published.name} found {len(found[0])} of {wanted}")
        return found

    def close(self) -> None:
        """Lets go of it; in a forked child nothing is touched. May be called again."""
        self._close()


def _close(reader: chroma.Reader, view: str, lock: int, pid: int) -> None:
    if os.getpid() == pid:
        reader.close()
        _remove_view(view, lock)


def _fill(folder: str, gone: Sequence[int], added: Iterable[Batch], dimension: int) -> int:
    """Has a child process change the rows of a folder; returns how many it has then."""
    chroma.require()
    child = subprocess.Popen(  # noqa: S603  # this Python, on a folder of our own
        [sys.executable, "-m", "agentmem.search.filler", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert child.stdin is not None, "it is a pipe"
        asked = {"gone": list(gone), "dimension": dimension}
        with contextlib.suppress(BrokenPipeError):  # it has ended, and says why below
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            for ids, rows in added:
                child.stdin.write(filler.frame(ids, rows))
            child.stdin.write(filler.frame(*filler.NOTHING))
        out, told = child.communicate()
    except BaseException:
        child.kill()
        child.communicate()  # which closes the pipes, too
        raise
    if child.returncode != 0:
        last = (told.decode(errors="replace").strip().splitlines() or [""])[-1]
        raise BrokenGenerationError(f"it could not be built (exit {child.returncode}): {last}")
    return int(out)


def _locked(descriptor: int, *, wait: bool = False) -> bool:
    """Whether a lock that ends with the process could be had."""
    if sys.platform == "win32":
        return True  # files in use cannot be deleted there
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _files(folder: str) -> list[str]:
    found = []
    for root, _folders, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(root, name), folder) for name in names]
    return sorted(found)


def _manifest(folder: str) -> str:
    """One digest for all files of a folder."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder} is gone")
    whole = blake2b(digest_size=32)
    for name in _files(folder):
        digest = blake2b(digest_size=32)
        size = 0
        with open(os.path.join(folder, name), "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        whole.update(json.dumps([name, size, digest.hexdigest()]).encode())
    return whole.hexdigest()


def _link(source: str, target: str) -> None:
    """A view of a generation: a link to what is only read, copies of what Chroma writes to.

    Measured on 1.5.9: readers write to its database at every opening, and to the files of the
    graph if that was never saved, as with fewer rows than its ``sync_threshold``.
    """
    names = _files(source)
    saved = any(os.path.basename(name) == _SAVED for name in names)
    for name in names:
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if saved and os.path.basename(name) == _LARGE:
            with contextlib.suppress(OSError):  # a file system without hard links
                os.link(os.path.join(source, name), path)
                continue
        shutil.copyfile(os.path.join(source, name), path)


def _remove_view(view: str, lock: int) -> None:
    shutil.rmtree(view, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(view + _LOCK)
    os.close(lock)


def _sweep_view(lock_path: str) -> int:
    try:
        lock = os.open(lock_path, os.O_RDWR)
    except OSError:
        return 0
    if not _locked(lock):
        os.close(lock)
        return 0
    view = lock_path.removesuffix(_LOCK)
    size = _size(view)
    _remove_view(view, lock)
    return size


def _size(folder: str) -> int:
    total = 0
    for name in _files(folder):
        with contextlib.suppress(OSError):
            total += os.stat(os.path.join(folder, name)).st_size
    return total


def _sync(folder: str) -> None:
    for root, _folders, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(root)


def _sync_folder(folder: str) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
