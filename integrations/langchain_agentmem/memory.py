"""The memory of classic chains (extra ``classic``), kept as a chat history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_classic.memory.chat_memory import BaseChatMemory
from langchain_core.messages import BaseMessage, get_buffer_string
from langchain_core.messages.utils import count_tokens_approximately

from langchain_agentmem.history import AgentMemChatMessageHistory
from langchain_agentmem.opening import Target

__all__ = ["AgentMemMemory"]


class AgentMemMemory(BaseChatMemory):
    """A ``BaseMemory`` for ``ConversationChain`` and other chains of ``langchain-classic``.

    ::

        memory = AgentMemMemory("team.db", "session-9", k=5)
        ConversationChain(llm=llm, memory=memory)

    Guarantees:
        What a turn adds, the input and the output, is one commit. The window that the prompt sees
        takes nothing away from what is kept.

    Attributes:
        memory_key: the name of the variable in the prompt.
        return_messages: whether that is messages, or one text.
        human_prefix, ai_prefix: who speaks, in that text.
        input_key, output_key: which input and output of the chain are kept; None: the only one.
        k: the prompt sees the last so many turns, of two messages each; None: no limit.
        max_tokens: the prompt sees at most so many tokens; None: no limit.
        token_counter: counts the tokens of a list of messages.
    """

    memory_key: str = "history"
    human_prefix: str = "Human"
    ai_prefix: str = "AI"
    k: int | None = None
    max_tokens: int | None = None
    token_counter: Callable[[list[BaseMessage]], int] = count_tokens_approximately

    def __init__(
        self,
        target: Target,
        session_id: str,
        *,
        namespace: object = ("chat",),
        agent: str | None = None,
        **fields: Any,
    ) -> None:
        """A memory of one session; the arguments are those of `AgentMemChatMessageHistory`.

        Args:
            target: an open store, or what `agentmem.open` takes; see `close`.
            session_id: the session, a label of a namespace.
            namespace: of all sessions.
            agent: who adds, for the log; None: the agent of the store.
            fields: the attributes above.
        """
        history = AgentMemChatMessageHistory(target, session_id, namespace=namespace, agent=agent)
        try:
            super().__init__(chat_memory=history, **fields)
        except BaseException:
            history.close()
            raise

    @property
    def memory_variables(self) -> list[str]:
        """The names of the variables that it adds to the prompt."""
        return [self.memory_key]

    def load_memory_variables(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What the prompt is to see of the conversation."""
        messages = self._history.window(
            max_messages=None if self.k is None else 2 * self.k,
            max_tokens=self.max_tokens,
            token_counter=self.token_counter,
        )
        if self.return_messages:
            return {self.memory_key: messages}
        text = get_buffer_string(messages, human_prefix=self.human_prefix, ai_prefix=self.ai_prefix)
        return {self.memory_key: text}

    def close(self) -> None:
        """Closes the store if it was opened here. May be called again."""
        self._history.close()

    @property
    def _history(self) -> AgentMemChatMessageHistory:
        assert isinstance(self.chat_memory, AgentMemChatMessageHistory), "made by __init__"
        return self.chat_memory
