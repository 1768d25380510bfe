"""Chat histories: one entry a message, in the order of the commits, each message once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, RemoveMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import run_in_executor

from agentmem import Entry, InvalidValueError, Limits, Transaction
from agentmem.namespaces import parse_namespace
from langchain_agentmem.conversation import Addition, Conversation, Removal, number_of
from langchain_agentmem.messages import message_of, message_value
from langchain_agentmem.opening import HoldsStore, Target
from langchain_agentmem.runs import current_run

__all__ = ["AgentMemChatMessageHistory", "Page"]

_NAMESPACE: Final = ("chat",)
_ATTEMPTS: Final = 1_000  # of a commit that others come before; each goes through the store's lane
_ALL: Final = "__remove_all__"  # LangGraph's REMOVE_ALL_MESSAGES


@dataclass(frozen=True, slots=True)
class Page:
    """Some messages of a history that follow each other.

    Attributes:
        messages: oldest first.
        before: give it to `AgentMemChatMessageHistory.page` for the next older page; None: there
            is no older one.
    """

    messages: list[BaseMessage]
    before: int | None


class AgentMemChatMessageHistory(HoldsStore, BaseChatMessageHistory):
    """The messages of one session, shared by all who open it.

    ::

        store = agentmem.open("team.db")
        history = AgentMemChatMessageHistory(store, "session-9")
        history.add_messages([HumanMessage("Where to?"), AIMessage("Rome.")])

    Guarantees:
        ``add_messages`` is one commit: all of its messages or none. Messages stand in the order of
        the commits that added them, whatever process they came from. A message whose id is known
        is not added again: with equal content nothing is written, with other content it changes in
        its place. Ids of messages that were trimmed or removed stay known until ``clear``.
    """

    def __init__(
        self,
        target: Target,
        session_id: str,
        *,
        namespace: object = _NAMESPACE,
        agent: str | None = None,
        searchable: bool = True,
        embed: str = "deferred",
        pinned: bool = False,
    ) -> None:
        """A history; nothing is written before the first message.

        Args:
            target: an open store, or what `agentmem.open` takes; see `close`.
            session_id: the session, a label of a namespace.
            namespace: of all sessions; the messages of one are in
                ``(*namespace, session_id, "messages")``.
            agent: who adds, for the log; None: the agent of the store.
            searchable: whether ``store.search`` finds the text of the messages.
            embed: ``"deferred"`` leaves vectors to the indexer, so that adding waits for no
                embedder; ``"now"`` makes them before the commit.
            pinned: ``messages`` stays as it was when it was first read, until this object adds
                some. For what makes a history for each call, as `RunnableWithMessageHistory` does:
                it counts ``messages`` before and after to find out what is new.
        """
        super().__init__()
        if not isinstance(session_id, str):
            raise TypeError(f"session_id is a str, not {type(session_id).__name__}")
        if embed not in ("now", "deferred"):
            raise InvalidValueError(f"embed is 'now' or 'deferred', not {embed!r}")
        labels = parse_namespace((*parse_namespace(namespace, Limits()), session_id), Limits())
        self._hold(target)
        self.session_id = session_id
        self._place = "/".join(labels)
        self._agent = agent
        self._searchable = searchable
        self._conversation = Conversation(labels, embed)
        self._pinned = pinned
        self._seen: list[Entry[Any]] | None = None  # what `messages` shows, if it is pinned

    # Reading.

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # read anew each time
        """All messages, oldest first, as of one moment. Long histories have `page`."""
        entries = self._seen
        if entries is None:
            entries = self._conversation.all(self.store.snapshot())
            self._seen = entries if self._pinned else None
        return [self._message(entry) for entry in entries]

    def page(self, limit: int = 20, *, before: int | None = None) -> Page:
        """The newest messages, or those before a page.

        Costs what the page costs, however long the history is. What is added meanwhile moves
        nothing: pages that follow each other hold each message once.

        Args:
            limit: at most so many messages.
            before: the ``before`` of the page that comes after; None is the newest page.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidValueError(f"limit is a positive integer, not {limit!r}")
        found = []
        for entry in self._conversation.newest_first(self.store.snapshot(), before):
            found.append(entry)
            if len(found) > limit:
                break
        older = number_of(found[limit - 1]) if len(found) > limit else None
        return Page([self._message(entry) for entry in reversed(found[:limit])], older)

    async def apage(self, limit: int = 20, *, before: int | None = None) -> Page:
        """As `page`, in a worker thread."""
        return await run_in_executor(None, self.page, limit, before=before)

    def newest_first(self) -> Iterator[BaseMessage]:
        """The messages from the newest to the oldest, as of one moment, read page by page."""
        for entry in self._conversation.newest_first(self.store.snapshot()):
            yield self._message(entry)

    def window(
        self,
        *,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        token_counter: Callable[[list[BaseMessage]], int] = count_tokens_approximately,
    ) -> list[BaseMessage]:
        """The newest messages, oldest first; the others are not read.

        Args:
            max_messages: at most so many.
            max_tokens: at most so many tokens, each message counted by itself.
            token_counter: counts the tokens of a list of messages.
        """
        room = _Room(max_messages, max_tokens, token_counter)
        return list(takewhile(room.takes, self.newest_first()))[::-1]

    def _message(self, entry: Entry[Any]) -> BaseMessage:
        return message_of(entry.value, f"{self._place}/messages/{entry.key}")

    # Adding.

    def add_messages(self, messages: Sequence[BaseMessage], *, op_id: str | None = None) -> None:
        """Adds messages in one commit, each message once.

        A ``RemoveMessage`` takes the message with its id away, if it is there; with LangGraph's
        ``REMOVE_ALL_MESSAGES`` all that are there by then.

        Args:
            messages: in their order. Without an id, each is a new message.
            op_id: applies once, so that a retry adds nothing, messages without an id included.

        Raises:
            InvalidValueError: a message is of a type that is not stored, or holds what is not
                JSON; nothing was written.
            LimitExceededError: a message is too large, or they are more than one transaction may
                write.
        """
        changes = [self._change(message) for message in messages]
        if not changes:
            return

        def add(tx: Transaction) -> None:
            self._conversation.apply(tx, changes)

        note = f"add {_counted(len(changes))}"
        if Removal(None) in changes:
            self._take_away(add, note, op_id)
        else:
            self._transact(add, note, op_id)

    async def aadd_messages(
        self, messages: Sequence[BaseMessage], *, op_id: str | None = None
    ) -> None:
        """As `add_messages`, in a worker thread."""
        await run_in_executor(None, self.add_messages, messages, op_id=op_id)

    def _change(self, message: BaseMessage) -> Addition | Removal:
        if isinstance(message, RemoveMessage):
            return Removal(None if message.id == _ALL else message.id)
        text: str | bool = str(message.text) if self._searchable else False
        return Addition(message_value(message), text or False)

    def _transact(
        self, change: Callable[[Transaction], Any], note: str, op_id: str | None = None
    ) -> Any:
        self._seen = None
        metadata = current_run().metadata() | {"session_id": self.session_id}
        return self.store.transact(
            change, attempts=_ATTEMPTS, agent=self._agent, op_id=op_id, note=note, metadata=metadata
        )

    # Taking away.

    def clear(self) -> None:
        """Takes all messages away, at one moment, and forgets their ids.

        As every delete it leaves the older versions in the log; ``store.admin.purge`` erases.
        """

        self._take_away(self._conversation.clear, "clear the messages")

    def trim(
        self,
        *,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        token_counter: Callable[[list[BaseMessage]], int] = count_tokens_approximately,
        start_on: str | Sequence[str] = (),
        include_system: bool = False,
    ) -> int:
        """Takes the oldest messages away, for good.

        Args:
            max_messages: how many stay, at most.
            max_tokens: what stays has at most so many tokens, each message counted by itself.
            token_counter: counts the tokens of a list of messages.
            start_on: types, such as ``"human"``: what stays begins with a message of one of them,
                so that no answer of a tool stays without its call.
            include_system: the first message stays, too, if it is a system message; it counts.

        Returns: how many messages were taken away.
        """
        if max_messages is None and max_tokens is None:
            raise TypeError("trim to what? give max_messages, or max_tokens, or both")
        types = (start_on,) if isinstance(start_on, str) else tuple(start_on)

        def trim(tx: Transaction) -> None:
            room = _Room(max_messages, max_tokens, token_counter)
            system = self._system(tx) if include_system else None
            if system is not None:
                room.takes(self._message(system))
            self._conversation.keep_from(tx, self._first_of(tx, room, types, system), system)

        return self._take_away(trim, "trim the messages")

    async def atrim(self, **options: Any) -> int:
        """As `trim`, in a worker thread."""
        return await run_in_executor(None, self.trim, **options)

    def _first_of(
        self, tx: Transaction, room: _Room, types: tuple[str, ...], system: Entry[Any] | None
    ) -> int:
        """The number of the oldest message that stays."""
        first = self._conversation.head(tx).next
        for entry in self._conversation.newest_first(tx):
            message = self._message(entry)
            if (system is not None and entry.key == system.key) or not room.takes(message):
                break
            if not types or message.type in types:
                first = number_of(entry)
        return first

    def _system(self, tx: Transaction) -> Entry[Any] | None:
        oldest = self._conversation.oldest(tx)
        is_system = oldest is not None and oldest.value.get("type") == "system"
        return oldest if is_system else None

    def _take_away(
        self, change: Callable[[Transaction], None], note: str, op_id: str | None = None
    ) -> int:
        """Makes a change, and deletes what is no part of the conversation after it.

        Of very many entries the later ones go in commits of their own; nobody sees them by then.

        Returns: how many messages were deleted.
        """
        sweep = self._conversation.sweep

        def change_and_sweep(tx: Transaction) -> tuple[int, bool]:
            change(tx)
            return sweep(tx)

        total, more = self._transact(change_and_sweep, note, op_id)
        while more:
            deleted, more = self._transact(sweep, f"{note}, go on")
            total += deleted
        return int(total)


class _Room:
    """What a trimmed history may still take."""

    def __init__(
        self,
        messages: int | None,
        tokens: int | None,
        token_counter: Callable[[list[BaseMessage]], int],
    ) -> None:
        for name, limit in (("max_messages", messages), ("max_tokens", tokens)):
            if limit is not None and (isinstance(limit, bool) or limit < 0):
                raise InvalidValueError(f"{name} is a number from 0 on, or None, not {limit!r}")
        self._messages = messages
        self._tokens = tokens
        self._token_counter = token_counter

    def takes(self, message: BaseMessage) -> bool:
        """Takes a message, if there is room for it."""
        if self._messages == 0:
            return False
        if self._messages is not None:
            self._messages -= 1
        if self._tokens is not None:
            self._tokens -= self._token_counter([message])
            if self._tokens < 0:
                return False
        return True


def _counted(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
