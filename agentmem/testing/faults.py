"""System calls that fail on purpose, by strace."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["failing_calls", "injected"]


def failing_calls(
    command: Sequence[str], *, call: str, error: str, when: str, log: Path
) -> list[str] | None:
    """The command under strace, so that some of its system calls fail; None without strace.

    Args:
        call: the system call, such as ``fsync``.
        error: with which error, such as ``EIO``.
        when: which of them, counted from 1 in each thread: ``3`` (the third), ``3+`` (and all
            that follow), ``3..5``.
        log: where strace notes the calls.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    inject = f"inject={call}:error={error}:when={when}"
    return [strace, "-f", "-qq", "-e", f"trace={call}", "-e", inject, "-o", str(log), *command]


def injected(log: Path) -> int:
    """How many system calls strace made fail."""
    return log.read_text().count("(INJECTED)") if log.exists() else 0
