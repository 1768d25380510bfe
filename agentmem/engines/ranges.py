"""The ends of ranges in the order of code points, which is that of both engines."""

from __future__ import annotations

from agentmem.namespaces import range_end

__all__ = ["label_bounds", "namespace_bounds", "prefix_end"]


def namespace_bounds(namespace: str) -> tuple[str, str | None]:
    """The range of an encoded namespace and all below it; None is no end."""
    return namespace, range_end(namespace)


def label_bounds(label: str) -> tuple[str, str | None]:
    """The range of a top-level namespace and all below it; of the root's own for ``""``."""
    return namespace_bounds(label) if label else ("", "\x01")


def prefix_end(prefix: str) -> str | None:
    """The first text after all that begin with the prefix; None if there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            # Surrogates are no text: the code point after U+D7FF is U+E000.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None
