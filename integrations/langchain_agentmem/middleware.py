"""Middleware that keeps an agent's view of the shared memory honest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NotRequired, cast

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    PrivateStateAttr,
    ToolCallRequest,
)
from langchain_core.messages import ToolMessage
from langchain_core.runnables import run_in_executor
from langgraph.types import Command, interrupt

from langchain_agentmem.budget import Budget, TokenCounter
from langchain_agentmem.desk import Answer, Desk
from langchain_agentmem.opening import HoldsStore, Target
from langchain_agentmem.reads import READS, Reads, known_in, merge_reads
from langchain_agentmem.remembering import Remembering, with_part
from langchain_agentmem.settling import Settling
from langchain_agentmem.tool import AgentMemTool

__all__ = ["AgentMemMiddleware", "AgentMemState"]

_CONFLICTING: Final = ("memory_write", "memory_patch", "memory_delete")

ToolResult = ToolMessage | Command[Any]


def newest(before: Mapping[str, int] | None, after: Mapping[str, int] | None) -> dict[str, int]:
    """The later revision of each store."""
    merged = dict(before or {})
    for store, revision in (after or {}).items():
        merged[store] = max(revision, merged.get(store, 0))
    return merged


class AgentMemState(AgentState[Any]):
    """What an agent's graph keeps for the middleware; not part of its input or output."""

    # The reducer stands last: that is where LangGraph looks for it.
    agentmem_reads: NotRequired[Annotated[Reads, PrivateStateAttr, merge_reads]]
    agentmem_checked: NotRequired[Annotated[dict[str, int], PrivateStateAttr, newest]]


