"""The Hypothesis vocabulary of messages: every type that is stored, with every field it has."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from tests.strategies import json_objects, json_values, texts

__all__ = ["CONSTRUCTORS", "messages"]

# What has made other stores import a class, call it, or read a secret (CVE-2025-68664,
# CVE-2025-64439, CVE-2026-28277).
CONSTRUCTORS: Final[tuple[dict[str, Any], ...]] = (
    {"lc": 1, "type": "secret", "id": ["AGENTMEM_TEST_SECRET"]},
    {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain_core", "messages", "human", "HumanMessage"],
        "kwargs": {"content": "constructed"},
    },
    {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["touch constructed"]},
    {"lc": 2, "type": "constructor", "id": ["subprocess", "getoutput"], "kwargs": {"cmd": "id"}},
    {"__lc_escaped__": {"lc": 1, "type": "secret", "id": ["AGENTMEM_TEST_SECRET"]}},
    {"py/object": "os.system", "__reduce__": ["os.system", ["id"]], "__class__": "os"},
)


def _objects() -> SearchStrategy[dict[str, Any]]:
    constructors = st.sampled_from(CONSTRUCTORS).map(dict)
    return st.one_of(
        json_objects(), constructors, st.fixed_dictionaries({"inner": st.lists(constructors)})
    )


def _contents() -> SearchStrategy[Any]:
    blocks = st.one_of(
        texts(),
        texts().map(lambda text: {"type": "text", "text": text}),
        texts().map(lambda url: {"type": "image_url", "image_url": {"url": url}}),
        _objects(),
    )
    return texts(max_size=30) | st.lists(blocks, max_size=3)


def _calls() -> SearchStrategy[list[Any]]:
    call = {
        "name": texts(),
        "args": _objects(),
        "id": st.none() | texts(),
        "type": st.just("tool_call"),
    }
    return st.lists(st.fixed_dictionaries(call), max_size=2)


def _invalid_calls() -> SearchStrategy[list[Any]]:
    optional = st.none() | texts()
    return st.lists(
        st.fixed_dictionaries(
            {"name": optional, "args": optional, "id": optional, "error": optional}
        ),
        max_size=1,
    )


def _usages() -> SearchStrategy[dict[str, Any]]:
    counts = st.integers(0, 2**40)
    return st.fixed_dictionaries(
        {"input_tokens": counts, "output_tokens": counts, "total_tokens": counts},
        optional={
            "input_token_details": st.dictionaries(
                st.sampled_from(("audio", "cache_creation", "cache_read")), counts
            ),
            "output_token_details": st.dictionaries(
                st.sampled_from(("audio", "reasoning")), counts
            ),
        },
    )


def messages() -> SearchStrategy[BaseMessage]:
    """Messages of every type, whose fields are JSON."""
    common: dict[str, SearchStrategy[Any]] = {
        "content": _contents(),
        "additional_kwargs": _objects(),
        "response_metadata": _objects(),
        "name": st.none() | texts(),
        "id": st.none() | texts(min_size=1),
    }
    name = common | {"name": texts(min_size=1)}
    answer = common | {
        "tool_calls": _calls(),
        "invalid_tool_calls": _invalid_calls(),
        "usage_metadata": st.none() | _usages(),
    }
    result = common | {
        "tool_call_id": texts(),
        "artifact": json_values() | _objects(),
        "status": st.sampled_from(("success", "error")),
    }
    further = st.dictionaries(st.sampled_from(("example", "lc", "kwargs", "extra")), json_values())

    def instances(
        cls: type[BaseMessage], known: dict[str, SearchStrategy[Any]]
    ) -> SearchStrategy[BaseMessage]:
        return st.builds(
            lambda fields, others: cls(**fields, **others), st.fixed_dictionaries(known), further
        )

    return st.one_of(
        instances(AIMessage, answer),
        instances(ChatMessage, common | {"role": texts()}),
        instances(FunctionMessage, name),
        instances(HumanMessage, common),
        instances(SystemMessage, common),
        instances(ToolMessage, result),
    )
