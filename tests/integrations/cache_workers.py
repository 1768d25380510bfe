"""A model whose calls are counted, and processes that ask it; `Crew` starts them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_agentmem.cache import AgentMemCache

Report = Callable[[Any], None]
Begin = Callable[[], object]


class ScriptedModel(BaseChatModel):
    """Answers with what a function of the last message returns."""

    answer: Callable[[str], AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self.answer(str(messages[-1].content))
        return ChatResult(generations=[ChatGeneration(message=message)])


def ask(report: Report, begin: Begin, target: str, calls: str, hold_s: float, dies: bool) -> None:
    """Asks two things, each call of the model adds a byte to a file; may be killed in the first."""

    def answer(text: str) -> AIMessage:
        with Path(calls).open("a") as file:
            file.write("x" if text == "first" else "y")
        if dies and text == "first":
            report("dies")
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)  # not a measure: so that the others are likely to come meanwhile
        return AIMessage(f"answer to {text}")

    with AgentMemCache(target, hold_s=hold_s) as cache:
        model = ScriptedModel(answer=answer, cache=cache)
        if not dies:
            begin()
        report([model.invoke(text).content for text in ("first", "second")])
