"""What a `DeltaChannel` is rebuilt from: the writes of its ancestors since it was stored whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite

from langgraph_agentmem.checkpoint_places import Graph, configurable
from langgraph_agentmem.checkpoint_reading import Reading

__all__ = ["ancestors", "channel_history"]


def ancestors(
    reading: Reading, graph: Graph, record: Mapping[str, Any] | None
) -> Iterator[Mapping[str, Any]]:
    """The records of a checkpoint's ancestors, nearest first, as far as they are there.

    A checkpoint that was put again under one of its own descendants closes a circle; it is walked
    once.
    """
    seen = {record["id"]} if record is not None else set()
    while record is not None and record["parent"] is not None and record["parent"] not in seen:
        seen.add(record["parent"])
        record = reading.record(graph, record["parent"])
        if record is not None:
            yield record


def channel_history(
    reading: Reading, config: RunnableConfig, channels: Sequence[str]
) -> Mapping[str, DeltaChannelHistory]:
    """For each channel the writes of the ancestors, oldest first, and what they start from."""
    graph, checkpoint_id = Graph.of(config), configurable(config).get("checkpoint_id")
    found: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
    if not channels:
        return found
    target = (
        reading.record(graph, str(checkpoint_id)) if checkpoint_id else reading.newest_record(graph)
    )
    newest_first: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    wanted = set(channels)
    for record in ancestors(reading, graph, target):
        for write in reversed(reading.writes(graph, record["id"], wanted)):
            newest_first[write[1]].append(write)
        bare = reading.bare(graph, record)
        for channel in list(wanted):
            try:
                found[channel]["seed"] = reading.channel(graph, record, bare, channel)
            except KeyError:
                continue
            wanted.discard(channel)
        if not wanted:
            break
    for channel, writes in newest_first.items():
        found[channel]["writes"] = writes[::-1]
    return found