class AgentMemMiddleware(AgentMiddleware[AgentMemState, Any, Any], HoldsStore):
    """Tells an agent what it should know of the shared memory, and checks what it writes.

    ::

        agent = create_agent(
            model,
            AgentMemToolkit(store, namespace="team").get_tools(),
            middleware=[AgentMemMiddleware(store, namespace="team")],
            checkpointer=saver,
        )

    Before each call of the model, memories that fit what the person said last are put at the end of
    the system message, after what was changed since the agent has read it, each difference once.
    The messages in the graph's state stay as they are.

    After each call of one of the toolkit's tools, the versions that it showed are kept in the
    graph's state, and so in its checkpoints. A write that names no version is made from the one
    that was read, however long ago; one that names a version which the agent cannot have seen is
    refused.

    Args:
        store: an open store, or what `agentmem.open` takes; that one `close` closes.
        namespace: where memories are looked up.
        access: as in `Store.scoped`.
        max_tokens: of what is put before the model.
        k: at most so many memories; 0 puts none.
        search: further arguments of `Store.search`: ``mode``, ``where``, ``half_life_s``.
        on_conflict: ``"tell"`` lets the tool tell the model of a conflict; ``"interrupt"`` asks a
            person through LangGraph's `interrupt`, and tells the model what they decided.
        token_counter: as in `AgentMemToolkit`.
    """

    state_schema = AgentMemState
    tools = ()

    def __init__(
        self,
        store: Target,
        *,
        namespace: object = None,
        access: str | Mapping[str, str] = "read",
        max_tokens: int = 1_000,
        k: int = 5,
        search: Mapping[str, Any] | None = None,
        on_conflict: Literal["tell", "interrupt"] = "tell",
        token_counter: TokenCounter | None = None,
    ) -> None:
        super().__init__()
        if on_conflict not in ("tell", "interrupt"):
            raise ValueError(f"on_conflict is 'tell' or 'interrupt', not {on_conflict!r}")
        budget = Budget(max_tokens, token_counter)
        self._on_conflict = on_conflict
        self._hold(store)
        try:
            self._desk = Desk(self.store.scoped(namespace, access=access), None, budget)
        except BaseException:
            self.close()
            raise
        self._remembering = Remembering(self._desk, k, search or {})

    @property
    def name(self) -> str:
        """Of this middleware in its agent, which may have one for each of several namespaces."""
        prefix = self._desk.rooted("").rstrip("/")
        return f"AgentMemMiddleware[{prefix}]" if prefix else "AgentMemMiddleware"

    # Before the model.

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Puts what changed and what is relevant before the model."""
        told, update = self._prepared(request)
        return _with_update(handler(told), update)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """As `wrap_model_call`."""
        told, update = await run_in_executor(None, self._prepared, request)
        return _with_update(await handler(told), update)

    def _prepared(self, request: ModelRequest[Any]) -> tuple[ModelRequest[Any], dict[str, Any]]:
        """The request with its part about the memory, and what the state is told after it."""
        desk = self._desk
        state = cast("AgentMemState", request.state)
        checked = state.get("agentmem_checked") or {}
        # Before anything is looked at: what is committed meanwhile is looked at next time.
        revision = desk.view.revision
        found = self._remembering.look(
            known_in(state, desk.store_id),
            request.messages,
            changes=checked.get(desk.store_id) != revision,
        )
        update: dict[str, Any] = {}
        if found.complete and checked.get(desk.store_id) != revision:
            update["agentmem_checked"] = {desk.store_id: revision}
        if found.known:
            update[READS] = desk.state_of(Answer("", reads=found.known))
        if not found.text:
            return request, update
        message = with_part(request.system_message, found.text)
        return request.override(system_message=message), update

    # Around tools.

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]
    ) -> ToolResult:
        """Keeps the versions that a tool has shown, and has conflicts settled."""
        course = self._course(request)
        turn = _advance(course, None)
        while not turn.over:
            turn = _advance(course, handler(request))
        return turn.ended()

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        """As `wrap_tool_call`."""
        course = self._course(request)
        turn = await run_in_executor(None, _advance, course, None)
        while not turn.over:
            result = await handler(request)
            turn = await run_in_executor(None, _advance, course, result)
        return turn.ended()

    def _course(self, request: ToolCallRequest) -> Generator[None, ToolResult, ToolResult]:
        """What is done around one call; each yield has the tool run and gets its result."""
        tool = request.tool
        if not isinstance(tool, AgentMemTool):
            return (yield)
        if self._on_conflict == "interrupt" and tool.name in _CONFLICTING:
            return (yield from self._settled(tool, request))
        return _folded((yield))

    def _settled(
        self, tool: AgentMemTool, request: ToolCallRequest
    ) -> Generator[None, ToolResult, ToolResult]:
        """Runs a tool whose conflicts a person settles."""
        asked = request.tool_call
        call = tool.invocation(asked["id"], request.runtime, request.runtime.config)
        if call.op_id is None or call.call_id is None or "key" not in asked["args"]:
            return _folded((yield))  # what cannot be told from other calls cannot wait either
        settling = Settling(tool.desk, call, asked["args"]).run()
        own: ToolResult | None = None
        reply: Any = None
        try:
            while True:
                question = settling.send(reply)
                if question is None:
                    own = yield
                    reply = getattr(own, "artifact", None) or {}
                else:
                    reply = interrupt(question)
        except StopIteration as end:
            answer: Answer | None = end.value
        if answer is None:
            assert own is not None, "without a question the call itself was run"
            return _folded(own)
        return _folded(tool.message(call.call_id, answer))


def _with_update(
    response: ModelResponse[Any], update: Mapping[str, Any]
) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
    if not update:
        return response
    return ExtendedModelResponse(response, Command(update=dict(update)))


def _folded(result: ToolResult) -> ToolResult:
    """The result, with what it showed for the graph's state."""
    artifact = getattr(result, "artifact", None)
    reads = artifact.get(READS) if isinstance(artifact, Mapping) else None
    if not isinstance(result, ToolMessage) or not reads:
        return result
    return Command(update={"messages": [result], READS: reads})


@dataclass(frozen=True, slots=True)
class _Turn:
    """Whether a course is over, and its result then."""

    over: bool
    result: ToolResult | None = None

    def ended(self) -> ToolResult:
        """The result of a course that is over."""
        assert self.result is not None, "it is over"
        return self.result


def _advance(course: Generator[None, ToolResult, ToolResult], result: Any) -> _Turn:
    """Runs a course to its next call of the tool, or its end.

    A thread cannot give a `StopIteration` to an event loop; so the end is told by the turn.
    """
    try:
        course.send(result)
    except StopIteration as end:
        return _Turn(over=True, result=end.value)
    return _Turn(over=False)
