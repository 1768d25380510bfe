"""History, log, differences and blame against plain lists; see `history_model`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import agentmem
from tests.contract.conftest import BACKENDS
from tests.property.history_model import Clock, Past


@pytest.mark.parametrize("engine", BACKENDS)
def test_what_is_asked_of_the_log_is_what_plain_lists_say(
    engine: str, tmp_path: Path, seed: int
) -> None:
    backend, clock = BACKENDS[engine], Clock()
    target = backend.target(tmp_path, "past")
    stores = [
        agentmem.open(target, clock=clock, embedder=None, durability="relaxed")
        for _handle in range(2)
    ]
    try:
        past = Past(stores, clock, random.Random(seed))
        for _turn in range(3):
            past.grow(100)
            past.check(25)
        assert len(past.commits) > 150
        assert stores[0].admin.verify().problems == []
    finally:
        for store in stores:
            store.close()
        backend.remove({target})
