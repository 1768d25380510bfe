"""One run of an agent in a process of its own, which may be killed in the middle of it.

    python -m tests.integrations.agent_worker STORE CHECKPOINTS CALLS KILL [ANSWER]

STORE and CHECKPOINTS are SQLite files; CALLS is the JSON of the tool calls that the model makes in
one message. With ``kill`` for KILL the process kills itself when all tools have returned: their
commits are made, and no checkpoint knows of them. ANSWER is the JSON of a person's answer to an
interrupt; without it the thread is begun or, if it has begun, goes on. Prints what the tools said,
in the order of the calls, and what a person is asked, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

import agentmem
from langchain_agentmem import AgentMemMiddleware, AgentMemToolkit
from tests.integrations.scripted import ScriptedModel, calls

MAX_CALLS = 16
THREAD: RunnableConfig = {"configurable": {"thread_id": "t"}, "max_concurrency": MAX_CALLS}


class Killing(AgentMiddleware[Any, Any, Any]):
    """The outermost: what it wraps is over when the process dies."""

    def __init__(self, calls: int) -> None:
        self._all_done = threading.Barrier(calls)

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Lets the tools do all that they do, and dies."""
        handler(request)
        self._all_done.wait(60)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is dead")


def main(store_path: str, checkpoints: str, script: str, kill: str, answer: str = "") -> None:
    """One run."""
    wanted = [tuple(call) for call in json.loads(script)]

    def step(messages: Sequence[BaseMessage]) -> AIMessage:
        # By what it is told, for in another process the script begins anew.
        answered = any(isinstance(message, ToolMessage) for message in messages)
        return AIMessage("done") if answered else calls(*wanted)

    with agentmem.open(store_path, embedder=None) as store:
        agent = create_agent(
            ScriptedModel(step, step),
            AgentMemToolkit(store).get_tools(),
            middleware=[
                *([Killing(len(wanted))] if kill == "kill" else []),
                AgentMemMiddleware(store, on_conflict="interrupt"),
            ],
            checkpointer=SqliteSaver(sqlite3.connect(checkpoints, check_same_thread=False)),
            name="ann",
        )
        begun = bool(agent.get_state(THREAD).values)
        given: Any = None if begun else {"messages": [HumanMessage("go")]}
        if answer:
            given = Command(resume=json.loads(answer))
        # The message that asks for a call must be durable before the call is made.
        out = agent.invoke(given, THREAD, durability="sync")
    said = [message.text for message in out["messages"] if isinstance(message, ToolMessage)]
    asked = [each.value["theirs"]["version"] for each in out.get("__interrupt__", ())]
    print(json.dumps({"said": said, "asked": asked}))


if __name__ == "__main__":
    main(*sys.argv[1:])
