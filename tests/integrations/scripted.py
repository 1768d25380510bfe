"""A chat model that says what its script says, for tests of agents.

A step of the script is a message, or a function of the messages that the model is given, which
makes one: what a real model would do with what it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

__all__ = ["ScriptedModel", "Step", "calls", "last_result"]

Step = AIMessage | Callable[[Sequence[BaseMessage]], AIMessage]


class ScriptedModel(BaseChatModel):
    """Plays a script, one step a call; a call beyond its end is an error.

    Attributes:
        given: the messages of each call, in order.
        script: its steps; more may be added.
    """

    _script: list[Step] = PrivateAttr()
    _given: list[list[BaseMessage]] = PrivateAttr()

    def __init__(self, *script: Step) -> None:
        super().__init__()
        self._script = list(script)
        self._given = []

    @property
    def script(self) -> list[Step]:
        """Its steps."""
        return self._script

    @property
    def given(self) -> list[list[BaseMessage]]:
        """The messages of each call so far."""
        return self._given

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedModel:
        """Takes any tools: the script says which are called."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._given.append(list(messages))
        step = self._script[len(self._given) - 1]
        message = step if isinstance(step, AIMessage) else step(messages)
        # A copy: LangChain gives a message its id where it stands, and a step may be played twice.
        return ChatResult(generations=[ChatGeneration(message=message.model_copy())])


def calls(*tool_calls: tuple[str, dict[str, Any]], first_id: int = 1) -> AIMessage:
    """A message that calls tools, with ids counted from 1 as some model servers do."""
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": arguments, "id": f"call_{number}", "type": "tool_call"}
            for number, (name, arguments) in enumerate(tool_calls, first_id)
        ],
    )


def last_result(messages: Sequence[BaseMessage]) -> ToolMessage:
    """The last result of a tool among messages."""
    return next(m for m in reversed(messages) if isinstance(m, ToolMessage))
