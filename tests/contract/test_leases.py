"""Leases: one holder at a time, tokens that rise, commits that are fenced, waiters in order."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import agentmem
from agentmem.coordination import lease_steps
from agentmem.coordination.lease_steps import Acquire
from agentmem.engines.sqlite import boot
from tests.contract.conftest import ManualClock, StoreMaker

HOUR = 3_600.0
JUMPS = [HOUR, -HOUR, 30 * 24 * HOUR, -30 * 24 * HOUR]


def held(store: agentmem.Store, name: str = "plan", **options: Any) -> agentmem.Lease:
    return store.lease(name, **options).acquire()


def write_guarded(store: agentmem.Store, lease: agentmem.Lease, value: object) -> None:
    with store.transaction() as tx:
        tx.guard(lease)
        tx["k"] = value


def test_a_lease_has_one_holder_at_a_time(store: agentmem.Store) -> None:
    with store.lease("plan", agent="ann") as lease:
        with pytest.raises(agentmem.LeaseError, match=r"'plan'.*held by 'ann' \(token 1\)"):
            held(store)
        assert lease.token == 1
    assert held(store).token > 1


def test_leases_of_other_names_do_not_touch_each_other(store: agentmem.Store) -> None:
    with store.lease("a") as first, store.lease("b") as second:
        assert first.token < second.token


def test_tokens_rise_across_names_and_scopes(store: agentmem.Store) -> None:
    tokens = []
    for view in (store, store.scoped("team"), store):
        for name in ("a", "b"):
            with view.lease(name) as lease:
                tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


def test_the_scopes_of_views_keep_their_leases_apart(store: agentmem.Store) -> None:
    with store.lease("plan"), store.scoped("team").lease("plan"):
        assert [each.scope for each in store.leases()] == [(), ("team",)]
        assert [each.name for each in store.scoped("team").leases()] == ["plan"]
        assert store.scoped("other").break_lease("plan") is None


def test_a_view_that_only_reads_has_no_leases(store: agentmem.Store) -> None:
    with pytest.raises(agentmem.AccessDeniedError):
        store.scoped("team", access="read").lease("plan")


def test_what_is_no_name_time_or_wait_is_refused(store: agentmem.Store) -> None:
    for arguments in ({"ttl_s": 0}, {"ttl_s": -1}, {"wait_s": -1}, {"wait_s": float("nan")}):
        with pytest.raises(agentmem.InvalidValueError):
            store.lease("plan", **arguments)
    for name in ("", "a\x00"):
        with pytest.raises(agentmem.InvalidValueError):
            store.lease(name)
    with pytest.raises(TypeError):
        store.lease(None)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError):
        store.lease("plan", ttl_s=None)  # type: ignore[arg-type]  # wrong on purpose


def test_an_expired_lease_can_be_had_by_another(store: agentmem.Store, clock: ManualClock) -> None:
    first = held(store, ttl_s=30)
    clock.advance(29.9)
    with pytest.raises(agentmem.LeaseError):
        held(store)
    clock.advance(0.1)
    assert held(store).token > first.token


def test_renewing_lets_it_run_on_from_now(store: agentmem.Store, clock: ManualClock) -> None:
    lease = held(store, ttl_s=30)
    clock.advance(29)
    lease.renew()
    clock.advance(29)
    assert store.leases()[0].expires_in_s == 1
    with pytest.raises(agentmem.LeaseError):
        held(store)


def test_renewing_fails_once_it_has_expired_though_nobody_has_it(
    store: agentmem.Store, clock: ManualClock
) -> None:
    lease = held(store, ttl_s=30)
    clock.advance(30)
    with pytest.raises(agentmem.LeaseExpiredError):
        lease.renew()


def test_renewing_fails_with_both_tokens_once_another_has_it(
    store: agentmem.Store, clock: ManualClock
) -> None:
    first = held(store)
    clock.advance(30)
    second = held(store)
    with pytest.raises(agentmem.FencedError) as caught:
        first.renew()
    assert (caught.value.token, caught.value.current_token) == (first.token, second.token)
    second.renew()


def test_a_guarded_commit_stands_while_the_lease_is_held_even_past_its_end(
    store: agentmem.Store, clock: ManualClock
) -> None:
    lease = held(store)
    write_guarded(store, lease, 1)
    clock.advance(HOUR)
    write_guarded(store, lease, 2)
    assert store["k"] == 2


def test_a_guarded_commit_fails_once_another_has_the_lease(
    store: agentmem.Store, clock: ManualClock
) -> None:
    first = held(store)
    with store.transaction() as tx:
        tx.guard(first)
        tx["k"] = "late"
        clock.advance(30)
        second = held(store)
        with pytest.raises(agentmem.FencedError) as caught:
            tx.commit()
        tx.rollback()
    assert (caught.value.token, caught.value.current_token) == (first.token, second.token)
    assert "k" not in store
    assert store.revision == 0


@pytest.mark.parametrize("ending", ["release", "break"])
def test_a_guarded_commit_fails_once_the_lease_was_released_or_broken(
    store: agentmem.Store, ending: str
) -> None:
    lease = held(store)
    tx = store.transaction()
    tx.guard(lease)
    tx["k"] = "late"
    if ending == "release":
        assert lease.release()
    else:
        assert store.break_lease("plan") == 1
    with pytest.raises(agentmem.FencedError, match="released or broken"):
        tx.commit()
    assert "k" not in store


def test_the_same_name_granted_anew_to_the_same_holder_has_another_token(
    store: agentmem.Store,
) -> None:
    lease = store.lease("plan")
    with lease:
        tx = store.transaction()
        tx.guard(lease)
        tx["k"] = "late"
    with lease, pytest.raises(agentmem.FencedError):
        tx.commit()


def test_a_transaction_that_only_guards_is_checked_too(store: agentmem.Store) -> None:
    lease = held(store)
    tx = store.transaction()
    tx.guard(lease)
    store.break_lease("plan")
    with pytest.raises(agentmem.FencedError):
        tx.commit()


def test_every_lease_that_guards_a_commit_is_checked(store: agentmem.Store) -> None:
    first, second = held(store, "a"), held(store, "b")
    tx = store.transaction()
    tx.guard(first)
    tx.guard(second)
    tx["k"] = 1
    second.release()
    with pytest.raises(agentmem.FencedError, match="'b'"):
        tx.commit()


def test_a_fenced_transaction_hears_of_that_before_it_hears_of_conflicts(
    store: agentmem.Store,
) -> None:
    store.put("k", 0)
    lease = held(store)
    tx = store.transaction()
    tx.guard(lease)
    tx["k"] += 1
    store.put("k", 5, overwrite=True)
    lease.release()
    with pytest.raises(agentmem.FencedError):
        tx.commit()
    assert store.audit.conflicts() == []


def test_a_conflict_is_still_one_under_a_lease(store: agentmem.Store) -> None:
    store.put("k", 0)
    with store.lease("plan") as lease:
        tx = store.transaction()
        tx.guard(lease)
        tx["k"] += 1
        store.put("k", 5, overwrite=True)
        with pytest.raises(agentmem.ConflictError):
            tx.commit()


def test_a_known_op_id_replays_though_the_lease_is_gone(store: agentmem.Store) -> None:
    lease = held(store)
    for _time in range(2):
        with store.transaction(op_id="once") as tx:
            tx.guard(lease)
            tx["k"] = 1
        store.break_lease("plan")
    assert store.get("k").version == 1  # type: ignore[union-attr]  # it is there


def test_a_lease_of_another_store_guards_nothing_here(make_store: StoreMaker) -> None:
    lease = held(make_store("other"))
    with make_store().transaction() as tx, pytest.raises(agentmem.InvalidValueError):
        tx.guard(lease)


def test_a_lease_that_is_not_held_has_no_token(store: agentmem.Store) -> None:
    lease = store.lease("plan")
    with pytest.raises(agentmem.LeaseError, match="not held"):
        _ = lease.token
    with lease, pytest.raises(agentmem.LeaseError, match="held already"):
        lease.acquire()
    assert lease.release() is False


def test_releasing_says_whether_it_was_still_held(
    store: agentmem.Store, clock: ManualClock
) -> None:
    first = held(store)
    clock.advance(30)
    second = held(store)
    assert first.release() is False
    assert store.leases()[0].token == second.token
    assert second.release() is True
    assert store.leases() == []


def test_an_exception_in_the_block_releases_the_lease(store: agentmem.Store) -> None:
    with pytest.raises(ZeroDivisionError), store.lease("plan"):
        _ = 1 / 0
    assert store.leases() == []


def test_leases_take_no_revision(store: agentmem.Store) -> None:
    with store.lease("plan") as lease:
        lease.renew()
    assert store.revision == 0
    assert store.log() == []


def test_leases_are_there_for_another_store_of_the_same_target(make_store: StoreMaker) -> None:
    with make_store().lease("plan", agent="ann"):
        [state] = make_store().leases()
    assert (state.name, state.agent, state.expires_in_s, state.waiting) == ("plan", "ann", 30, 0)


@pytest.mark.parametrize("jump_s", JUMPS)
def test_however_the_clock_jumps_no_stale_write_is_accepted(
    store: agentmem.Store, clock: ManualClock, jump_s: float
) -> None:
    first = held(store, ttl_s=30)
    clock.advance(jump_s)
    try:
        second = held(store, ttl_s=30)
    except agentmem.LeaseError:
        assert jump_s < 0  # a clock that was set back makes it last longer, and no more
        write_guarded(store, first, "first")
        return
    with pytest.raises(agentmem.FencedError):
        write_guarded(store, first, "late")
    clock.advance(-jump_s)
    with pytest.raises(agentmem.FencedError):
        write_guarded(store, first, "late")
    write_guarded(store, second, "second")
    assert store["k"] == "second"


@pytest.mark.requires("files")
@pytest.mark.parametrize("jump_s", JUMPS)
def test_the_time_of_day_does_not_touch_the_leases_of_a_file(
    make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    store = make_store(clock=None)
    lease = held(store, ttl_s=30)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + round(jump_s * 1e9))
    with pytest.raises(agentmem.LeaseError):
        held(store)
    assert 20 < store.leases()[0].expires_in_s <= 30
    lease.renew()


@pytest.mark.requires("files")
def test_after_a_restart_of_the_machine_every_lease_of_a_file_has_expired(
    make_store: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held(make_store(clock=None), ttl_s=3_600)
    monkeypatch.setattr(boot, "start_id", lambda: "another start")
    after = make_store(clock=None)
    assert after.leases()[0].expires_in_s == 0
    lease = held(after)
    with pytest.raises(agentmem.FencedError):
        write_guarded(after, before, "late")
    write_guarded(after, lease, "good")


# Waiting.


def waiting(store: agentmem.Store, count: int) -> None:
    """Returns once so many wait for the lease."""
    while store.leases()[0].waiting < count:
        time.sleep(0.001)  # not a measure: they are on their way


def test_waiters_get_the_lease_in_the_order_in_which_they_asked(make_store: StoreMaker) -> None:
    store = make_store()
    order: list[int] = []

    def wait(number: int) -> None:
        with make_store().lease("plan", wait_s=60) as lease:
            order.append(number)
            tokens.append(lease.token)

    tokens: list[int] = []
    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    with store.lease("plan"):
        for number, thread in enumerate(threads, 1):
            thread.start()
            waiting(store, number)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert tokens == sorted(tokens)
    assert store.leases() == []


def test_who_does_not_wait_cannot_pass_those_who_do(store: agentmem.Store) -> None:
    first = held(store)
    # As a waiter that has not yet seen that its turn has come.
    place = Acquire("", "plan", None, 30_000_000, waits=True)
    store._core.coordinate(place)
    first.release()
    with pytest.raises(agentmem.LeaseError, match="others wait for it"):
        held(store)
    store._core.coordinate(place)
    assert place.token is not None


def test_the_line_goes_past_those_who_wait_no_longer(
    store: agentmem.Store, clock: ManualClock
) -> None:
    first = held(store)
    dead, living = (Acquire("", "plan", None, 30_000_000, waits=True) for _ in range(2))
    store._core.coordinate(dead)
    clock.advance(lease_steps.STAY_S / 2)
    store._core.coordinate(living)
    first.release()
    clock.advance(lease_steps.STAY_S / 2)
    store._core.coordinate(living)
    assert living.token is not None
    assert store.leases()[0].waiting == 0
    # It was only stopped: now it stands at the end of the line.
    store._core.coordinate(dead)
    assert dead.token is None
    assert store.leases()[0].waiting == 1


def test_waiting_ends_in_time_and_leaves_the_line(store: agentmem.Store) -> None:
    with store.lease("plan"):
        with pytest.raises(agentmem.LeaseError, match=r"after 0.05 s .*held"):
            held(store, wait_s=0.05)
        assert store.leases()[0].waiting == 0


def test_a_waiter_has_the_lease_when_it_expires(
    make_store: StoreMaker, store: agentmem.Store, clock: ManualClock
) -> None:
    first = held(store, ttl_s=30)
    found: list[agentmem.Lease] = []
    thread = threading.Thread(target=lambda: found.append(held(make_store(), wait_s=60)))
    thread.start()
    waiting(store, 1)
    clock.advance(30)
    thread.join()
    assert found[0].token > first.token


def test_automatic_renewal_keeps_it_until_it_is_lost(
    store: agentmem.Store, clock: ManualClock
) -> None:
    lease = held(store, ttl_s=0.05, auto_renew=True)
    clock.advance(0.04)
    while store.leases()[0].expires_in_s < 0.05:
        time.sleep(0.001)  # not a measure: it is renewed from another thread
    assert lease.lost is None
    clock.advance(1)
    while lease.lost is None:
        time.sleep(0.001)
    assert isinstance(lease.lost, agentmem.LeaseExpiredError)


# transact(lock=...).


def test_transact_holds_the_leases_of_its_keys_while_it_runs(store: agentmem.Store) -> None:
    def look(tx: agentmem.Transaction) -> list[str]:
        tx["a"] = 1
        return sorted(each.name for each in store.leases() if each.key)

    assert store.transact(look, lock=["b", ("team/x", "a"), "a"]) == ["a", "b", "team/x/a"]
    assert store.leases() == []


def test_the_lease_of_a_key_is_the_same_for_every_view_that_writes_it(
    store: agentmem.Store,
) -> None:
    def inner(tx: agentmem.Transaction) -> None:
        tx["a"] = 2

    def outer(tx: agentmem.Transaction) -> None:
        with pytest.raises(agentmem.LeaseError):
            store.scoped("team").transact(inner, lock=["a"], deadline_s=0.01)

    store.transact(outer, lock=[("team", "a")])
    store.scoped("team").transact(inner, lock=["a"])


def test_a_commit_whose_lock_was_broken_fails(store: agentmem.Store) -> None:
    def broken(tx: agentmem.Transaction) -> None:
        tx.put("a", 1, namespace="team")
        assert store.break_lease("a", key=True, namespace="team") is not None

    with pytest.raises(agentmem.FencedError, match="'team/a'"):
        store.transact(broken, lock=[("team", "a")])
    assert store.count() == 0


def test_a_lock_needs_access_to_its_key(store: agentmem.Store) -> None:
    view = store.scoped("team", access={"open/**": "write", "shut/**": "read"})
    assert view.transact(lambda tx: 1, lock=[("open", "k")]) == 1
    with pytest.raises(agentmem.AccessDeniedError):
        view.transact(lambda tx: 1, lock=[("shut", "k")])
    with pytest.raises(TypeError):
        store.transact(lambda tx: 1, lock="k")
    with pytest.raises(agentmem.LimitExceededError):
        store.transact(lambda tx: 1, lock=[str(number) for number in range(101)])


@pytest.mark.parametrize("name", ["a'b", 'a"b', "{a,b}", "a\\b", "$1", "NULL", "\U0001f9e0", "[]"])
def test_any_text_is_a_name(store: agentmem.Store, name: str) -> None:
    with store.lease(name, agent=name):
        [state] = store.leases()
        assert (state.name, state.agent) == (name, name)
    queue = store.queue(name)
    queue.put(name, op_id=name, group=name, agent=name)
    queue.put(name, op_id=name, group=name, agent=name)
    [shown] = queue.peek()
    assert (shown.payload, shown.op_id, shown.group, shown.put_by) == (name, name, name, name)
    task = queue.claim(name)
    assert task is not None
    task.nack(note=name)
    assert queue.peek()[0].note == name
    assert store.once(name, lambda: name) == store.once(name, lambda: "other") == name
    assert store.transact(lambda tx: [e.name for e in store.leases()], lock=[name]) == [name]
