"""A forked child shares its parent's sockets; however it ends, they stay the parent's.

What a child is refused, on every engine, is in tests/race/test_forks.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.postgres_server import server_url, store_url

ENDING = Path(__file__).parent / "forked_ending.py"
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
]


@pytest.fixture
def url(new_store: Callable[[], str]) -> str:
    server_url()  # started here, not by a child
    return store_url(new_store())


@pytest.mark.parametrize("ending", ["exit", "collected", "closed", "killed"])
def test_the_parents_connections_are_the_same_after_a_child_has_ended(
    url: str, ending: str
) -> None:
    done = subprocess.run(
        [sys.executable, str(ENDING), url, ending],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["after"] == answer["before"], "the child ended a connection of its parent's"
    assert (answer["value"], answer["problems"]) == (2, [])
