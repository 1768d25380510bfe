"""Looks for bytes in the files of a store, from another process.

In this one, closing a file of a SQLite database would drop the locks of its connections.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

__all__ = ["found_in"]

_SEARCH: Final = """
import json, os, sys
folder, words, left_out = json.load(sys.stdin)
found = []
for root, folders, names in os.walk(folder):
    folders[:] = [each for each in folders if each not in left_out]
    for name in names:
        path = os.path.join(root, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
            found += [[path, word] for word in words if bytes.fromhex(word) in data]
json.dump(found, sys.stdout)
"""


def found_in(
    folder: object, words: Iterable[str | bytes], left_out: Iterable[str] = ()
) -> list[tuple[str, bytes]]:
    """(file, word) for each file below a folder that holds a word.

    Args:
        left_out: names of folders that are not looked into.
    """
    given = [word.encode() if isinstance(word, str) else word for word in words]
    done = subprocess.run(
        [sys.executable, "-c", _SEARCH],
        input=json.dumps([str(folder), [word.hex() for word in given], [*left_out]]),
        capture_output=True,
        text=True,
        check=True,
    )
    return [(path, bytes.fromhex(word)) for path, word in json.loads(done.stdout)]
