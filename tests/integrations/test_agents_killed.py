"""Agents are killed between the commit of a tool call and its checkpoint, and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem

pytestmark = pytest.mark.stress

_TIMEOUT_S = 120


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with something to work on."""
    with agentmem.open(tmp_path / "team.db", embedder=None) as store:
        store.put("plan", {"days": 3}, expected_version=0, agent="bob")
        store.append("log", "begun")
        store.put("old", 1, expected_version=0)
        for city in ("Rome", "Oslo"):
            store.queue("tasks").put(city)
        task = store.queue("mine").put("Lima")
        assert task
        store.queue("mine").claim("ann", visibility_s=3_600)
    return tmp_path / "team.db"


def run_agent(path: Path, *arguments: str, kill: bool = False, answer: Any = None) -> Any:
    """Runs the agent on; None: it was killed."""
    command = [
        sys.executable, "-m", "tests.integrations.agent_worker", str(path),
        str(path.with_name("checkpoints.db")), *arguments, "kill" if kill else "live",
    ]  # fmt: skip
    if answer is not None:
        command.append(json.dumps(answer))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if kill and done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Each call, and what it must say even if its process dies before anybody hears it.
CALLS: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("memory_append", {"key": "log", "items": ["x"]}, 'now version 2. It is:\n["begun", "x"]'),
    ("memory_patch", {"key": "plan", "patch": {"city": "Rome"}}, '"days": 3}'),
    ("memory_write", {"key": "new", "value": 1}, "Wrote new: now version 1."),
    ("memory_delete", {"key": "old", "version": 1}, "its deletion is version 2"),
    ("task_put", {"payload": "Bern"}, "is in queue tasks"),
    ("task_claim", {}, "\nRome"),
    ("task_done", {"task": "{mine}", "queue": "mine", "result": "ok"}, "is done. Its result"),
]


def test_calls_that_were_committed_when_their_process_died_are_applied_once(path: Path) -> None:
    with agentmem.open(path, embedder=None) as store:
        [task] = store.queue("mine").peek()
    script = json.dumps([call[:2] for call in CALLS]).replace("{mine}", f"{task.id}-{task.token}")
    assert run_agent(path, script, kill=True) is None
    with agentmem.open(path, embedder=None) as store:
        before = state(store)
        assert len(before["commits"]) == len(CALLS) - 1  # a task is put without a commit
        # Others go on meanwhile: what the resumed calls say is what they were told first.
        for key in ("plan", "old", "new"):
            store.put(key, {"days": 99}, overwrite=True)
    out = run_agent(path, script)
    for (name, _arguments, words), said in zip(CALLS, out["said"], strict=True):
        assert words in said, name
    with agentmem.open(path, embedder=None) as store:
        assert state(store) == before
        assert [store[key] for key in ("plan", "old", "new")] == [{"days": 99}] * 3
        assert store.admin.verify().problems == []


def state(store: agentmem.Store) -> dict[str, Any]:
    """What a second application of a call would change."""
    commits = [each for each in store.log() if each.metadata.get("thread_id") == "t"]
    return {
        "commits": [(commit.op_id, len(commit.changes)) for commit in commits],
        "tasks": [(task.id, task.state, task.attempts) for task in store.queue("tasks").peek()],
        "mine": [task.id for task in store.queue("mine").peek()],
        "log": store["log"],
    }


def test_what_a_person_decided_is_applied_once(path: Path) -> None:
    script = json.dumps([("memory_write", {"key": "plan", "value": {"days": 4}})])
    answer = {"value": {"days": 7}}
    assert run_agent(path, script) == {"said": [], "asked": [1]}
    assert run_agent(path, script, kill=True, answer=answer) is None
    with agentmem.open(path, embedder=None) as store:
        assert store["plan"] == {"days": 7}
        store.put("plan", {"days": 99}, overwrite=True)
    out = run_agent(path, script, answer=answer)
    assert out["asked"] == []
    assert (
        'another value than yours is written, as version 2. It is:\n{"days": 7}' in out["said"][0]
    )
    with agentmem.open(path, embedder=None) as store:
        assert [entry.value["days"] for entry in store.history("plan")] == [99, 7, 3]
