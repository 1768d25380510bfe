"""Nothing stored becomes an arbitrary object, and no filter reaches SQL: known holes, tried here.

CVE-2025-68664: user data with the key ``lc`` was taken for a serialized object and revived.
CVE-2025-64439: a payload of the kind ``json`` ran constructors, those of ``os`` among them.
CVE-2026-28277: msgpack payloads named a module and a callable, which were imported and called.
CVE-2025-67644, CVE-2025-8709: names and operators of metadata filters were put into SQL.
"""

from __future__ import annotations

import base64
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.conformance.test_utils import (
    generate_checkpoint,
    generate_config,
    generate_metadata,
)
from langgraph.checkpoint.serde import jsonplus
from pydantic import BaseModel

import agentmem
from langgraph_agentmem import AgentMemSaver
from langgraph_agentmem.checkpoint_places import Graph, checkpoint_key

CONSTRUCTORS: list[Any] = [
    {"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "HumanMessage"],
     "kwargs": {"content": "revived"}},
    {"lc": 1, "type": "secret", "id": ["PATH"]},
    {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["touch pwned"],
     "method": None},
]  # fmt: skip


class Mine(BaseModel):
    """A class of the application."""

    n: int = 0


@pytest.fixture
def saver(store: agentmem.Store) -> AgentMemSaver:
    """A saver that looks for no concurrent runs: tests write what they like."""
    return AgentMemSaver(store, concurrent_runs="allow")


@pytest.mark.parametrize("value", CONSTRUCTORS)
@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_constructor_keys_in_user_data_stay_data(saver: AgentMemSaver, value: Any) -> None:
    checkpoint = generate_checkpoint(
        channel_values={"data": value, "text": json.dumps(value), "large": [value] * 500},
        channel_versions={"data": 1, "text": 1, "large": 1},
    )
    metadata = generate_metadata(lc=1, found=value)
    saved = saver.put(generate_config("t"), checkpoint, metadata, {"data": 1})
    saver.put_writes(saved, [("data", value)], "task")
    found = saver.get_tuple(saved)
    assert found is not None
    assert found.checkpoint["channel_values"] == checkpoint["channel_values"]
    assert found.metadata == metadata
    assert found.pending_writes == [("task", "data", value)]
    assert len(list(saver.list(saved, filter={"found": value}))) == 1


def _tampered(saver: AgentMemSaver, kind: str, data: bytes) -> Any:
    """A thread whose checkpoint was overwritten, in the store, with this payload."""
    saved = saver.put(generate_config("t"), generate_checkpoint(), generate_metadata(), {})
    key = checkpoint_key(saved["configurable"]["checkpoint_id"])
    namespace = Graph.of(saved).checkpoints
    entry = saver.store.get(key, namespace=namespace)
    assert entry is not None
    payload = [kind, base64.b64encode(data).decode()]
    record = {**entry.value, "checkpoint": payload}
    saver.store.put(key, record, namespace=namespace, overwrite=True)
    return saved


@pytest.mark.parametrize("kind", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("payload", "data"),
    [
        ("json", json.dumps(CONSTRUCTORS[2]).encode()),
        ("json", json.dumps(CONSTRUCTORS[0]).encode()),
        ("pickle", pickle.dumps({"channel_values": {}})),
        ("other", b""),
    ],
)
def test_payloads_of_kinds_that_make_objects_are_refused(
    saver: AgentMemSaver, payload: str, data: bytes
) -> None:
    saved = _tampered(saver, payload, data)
    with pytest.raises(agentmem.InvalidValueError, match=payload):
        saver.get_tuple(saved)
    with pytest.raises(agentmem.InvalidValueError, match=payload):
        list(saver.list(saved))


