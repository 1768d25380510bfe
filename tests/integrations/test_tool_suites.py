"""The published suites for tools, as they are, for each of the eleven tools."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from langchain_core.messages import ToolCall
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

import agentmem
from langchain_agentmem import AgentMemToolkit
from tests import postgres_server
from tests.integrations.conftest import KINDS

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "memory_read": {"key": "plan"},
    "memory_list": {"namespace": "", "after": "log"},
    "memory_search": {"query": "Rome"},
    "memory_history": {"key": "plan"},
    "memory_write": {"key": "plan", "value": {"city": "Oslo"}, "version": 1},
    "memory_patch": {"key": "plan", "patch": {"days": 3}},
    "memory_append": {"key": "log", "items": ["booked"]},
    "memory_delete": {"key": "plan", "version": 1},
    "task_put": {"payload": {"city": "Lima"}},
    "task_claim": {"queue": "tasks"},
    "task_done": {"task": "filled in by the fixture", "result": "done"},
}


def furnished(
    store: agentmem.Store, namespace: object, name: str
) -> tuple[BaseTool, dict[str, Any]]:
    """A tool over a namespace in which its example can be done, and the example."""
    view = store.scoped(namespace)
    view.put("plan", {"city": "Rome"}, expected_version=0)
    view.append("log", "planned")
    queue = view.queue("tasks")
    queue.put({"city": "Rome"})
    example = dict(EXAMPLES[name])
    if name == "task_done":
        task = queue.claim("ann")
        assert task is not None
        example["task"] = f"{task.id}-{task.token}"
    (tool,) = AgentMemToolkit(store, namespace=namespace, tools=[name]).get_tools()
    return tool, example


@pytest.fixture(scope="module", params=KINDS)
def shared_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[agentmem.Store]:
    """One store of each kind for all tools; each test has a namespace of its own."""
    folder = tmp_path_factory.mktemp("tools")
    name = f"test_{hashlib.blake2b(str(folder).encode(), digest_size=8).hexdigest()}"
    targets = {"memory": ":memory:", "file": str(folder / "team.db")}
    target = targets.get(request.param) or postgres_server.store_url(name)
    with agentmem.open(target, durability="relaxed", embedder=None) as store:
        yield store
        assert store.admin.verify().problems == []
    if request.param == "postgres":
        postgres_server.drop([name])


class Suite:
    """What both suites are told of the tool under test."""

    _tool: BaseTool
    _example: dict[str, Any]

    @property
    def tool_constructor(self) -> BaseTool:
        """The tool."""
        return self._tool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        """Its example."""
        return self._example


class TestToolsAsPublished(Suite, ToolsUnitTests):
    """The unit tests."""

    @pytest.fixture(autouse=True, params=EXAMPLES)
    def tool_under_test(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
        """Over a store of its own."""
        with agentmem.open(tmp_path / "team.db", durability="relaxed", embedder=None) as store:
            self._tool, self._example = furnished(store, "team", request.param)
            yield


class TestToolsOnStoresAsPublished(Suite, ToolsIntegrationTests):
    """The integration tests, on each kind of store."""

    @pytest.fixture(autouse=True, params=EXAMPLES)
    def tool_under_test(self, request: pytest.FixtureRequest, shared_store: agentmem.Store) -> None:
        """In a namespace of its own."""
        self._tool, self._example = furnished(shared_store, (request.node.name,), request.param)

    def test_the_example_is_done(self, tool: BaseTool) -> None:
        """So that the suite does not pass on refusals."""
        call = ToolCall(
            name=tool.name, args=self.tool_invoke_params_example, id="123", type="tool_call"
        )
        message = tool.invoke(call)
        assert (message.status, message.artifact["refused"]) == ("success", False)


def test_every_tool_is_under_test(tmp_path: Path) -> None:
    with AgentMemToolkit(tmp_path / "team.db") as toolkit:
        assert [tool.name for tool in toolkit.get_tools()] == list(EXAMPLES)
