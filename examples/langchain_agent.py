"""A LangChain agent writes what another has changed: it is told in words, or a person decides.

Ann is an agent of `langchain.agents.create_agent`; her model plays a script, so that it runs
offline. She reads a plan, Bob changes it, and she writes: she is told what Bob changed, and tries
again with both. Then they collide once more, and a person decides. At last the step is replayed,
as after a crash: what was written is not written again.

    python examples/langchain_agent.py
    python examples/langchain_agent.py 'postgresql://host/database?store=agents'

A store that is named must be new; without one, it is a file in a temporary folder.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import PrivateAttr

import agentmem
from langchain_agentmem import (
    AgentMemMiddleware,
    AgentMemToolkit,
)

Step = Callable[[Sequence[BaseMessage]], AIMessage]
THREAD = {"configurable": {"thread_id": "trip"}}


class Script(BaseChatModel):
    """A chat model that plays a script: each step sees the messages, as a model would."""

    _steps: list[Step] = PrivateAttr()

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self._steps = list(steps)

    @property
    def _llm_type(self) -> str:
        return "script"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> "Script":
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        message = self._steps.pop(0)(messages)
        return ChatResult(generations=[ChatGeneration(message=message)])


def call(tool: str, **arguments: Any) -> AIMessage:
    """A message that calls a tool; the id is the same each time, as some model servers have it."""
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": "call_0"}])


def say(text: str) -> Step:
    return lambda messages: AIMessage(text)


def show(title: str, message: BaseMessage) -> None:
    text = re.sub(r" at [\dT:-]+Z", "", message.text)
    print(title, *text.splitlines(), sep="\n    ")


def results(out: dict[str, Any]) -> list[ToolMessage]:
    return [message for message in out["messages"] if isinstance(message, ToolMessage)]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "team.db")
        with agentmem.open(path, embedder=None) as store:
            return run(store)


def run(store: agentmem.Store) -> int:
    bob = store.scoped("team", agent="bob")
    bob.put("plan", {"days": 3}, expected_version=0)

    def write_while_bob_writes(value: dict[str, Any], bobs: dict[str, Any]) -> Step:
        def step(messages: Sequence[BaseMessage]) -> AIMessage:
            bob.patch("plan", bobs)
            return call("memory_write", key="plan", value=value)

        return step

    def write_what_both_want(messages: Sequence[BaseMessage]) -> AIMessage:
        told = messages[-1].text
        version = int(re.findall(r"version=(\d+)", told)[0])
        theirs = json.loads(told.splitlines()[-2])
        return call("memory_write", key="plan", value=theirs | {"days": 4}, version=version)

    def agent(*steps: Step, on_conflict: str, saver: InMemorySaver) -> Any:
        return create_agent(
            Script(*steps),
            AgentMemToolkit(store, namespace="team").get_tools(),
            middleware=[AgentMemMiddleware(store, namespace="team", on_conflict=on_conflict)],
            checkpointer=saver,
            name="ann",
        )

    saver = InMemorySaver()
    ann = agent(
        lambda messages: call("memory_read", key="plan"),
        write_while_bob_writes({"days": 4}, {"city": "Rome"}),
        write_what_both_want,
        say("Four days in Rome."),
        on_conflict="tell",
        saver=saver,
    )
    out = ann.invoke({"messages": [HumanMessage("Make it four days.")]}, THREAD)
    show("ann is told:", results(out)[1])
    print("together:", json.dumps(bob["plan"]))
    kept_both = bob["plan"] == {"days": 4, "city": "Rome"}

    ann = agent(
        write_while_bob_writes({"days": 5, "city": "Rome"}, {"days": 2}),
        say("As you wish."),
        say("As you wish."),
        on_conflict="interrupt",
        saver=saver,
    )
    [question] = ann.invoke({"messages": [HumanMessage("Five!")]}, THREAD)["__interrupt__"]
    asked = question.value
    print("a person is asked:", asked["changed"], "or", json.dumps(asked["ours"]["value"]))
    out = ann.invoke(Command(resume={"value": {"days": 5, "city": "Oslo"}}), THREAD)
    show("ann is told:", results(out)[-1])
    decided = bob["plan"] == {"days": 5, "city": "Oslo"}

    before = next(each for each in ann.get_state_history(THREAD) if each.next == ("tools",))
    again = ann.invoke(Command(resume={"value": {"days": 5, "city": "Oslo"}}), before.config)
    versions = len(bob.history("plan"))
    print(f"replayed: the plan has {versions} versions, as before")
    once = versions == 5 and results(again)[-1].text == results(out)[-1].text

    for commit in reversed(store.log("team")):
        where = commit.metadata.get("thread_id", "-")
        print(f"{commit.agent:4} {where:5} plan@{commit.changes[0].version}")
    return 0 if kept_both and decided and once else 1


if __name__ == "__main__":
    sys.exit(main())
