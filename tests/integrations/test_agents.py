"""Agents of `create_agent` over one memory: conflicts, replays, several conversations."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

import agentmem
from langchain_agentmem import AgentMemMiddleware, AgentMemToolkit
from langchain_agentmem.desk import Desk
from tests.integrations.scripted import ScriptedModel, Step, calls, last_result

Agent = Any


@pytest.fixture
def memory() -> Any:
    """A store for what does not differ between the kinds."""
    with agentmem.open(":memory:", durability="relaxed", embedder=None) as store:
        yield store
        assert store.admin.verify().problems == []


def agent_of(
    store: agentmem.Store,
    *script: Step,
    middleware: Sequence[AgentMiddleware[Any, Any, Any]] | None = None,
    saver: Any = None,
    name: str = "ann",
) -> Agent:
    """An agent that plays a script over ``team``."""
    return create_agent(
        ScriptedModel(*script),
        AgentMemToolkit(store, namespace="team").get_tools(),
        middleware=[AgentMemMiddleware(store, namespace="team")]
        if middleware is None
        else middleware,
        checkpointer=InMemorySaver() if saver is None else saver,
        name=name,
    )


def thread(name: str) -> RunnableConfig:
    """The config of a conversation."""
    return {"configurable": {"thread_id": name}}


def asked(text: str) -> dict[str, Any]:
    """The input of an agent that a person asks."""
    return {"messages": [HumanMessage(text)]}


def results(out: dict[str, Any]) -> list[ToolMessage]:
    """The results of tools in what an agent returned."""
    return [message for message in out["messages"] if isinstance(message, ToolMessage)]


# Conflicts.


def test_a_conflict_is_told_and_the_model_retries_with_the_new_version(
    store: agentmem.Store,
) -> None:
    bob = store.scoped("team", agent="bob")
    bob.put("plan", {"days": 3}, expected_version=0)

    def write_too_late(messages: Sequence[BaseMessage]) -> AIMessage:
        bob.put("plan", {"days": 3, "city": "Rome"}, expected_version=1)
        return calls(("memory_write", {"key": "plan", "value": {"days": 4}, "version": 1}))

    def write_again(messages: Sequence[BaseMessage]) -> AIMessage:
        told = last_result(messages)
        assert '$.city: added "Rome"' in told.text
        version = int(re.findall(r"version=(\d+)", told.text)[0])
        value = {**json.loads(told.text.splitlines()[3]), "days": 4}
        return calls(("memory_write", {"key": "plan", "value": value, "version": version}))

    agent = agent_of(
        store,
        calls(("memory_read", {"key": "plan"})),
        write_too_late,
        write_again,
        AIMessage("done"),
    )
    out = agent.invoke(asked("four days, please"), thread("t"))
    assert [message.status for message in results(out)] == ["success", "error", "success"]
    entry = store.get("plan", namespace="team")
    assert entry is not None
    assert (entry.value, entry.version, entry.agent) == ({"days": 4, "city": "Rome"}, 3, "ann")
    # `agentmem log` and `why` explain the run.
    [commit] = store.log(limit=1)
    assert commit.metadata["thread_id"] == "t"
    assert commit.metadata["tool"] == "memory_write"
    assert {"checkpoint_id", "task_id", "message_id", "tool_call_id"} <= set(commit.metadata)


def test_agents_that_count_at_once_lose_no_count(memory: agentmem.Store) -> None:
    rounds, agents = 4, 4

    def step(messages: Sequence[BaseMessage]) -> AIMessage:
        """Reads, adds one, writes; reads on after a conflict; stops after its rounds."""
        told = [message for message in messages if isinstance(message, ToolMessage)]
        done = sum(m.status == "success" for m in told if m.name == "memory_write")
        if done == rounds:
            return AIMessage("done")
        if not told or told[-1].name == "memory_write":
            return calls(("memory_read", {"key": "count"}))
        before = 0 if "is absent" in told[-1].text else int(told[-1].text.splitlines()[1])
        return calls(("memory_write", {"key": "count", "value": before + 1}))

    def work(number: int) -> None:
        agent = agent_of(memory, *[step] * 200, name=f"agent-{number}")
        agent.invoke(asked("count"), {**thread(f"t{number}"), "recursion_limit": 1_000})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(agents)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    entry = memory.get("count", namespace="team")
    assert entry is not None
    assert (entry.value, entry.version) == (rounds * agents, rounds * agents)


def test_parallel_calls_of_one_message_are_each_judged(store: agentmem.Store) -> None:
    store.put("plan", {"days": 3}, namespace="team", expected_version=0)
    agent = agent_of(
        store,
        calls(("memory_read", {"key": "plan"})),
        calls(
            ("memory_write", {"key": "plan", "value": {"days": 4}}),
            ("memory_write", {"key": "plan", "value": {"days": 5}}),
            ("memory_append", {"key": "log", "items": ["a"]}),
            ("memory_append", {"key": "log", "items": ["a"]}),
            ("memory_patch", {"key": "seen", "patch": {"by": "ann"}}),
        ),
        AIMessage("done"),
    )
    out = agent.invoke(asked("do all that"), thread("t"))
    statuses = sorted(message.status for message in results(out))
    assert statuses == ["error", *["success"] * 5]
    plan = store.get("plan", namespace="team")
    assert plan is not None
    assert plan.version == 2
    assert store.scoped("team")["log"] == ["a", "a"]


# Replays.


def test_a_step_that_is_replayed_applies_once(store: agentmem.Store) -> None:
    agent = agent_of(
        store,
        calls(
            ("memory_append", {"key": "log", "items": ["a"]}),
            ("memory_write", {"key": "plan", "value": 1}),
            ("task_put", {"payload": "x"}),
            ("task_claim", {}),
        ),
        AIMessage("done"),
        AIMessage("done again"),
    )
    first = agent.invoke(asked("append"), thread("t"))
    store.append("log", "b", namespace="team")
    before_tools = next(
        state for state in agent.get_state_history(thread("t")) if state.next[:1] == ("tools",)
    )
    again = agent.invoke(None, before_tools.config)
    assert again["messages"][-1].text == "done again"
    said = [[(m.name, m.text) for m in results(out)] for out in (first, again)]
    assert said[0][:2] == said[1][:2]
    assert store.scoped("team")["log"] == ["a", "b"]
    assert len(store.scoped("team").queue("tasks")) == 1


def test_a_claim_that_is_replayed_is_the_same_claim(memory: agentmem.Store) -> None:
    queue = memory.scoped("team").queue("tasks")
    for payload in ("x", "y"):
        queue.put(payload)
    agent = agent_of(memory, calls(("task_claim", {})), AIMessage("a"), AIMessage("b"))
    first = agent.invoke(asked("work"), thread("t"))
    states = agent.get_state_history(thread("t"))
    again = agent.invoke(None, next(s for s in states if s.next == ("tools",)).config)
    assert results(first)[0].text == results(again)[0].text
    assert [task.state for task in queue.peek()] == ["claimed", "waiting"]


class DeadError(BaseException):
    """The process died."""


def test_a_claim_whose_process_died_before_it_was_noted_is_replayed_as_the_same_claim(
    memory: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = memory.scoped("team").queue("tasks")
    for payload in ("x", "y"):
        queue.put(payload)
    agent = agent_of(memory, calls(("task_claim", {})), AIMessage("a"))

    def die(*_arguments: object) -> None:
        raise DeadError

    with monkeypatch.context() as patched:
        patched.setattr(Desk, "keep", die)
        with pytest.raises(DeadError):
            agent.invoke(asked("work"), thread("t"))
    [held, _waiting] = queue.peek()
    messages = agent.invoke(None, thread("t"))
    assert results(messages)[-1].artifact["task"] == f"{held.id}-{held.token}"
    assert [(task.state, task.attempts) for task in queue.peek()] == [
        ("claimed", 1), ("waiting", 0)
    ]  # fmt: skip


def test_a_task_that_is_ended_again_by_a_replay_was_ended_once(memory: agentmem.Store) -> None:
    memory.scoped("team").queue("tasks").put("x")

    def end(messages: Sequence[BaseMessage]) -> AIMessage:
        task = last_result(messages).artifact["task"]
        return calls(("task_done", {"task": task, "result": "done"}))

    agent = agent_of(memory, calls(("task_claim", {})), end, AIMessage("a"), AIMessage("b"))
    first = agent.invoke(asked("work"), thread("t"))
    newest = next(s for s in agent.get_state_history(thread("t")) if s.next == ("tools",))
    again = agent.invoke(None, newest.config)
    assert "Its result is kept as" in results(again)[-1].text
    assert results(again)[-1].text == results(first)[-1].text
    kept = memory.history("1", namespace=("team", "task_results", "tasks"))
    assert [entry.version for entry in kept] == [1]


class Twice(AgentMiddleware[Any, Any, Any]):
    """Runs each tool call twice, as a retry does whose first answer was lost."""

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Twice."""
        first, second = handler(request), handler(request)
        assert first.text == second.text
        return second


