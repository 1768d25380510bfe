"""The feed: commits in order, and consumers whose cursors outlive them."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import agentmem
from agentmem.coordination import events
from agentmem.coordination.feed_steps import Cursor, Skip
from agentmem.engines.rows import (
    Change,
)
from tests.contract.conftest import ManualClock, StoreMaker


def revisions(feed: agentmem.Feed) -> list[int]:
    return [event.revision for event in feed]


def there(store: agentmem.Store, *arguments: Any, **options: Any) -> list[agentmem.Event]:
    """What there is now, of a feed that is closed after."""
    with store.watch(*arguments, timeout_s=0, **options) as feed:
        return list(feed)


def fill(store: agentmem.Store, count: int, namespace: str | None = None) -> None:
    for number in range(count):
        store.put(f"k{number % 3}", number, namespace=namespace)


def seen(store: agentmem.Store, found: list[agentmem.Event], value: Callable[[], object]) -> None:
    """An effect of events, in one commit with their acknowledgement."""
    with store.transaction() as tx:
        for event in found:
            tx.ack(event)
        tx["seen"] = value()


# What is given.


def test_a_feed_has_every_commit_once_and_in_order(store: agentmem.Store) -> None:
    fill(store, 5)
    store.delete("k0")
    found = there(store, since=0)
    assert [event.revision for event in found] == [1, 2, 3, 4, 5, 6]
    assert [entry.value for event in found[:5] for entry in event.entries] == [0, 1, 2, 3, 4]
    assert found[5].entries[0].deleted
    assert found[5].changes[0].operation == "delete"
    assert [event.commit for event in found] == store.log(oldest_first=True)


def test_a_feed_starts_now_unless_a_revision_is_given(store: agentmem.Store) -> None:
    fill(store, 3)
    feed = store.watch(timeout_s=0)
    assert revisions(feed) == []
    fill(store, 2)
    assert revisions(feed) == [4, 5]
    assert [event.revision for event in there(store, since=3)] == [4, 5]


def test_an_iterator_goes_on_after_it_had_nothing(store: agentmem.Store) -> None:
    feed = store.watch(since=0, timeout_s=0)
    assert feed.next() is None
    store.put("a", 1)
    assert feed.next() is not None
    assert feed.next(timeout_s=0) is None


def test_only_commits_of_the_namespace_come(store: agentmem.Store) -> None:
    store.put("a", 1, namespace="team")
    store.put("a", 2, namespace="teams")
    store.put("a", 3, namespace="team/ann")
    with store.transaction() as tx:
        tx.put("a", 4)
        tx.put("b", 5, namespace="team")
    found = there(store, "team", 0)
    assert [event.revision for event in found] == [1, 3, 4]
    assert [entry.value for event in found for entry in event.entries] == [1, 3, 5]
    assert [change.key for change in found[2].changes] == ["b"]


def test_a_scoped_view_sees_its_own_and_names_it_relatively(store: agentmem.Store) -> None:
    store.put("a", 1, namespace="team/notes", op_id="others")
    store.put("a", 2)
    (event,) = there(store.scoped("team"), since=0)
    assert event.entries[0].namespace == event.changes[0].namespace == ("notes",)
    assert event.commit.op_id is None
    mapped = store.scoped(access={"team/**": "read"})
    assert [event.revision for event in there(mapped, since=0)] == [1]
    with pytest.raises(agentmem.AccessDeniedError):
        mapped.watch("other")


def test_commits_without_changes_come_to_the_whole_store_alone(store: agentmem.Store) -> None:
    with store.transaction(op_id="nothing"):
        pass
    assert [event.changes for event in there(store, since=0)] == [()]
    assert there(store.scoped("team"), since=0) == []


def test_long_pasts_and_large_commits_come_in_parts(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_PAGE", 5)
    monkeypatch.setattr(events, "_MAX_ENTRIES", 4)
    for number in range(17):
        with store.transaction() as tx:
            for key in range(number % 4 * 2 + 1):
                tx.put(f"k{key}", number, namespace=("ann", "bob")[number % 2])
    for namespace, step in ((None, 1), ("ann", 2)):
        found = there(store, namespace, 0)
        assert [event.revision for event in found] == list(range(1, 18, step))
        assert [len(event.entries) for event in found] == [len(each.changes) for each in found]


def test_parts_of_a_page_that_are_not_for_a_view_hide_nothing(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_MAX_ENTRIES", 1)
    for key in ("a", "b", "mine", "c", "mine"):
        store.put(key, 1, namespace="team")
    view = store.scoped(access={"**/mine": "read"})
    assert [event.revision for event in there(view, since=0)] == [3, 5]


def test_what_was_purged_says_so(store: agentmem.Store) -> None:
    store.put("a", "secret")
    store.admin.purge("a")
    entry = there(store, since=0)[0].entries[0]
    assert entry.value is None
    assert entry.purged is not None


def test_what_is_no_revision_time_or_name_is_refused(store: agentmem.Store) -> None:
    with pytest.raises(agentmem.FutureRevisionError) as raised:
        store.watch(since=1)
    assert raised.value.current == 0
    for arguments in ({"since": -1}, {"timeout_s": -1}, {"consumer": ""}, {"consumer": "a\0"}):
        with pytest.raises(agentmem.InvalidValueError):
            store.watch(**arguments)  # type: ignore[arg-type]  # of several types
    for arguments in ({"since": "1"}, {"timeout_s": "1"}, {"consumer": 3}, {"hold_s": None}):
        with pytest.raises(TypeError):
            store.watch(**({"consumer": "c"} | arguments))
    with pytest.raises(agentmem.AccessDeniedError):
        store.scoped("team", access="read").watch(consumer="c")


# Its end.


def test_stop_and_close_end_the_iteration_of_another_thread(make_store: StoreMaker) -> None:
    for end in ("stop", "close", "store"):
        store = make_store()
        feed = store.watch()
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.extend(revisions(feed)))  # noqa: B023  # joined below
        thread.start()
        {"stop": feed.stop, "close": feed.close, "store": store.close}[end]()
        thread.join()
        assert found == []
        assert feed.next() is None


def test_a_closed_store_is_not_watched(store: agentmem.Store) -> None:
    store.close()
    with pytest.raises(agentmem.ClosedError):
        store.watch()


def test_who_waits_is_told_of_commits_of_another_store(make_store: StoreMaker) -> None:
    writer, reader = make_store(), make_store()
    feed = reader.watch(timeout_s=60)
    found: list[int] = []

    def follow() -> None:
        for event in feed:
            found.append(event.revision)
            went_on.set()
            if len(found) == 3:
                return

    went_on = threading.Event()
    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(3):
        went_on.clear()
        writer.put("a", number)
        assert went_on.wait(60)
    thread.join()
    assert found == [1, 2, 3]


# Consumers.


def test_a_consumer_goes_on_after_what_it_acknowledged(make_store: StoreMaker) -> None:
    store, other = make_store(), make_store()
    fill(store, 5)
    with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        feed.ack(next(feed))
        feed.ack(next(feed))
        next(feed)  # and is not acknowledged
    assert [event.revision for event in there(other, consumer="c")] == [3, 4, 5]
    assert other.consumers()[0].revision == 2
    assert other.consumers()[0].behind == 3


def test_a_new_consumer_that_was_given_nothing_keeps_its_place(store: agentmem.Store) -> None:
    fill(store, 2)
    assert there(store, consumer="now") == []
    assert there(store, consumer="all", since=1) != []
    fill(store, 1)
    assert [event.revision for event in there(store, consumer="now")] == [3]
    assert [event.revision for event in there(store, consumer="all")] == [2, 3]


def test_acknowledging_again_or_older_events_does_nothing(store: agentmem.Store) -> None:
    fill(store, 3)
    with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        first, second, third = feed
        feed.ack(second)
        feed.ack(first)
        assert store.consumers()[0].revision == 2
        feed.ack(third)
    assert there(store, consumer="c") == []


def test_the_cursor_moves_with_the_transaction_or_not_at_all(store: agentmem.Store) -> None:
    fill(store, 2)
    with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        event = next(feed)
        with pytest.raises(ZeroDivisionError):
            seen(store, [event], lambda: 1 / 0)
        assert store.consumers()[0].revision == 0
        with store.transaction() as tx:
            tx["seen"] = event.revision
            tx.ack(event)
            assert store.consumers()[0].revision == 0
        assert store.consumers()[0].revision == 1
        with pytest.raises(agentmem.FencedError, match="1 included"):
            seen(store, [event], lambda: "twice")
    assert store["seen"] == 1


def test_a_transaction_that_lost_a_conflict_acknowledges_nothing(store: agentmem.Store) -> None:
    store.put("k", 0)
    with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        event = next(feed)
        tx = store.transaction()
        tx["k"] += 1
        tx.ack(event)
        store.put("k", 10, expected_version=1)
        with pytest.raises(agentmem.ConflictError):
            tx.commit()
        tx.rollback()
        assert store.consumers()[0].revision == 0


def test_a_transaction_may_be_of_several_events(store: agentmem.Store) -> None:
    fill(store, 3)
    with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        first, second, third = feed
        with store.transaction() as tx:
            for event in (second, first):
                tx.ack(event)
        assert store.consumers()[0].revision == 2
        with pytest.raises(agentmem.FencedError):
            seen(store, [second, third], lambda: "the second twice")
        assert store.consumers()[0].revision == 2
    assert "seen" not in store


def test_a_repeated_operation_acknowledges_once(store: agentmem.Store) -> None:
    store.put("k", 1)

    def count(tx: agentmem.Transaction) -> None:
        tx.increment("seen")
        tx.ack(event)

    with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        event = next(feed)
        for _time in range(2):
            store.transact(count, op_id="event-1")
    assert store["seen"] == 1


def test_consumers_belong_to_their_view(store: agentmem.Store) -> None:
    team = store.scoped("team")
    with store.watch(consumer="c"), team.watch(consumer="c", agent="ann"):
        assert [(each.scope, each.agent) for each in store.consumers()] == [
            ((), None),
            (("team",), "ann"),
        ]
        assert len(team.consumers()) == 1
        assert store.leases() == []
    assert store.scoped("other").forget_consumer("c") is False
    assert [each.token for each in store.consumers()] == [None, None]


def test_one_at_a_time_reads_as_a_consumer(make_store: StoreMaker, clock: ManualClock) -> None:
    store, other = make_store(), make_store()
    fill(store, 2)
    late = store.watch(since=0, consumer="c", timeout_s=0, hold_s=30, agent="ann")
    event = next(late)
    with pytest.raises(agentmem.LeaseError, match=r"'consumer c'.*'ann'"):
        other.watch(consumer="c")
    clock.advance(31)
    with other.watch(consumer="c", timeout_s=0) as feed:
        again = next(feed)
        assert again.revision == event.revision
        with pytest.raises(agentmem.FencedError):
            late.ack(event)
        with pytest.raises(agentmem.FencedError):
            seen(store, [event], lambda: "late")
        feed.ack(again)
    assert "seen" not in store
    assert other.consumers()[0].revision == 1


def test_a_feed_that_lost_its_hold_says_so(store: agentmem.Store) -> None:
    feed = store.watch(consumer="c", hold_s=0.03, timeout_s=None)
    assert store.break_consumer("c") is not None
    with pytest.raises(agentmem.FencedError):
        feed.next()  # as soon as the thread that renews has found out
    assert store.break_consumer("c") is None


def test_a_broken_consumer_is_read_by_the_next_at_once(store: agentmem.Store) -> None:
    fill(store, 1)
    stuck = store.watch(since=0, consumer="c", timeout_s=0)
    event = next(stuck)
    store.break_consumer("c")
    assert [each.revision for each in there(store, consumer="c")] == [event.revision]
    with pytest.raises(agentmem.FencedError):
        stuck.ack(event)


def test_a_forgotten_consumer_begins_anew(store: agentmem.Store) -> None:
    fill(store, 2)
    with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        *_others, last = feed
        feed.ack(last)
        assert store.forget_consumer("c")
        with pytest.raises(agentmem.FencedError):
            feed.ack(last)
    assert store.consumers() == []
    assert not store.forget_consumer("c")
    assert len(there(store, since=0, consumer="c")) == 2


def test_what_has_no_consumer_or_another_store_cannot_be_acknowledged(
    make_store: StoreMaker,
) -> None:
    store, other = make_store(), make_store("other")
    store.put("a", 1)
    with store.watch(since=0, consumer="c", timeout_s=0) as feed, store.transaction() as tx:
        with pytest.raises(agentmem.InvalidValueError, match="without a consumer"):
            feed.ack(there(store, since=0)[0])
        with pytest.raises(TypeError):
            tx.ack(1)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(agentmem.InvalidValueError, match="another store"):
            other.transaction().ack(next(feed))


# Commits that were not for a consumer.


def test_a_cursor_moves_over_what_was_not_for_the_consumer(store: agentmem.Store) -> None:
    store.put("a", 1, namespace="team")
    fill(store, 3)
    with store.watch("team", 0, "c", timeout_s=0) as feed:
        (event,) = feed
        feed.ack(event)
    assert store.consumers()[0].revision == 4


def test_a_cursor_does_not_move_over_what_was_not_acknowledged(store: agentmem.Store) -> None:
    store.put("a", 1, namespace="team")
    fill(store, 300)
    with store.watch("team", 0, "c", timeout_s=0) as feed:
        assert len(list(feed)) == 1
    assert store.consumers()[0].revision == 0


def test_a_waiting_feed_moves_its_cursor_from_time_to_time(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmem.coordination.feed._SKIPPED_EVERY", 10)
    feed = store.watch("team", consumer="c", timeout_s=0)
    fill(store, 9)
    assert feed.next() is None
    assert store.consumers()[0].revision == 0
    fill(store, 1)
    assert feed.next() is None
    assert store.consumers()[0].revision == 10
    feed.close()


# Compacted and replaced history.


def raise_floor(store: agentmem.Store, floor: int) -> None:
    store._core.change(Change("raise_floor", {"floor": floor}), store._scope)


def test_below_the_floor_nothing_is_given(store: agentmem.Store) -> None:
    fill(store, 5)
    with store.watch(since=0, consumer="c", timeout_s=0) as feed:
        pass
    open_feed = store.watch(since=2, timeout_s=0)
    raise_floor(store, 3)
    for arguments in ({"since": 2}, {"consumer": "c"}):
        with pytest.raises(agentmem.CompactedError) as raised:
            store.watch(**arguments)  # type: ignore[arg-type]  # of several types
        assert raised.value.floor == 3
    with pytest.raises(agentmem.CompactedError):
        open_feed.next()
    assert [event.revision for event in there(store, since=3)] == [4, 5]
    # It is free: who was refused holds nothing.
    assert store.consumers()[0].token is None
    assert feed.next() is None


def test_what_was_read_before_it_was_compacted_is_given(store: agentmem.Store) -> None:
    fill(store, 3)
    feed = store.watch(since=0, timeout_s=0)
    next(feed)
    raise_floor(store, 3)
    assert revisions(feed) == [2, 3]


def test_a_floor_that_rises_while_a_page_is_read_is_noticed(
    store: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 3)
    feed = store.watch(since=0, timeout_s=0)
    engine, found = store._core.engine, store._core.engine.commit_entries

    def compacted(rows: Any) -> Any:
        raise_floor(store, 2)
        return found(rows)

    monkeypatch.setattr(engine, "commit_entries", compacted)
    with pytest.raises(agentmem.CompactedError):
        feed.next()


def test_a_cursor_of_another_history_is_noticed(store: agentmem.Store) -> None:
    fill(store, 3)
    feed = store.watch(since=0, consumer="c", timeout_s=0)
    event = next(feed)
    other = dataclasses.replace(event, hash=bytes(32))
    with pytest.raises(agentmem.HistoryReplacedError):
        feed.ack(other)
    with pytest.raises(agentmem.HistoryReplacedError):
        seen(store, [other], lambda: 1)
    feed.close()
    for revision in (2, 9):
        wrong = {"scope": "", "name": "c", "revision": revision, "hash": bytes(32), "moved_at": 0}
        store._core.change(Change("set_cursor", wrong), store._scope)
        with pytest.raises(agentmem.HistoryReplacedError):
            store.watch(consumer="c")
    assert "seen" not in store


def test_a_feed_notices_that_history_was_replaced_under_it(store: agentmem.Store) -> None:
    fill(store, 3)
    feed = store.watch(timeout_s=0)
    for cursor in (Cursor(3, bytes(32)), Cursor(2, bytes(32)), Cursor(4, bytes(32))):
        feed._reader.cursor = cursor
        with pytest.raises(agentmem.HistoryReplacedError):
            feed.next()


# In one batch, in any order.


def test_cursors_are_what_a_model_says(make_store: StoreMaker) -> None:
    """Two processes' stores, consumers that come, go, are broken, and acknowledge."""
    choice = random.Random(6)
    stores = [make_store(), make_store()]
    log: list[str] = []  # the namespace of each revision
    cursors: dict[str, int] = {}
    held: dict[str, tuple[agentmem.Feed, list[agentmem.Event]]] = {}
    watched = {"all": None, "ann": "ann", "bob": "bob"}

    def due(name: str, after: int) -> list[int]:
        wanted = watched[name]
        return [
            number for number, each in enumerate(log, 1)
            if number > after and wanted in (None, each)
        ]  # fmt: skip

    for _step in range(150):
        store = choice.choice(stores)
        name = choice.choice(list(watched))
        action = choice.choice(("put", "put", "read", "read", "ack", "ack tx", "break", "close"))
        if action == "put":
            namespace = choice.choice(("ann", "bob"))
            log.append(namespace)
            store.put("k", len(log), namespace=namespace, overwrite=True)
            continue
        if name not in held:
            feed = store.watch(watched[name], 0, name, timeout_s=0)
            cursors.setdefault(name, 0)
            held[name] = (feed, [])
        feed, given = held[name]
        if action == "read":
            event = feed.next()
            after = given[-1].revision if given else cursors[name]
            expected = due(name, after)
            assert (event.revision if event else None) == (expected[0] if expected else None)
            if event is not None:
                given.append(event)
        elif action == "ack" and given:
            event = choice.choice(given)
            feed.ack(event)
            cursors[name] = max(cursors[name], event.revision)
        elif action == "ack tx" and given:
            event = choice.choice(given)
            tx = store.transaction()
            tx.ack(event)
            if event.revision <= cursors[name]:
                with pytest.raises(agentmem.FencedError):
                    tx.commit()
            else:
                tx.commit()
                cursors[name] = event.revision
        elif action in ("break", "close"):
            if action == "break":
                store.break_consumer(name)
                if given:
                    with pytest.raises(agentmem.FencedError):
                        feed.ack(given[-1])
            else:
                feed.close()
            feed.stop()
            del held[name]
        for state in store.consumers():
            # Over what was not for it, a cursor may have moved on.
            assert state.revision >= cursors[state.name]
            assert due(state.name, cursors[state.name]) == due(state.name, state.revision)
    for feed, _given in held.values():
        feed.close()


def test_a_skip_that_comes_late_takes_nothing_back(store: agentmem.Store) -> None:
    fill(store, 3)
    feed = store.watch(since=0, consumer="c", timeout_s=0)
    first, second, third = feed
    feed.ack(third)
    receiver = first.receiver
    assert receiver is not None
    named = (receiver.view, receiver.consumer, receiver.token)
    store._core.coordinate(Skip(*named, Cursor(second.revision, second.hash), 1))
    assert store.consumers()[0].revision == 3
