"""LangGraph's long-term memory in agentmem: nothing that parallel nodes write is lost."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, Self, cast

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from agentmem import (
    AccessDeniedError,
    Commit,
    ConflictError,
    Entry,
    InvalidValueError,
    KeyMissingError,
    Snapshot,
    Store,
)
from agentmem.adapting import is_whole
from agentmem.views import View
from langchain_agentmem.opening import HoldsStore, Target
from langgraph_agentmem.quick import present_row, quick_item
from langgraph_agentmem.reading import Reader, check_writable
from langgraph_agentmem.running import Running, is_outside, running_transaction
from langgraph_agentmem.seen import Caller, Place, SeenVersions, current_caller
from langgraph_agentmem.sweeping import INTERVAL_MINUTES, Sweeper
from langgraph_agentmem.texts import FIELDS, Index, prefetched
from langgraph_agentmem.writing import TTL, Writer, cite, prune, refresh, refresh_in, text_of

__all__ = ["AgentMemStore"]

_BATCH_ATTEMPTS: Final = 20
_CONFLICTS: Final = ("detect", "overwrite")


class AgentMemStore(HoldsStore, BaseStore):
    """A LangGraph store on agentmem: a file, PostgreSQL, or memory.

    Basic setup and usage::

        from langgraph_agentmem import AgentMemStore

        with AgentMemStore.from_conn_string("team.db") as store:
            store.setup()
            store.put(("users", "123"), "prefs", {"theme": "dark"})
            item = store.get(("users", "123"), "prefs")

        graph = builder.compile(store=store)

    Vector search, with any LangChain embeddings or a function::

        with AgentMemStore.from_conn_string(
            "team.db", index={"dims": 1536, "embed": OpenAIEmbeddings(), "fields": ["text"]}
        ) as store:
            store.put(("docs",), "doc1", {"text": "Python tutorial"})
            store.search(("docs",), query="programming guides", limit=2)

    Guarantees:
        In a task of a graph, the store remembers which version of each key the task last read,
        absent included. What the task then puts or deletes carries that version: if another
        has written the key meanwhile, the key's merge strategy merges, or the call raises
        `ConflictError`, and nothing is written. LangGraph's default retry policy
        (``add_node(..., retry_policy=RetryPolicy())``) runs such a node again; without a policy
        the graph fails. Nothing is lost silently. A node that changes several items is for
        `transactional_node`: run again, it would put the first of them again.
        What a task writes names what it has read, so that ``agentmem why`` tells what came of what.
        Outside of a task the last write wins, as in LangGraph's own stores.
        A batch is one transaction: its reads see one state, its puts are applied together.
        Values are JSON, and stay what they are: nothing that is stored becomes an object.

    Attributes:
        agentmem: the store below, for snapshots, history, merge strategies, transactions.
        agent: who writes, as given; None: the agent of the store or, without one, the node.
    """

    __module__ = "langgraph_agentmem"
    supports_ttl = True

    def __init__(
        self,
        target: Target,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        conflicts: Literal["detect", "overwrite"] = "detect",
        agent: str | None = None,
        **options: Any,
    ) -> None:
        """Takes an open store, or opens a target.

        Args:
            target: an open `agentmem.Store`, or what `agentmem.open` takes.
            index: what is embedded, by what, as for LangGraph's stores; ``dims``, ``embed`` and
                ``fields``. For an open store ``embed`` is left out: it has an embedder. Without
                `index`, queries of `search` are ignored.
            ttl: how long items live, as for LangGraph's stores. Expired items are never shown.
            conflicts: ``"detect"`` protects what tasks write; ``"overwrite"`` lets the last
                write win there as well.
            agent: who writes, in the log; None: the agent of the store or, without one, the node.
            options: of `agentmem.open`, if a target is opened.

        Raises:
            InvalidValueError: an argument is not allowed, or the index is not the store's.
        """
        if conflicts not in _CONFLICTS:
            raise InvalidValueError(f"conflicts is 'detect' or 'overwrite', not {conflicts!r}")
        self._index = Index(index) if index is not None else None
        if self._index is not None and not isinstance(target, Store):
            if self._index.embedder is None:
                raise InvalidValueError("index needs 'embed': what makes vectors of texts")
            options["embedder"] = self._index.embedder
        elif not isinstance(target, Store):
            # As LangGraph's stores: vectors are made where an index asks for them.
            options.setdefault("embedder", None)
        self._hold(target, **options)
        if self._index is not None and isinstance(target, Store):
            self._index.belongs_to(target)
        self.index_config = index
        self.ttl_config = ttl
        self._conflicts = conflicts
        self.agent = agent
        self._at: Snapshot | None = None
        self._whole = is_whole(self.store)
        self._seen = SeenVersions()
        self._sweeper = Sweeper(self.sweep_ttl)

    @classmethod
    @contextmanager
    def from_conn_string(
        cls,
        conn_string: str,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        **options: Any,
    ) -> Iterator[Self]:
        """Opens a store, and closes it at the end.

        Args:
            conn_string: a path, ``":memory:"``, or ``postgresql://HOST/DATABASE?store=NAME``.
            index, ttl: as for the constructor.
            options: ``conflicts``, ``agent``, and those of `agentmem.open`.
        """
        with cls(conn_string, index=index, ttl=ttl, **options) as store:
            yield store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await asyncio.to_thread(self.close)

    def setup(self) -> None:
        """Does nothing: opening a store makes its tables. LangGraph's stores need the call."""

    def close(self) -> None:
        """Ends the sweeper, and closes the store if it was opened here. May be called again."""
        self._sweeper.stop()
        super().close()

    # LangGraph's interface. What is not here is done by `BaseStore`, with `batch`.

    def get(
        self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """One item, or None.

        Args:
            refresh_ttl: whether it lives on from now, if it has a time to live; None: as the
                TTL configuration says, by default it does.

        Raises:
            InvalidNamespaceError: a label is no label.
        """
        if self._whole and type(namespace) is tuple and is_outside() and self._at is None:
            row = present_row(self.store, namespace, str(key))
            if row is None:
                return None
            if row.expires_at is None:
                return quick_item(row, namespace)
        return super().get(namespace, key, refresh_ttl=refresh_ttl)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carries out operations as one transaction.

        Reads, wherever they stand, see the state before the batch; of several puts of one key
        the last counts.

        Raises:
            ConflictError: a task puts what another has written since the task read it.
            InvalidNamespaceError, ValueError: an operation is not allowed; nothing was done.
        """
        return self._batch(_checked(ops), current_caller())

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, in a thread."""
        checked = _checked(ops)
        caller = current_caller()  # here: in the thread there is no asyncio task to tell
        vectors = await self._index.prefetch(checked) if self._index is not None else {}
        return await asyncio.to_thread(self._batch_with, vectors, checked, caller)

    def _batch_with(
        self, vectors: Mapping[str, Any], ops: list[Op], caller: Caller
    ) -> list[Result]:
        with prefetched(vectors):
            return self._batch(ops, caller)

    def _batch(self, ops: list[Op], caller: Caller) -> list[Result]:
        running = running_transaction(self.store)
        puts = _last_puts(ops)
        if self._at is not None:
            if puts:
                raise AccessDeniedError("a snapshot cannot be written", access="write")
            return _answers(Reader(self._at, self._index), ops)
        if running is not None:
            return self._in_transaction(running, ops, puts, caller)
        if not puts:
            return self._read(ops, caller)
        if len(ops) == 1 and self._put_alone(cast(PutOp, ops[0]), caller):
            return [None]
        return self._commit(ops, puts, caller)

    def _in_transaction(
        self, running: Running, ops: list[Op], puts: dict[Place, PutOp], caller: Caller
    ) -> list[Result]:
        reader = Reader(running.tx, self._index)
        results = _answers(reader, ops)
        refresh_in(running.tx, reader.touched)
        running.read(caller, (place for place, _version in reader.seen))
        writer = Writer(running.tx, self._index)
        for place, op in puts.items():
            running.write(caller, place, functools.partial(writer.write, op))
        return results

    def _read(self, ops: list[Op], caller: Caller) -> list[Result]:
        alone = len(ops) == 1 and isinstance(ops[0], GetOp)
        view: View = self.store if alone else self.store.snapshot()
        reader = Reader(view, self._index)
        results = _answers(reader, ops)
        self._seen.note(caller, reader.seen)
        if reader.touched:
            refresh(self.store, reader.touched, **self._who(caller))
        return results

    def _put_alone(self, op: PutOp, caller: Caller) -> bool:
        """Puts one item without a transaction; False if it needs one."""
        if self._base(caller, (op.namespace, op.key)) is not None or op.ttl is not None:
            return False
        if self._seen.cited(caller):
            return False
        text, further = text_of(self._index, op)
        if op.value is None or further:
            return False
        entry = self.store.put(
            op.key, dict(op.value), namespace=op.namespace, overwrite=True, text=text,
            **self._who(caller),
        )  # fmt: skip
        self._seen.note(caller, [((op.namespace, op.key), entry.version or 0)], written=True)
        return True

    def _commit(self, ops: list[Op], puts: dict[Place, PutOp], caller: Caller) -> list[Result]:
        """Reads and writes as one; runs again while only what it read itself has moved."""
        bases = {place: self._base(caller, place) for place in puts}
        cited = [each for each in self._seen.cited(caller) if each[0] not in puts]
        for attempt in range(1, _BATCH_ATTEMPTS + 1):
            tx = self.store.transaction(**self._who(caller))
            cite(tx, cited)
            reader = Reader(tx, self._index)
            results = _answers(reader, ops)
            refresh_in(tx, reader.touched)
            writer = Writer(tx, self._index)
            for place, op in puts.items():
                base = bases[place]
                if base is None:
                    writer.write(op, overwrite=True)
                else:
                    writer.write(op, expected_version=base)
            try:
                commit = tx.commit()
            except ConflictError as error:
                tx.rollback()
                of_bases = any(conflict.kind == "write" for conflict in error.conflicts)
                if of_bases or attempt == _BATCH_ATTEMPTS:
                    raise
            else:
                self._seen.note(caller, reader.seen)
                self._seen.note(caller, _written(commit, puts), written=True)
                return results
        raise AssertionError("the last attempt returns or raises")

    def _base(self, caller: Caller, place: Place) -> int | None:
        return self._seen.base(caller, place) if self._conflicts == "detect" else None

    def _who(self, caller: Caller) -> dict[str, Any]:
        """Who commits, and in which run."""
        if caller.is_outside:
            return {} if self.agent is None else {"agent": self.agent}
        run = caller.run
        agent = self.agent
        if agent is None and self.store.agent is None:
            agent = run.node
        return {"agent": agent, "metadata": run.metadata() or None}

    # TTL.

    def sweep_ttl(self) -> int:
        """Removes expired items from the storage; they are not shown anyway.

        Returns: how many entries of the store had expired.

        Raises:
            AccessDeniedError: it is a scoped view; sweep the whole store.
        """
        expired = self.store.admin.compact().expired
        prune(self.store)
        return expired

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Sweeps again and again, in a thread.

        Args:
            sweep_interval_minutes: how often; None: as configured, else every 5 minutes.

        Returns: a future; cancelling it stops the thread. Without a TTL configuration nothing
            is started, and it is done.
        """
        if not self.ttl_config:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        configured = self.ttl_config.get("sweep_interval_minutes")
        return self._sweeper.start(sweep_interval_minutes or configured or INTERVAL_MINUTES)

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Ends the sweeper's thread.

        Args:
            timeout: seconds to wait for it; None: as long as it takes.

        Returns: whether it has ended.
        """
        return self._sweeper.stop(timeout)

    # What LangGraph's stores do not have.

    @property
    def agentmem(self) -> Store:
        """The store below: snapshots, history, merge strategies, transactions, the log."""
        return self.store

    def version_of(self, namespace: Sequence[str], key: str) -> int:
        """The version of an item; 0 if it is absent."""
        view: View = self._at if self._at is not None else self.store
        entry: Entry[Any] | None = view.get(key, namespace=tuple(namespace))
        return (entry.version or 0) if entry is not None else 0

    def history(
        self, namespace: Sequence[str], key: str, *, limit: int | None = None
    ) -> list[Entry[Any]]:
        """The versions of an item, newest first, deletions included; see `agentmem.Store.history`.

        In a snapshot, those up to its revision.
        """
        upto = self._at.revision if self._at is not None else None
        return self.store.history(key, namespace=tuple(namespace), upto=upto, limit=limit)

    def purge(self, namespace: Sequence[str], key: str, *, note: str | None = None) -> None:
        """Erases an item with its whole history, and all texts of it; see `Admin.purge`.

        Raises:
            KeyMissingError: there was never such an item.
            StoreBusyError: somebody reads an older state; run it again.
            AccessDeniedError: it is a scoped view; purge in the whole store.
        """
        labels = tuple(namespace)
        # First what stands beside it: after an interruption the item is still there to purge.
        for beside in ((FIELDS, *labels, key), (TTL, *labels)):
            with suppress(KeyMissingError):
                self.store.admin.purge(
                    key if beside[0] == TTL else None,
                    namespace=beside, agent=self.agent, note=note,
                )  # fmt: skip
        self.store.admin.purge(key, namespace=labels, agent=self.agent, note=note)

    def snapshot(self, at: object = None) -> AgentMemStore:
        """The same store as it was at one revision, to read only.

        Args:
            at: None is now; a revision, the name of a tag, or an aware datetime.

        Raises:
            RevisionError: there is no such state, or it can no longer be read.
        """
        view: AgentMemStore = object.__new__(AgentMemStore)
        view.__dict__.update(self.__dict__)
        view._opened_here = False
        view._at = self.store.snapshot(at)
        view._sweeper = Sweeper(view.sweep_ttl)
        return view

    def __repr__(self) -> str:
        at = f", at={self._at.revision}" if self._at is not None else ""
        return f"AgentMemStore({self.store!r}{at})"

    def __del__(self) -> None:
        with suppress(AttributeError):  # it was never made
            self._sweeper.stop(0)


def _checked(ops: Iterable[Op]) -> list[Op]:
    """Operations that may be carried out; all of them, or none."""
    found: list[Op] = []
    for op in ops:
        if not isinstance(op, (GetOp, SearchOp, ListNamespacesOp, PutOp)):
            raise ValueError(f"Unknown operation type: {type(op)}")
        validate_op_namespace(op)
        if isinstance(op, PutOp):
            check_writable(op.namespace)
            if op.value is not None and not isinstance(op.value, Mapping):
                raise InvalidValueError(
                    f"the value of {op.key!r} is a mapping of names to JSON, not "
                    f"{type(op.value).__name__}"
                )
            found.append(op if type(op.key) is str else op._replace(key=str(op.key)))
        else:
            found.append(op)
    return found


def _last_puts(ops: Iterable[Op]) -> dict[Place, PutOp]:
    """Of each key that is put, the last put."""
    return {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}


def _answers(reader: Reader, ops: Iterable[Op]) -> list[Result]:
    """The results of a batch, in its order; that of a put is None."""
    results: list[Result] = []
    for op in ops:
        if isinstance(op, GetOp):
            results.append(reader.get(op))
        elif isinstance(op, SearchOp):
            results.append(cast("list[Item]", reader.search(op)))
        elif isinstance(op, ListNamespacesOp):
            results.append(reader.namespaces(op))
        else:
            results.append(None)
    return results


def _written(commit: Commit, puts: Mapping[Place, PutOp]) -> Iterator[tuple[Place, int]]:
    """The versions that a task has made, and so knows.

    What was merged it does not know: its next put still starts from what it read, and is merged
    again, else it would take away what the other has written.
    """
    for change in commit.changes:
        place = (change.namespace, change.key)
        if place in puts and change.merged is None:
            yield place, 0 if puts[place].value is None else change.version
