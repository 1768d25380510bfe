"""Forked processes: what is refused, and what a child must not hold or lose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentmem

SCRIPT = Path(__file__).parent / "forked.py"
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
]


def run(scenario: str, target: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), scenario, target],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_forked_child_is_refused_everything_and_the_parent_goes_on(target: str) -> None:
    answer = run("refused", target)
    assert isinstance(answer["child"], dict), answer["child"]
    allowed = {
        name: error for name, error in answer["child"].items() if error != "ForkedStoreError"
    }
    assert allowed == {}
    assert answer["store.close"] == "no error"
    assert (answer["parent"], answer["problems"]) == (1, [])


def test_a_child_that_opens_the_store_anew_loses_nothing_when_its_parent_closes(
    target: str,
) -> None:
    assert run("reopened", target) == {"lost": [], "problems": []}


def test_a_forked_child_does_not_hold_the_lock_of_its_dead_parent(target: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, str(SCRIPT), "orphaned", target], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = json.loads(parent.stdout.readline())["child"]
    try:
        parent.kill()
        parent.wait()
        limits = agentmem.Limits(lock_timeout_ms=5_000)
        with agentmem.open(target, limits=limits, blind_writes="allow") as store:
            assert store["k"] == 0, "what was not committed is not there"
            assert store.put("k", 2).version == 2
            assert store.admin.verify().problems == []
        os.kill(child, 0)  # it still lives
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()
