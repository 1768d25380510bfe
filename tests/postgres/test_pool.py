"""The connections of one engine: none is lost, none dead, and who waits is served."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import agentmem
from agentmem.engines.postgres import pool as pool_module
from agentmem.engines.postgres.pool import Pool
from agentmem.engines.postgres.target import parse_target
from agentmem.engines.postgres.wire import Statement, Wire
from agentmem.testing.crew import SILENCE_S
from tests.postgres_server import store_url

WHO = Statement("SELECT pg_backend_pid()")


@pytest.fixture
def pool(new_store: Callable[[], str]) -> Iterator[Pool]:
    made = Pool(parse_target(store_url(new_store()) + "&pool_size=2"), 300)
    yield made
    made.close()


def pid(wire: Wire) -> int:
    found: int = wire.run([(WHO, ())])[0][0][0]
    return found


def sessions(pool: Pool, *pids: int) -> int:
    """How many of these the server still has."""
    with psycopg.connect(pool.target.conninfo) as connection:
        row: Any = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", (list(pids),)
        ).fetchone()
        return int(row[0])


def test_a_connection_is_used_again_and_the_last_used_comes_first(pool: Pool) -> None:
    one, two = pool.take(), pool.take()
    first, second = pid(one), pid(two)
    pool.give_back(one)
    pool.give_back(two)
    three = pool.take()
    assert pid(three) == second
    assert pid(pool.take()) == first


def test_all_in_use_is_an_error_that_says_what_to_do(pool: Pool) -> None:
    wires = [pool.take(), pool.take()]
    with pytest.raises(
        agentmem.StoreBusyError, match=r"all 2 are in use.*larger pool_size"
    ) as found:
        pool.take()
    assert found.value.waited_ms == 300
    pool.give_back(wires.pop())
    pool.take()


def test_what_nobody_refers_to_leaves_its_place_and_is_closed(pool: Pool) -> None:
    wires = [pool.take(), pool.take()]
    pids = [pid(wire) for wire in wires]
    wires.clear()
    gc.collect()
    assert pid(pool.take()) not in pids
    pool.take()
    # The server notices it a moment later.
    for _look in range(1_000):
        if sessions(pool, *pids) == 0:
            break
    assert sessions(pool, *pids) == 0


def test_what_was_dropped_while_others_wait_wakes_them(pool: Pool) -> None:
    patient = Pool(pool.target, 1_000 * int(SILENCE_S))
    wires = [patient.take(), patient.take()]
    had = threading.Event()
    waiter = threading.Thread(target=lambda: (patient.take(), had.set()))
    waiter.start()
    del wires[0]
    gc.collect()
    assert had.wait(SILENCE_S)
    waiter.join()
    patient.close()


def test_one_that_comes_back_in_the_middle_of_something_is_not_given_out_again(
    pool: Pool,
) -> None:
    wire = pool.take()
    before = pid(wire)
    wire.run([(Statement("BEGIN"), ())])
    pool.give_back(wire)
    wire = pool.take()
    assert pid(wire) != before
    assert not wire.in_transaction


def test_one_that_died_while_it_was_idle_is_not_given_out(pool: Pool) -> None:
    wire = pool.take()
    before = pid(wire)
    pool.give_back(wire)
    del wire
    with psycopg.connect(pool.target.conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", (before,))
    assert pid(pool.take()) != before


def test_a_glance_gives_the_first_row_as_the_server_spells_it(pool: Pool) -> None:
    assert pool.glance(Statement("SELECT 12, NULL, 'a' UNION ALL SELECT 13, 'x', 'b'")) == (
        b"12",
        None,
        b"a",
    )
    assert pool.glance(Statement("SELECT 1 WHERE false")) == ()
    pool.prepares = False
    assert pool.glance(Statement("SELECT 2")) == (b"2",)


def test_a_glance_at_a_connection_that_died_is_made_on_another(pool: Pool) -> None:
    before = pool.glance(WHO)
    with psycopg.connect(pool.target.conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", (int(before[0] or 0),))

    assert pool.glance(WHO) != before
    assert len(pool._idle) == 1


def test_a_glance_in_a_session_that_has_forgotten_its_statements_is_repeated(pool: Pool) -> None:
    before = pool.glance(WHO)
    wire = pool.take()
    wire.run([(Statement("DEALLOCATE ALL"), ())])
    pool.give_back(wire)
    del wire

    assert pool.glance(WHO) == before
    assert not pool.prepares


def test_a_glance_that_fails_says_why_and_gives_its_connection_back(pool: Pool) -> None:
    before = pool.glance(WHO)
    with pytest.raises(agentmem.StorageError, match="division by zero"):
        pool.glance(Statement("SELECT 1 / (SELECT 0)"))
    assert pool.glance(WHO) == before


def test_who_waits_is_served_in_order_and_before_who_comes(pool: Pool) -> None:
    patient = Pool(pool.target, 1_000 * int(SILENCE_S))
    wires = [patient.take(), patient.take()]
    order: list[int] = []

    def wait(number: int) -> None:
        wire = patient.take()
        order.append(number)
        patient.give_back(wire)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(patient._waiting) <= number:
            pass
    patient.give_back(wires.pop())
    for thread in threads:
        thread.join(SILENCE_S)
    assert order == [0, 1, 2, 3, 4]
    patient.close()


def test_what_is_idle_for_long_is_closed_when_another_comes_back(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pool.take(), pool.take()
    kept = pid(two)
    pool.give_back(one)
    now = pool_module.time.monotonic()
    monkeypatch.setattr("agentmem.engines.postgres.pool.time.monotonic", lambda: now + 61)
    pool.give_back(two)
    assert [connection.info.backend_pid for connection in pool._idle] == [kept]


def test_a_closed_pool_takes_no_connection_back_and_gives_none(pool: Pool) -> None:
    wire, _other = pool.take(), pool.take()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            pool.take()
        except agentmem.AgentMemError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    pool.close()
    waiter.join(SILENCE_S)
    assert [type(error) for error in errors] == [agentmem.ClosedError]
    pool.give_back(wire)
    assert wire.connection.closed
    with pytest.raises(agentmem.ClosedError):
        pool.take()
