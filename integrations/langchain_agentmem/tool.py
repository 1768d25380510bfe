"""The tool that a model calls: it knows which call this is, and answers errors in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic.json_schema import SkipJsonSchema

from agentmem import (
    AccessDeniedError,
    AgentMemError,
    CompactedError,
    DiskFullError,
    EmbedderError,
    FencedError,
    IndeterminateCommitError,
    InvalidValueError,
    KeyMissingError,
    OperationMismatchError,
    StoreBusyError,
)
from langchain_agentmem.desk import Answer, Desk
from langchain_agentmem.invocation import Invocation, invocation_of
from langchain_agentmem.paths import path_of
from langchain_agentmem.reads import READS

__all__ = ["AgentMemTool", "Arguments", "OptionalVersion", "ToolKind"]

OptionalVersion = Annotated[int, Field(ge=1)] | SkipJsonSchema[None]
"""A version that may be left out; models are shown a plain integer, which costs less tokens."""


class Arguments(BaseModel):
    """Of every tool; what is not named is refused, so that a misspelt version is not lost."""

    model_config = ConfigDict(extra="forbid")

    runtime: Annotated[Any, InjectedToolArg] = Field(default=None, exclude=True)


@dataclass(frozen=True, slots=True)
class ToolKind:
    """One kind of tool.

    Attributes:
        name: that the model calls it by.
        description: for the model.
        arguments: their schema.
        act: does it.
        writes: whether it changes anything.
    """

    name: str
    description: str
    arguments: type[Arguments]
    act: Callable[..., Answer]
    writes: bool


# What a model, or the person that it answers, can do something about. All else is for whoever runs
# the agent, and is raised: a closed store, a damaged one, a hook with a bug.
_FOR_THE_MODEL: Final[dict[type[AgentMemError], str]] = {
    OperationMismatchError: (
        "this very call was made before with other arguments, and that one counts; "
        "make a new call for something else"
    ),
    AccessDeniedError: "you may not do that here; use another key or namespace",
    KeyMissingError: "memory_history shows those that there are",
    CompactedError: "what is older is not kept any more",
    FencedError: (
        "you do not hold that task: it is done, or somebody else has it by now; claim another"
    ),
    InvalidValueError: "correct it and call again",
    StoreBusyError: "others are writing; call again",
    DiskFullError: "the storage is full: nothing can be written; tell the person you work for",
    EmbedderError: "what compares by meaning has failed; tell the person you work for",
}


class AgentMemTool(BaseTool):
    """One tool of an `AgentMemToolkit`. Sync and async alike; safe for parallel calls."""

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"

    _kind: ToolKind = PrivateAttr()
    _desk: Desk = PrivateAttr()

    def __init__(self, kind: ToolKind, desk: Desk) -> None:
        super().__init__(
            name=kind.name,
            description=kind.description,
            args_schema=kind.arguments,
            handle_validation_error=_argument_words,
        )
        self._kind = kind
        self._desk = desk

    @property
    def desk(self) -> Desk:
        """What it works with."""
        return self._desk

    def invocation(
        self, call_id: str | None, runtime: object, config: RunnableConfig | None
    ) -> Invocation:
        """Which call of this tool that is."""
        desk = self._desk
        return invocation_of(self.name, call_id, runtime, config, desk.store_id, desk.agent)

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        positional, named = super()._to_args_and_kwargs(tool_input, tool_call_id)
        return positional, {**named, "call_id": tool_call_id}

    def _run(
        self,
        *,
        config: RunnableConfig,
        call_id: str | None = None,
        runtime: Annotated[Any, InjectedToolArg] = None,
        **arguments: Any,
    ) -> tuple[str | ToolMessage, dict[str, Any]]:
        call = self.invocation(call_id, runtime, config)
        answer = self.answer(call, arguments)
        artifact = self._artifact(answer)
        if answer.refused and call.call_id is not None:
            return self.message(call.call_id, answer), artifact
        return answer.text, artifact

    def message(self, call_id: str, answer: Answer) -> ToolMessage:
        """An answer as the message that the model gets."""
        return ToolMessage(
            answer.text,
            artifact=self._artifact(answer),
            name=self.name,
            tool_call_id=call_id,
            status="error" if answer.refused else "success",
        )

    def _artifact(self, answer: Answer) -> dict[str, Any]:
        artifact = {**answer.facts, "refused": answer.refused}
        reads = self._desk.state_of(answer)
        return {**artifact, READS: reads} if reads else artifact

    def answer(self, call: Invocation, arguments: Mapping[str, Any]) -> Answer:
        """Does what a call asks for, and says so; or says why not.

        Raises:
            AgentMemError: what no model can do anything about.
        """
        try:
            return self._act(call, arguments)
        except tuple(_FOR_THE_MODEL) as error:
            return _refused(error)

    def _act(self, call: Invocation, arguments: Mapping[str, Any]) -> Answer:
        try:
            return self._kind.act(self._desk, call, **arguments)
        except IndeterminateCommitError as error:
            if call.op_id is not None:
                # The same operation id finds out which of the two it was, and applies once.
                return self._kind.act(self._desk, call, **arguments)
            if not error.attempt:
                raise
            commit = self._desk.view.outcome(error)
            if commit is None:
                text = "NOT DONE: the storage failed, and nothing was written. Call again."
                return Answer(text, refused=True, facts={"error": type(error).__name__})
            return Answer(f"Done, in revision {commit.revision}.")


def _refused(error: AgentMemError) -> Answer:
    """What a model is told of an error."""
    advice = next(words for kind, words in _FOR_THE_MODEL.items() if isinstance(error, kind))
    if isinstance(error, OperationMismatchError | FencedError):
        said = ""  # their own words are of operation ids and tokens, which a model never sees
    elif isinstance(error, KeyMissingError):
        said = f"{path_of((error.namespace, error.key))} has no such version; "
    else:
        said = f"{str(error).rstrip('.')}; "
    text = f"NOT DONE: {said}{advice}."
    return Answer(text, refused=True, facts={"error": type(error).__name__})


def _argument_words(error: ValidationError | Any) -> str:
    """What is wrong with the arguments of a call, one line for each."""
    lines = [
        f"- {'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}"
        for each in error.errors()
    ]
    return "\n".join(
        ["NOT DONE: the arguments are not right. Correct them and call again:", *lines]
    )
