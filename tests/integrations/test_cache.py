"""The published suites of caches, what is stored, and one call for many who ask at once."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.caches import BaseCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation, GenerationChunk, LLMResult
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

import agentmem
from agentmem.course import Sleep
from agentmem.testing.crew import Crew
from langchain_agentmem import AgentMemCache, AgentMemChatMessageHistory
from langchain_agentmem import cache as cache_module
from langchain_agentmem.flights import Flights
from langchain_agentmem.generations import generation_of, generation_value
from tests.integrations.cache_workers import ScriptedModel, ask
from tests.integrations.message_strategies import CONSTRUCTORS, messages
from tests.strategies import json_objects, json_values, texts

ANSWER = [Generation(text="42")]


class TestCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, store: agentmem.Store) -> BaseCache:
        return AgentMemCache(store)


class TestCacheAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, store: agentmem.Store) -> BaseCache:
        return AgentMemCache(store)


@pytest.fixture
def local() -> Iterator[agentmem.Store]:
    """One where the kind of store does not matter."""
    with agentmem.open(":memory:", durability="relaxed", embedder=None) as store:
        yield store


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A thread that has begun, and what the function will have returned."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    return thread, found


def counting(calls: list[str]) -> ScriptedModel:
    def answer(text: str) -> AIMessage:
        calls.append(text)
        return AIMessage(f"{text}: {len(calls)}", usage_metadata={
            "input_tokens": 1, "output_tokens": 2, "total_tokens": 3,
        })  # fmt: skip

    return ScriptedModel(answer=answer)


# What is stored.


@given(message=messages(), facts=st.none() | json_objects(), text=texts())
def test_an_answer_comes_back_as_it_was(message: Any, facts: Any, text: str) -> None:
    for generation in (
        ChatGeneration(message=message, generation_info=facts),
        Generation(text=text, generation_info=facts),
    ):
        found = generation_of(generation_value(generation), "cache")
        assert type(found) is type(generation)
        assert found == generation


@given(value=json_values())
def test_any_json_is_an_answer_or_a_typed_error(value: Any) -> None:
    with pytest.raises(agentmem.InvalidValueError):
        generation_of(value, "cache")
    for kind in ("Generation", "ChatGeneration"):
        with pytest.raises(agentmem.InvalidValueError):
            generation_of({"type": kind, "text": 7, "message": value}, "cache")


def test_constructors_stay_what_they_are_and_are_no_answers(local: agentmem.Store) -> None:
    cache = AgentMemCache(local)
    for constructor in CONSTRUCTORS:
        message = AIMessage([constructor], additional_kwargs=constructor)
        answer = [
            Generation(text="x", generation_info=constructor),
            ChatGeneration(message=message, generation_info={"inner": constructor}),
        ]
        cache.update("prompt", "model", answer)
        assert cache.lookup("prompt", "model") == answer
        (entry,) = local.list("llm-cache")
        for stored in (constructor, {"generations": [constructor]}, {"generations": constructor}):
            local.put(entry.key, stored, namespace="llm-cache", overwrite=True)
            with pytest.raises(agentmem.InvalidValueError, match=f"llm-cache/{entry.key}"):
                cache.lookup("prompt", "model")


def test_a_chunk_is_kept_as_a_whole_answer(local: agentmem.Store) -> None:
    cache = AgentMemCache(local)
    cache.update("prompt", "model", [GenerationChunk(text="x")])
    (found,) = cache.lookup("prompt", "model") or ()
    assert type(found) is Generation
    with pytest.raises(TypeError, match="not str"):
        cache.update("prompt", "model", ["x"])  # type: ignore[list-item]  # what is tested


def test_prompts_and_models_are_told_apart(local: agentmem.Store) -> None:
    cache = AgentMemCache(local, single_flight=False)
    cache.update("bc", "a", ANSWER)
    for prompt, model in (("c", "ab"), ("a", "bc"), ("abc", ""), ("", "abc"), ("bc", "")):
        assert cache.lookup(prompt, model) is None
    cache.update("\ud800", "", ANSWER)
    assert cache.lookup("\ud800", "") == ANSWER
    assert AgentMemCache(local, namespace="other", single_flight=False).lookup("bc", "a") is None
    # Neither prompt nor model is stored, and search does not find answers.
    assert all(set(entry.value) == {"generations"} for entry in local.list("llm-cache"))
    assert local.search("42", mode="text") == []


def test_an_answer_that_is_not_json_is_given_but_not_kept(
    local: agentmem.Store, caplog: pytest.LogCaptureFixture
) -> None:
    model = ScriptedModel(
        answer=lambda text: AIMessage(text, additional_kwargs={"at": object()}),
        cache=AgentMemCache(local),
    )
    with caplog.at_level(logging.WARNING, "agentmem"):
        for _time in range(2):
            assert model.invoke("hi").content == "hi"
    assert "is not cached" in caplog.text
    assert "$.data.additional_kwargs.at" in caplog.text
    assert local.revision == 0
    assert local.leases() == []


def test_answers_are_forgotten_in_time_and_on_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_PAGE", 2)
    now = [1_000_000.0]
    with agentmem.open(":memory:", embedder=None, clock=lambda: now[0]) as store:
        cache = AgentMemCache(store, ttl_s=10, single_flight=False, agent="ann")
        for number in range(5):
            cache.update(str(number), "model", ANSWER)
        now[0] += 9
        assert cache.lookup("4", "model") == ANSWER
        cache.clear()
        assert [cache.lookup(str(number), "model") for number in range(5)] == [None] * 5
        cache.update("4", "model", ANSWER)
        now[0] += 10
        assert cache.lookup("4", "model") is None
        assert {commit.agent for commit in store.log()} == {"ann"}


def test_arguments_are_checked(local: agentmem.Store) -> None:
    for options in ({"wait_s": -1}, {"hold_s": 0}):
        with pytest.raises(agentmem.InvalidValueError, match=next(iter(options))):
            AgentMemCache(local, **options)  # type: ignore[arg-type]  # one of them


# In LangChain.


async def test_models_ask_once_with_the_global_cache(store: agentmem.Store) -> None:
    calls: list[str] = []
    model = counting(calls)
    set_llm_cache(AgentMemCache(store))
    try:
        first = model.invoke("a")
        assert first.content == "a: 1"
        assert model.invoke("a").content == "a: 1"
        assert (await model.ainvoke("a")).content == "a: 1"
        assert (await model.ainvoke("b")).content == "b: 2"
        assert model.invoke("b").content == "b: 2"
        assert [message.content for message in model.batch(["a", "c", "b"])] == [
            "a: 1", "c: 3", "b: 2",
        ]  # fmt: skip
    finally:
        set_llm_cache(None)
    assert calls == ["a", "b", "c"]
    assert store.leases() == []


def test_the_log_tells_in_which_run_an_answer_was_asked_for(store: agentmem.Store) -> None:
    model = counting([])
    model.cache = AgentMemCache(store)
    asking: Any = RunnableLambda(lambda text: model.invoke(text).content)
    asking.invoke("a", {"configurable": {"thread_id": "thread-9"}})
    (commit,) = store.log()
    assert commit.metadata == {"thread_id": "thread-9"}


def test_an_answer_that_is_given_again_is_another_message(local: agentmem.Store) -> None:
    model = counting([])
    model.cache = AgentMemCache(local)
    history = AgentMemChatMessageHistory(local, "s1")
    for _time in range(3):
        history.add_messages([HumanMessage("a"), model.invoke("a")])
    assert [message.content for message in history.messages] == ["a", "a: 1"] * 3


# One call for many.


def test_many_threads_that_ask_the_same_make_one_call(store: agentmem.Store) -> None:
    asking = threading.Barrier(8)
    calls: list[str] = []

    class Watched(AgentMemCache):
        def lookup(self, prompt: str, llm_string: str) -> Any:
            asking.wait(60)
            return super().lookup(prompt, llm_string)

    def ask_from_a_cache_of_its_own() -> Any:
        model = counting(calls)
        model.cache = Watched(store)
        return model.invoke("a").content

    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(ask_from_a_cache_of_its_own) for _thread in range(8)]
    assert [each.result() for each in found] == ["a: 1"] * 8
    assert calls == ["a"]
    assert store.leases() == []


def test_a_lookup_waits_for_the_answer_of_who_asked_first(store: agentmem.Store) -> None:
    cache, other = AgentMemCache(store, agent="ann"), AgentMemCache(store)
    assert cache.lookup("p", "m") is None
    assert [lease.agent for lease in store.leases()] == ["ann"]
    waits = [in_thread(lambda each=each: each.lookup("p", "m")) for each in (cache, other)]
    assert AgentMemCache(store, single_flight=False).lookup("p", "m") is None
    assert AgentMemCache(store, wait_s=0, agent="bob").lookup("q", "m") is None
    cache.update("p", "m", ANSWER)
    for thread, found in waits:
        thread.join()
        assert found == [ANSWER]


def test_an_answer_that_came_just_before_the_claim_was_had_is_found(
    local: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Flights.begin

    def answered_meanwhile(flights: Flights, name: str, owner: Any) -> bool:
        AgentMemCache(local, single_flight=False).update("p", "m", ANSWER)
        return begin(flights, name, owner)

    monkeypatch.setattr(Flights, "begin", answered_meanwhile)
    assert AgentMemCache(local).lookup("p", "m") == ANSWER
    assert local.leases() == []


def test_who_does_not_wait_asks_at_once(local: agentmem.Store) -> None:
    assert AgentMemCache(local).lookup("p", "m") is None
    assert AgentMemCache(local, wait_s=0).lookup("p", "m") is None


def test_a_thread_that_has_failed_may_try_again_at_once(local: agentmem.Store) -> None:
    cache = AgentMemCache(local)
    for _time in range(3):
        assert cache.lookup("p", "m") is None
    cache.update("p", "m", ANSWER)
    assert cache.lookup("p", "m") == ANSWER
    assert local.leases() == []


def only_the_end_helps(store: agentmem.Store) -> AgentMemCache:
    """A cache whose claims are looked after often, and never last too long."""
    cache = AgentMemCache(store, hold_s=1.0, wait_s=60)
    cache._flights._hold_s = 1e6  # type: ignore[union-attr]  # of a cache with single flight
    return cache


def test_the_end_of_a_thread_lets_the_next_ask(local: agentmem.Store) -> None:
    cache = only_the_end_helps(local)
    fails, found = in_thread(lambda: (cache.lookup("p", "m"), local.leases()[0].token))
    fails.join()
    ((answer, token),) = found
    assert (answer, cache.lookup("p", "m")) == (None, None)
    assert local.leases()[0].token > token


async def test_the_end_of_a_task_lets_the_next_ask(local: agentmem.Store) -> None:
    cache = only_the_end_helps(local)
    tokens = []

    async def fail() -> None:
        assert await cache.alookup("p", "m") is None
        tokens.append(local.leases()[0].token)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await asyncio.create_task(fail())
    assert await cache.alookup("p", "m") is None
    assert local.leases()[0].token > tokens[0]


def test_nobody_is_waited_for_longer_than_is_held(local: agentmem.Store) -> None:
    cache = AgentMemCache(local, hold_s=0.3, wait_s=60)
    assert cache.lookup("p", "m") is None
    token = local.leases()[0].token
    thread, found = in_thread(lambda: (cache.lookup("p", "m"), local.leases()[0].token))
    thread.join()
    ((answer, later),) = found
    assert answer is None
    assert later > token
    # Whoever comes late is heard all the same.
    cache.update("p", "m", ANSWER)
    assert cache.lookup("p", "m") == ANSWER


def test_a_claim_lasts_for_as_long_as_its_call(local: agentmem.Store) -> None:
    cache = AgentMemCache(local)
    assert cache.lookup("p", "m") is None
    (first,) = (before,) = local.leases()
    while (now := local.leases()[0]).expires_in_s <= before.expires_in_s:
        assert now.expires_in_s > 0, "it was not renewed"
        before = now
        time.sleep(0.01)  # not a measure: a sign of life comes from another thread
    assert now.token == first.token


def test_a_cache_that_is_closed_holds_nobody_up(local: agentmem.Store) -> None:
    with AgentMemCache(local) as cache:
        cache.lookup("p", "m")
    assert AgentMemCache(local).lookup("p", "m") is None


def test_batches_that_meet_crosswise_do_not_wait_in_a_ring(local: agentmem.Store) -> None:
    meet = threading.Barrier(2)
    calls: list[str] = []

    class Plain(BaseLLM):
        @property
        def _llm_type(self) -> str:
            return "plain"

        def _generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
            calls.extend(prompts)
            return LLMResult(generations=[[Generation(text=text)] for text in prompts])

    class Met(AgentMemCache):
        def lookup(self, prompt: str, llm_string: str) -> Any:
            found = super().lookup(prompt, llm_string)
            meet.wait(60)
            return found

    def generate(prompts: list[str]) -> Any:
        result = Plain(cache=Met(local)).generate(prompts)
        return [generations[0].text for generations in result.generations]

    waits = [in_thread(lambda order=order: generate([*order])) for order in ("ab", "ba")]
    for thread, _found in waits:
        thread.join()
    assert [found for _thread, found in waits] == [[["a", "b"]], [["b", "a"]]]
    assert len(calls) == 4


async def test_tasks_wait_without_a_thread(store: agentmem.Store) -> None:
    # Fewer workers than waiting tasks: if those kept them, the answer could not be stored.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    calls: list[str] = []
    model = counting(calls)
    model.cache = AgentMemCache(store)
    found = await asyncio.gather(*(model.ainvoke("a") for _task in range(8)))
    assert [message.content for message in found] == ["a: 1"] * 8
    assert calls == ["a"]


async def test_a_lookup_that_blocks_the_event_loop_does_not_wait(
    local: agentmem.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blocked(_sleep: Sleep) -> None:
        raise AssertionError("the task that is to answer cannot go on")

    monkeypatch.setattr(Sleep, "perform", blocked)
    cache = AgentMemCache(local)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        assert await cache.alookup("p", "m") is None
        asked.set()
        await answered.wait()
        await cache.aupdate("p", "m", ANSWER)

    task = asyncio.create_task(first())
    await asked.wait()
    assert cache.lookup("p", "m") is None
    answered.set()
    await task
    assert cache.lookup("p", "m") == ANSWER


@pytest.mark.stress
@pytest.mark.parametrize("kind", ["file", "postgres"])
def test_processes_that_ask_the_same_make_one_call(target: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    heard: list[Any] = []
    crew = Crew(ask, [(target, str(calls), 60, False)] * 4, method="forkserver")
    crew.run(lambda _worker, report: heard.append(report))
    assert heard == [["answer to first", "answer to second"]] * 4
    assert sorted(calls.read_text()) == ["x", "y"]


@pytest.mark.stress
def test_the_death_of_a_process_lets_the_next_ask(tmp_path: Path) -> None:
    target, calls = str(tmp_path / "cache.db"), tmp_path / "calls"
    heard: list[Any] = []
    crew = Crew(
        ask,
        [(target, str(calls), 1.5, True)],
        method="forkserver",
        revived=lambda _worker: (target, str(calls), 1.5, False),
    )

    def hear(worker: int, report: Any) -> None:
        heard.append(report)
        if report == "dies":
            crew.kill(worker)

    crew.run(hear)
    assert heard == ["dies", ["answer to first", "answer to second"]]
    assert sorted(calls.read_text()) == ["x", "x", "y"]


@pytest.fixture(autouse=True, scope="module")
def _preloaded() -> None:
    """Processes start in a moment: what they import is there."""
    server: Any = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["tests.integrations.cache_workers", "tests.integrations.history_workers",
         "agentmem.engines.sqlite.engine", "agentmem.engines.postgres.engine"]
    )  # fmt: skip
