"""The memory of classic chains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.base_memory import BaseMemory
from langchain_classic.chains import ConversationChain, LLMChain
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

import agentmem
from langchain_agentmem import AgentMemChatMessageHistory, AgentMemMemory

# Deprecated by LangChain in favour of LangGraph, and what this class is for; told once a process.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The class `(ConversationChain|LLMChain)` was deprecated:DeprecationWarning"
)

IMPORTS_WITHOUT_CLASSIC = """
import sys
sys.modules["langchain_classic"] = None
import agentmem, langchain_agentmem
for name in langchain_agentmem.__all__:
    try:
        getattr(langchain_agentmem, name)
    except agentmem.MissingExtraError as error:
        print(name, error.extra, error)
"""


def test_a_conversation_chain_remembers(store: agentmem.Store) -> None:
    for answers in (["hi ann", "ann"], ["still ann"]):
        memory = AgentMemMemory(store, "s1")
        chain = ConversationChain(llm=FakeListLLM(responses=answers), memory=memory)
        for answer in answers:
            result = chain.invoke({"input": "who am i?"})
            assert result["response"] == answer
    assert result["history"] == "Human: who am i?\nAI: hi ann\nHuman: who am i?\nAI: ann"
    assert AgentMemChatMessageHistory(store, "s1").messages[-1] == AIMessage("still ann")
    # A turn is one commit.
    assert store.revision == 3


async def test_a_chain_with_messages_and_names_of_its_own(store: agentmem.Store) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("talk"), ("human", "{question} in {language}")]
    )
    memory = AgentMemMemory(
        store, "s1", memory_key="talk", return_messages=True, input_key="question", k=1
    )
    model = FakeListChatModel(responses=["a", "b", "c"])
    chain = LLMChain(llm=model, prompt=prompt, memory=memory)
    for question in ("one?", "two?"):
        chain.invoke({"question": question, "language": "en"})
    result = await chain.ainvoke({"question": "three?", "language": "en"})
    assert result["talk"] == [HumanMessage("two?"), AIMessage("b")]
    assert len(AgentMemChatMessageHistory(store, "s1").messages) == 6


def test_what_the_prompt_sees_is_limited_and_all_is_kept(store: agentmem.Store) -> None:
    def seen(**fields: Any) -> Any:
        return AgentMemMemory(store, "s1", **fields).load_memory_variables({})["history"]

    assert seen() == ""
    for turn in "abc":
        AgentMemMemory(store, "s1").save_context({"input": turn}, {"output": turn.upper()})
    assert seen(k=1, human_prefix="Ann", ai_prefix="Bot") == "Ann: c\nBot: C"
    assert seen(k=0) == ""
    assert seen(k=9).count("\n") == 5
    three = seen(max_tokens=3, token_counter=len, return_messages=True)
    assert [message.content for message in three] == ["B", "c", "C"]
    assert seen(k=1, max_tokens=3, token_counter=len).count("\n") == 1
    memory = AgentMemMemory(store, "s1", output_key="output")
    memory.save_context({"input": "d"}, {"output": "D", "sources": "none"})
    assert seen(k=1) == "Human: d\nAI: D"
    memory.clear()
    assert seen() == ""


async def test_async_calls_do_the_same(store: agentmem.Store) -> None:
    memory = AgentMemMemory(store, "s1")
    await memory.asave_context({"input": "a"}, {"output": "A"})
    assert await memory.aload_memory_variables({}) == {"history": "Human: a\nAI: A"}
    await memory.aclear()
    assert await memory.aload_memory_variables({}) == {"history": ""}
    assert isinstance(memory, BaseMemory)
    assert memory.memory_variables == ["history"]


def test_a_target_is_opened_and_closed(tmp_path: Path) -> None:
    memory = AgentMemMemory(tmp_path / "chat.db", "s1")
    memory.save_context({"input": "a"}, {"output": "A"})
    memory.close()
    memory.close()
    with pytest.raises(agentmem.ClosedError):
        memory.load_memory_variables({})
    with pytest.raises(ValueError, match="k"):
        AgentMemMemory(tmp_path / "chat.db", "s1", k="many")


def test_without_the_extra_it_is_missing_and_nothing_else_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_WITHOUT_CLASSIC], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "AgentMemMemory classic AgentMemMemory needs langchain_classic: "
        "pip install 'agentmem-store[classic]'\n"
    )
