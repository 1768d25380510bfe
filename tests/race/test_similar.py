"""Adding what is not there yet, from many processes at once."""

from __future__ import annotations

import pytest

from agentmem.testing.similar import add_similar, check_similar
from tests.contract.conftest import Backend

ITEMS = {"sqlite": 60, "postgres": 20}
PROCESSES = {"sqlite": 8, "postgres": 4}


@pytest.mark.stress
@pytest.mark.slow
def test_of_near_duplicates_one_is_stored(backend: Backend, target: str, seed: int) -> None:
    items = ITEMS[backend.name]
    add_similar(target, processes=PROCESSES[backend.name], items=items, seed=seed)
    assert check_similar(target, items) == []
