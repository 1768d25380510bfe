"""What a `DeltaChannel` is rebuilt from: the writes of its ancestors since it was stored whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite

from langgraph_agentmem.checkpoint_places import Graph, configurable
from langgraph_agentmem.checkpoint_reading import Reading
from langgraph_agentmem.checkpoint_rows import Found

__all__ = ["ancestors", "channel_history"]


def ancestors(find: Callable[[str], Found | None], found: Found | None) -> Iterator[Found]:
    """The ancestors of a checkpoint, nearest first, as far as they are there.

    A checkpoint that was put again under one of its own descendants closes a circle; it is walked
    once.

    Args:
        find: a checkpoint by its id.
    """
    seen = {found.record["id"]} if found is not None else set()
    while found is not None:
        parent = found.record["parent"]
        if parent is None or parent in seen:
            return
        seen.add(parent)
        found = find(parent)
        if found is not None:
            yield found


def channel_history(
    reading: Reading, config: RunnableConfig, channels: Sequence[str]
) -> Mapping[str, DeltaChannelHistory]:
    """For each channel the writes of the ancestors, oldest first, and what they start from."""
    graph, checkpoint_id = Graph.of(config), configurable(config).get("checkpoint_id")
    found: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
    if not channels:
        return found
    target = reading.found(graph, str(checkpoint_id) if checkpoint_id else None)
    newest_first: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    wanted = set(channels)
    for each in ancestors(partial(reading.found, graph), target):
        record = each.record
        for write in reversed(reading.writes(graph, each, wanted)):
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
