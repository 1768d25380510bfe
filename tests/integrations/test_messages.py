"""Messages go through JSON unharmed, and nothing in the JSON makes anything but a message."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    ToolMessage,
    messages_from_dict,
)
from pydantic import BaseModel

from agentmem import InvalidValueError
from langchain_agentmem.messages import message_of, message_value
from tests.integrations.message_strategies import CONSTRUCTORS, messages
from tests.strategies import invalid_values, json_values


def through_json(message: BaseMessage) -> BaseMessage:
    return message_of(json.loads(json.dumps(message_value(message))), "chat/s1")


@given(message=messages())
def test_a_message_comes_back_as_it_was(message: BaseMessage) -> None:
    before = copy.deepcopy(message)
    found = through_json(message)
    assert type(found) is type(message)
    assert found == message == before
    assert message_value(found) == message_value(message)


@given(message=messages())
def test_langchain_reads_the_same_message_from_what_is_stored(message: BaseMessage) -> None:
    (read,) = messages_from_dict([message_value(message)])
    assert read == through_json(message)


@given(value=invalid_values())
def test_what_is_not_json_is_refused_with_its_path(value: Any) -> None:
    message = ToolMessage("x", tool_call_id="call", artifact=value)
    with pytest.raises(InvalidValueError) as caught:
        message_value(message)
    assert caught.value.path.startswith("$.data.artifact")


def test_an_object_as_artifact_is_refused_and_a_model_is_dumped() -> None:
    class Found(BaseModel):
        pages: tuple[int, ...]

    with pytest.raises(InvalidValueError, match=r"\$\.data\.artifact\.at\[1\]: object is not JSON"):
        message_value(ToolMessage("x", tool_call_id="c", artifact={"at": [1, object()]}))
    message = ToolMessage("x", tool_call_id="c", artifact=Found(pages=(1, 2)))
    found = through_json(message)
    assert isinstance(found, ToolMessage)
    assert found.artifact == {"pages": [1, 2]}


def test_a_chunk_is_stored_as_a_whole_message() -> None:
    chunk = AIMessageChunk(
        "Rome",
        id="run-1",
        tool_call_chunks=[{"name": "look", "args": '{"at": 1}', "id": "c", "index": 0}],
        chunk_position="last",
    )
    found = through_json(chunk)
    assert type(found) is AIMessage
    assert found.tool_calls == [{"name": "look", "args": {"at": 1}, "id": "c", "type": "tool_call"}]
    assert (found.content, found.id, found.model_extra) == ("Rome", "run-1", {})
    assert through_json(HumanMessageChunk("hi")) == HumanMessage("hi")


def test_what_could_not_be_read_back_is_not_stored() -> None:
    called, named = AIMessage("x"), AIMessage("x")
    called.tool_calls = [{"name": "private"}]  # type: ignore[typeddict-item]  # what is tested
    named.name = ["private"]  # type: ignore[assignment]  # what is tested
    for message, field in ((called, "data"), (named, "name")):
        with pytest.raises(InvalidValueError, match=f"not be read back: {field} is") as caught:
            message_value(message)
        assert "private" not in str(caught.value)


def test_an_answer_that_comes_from_a_cache_can_be_stored() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    for before, after in (({}, None), (usage, usage | {"total_cost": 0})):
        # As LangChain marks it: "We zero out cost on cache hits".
        cached = AIMessage("x").model_copy(update={"usage_metadata": before | {"total_cost": 0}})
        found = through_json(cached)
        assert isinstance(found, AIMessage)
        assert found.usage_metadata == after
        assert message_value(found) == message_value(cached)


def test_what_a_subclass_adds_is_kept_as_fields_of_the_class_of_the_table() -> None:
    class Signed(HumanMessage):
        by: str

    found = through_json(Signed("hi", by="ann"))
    assert type(found) is HumanMessage
    assert found.model_extra == {"by": "ann"}


def test_a_message_of_another_type_is_refused() -> None:
    class Odd(BaseMessage):
        type: str = "odd"

    class Disguised(BaseMessage):
        type: str = "human"

    for message in (Odd(content="x"), Disguised(content="x"), RemoveMessage(id="1")):
        with pytest.raises(InvalidValueError, match="is not stored") as caught:
            message_value(message)
        assert caught.value.path == "$.type"
    with pytest.raises(TypeError, match="BaseMessage, not str"):
        message_value("hi")  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("value", CONSTRUCTORS, ids=str)
def test_a_constructor_is_no_message(
    value: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTMEM_TEST_SECRET", "secret")
    disguised = [value | {"type": "human", "data": value}, {"type": "human", "data": value}]
    for hostile in (value, {"type": "constructor", "data": value}, *disguised):
        with pytest.raises(InvalidValueError) as caught:
            message_of(hostile, "chat/s1/messages/7")
        assert "chat/s1/messages/7" in str(caught.value)
        assert "secret" not in str(caught.value).replace("'secret'", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", CONSTRUCTORS, ids=str)
def test_a_constructor_inside_of_a_message_stays_what_it_is(
    value: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTMEM_TEST_SECRET", "secret")
    found = through_json(
        ToolMessage(
            [value, "text"],
            tool_call_id="call",
            artifact=value,
            additional_kwargs=value,
            response_metadata={"inner": [value]},
        )
    )
    assert isinstance(found, ToolMessage)
    assert found.content == [value, "text"]
    assert found.artifact == found.additional_kwargs == value
    assert found.response_metadata == {"inner": [value]}


@given(kind=json_values(), fields=json_values())
def test_any_json_is_a_message_or_a_typed_error(kind: Any, fields: Any) -> None:
    for value in (kind, {"type": kind, "data": fields}, {"type": "tool", "data": fields}):
        with pytest.raises(InvalidValueError):
            message_of(value, "chat/s1")


def test_an_error_of_reading_tells_the_field_and_not_the_value() -> None:
    value = {"type": "ai", "data": {"content": "x", "type": "human", "usage_metadata": "private"}}
    with pytest.raises(InvalidValueError, match=r"type, usage_metadata cannot be read") as caught:
        message_of(value, "chat/s1")
    assert "private" not in str(caught.value)
    hostile = {"type": "human", "data": {"content": "x", "self": 1}}
    with pytest.raises(InvalidValueError):
        message_of(hostile, "chat/s1")
