"""What processes do to a chat history in these tests; `Crew` starts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.messages import HumanMessage

import agentmem
from langchain_agentmem.history import AgentMemChatMessageHistory

Report = Callable[[Any], None]
Begin = Callable[[], object]


def append(
    report: Report, begin: Begin, target: str, worker: int, commits: int, batch: int
) -> None:
    """Adds messages, some in one commit, and tells of each commit.

    Begun again after a kill, it adds all of them again, under the same ids.
    """
    with agentmem.open(target, durability="relaxed", embedder=None) as store:
        history = AgentMemChatMessageHistory(store, "shared", agent=f"worker-{worker}")
        begin()
        for commit in range(commits):
            numbers = range(commit * batch, (commit + 1) * batch)
            ids = [f"{worker}:{number}" for number in numbers]
            history.add_messages([HumanMessage(id, id=id) for id in ids])
            report(commit + 1)
