"""A LangGraph checkpointer on agentmem: threads that are neither lost nor silently forked."""

from __future__ import annotations

import asyncio
import secrets
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentmem import InvalidValueError
from langchain_agentmem.opening import HoldsStore, Target
from langchain_agentmem.runs import current_run
from langgraph_agentmem import checkpoint_runs as runs
from langgraph_agentmem import checkpoint_threads as threads
from langgraph_agentmem.checkpoint_history import channel_history
from langgraph_agentmem.checkpoint_places import Graph, configurable, thread_of
from langgraph_agentmem.checkpoint_reading import Query, Reading, tuple_at_present
from langgraph_agentmem.checkpoint_records import pack
from langgraph_agentmem.checkpoint_runs import (
    ConcurrentRunError,
    ConcurrentRuns,
    ConcurrentRunWarning,
)
from langgraph_agentmem.checkpoint_serializer import StrictSerializer
from langgraph_agentmem.checkpoint_writing import Child, Writing

__all__ = ["AgentMemSaver"]

_END: Final = object()
_MODES: Final = ("warn", "error", "allow")


class AgentMemSaver(HoldsStore, BaseCheckpointSaver[str]):
    """Keeps the checkpoints of LangGraph threads in an agentmem store.

    ::

        with AgentMemSaver("team.db") as saver:
            graph = builder.compile(checkpointer=saver)
            graph.invoke(inputs, {"configurable": {"thread_id": "thread-9"}})

    Each checkpoint is one commit, whose metadata names thread and run, so that ``agentmem log``
    tells the course of a run; which checkpoint it is, the key of the entry says. Sync and async
    methods may be used side by side, from any number of threads; the async ones run the sync ones
    in worker threads.

    Args:
        target: an open `agentmem.Store`, or what `agentmem.open` takes.
        concurrent_runs: what if two runs go on from the same checkpoint of a thread at once:
            ``"warn"`` (`ConcurrentRunWarning`; both are kept, as a fork), ``"error"``
            (`ConcurrentRunError`; the second is not written), or ``"allow"``, which looks for
            nothing. A run that is started at a ``checkpoint_id`` is a fork that is meant.
        allowed_types: classes of your own state, or (module, name) pairs, that a payload may be
            turned into; anything but LangGraph's safe types else comes back as plain data.
        serde: another serializer, for example LangGraph's ``EncryptedSerializer`` around a
            `StrictSerializer`.
        agent: who the commits are by.
        options: of `agentmem.open`, if the target is not an open store.
    """

    __module__ = "langgraph_agentmem"

    def __init__(
        self,
        target: Target,
        *,
        concurrent_runs: ConcurrentRuns = "warn",
        allowed_types: Iterable[type | tuple[str, ...]] = (),
        serde: SerializerProtocol | None = None,
        agent: str | None = None,
        **options: Any,
    ) -> None:
        if concurrent_runs not in _MODES:
            raise InvalidValueError(
                f"concurrent_runs is 'warn', 'error' or 'allow', not {concurrent_runs!r}"
            )
        super().__init__(serde=serde if serde is not None else StrictSerializer(allowed_types))
        # Checkpoints are nothing to search, so an own store does without an embedder.
        self._hold(target, **{"embedder": None, **options})
        self._concurrent_runs = concurrent_runs
        self._agent = agent
        self._writing = Writing(self.store, agent)
        self._identity = secrets.randbits(62)  # the same for clones with another allow-list

    @classmethod
    @contextmanager
    def from_conn_string(cls, target: Target, **options: Any) -> Iterator[Self]:
        """A saver that is closed at the end of the block; arguments as the class."""
        with cls(target, **options) as saver:
            yield saver

    def setup(self) -> None:
        """Does nothing: a store is set up when it is opened. LangGraph's savers have it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await asyncio.to_thread(self.close)

    # Reading.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the newest of its thread; None if there is none.

        Raises:
            InvalidValueError: the config names no thread, or one that no store can hold.
        """
        graph = Graph.of(config)
        found = self._get_tuple(graph, config)
        self._note_entry(graph, config)
        return found

    def _get_tuple(self, graph: Graph, config: RunnableConfig) -> CheckpointTuple | None:
        checkpoint_id = configurable(config).get("checkpoint_id")
        named = str(checkpoint_id) if checkpoint_id else None
        return tuple_at_present(self.store, self.serde, graph, named, config)

    def _note_entry(self, graph: Graph, config: RunnableConfig) -> None:
        """Remembers, in the caller's context, where it goes on from."""
        named = configurable(config)
        checkpoint_id = named.get("checkpoint_id")
        if checkpoint_id:
            runs.enter_at(self._identity, graph, named, str(checkpoint_id))
        else:
            runs.enter_at_newest(self._identity, graph, named)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first.

        Args:
            config: of one thread, with or without ``checkpoint_ns`` and ``checkpoint_id``; None
                is every thread.
            filter: only those whose metadata has exactly these values; names and values are
                compared in Python and reach no database.
            before: only those before the checkpoint of this config.
            limit: at most so many.

        Guarantees: all are read as of the moment of the first.
        """
        query = Query.parse(config, filter, before, limit)
        found = self._reading().matching(query)
        if config is None or not query.looks_for_one_before:
            yield from found
            return
        one = next(found, None)
        self._note_before(config, one)
        if one is not None:
            yield one

    def _note_before(self, config: RunnableConfig, found: CheckpointTuple | None) -> None:
        """A replay finds the checkpoints of its subgraphs so: it goes on from an old one."""
        checkpoint_id = found.checkpoint["id"] if found is not None else None
        runs.enter_at(self._identity, Graph.of(config), configurable(config), checkpoint_id)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """The writes of channels since they were last stored whole, along the parents."""
        return channel_history(self._reading(), config, channels)

    def _reading(self) -> Reading:
        return Reading(self.store.snapshot(), self.serde)

    # Writing.

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint, in one commit; the same id again replaces it.

        Returns: the config that names it.

        Raises:
            ConcurrentRunError: with ``concurrent_runs="error"``: another run has gone on from
                the same checkpoint. Nothing was written.
            InvalidValueError: the thread, or an id, is none that a store can hold.
            LimitExceededError: an id is too long.
        """
        graph, parent = Graph.of(config), configurable(config).get("checkpoint_id") or None
        whole = get_checkpoint_metadata(config, metadata)
        record, parts = pack(self.serde, checkpoint, whole, parent)
        child = Child(graph, checkpoint["id"], parent, record, parts, _who(config, graph))
        self._put_child(child, self._belief(graph, parent, metadata))
        named = configurable(config)
        return {
            "configurable": {
                "thread_id": named["thread_id"],
                "checkpoint_ns": graph.checkpoint_ns,
                "checkpoint_id": checkpoint["id"],
            }
        }

    def _belief(self, graph: Graph, parent: str | None, metadata: CheckpointMetadata) -> str:
        """What the writer takes its parent to be: ``newest``, ``named``, or ``unknown``."""
        if self._concurrent_runs == "allow":
            return "unknown"
        how = runs.entered(self._identity, graph)
        if metadata.get("source") == "fork" or (how is not None and parent in how.named):
            return "named"
        if how is None and parent is None:
            return "unknown"  # written by hand, by someone who has never looked
        return "newest"

    def _put_child(self, child: Child, belief: str) -> None:
        writing = self._writing
        if belief == "unknown":
            writing.replace(child)
            return
        if belief == "named":
            writing.fork(child)
            return
        other = writing.only_child(child, refuse=self._concurrent_runs == "error")
        if other is None:
            return
        message = runs.refusal(child.graph, child.parent, child.checkpoint_id, other)
        if self._concurrent_runs == "warn":
            warnings.warn(message, ConcurrentRunWarning, stacklevel=4)
            return
        raise ConcurrentRunError(
            message,
            thread_id=child.graph.thread_id,
            checkpoint_ns=child.graph.checkpoint_ns,
            parent_id=child.parent,
            checkpoint_id=child.checkpoint_id,
            other_id=other,
        )

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Stores what a task of a checkpoint wants to write, in one commit.

        The first write of a task to a channel's place stays, so a task that runs again changes
        nothing; errors, interrupts and answers to them are replaced.
        """
        graph, named = Graph.of(config), configurable(config)
        self._writing.writes(
            graph, str(named["checkpoint_id"]), writes, (task_id, task_path), self.serde,
            _who(config, graph),
        )  # fmt: skip

    def delete_thread(self, thread_id: str, *, purge: bool = False) -> None:
        """Deletes all checkpoints and writes of a thread.

        Args:
            purge: erase them from the history, too; see `agentmem.Store.admin`. Without it they
                can be read as of a revision of before.
        """
        threads.delete_thread(self.store, self._agent, thread_of({"thread_id": thread_id}))
        if purge:
            threads.purge_thread(self.store, self._agent, thread_of({"thread_id": thread_id}))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of runs, in every thread, with what their tasks wrote."""
        threads.delete_for_runs(self.store, self._agent, self.serde, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all checkpoints and writes of a thread to another."""
        source = thread_of({"thread_id": source_thread_id})
        target = thread_of({"thread_id": target_thread_id})
        threads.copy_thread(self.store, self._agent, source, target)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes what threads no longer need.

        Args:
            strategy: ``"keep_latest"`` keeps of each graph the newest checkpoint, and those of
                its ancestors that its `DeltaChannel`s are rebuilt from; ``"delete"`` keeps
                nothing.

        Raises:
            InvalidValueError: there is no such strategy.
        """
        threads.prune(self.store, self._agent, self.serde, thread_ids, strategy)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version of a channel after this one: larger, and never the same on two branches."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{secrets.token_hex(8)}"

    # The same, awaited: in worker threads, with the caller's context.

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        graph = Graph.of(config)
        found = await asyncio.to_thread(self._get_tuple, graph, config)
        # Not there: a worker thread has only a copy of the context.
        self._note_entry(graph, config)
        return found

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        query = Query.parse(config, filter, before, limit)
        found = self._reading_in(query)
        one = await asyncio.to_thread(next, found, _END)
        if config is not None and query.looks_for_one_before:
            self._note_before(config, one if isinstance(one, CheckpointTuple) else None)
        while isinstance(one, CheckpointTuple):
            yield one
            one = await asyncio.to_thread(next, found, _END)

    def _reading_in(self, query: Query) -> Iterator[CheckpointTuple]:
        """Opens the snapshot only in the worker thread that reads first."""
        yield from self._reading().matching(query)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await asyncio.to_thread(
            self.get_delta_channel_history, config=config, channels=channels
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """As `put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str, *, purge: bool = False) -> None:
        """As `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id, purge=purge)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)


def _who(config: RunnableConfig, graph: Graph) -> dict[str, str | int]:
    """The metadata of a commit: what many have in common, for the log is narrowed by it.

    A checkpoint's id would be a row more in each commit, and stands in the entry.
    """
    known = current_run(config).metadata()
    known.pop("checkpoint_id", None)
    known["checkpoint_ns"] = graph.checkpoint_ns
    return known
