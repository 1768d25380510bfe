"""Which call of a tool this is: by whom, in which conversation, and its operation id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from langchain_agentmem.reads import Known, known_in
from langchain_agentmem.runs import Run, current_run

__all__ = ["Invocation", "invocation_of"]

_MAX_PART: Final = 200
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a tool.

    Attributes:
        tool: its name.
        call_id: that the model gave it; None: it was called by hand.
        op_id: the same whenever this call is replayed, and no other call's; None: nothing is
            known that would tell this call from others.
        agent: who calls, or None.
        metadata: of the run, for commits.
        known: what the graph's state says about the store, by path.
    """

    tool: str
    call_id: str | None
    op_id: str | None
    agent: str | None
    metadata: Mapping[str, Any]
    known: Mapping[str, Known]

    def after(self, step: str) -> Invocation:
        """The same call at a later step of its own, with an operation id of its own."""
        assert self.op_id is not None, "what has steps can be replayed"
        return replace(self, op_id=f"{self.op_id}:{step}")


def invocation_of(
    tool: str,
    call_id: str | None,
    runtime: object,
    config: RunnableConfig | None,
    store_id: str,
    agent: str | None,
) -> Invocation:
    """What is known of a call.

    Args:
        runtime: that LangGraph's `ToolNode` injects; anything else is taken as none.
        config: of the call.
        store_id: whose part of the graph's state is wanted.
        agent: who calls, if that is fixed; else it is whoever the run says.
    """
    # What a model writes into its arguments is JSON: it has no such attributes.
    state = getattr(runtime, "state", None)
    call_id = call_id or getattr(runtime, "tool_call_id", None)
    message = _asking(state, call_id)
    run = current_run(config)
    metadata: dict[str, Any] = {**run.metadata(), "tool": tool}
    if call_id is not None:
        metadata["tool_call_id"] = call_id
    if message is not None and message.id:
        metadata["message_id"] = message.id
    return Invocation(
        tool,
        call_id,
        _operation_id(run, message, call_id),
        agent or _named(message, config),
        metadata,
        known_in(state, store_id),
    )


def _asking(state: object, call_id: str | None) -> AIMessage | None:
    """The last message of the model that has this tool call."""
    if call_id is None:
        return None
    if isinstance(state, Mapping):
        state = state.get("messages")
    elif not isinstance(state, list):
        state = getattr(state, "messages", None)
    messages: Iterable[Any] = reversed(state) if isinstance(state, list) else ()
    for message in messages:
        if isinstance(message, AIMessage) and any(
            call["id"] == call_id for call in message.tool_calls
        ):
            return message
    return None


def _named(message: AIMessage | None, config: RunnableConfig | None) -> str | None:
    """The name that the agent was made with: on its messages, and in what its runs carry."""
    if message is not None and message.name:
        return message.name
    name = ((config or {}).get("metadata") or {}).get("lc_agent_name")
    return name if isinstance(name, str) and name else None


def _operation_id(run: Run, message: AIMessage | None, call_id: str | None) -> str | None:
    """The conversation, the message and the call; as much as tells them from all others.

    ::

        known                       the op_id is made of
        ------------------------    --------------------------------------
        thread, message, call       thread, message, call
        thread, task, call          thread, task, call
        message, task, call         run (if there is one) or task, message, call
        task, call                  run (if there is one), task, call
        less                        nothing: each call is a new one

    A task of a graph is the same in every retry and after a resume, and no other's. A bare call id
    is never enough: some model servers count them from 1 in every message. Without a thread there
    is nothing to resume, so a replay can only be one within its run.
    """
    task = _part("task", run.task_id)
    where = _part("thread", run.thread_id) or _part("run", run.run_id) or task
    what = _part("message", message.id if message is not None else None) or task
    if call_id is None or where is None or what is None:
        return None
    return f"{where}:{what}:{_part('call', call_id)}"


def _part(kind: str, text: str | None) -> str | None:
    """One part of an operation id, of whatever text, that cannot run into the next."""
    if not text:
        return None
    escaped = text.replace("%", "%25").replace(":", "%3A")
    if len(escaped) > _MAX_PART or "\0" in escaped or not escaped.isprintable():
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
        escaped = f"%{digest.hexdigest()}"
    return f"{kind}-{escaped}"
