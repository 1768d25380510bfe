"""Which run of a graph or chain is going on, for the log of commits and for operation ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

__all__ = ["Run", "current_run"]


@dataclass(frozen=True, slots=True)
class Run:
    """What LangChain and LangGraph tell of the run that a call is made in; None where they do not.

    Attributes:
        thread_id: the conversation.
        run_id: one invocation of the graph; another one after a resume.
        checkpoint_id: the checkpoint that the current step started from.
        checkpoint_ns: the (sub)graph and its task.
        task_id: one task of one step; the same in every retry and after a resume.
        node: the name of the node that the task runs.
        step: the number of the step in its thread.
    """

    thread_id: str | None = None
    run_id: str | None = None
    checkpoint_id: str | None = None
    checkpoint_ns: str | None = None
    task_id: str | None = None
    node: str | None = None
    step: int | None = None

    def metadata(self) -> dict[str, str | int]:
        """What is known, for the ``metadata`` of a commit."""
        named = ((name, getattr(self, name)) for name in _NAMES)
        return {name: value for name, value in named if value not in (None, "")}


_NAMES: Final = tuple(field.name for field in fields(Run))


def current_run(config: RunnableConfig | None = None) -> Run:
    """The run of that config, or the one that the caller is in; all None outside of any."""
    found = config if config is not None else var_child_runnable_config.get()
    if found is None:
        return Run()
    configurable: Mapping[str, Any] = found.get("configurable") or {}
    metadata: Mapping[str, Any] = found.get("metadata") or {}
    info = getattr(configurable.get("__pregel_runtime"), "execution_info", None)
    run_id = getattr(info, "run_id", None) or found.get("run_id") or metadata.get("run_id")
    step = metadata.get("langgraph_step")
    return Run(
        thread_id=_text(configurable.get("thread_id")),
        run_id=_text(run_id),
        checkpoint_id=_text(
            getattr(info, "checkpoint_id", None) or configurable.get("checkpoint_id")
        ),
        checkpoint_ns=_text(configurable.get("checkpoint_ns")),
        task_id=_text(getattr(info, "task_id", None) or configurable.get("__pregel_task_id")),
        node=_text(metadata.get("langgraph_node")),
        step=step if isinstance(step, int) else None,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
