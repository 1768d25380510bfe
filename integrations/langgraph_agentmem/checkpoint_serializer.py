"""LangGraph's serializer with everything closed that makes arbitrary objects of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentmem import InvalidValueError

__all__ = ["StrictSerializer"]

_WRITTEN: Final = ("null", "bytes", "bytearray", "msgpack")


class StrictSerializer(JsonPlusSerializer):
    """msgpack that makes only LangGraph's own list of safe types, and those that were named.

    Anything else comes back as the data it was made of, and is never imported. Payloads of the
    kinds ``json`` and ``pickle``, which this serializer never writes, are refused: the first
    revives ``lc`` constructors, the second runs code.

    Args:
        allowed_types: further classes, or (module, name) pairs, that a payload may make.
    """

    def __init__(self, allowed_types: Iterable[type | tuple[str, ...]] = ()) -> None:
        super().__init__(
            pickle_fallback=False,
            allowed_json_modules=None,
            allowed_msgpack_modules=tuple(allowed_types) or None,
        )

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value of a payload.

        Raises:
            InvalidValueError: it is of a kind that this serializer does not write.
        """
        if data[0] not in _WRITTEN:
            raise InvalidValueError(
                f"a checkpoint payload is of the kind {data[0]!r}, which is never read: it could "
                "make arbitrary objects; whoever wrote it did not use this serializer"
            )
        return super().loads_typed(data)
