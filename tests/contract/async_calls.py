"""Every call of the async API, once, with what it does; so that a test can say it made them all."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from pydantic import BaseModel

import agentmem
from agentmem.aio import AsyncStore, AsyncTransaction

__all__ = ["CALLS", "Note"]

Check = Callable[[AsyncStore, Path], Awaitable[object]]


class Note(BaseModel):
    """What a collection holds."""

    title: str
    stars: int = 0


async def _reads(store: AsyncStore, _folder: Path) -> None:
    first = await store.put("plan", {"days": 3}, namespace="team")
    await store.put_many({"a": 1, "b": 2})
    async with store.snapshot() as snap:
        assert snap.revision == await store.revision
        assert snap.instant.tzinfo is not None
        await store.put("a", 5, overwrite=True)
        assert await snap.value("a") == 1
        tx = await store.transaction()
        for view in (store, snap, tx):
            assert await view.get("plan", namespace="team") == first
            assert await view.get("none", default=7) == 7
            assert set(await view.get_many(["a", "b", "c"])) == {"a", "b"}
            assert await view.has("a")
            assert not await view.has("c")
            assert [entry.key for entry in await view.list()] == ["a", "b", "plan"]
            assert await view.count("team") == 1
            assert await view.namespaces() == [(), ("team",)]
            assert [hit.entry.key for hit in await view.search("days")] == []
            assert await view.collection(int, ()).get("b") == await view.get("b")
    assert (await store.snapshot(at=1)).revision == 1


async def _writes(store: AsyncStore, _folder: Path) -> None:
    assert (await store.add("x", namespace="notes")).version == 1
    await store.increment("n", 2)
    await store.append("list", 1, 2)
    await store.add_to_set("set", 1, 1)
    await store.patch("object", {"a": 1})
    await store.touch("n", 60)
    assert [await store.value(key) for key in ("n", "list", "set", "object")] == [
        2,
        [1, 2],
        [1],
        {"a": 1},
    ]
    deleted = await store.delete("n")
    assert deleted is not None
    assert deleted.deleted
    assert await store.clear("notes") == 1
    assert [entry.version for entry in await store.history("object")] == [1]
    assert len(await store.log()) == await store.revision
    assert (await store.floor, store.prefix, store.agent) == (0, (), None)
    assert store.scoped("team", agent="ann").prefix == ("team",)
    assert store.scoped("team").store_id == store.store_id
    assert store.limits == agentmem.Limits()

    async def more(value: int) -> int:
        assert await store.has("list")
        return value + 1

    assert (await store.update("m", more, default=1)).value == 2  # type: ignore[union-attr]  # it returns one
    assert (await store.update("m", lambda value: value + 1)).value == 3  # type: ignore[union-attr]  # the same


async def _transactions(store: AsyncStore, _folder: Path) -> None:
    async with store.transaction(agent="ann", op_id="first") as tx:
        assert (tx.revision, tx.applied, tx.agent) == (0, None, "ann")
        await tx.knows({})
        await tx.cite("seen", 1)
        await tx.put("a", 1)
        await tx.put_many({"b": 2, "c": 3})
        key = await tx.add("x", namespace="notes")
        await tx.increment("n")
        await tx.append("list", 1)
        await tx.add_to_set("set", 1)
        await tx.patch("object", {"a": 1})
        await tx.delete("c")
        await tx.touch("b", 60)
        assert await tx.value("n") == 1
        assert await tx.has(key) is False
        assert await tx.count() == 7
        assert [entry.key for entry in await tx.list("notes")] == [key]
        await tx.clear("notes")
        assert await tx.get(key, namespace="notes") is None
    assert await store.count() == 6
    async with store.transaction(op_id="first") as tx:
        assert tx.applied is not None
        assert tx.applied.op_id == "first"
    tx = await store.transaction()
    assert await tx.value("a") == 1
    await tx.put("z", 1)
    await store.put("a", 2, overwrite=True)
    stale = await tx.stale()
    assert [item.key for item in stale] == ["a"]
    await tx.rebase(accept=stale)
    assert (await tx.commit()).revision == await store.revision
    tx = await store.transaction()
    await tx.put("z", 3)
    await tx.rollback()
    assert await store.value("z") == 1

    async def book(tx: AsyncTransaction) -> tuple[str, int]:
        await tx.increment("n")
        return "n", await tx.value("n")

    assert await store.transact(book, op_id="book") == ["n", 2]
    assert await store.transact(book, op_id="book") == ["n", 2]
    assert await store.transact(lambda tx: tx.count(), lock=["n"]) == 7


async def _coordination(store: AsyncStore, _folder: Path) -> None:
    async with store.lease("plan", agent="ann") as lease:
        assert lease.name == "plan"
        assert lease.lost is None
        await lease.renew()
        assert [(each.name, each.token) for each in await store.leases()] == [("plan", lease.token)]
        async with store.transaction() as tx:
            await tx.guard(lease)
            await lease.guard(tx)
            await tx.put("guarded", 1)
    assert not await lease.release()
    assert await (await lease.acquire()).release()
    assert await store.break_lease("plan") is None
    queue = store.queue("tasks")
    assert queue.name == "tasks"
    number = await queue.put({"city": "Rome"}, op_id="rome")
    assert await queue.count() == 1
    assert [each.id for each in await queue.peek()] == [number]
    task = await queue.claim("worker", wait_s=5, op_id="call-1")
    assert task is not None
    again = await queue.claim("worker", op_id="call-1")
    assert again is not None
    assert again.token == task.token
    assert (task.id, task.payload, task.attempts, task.queue) == (
        number,
        {"city": "Rome"},
        1,
        "tasks",
    )
    assert (task.priority, task.group, task.max_attempts) == (0, None, 5)
    await task.extend()
    await (await queue.task(task.id, task.token)).nack(note="later")
    task = await queue.claim()
    assert task is not None
    async with store.transaction() as tx:
        await tx.queue("tasks").put("next")
        await task.ack(tx)
    assert [state.waiting for state in await store.queues()] == [1]
    task = await store.queue("tasks").claim()
    assert task is not None
    await task.ack()
    once = store.queue("once", max_attempts=1)
    for _time in range(2):
        await once.put("dies")
        task = await once.claim()
        assert task is not None
        await task.nack()
    assert len(await once.dead()) == 2
    await once.put_again((await once.dead())[0].id)
    await once.discard((await once.dead())[0].id)
    assert await once.dead() == []


async def _feeds(store: AsyncStore, _folder: Path) -> None:
    await store.put("a", 1, namespace="team")
    await store.put("b", 1)
    assert [event.revision async for event in store.watch(since=0, timeout_s=0)] == [1, 2]
    async with store.watch("team", since=0, consumer="planner", timeout_s=0) as feed:
        event = await feed.next()
        assert event is not None
        assert await feed.next(timeout_s=0) is None
        async with store.transaction() as tx:
            await tx.ack(event)
            await tx.put("seen", event.revision)
        assert [state.revision for state in await store.consumers()] == [1]
        await store.put("c", 1, namespace="team")
        event = await anext(feed)
        await feed.ack(event)
        feed.stop()
        assert await feed.next() is None
    feed = await store.watch(consumer="planner", timeout_s=0)
    await feed.close()
    assert await store.break_consumer("planner") is None
    assert await store.forget_consumer("planner")


async def _once(store: AsyncStore, _folder: Path) -> None:
    calls: list[object] = []

    async def pay() -> dict[str, int]:
        calls.append(await store.count())
        return {"receipt": 17}

    assert [await store.once("pay", pay) for _time in range(2)] == [{"receipt": 17}] * 2
    assert await store.once("plain", lambda: 3) == 3

    @store.cached_tool(ttl_s=60)
    async def search(query: str, limit: int = 3) -> list[str]:
        calls.append(query)
        return [query] * limit

    @store.cached_tool
    def plain(query: str) -> str:
        return query

    assert await search("rome", limit=2) == await search(query="rome", limit=2) == ["rome", "rome"]
    assert await plain("x") == "x"
    assert calls == [0, "rome"]


async def _merging(store: AsyncStore, _folder: Path) -> None:
    @store.merge_hook("notes/**")
    async def keep_both(conflict: agentmem.Conflict) -> Any:
        assert await store.count("notes") == 1
        return sorted({*conflict.theirs, *conflict.ours})

    first = await store.put("k", [1], namespace="notes")
    await store.put("k", [1, 2], namespace="notes", expected_version=first.version)
    await store.put("k", [1, 3], namespace="notes", expected_version=first.version)
    entry = await store.get("k", namespace="notes")
    assert entry is not None
    assert entry.value == [1, 2, 3]
    await store.set_merge("plans/**", "json")
    assert [pattern for pattern, _spec in await store.merges()] == ["plans/**"]
    assert [each.strategy for each in await store.audit.conflicts()] == ["keep_both"]


async def _collections(store: AsyncStore, _folder: Path) -> None:
    notes = store.collection(Note, "notes")
    assert notes.namespace == ("notes",)
    await notes.put("a", Note(title="A"))
    await notes.add(Note(title="B"))
    assert (await notes.value("a")).title == "A"
    assert await notes.has("a")

    async def star(note: Note) -> Note:
        return Note(title=note.title, stars=note.stars + int(await store.has("none")) + 1)

    await notes.update("a", star)
    entry = await notes.get("a")
    assert entry is not None
    assert entry.value.stars == 1
    async with store.transaction() as tx:
        await notes.on(tx).update("a", star)
        await notes.on(tx).delete((await notes.on(tx).list(limit=2))[0].key)
    assert len(await notes.list()) == 1


async def _audit(store: AsyncStore, _folder: Path) -> None:
    audit = store.audit
    for days in (3, 4):
        await store.put("plan", {"days": days}, overwrite=True)
    assert len(await audit.diff("plan", 1, 2)) == 1
    assert [each.key async for each in audit.diff_revisions(0)] == ["plan"]
    assert (await audit.blame("plan"))[0].version == 2
    assert (await audit.version("plan", 1)).value == {"days": 3}
    assert (await audit.revert("plan", 1)).value == {"days": 3}
    reverted = await audit.revert_commit(3)
    assert reverted.commit is not None
    await audit.lineage("plan")
    assert (await audit.revert_derived("plan", 1, dry_run=True)).commit is None
    await audit.races()
    assert await audit.conflicts() == []
    await audit.tag("release")
    assert [tag.name for tag in await audit.tags()] == ["release"]
    await audit.untag("release")
    await store.set_merge("notes/**", "escalate")
    await store.put("k", 1, namespace="notes")
    await store.put("k", 2, namespace="notes", expected_version=1)
    await store.put("k", 3, namespace="notes", expected_version=1)
    await audit.resolve((await audit.conflicts("open"))[0].id, 4)
    assert await audit.conflicts("open") == []


async def _admin(store: AsyncStore, folder: Path) -> None:
    admin = store.admin
    await store.put("k", 1)
    await store.put("k", 2, overwrite=True)
    exported = io.BytesIO()
    await admin.export(exported)
    await admin.backup(folder / "backup.db")
    async with agentmem.aopen(folder / "other.db", embedder=None) as other:
        exported.seek(0)
        await other.admin.load(exported)
        assert await other.value("k") == 2
        await other.admin.index()
    assert (await admin.stats())["revision"] == 2
    assert await admin.reindex(lambda texts: np.ones((len(texts), 4))) == 0
    await admin.compact(keep_versions=1)
    await admin.purge("k")
    assert (await admin.verify()).problems == []


async def _scopes(store: AsyncStore, _folder: Path) -> None:
    team = store.scoped("team", agent="ann")
    entry = await team.put("k", 1)
    assert (entry.agent, entry.namespace) == ("ann", ())
    assert await store.namespaces() == [("team",)]
    other = await store.with_embedder(lambda texts: np.ones((len(texts), 4)))
    await other.put("k", "text", namespace="vectors")
    assert len(await other.search("any", namespace="vectors", mode="vector")) == 1
    lost = agentmem.IndeterminateCommitError("lost", op_id=None, attempt=bytes(16), revision=1)
    assert await store.outcome(lost) is None
    mixed = store.scoped(access={"team/**": "read"})
    with pytest.raises(agentmem.AccessDeniedError):
        await mixed.put("k", 1, namespace="team")


CALLS: Final[dict[str, Check]] = {
    "reads": _reads,
    "writes": _writes,
    "transactions": _transactions,
    "coordination": _coordination,
    "feeds": _feeds,
    "once": _once,
    "merging": _merging,
    "collections": _collections,
    "audit": _audit,
    "admin": _admin,
    "scopes": _scopes,
}