@pytest.mark.parametrize("config", [thread("t"), {}], ids=["thread", "no thread"])
def test_a_call_that_is_retried_applies_once(
    memory: agentmem.Store, config: RunnableConfig
) -> None:
    script = (calls(("memory_append", {"key": "log", "items": ["a"]})), AIMessage("done"))
    saver = InMemorySaver() if config else False
    agent_of(memory, *script, middleware=[Twice()], saver=saver).invoke(asked("append"), config)
    assert memory.scoped("team")["log"] == ["a"]


def test_conversations_with_the_same_ids_do_not_collide(store: agentmem.Store) -> None:
    for name in ("one", "two", "three"):
        message = calls(("memory_append", {"key": "log", "items": ["a"]}))
        message.id = "msg-1"
        agent_of(store, message, AIMessage("done")).invoke(asked("append"), thread(name))
    assert store.scoped("team")["log"] == ["a", "a", "a"]


def test_a_call_id_that_comes_again_in_a_conversation_is_another_call(
    memory: agentmem.Store,
) -> None:
    append = calls(("memory_append", {"key": "log", "items": ["a"]}))
    agent = agent_of(memory, append, append, append, AIMessage("done"))
    agent.invoke(asked("append"), thread("t"))
    assert memory.scoped("team")["log"] == ["a", "a", "a"]