@pytest.mark.parametrize("kind", ["memory"], indirect=True)
def test_a_msgpack_payload_imports_and_calls_nothing_that_is_not_known_to_be_safe(
    saver: AgentMemSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "pwned"
    (tmp_path / "never_imported.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    calls: list[tuple[int, Any]] = [
        (jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, ("os", "system", f"touch {marker}")),
        (jsonplus.EXT_CONSTRUCTOR_POS_ARGS, ("os", "system", [f"touch {marker}"])),
        (jsonplus.EXT_CONSTRUCTOR_KW_ARGS, ("os", "system", {"command": f"touch {marker}"})),
        (jsonplus.EXT_METHOD_SINGLE_ARG, ("os", "path", f"{marker}", "exists")),
        (jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, ("never_imported", "x", 1)),
        (jsonplus.EXT_PYDANTIC_V2, ("never_imported", "X", {"n": 1}, "model_validate_json")),
        (jsonplus.EXT_PYDANTIC_V1, ("never_imported", "X", {"n": 1})),
    ]
    packed = [ormsgpack.Ext(code, ormsgpack.packb(call)) for code, call in calls]
    evil = {**generate_checkpoint(), "channel_values": {"x": packed}}
    found = saver.get_tuple(_tampered(saver, "msgpack", ormsgpack.packb(evil)))
    assert found is not None
    assert found.checkpoint["channel_values"]["x"] == [call[2] for _code, call in calls]
    assert not marker.exists()
    assert "never_imported" not in sys.modules


@pytest.mark.parametrize("kind", ["memory"], indirect=True)
def test_own_classes_come_back_as_data_unless_they_are_allowed(store: agentmem.Store) -> None:
    values = {"mine": Mine(n=3), "message": HumanMessage("hello", id="1")}
    checkpoint = generate_checkpoint(channel_values=values)
    strict, open_to_it = AgentMemSaver(store), AgentMemSaver(store, allowed_types=[Mine])
    saved = strict.put(generate_config("t"), checkpoint, generate_metadata(), {})
    for saver, mine in ((strict, {"n": 3}), (open_to_it, Mine(n=3))):
        found = saver.get_tuple(saved)
        assert found is not None
        assert found.checkpoint["channel_values"] == {**values, "mine": mine}
    clone = strict.with_allowlist([(Mine.__module__, "Mine")])  # as a graph does, for its state
    cloned = clone.get_tuple(saved)
    assert cloned is not None
    assert cloned.checkpoint["channel_values"]["mine"] == Mine(n=3)


HOSTILE_NAMES = [
    "x') OR 1=1 --", 'x" OR "1"="1', "$", "$.step", "step') IS NOT NULL OR ('$",
    "a.b", "a\\.b", "$or", "$where", "*", "", "step' = 1; DROP TABLE heads; --", "ü·\u2028",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "postgres"], indirect=True)
def test_names_in_filters_are_names_and_nothing_else(saver: AgentMemSaver) -> None:
    saver.put(generate_config("t"), generate_checkpoint(), generate_metadata(), {})
    for name in HOSTILE_NAMES:
        metadata = generate_metadata(**{name: "mine"})
        saver.put(generate_config(name or "empty"), generate_checkpoint(), metadata, {})
    for name in HOSTILE_NAMES:
        (found,) = saver.list(None, filter={name: "mine"})
        assert found.config["configurable"]["thread_id"] == (name or "empty")
        assert list(saver.list(None, filter={name: "other"})) == []
        assert list(saver.list(generate_config("t"), filter={name: None})) != []  # absent is None
    assert len(list(saver.list(None))) == len(HOSTILE_NAMES) + 1


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize(
    "value", [{"$gt": -5}, {"$ne": 1}, ["$in"], "0 OR 1=1", "%", {"$exists": True}, True, 0.5]
)
def test_values_in_filters_are_compared_and_are_no_operators(
    saver: AgentMemSaver, value: Any
) -> None:
    saver.put(generate_config("t"), generate_checkpoint(), generate_metadata(step=7), {})
    assert list(saver.list(None, filter={"step": value})) == []
    saver.put(generate_config("u"), generate_checkpoint(), generate_metadata(odd=value), {})
    assert len(list(saver.list(None, filter={"odd": value}))) == 1
    for config in ({"thread_id": value}, {"thread_id": "t", "checkpoint_ns": str(value)}):
        assert list(saver.list({"configurable": config})) == []


@pytest.mark.parametrize("kind", ["memory"], indirect=True)
def test_a_part_that_is_gone_is_told(saver: AgentMemSaver) -> None:
    checkpoint = generate_checkpoint(channel_values={"x": "x" * 50_000})
    saved = saver.put(generate_config("t"), checkpoint, generate_metadata(), {})
    saver.store.clear(("langgraph", "t", "parts"))
    with pytest.raises(agentmem.CorruptionError, match="missing"):
        saver.get_tuple(saved)
