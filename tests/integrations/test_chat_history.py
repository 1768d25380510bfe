"""Chat histories: once, in order, in pages, trimmed; in LangChain's chains."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

import agentmem
from langchain_agentmem import AgentMemChatMessageHistory
from langchain_agentmem import conversation as conversation_module
from langchain_agentmem.history import Page

REMOVE_ALL = RemoveMessage(id="__remove_all__")


def history_of(store: agentmem.Store, session: str = "s1") -> AgentMemChatMessageHistory:
    return AgentMemChatMessageHistory(store, session)


def contents(messages: list[BaseMessage]) -> list[Any]:
    return [message.content for message in messages]


def numbered(count: int, start: int = 0) -> list[BaseMessage]:
    return [HumanMessage(str(n), id=f"id-{n}") for n in range(start, start + count)]


@pytest.fixture
def history(store: agentmem.Store) -> AgentMemChatMessageHistory:
    """One on a store of each kind."""
    return history_of(store)


@pytest.fixture
def local() -> Iterator[AgentMemChatMessageHistory]:
    """One where the kind of store does not matter."""
    with agentmem.open(":memory:", durability="relaxed", embedder=None) as store:
        yield history_of(store)
        assert store.admin.verify().problems == []


# Adding and reading.


def test_messages_come_back_in_their_order(
    history: AgentMemChatMessageHistory, store: agentmem.Store
) -> None:
    assert history.messages == []
    assert store.revision == 0
    turn = [
        SystemMessage("be kind"),
        HumanMessage("look", additional_kwargs={"lc": 1, "type": "constructor"}),
        AIMessage("", tool_calls=[{"name": "look", "args": {"at": 1}, "id": "c"}]),
        ToolMessage("it rains", tool_call_id="c", artifact={"mm": 3}),
    ]
    history.add_messages(turn)
    history.add_user_message("and now?")
    history.add_ai_message("sun")
    expected = [*turn, HumanMessage("and now?"), AIMessage("sun")]
    assert history_of(store).messages == expected
    assert store.revision == 3
    assert str(history).endswith("Human: and now?\nAI: sun")


def test_sessions_are_apart_whatever_their_names(store: agentmem.Store) -> None:
    names = ["a", "a/messages", "messages", "*", "a%"]
    for name in names:
        history_of(store, name).add_messages([HumanMessage(name)])
    history_of(store, "a").clear()
    found = {name: contents(history_of(store, name).messages) for name in names}
    assert found == {name: [name] for name in names} | {"a": []}


def test_messages_are_entries_that_the_log_and_the_search_know(
    history: AgentMemChatMessageHistory, store: agentmem.Store
) -> None:
    history.add_messages(
        [HumanMessage("pasta in Rome"), AIMessage([{"type": "text", "text": "pizza"}])]
    )
    entries = store.list("chat/s1/messages")
    assert [(entry.key, entry.text) for entry in entries] == [
        ("000000000001", "pasta in Rome"),
        ("000000000002", "pizza"),
    ]
    (hit,) = store.search("pasta", namespace="chat", mode="text")
    assert hit.entry.value["data"]["content"] == "pasta in Rome"
    (commit,) = store.log()
    assert commit.metadata == {"session_id": "s1"}
    assert commit.note == "add 2 messages"
    hidden = AgentMemChatMessageHistory(store, "s2", searchable=False, agent="ann")
    hidden.add_messages([HumanMessage("pasta")])
    assert len(store.search("pasta", mode="text")) == 1
    assert store.log(limit=1)[0].agent == "ann"


def test_an_id_that_is_known_is_not_added_again(
    history: AgentMemChatMessageHistory, store: agentmem.Store
) -> None:
    history.add_messages(numbered(3))
    history.add_messages(numbered(3))
    assert store.revision == 1
    history.add_messages([*numbered(3), *numbered(2, 3), *numbered(2, 3)])
    assert contents(history.messages) == ["0", "1", "2", "3", "4"]
    assert store.revision == 2


def test_another_content_under_a_known_id_changes_the_message_in_its_place(
    history: AgentMemChatMessageHistory, store: agentmem.Store
) -> None:
    history.add_messages(numbered(3))
    history.add_messages([HumanMessage("new", id="id-1"), HumanMessage("newer", id="id-1")])
    assert contents(history.messages) == ["0", "newer", "2"]
    assert [entry.version for entry in store.list("chat/s1/messages")] == [1, 2, 1]
    # JSON's values are told apart as JSON does: 1 is not true.
    for number in (1, True, 1.0):
        history.add_messages([HumanMessage("0", id="id-0", additional_kwargs={"n": number})])
        assert history.messages[0].additional_kwargs["n"] is number or number == 1.0
    assert store.list("chat/s1/messages")[0].version == 4


def test_messages_without_an_id_are_new_each_time_unless_the_operation_is_known(
    history: AgentMemChatMessageHistory,
) -> None:
    turn = [HumanMessage("hi"), AIMessage("hi")]
    for _time in range(2):
        history.add_messages(turn)
    assert len(history.messages) == 4
    for _time in range(2):
        history.add_messages(turn, op_id="turn-3")
    assert len(history.messages) == 6


def test_one_message_that_is_refused_keeps_all_from_being_written(
    local: AgentMemChatMessageHistory,
) -> None:
    bad = ToolMessage("x", tool_call_id="c", artifact={"at": {1, 2}})
    with pytest.raises(agentmem.InvalidValueError, match=r"\$\.data\.artifact\.at"):
        local.add_messages([HumanMessage("fine"), bad])
    with pytest.raises(agentmem.LimitExceededError):
        local.add_messages([HumanMessage("fine"), HumanMessage("x" * 5_000_000)])
    with pytest.raises(agentmem.LimitExceededError):
        local.add_messages([HumanMessage("fine"), HumanMessage("x", id="i" * 2_000)])
    assert local.messages == []
    assert local.store.revision == 0


def test_what_is_no_message_is_refused_on_reading(local: AgentMemChatMessageHistory) -> None:
    local.add_messages(numbered(1))
    constructor = {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["id"]}
    local.store.put("000000000001", constructor, namespace="chat/s1/messages", overwrite=True)
    for read in (lambda: local.messages, local.page, lambda: list(local.newest_first())):
        with pytest.raises(agentmem.InvalidValueError, match="chat/s1/messages/000000000001"):
            read()


def test_arguments_are_checked(local: AgentMemChatMessageHistory) -> None:
    store = local.store
    with pytest.raises(agentmem.InvalidValueError):
        AgentMemChatMessageHistory(store, "")
    with pytest.raises(TypeError, match="session_id"):
        AgentMemChatMessageHistory(store, 7)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(agentmem.InvalidValueError, match="embed"):
        AgentMemChatMessageHistory(store, "s", embed="later")
    for limit in (0, -1, True):
        with pytest.raises(agentmem.InvalidValueError, match="limit"):
            local.page(limit)
    with pytest.raises(TypeError, match="max_messages"):
        local.trim()
    with pytest.raises(agentmem.InvalidValueError, match="max_tokens"):
        local.trim(max_tokens=-1)


def test_a_target_is_opened_and_closed(tmp_path: Any) -> None:
    with AgentMemChatMessageHistory(tmp_path / "chat.db", "s1", namespace=()) as history:
        history.add_messages(numbered(2))
    with pytest.raises(agentmem.ClosedError):
        history.messages  # noqa: B018  # the access is what is tested
    with agentmem.open(tmp_path / "chat.db", embedder=None) as store:
        assert [entry.key for entry in store.list("s1/messages")] == [
            "000000000001",
            "000000000002",
        ]


# Removing.


def test_a_removed_message_goes_and_is_not_brought_back_by_a_retry(
    history: AgentMemChatMessageHistory,
) -> None:
    history.add_messages(numbered(4))
    for _time in range(2):
        history.add_messages([RemoveMessage(id="id-1"), RemoveMessage(id="nobody"), *numbered(4)])
        assert contents(history.messages) == ["0", "2", "3"]
    assert contents(history.page(2).messages) == ["2", "3"]
    assert contents(list(history.newest_first())) == ["3", "2", "0"]


def test_a_batch_replaces_all_messages_at_one_moment(
    history: AgentMemChatMessageHistory, store: agentmem.Store
) -> None:
    history.add_messages(numbered(4))
    kept = [HumanMessage("3", id="id-3"), HumanMessage("5")]
    history.add_messages([HumanMessage("never seen"), REMOVE_ALL, AIMessage("summary"), *kept])
    assert contents(history.messages) == ["summary", "3", "5"]
    assert store.revision == 2
    assert len(store.list("chat/s1/messages")) == 3
    history.add_messages(numbered(1))
    assert contents(history.messages) == ["summary", "3", "5", "0"]


def test_clear_forgets_messages_and_ids(
    history: AgentMemChatMessageHistory, store: agentmem.Store
) -> None:
    history.clear()
    assert store.revision == 0
    history.add_messages(numbered(3))
    history.clear()
    history.clear()
    assert history.messages == []
    assert store.revision == 2
    assert [entry.key for entry in store.list("chat/s1")] == ["head"]
    history.add_messages(numbered(2))
    assert contents(history.messages) == ["0", "1"]


def test_clearing_more_than_one_commit_deletes_is_seen_at_once(
    local: AgentMemChatMessageHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_module, "_SWEEP", 3)
    local.add_messages(numbered(8))
    before = local.store.revision
    local.clear()
    assert local.store.revision == before + 3
    assert [entry.key for entry in local.store.list("chat/s1")] == ["head"]
    # As of each of its commits: nothing is left that somebody could see.
    for revision in range(before + 1, local.store.revision + 1):
        snapshot = local.store.snapshot(at=revision)
        assert local._conversation.all(snapshot) == []


@contextlib.contextmanager
def cut_short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first commit inside deletes three entries, and there is no second one."""
    transact, calls = agentmem.Store.transact, []

    def fail_the_second_time(store: agentmem.Store, *args: Any, **options: Any) -> Any:
        if calls:
            raise ConnectionError
        calls.append(None)
        return transact(store, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(conversation_module, "_SWEEP", 3)
        patched.setattr(agentmem.Store, "transact", fail_the_second_time)
        with pytest.raises(ConnectionError):
            yield


def test_a_clear_that_is_cut_short_has_cleared_all_the_same(
    local: AgentMemChatMessageHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.add_messages(numbered(8))
    with cut_short(monkeypatch):
        local.clear()
    assert local.messages == local.page().messages == []
    local.add_messages(numbered(8))
    assert contents(local.messages) == list("01234567")
    local.clear()
    assert [entry.key for entry in local.store.list("chat/s1")] == ["head"]


def test_a_trim_that_is_cut_short_has_trimmed_all_the_same(
    local: AgentMemChatMessageHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.add_messages(numbered(8))
    with cut_short(monkeypatch):
        local.trim(max_messages=1)
    before = local.store.revision
    local.add_messages([HumanMessage("other", id="id-6"), RemoveMessage(id="id-5")])
    assert contents(local.messages) == ["7"]
    assert local.store.revision == before
    assert local.trim(max_messages=1) == 4
    assert len(local.store.list("chat/s1/messages")) == 1


# Pages and trimming.


def test_pages_hold_each_message_once_while_others_are_added(
    history: AgentMemChatMessageHistory,
) -> None:
    history.add_messages(numbered(7))
    history.add_messages([RemoveMessage(id="id-4")])
    first = history.page(3)
    assert (contents(first.messages), first.before) == (["3", "5", "6"], 4)
    history.add_messages(numbered(3, 7))
    second = history.page(3, before=first.before)
    assert (contents(second.messages), second.before) == (["0", "1", "2"], None)
    assert history.page(20).before is None
    assert history_of(history.store, "empty").page() == Page([], None)
    assert contents(list(history.newest_first())) == ["9", "8", "7", "6", "5", "3", "2", "1", "0"]


def test_a_page_reads_no_more_than_a_page(
    local: AgentMemChatMessageHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.add_messages(numbered(1_000))
    read: list[str] = []
    get_many = agentmem.Snapshot.get_many

    def counted(view: agentmem.Snapshot, keys: list[str], **options: Any) -> Any:
        read.extend(keys)
        return get_many(view, keys, **options)

    monkeypatch.setattr(agentmem.Snapshot, "get_many", counted)
    monkeypatch.setattr(agentmem.Snapshot, "list", None)
    assert contents(local.page(20).messages) == [str(n) for n in range(980, 1_000)]
    assert len(read) <= 100


def test_a_window_shows_the_newest_and_takes_nothing_away(
    history: AgentMemChatMessageHistory,
) -> None:
    history.add_messages(numbered(4))
    assert contents(history.window()) == ["0", "1", "2", "3"]
    assert contents(history.window(max_messages=2)) == ["2", "3"]
    assert history.window(max_messages=0) == []
    two_each = {"token_counter": lambda messages: 2 * len(messages)}
    assert contents(history.window(max_tokens=5, **two_each)) == ["2", "3"]
    assert contents(history.window(max_tokens=5, max_messages=1, **two_each)) == ["3"]
    assert len(history.messages) == 4


def test_trimming_keeps_the_newest_and_remembers_the_ids(
    history: AgentMemChatMessageHistory, store: agentmem.Store
) -> None:
    history.add_messages(numbered(6))
    assert history.trim(max_messages=6) == 0
    assert store.revision == 1
    assert history.trim(max_messages=2) == 4
    history.add_messages(numbered(7))
    assert contents(history.messages) == ["4", "5", "6"]
    assert len(store.list("chat/s1/messages")) == 3
    assert history.trim(max_tokens=5, token_counter=lambda messages: 2 * len(messages)) == 1
    assert contents(history.messages) == ["5", "6"]
    assert history.trim(max_messages=0) == 2
    assert history.messages == []


def test_what_is_left_begins_where_it_may(local: AgentMemChatMessageHistory) -> None:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "c"}])
    result = ToolMessage("rain", tool_call_id="c")
    local.add_messages([SystemMessage("be kind", id="rules"), *numbered(1), call, result])
    local.add_messages([AIMessage("take a coat"), *numbered(1, 1), AIMessage("yes")])
    before = local.store.revision
    assert local.trim(max_messages=7, include_system=True) == 0
    assert local.store.revision == before
    local.trim(max_messages=4, start_on="human", include_system=True)
    assert contents(local.messages) == ["be kind", "1", "yes"]
    local.trim(max_messages=3, include_system=True)
    # The message that the rules have taken the place of does not come back in theirs.
    local.add_messages([SystemMessage("be kind", id="rules"), *numbered(1)])
    assert contents(local.messages) == ["be kind", "1", "yes"]
    local.trim(max_messages=2, start_on=("human", "system"))
    assert contents(local.messages) == ["1", "yes"]


def test_a_message_whose_place_was_taken_changes_nothing(
    local: AgentMemChatMessageHistory,
) -> None:
    local.add_messages([SystemMessage("be kind", id="rules"), *numbered(3)])
    local.trim(max_messages=2, include_system=True)
    entries = local.store.list("chat/s1/messages")
    assert [entry.key for entry in entries] == ["000000000003", "000000000004"]
    local.add_messages([HumanMessage("other", id="id-1"), RemoveMessage(id="id-1")])
    assert contents(local.messages) == ["be kind", "2"]
    local.add_messages([SystemMessage("be kinder", id="rules")])
    assert contents(local.messages) == ["be kinder", "2"]


# Many at once.


def test_threads_add_all_their_messages_each_in_its_own_order(store: agentmem.Store) -> None:
    def add(worker: int) -> None:
        mine = history_of(store)
        for number in range(5):
            mine.add_messages([HumanMessage(f"{worker}:{number}"), AIMessage(f"{worker}:{number}")])

    threads = [threading.Thread(target=add, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = contents(history_of(store).messages)
    assert found[::2] == found[1::2]
    for worker in range(4):
        mine = [text for text in found[::2] if text.startswith(f"{worker}:")]
        assert mine == [f"{worker}:{number}" for number in range(5)]


async def test_async_calls_do_the_same(history: AgentMemChatMessageHistory) -> None:
    await asyncio.gather(*(history.aadd_messages(numbered(2, 2 * n)) for n in range(3)))
    assert sorted(contents(await history.aget_messages())) == list("012345")
    await history.aadd_messages([HumanMessage("once")], op_id="o")
    await history.aadd_messages([HumanMessage("once")], op_id="o")
    assert contents((await history.apage(1)).messages) == ["once"]
    assert await history.atrim(max_messages=2) == 5
    await history.aclear()
    assert await history.aget_messages() == []


# In a chain.


def test_the_log_tells_in_which_run_a_message_was_added(store: agentmem.Store) -> None:
    asking = RunnableLambda(lambda text: history_of(store).add_messages([HumanMessage(text)]))
    asking.invoke("hi", {"configurable": {"thread_id": "thread-9"}})
    (commit,) = store.log()
    assert commit.metadata == {"session_id": "s1", "thread_id": "thread-9"}


def chain(store: agentmem.Store, answers: list[str], *, prompt: bool) -> Any:
    model = GenericFakeChatModel(messages=iter([AIMessage(answer) for answer in answers]))

    def session(session_id: str) -> BaseChatMessageHistory:
        return history_of(store, session_id)

    template = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("history"), ("human", "{question}")]
    )
    keys = {"input_messages_key": "question", "history_messages_key": "history"} if prompt else {}
    # Deprecated by LangChain in favour of LangGraph, which has its own part here; still in use.
    with pytest.warns(DeprecationWarning, match="RunnableWithMessageHistory is deprecated"):
        return RunnableWithMessageHistory(template | model if prompt else model, session, **keys)  # type: ignore[arg-type]  # of keys


@pytest.mark.parametrize("prompt", [True, False], ids=["prompt", "messages"])
async def test_a_chain_remembers_its_session(store: agentmem.Store, prompt: bool) -> None:
    runnable = chain(store, ["hi ann", "ann", "who?", "streamed words"], prompt=prompt)

    def given(text: str) -> Any:
        return {"question": text} if prompt else [HumanMessage(text)]

    ann: Any = {"configurable": {"session_id": "ann", "thread_id": "thread-9"}}
    bob: Any = {"configurable": {"session_id": "bob"}}
    assert runnable.invoke(given("i am ann"), ann).content == "hi ann"
    assert (await runnable.ainvoke(given("who am i?"), ann)).content == "ann"
    runnable.invoke(given("who am i?"), bob)
    assert "".join(chunk.content for chunk in runnable.stream(given("more"), ann))
    found = history_of(store, "ann").messages
    assert contents(found) == [
        "i am ann", "hi ann", "who am i?", "ann", "more", "streamed words",
    ]  # fmt: skip
    assert {type(message) for message in found} == {HumanMessage, AIMessage}
    assert contents(history_of(store, "bob").messages) == ["who am i?", "who?"]
    assert [commit.metadata for commit in store.log()][-1:] == [
        {"session_id": "ann", "thread_id": "thread-9"}
    ]


async def test_a_question_is_kept_though_others_add_to_the_session_meanwhile(
    store: agentmem.Store,
) -> None:
    def interrupted(text: Any) -> AIMessage:
        history_of(store).add_messages([HumanMessage("from another")])
        return AIMessage("answer")

    def session(session_id: str) -> BaseChatMessageHistory:
        return AgentMemChatMessageHistory(store, session_id, pinned=True)

    # Deprecated by LangChain in favour of LangGraph, which has its own part here; still in use.
    with pytest.warns(DeprecationWarning, match="RunnableWithMessageHistory is deprecated"):
        runnable: Any = RunnableWithMessageHistory(RunnableLambda(interrupted), session)  # type: ignore[arg-type]  # of messages
    config = {"configurable": {"session_id": "s1"}}
    runnable.invoke([HumanMessage("first")], config)
    await runnable.ainvoke([HumanMessage("second")], config)
    assert contents(history_of(store).messages) == [
        "from another", "first", "answer", "from another", "second", "answer",
    ]  # fmt: skip


def test_a_pinned_history_shows_what_it_has_shown_until_it_adds(
    local: AgentMemChatMessageHistory,
) -> None:
    pinned = AgentMemChatMessageHistory(local.store, "s1", pinned=True)
    assert pinned.messages == []
    local.add_messages(numbered(2))
    assert pinned.messages == []
    assert len(pinned.page().messages) == 2
    pinned.add_messages(numbered(1, 2))
    assert contents(pinned.messages) == ["0", "1", "2"]
    pinned.clear()
    assert pinned.messages == []
