"""What models answer, as JSON, and back, by a closed table of types."""

from __future__ import annotations

from typing import Any

from langchain_core.outputs import ChatGeneration, Generation
from pydantic import ValidationError

from agentmem import InvalidValueError
from langchain_agentmem.messages import message_of, message_value, plain

__all__ = ["generation_of", "generation_value"]


def generation_value(generation: Generation) -> dict[str, Any]:
    """A generation as JSON; a chunk as a whole one.

    Raises:
        InvalidValueError: something in it is not JSON, or its message is of a type that is not
            stored.
    """
    if not isinstance(generation, Generation):
        raise TypeError(f"a generation is a Generation, not {type(generation).__name__}")
    facts = plain(generation.generation_info, "generation_info")
    if isinstance(generation, ChatGeneration):
        message = message_value(generation.message)
        return {"type": "ChatGeneration", "message": message, "generation_info": facts}
    text = plain(generation.text, "text")
    return {"type": "Generation", "text": text, "generation_info": facts}


def generation_of(value: object, where: str) -> Generation:
    """The generation that was stored.

    Args:
        value: JSON, as `generation_value` made it.
        where: the key that it was read from, for errors.

    Raises:
        InvalidValueError: it is not what `generation_value` makes; nothing was constructed.
    """
    if isinstance(value, dict):
        try:
            if value.get("type") == "Generation":
                return Generation(text=value["text"], generation_info=value["generation_info"])
            if value.get("type") == "ChatGeneration":
                message = message_of(value["message"], where)
                return ChatGeneration(message=message, generation_info=value["generation_info"])
        except (ValidationError, KeyError):
            pass
    raise InvalidValueError(
        f"the value of {where} is no generation; somebody else wrote there: delete it, or look "
        "with store.history who did",
        path="$",
    )
