"""Once: an effect runs once; a failure leaves nothing, a death an unknown outcome."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import agentmem
from agentmem.coordination.once_steps import Begin, End, Forget, Stay
from tests.contract.conftest import ManualClock, StoreMaker

HOLD_S = 30


def left_running(store: agentmem.Store, id: str = "pay", agent: str | None = None) -> Begin:
    """A run whose process gives no sign of life any more."""
    step = Begin("", id, agent, HOLD_S * 1_000_000, False)
    store._core.coordinate(step)
    assert step.token is not None
    return step


def test_a_function_runs_once_for_an_id(make_store: StoreMaker) -> None:
    calls: list[int] = []

    def pay() -> dict[str, Any]:
        calls.append(1)
        return {"paid": (3, 4)}

    results = [make_store().once("pay", pay) for _time in range(3)]
    assert results == [{"paid": [3, 4]}] * 3
    assert calls == [1]
    assert make_store().once("other", lambda: 5) == 5


def test_results_are_fresh_each_time(store: agentmem.Store) -> None:
    store.once("pay", lambda: [1]).append(2)
    assert store.once("pay", lambda: [0]) == [1]


def test_null_is_a_result(store: agentmem.Store) -> None:
    assert store.once("pay", lambda: None) is None
    assert store.once("pay", lambda: 1) is None


def test_ids_of_scopes_are_apart(store: agentmem.Store) -> None:
    assert store.once("pay", lambda: 1) == 1
    assert store.scoped("team").once("pay", lambda: 2) == 2
    with pytest.raises(agentmem.AccessDeniedError):
        store.scoped("team", access="read").once("pay", lambda: 3)


def test_a_function_that_raises_leaves_nothing(store: agentmem.Store) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    for _time in range(2):
        with pytest.raises(ZeroDivisionError):
            store.once("pay", fail)
    with pytest.raises(agentmem.InvalidValueError):
        store.once("pay", lambda: {1, 2})
    assert store.once("pay", lambda: 1) == 1


def test_a_result_is_forgotten_after_its_time(store: agentmem.Store, clock: ManualClock) -> None:
    assert store.once("pay", lambda: 1, ttl_s=10) == 1
    clock.advance(9.9)
    assert store.once("pay", lambda: 2) == 1
    clock.advance(0.1)
    assert store.once("pay", lambda: 3) == 3
    clock.advance(1e6)
    assert store.once("pay", lambda: 4) == 3


def test_who_asks_while_it_runs_waits_for_the_result(make_store: StoreMaker) -> None:
    begun, go_on = threading.Event(), threading.Event()
    results: list[int] = []

    def slow() -> int:
        begun.set()
        go_on.wait(60)
        return 7

    first = threading.Thread(target=lambda: results.append(make_store().once("pay", slow)))
    first.start()
    begun.wait(60)
    others = [
        threading.Thread(target=lambda: results.append(make_store().once("pay", lambda: 8)))
        for _number in range(2)
    ]
    for thread in others:
        thread.start()
    with pytest.raises(agentmem.LeaseError, match="still runs"):
        make_store().once("pay", lambda: 9, wait_s=0)
    go_on.set()
    for thread in (first, *others):
        thread.join()
    assert results == [7, 7, 7]


def test_who_waits_runs_it_if_it_failed(make_store: StoreMaker, store: agentmem.Store) -> None:
    run = left_running(store)
    results: list[int] = []
    waits = threading.Thread(target=lambda: results.append(make_store().once("pay", lambda: 8)))
    waits.start()
    store._core.coordinate(Forget("", "pay", run.token or 0))
    waits.join()
    assert results == [8]


def test_a_dead_one_leaves_an_outcome_that_nobody_knows(
    store: agentmem.Store, clock: ManualClock
) -> None:
    left_running(store, agent="ann")
    clock.advance(HOLD_S)
    for _time in range(2):
        with pytest.raises(agentmem.OutcomeUnknownError, match=r"'pay'.*'ann'.*retry=True"):
            store.once("pay", lambda: 1)
    assert store.once("pay", lambda: 2, retry=True) == 2
    assert store.once("pay", lambda: 3) == 2


def test_who_waits_hears_of_a_death(
    make_store: StoreMaker, store: agentmem.Store, clock: ManualClock
) -> None:
    left_running(store)
    found: list[BaseException] = []

    def wait() -> None:
        try:
            make_store().once("pay", lambda: 1)
        except agentmem.OutcomeUnknownError as error:
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.01)  # not a measure: it may wait by now, or not yet
    clock.advance(HOLD_S)
    thread.join()
    assert len(found) == 1


def test_a_sign_of_life_keeps_it_from_counting_as_dead(
    store: agentmem.Store, clock: ManualClock
) -> None:
    run = left_running(store)
    clock.advance(HOLD_S - 1)
    store._core.coordinate(Stay("", "pay", run.token or 0, HOLD_S * 1_000_000))
    clock.advance(HOLD_S - 1)
    with pytest.raises(agentmem.LeaseError, match="still runs"):
        store.once("pay", lambda: 1, wait_s=0)


def test_signs_of_life_are_given_while_it_runs(
    make_store: StoreMaker, store: agentmem.Store, clock: ManualClock
) -> None:
    def slow() -> int:
        for _step in range(5):
            before = [store._core.engine.look(step.looks()[0])]
            clock.advance(0.02)
            while before == [store._core.engine.look(step.looks()[0])]:
                time.sleep(0.001)  # not a measure: a sign comes from another thread
        return 1

    step = Begin("", "pay", None, 1, False)
    assert store.once("pay", slow, hold_s=0.03) == 1


def test_who_comes_late_records_if_nobody_has_run_it_since(
    store: agentmem.Store, clock: ManualClock
) -> None:
    run = left_running(store)
    clock.advance(HOLD_S)
    store._core.coordinate(End("", "pay", run.token or 0, "1", None))
    assert store.once("pay", lambda: 2) == 1


def test_who_comes_late_records_nothing_once_another_has_begun(
    store: agentmem.Store, clock: ManualClock
) -> None:
    late = left_running(store)
    clock.advance(HOLD_S)
    assert store.once("pay", lambda: 2, retry=True) == 2
    for step in (
        End("", "pay", late.token or 0, "1", None),
        Forget("", "pay", late.token or 0),
        Stay("", "pay", late.token or 0, 1),
    ):
        with pytest.raises(agentmem.FencedError):
            store._core.coordinate(step)
    assert store.once("pay", lambda: 3) == 2


def test_once_takes_no_revision(store: agentmem.Store) -> None:
    store.once("pay", lambda: 1)
    assert store.revision == 0


# Tools.


def test_a_tool_runs_once_for_the_same_arguments(make_store: StoreMaker) -> None:
    calls: list[Any] = []

    def look_up(city: str, *, days: int = 1, tags: tuple[str, ...] = ()) -> list[Any]:
        """Looks a city up."""
        calls.append((city, days))
        return [city, days]

    tools = [make_store().cached_tool(look_up) for _time in range(2)]
    for tool in tools:
        assert tool("Rome") == ["Rome", 1]
        assert tool("Rome", days=1, tags=()) == ["Rome", 1]
        assert tool(city="Rome", days=2) == ["Rome", 2]
    assert calls == [("Rome", 1), ("Rome", 2)]
    assert (tools[0].__name__, tools[0].__doc__) == ("look_up", "Looks a city up.")


def test_tools_of_other_names_do_not_share_results(store: agentmem.Store) -> None:
    @store.cached_tool(name="one")
    def one(x: int) -> int:
        return x + 1

    @store.cached_tool(name="two", ttl_s=10)
    def two(x: int) -> int:
        return x + 2

    assert (one(1), two(1), one(1)) == (2, 3, 2)


def test_what_a_tool_is_called_with_must_be_json(store: agentmem.Store) -> None:
    tool = store.cached_tool(lambda x: 1)
    with pytest.raises(agentmem.InvalidValueError, match=r"must be JSON.*\$\.x"):
        tool({1})
    with pytest.raises(TypeError):
        tool()

    async def later() -> None: ...

    with pytest.raises(TypeError, match="async"):
        store.cached_tool(later)


def test_a_tool_that_fails_is_tried_again(store: agentmem.Store) -> None:
    fails = [True, False]

    @store.cached_tool
    def tool() -> str:
        if fails.pop(0):
            raise OSError
        return "there"

    with pytest.raises(OSError):  # noqa: PT011  # raised bare, two lines above
        tool()
    assert tool() == "there"
