"""Fills a folder with rows, in a process of its own: ``python -m agentmem.search.filler FOLDER``.

Chroma holds the interpreter's lock while it adds rows, for seconds at a time (3.7 s for 5,000 of
384 numbers), so nobody else's process may do it. Standard input is a line of JSON, ``{"gone":
[ids], "dimension": n}``, then frames: the number of rows (8 bytes), their ids (int64), their
directions (float32), all little-endian; a frame of no rows is the end. Prints how many rows the
folder has then. Input that ends early is that of a builder that has died: exits with 1.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from agentmem.search.chroma import fill

if TYPE_CHECKING:
    from numpy.typing import NDArray


NOTHING: Final = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
"""The batch that ends all."""


def frames(
    stream: BinaryIO, dimension: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """The batches that come, to the one that is empty."""
    while True:
        count = struct.unpack("<Q", _exactly(stream, 8))[0]
        if not count:
            return
        ids = np.frombuffer(_exactly(stream, 8 * count), dtype="<i8")
        rows = np.frombuffer(_exactly(stream, 4 * count * dimension), dtype="<f4")
        yield ids, rows.reshape(count, dimension)


def frame(ids: NDArray[np.int64], rows: NDArray[np.float32]) -> bytes:
    """A batch as it is sent."""
    return b"".join(
        (struct.pack("<Q", len(ids)), ids.astype("<i8").tobytes(), rows.astype("<f4").tobytes())
    )


def _exactly(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        sys.exit("the builder has ended")
    return found


def main() -> None:
    """Fills one folder."""
    stream = sys.stdin.buffer
    asked = json.loads(stream.readline())
    live = fill(sys.argv[1], asked["gone"], frames(stream, asked["dimension"]))
    sys.stdout.write(f"{live}\n")


if __name__ == "__main__":
    main()
