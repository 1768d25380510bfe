"""What every test shares: deterministic Hypothesis runs and one seed for all else."""

from __future__ import annotations

import os
import signal
from typing import Final

import pytest
from hypothesis import settings

_SEED_VARIABLE: Final = "AGENTMEM_TEST_SEED"
_DEFAULT_SEED: Final = 20261123

# No deadline: the machines are noisy, and a slow example is no wrong one. Derandomized: a run
# that fails, fails again. Tests that want more examples say so, with max_examples alone.
settings.register_profile(
    "agentmem", deadline=None, print_blob=True, derandomize=True, max_examples=100
)
settings.load_profile("agentmem")


def _seed() -> int:
    text = os.environ.get(_SEED_VARIABLE, str(_DEFAULT_SEED))
    try:
        return int(text)
    except ValueError:
        raise pytest.UsageError(f"{_SEED_VARIABLE} must be an integer, not {text!r}") from None


def pytest_configure() -> None:
    """Lets children hear Ctrl-C: a shell starts what it runs in the background deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Names the seed, so that a failing run can be repeated."""
    return f"agentmem seed: {_SEED_VARIABLE}={_seed()}"


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of every random choice that is not Hypothesis's; ``AGENTMEM_TEST_SEED`` sets it."""
    return _seed()
