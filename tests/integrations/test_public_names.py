"""The names of the package are found when they are asked for, and need only their own extra."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import langchain_agentmem
from agentmem import MissingExtraError

PACKAGE = Path(langchain_agentmem.__file__).parent

LIST_IMPORTS = """
import sys
import langchain_agentmem
print(*sorted({"langchain", "langchain_core", "langgraph"} & set(sys.modules)))
"""


def names_for_type_checkers() -> dict[str, str]:
    """The public names and their modules, as the block for type checkers has them."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {
        alias.name: (node.module or "").removeprefix("langchain_agentmem.")
        for node in imports
        for alias in node.names
    }


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    assert names_for_type_checkers() == langchain_agentmem._MODULES
    for name in langchain_agentmem.__all__:
        assert getattr(langchain_agentmem, name).__name__ == name
        assert name in dir(langchain_agentmem)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="AgentMemNothing"):
        langchain_agentmem.AgentMemNothing  # noqa: B018  # the access is what is tested


def test_importing_the_package_imports_no_framework() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(langchain_agentmem._MODULES, "AgentMemNothing", "missing_agents")
    monkeypatch.setitem(sys.modules, "langchain", None)
    monkeypatch.setattr(langchain_agentmem, "__path__", [str(PACKAGE), str(Path(__file__).parent)])
    with pytest.raises(MissingExtraError, match=r"agentmem-store\[agents\]") as caught:
        langchain_agentmem.AgentMemNothing  # noqa: B018  # the access is what is tested
    assert caught.value.extra == "agents"
