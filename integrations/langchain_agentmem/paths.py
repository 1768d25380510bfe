"""Keys as models write them: one path, `namespace/key`.

Every part is escaped as in a JSON Pointer (RFC 6901): ``~0`` is ``~`` and ``~1`` is ``/``, so that
no key can be taken for another, whatever characters its labels hold.
"""

from __future__ import annotations

from agentmem import Entry

__all__ = ["Place", "namespace_of", "path_of", "place_of", "spelled"]

Place = tuple[tuple[str, ...], str]
"""Labels of a namespace, and a key in it."""


def spelled(labels: tuple[str, ...]) -> str:
    """A namespace as one text; empty for the root."""
    return "/".join(label.replace("~", "~0").replace("/", "~1") for label in labels)


def path_of(entry: Entry[object] | Place) -> str:
    """The path of an entry, or of labels and a key."""
    labels, key = entry if isinstance(entry, tuple) else (entry.namespace, entry.key)
    return spelled((*labels, key))


def namespace_of(path: str) -> tuple[str, ...]:
    """The labels of a path that names a namespace; empty is the root."""
    stripped = path.strip("/")
    if not stripped:
        return ()
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in stripped.split("/"))


def place_of(path: str) -> Place:
    """The labels and the key that a path names; a slash before it is no part of it."""
    *labels, key = path.removeprefix("/").split("/")
    unescaped = [part.replace("~1", "/").replace("~0", "~") for part in (*labels, key)]
    return tuple(unescaped[:-1]), unescaped[-1]
