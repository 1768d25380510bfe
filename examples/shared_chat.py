"""Four agents talk in one session, some are killed: every message is there once, in order.

Each agent puts its questions to a model and adds question and answer to a chat history that all
share. Some are killed with SIGKILL, and begin again from their first question: messages whose id is
known are not added again. All ask the same questions, and share a cache: each is paid for once.

    python examples/shared_chat.py
    python examples/shared_chat.py 'postgresql://host/database?store=chats'

A store that is named must be new; without one, it is a file in a temporary folder. It needs
langchain-core, which comes with the extra `langchain`.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage

import agentmem
from langchain_agentmem import (
    AgentMemCache,
    AgentMemChatMessageHistory,
)

AGENTS = 4
QUESTIONS = ("Where to?", "When?", "Who comes along?", "What does it cost?", "Will it rain?")
PROCESSES = multiprocessing.get_context("spawn")


class PaidModel(GenericFakeChatModel):
    """Stands for a model: slow, and every call is counted in the store."""

    messages: Any = iter(())
    store: Any

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)
        self.store.increment("paid", namespace="bill")
        self.messages = iter([AIMessage(f"An answer to {messages[-1].content!r}")])
        return super()._generate(messages, *args, **kwargs)


def talk(target: str, agent: str, dies_after: int | None) -> None:
    with agentmem.open(target, agent=agent, embedder=None) as store:
        history = AgentMemChatMessageHistory(store, "trip")
        model = PaidModel(store=store, cache=AgentMemCache(store))
        for number, text in enumerate(QUESTIONS):
            if number == dies_after:
                os.kill(os.getpid(), signal.SIGKILL)
            question = HumanMessage(text, name=agent, id=f"{agent}:{number}:question")
            answer = model.invoke(text).model_copy(
                update={"name": agent, "id": f"{agent}:{number}:answer"}
            )
            history.add_messages([question, answer])


def run(target: str, lives: dict[str, int | None]) -> int:
    """Runs an agent a process; returns how many were killed."""
    processes = [
        PROCESSES.Process(target=talk, args=(target, agent, dies_after))
        for agent, dies_after in lives.items()
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sum(process.exitcode == -signal.SIGKILL for process in processes)


def wrong(store: agentmem.Store) -> list[str]:
    """What is not as promised, in words."""
    found = []
    messages = AgentMemChatMessageHistory(store, "trip").messages
    for agent in range(AGENTS):
        expected = [
            f"agent-{agent}:{number}:{part}"
            for number in range(len(QUESTIONS))
            for part in ("question", "answer")
        ]
        if [message.id for message in messages if message.name == f"agent-{agent}"] != expected:
            found.append(f"agent-{agent}: a message is missing, doubled, or out of order")
    if any(
        question.name != answer.name
        for question, answer in zip(messages[::2], messages[1::2], strict=True)
    ):
        found.append("an answer does not follow its question")
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        target = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "chats.db")
        agents = [f"agent-{number}" for number in range(AGENTS)]
        killed = run(target, {agent: (None, 2, 4, 1)[n] for n, agent in enumerate(agents)})
        run(target, dict.fromkeys(agents))
        with agentmem.open(target, embedder=None) as store:
            count = len(AgentMemChatMessageHistory(store, "trip").messages)
            paid = store.scoped("bill")["paid"]
            problems = wrong(store)
        print(f"{AGENTS} agents, {killed} of them killed and started again")
        print(f"{count} messages in one session: {'; '.join(problems) or 'each once, in order'}")
        print(f"{AGENTS} x {len(QUESTIONS)} questions, paid for {paid} times")
        return 0 if not problems and paid == len(QUESTIONS) else 1


if __name__ == "__main__":
    sys.exit(main())
