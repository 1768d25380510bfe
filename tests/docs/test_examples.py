"""Every example is shown to run, and fails if what it promises is broken.

That each runs, and prints what ``examples/README.md`` shows, is tested with the documents.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import agentmem
from tests.docs.blocks import ROOT, blocks_of

EXAMPLES: Final = sorted((ROOT / "examples").glob("*.py"))
_TIMEOUT_S: Final = 240

# What each example promises, broken on purpose, in every process that the example starts.
_SABOTAGE: Final = {
    "shared_counter.py": """
        increment = agentmem.Store.increment
        def lose_those_of_agent_0(store, key):
            if store._scope.agent != "agent-0":
                increment(store, key)
        agentmem.Store.increment = lose_those_of_agent_0
    """,
    "merge_notes.py": """
        register = agentmem.Store.merge_hook
        def last_writer_wins(store, pattern):
            return lambda hook: register(store, pattern)(lambda conflict: conflict.ours)
        agentmem.Store.merge_hook = last_writer_wins
    """,
    "poisoned_memory.py": """
        import agentmem.provenance
        agentmem.provenance.READ = agentmem.provenance.UNDONE
    """,
    "typed_collection.py": """
        agentmem.merge.strategies_of = lambda model: agentmem.merge.ours
    """,
    "repair_not_abort.py": """
        transact = agentmem.Store.transact
        def run_again(store, fn, repair, **fields):
            return transact(store, fn, **fields)
        agentmem.Store.transact = run_again
    """,
    "conversation_memory.py": """
        transact = agentmem.Store.transact
        def forget_the_op_id(store, fn, op_id):
            return transact(store, fn)
        agentmem.Store.transact = forget_the_op_id
    """,
    "task_queue.py": """
        agentmem.Task.ack = lambda task, tx=None: None
    """,
    "tool_cache.py": """
        agentmem.Store.cached_tool = lambda store, **options: lambda function: function
    """,
    "shared_chat.py": """
        import langchain_agentmem.conversation
        langchain_agentmem.conversation.Conversation._numbers = lambda *arguments: {}
    """,
    "langchain_agent.py": """
        import uuid
        import langchain_agentmem.invocation
        def forget_which_call(run, message, call_id):
            return str(uuid.uuid4())
        langchain_agentmem.invocation._operation_id = forget_which_call
    """,
    "rag_that_does_not_drift.py": """
        import langchain_agentmem
        langchain_agentmem.AgentMemRetriever.at = lambda retriever: retriever
    """,
    "langgraph_team.py": """
        import langgraph_agentmem.store
        langgraph_agentmem.store.AgentMemStore._base = lambda store, caller, place: None
    """,
    "async_agents.py": """
        transact = agentmem.AsyncStore.transact
        async def forget_the_op_id(store, fn, op_id, **fields):
            return await transact(store, fn, **fields)
        agentmem.AsyncStore.transact = forget_the_op_id
    """,
    "event_driven.py": """
        agentmem.Transaction.ack = lambda tx, event: None
    """,
}


def _run(
    script: Path, *arguments: str, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        env=os.environ | ({"PYTHONPATH": str(path)} if path is not None else {}),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_example_says_what_it_shows_and_is_run_by_the_documents(script: Path) -> None:
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    command = f"python examples/{script.name}"
    assert command in docstring
    shown = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert f"| [{script.name}]({script.name}) |" in shown
    transcripts = [block.content for block in blocks_of(shown) if block.language == "console"]
    assert any(f"$ {command}" in each for each in transcripts)


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_example_fails_when_its_promise_is_broken(script: Path, tmp_path: Path) -> None:
    lines = [line[8:] for line in _SABOTAGE[script.name].splitlines()]
    sabotage = "\n".join(["import agentmem, agentmem.merge", *lines])
    # Python runs it at the start of every process, those that the example spawns too.
    (tmp_path / "sitecustomize.py").write_text(sabotage, encoding="utf-8")
    done = _run(script, path=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_conversation_memory_notices_a_turn_that_was_written_twice(tmp_path: Path) -> None:
    script = ROOT / "examples" / "conversation_memory.py"
    path = str(tmp_path / "memory.db")
    assert _run(script, "--kills", "0", "--store", path).returncode == 0
    with agentmem.open(path) as store:
        store.put("S1:3", {}, namespace="conversations/garden/session-01", overwrite=True)
    done = _run(script, "--kills", "0", "--store", path)
    assert done.returncode == 1
    assert "wrong: garden/S1:3 has 2 versions" in done.stdout


def test_conversation_memory_refuses_a_file_that_is_not_there() -> None:
    done = _run(ROOT / "examples" / "conversation_memory.py", "nowhere.jsonl")
    assert done.returncode == 2
    assert "nowhere.jsonl is not a file" in done.stderr