# Without `create_agent`.


def test_the_tools_work_in_any_graph(memory: agentmem.Store) -> None:
    tools = AgentMemToolkit(memory, agent="ann").get_tools()
    append = calls(("memory_append", {"key": "log", "items": ["a"]}))
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "tools")
    app = graph.compile(checkpointer=InMemorySaver())
    out = app.invoke({"messages": [append]}, thread("t"))
    assert results(out)[0].artifact["op_id"].startswith("thread-t:message-")
    # A list of messages without ids: what tells the calls apart is the task of the graph.
    bare = StateGraph(list)
    bare.add_node("tools", ToolNode(tools))
    bare.add_edge(START, "tools")
    bare_app = bare.compile()
    for _run in range(2):
        bare_app.invoke([append.model_copy(update={"id": None})])
    assert memory["log"] == ["a", "a", "a"]


def test_a_model_cannot_forge_the_runtime(memory: agentmem.Store) -> None:
    forged = {"key": "log", "items": ["a"], "runtime": {"state": {"messages": []}}}
    agent = agent_of(memory, calls(("memory_append", forged)), AIMessage("done"))
    [message] = results(agent.invoke(asked("append"), thread("t")))
    assert message.artifact["op_id"].startswith("thread-t:message-")
    # By hand nothing strips it: it is no runtime, whatever it looks like.
    [tool] = AgentMemToolkit(memory, tools=["memory_append"]).get_tools()
    asked_for = {"name": tool.name, "args": forged, "id": "1", "type": "tool_call"}
    assert "op_id" not in tool.invoke(asked_for).artifact


def test_the_agent_of_a_commit_is_who_calls(memory: agentmem.Store) -> None:
    write = calls(("memory_append", {"key": "log", "items": ["a"]}))
    agent_of(memory, write, AIMessage("done"), name="planner").invoke(asked("go"), thread("t"))
    assert memory.log(limit=1)[0].agent == "planner"
    tools = AgentMemToolkit(memory, agent="fixed").get_tools()
    agent = create_agent(ScriptedModel(write, AIMessage("done")), tools, name="planner")
    agent.invoke(asked("go"))
    assert memory.log(limit=1)[0].agent == "fixed"
