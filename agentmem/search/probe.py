"""Asks an index for some of its rows, in a process of its own: ``python -m agentmem.search.probe``.

What is damaged takes the process down, and this one is there for it. The folder is the argument;
standard input is JSON: ``{"live": rows, "canaries": [[id, vector], ...]}``. Exits with 0 if the
folder has as many rows, and each canary's vector finds a row that is as near as can be.
"""

from __future__ import annotations

import json
import sys
from typing import Final

import numpy as np

from agentmem.search.chroma import Reader

_NEAR: Final = 1e-3


def main() -> None:
    """Probes one folder."""
    asked = json.load(sys.stdin)
    reader = Reader(sys.argv[1])
    if reader.count != asked["live"]:
        sys.exit(f"it has {reader.count} rows, not {asked['live']}")
    for entry_id, vector in asked["canaries"]:
        towards = np.array(vector, dtype=np.float32)
        ids, distances = reader.nearest(towards, min(5, asked["live"]))
        # Of equal rows, another can come first; a row without a direction is near to none.
        if towards.any() and entry_id not in ids and not (ids and distances[0] < _NEAR):
            sys.exit(f"row {entry_id} is not found by its own vector")
    reader.close()


if __name__ == "__main__":
    main()
