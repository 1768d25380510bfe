"""Stores to be changed behind agentmem's back, and changes that `verify` has to notice."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any, Final

import agentmem
from agentmem import Store
from agentmem.testing.verifications import random_history

__all__ = ["DAMAGES", "everything", "found_by", "rows_changed", "seven_commits"]

DAMAGES: Final[dict[str, tuple[tuple[Any, ...], str]]] = {
    "a changed value": (
        ("UPDATE entries SET value = '\"0ne\"' WHERE version = 1 AND key = 'k'",),
        "'n/k' at revision 1: the digest does not fit",
    ),
    "a value that means the same": (
        ("UPDATE entries SET value = '3.0' WHERE value = '3'",),
        "'m' at revision 3: the digest does not fit",
    ),
    "a changed text": (
        ("UPDATE entries SET text = '' WHERE key = 't'",),
        "'t' at revision 7: the digest does not fit",
    ),
    "a changed ttl": (
        ("UPDATE entries SET ttl_us = NULL WHERE key = 't'",),
        "'t' at revision 7: the digest does not fit",
    ),
    "a changed base": (
        ("UPDATE entries SET base_version = 2 WHERE key = 'm' AND version = 3",),
        "'m' at revision 6: the digest does not fit",
    ),
    "a merge that is denied": (
        ("UPDATE entries SET merged = NULL WHERE merged IS NOT NULL",),
        "'m' at revision 6: the digest does not fit",
    ),
    "a changed salt": (
        ("UPDATE entries SET salt = zeroblob(16) WHERE key = 'k' AND version = 2",),
        "'n/k' at revision 2: the digest does not fit",
    ),
    "a changed digest of an entry": (
        ("UPDATE entries SET digest = zeroblob(32) WHERE key = 'k' AND version = 2",),
        "'n/k' at revision 2: the digest does not fit",
    ),
    "a changed digest of a commit": (
        ("UPDATE commits SET digests = zeroblob(32) WHERE revision = 2",),
        "revision 2: the hash does not fit",
    ),
    "a swapped op_id": (
        (
            "UPDATE commits SET op_id = 'x' WHERE revision = 1",
            "UPDATE commits SET op_id = 'op-1' WHERE revision = 2",
            "UPDATE commits SET op_id = 'op-2' WHERE revision = 1",
        ),
        "revision 1: the hash does not fit",
    ),
    "another agent": (
        ("UPDATE commits SET agent = 'bob' WHERE revision = 1",),
        "revision 1: the hash does not fit",
    ),
    "another note": (
        ("UPDATE commits SET note = NULL WHERE revision = 1",),
        "revision 1: the hash does not fit",
    ),
    "other metadata": (
        ("UPDATE commits SET metadata = '{}' WHERE revision = 2",),
        "revision 2: the hash does not fit",
    ),
    "another time": (
        ("UPDATE commits SET committed_at = committed_at - 1 WHERE revision = 1",),
        "revision 1: the hash does not fit",
    ),
    "a removed commit": (
        (
            "DELETE FROM entries WHERE revision = 2",
            "DELETE FROM commits WHERE revision = 2",
        ),
        "revision 2 is missing",
    ),
    "the first commit removed": (
        (
            "DELETE FROM entries WHERE revision = 1",
            "DELETE FROM commits WHERE revision = 1",
        ),
        "revision 1 is missing",
    ),
    "a removed entry": (
        ("DELETE FROM entries WHERE key = 'b'",),
        "revision 3: 3 entries were written, 2 are there",
    ),
    "an entry that was slipped in": (
        (
            """INSERT INTO entries
            SELECT 99, namespace, 'new', revision, version, operation, base_version, merged,
                value, text, ttl_us, expires_at, created_at, salt, digest
            FROM entries WHERE key = 'b'""",
        ),
        "heads do not point to the newest entry",
    ),
    "a floor above the log": (
        ("UPDATE store SET floor = 99",),
        "the floor is revision 99, and the log ends at 7",
    ),
    "an entry of no commit": (
        ("UPDATE entries SET id = 500 WHERE key = 'a' AND version = 1",),
        "1 entries belong to no commit",
    ),
    "two values exchanged": (
        (
            "UPDATE entries SET key = 'x' WHERE key = 'b'",
            "UPDATE entries SET key = 'b' WHERE key = 'a' AND version = 1",
        ),
        "'x' at revision 3: the digest does not fit",
    ),
    "a wrong head": (
        ("UPDATE heads SET entry_id = 1, version = 1, revision = 1 WHERE key = 'k'",),
        "heads do not point to the newest entry",
    ),
    "a head that counts too high": (
        ("UPDATE heads SET version = 9 WHERE key = 'b'",),
        "1 heads do not point to the newest entry",
    ),
    "a lost head": (
        ("DELETE FROM heads WHERE key = 't'",),
        "heads do not point to the newest entry",
    ),
    "a hash taken from elsewhere": (
        ("UPDATE commits SET hash = (SELECT hash FROM commits LIMIT 1) WHERE revision = 3",),
        "revision 4: the hash does not fit",
    ),
    "an attempt of another": (
        ("UPDATE commits SET attempt = zeroblob(16) WHERE revision = 5",),
        "revision 5: the hash does not fit",
    ),
}  # fmt: skip
"""What is done to a store of `seven_commits`, in SQLite's words, and what `verify` says then."""


def seven_commits(store: Store) -> None:
    """A small history with all that an entry and a commit can have."""
    store.set_merge("m", "counter")
    store.put("k", "one", namespace="n", agent="ann", op_id="op-1", note="first")
    store.put("k", "two", namespace="n", op_id="op-2", metadata={"a": 1}, overwrite=True)
    store.put_many({"a": 1, "b": 2, "m": 3})
    store.delete("a")
    store.put("m", 5, expected_version=1)
    store.put("m", 7, expected_version=1)
    store.put("t", "text", text="other", ttl_s=60)


def everything(store: Store, seed: int) -> None:
    """A store that has rows in every table."""
    random_history(store, random.Random(seed), 40)
    with store.watch(since=0, consumer="reader") as feed:
        feed.ack(next(iter(feed)))
    store.put("later", "budget", embed="deferred")
    store.put("parked", 1, overwrite=True)
    store.put("parked", 2, expected_version=0)
    store.audit.tag("kept")
    store.once("once", lambda: 1)
    store.queue("tasks").put(1, op_id="task")
    store.put("gone", 1)
    store.admin.purge("gone")


def found_by(store: Store) -> list[str]:
    """What verify says; that it cannot even be run is to notice something, too."""
    try:
        return store.admin.verify().problems
    except agentmem.AgentMemError as error:
        return [str(error)]


def rows_changed(store: Store) -> None:
    """Rows beside the log that agentmem itself has changed since it wrote them."""
    store.set_merge("parked", "escalate")
    store.put("parked", 1)
    store.put("parked", 2, expected_version=0)
    (opened,) = store.audit.conflicts("open")
    store.audit.resolve(opened.id, "theirs", note="agreed")
    store.transact(lambda tx: tx["parked"], op_id="kept")
    store.admin.compact(keep_results=timedelta(0))
    for _ in range(2):
        store.put("secret", 1, overwrite=True)
        store.admin.purge("secret")
