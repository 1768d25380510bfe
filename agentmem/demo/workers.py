"""What runs in the processes of the demo: ``python -m agentmem.demo.workers``, no other way.

A worker does the tasks that it is sent until there are no more. It opens each memory by itself,
once: it shares nothing with other processes but the files.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Any, Final

from agentmem.demo import coordinated, protected, uncoordinated, unprotected
from agentmem.demo.channel import Channel
from agentmem.demo.protected import Protected
from agentmem.demo.races import AGENTMEM
from agentmem.demo.unprotected import Unprotected

__all__ = ["main"]


_PROTECTED: Final = protected.WAYS | coordinated.WAYS
_UNPROTECTED: Final = unprotected.WAYS | uncoordinated.WAYS


class _Worker:
    """The memories that this process has open, by path."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._unprotected: dict[str, Unprotected] = {}
        self._protected: dict[str, Protected] = {}

    def do(self, task: dict[str, Any]) -> None:
        """Does one task and answers, unless the answer is to be lost."""
        path, way = task["path"], task["way"]
        if task["side"] == AGENTMEM:
            store = self._protected.get(path) or self._protected.setdefault(path, Protected(path))
            noticed = _PROTECTED[way](self._channel, store, task)
        else:
            memory = self._unprotected.get(path) or self._unprotected.setdefault(
                path, Unprotected(path)
            )
            noticed = _UNPROTECTED[way](self._channel, memory, task)
        if task.get("answer_is_lost"):
            # It is committed, and no one will hear of it.
            os.kill(os.getpid(), signal.SIGKILL)
        self._channel.tell("done", noticed=noticed)


def main() -> int:
    """Runs until there are no more tasks. Returns the exit status."""
    channel = Channel()
    worker = _Worker(channel)
    try:
        while True:
            worker.do(channel.hear())
    except (EOFError, BrokenPipeError):
        return 0
    except Exception:  # noqa: BLE001  # whatever it is, the parent reports it
        channel.tell("failed", error=traceback.format_exc())
        return 1


if __name__ == "__main__":
    sys.exit(main())
