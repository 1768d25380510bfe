"""The lines of a file that `agentmem.exchange.exporting` wrote, with their numbers.

A file is read more than once, so a stream that cannot be read again is kept in an unnamed file
first. What is compressed is told by how it begins, not by its name.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import IO, Any, BinaryIO, Final

from agentmem.errors import CorruptionError, InvalidValueError, StorageError
from agentmem.exchange.exporting import DIGEST_BYTES, ENTRIES, FORMAT, HISTORY
from agentmem.exchange.lines import LineError, object_of

__all__ = ["Lines", "opened_lines"]

_MAX_LINE_BYTES: Final = 512 * 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
_MAX_REVISION: Final = 2**63 - 1


class Lines:
    """The lines between the first and the last one, from the first one on, as often as asked.

    Attributes:
        name: of the file, for people.
        header: the object of the first line.
        kind: ``history`` or ``entries``.
        revision: where the lines end.
        hash: of that revision.
        digest: of the lines; known once they were read to their end.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.digest = b""
        self.header = self._first()
        self.kind = self.header["agentmem"]
        self.revision = self.whole_number("revision")
        self.hash = self._hash()

    def _first(self) -> dict[str, Any]:
        with self._reading() as stream:
            line = stream.readline(_MAX_LINE_BYTES)
        try:
            header = object_of(line)
        except LineError:
            header = {}
        if header.get("agentmem") not in (HISTORY, ENTRIES):
            raise InvalidValueError(f"{self.name} is no export of agentmem; nothing was written")
        if header.get("format") != FORMAT:
            raise InvalidValueError(
                f"{self.name} has format {header.get('format')!r}, and this agentmem reads "
                f"{FORMAT}; nothing was written: upgrade with pip install --upgrade agentmem-store"
            )
        return header

    def whole_number(self, name: str) -> int:
        """A number of the first line."""
        found = self.header.get(name)
        if type(found) is not int or not 0 <= found <= _MAX_REVISION:
            raise self.wrong(1, f"{name} is no whole number")
        return found

    def _hash(self) -> bytes:
        try:
            return bytes.fromhex(self.header["hash"])
        except (KeyError, TypeError, ValueError):
            raise self.wrong(1, "hash is not in hexadecimal") from None

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number of the line, its object) of each.

        Raises:
            InvalidValueError: a line is no JSON object.
            CorruptionError: the last line is missing, or does not fit those before.
        """
        digest = blake2b(digest_size=DIGEST_BYTES)
        with self._reading() as stream:
            stream.readline(_MAX_LINE_BYTES)
            number = 1
            while line := stream.readline(_MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > _MAX_LINE_BYTES:
                    raise self.wrong(number, f"is longer than {_MAX_LINE_BYTES} bytes")
                if not line.endswith(b"\n"):
                    raise self._cut_off(number)
                try:
                    found = object_of(line)
                except LineError as error:
                    raise self.wrong(number, str(error)) from error
                if found.get("type") == "end":
                    self._check_end(number, found, digest.hexdigest())
                    if stream.read(1):
                        raise self.wrong(number + 1, "stands after the end")
                    self.digest = digest.digest()
                    return
                digest.update(line)
                yield number, found
        raise self._cut_off(number + 1)

    def _check_end(self, number: int, end: dict[str, Any], digest: str) -> None:
        if (end.get("lines"), end.get("hash")) != (number - 2, digest):
            raise CorruptionError(
                f"{self.name}, line {number}: the lines before it are not those that were written; "
                "nothing was written to the store"
            )

    @contextmanager
    def _reading(self) -> Iterator[IO[bytes] | gzip.GzipFile]:
        """The file from its beginning on."""
        try:
            self._file.seek(0)
            compressed = self._file.read(len(_GZIP)) == _GZIP
            self._file.seek(0)
            if not compressed:
                yield self._file
                return
            with gzip.GzipFile(fileobj=self._file, mode="rb") as stream:
                yield stream
        except EOFError as error:
            raise self._cut_off(None) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise CorruptionError(
                f"{self.name} is damaged ({error}); nothing was written to the store"
            ) from error

    def _cut_off(self, number: int | None) -> CorruptionError:
        where = "" if number is None else f" at line {number}"
        return CorruptionError(
            f"{self.name} was cut off{where}: its last line is missing; nothing was written to "
            "the store"
        )

    def wrong(self, number: int, reason: str) -> InvalidValueError:
        """What to raise for a line."""
        return InvalidValueError(
            f"{self.name}, line {number}: {reason}; nothing was written to the store"
        )


@contextmanager
def opened_lines(source: str | os.PathLike[str] | BinaryIO) -> Iterator[Lines]:
    """The lines of a path, or of an open binary stream.

    Raises:
        InvalidValueError: it is no export, or one of a newer agentmem.
        StorageError: it cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        try:
            file = open(os.path.expanduser(source), "rb")  # noqa: SIM115  # closed below
        except OSError as error:
            raise StorageError(f"{os.fspath(source)}: {error.strerror}") from error
        with file:
            yield Lines(file, os.fspath(source))
        return
    with tempfile.TemporaryFile() as kept:
        shutil.copyfileobj(source, kept)
        yield Lines(kept, str(getattr(source, "name", "the stream")))
